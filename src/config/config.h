/* config.h: the configuration of a run. One static table of keys (name, type, default, bounds,
 * help) drives parsing (libyaml events), key=value overrides, printing, `cria config` and the docs.
 */
#ifndef CRIA_CONFIG_CONFIG_H
#define CRIA_CONFIG_CONFIG_H

#include "base/base.h"

typedef enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA } DeviceKind;
typedef enum { FORMAT_AUTO, FORMAT_NANOGPT, FORMAT_MEGATRON, FORMAT_LLMC } DataFormat;
extern const char *const device_names[], *const data_format_names[]; /* end with NULL */
typedef enum { ORDER_CRIA, ORDER_MEGATRON } DataOrder;
/* X(ID, name) of every mask, see mask_build() in attn/mask.h. */
#define MASK_LIST(X)                                                                               \
    X(CAUSAL, causal)                                                                              \
    X(DOCUMENT, document)                                                                          \
    X(FULL, full)                                                                                  \
    X(PREFIX_LM, prefix_lm)                                                                        \
    X(SLICES, slices)
typedef enum {
#define X(id, name) MASK_##id,
    MASK_LIST(X)
#undef X
        MASK_KINDS
} MaskKind;
extern const char *const mask_names[MASK_KINDS + 1]; /* ends with NULL */
typedef enum { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_WSD } ScheduleKind;

/* X(NAME, default, help) of every log beside the console: the key log.NAME switches it on, and
 * metrics/NAME.c writes it. */
#define LOG_LIST(X)                                                                                \
    X(jsonl, "true", "Write run.dir/log.jsonl.")                                                   \
    X(tensorboard, "false", "Write TensorBoard events into run.dir.")

/* X(ID, name, properties) of every context-parallel backend, in the order in which reports list
 * them. attn/plan_backend.h plans a backend, cp/runtime.h runs it. */
#define CP_BACKEND_LIST(X)                                                                         \
    X(NONE, none, BACKEND_ONE_RANK)                                                                \
    X(RING, ring, BACKEND_NEIGHBOURS)                                                              \
    X(MAGI, magi, BACKEND_NEEDED_ROWS)                                                             \
    X(ALLGATHER, allgather, 0)                                                                     \
    X(ULYSSES, ulysses, BACKEND_SPLITS_HEADS)
typedef enum {
#define X(id, name, properties) BACKEND_##id,
    CP_BACKEND_LIST(X)
#undef X
        CP_BACKENDS
} CpBackend;
/* What checks of sizes and plans go by. */
typedef enum {
    BACKEND_ONE_RANK = 1,
    /* KV shards, two equal halves each, travel from rank to rank, a stage of attention for each */
    BACKEND_NEIGHBOURS = 2,
    /* only KV rows attended to move, in parallel.overlap_degree stages; any chunk size */
    BACKEND_NEEDED_ROWS = 4,
    /* a rank computes all tokens for a P-th of the heads */
    BACKEND_SPLITS_HEADS = 8
} BackendProperty;
extern const char *const cp_backend_names[CP_BACKENDS + 1]; /* ends with NULL */
/* Any of the properties. */
bool cp_backend_is(CpBackend backend, unsigned properties);

/* parallel.overlap_degree: the most stages that magi's remote part is cut into. */
enum { OVERLAP_DEGREE_MAX = 8 };
typedef enum { ACCUM_FP32, ACCUM_BF16 } RingAccum;
typedef enum { TRANSPORT_AUTO, TRANSPORT_NCCL } Transport;
typedef enum { GUARD_STOP, GUARD_SKIP, GUARD_WARN } GuardAction;
typedef enum { RECOMPUTE_NONE, RECOMPUTE_LAYER } Recompute;
typedef enum { PRECISION_BF16, PRECISION_FP8 } Precision;
typedef enum { FP8_GRADIENTS_E5M2, FP8_GRADIENTS_E4M3 } Fp8Gradients;

typedef struct {
    char *path;
    double weight; /* relative share of the samples; 0 = in proportion to its tokens */
    char *set;     /* data.val with names: the name of the set that it is of; else NULL */
} DataSource;
/* One more than the last of the n sources that are of the same set as sources[first]. */
int config_set_end(const DataSource *sources, int n, int first);

typedef struct {
    int layers, hidden, heads, kv_heads;
    int head_dim; /* 0 = hidden / heads (resolved by config_load) */
    int ffn, vocab;
    int64_t seq_len;
    bool tie_embeddings;
    double norm_eps, init_std, rope_theta;
    struct {
        double factor; /* 1 = no scaling */
        double low, high;
        int64_t original; /* context length of the unscaled model */
    } rope_scaling;
} ModelConfig;

