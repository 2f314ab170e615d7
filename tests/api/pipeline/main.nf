// A pipeline that does nothing much, in seconds: it greets, waits as long as it is told, and fails when it is told.

process GREET {
    tag "${number}"

    input:
    val number

    output:
    path 'greeting.txt'

    script:
    """
    echo "${params.word} ${number}" > greeting.txt
    """
}

process COLLECT {
    publishDir params.outdir, mode: 'copy'

    input:
    path 'greeting?.txt'
    path rows

    output:
    path '*.{json,csv,html}'

    script:
    """
    sleep ${params.seconds}
    ${params.fail ? 'echo "there is no sugar left" >&2; exit 3' : ''}
    echo '{"greetings": '\$(cat greeting*.txt | wc -l)', "rows": '\$(cat /dev/null ${rows} | wc -l)'}' > index.json
    echo 'word,times' > leaderboard.csv
    echo '<h1>${params.word}</h1>' > report.html
    """
}

workflow {
    GREET(channel.of(1..params.times))
    COLLECT(GREET.out.collect(), params.input ? file(params.input, checkIfExists: true) : [])
}
