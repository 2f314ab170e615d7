/*
 * The story: prepare data -> training grid -> evaluation -> export
 */

include { PREPARE_DATA  } from '../subworkflows/local/prepare_data'
include { TRAINING_GRID } from '../subworkflows/local/training_grid'
include { EVALUATION    } from '../subworkflows/local/evaluation'
include { EXPORT        } from '../subworkflows/local/export'

workflow LLAMAFLOW {
    take:
    ch_settings   // value: map of step -> settings
    ch_sources    // [meta, file or [], row of the samplesheet]
    ch_models     // [meta, file or [], model reference]
    ch_helpers    // [meta, file or [], model reference] of what finds names of people and of what counts tokens, if they are asked for
    ch_trials     // value: trials sheet or []
    ch_erase      // value: file with the people to be erased, or []
    ch_previous   // value: data set of an earlier run, or []
    ch_benchmarks // value: files with questions that are not to be trained on, or []

    main:
    // collect, clean, deduplicate and split the records of all sources
    PREPARE_DATA(ch_sources, ch_helpers, ch_settings, ch_erase, ch_previous, ch_benchmarks)

    // every model x technique x hyperparameters becomes a trained trial
    TRAINING_GRID(ch_models, PREPARE_DATA.out.dataset, PREPARE_DATA.out.description, ch_trials, ch_settings)

    // every trial and every base model on the same held-out rows; the best one is the winner
    EVALUATION(TRAINING_GRID.out.trials, TRAINING_GRID.out.models, PREPARE_DATA.out.dataset, ch_settings)

    // merge the winner, document it, report on everything, publish
    ch_receipts = PREPARE_DATA.out.receipts.mix(TRAINING_GRID.out.receipts, EVALUATION.out.receipts)
    EXPORT(
        EVALUATION.out.winner,
        EVALUATION.out.leaderboard,
        EVALUATION.out.evaluations,
        TRAINING_GRID.out.trials,
        TRAINING_GRID.out.models,
        PREPARE_DATA.out.dataset,
        PREPARE_DATA.out.description,
        ch_receipts,
        ch_settings,
    )

    index = EXPORT.out.index

    emit:
    index // index.json: what was produced, where
}