/* With precision fp8: which linear layers are in FP8 (model/linears.h). */
typedef struct {
    int first_bf16, last_bf16; /* layers at either end that are not */
    Fp8Gradients gradients;    /* format of the gradients of outputs */
    bool head;                 /* the output head is, too */
} Fp8Config;

typedef struct {
    double lr, min_lr;
    ScheduleKind schedule;
    int schedule_start; /* step of the schedule that the first update has: 1, or 0 as in Megatron-LM
                         */
    int64_t warmup_steps;
    /* Step at which the decay ends, 0 = run.steps; for wsd: length of the final decay, 0 = a tenth
     * of run.steps. Both are resolved by config_load. */
    int64_t decay_steps;
    double beta1, beta2, eps, weight_decay;
    double clip;   /* 0 = no clipping */
    double z_loss; /* coefficient; 0 = none */
} OptimConfig;

/* An item of `stages`: keys that have other values from a step or token on. */
typedef struct {
    int64_t from;        /* updates done before its first one; 0: from_tokens says when */
    int64_t from_tokens; /* the first step after so many tokens of the run; 0: from says when */
    int line;            /* in the file; 0: it is of an override */
    int *keys, n_keys;   /* numbers of the keys in the table */
    struct Config *values;
} StageItem;

/* What holds from a step on until the next stage: an item of `stages`, a rise of batch.ramp, or
 * both. The first one is the file's own keys. */
typedef struct {
    int64_t from;          /* updates done before its first one */
    double tokens;         /* seen by then */
    char *name;            /* for messages: "stages[1]"; "" for the file's own keys */
    char *changes;         /* the keys that it sets: "key": value, as JSON, with ", " between */
    struct Config *config; /* all that holds; has no stages of its own */
} ConfigStage;

typedef struct Config {
    struct {
        char *dir;
        int64_t seed, steps, log_every, eval_every, eval_sequences, save_every, keep_last;
        double time_limit_minutes; /* 0 = none */
        double watchdog_seconds;   /* 0 = off */
        bool save_async, deterministic, allow_data_change, check_hardware;
        int64_t profile_from, profile_steps; /* step that a profile begins with, 0 = none */
        int64_t check_every; /* steps between comparisons of the ranks' weights; 0 = never */
        GuardAction on_nonfinite, on_spike;
        double spike_z;       /* of the loss: deviations above the running mean; 0 = off */
        double spike_norm;    /* of the gradient norm: times the running mean; 0 = off */
        int64_t max_skips;    /* in a row */
        int64_t sample_every; /* steps between texts that the model generates; 0 = never */
        char *sample_prompt;
        int64_t sample_tokens;
        char *on_save; /* command that is started after each checkpoint; "" = none */
        double on_save_minutes;
    } run;
    DeviceKind device;
    Precision precision;
    Fp8Config fp8;
    ModelConfig model;
    struct {
        DataSource *train, *val; /* val may be empty: then no evaluation; a set's are neighbours */
        int n_train, n_val;
        DataFormat format;
        char *split; /* "train,val,test" shares over documents; "" = files say it */
        DataOrder order;
        int64_t eod; /* id that ends a document; -1 = none */
        MaskKind mask;
        int64_t window;  /* a token sees at most this many previous tokens; 0 = no limit */
        int64_t prefix;  /* of mask prefix_lm: tokens that all tokens of their sequence see */
        char *mask_file; /* of mask slices */
        bool reset_positions, eod_mask_loss;
        char *tokenizer; /* the tokenizer.json that made the ids; "" = not known */
    } data;
    struct {
        int64_t global, micro; /* sequences per step; sequences per rank group and micro-batch */
        struct {
            int64_t from, step; /* sequences per step at first, and more of them at each rise */
            int64_t tokens;     /* of the run at the last rise, to `global`; 0: there is no ramp */
        } ramp;
    } batch;
    OptimConfig optim;
    struct {
        int cp;
        CpBackend backend;
        int64_t chunk_size; /* tokens; 0 = chosen by the planner */
        int overlap_degree; /* -1 = auto */
        RingAccum ring_accum;
        Transport transport;
        int zero; /* 0 | 1 */
    } parallel;
    struct {
        Recompute recompute;
        int64_t lm_head_chunk; /* rows of logits held at once; 0 = chosen */
    } memory;
    struct {
#define X(name, default_, help) bool name;
        LOG_LIST(X)
#undef X
        bool phases;     /* step records hold the phases of ops/phases.h */
        bool grad_norms; /* and gradient norms by class of tensors */
    } log;
    StageItem *stages;
    int n_stages;
    /* What config_load() makes of stages and batch.ramp, in the order of steps; n_timeline 0: there
     * are none, and the whole run is as this Config says. */
    ConfigStage *timeline;
    int n_timeline;
    int64_t stage_steps; /* of a stage's own Config: how many it has; 0: it is no stage's */
    StrBuf notes;        /* what overrides made other than the file says: a line each */
} Config;

