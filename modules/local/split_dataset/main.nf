process SPLIT_DATASET {
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/split_dataset:${workflow.manifest.version}"

    input:
    path records
    path receipts, stageAs: 'receipts/?/*'
    path dropped, stageAs: 'dropped/?/*'
    path samples, stageAs: 'samples/?/*'
    path erase, stageAs: 'erase/*'
    path previous, stageAs: 'previous/*'
    path tokenizer
    stdin

    output:
    path 'dataset', emit: dataset
    path 'dataset/dataset.json', emit: description
    path 'split_dataset.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pyarrow'), eval('package_version.py pyarrow'), topic: versions
    tuple val("${task.process}"), val('tokenizers'), eval('package_version.py tokenizers'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    split_dataset.py --records ${records} --receipts ${receipts} --dropped ${dropped} --samples ${samples} ${erase ? '--erase erase/*' : ''} ${previous ? '--previous previous' : ''} ${tokenizer ? "--tokenizer ${tokenizer}" : ''} ${args}
    """

    stub:
    """
    mkdir dataset
    touch dataset/train.parquet dataset/validation.parquet dataset/test.parquet dataset/dropped.parquet dataset/README.md dataset/croissant.json
    echo '{"sha256": "0", "splits": {"train": 8, "validation": 1, "test": 1}, "types": {"chat": 10}}' > dataset/dataset.json
    echo '{"step": "split_dataset"}' > split_dataset.json
    """
}
