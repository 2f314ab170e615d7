/*
 * The winner -> a release, and a report on everything
 */

include { fromJson         } from '../utils_llamaflow_pipeline/functions'
include { toJson           } from '../utils_llamaflow_pipeline/functions'
include { versionsToYaml   } from '../utils_llamaflow_pipeline/functions'
include { MERGE_MODEL      } from '../../../modules/local/merge_model'
include { PUBLISH_MODEL    } from '../../../modules/local/publish_model'
include { WRITE_MODEL_CARD } from '../../../modules/local/write_model_card'
include { WRITE_REPORT     } from '../../../modules/local/write_report'

workflow EXPORT {
    take:
    ch_winner      // value: winner.json
    ch_leaderboard // value: leaderboard.json
    ch_evaluations // value: list of directories
    ch_trials      // [meta, directory]
    ch_models      // [meta, directory]
    ch_dataset     // value: directory
    ch_description // value: dataset.json
    ch_receipts    // receipts of all steps so far
    ch_settings    // value: map of step -> settings

    main:
    // the winner, if the gate said yes: nothing is exported otherwise
    ch_released = ch_winner
        .map { file -> fromJson(file.text) }
        .filter { winner -> winner.passed }
        .map { winner -> [winner.trial_id] }
        .join(ch_trials.map { meta, trial -> [meta.id, meta, trial] })
        .map { _id, meta, trial -> [meta.model, meta, trial] }
        .join(ch_models.map { meta, model -> [meta.id, model] })
        .map { _id, meta, trial, model -> [meta, model, trial] }

    // adapter and base as one model, which must answer as they did
    MERGE_MODEL(
        ch_released.combine(ch_dataset).combine(ch_settings).map { meta, model, trial, dataset, settings ->
            [meta, model, trial, dataset, toJson(settings.merge_model)]
        }
    )

    // what it is, what it was made from, how good it is and what it cannot do
    WRITE_MODEL_CARD(
        ch_released,
        MERGE_MODEL.out.parity,
        ch_description,
        ch_leaderboard,
        ch_winner,
        ch_settings.map { settings -> toJson(settings.write_model_card) },
    )

    // one page for people
    ch_all_receipts = ch_receipts.mix(MERGE_MODEL.out.receipt, WRITE_MODEL_CARD.out.receipt)
    ch_all_trials   = ch_trials.map { _meta, trial -> trial }.toSortedList { one, other -> one.name <=> other.name }
    WRITE_REPORT(
        ch_description,
        ch_evaluations,
        ch_all_trials,
        ch_leaderboard,
        ch_winner,
        ch_all_receipts.toSortedList { one, other -> one.toString() <=> other.toString() },
        channel.topic('versions')
            .unique()
            .toSortedList { one, other -> one.toString() <=> other.toString() }
            .map { versions -> versionsToYaml(versions) }
            .collectFile(name: 'versions.yml'),
        ch_settings.map { settings -> toJson(settings.write_report) },
    )

    // the release directory, and an index of everything this run produced
    ch_parts = MERGE_MODEL.out.merged.map { _meta, merged -> merged }
        .mix(MERGE_MODEL.out.parity, WRITE_MODEL_CARD.out.card, ch_released.map { _meta, _model, trial -> trial })
        .toSortedList { one, other -> one.name <=> other.name }
    PUBLISH_MODEL(
        ch_winner,
        ch_parts,
        ch_dataset,
        ch_leaderboard,
        WRITE_REPORT.out.report,
        ch_evaluations,
        ch_all_trials,
        ch_settings.map { settings -> toJson(settings.publish_model) },
    )

    index = PUBLISH_MODEL.out.index

    emit:
    index // value: index.json
}
