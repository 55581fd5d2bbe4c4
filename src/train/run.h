/* run.h: a training run from its command line to its first step, and its end. */
#ifndef CRIA_TRAIN_RUN_H
#define CRIA_TRAIN_RUN_H

#include "data/loader.h"
#include "metrics/sink.h"
#include "session/train_state.h"
#include "train/eval.h"
#include "train/phase_log.h"
#include "train/rundir.h"
#include "train/saver.h"
#include "train/text_sample.h"
#include "train/throughput.h"
#include "train/train.h"

typedef struct {
    Session s;
    TrainState state;
    RunDir dir;
    Loader *loader;
    Sink *sink; /* passes records on to all sinks; to none on ranks other than 0 */
    Saver *saver;
    Hook *hook; /* of run.on_save; NULL: there is none */
    TextSampler sampler;
    Evaluator evaluator;
    int reported_stage; /* the last whose begin is in the logs */
    int64_t saved_step; /* of the newest checkpoint this run began or resumed; -1: none */
    Throughput throughput;
    PhaseLog phases;
    bool warned_of_eval; /* that the held-out data count for nothing */
} TrainRun;

/* Compares how ranks were started, opens devices and data, locks run.dir, loads or initialises the
 * weights, opens logs. *done: no step is to be run, as for --dry-run or after the last step.
 * Collective; on failure, too, *r is to be closed. */
Status run_open(TrainRun *r, const Config *config, const TrainOptions *options, bool *done);

/* Before a step: goes on in its stage, and logs the begin of that. Collective. */
Status run_enter_stage(TrainRun *r);

/* Ends a run that ended with `st`, whose message stays. Where every rank failed the checkpoint that
 * is being written is completed; where only this one did, the job is aborted, as others wait for
 * it. */
void run_close(TrainRun *r, Status st);

#endif
