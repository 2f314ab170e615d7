/*
 * Sources -> one clean, split dataset
 */

include { reportSkipped       } from '../utils_llamaflow_pipeline/functions'
include { reportUncached      } from '../utils_llamaflow_pipeline/functions'
include { toJson              } from '../utils_llamaflow_pipeline/functions'
include { CLEAN_RECORDS       } from '../../../modules/local/clean_records'
include { COLLECT_SOURCE      } from '../../../modules/local/collect_source'
include { DEDUPLICATE_RECORDS } from '../../../modules/local/deduplicate_records'
include { FETCH_MODEL         } from '../../../modules/local/fetch_model'
include { FIND_NAMES          } from '../../../modules/local/find_names'
include { GENERATE_RECORDS    } from '../../../modules/local/generate_records'
include { SPLIT_DATASET       } from '../../../modules/local/split_dataset'

workflow PREPARE_DATA {
    take:
    ch_sources    // [meta, file or [], row of the samplesheet]
    ch_helpers    // [meta, file or [], model reference] of what finds names of people and of what counts tokens, if they are asked for
    ch_settings   // value: map of step -> settings
    ch_erase      // value: file with the people to be erased, or []
    ch_previous   // value: data set of an earlier run, or []
    ch_benchmarks // value: files with questions that are not to be trained on, or []

    main:
    // one task a source: read it, whatever its format, as records
    // and, where it reads on from an earlier run, what that run made of it
    ch_to_collect = ch_sources.combine(ch_settings).combine(ch_previous.map { files -> [files] }).map { meta, file, source, settings, previous ->
        [meta, file, source.watermark ? previous : [], toJson(settings.collect_source + [source: source])]
    }
    COLLECT_SOURCE(ch_to_collect)
    COLLECT_SOURCE.out.receipt.toList().subscribe { receipts ->
        reportUncached(receipts)
        reportSkipped(receipts)
    }

    // from here on one task a shard, since a large source has several
    ch_shards = COLLECT_SOURCE.out.records.flatMap { meta, shards ->
        [shards].flatten().sort { shard -> shard.name }.withIndex().collect { shard, index -> [meta + [shard: index + 1], shard] }
    }
    ch_collected = ch_shards.combine(ch_settings).branch { _meta, _records, settings ->
        of_people: settings.clean_records.personal_data.names_model
        ready: true
    }

    // models that help with the data, which run no code of their own
    FETCH_MODEL(
        ch_helpers.combine(ch_settings).map { meta, file, reference, settings ->
            [meta, file, toJson([code: settings.fetch_model.code, model: reference, parameter: meta.parameter])]
        }
    )
    ch_fetched = FETCH_MODEL.out.model.branch { meta, _model ->
        tokenizer: meta.parameter == 'tokenizer'
        names: true
    }

    // as values, [] where there is none: what counts tokens, and the same for cleaning if lengths have bounds in them
    ch_tokenizer = ch_fetched.tokenizer.map { _meta, model -> model }.ifEmpty([]).first()
    ch_bounds    = ch_tokenizer.map { model -> [model] }.combine(ch_settings).map { model, settings ->
        settings.clean_records.cleaning.min_tokens || settings.clean_records.cleaning.max_tokens ? model : []
    }.first()

    // names of people have no pattern: a model finds them, if there is one
    ch_of_people = ch_collected.of_people.map { meta, records, _settings -> [meta, records] }
    FIND_NAMES(
        ch_of_people.combine(ch_fetched.names.map { _meta, model -> model }).combine(ch_settings).map { meta, records, model, settings ->
            [meta, records, model, toJson(settings.find_names)]
        }
    )

    // repair and check every record
    ch_to_clean = ch_collected.ready
        .map { meta, records, _settings -> [meta, records, []] }
        .mix(ch_of_people.join(FIND_NAMES.out.names))
        .combine(ch_settings)
        .map { meta, records, names, settings -> [meta, records, names, toJson(settings.clean_records)] }
    CLEAN_RECORDS(ch_to_clean, ch_bounds)

    // of the texts of some sources, which are clean by now, a model makes questions and answers
    ch_records = CLEAN_RECORDS.out.records.combine(ch_settings).branch { meta, _records, settings ->
        texts: settings.generate_records.pairs_of?.containsKey(meta.id)
        ready: true
    }
    ch_to_generate = ch_records.texts.map { meta, records, settings ->
        [meta, records, toJson(settings.generate_records + [pairs_of: settings.generate_records.pairs_of.subMap([meta.id])])]
    }
    GENERATE_RECORDS(ch_to_generate, ch_erase, ch_bounds)

    // across all sources, in the order of the samplesheet: of records that say the same, or nearly, one is kept, and none with a question of a benchmark
    ch_ready = ch_records.ready
        .map { meta, records, _settings -> [meta, records] }
        .mix(GENERATE_RECORDS.out.records)
        .toSortedList { one, other -> one[0].position <=> other[0].position ?: one[0].shard <=> other[0].shard }
        .map { items -> items.collect { item -> item[1] } }
        .filter { records -> records }
    DEDUPLICATE_RECORDS(
        ch_ready,
        CLEAN_RECORDS.out.receipt.toSortedList { one, other -> one.toString() <=> other.toString() },
        ch_erase,
        ch_previous,
        ch_benchmarks,
        ch_settings.map { settings -> toJson(settings.deduplicate_records) },
    )

    // train, validation and test; what was dropped on the way, and why
    ch_receipts = COLLECT_SOURCE.out.receipt.mix(CLEAN_RECORDS.out.receipt, GENERATE_RECORDS.out.receipt, DEDUPLICATE_RECORDS.out.receipt)
    ch_dropped  = COLLECT_SOURCE.out.dropped.mix(CLEAN_RECORDS.out.dropped, GENERATE_RECORDS.out.dropped, DEDUPLICATE_RECORDS.out.dropped)
    SPLIT_DATASET(
        DEDUPLICATE_RECORDS.out.records,
        ch_receipts.toSortedList { one, other -> one.toString() <=> other.toString() },
        ch_dropped.toSortedList { one, other -> one.toString() <=> other.toString() },
        CLEAN_RECORDS.out.sample.toSortedList { one, other -> one.toString() <=> other.toString() },
        ch_erase,
        ch_previous,
        ch_tokenizer,
        ch_settings.map { settings -> toJson(settings.split_dataset) },
    )

    dataset     = SPLIT_DATASET.out.dataset
    description = SPLIT_DATASET.out.description
    receipts    = ch_receipts.mix(FETCH_MODEL.out.receipt, FIND_NAMES.out.receipt, SPLIT_DATASET.out.receipt)

    emit:
    dataset     // value: directory
    description // value: dataset.json
    receipts    // receipts of these steps
}