/* Reads the file, then the overrides ("section.key=value"), checks everything that needs no world
 * size, and resolves what is 0 = derived. On ERR_USER the message lists ALL problems, one a line,
 * each with file:line or the override. *out must be freed in either case. */
Status config_load(Config *out, const char *path, int n_overrides, char *const *overrides);
/* The same from text in memory, named `name` in messages (tests, fuzzing, checkpoints). */
Status config_parse(Config *out, const char *name, const char *text, size_t len, int n_overrides,
                    char *const *overrides);
/* What depends on the number of ranks: cp, batch arithmetic, runtime limits. ERR_USER lists all. */
Status config_check_world(const Config *c, int world);
/* Logs each note as a warning. */
void config_warn_notes(const Config *c);
void config_free(Config *c);

/* ---- stages ---------------------------------------------------------------------------------- */

/* 1 for a run without stages. */
int config_n_stages(const Config *c);
/* The stage that update number `step` (1 is the first) belongs to; of step 0 the first. */
int config_stage_at(const Config *c, int64_t step);
/* What holds in stage k: *c itself in a run without stages. */
const Config *config_of_stage(const Config *c, int k);
/* Updates done before its first one, and at its end. */
int64_t config_stage_from(const Config *c, int k);
int64_t config_stage_end(const Config *c, int k);
/* Steps that these keys hold for: those of the run, or of the stage whose Config it is. */
int64_t config_steps(const Config *c);
/* The stages but the first one that begin after at least `first` and fewer than `end` updates:
 * [{"from": 100, "batch.global": 16}, ...], as JSON. */
void config_print_stages(const Config *c, int64_t first, int64_t end, StrBuf *out);
/* Leaves of *c what holds in stage k. */
void config_take_stage(Config *c, int k);

/* YAML that config_parse reads back to an equal Config. */
void config_print(const Config *c, StrBuf *out);
/* The keys of one section, such as "model", with its header. */
void config_print_section(const Config *c, const char *section, StrBuf *out);
/* As config_print, on one line of JSON (the log head). */
void config_print_json(const Config *c, StrBuf *out);
/* `cria config`: every key with type, default, bounds and help; of one key or section where `name`
 * is not "". ERR_USER when there is none of that name. */
Status config_print_help(const char *name, StrBuf *out);
/* The same as a page of Markdown, configs/KEYS.md: a line for each key. */
void config_print_markdown(StrBuf *out);
/* A line "section.key=value" for every key, to compare two of them. */
void config_print_lines(const Config *c, StrBuf *out);
/* CRC-32 over the keys that change results (model, data, batch, optim, seed), for resume checks. */
uint32_t config_hash(const Config *c);

/* ---- the configuration of a checkpoint and the present one ---------------------------------- */

/* Reads what config_print() wrote, perhaps in another version of cria: unknown keys are passed
 * over, keys that are missing have their defaults. ERR_USER when it is not such a text. Free *out
 * in either case. */
Status config_parse_printed(Config *out, const char *text);

/* What another value of a key does to a run that goes on from a checkpoint. */
typedef enum {
    DIFFERS_MODEL,   /* the weights would be taken for another function */
    DIFFERS_BATCHES, /* later batches would hold other tokens, or attention see others of them */
    DIFFERS_COURSE,  /* learning rate, batch size, what is done about bad steps, ... */
    DIFFERS_KINDS
} ConfigDifference;

/* Appends "KEY WAS -> IS" for every key of this kind that differs, with ", " between them; returns
 * their number. Keys that change no result (ranks, backends, logging, saving) are of no kind. */
int config_differences(const Config *was, const Config *is, ConfigDifference kind, StrBuf *out);

const char *config_enum_name(int value,
                             const char *key); /* e.g. (BACKEND_MAGI, "parallel.backend") */

#endif
