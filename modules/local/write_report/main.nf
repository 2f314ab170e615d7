process WRITE_REPORT {
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/llamaflow/write_report:${workflow.manifest.version}"

    input:
    path dataset
    path evaluations, stageAs: 'evaluations/*'
    path trials, stageAs: 'trials/*'
    path leaderboard
    path winner
    path receipts, stageAs: 'receipts/?/*'
    path versions
    stdin

    // no versions here: the report waits for that topic to end, and would wait for itself
    output:
    path 'multiqc_report.html', emit: report
    path 'write_report.json', emit: receipt

    script:
    def args = task.ext.args ?: ''
    """
    write_report.py \
        --dataset ${dataset} --evaluations evaluations/* --trials trials/* --leaderboard ${leaderboard} --winner ${winner} \
        --receipts ${receipts} --versions ${versions} ${args}
    multiqc --quiet --strict --no-version-check --no-ansi --filename multiqc_report.html --config report_sections/multiqc_config.yml report_sections
    """

    stub:
    """
    touch multiqc_report.html
    echo '{"step": "write_report"}' > write_report.json
    """
}
