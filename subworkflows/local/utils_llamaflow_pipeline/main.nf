/*
 * Before and after the story: parameters, inputs, help, and the last word
 */

include { CHECK_PARAMS } from '../../../modules/local/check_params'
include { fromJson     } from './functions'
include { toJson       } from './functions'

workflow INITIALISE {
    take:
    params // all parameters as given

    main:
    refuseUnwritable(params.outdir)

    // steps that a digest cannot see: with it, an edit of bin/llamaflow re-runs the check, which knows what depends on what
    ch_checked = CHECK_PARAMS(
        toJson(withDirectories(params)),
        isTable(params.input) ? existing('input', params.input) : [],
        params.trials ? existing('trials', params.trials) : [],
        params.chat_template ? existing('chat_template', params.chat_template) : [],
        codeDigest(),
    ).params.map { file -> fromJson(file.text) }

    settings   = ch_checked.map { checked -> checked.settings }
    sources    = ch_checked.flatMap { checked -> sourcesOf(checked.sources, params.input, params.on_source_error == 'skip') }
    models     = ch_checked.flatMap { checked -> modelsOf(checked.models, 'models') + modelsOf([checked.teacher_model], 'teacher_model') }
    helpers    = ch_checked.flatMap { checked -> modelsOf([checked.names_model], 'names_model') + modelsOf([checked.tokenizer], 'tokenizer') }
    trials     = channel.value(params.trials ? file(params.trials) : [])
    erase      = channel.value(params.erase_subjects ? existing('erase_subjects', params.erase_subjects) : [])
    previous   = channel.value(params.previous_dataset ? datasetOf(params.previous_dataset) : [])
    benchmarks = channel.value(params.decontaminate_against ? filesOf('decontaminate_against', params.decontaminate_against) : [])

    // bare names: Nextflow 25.04's strict parser loses what is assigned here
    emit:
    settings   // value: map of step -> settings
    sources    // [meta, file or [], row of the samplesheet]
    models     // [meta, file or [], model reference]
    helpers    // [meta, file or [], model reference] of what finds names of people and of what counts tokens, if they are asked for
    trials     // value: trials sheet or []
    erase      // value: file with the people to be erased, or []
    previous   // value: data set of an earlier run, or []
    benchmarks // value: files with questions that are not to be trained on, or []
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

// What to print instead of running
def answer(params) {
    return params.version ? "llamaflow ${workflow.manifest.version}" : help(params.help_all)
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
    words.each { word ->
        if (text[-1].length() + word.length() >= 90) {
            text << ''
        }
        text[-1] = "${text[-1]}${word} ".toString()
    }
    return text.withIndex().collect { line, index -> (index ? '' : "  --${key}").padRight(34) + line.trim() }
}

// Checkpoints and fetched sources outlive the task that wrote them, so they cannot lie in its work directory; containers mount what is there
def withDirectories(params) {
    def own = workflow.workDir.scheme == 'file' ? workflow.workDir.resolve('checkpoints') : null
    return params + [checkpoint_dir: made(params.checkpoint_dir ?: own), source_cache: made(params.source_cache)]
}

def made(path) {
    def directory = path ? file(path).toAbsolutePath() : null
    directory?.mkdirs()
    return directory?.toString()
}

def codeDigest() {
    def digest = java.security.MessageDigest.getInstance('SHA-256')
    files("${projectDir}/bin/{*.py,llamaflow/**.py}").sort { one, other -> one.toString() <=> other.toString() }.each { code -> digest.update(code.bytes) }
    return digest.digest().encodeHex().toString().take(16)
}

def isTable(input) {
    return input && input.toString() ==~ /(?!hf:).*\.[ct]sv/
}

def existing(name, path) {
    def found = file(path)
    if (!found.exists()) {
        error("--${name}: there is no file ${path}. Check the spelling; a relative path is taken from the directory where nextflow was started.")
    }
    return found
}

// The data set of an earlier run, as files: of a directory, Nextflow would not see that what is in it changed
def datasetOf(directory) {
    return ['train.parquet', 'validation.parquet', 'test.parquet', 'dataset.json'].collect { name ->
        def found = file("${directory.toString().replaceFirst('/+$', '')}/${name}")
        found.exists() ? found : error("--previous_dataset: there is no ${name} in ${directory}. Give the directory data of an earlier run's results.")
    }
}

// Several paths, of files, directories or patterns, as files
def filesOf(name, given) {
    def paths = given instanceof List ? given*.toString() : given.toString().tokenize(',')*.trim()
    return paths.collectMany { path ->
        def isPattern = path.find(/[*?]/)
        def found = isPattern ? files(path) : existing(name, path).isDirectory() ? files("${path}/**") : [file(path)]
        found ? found.sort { one, other -> one.toString() <=> other.toString() } : error("--${name}: there is no file ${path}.")
    }
}

// Sources as [meta, file or [], row]: files are staged by Nextflow; addresses and stores are read by the step, servers asked by it
def sourcesOf(sources, input, skipping) {
    def base = isTable(input) ? file(input).parent : null
    def items = sources.withIndex().collect { source, position ->
        def found = source.path ==~ /(https?|postgresql|mysql|s3|gs|hf):.*/ ? [] : located(source.path, base)
        def local = found && skipping && !found.exists() ? [] : found // the step says that it is not there
        [[id: source.id, position: position] + (local && local.exists() ? [listing: listing(local, source.path)] : [:]), local, source]
    }
    refuseMissing(items.findAll { _meta, local, _source -> local && !local.exists() }.collect { meta, local, _source -> "source ${meta.id}: ${local.toUriString()}" })
    return items
}

// A path in a samplesheet is relative to the samplesheet, or else to where nextflow was started; of a pattern, the directory before it.
// Of a samplesheet elsewhere it stays there: whoever can change that table does not choose what is read on this machine
def located(path, base) {
    def parts = path.tokenize('/').takeWhile { part -> !part.find(/[*?]/) }
    def plain = "${path.startsWith('/') ? '/' : ''}${parts.join('/')}".toString() ?: '.'
    def beside = base != null ? base.resolve(plain) : null
    return beside != null && (base.scheme != 'file' || beside.exists()) ? beside : file(plain)
}

// Names, sizes and times of the files that are read: Nextflow sees those of the directory only, and would reuse what was read before
def listing(source, path) {
    def directory = source.scheme == 'file' ? source.toRealPath() : source
    def pattern = path.tokenize('/').dropWhile { part -> !part.find(/[*?]/) }.join('/') ?: '**'
    // ** means no directory too, as it does in the step
    def matchers = [pattern, pattern.replace('**/', '')].collect { glob -> directory.fileSystem.getPathMatcher("glob:${glob}") }
    def digest = java.security.MessageDigest.getInstance('SHA-256')
    java.nio.file.Files.walk(directory)
        .filter { entry -> entry == directory ? !java.nio.file.Files.isDirectory(entry) : matchers.any { matcher -> matcher.matches(directory.relativize(entry)) } }
        .sorted()
        .forEach { entry -> digest.update("${entry} ${java.nio.file.Files.getLastModifiedTime(entry, java.nio.file.LinkOption.NOFOLLOW_LINKS)} ${java.nio.file.Files.size(entry)}".getBytes('UTF-8')) }
    return digest.digest().encodeHex().toString().take(16)
}

// Models of a parameter as [meta, file or [], reference]
def modelsOf(models, parameter) {
    def items = models.findAll().collect { reference ->
        [[id: reference.id, parameter: parameter], reference.kind == 'path' ? file(reference.source.replaceFirst('^~', System.getProperty('user.home'))) : [], reference]
    }
    refuseMissing(items.findAll { _meta, local, _reference -> local && !local.exists() }.collect { meta, local, _reference -> "model ${meta.id}: ${local}" })
    return items
}

// Better now than after hours of training
def refuseUnwritable(outdir) {
    def directory = outdir ? file(outdir) : null
    if (directory != null && directory.scheme == 'file') {
        directory.mkdirs()
        if (!directory.isDirectory() || !java.nio.file.Files.isWritable(directory)) {
            error("--outdir: results cannot be written to ${outdir}. Choose another directory, or change its permissions.")
        }
    }
}

def refuseMissing(missing) {
    if (missing) {
        // said here, since Nextflow hides what an error inside an operator says
        log.error("these files do not exist:\n  ${missing.join('\n  ')}\nCheck the spelling. A path in a samplesheet is relative to the samplesheet.")
        error("missing files")
    }
}

def verdict(index, outdir) {
    def report = "${outdir}/multiqc/multiqc_report.html"
    return index.published
        ? "Released ${index.release} : ${index.reason}\nReport: ${report}"
        : "Nothing was released: ${index.reason}\nReport: ${report}"
}
