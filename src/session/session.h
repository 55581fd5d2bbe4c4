/* session.h: everything a run consists of, opened from a Config in one place: backend,
 * communicators, data, parameter table, model, runtime, optimizer. Used by training, --dry-run and
 * benchmarks. */
#ifndef CRIA_SESSION_SESSION_H
#define CRIA_SESSION_SESSION_H

#include "comm/comm.h"
#include "config/config.h"
#include "cp/cp.h"
#include "data/loader.h"
#include "model/decode.h"
#include "model/llama.h"
#include "optim/optimizer.h"
#include "session/run_data.h"

/* What a stage (config.h) has of its own, or shares with the one before. */
typedef struct {
    const Config *config;
    Mask *slices; /* data.mask_file: of one sequence; empty without */
    CpRuntime *cp;
    bool owns_attention; /* these two */
} SessionStage;

typedef struct {
    const Config *run_config; /* of the whole run, with its stages; borrowed */
    SessionStage *stages;     /* [n_stages] */
    int n_stages, stage;      /* the present one, which session_enter() sets with all below: */
    const Config *config;     /* all keys as they are in it */
    const Ops *ops;
    CommSet comm;
    int world, rank, dp, dp_rank;
    int64_t micro_steps; /* micro-batches a rank runs per step */
    double step_tokens;  /* tokens of a global batch */
    Stream *stream;
    ParamTable *table;
    Arena arena;
    CpOptions cp_options;
    CpRuntime *cp;
    Llama *llama;
    Optimizer *optimizer;
    Decoder *decoder; /* of run.sample_every; NULL: no text is generated */
    double *losses;   /* [LLAMA_SUMS], device accumulators */
    RunData data;     /* of all stages */
    Dataset *train_data;
    ValSets val;
    LoaderOptions loader;
    char *hf; /* HF_ENTRY (ckpt/hf.h) of the checkpoint resumed from, for those saved; NULL: none */
    char *lineage; /* LINEAGE_ENTRY (ckpt/lineage.h) of this run, likewise */
    Comm *planned; /* of session_plan: a world and a cp group without ranks behind them */
} Session;

/* Options of benchmarks. */
typedef struct {
    bool without_data; /* train_data stays NULL, data and val empty */
    /* May replace backend and communicators before anything is built on them; NULL: as they are. */
    void (*wrap)(void *ctx, const Ops **ops, CommSet *comm);
    void *ctx;
} SessionOptions;

/* Opens backend, communicators and data, and reserves (not yet allocates) the memory that the
 * largest of the stages needs. Collective: every rank gets the same Status, rank 0 the message.
 * options NULL: none. The present stage is the first. */
Status session_open(Session *s, const Config *config, const SessionOptions *options);
/* Allocates, uploads constants. Weights are not set yet. Collective. */
Status session_start(Session *s);
/* Goes on in stage k, with everything that depends on it but the weights, in memory that is there
 * since the start. A loader of the stage before must be gone. */
Status session_enter(Session *s, int k);
void session_close(Session *s);

/* For `cria plan`: what session_open would make for rank 0 of `world` ranks, without MPI, devices
 * or data (train_data stays NULL when its files cannot be read; *no_data is then the reason, which
 * the caller frees). device cpu means fp32, cuda and auto mean bf16 on an H100, which refuses what
 * its kernels cannot run (ERR_USER; with auto a warning). no_data NULL: no data are opened, and
 * nothing is warned of. `config` is of one stage, or of a run without stages. */
Status session_plan(Session *s, const Config *config, int world, char **no_data);

#endif
