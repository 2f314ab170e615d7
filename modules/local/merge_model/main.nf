process MERGE_MODEL {
    tag "${meta.id}"
    label 'process_training'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/merge_model:${workflow.manifest.version}"

    input:
    tuple val(meta), path(model), path(trial, stageAs: 'trial/*'), path(dataset), '-'

    output:
    tuple val(meta), path('merged'), emit: merged
    path 'parity.json', emit: parity
    path 'merge_model.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions
    tuple val("${task.process}"), val('peft'), eval('package_version.py peft'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    merge_model.py --model ${model} --trial trial/* --dataset ${dataset} ${args}
    """

    stub:
    """
    mkdir merged
    touch merged/model.safetensors
    echo '{"passed": true}' > parity.json
    echo '{"step": "merge_model"}' > merge_model.json
    """
}
