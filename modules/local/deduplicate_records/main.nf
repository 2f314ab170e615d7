process DEDUPLICATE_RECORDS {
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/deduplicate_records:${workflow.manifest.version}"

    input:
    path records, stageAs: 'records/?/*'
    path receipts, stageAs: 'receipts/?/*'
    path erase, stageAs: 'erase/*'
    path previous, stageAs: 'previous/*'
    path benchmarks, stageAs: 'benchmarks/?/*'
    stdin

    output:
    path 'deduplicated.parquet', emit: records
    path 'deduplicate_records.dropped.parquet', emit: dropped
    path 'deduplicate_records.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pyarrow'), eval('package_version.py pyarrow'), topic: versions
    tuple val("${task.process}"), val('rensa'), eval('package_version.py rensa'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    deduplicate_records.py --records ${records} --receipts ${receipts} ${erase ? '--erase erase/*' : ''} ${previous ? '--previous previous' : ''} ${benchmarks ? '--benchmarks benchmarks/*/*' : ''} ${args}
    """

    stub:
    """
    touch deduplicated.parquet deduplicate_records.dropped.parquet
    echo '{"step": "deduplicate_records"}' > deduplicate_records.json
    """
}
