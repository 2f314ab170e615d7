/*
 * Models x techniques x hyperparameters -> trained trials
 */

include { fromJson         } from '../utils_llamaflow_pipeline/functions'
include { toJson           } from '../utils_llamaflow_pipeline/functions'
include { FETCH_MODEL      } from '../../../modules/local/fetch_model'
include { INITIALISE_MODEL } from '../../../modules/local/initialise_model'
include { PLAN_TRIALS      } from '../../../modules/local/plan_trials'
include { TOKENIZE_DATASET } from '../../../modules/local/tokenize_dataset'
include { TRAIN_TRIALS     } from '../../../modules/local/train_trials'

workflow TRAINING_GRID {
    take:
    ch_models      // [meta, file or [], model reference]
    ch_dataset     // value: directory
    ch_description // value: dataset.json
    ch_trials      // value: trials sheet or []
    ch_settings    // value: map of step -> settings

    main:
    // one task a model: every origin becomes a Hugging Face directory
    ch_to_fetch = ch_models.combine(ch_settings).map { meta, file, reference, settings ->
        [meta, file, toJson(settings.fetch_model + [model: reference, parameter: meta.parameter])]
    }
    FETCH_MODEL(ch_to_fetch)

    // the larger model that distillation learns from, if there is one, and those that are trained
    ch_roles = FETCH_MODEL.out.model.branch { meta, _model ->
        teacher: meta.parameter == 'teacher_model'
        student: true
    }

    // from scratch, only the architecture is kept: the weights are drawn, the tokenizer learns from the data
    ch_fetched = ch_roles.student.combine(ch_settings).branch { _meta, _model, settings ->
        anew: settings.initialise_model.scratch.from_scratch
        kept: true
    }
    INITIALISE_MODEL(
        ch_fetched.anew.combine(ch_dataset).map { meta, model, settings, dataset -> [meta, model, dataset, toJson(settings.initialise_model)] }
    )
    models = ch_fetched.kept.map { meta, model, _settings -> [meta, model] }.mix(INITIALISE_MODEL.out.model)

    // the product of the grid as trials, and which of them train together
    PLAN_TRIALS(
        ch_description,
        models.map { _meta, model -> model.resolve('model.json') }.toSortedList { one, other -> one.toString() <=> other.toString() },
        ch_roles.teacher.map { _meta, model -> model.resolve('model.json') }.toList(),
        ch_trials,
        ch_settings.map { settings -> toJson(settings.plan_trials) },
    )
    ch_packs = PLAN_TRIALS.out.packs
        .splitText()
        .map { line -> fromJson(line) }
        .map { pack -> [pack.model, pack] }
        .combine(models.map { meta, model -> [meta.id, model] }, by: 0)
        .map { _id, pack, model -> [pack.tokens, pack, model] }

    // once for each tokenizer and length
    ch_to_tokenize = ch_packs
        .unique { tokens, _pack, _model -> tokens }
        .combine(ch_dataset)
        .combine(ch_settings)
        .map { tokens, pack, model, dataset, settings ->
            [[id: tokens], model, dataset, toJson(settings.tokenize_dataset + [max_length: pack.max_length])]
        }
    TOKENIZE_DATASET(ch_to_tokenize)

    // a trial travels as a value on standard input, so that a grid that grows by one trial trains one trial
    ch_to_train = ch_packs
        .combine(TOKENIZE_DATASET.out.tokens.map { meta, tokens -> [meta.id, tokens] }, by: 0)
        .combine(ch_settings)
        .map { _id, pack, model, tokens, settings ->
            def meta = [id: pack.id, model: pack.model, trials: pack.trials.collect { trial -> trial.trial_id }]
            [meta, model, tokens, toJson(settings.train_trials + [grid: pack.grid, trials: pack.trials])]
        }
    TRAIN_TRIALS(ch_to_train, ch_dataset, ch_roles.teacher.map { _meta, model -> model }.toList())

    trials   = TRAIN_TRIALS.out.trials.transpose().map { meta, trial -> [[id: trial.name, model: meta.model], trial] }
    receipts = FETCH_MODEL.out.receipt.mix(
        INITIALISE_MODEL.out.receipt,
        PLAN_TRIALS.out.receipt,
        TOKENIZE_DATASET.out.receipt,
        TRAIN_TRIALS.out.receipts.flatten(),
    )

    emit:
    trials   // [meta, directory]; a failed trial has neither adapter nor model in it
    models   // [meta, directory]
    receipts // receipts of these steps
}
