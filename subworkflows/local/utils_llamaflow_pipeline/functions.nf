/*
 * What several subworkflows need. In a file of its own: Nextflow loads a file once for each path that leads to it,
 * and its strict parser refuses processes that are there twice
 */

def toJson(value) {
    return groovy.json.JsonOutput.toJson(value)
}

def fromJson(text) {
    return new groovy.json.JsonSlurper().parseText(text)
}

// Sources that on_source_error left out, from the receipts of COLLECT_SOURCE
def reportSkipped(receipts) {
    def skipped = receipts.collect { file -> fromJson(file.text) }.findAll { receipt -> receipt.counts?.error }
    def reasons = skipped.collect { receipt -> "${receipt.settings.source.id}: ${receipt.counts.error}" }.sort().join('\n  ')
    if (skipped && skipped.size() == receipts.size()) {
        // said here, since Nextflow hides what an error inside an operator says
        log.error("no source could be read:\n  ${reasons}")
        error("no source could be read")
    }
    if (skipped) {
        log.warn("skipped sources:\n  ${reasons}")
    }
}

// A cache that is full or cannot be written costs time, and nobody would know why
def reportUncached(receipts) {
    def reasons = receipts.collect { file -> fromJson(file.text).counts?.source_cache_error }.findAll { reason -> reason }.unique()
    if (reasons) {
        log.warn(reasons.join('\n  '))
    }
}

// [process, name, version] -> the YAML that MultiQC shows as software versions
def versionsToYaml(versions) {
    def lines = []
    versions.groupBy { process, _name, _version -> process.tokenize(':')[-1] }.each { process, rows ->
        lines << "${process}:"
        rows.unique().each { row -> lines << "  ${row[1]}: '${row[2]}'" }
    }
    lines << 'Workflow:' << "  llamaflow: '${workflow.manifest.version}'" << "  Nextflow: '${workflow.nextflow.version}'"
    return lines.join('\n') + '\n'
}
