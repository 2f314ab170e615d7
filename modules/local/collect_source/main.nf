process COLLECT_SOURCE {
    tag "${meta.id}"
    label 'process_low'
    cache 'lenient' // meta.listing has the times of the files that are read; those of a directory change with what lies beside them

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/collect_source:${workflow.manifest.version}"

    input:
    tuple val(meta), path(source, stageAs: 'source/*'), path(previous, stageAs: 'previous/*'), '-'

    output:
    tuple val(meta), path('collected.parquet/*'), optional: true, emit: records // none of a source that is skipped
    path 'collect_source.dropped.parquet', emit: dropped
    path 'collect_source.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pyarrow'), eval('package_version.py pyarrow'), topic: versions
    tuple val("${task.process}"), val('httpx'), eval('package_version.py httpx'), topic: versions

    script:
    def args = task.ext.args ?: ''
    def last = task.attempt > task.maxRetries ? '--last-attempt' : ''
    """
    collect_source.py ${source ? '--path source/*' : ''} ${previous ? '--previous previous' : ''} ${last} ${args}
    """

    stub:
    """
    mkdir collected.parquet
    touch collected.parquet/00001.parquet collect_source.dropped.parquet
    echo '{"step": "collect_source"}' > collect_source.json
    """
}
