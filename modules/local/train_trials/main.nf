process TRAIN_TRIALS {
    tag "${meta.id}"
    label 'process_training'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/train_trials:${workflow.manifest.version}"

    input:
    tuple val(meta), path(model), path(tokens), '-'
    path dataset
    path teacher, stageAs: 'teacher/*'

    output:
    tuple val(meta), path('trials/*'), emit: trials
    path 'trials/*/train_trials.json', emit: receipts
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('torch'), eval('package_version.py torch'), topic: versions
    tuple val("${task.process}"), val('transformers'), eval('package_version.py transformers'), topic: versions
    tuple val("${task.process}"), val('peft'), eval('package_version.py peft'), topic: versions
    tuple val("${task.process}"), val('trl'), eval('package_version.py trl'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    train_trials.py --model ${model} --tokens ${tokens} --dataset ${dataset} ${teacher ? '--teacher teacher/*' : ''} ${args}
    """

    stub:
    """
    for trial in ${meta.trials.join(' ')}; do
        mkdir -p trials/\$trial/adapter
        touch trials/\$trial/adapter/adapter_model.safetensors trials/\$trial/history.jsonl trials/\$trial/events.tfevents
        echo '{}' > trials/\$trial/trial.json
        echo '{"step": "train_trials", "counts": {"status": "finished"}}' > trials/\$trial/train_trials.json
    done
    """
}
