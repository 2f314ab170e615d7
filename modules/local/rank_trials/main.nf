process RANK_TRIALS {
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/rank_trials:${workflow.manifest.version}"

    input:
    path evaluations, stageAs: 'evaluations/*'
    path trials, stageAs: 'trials/*'
    stdin

    output:
    path 'leaderboard.json', emit: leaderboard
    path 'leaderboard.csv', emit: table
    path 'winner.json', emit: winner
    path 'rank_trials.json', emit: receipt
    tuple val("${task.process}"), val('python'), eval('package_version.py python'), topic: versions
    tuple val("${task.process}"), val('numpy'), eval('package_version.py numpy'), topic: versions

    script:
    def args = task.ext.args ?: ''
    """
    rank_trials.py --evaluations evaluations/* --trials trials/* ${args}
    """

    stub:
    """
    echo '[]' > leaderboard.json
    echo 'rank,id' > leaderboard.csv
    printf '{"trial_id": "%s", "passed": true, "reason": "stub"}' "\$(ls trials | head -n 1)" > winner.json
    echo '{"step": "rank_trials"}' > rank_trials.json
    """
}
