process PLAN_TRIALS {
    label 'process_single'
    debug true // the plan is for the user to read

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/plan_trials:${workflow.manifest.version}"

    input:
    path dataset
    path models, stageAs: 'models/?/*'
    path teacher, stageAs: 'teacher/*'
    path trials, stageAs: 'trials/*'
    stdin

    output:
    path 'packs.jsonl', emit: packs
    path 'plan_trials.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pydantic'), eval('package_version.py pydantic'), topic: versions
    tuple val("${task.process}"), val('optuna'), eval('package_version.py optuna'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    plan_trials.py --dataset ${dataset} --models ${models} ${teacher ? '--teacher teacher/*' : ''} ${trials ? '--trials trials/*' : ''} ${args}
    """

    stub:
    """
    plan_trials.py --dataset ${dataset} --models ${models} ${teacher ? '--teacher teacher/*' : ''} ${trials ? '--trials trials/*' : ''}
    """
}
