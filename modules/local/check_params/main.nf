process CHECK_PARAMS {
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/check_params:${workflow.manifest.version}"

    input:
    stdin
    path table, stageAs: 'table/*'
    path trials, stageAs: 'trials/*'
    path template, stageAs: 'template/*'
    val code

    output:
    path 'params.json', emit: params
    path 'check_params.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pydantic'), eval('package_version.py pydantic'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    check_params.py \
        ${table ? '--input table/*' : ''} \
        ${trials ? '--trials trials/*' : ''} \
        ${template ? '--chat-template template/*' : ''} \
        ${args}
    """

    stub:
    """
    check_params.py \
        ${table ? '--input table/*' : ''} \
        ${trials ? '--trials trials/*' : ''} \
        ${template ? '--chat-template template/*' : ''}
    """
}
