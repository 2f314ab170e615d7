/*
 * Before and after the story: parameters, inputs, help, and the last word
 */

include { CHECK_PARAMS } from '../../../modules/local/check_params'

workflow INITIALISE {
    take:
    params // all parameters as given

    main:
    answerAndExit(params)

    // steps that a digest cannot see: with it, an edit of bin/llamaflow re-runs the check, which knows what depends on what
    ch_checked = CHECK_PARAMS(
        toJson(withCheckpointDir(params)),
        isTable(params.input) ? existing('input', params.input) : [],
        params.trials ? existing('trials', params.trials) : [],
        params.chat_template ? existing('chat_template', params.chat_template) : [],
        codeDigest(),
    ).params.map { file -> fromJson(file.text) }

    ch_sources = ch_checked.flatMap { checked -> sourcesOf(checked.sources, params.input) }
    ch_models  = ch_checked.flatMap { checked -> modelsOf(checked.models) }

    emit:
    settings = ch_checked.map { checked -> checked.settings } // value: map of step -> settings
    sources  = ch_sources                                     // [meta, file or [], row of the samplesheet]
    models   = ch_models                                      // [meta, file or [], model reference]
    trials   = channel.value(params.trials ? file(params.trials) : [])
}

workflow COMPLETE {
    take:
    outdir   // where the results are
    ch_index // value: index.json

    main:
    ch_index.subscribe { index -> log.info(verdict(fromJson(index.text), outdir)) }
    workflow.onComplete = {
        if (!workflow.success) {
            log.error("LlamaFlow stopped before the end. What is done is kept: mend the cause above, then run the same command with -resume.")
        }
    }
}

def toJson(value) {
    return groovy.json.JsonOutput.toJson(value)
}

def fromJson(text) {
    return new groovy.json.JsonSlurper().parseText(text)
}

def answerAndExit(params) {
    if (params.version) {
        println("llamaflow ${workflow.manifest.version}")
        exit(0)
    }
    if (params.help || params.help_all) {
        println(help(params.help_all))
        exit(0)
    }
}

// The parameters by group, from the schema
def help(all) {
    def schema = fromJson(file("${projectDir}/nextflow_schema.json").text)
    def lines = ["llamaflow ${workflow.manifest.version}: ${workflow.manifest.description}", '', 'nextflow run llamaflow -params-file my.yaml', 'nextflow run llamaflow --input data.jsonl --models HuggingFaceTB/SmolLM2-135M-Instruct --outdir results', '']
    schema['$defs'].each { _name, group ->
        def shown = group.properties.findAll { _key, prop -> all || !prop.hidden }
        if (shown) {
            lines << group.title
            shown.each { key, prop -> lines.addAll(helpOf(key, prop, group.required ?: [])) }
            lines << ''
        }
    }
    if (!all) {
        lines << 'Rare parameters: --help_all'
    }
    return lines.join('\n')
}

def helpOf(key, prop, required) {
    def given = required.contains(key) ? 'required' : prop.containsKey('default') ? "default: ${prop['default']}" : ''
    def allowed = prop['enum'] ? " One of: ${prop['enum'].join(', ')}." : ''
    def words = "${prop.description}${allowed}${given ? " [${given}]" : ''}".toString().tokenize(' ')
    def text = ['']
    words.each { word -> (text[-1].length() + word.length() < 90) ? (text[-1] += "${word} ") : (text << "${word} ".toString()) }
    return text.withIndex().collect { line, index -> (index ? '' : "  --${key}").padRight(34) + line.trim() }
}

// Checkpoints outlive the task that wrote them, so they cannot lie in its work directory
def withCheckpointDir(params) {
    def given = params.checkpoint_dir ? file(params.checkpoint_dir).toAbsolutePath() : null
    def own = workflow.workDir.scheme == 'file' ? workflow.workDir.resolve('checkpoints') : null
    return params + [checkpoint_dir: (given ?: own)?.toString()]
}

def codeDigest() {
    def digest = java.security.MessageDigest.getInstance('SHA-256')
    files("${projectDir}/bin/{*.py,llamaflow/**.py}").sort { one, other -> one.toString() <=> other.toString() }.each { code -> digest.update(code.bytes) }
    return digest.digest().encodeHex().toString().take(16)
}

def isTable(input) {
    return input && input.toString() ==~ /.*\.[ct]sv/
}

def existing(name, path) {
    def found = file(path)
    if (!found.exists()) {
        error("--${name}: there is no file ${path}. Check the spelling; a relative path is taken from the directory where nextflow was started.")
    }
    return found
}

// Sources as [meta, file or [], row]: files are staged by Nextflow, addresses are fetched by the step
def sourcesOf(sources, input) {
    def base = isTable(input) ? file(input).parent : null
    def items = sources.withIndex().collect { source, position ->
        def local = source.path ==~ /https?:.*/ ? [] : located(source.path, base)
        [[id: source.id, position: position], local, source]
    }
    refuseMissing(items.findAll { _meta, local, _source -> local && !local.exists() }.collect { meta, local, _source -> "source ${meta.id}: ${local}" })
    return items
}

// A path in a samplesheet is relative to the samplesheet, or else to where nextflow was started
def located(path, base) {
    def beside = base != null ? base.resolve(path) : null
    return beside != null && beside.exists() ? beside : file(path)
}

def modelsOf(models) {
    def items = models.collect { reference ->
        [[id: reference.id], reference.kind == 'path' ? file(reference.source.replaceFirst('^~', System.getProperty('user.home'))) : [], reference]
    }
    refuseMissing(items.findAll { _meta, local, _reference -> local && !local.exists() }.collect { meta, local, _reference -> "model ${meta.id}: ${local}" })
    return items
}

def refuseMissing(missing) {
    if (missing) {
        error("these files do not exist:\n  ${missing.join('\n  ')}\nCheck the spelling. A path in a samplesheet is relative to the samplesheet.")
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

def verdict(index, outdir) {
    def report = "${outdir}/multiqc/multiqc_report.html"
    return index.published
        ? "Released ${index.release} : ${index.reason}\nReport: ${report}"
        : "Nothing was released: ${index.reason}\nReport: ${report}"
}
