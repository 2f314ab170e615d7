process EVALUATE_MODEL {
    tag "${meta.id}"
    label 'process_training'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/evaluate_model:${workflow.manifest.version}"

    input:
    tuple val(meta), path(model), path(trial, stageAs: 'trial/*'), path(dataset), '-'

    output:
    tuple val(meta), path("${meta.id}"), emit: evaluation
    path "${meta.id}/evaluate_model.json", emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions
    tuple val("${task.process}"), val('peft'), eval('package_version.py peft'), topic: versions
    tuple val("${task.process}"), val('evaluate'), eval('package_version.py evaluate'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    evaluate_model.py --model ${model} ${trial ? '--trial trial/*' : ''} --dataset ${dataset} ${args}
    """

    stub:
    """
    mkdir ${meta.id}
    touch ${meta.id}/predictions.parquet
    echo '{"id": "${meta.id}", "metrics": {}}' > ${meta.id}/metrics.json
    echo '{"step": "evaluate_model"}' > ${meta.id}/evaluate_model.json
    """
}
