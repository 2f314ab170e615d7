process PUBLISH_MODEL {
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/publish_model:${workflow.manifest.version}"

    input:
    path winner
    path release, stageAs: 'parts/*'
    path dataset, stageAs: 'results/data'
    path leaderboard, stageAs: 'results/*'
    path report, stageAs: 'results/multiqc/*'
    path evaluations, stageAs: 'results/evaluations/*'
    path trials, stageAs: 'results/trials/*'
    stdin

    // no versions here: the report waits for that topic to end, and would wait for itself
    output:
    path 'release', emit: release, optional: true
    path 'index.json', emit: index
    path 'publish_model.json', emit: receipt

    script:
    def args = task.ext.args ?: ''
    """
    publish_model.py --winner ${winner} ${release ? '--parts parts/*' : ''} --results results ${args}
    """

    stub:
    """
    mkdir -p release/model/0
    echo '{}' > release/model/0/manifest.json
    echo '{"published": true, "release": "release/model/0", "reason": "stub", "files": []}' > index.json
    echo '{"step": "publish_model"}' > publish_model.json
    """
}
