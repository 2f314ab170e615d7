process GENERATE_RECORDS {
    tag "${meta.id}${meta.shard > 1 ? " ${meta.shard}" : ''}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/generate_records:${workflow.manifest.version}"

    input:
    tuple val(meta), path(records), '-'
    path erase, stageAs: 'erase/*'
    path tokenizer

    output:
    tuple val(meta), path('generated.parquet'), emit: records
    path 'generate_records.dropped.parquet', emit: dropped
    path 'generate_records.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('ftfy'), eval('package_version.py ftfy'), topic: versions
    tuple val("${task.process}"), val('httpx'), eval('package_version.py httpx'), topic: versions
    tuple val("${task.process}"), val('pyarrow'), eval('package_version.py pyarrow'), topic: versions
    tuple val("${task.process}"), val('tokenizers'), eval('package_version.py tokenizers'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    generate_records.py --records ${records} ${erase ? '--erase erase/*' : ''} ${tokenizer ? "--tokenizer ${tokenizer}" : ''} ${args}
    """

    stub:
    """
    touch generated.parquet generate_records.dropped.parquet
    echo '{"step": "generate_records"}' > generate_records.json
    """
}
