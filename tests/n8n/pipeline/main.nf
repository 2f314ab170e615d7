// Leaves an index as LlamaFlow does, after a while; or fails, once or each time, with the statuses that LlamaFlow fails with.

process WORK {
    script:
    """
    case ${params.ending} in
        soon) ;;
        late) sleep 90 ;;
        lost) [ -e ${launchDir}/tried ] || { touch ${launchDir}/tried; echo "the machine went away" >&2; exit 75; } ;;
        bad) echo "the data cannot be used as it is" >&2; exit 65 ;;
    esac
    """
}

workflow {
    file(params.outdir).mkdirs()
    file("${params.outdir}/leaderboard.json").text = '{"gate_metric": "rouge_l", "rows": [{"rank": 1, "id": "base-tiny", "metrics": {"rouge_l": {"value": 0.25}}}]}'
    file("${params.outdir}/index.json").text = '{"published": false, "reason": "No trial is better than its base.", "winner": null, "release": null, "files": []}'
    WORK()
}
