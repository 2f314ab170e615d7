process TOKENIZE_DATASET {
    tag "${meta.id}"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/tokenize_dataset:${workflow.manifest.version}"

    input:
    tuple val(meta), path(model), path(dataset), '-'

    output:
    tuple val(meta), path('tokens'), emit: tokens
    path 'tokenize_dataset.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    tokenize_dataset.py --model ${model} --dataset ${dataset} ${args}
    """

    stub:
    """
    mkdir tokens
    echo '{"max_length": 0, "splits": {}}' > tokens/tokens.json
    echo '{"step": "tokenize_dataset"}' > tokenize_dataset.json
    """
}
