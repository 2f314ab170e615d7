/*
 * Trials and base models -> leaderboard and winner
 */

include { toJson         } from '../utils_llamaflow_pipeline/functions'
include { EVALUATE_MODEL } from '../../../modules/local/evaluate_model'
include { RANK_TRIALS    } from '../../../modules/local/rank_trials'

workflow EVALUATION {
    take:
    ch_trials   // [meta, directory]
    ch_models   // [meta, directory]
    ch_dataset  // value: directory
    ch_settings // value: map of step -> settings

    main:
    // every base model and every trial that did not fail, on the same rows
    ch_bases = ch_models.map { meta, model -> [[id: "base-${meta.id}".toString(), model: meta.id], model, []] }
    ch_tuned = ch_trials
        .filter { _meta, trial -> trial.resolve('adapter').exists() || trial.resolve('model').exists() }
        .map { meta, trial -> [meta.model, meta, trial] }
        .combine(ch_models.map { meta, model -> [meta.id, model] }, by: 0)
        .map { _id, meta, trial, model -> [meta, model, trial] }
    ch_to_evaluate = ch_bases
        .mix(ch_tuned)
        .combine(ch_dataset)
        .combine(ch_settings)
        .map { meta, model, trial, dataset, settings ->
            [meta, model, trial, dataset, toJson(settings.evaluate_model + [id: meta.id])]
        }
    EVALUATE_MODEL(ch_to_evaluate)

    // leaderboard, and the trial that wins if its gain is beyond doubt
    ch_evaluations = EVALUATE_MODEL.out.evaluation
        .map { _meta, evaluation -> evaluation }
        .toSortedList { one, other -> one.name <=> other.name }
    RANK_TRIALS(
        ch_evaluations,
        ch_trials.map { _meta, trial -> trial }.toSortedList { one, other -> one.name <=> other.name },
        ch_settings.map { settings -> toJson(settings.rank_trials) },
    )

    evaluations = ch_evaluations
    leaderboard = RANK_TRIALS.out.leaderboard
    winner      = RANK_TRIALS.out.winner
    receipts    = EVALUATE_MODEL.out.receipt.mix(RANK_TRIALS.out.receipt)

    emit:
    evaluations // value: list of directories
    leaderboard // value: leaderboard.json
    winner      // value: winner.json
    receipts    // receipts of these steps
}
