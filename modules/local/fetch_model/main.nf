process FETCH_MODEL {
    // receipts go by it, and the tokenizer that counts is mostly that of a model
    tag "${meta.id}${meta.parameter == 'tokenizer' ? ' tokenizer' : ''}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/fetch_model:${workflow.manifest.version}"

    input:
    tuple val(meta), path(local, stageAs: 'local/*'), '-'

    output:
    tuple val(meta), path('model'), emit: model
    path 'fetch_model.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    fetch_model.py ${local ? '--path local/*' : ''} ${args}
    """

    stub:
    """
    mkdir model
    touch model/model.safetensors model/tokenizer.json
    echo '{"id": "${meta.id}", "source": "stub", "revision": null, "sha256": "0", "tokenizer_sha256": "0", "chat_template": true}' > model/model.json
    echo '{"step": "fetch_model"}' > fetch_model.json
    """
}
