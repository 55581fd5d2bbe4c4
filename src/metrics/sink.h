/* sink.h: where the numbers of a run go. */
#ifndef CRIA_METRICS_SINK_H
#define CRIA_METRICS_SINK_H

#include "comm/comm.h"
#include "config/config.h"
#include "model/linears.h"
#include "model/params.h"
#include "ops/phases.h"

/* Milliseconds per step over the ranks. */
typedef struct {
    double min, median, max;
    int rank; /* of the max, the first */
} PhaseSpread;
/* How one operand of a kind of linear layer fared in FP8, over all layers and ranks since the last
 * record. */
typedef struct {
    bool used;
    double absmax;    /* the largest absolute value, before scaling */
    double zeros;     /* share of the elements that became 0 and were not */
    double saturated; /* share that became the format's largest value */
} Fp8Shares;
typedef struct {
    Fp8Shares of[LINEAR_KINDS][OPERAND_KINDS];
} Fp8Record;

typedef struct {
    int64_t step, steps; /* updates done, updates of the run */
    double loss, grad_norm, lr;
    double tokens; /* seen by the run so far */
    double ms;     /* per step, mean since the last record */
    double tok_s, tok_s_gpu, tflops_gpu;
    double mfu;     /* 0: the device's peak is not known */
    double mem_gib; /* peak device memory of rank 0 */
    double data_ms; /* per step, waited for the loader */
    double eta_seconds;
    int64_t comm_bytes[COMM_KINDS]; /* sent by rank 0 per step */
    const PhaseSpread *phases;      /* [PHASES], mean since the last record; NULL: not timed */
    bool has_z_loss;
    double z_loss; /* per token; not in `loss` */
    bool has_grad_norms;
    double grad_norms[PARAM_CLASSES]; /* per token, as grad_norm, of which they are the parts */
    bool has_crc;
    uint32_t weights_crc;
    const Fp8Record *fp8; /* NULL: nothing is in FP8 */
} StepRecord;

/* Tokens with fewer than `end` tokens before them that they can see, and not fewer than the end of
 * the entry before: mean loss, number. */
typedef struct {
    int64_t end;
    double loss, tokens;
} EvalPosition;
enum { EVAL_POSITIONS_MAX = 32 };

/* The begin of another stage of the configuration. */
typedef struct {
    int64_t step;        /* updates done before its first one */
    const char *stage;   /* "stages[1]", as messages call it */
    const char *changes; /* members of a JSON object: the keys that it sets */
    double tokens;       /* seen by the run so far */
    int64_t sample;      /* of the data order that it begins with; 0: a new order begins */
} StageRecord;

/* What an evaluation found. A mean over nothing is NAN. */
typedef struct {
    const char *name;     /* of the set; NULL: it has none */
    double loss, tokens;  /* tokens counted in the loss */
    double bits_per_byte; /* NAN without data.tokenizer, too */
    EvalPosition positions[EVAL_POSITIONS_MAX];
    int n_positions;
} EvalNumbers;

typedef struct {
    int64_t step;
    EvalNumbers all; /* of all sets together */
    const EvalNumbers *sets;
    int n_sets; /* 0: data.val has no names */
} EvalRecord;

typedef struct {
    int64_t step;
    const char *path;
    int64_t bytes;
    double snapshot_seconds; /* that training stood still */
    double seconds;          /* from the begin until the file was on disk */
    uint32_t weights_crc;
} SaveRecord;

/* A text that the model has generated. */
typedef struct {
    int64_t step;
    const char *prompt, *text; /* what it began with, and how the model went on, in UTF-8 */
    int64_t tokens;            /* of `text` */
} SampleRecord;

/* What the guard (health/guard.h) did about a step: GUARD_PASSED is not recorded. */
typedef enum {
    GUARD_PASSED,     /* nothing is wrong */
    GUARD_WARNED,     /* a spike, which is only reported */
    GUARD_RECOMPUTED, /* the step was run again, and right then */
    GUARD_SKIPPED,    /* its update is left out */
    GUARD_STOPPED,    /* the run ends */
    GUARD_OUTCOMES
} GuardOutcome;

typedef struct {
    GuardOutcome outcome;
    char *message; /* what was found and done */
    int64_t step;  /* as in StepRecord */
    double loss, grad_norm;
    double z, mean; /* of the loss: standard deviations above the mean of the last steps */
    double norm_ratio, norm_mean;  /* of the gradient norm: times that mean */
    double again_loss, again_norm; /* of the second run; NAN: none */
    int64_t first_sample, samples; /* of the global batch */
} GuardRecord;

/* A rank whose computation takes longer than that of the others, record after record. */
typedef struct {
    int64_t step;
    int rank;
    const char *node;
    double compute_ms, median_ms; /* per step: its own, and of the ranks */
    int records;                  /* step records that these are means of */
    char *message;
} SlowRecord;

/* How a command of run.on_save ended. */
#define HOOK_OUTCOME_LIST(X)                                                                       \
    X(DONE, "done")                                                                                \
    X(FAILED, "failed")           /* another status than 0, or a signal */                         \
    X(ENDED, "ended")             /* by cria, at the end of the run */                             \
    X(REPLACED, "replaced")       /* not started: a newer checkpoint took its turn */              \
    X(NOT_STARTED, "not started") /* at the end of the run */
typedef enum {
#define X(id, name) HOOK_##id,
    HOOK_OUTCOME_LIST(X)
#undef X
} HookOutcome;

typedef struct {
    int64_t step;
    const char *path; /* of the checkpoint */
    HookOutcome outcome;
    int status; /* exit status; -1: a signal ended it */
    int signal; /* 0: none */
    double seconds;
} HookRecord;

typedef struct Sink Sink;
/* A function may be NULL: those records are not wanted. */
struct FIELDS_BY_NAME Sink {
    void (*step)(Sink *s, const StepRecord *r);
    void (*stage)(Sink *s, const StageRecord *r);
    void (*eval)(Sink *s, const EvalRecord *r);
    void (*sample)(Sink *s, const SampleRecord *r);
    /* The state of a step is copied and training goes on: what follows from the copy is not known.
     */
    void (*snapshot)(Sink *s, const SaveRecord *r);
    void (*save)(Sink *s, const SaveRecord *r);
    void (*guard)(Sink *s, const GuardRecord *r);
    void (*slow)(Sink *s, const SlowRecord *r);
    void (*hook)(Sink *s, const HookRecord *r);
    void (*free)(Sink *s);
};

/* The run whose records these are. */
typedef struct {
    const Config *config;
    const char *head; /* one line of JSON: configuration, versions, world */
    int64_t step;     /* updates done before; what earlier logs hold of later steps is abandoned */
} SinkRun;

/* log.jsonl's record of an evaluation, without the } at its end. */
StrBuf sink_eval_json(const EvalRecord *r);

/* The console and the logs of LOG_LIST (config.h). ERR_ENV where one cannot write; a log that
 * cannot be written later on is reported, and no reason to stop. */
Status sink_console_open(Sink **sink, const SinkRun *run);
#define X(name, default_, help) Status sink_##name##_open(Sink **sink, const SinkRun *run);
LOG_LIST(X)
#undef X

/* A sink that passes every record on to all that the configuration asks for. run NULL: to none, as
 * on ranks other than 0. On failure, too, *all is the caller's to free. */
Status sink_open_all(Sink **all, const SinkRun *run);

#endif
