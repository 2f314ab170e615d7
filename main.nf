#!/usr/bin/env nextflow
/*
 * llamaflow/llamaflow: fine-tunes large language models end to end
 * https://github.com/llamaflow/llamaflow
 */

include { answer     } from './subworkflows/local/utils_llamaflow_pipeline'
include { INITIALISE } from './subworkflows/local/utils_llamaflow_pipeline'
include { COMPLETE   } from './subworkflows/local/utils_llamaflow_pipeline'
include { LLAMAFLOW  } from './workflows/llamaflow'

workflow {
    main:
    if (params.help || params.help_all || params.version) {
        println(answer(params))
    }
    else {
        // check parameters and inputs, and say what every step is to be given
        INITIALISE(params)

        // prepare data -> training grid -> evaluation -> export
        LLAMAFLOW(
            INITIALISE.out.settings,
            INITIALISE.out.sources,
            INITIALISE.out.models,
            INITIALISE.out.helpers,
            INITIALISE.out.trials,
            INITIALISE.out.erase,
            INITIALISE.out.previous,
            INITIALISE.out.benchmarks,
        )

        // tell the user how it ended and where the results are
        COMPLETE(params.outdir, LLAMAFLOW.out.index)
    }
}
