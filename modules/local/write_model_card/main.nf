process WRITE_MODEL_CARD {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/write_model_card:${workflow.manifest.version}"

    input:
    tuple val(meta), path(model, stageAs: 'base/*'), path(trial, stageAs: 'trial/*')
    path parity
    path dataset
    path leaderboard
    path winner
    stdin

    output:
    path 'README.md', emit: card
    path 'write_model_card.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('pyyaml'), eval('package_version.py pyyaml'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    write_model_card.py --model base/*/model.json --trial trial/* --parity ${parity} --dataset ${dataset} --leaderboard ${leaderboard} --winner ${winner} ${args}
    """

    stub:
    """
    echo '# stub' > README.md
    echo '{"step": "write_model_card"}' > write_model_card.json
    """
}
