process CLEAN_RECORDS {
    tag "${meta.id}${meta.shard > 1 ? " ${meta.shard}" : ''}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/clean_records:${workflow.manifest.version}"

    input:
    tuple val(meta), path(records), path(names), '-'
    path tokenizer

    output:
    tuple val(meta), path('cleaned.parquet'), emit: records
    path 'clean_records.dropped.parquet', emit: dropped
    path 'clean_records.sample.jsonl', emit: sample
    path 'clean_records.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('ftfy'), eval('package_version.py ftfy'), topic: versions
    tuple val("${task.process}"), val('phonenumbers'), eval('package_version.py phonenumbers'), topic: versions
    tuple val("${task.process}"), val('py3langid'), eval('package_version.py py3langid'), topic: versions
    tuple val("${task.process}"), val('pyarrow'), eval('package_version.py pyarrow'), topic: versions
    tuple val("${task.process}"), val('python-stdnum'), eval('package_version.py python-stdnum'), topic: versions
    tuple val("${task.process}"), val('tokenizers'), eval('package_version.py tokenizers'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    clean_records.py --records ${records} ${names ? "--names ${names}" : ''} ${tokenizer ? "--tokenizer ${tokenizer}" : ''} ${args}
    """

    stub:
    """
    touch cleaned.parquet clean_records.dropped.parquet clean_records.sample.jsonl
    echo '{"step": "clean_records"}' > clean_records.json
    """
}
