process FIND_NAMES {
    tag "${meta.id}${meta.shard > 1 ? " ${meta.shard}" : ''}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/find_names:${workflow.manifest.version}"

    input:
    tuple val(meta), path(records), path(model), '-'

    output:
    tuple val(meta), path('names.parquet'), emit: names
    path 'find_names.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('ftfy'), eval('package_version.py ftfy'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    find_names.py --records ${records} --model ${model} ${args}
    """

    stub:
    """
    touch names.parquet
    echo '{"step": "find_names"}' > find_names.json
    """
}
