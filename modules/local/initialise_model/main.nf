process INITIALISE_MODEL {
    tag "${meta.id}"
    label 'process_medium'
    debug true // it says so if the data give a smaller vocabulary than was asked for

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/initialise_model:${workflow.manifest.version}"

    input:
    tuple val(meta), path(base, stageAs: 'base'), path(dataset), '-'

    output:
    tuple val(meta), path('model'), emit: model
    path 'initialise_model.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('tokenizers'), eval('package_version.py tokenizers'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    initialise_model.py --model ${base} --dataset ${dataset} ${args}
    """

    stub:
    """
    mkdir model
    touch model/model.safetensors model/tokenizer.json
    echo '{"id": "${meta.id}", "source": "stub", "revision": null, "sha256": "0", "tokenizer_sha256": "0", "chat_template": true}' > model/model.json
    echo '{"step": "initialise_model"}' > initialise_model.json
    """
}
