/* keys.c: the table of keys. A row's type comes from the type of its field in Config, so the
 * two cannot disagree. Keys of one section are neighbours; a sub-section ends its section. */
#include "config/keys.h"

#include <stdio.h>
#include <string.h>

#define COUNT_MAX 1e12

static const char *const device_names[] = {
    [DEVICE_AUTO] = "auto", [DEVICE_CPU] = "cpu", [DEVICE_CUDA] = "cuda", NULL};
static const char *const format_names[] = {[FORMAT_AUTO] = "auto",
                                           [FORMAT_NANOGPT] = "nanogpt",
                                           [FORMAT_MEGATRON] = "megatron",
                                           [FORMAT_LLMC] = "llmc",
                                           NULL};
static const char *const order_names[] = {
    [ORDER_CRIA] = "cria", [ORDER_MEGATRON] = "megatron", NULL};
static const char *const mask_names[] = {
    [MASK_CAUSAL] = "causal", [MASK_DOCUMENT] = "document", [MASK_FULL] = "full", NULL};
static const char *const schedule_names[] = {[SCHEDULE_CONSTANT] = "constant",
                                             [SCHEDULE_LINEAR] = "linear",
                                             [SCHEDULE_COSINE] = "cosine",
                                             [SCHEDULE_WSD] = "wsd",
                                             NULL};
static const char *const backend_names[] = {
    [BACKEND_NONE] = "none",           [BACKEND_RING] = "ring",       [BACKEND_MAGI] = "magi",
    [BACKEND_ALLGATHER] = "allgather", [BACKEND_ULYSSES] = "ulysses", NULL};
static const char *const accum_names[] = {[ACCUM_FP32] = "fp32", [ACCUM_BF16] = "bf16", NULL};
static const char *const transport_names[] = {
    [TRANSPORT_AUTO] = "auto", [TRANSPORT_NCCL] = "nccl", NULL};
/* After a loss that is not finite there is nothing to go on with: no warn. */
static const char *const nonfinite_names[] = {[GUARD_STOP] = "stop", [GUARD_SKIP] = "skip", NULL};
static const char *const spike_names[] = {
    [GUARD_STOP] = "stop", [GUARD_SKIP] = "skip", [GUARD_WARN] = "warn", NULL};
static const char *const recompute_names[] = {
    [RECOMPUTE_NONE] = "none", [RECOMPUTE_LAYER] = "layer", NULL};
static const char *const auto_name[] = {"auto", NULL};

_Static_assert(sizeof(DeviceKind) == sizeof(int), "enums are read and written as int");

#define TYPE_OF(field)                                                                             \
    _Generic(((Config *)0)->field,                                                                 \
        int: KEY_INT,                                                                              \
        int64_t: KEY_INT64,                                                                        \
        double: KEY_DOUBLE,                                                                        \
        bool: KEY_BOOL,                                                                            \
        char *: KEY_STRING,                                                                        \
        DataSource *: KEY_SOURCES,                                                                 \
        default: KEY_ENUM)
#define ROW(field, default_, min_, max_, names_, count_, unit_, help_)                             \
    {                                                                                              \
        .name = #field, .type = TYPE_OF(field), .offset = offsetof(Config, field),                 \
        .count_offset = count_, .default_value = default_, .min = min_, .max = max_,               \
        .names = names_, .unit = unit_, .help = help_                                              \
    }
#define NUM(field, default_value, min, max, unit, help)                                            \
    ROW(field, default_value, min, max, NULL, 0, unit, help)
#define NAMED(field, default_value, names, help) ROW(field, default_value, 0, 0, names, 0, "", help)
#define FLAG(field, default_value, help)         ROW(field, default_value, 0, 1, NULL, 0, "", help)
#define TEXT(field, default_value, min, max, help)                                                 \
    ROW(field, default_value, min, max, NULL, 0, "", help)
#define FILES(field, n, default_value, help)                                                       \
    ROW(field, default_value, 1, 4096, NULL, offsetof(Config, n), "", help)

const ConfigKey config_keys[] = {
    TEXT(run.dir, "runs/default", 1, 4096, "Directory for config.yaml, log.jsonl and checkpoints."),
    NUM(run.seed, "1234", 0, CONFIG_EXACT_MAX, "", "Seed of initialisation and data order."),
    NUM(run.steps, "1000", 1, COUNT_MAX, "steps", "Optimizer steps of the whole run."),
    NUM(run.log_every, "1", 1, COUNT_MAX, "steps", "Steps between log records."),
    NUM(run.eval_every, "0", 0, COUNT_MAX, "steps", "Steps between evaluations; 0 = never."),
    NUM(run.eval_sequences, "64", 1, COUNT_MAX, "sequences", "Sequences of an evaluation."),
    NUM(run.save_every, "0", 0, COUNT_MAX, "steps",
        "Steps between checkpoints; 0 = only when the run ends or is stopped."),
    NUM(run.keep_last, "0", 0, COUNT_MAX, "checkpoints", "Newest checkpoints kept; 0 = all."),
    FLAG(run.save_async, "true", "Training goes on while a copy of its state is written."),
    NUM(run.time_limit_minutes, "0", 0, 1e6, "minutes",
        "Save and stop (exit 4) after this long; 0 = no limit."),
    NUM(run.watchdog_seconds, "600", 0, 1e6, "seconds",
        "End the job when a step takes longer; 0 = off."),
    FLAG(run.deterministic, "false", "The same run gives the same bits, at some cost in speed."),
    NUM(run.check_every, "100", 0, COUNT_MAX, "steps",
        "Compare all ranks' weights, and before every save; 0 = never."),
    NAMED(run.on_nonfinite, "stop", nonfinite_names,
          "A NaN or infinite loss or gradient: exit 3, or leave the update out."),
    NUM(run.spike_z, "0", 0, 1e6, "standard deviations",
        "A loss this far above the mean of the last 100 steps is a spike; 0 = none is."),
    NUM(run.spike_norm, "0", 0, 1e6, "times the mean",
        "A gradient norm this far above that of the last 100 steps is one; 0 = none is."),
    NAMED(run.on_spike, "warn", spike_names,
          "A spike: exit 3, leave the update out, or only tell."),
    NUM(run.max_skips, "10", 1, COUNT_MAX, "steps",
        "Exit 3 when more updates in a row would be left out."),
    FLAG(run.allow_data_change, "false",
         "Resume although data, seed, seq_len or mask are not those of the checkpoint."),
    NAMED(device, "auto", device_names,
          "auto = cuda where there is a GPU, else cpu with a warning."),
    NUM(model.layers, NULL, 1, 1024, "", "Transformer layers."),
    NUM(model.hidden, NULL, 1, 65536, "", "Width of the residual stream."),
    NUM(model.heads, NULL, 1, 1024, "", "Query heads."),
    NUM(model.kv_heads, NULL, 1, 1024, "", "Key/value heads; must divide heads."),
    NUM(model.head_dim, "0", 0, 1024, "",
        "Width of a head, even (GPUs: a multiple of 16 up to 128); 0 = hidden / heads."),
    NUM(model.ffn, NULL, 1, 1 << 20, "", "Inner width of the SwiGLU feed-forward layer."),
    NUM(model.vocab, NULL, 2, 1 << 24, "", "Token ids; padded inside to a multiple of 128."),
    NUM(model.seq_len, NULL, 1, 1 << 29, "tokens", "Length of a training sequence."),
    FLAG(model.tie_embeddings, "false", "One matrix for the embedding and the output layer."),
    NUM(model.norm_eps, "1e-5", 1e-12, 1, "", "Epsilon of RMSNorm."),
    NUM(model.init_std, "0.02", 0, 10, "",
        "Deviation of initial weights; projections into the residual stream get it / sqrt(2 "
        "layers)."),
    NUM(model.rope_theta, "500000", 1, 1e12, "", "Base of the rotary position angles."),
    NUM(model.rope_scaling.factor, "1", 1, 1e6, "", "Llama-3 RoPE scaling factor; 1 = none."),
    NUM(model.rope_scaling.low, "1", 1e-6, 1e6, "",
        "Wavelengths above original / low are stretched by the whole factor."),
    NUM(model.rope_scaling.high, "4", 1e-6, 1e6, "",
        "Wavelengths below original / high are kept; between, a mixture."),
    NUM(model.rope_scaling.original, "8192", 1, COUNT_MAX, "tokens",
        "Context length of the unscaled model."),
    FILES(data.train, data.n_train, NULL,
          "Token files to train on. Relative paths start at the current directory."),
    FILES(data.val, data.n_val, "", "Token files to evaluate on; none = no evaluation."),
    NAMED(data.format, "auto", format_names, "Format of the token files; auto = by content."),
    TEXT(data.split, "", 0, 64,
         "\"train,val,test\" shares of data.train's documents, as 94,5,1; \"\" = no split."),
    NAMED(data.order, "cria", order_names,
          "megatron = the samples of Megatron-LM core_v0.11 in its order; depends on run.steps."),
    NUM(data.eod, "-1", -1, (1 << 24) - 1, "", "Token id that ends a document; -1 = none."),
    NAMED(data.mask, "causal", mask_names, "document = causal within each document."),
    NUM(data.window, "0", 0, 1 << 29, "tokens",
        "A token sees at most this many previous tokens; 0 = no limit."),
    FLAG(data.reset_positions, "false", "Positions start at 0 in every document."),
    FLAG(data.eod_mask_loss, "false", "The token after a document's end is not a target."),
    NUM(batch.global, "8", 1, 1e9, "sequences", "Sequences of an optimizer step, all ranks."),
    NUM(batch.micro, "1", 1, 1e6, "sequences",
        "Sequences that one context-parallel group works on at a time."),
    NUM(optim.lr, "3e-4", 0, 100, "", "Highest learning rate."),
    NUM(optim.min_lr, "0", 0, 100, "", "Learning rate after the decay."),
    NAMED(optim.schedule, "cosine", schedule_names,
          "Shape of the learning rate after the warm-up."),
    NUM(optim.schedule_start, "1", 0, 1, "",
        "Step of the schedule at the first update; 0 = as Megatron-LM, its learning rate is 0."),
    NUM(optim.warmup_steps, "0", 0, COUNT_MAX, "steps", "Steps of linear warm-up from 0."),
    NUM(optim.decay_steps, "0", 0, COUNT_MAX, "steps",
        "Step at which the decay ends, 0 = run.steps; wsd: length of the final decay, 0 = a tenth "
        "of run.steps."),
    NUM(optim.beta1, "0.9", 0, 0.999999999, "", "AdamW: decay of the first moment."),
    NUM(optim.beta2, "0.95", 0, 0.999999999, "", "AdamW: decay of the second moment."),
    NUM(optim.eps, "1e-8", 1e-30, 1, "", "AdamW: epsilon."),
    NUM(optim.weight_decay, "0.1", 0, 100, "", "AdamW: decay of matrices; norms have none."),
    NUM(optim.clip, "1", 0, 1e9, "", "Largest global gradient norm; 0 = no clipping."),
    NUM(parallel.cp, "1", 1, 1 << 16, "ranks", "Ranks that share a sequence."),
    NAMED(parallel.backend, "magi", backend_names, "How attention runs across the cp ranks."),
    NUM(parallel.chunk_size, "0", 0, 1 << 29, "tokens",
        "magi: tokens that are dispatched as one piece; 0 = chosen by the planner."),
    ROW(parallel.overlap_degree, "auto", 0, OVERLAP_DEGREE_MAX, auto_name, 0, "",
        "magi: stages that overlap transfers with attention; 0 = no overlap, auto = by cost "
        "model, or one call where GPUs read each other's memory."),
    NAMED(parallel.ring_accum, "fp32", accum_names, "ring: type of the partial sums."),
    NAMED(
        parallel.transport, "auto", transport_names,
        "How keys and values travel between GPUs of a host; auto = copied from memory to memory."),
    NUM(parallel.zero, "1", 0, 1, "", "1 = optimizer state is sharded over all ranks (ZeRO-1)."),
    NAMED(memory.recompute, "none", recompute_names,
          "layer = recompute each layer's activations in the backward pass."),
    NUM(memory.lm_head_chunk, "0", 0, 1 << 29, "tokens",
        "Rows of logits held at once; 0 = chosen."),
    FLAG(log.jsonl, "true", "Write run.dir/log.jsonl."),
    FLAG(log.tensorboard, "false", "Write TensorBoard events under run.dir."),
};

const int config_n_keys = (int)(sizeof config_keys / sizeof config_keys[0]);
_Static_assert(sizeof config_keys / sizeof config_keys[0] <= CONFIG_KEYS_MAX, "raise the maximum");

const ConfigKey *config_key_find(const char *name) {
    for (int i = 0; i < config_n_keys; i++)
        if (strcmp(config_keys[i].name, name) == 0) return &config_keys[i];
    return NULL;
}

int config_section_find(const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < config_n_keys; i++)
        if (strncmp(config_keys[i].name, name, n) == 0 && config_keys[i].name[n] == '.') return i;
    return -1;
}

/* Edit distance (insert, delete, replace); words that begin alike count as near. */
static int name_distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    int na = (int)strlen(a), nb = (int)strlen(b), row[LONGEST + 1];
    if (na > LONGEST || nb > LONGEST) return LONGEST;
    int common = na < nb ? na : nb;
    bool words = strchr(a, '.') == NULL && strchr(b, '.') == NULL;
    if (words && na != nb && common >= 4 && strncmp(a, b, (size_t)common) == 0) return 1;
    for (int j = 0; j <= nb; j++) row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int replace = diagonal + (a[i - 1] != b[j - 1]);
            int other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replace < other ? replace : other;
        }
    }
    return row[nb];
}

static const char *last_part(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

bool config_key_nearest(const char *name, StrBuf *out) {
    int longest = (int)strlen(last_part(name)) / 3;
    int best = (longest > 2 ? longest : 2) + 1;
    char nearest[64] = "", candidate[64];
    for (int i = 0; i < config_n_keys; i++) {
        snprintf(candidate, sizeof candidate, "%s", config_keys[i].name);
        for (char *dot = candidate; dot != NULL;) { /* the key, then the sections it is in */
            int whole = name_distance(name, candidate);
            /* a right name in the wrong section is as near as one wrong letter */
            int part = name_distance(last_part(name), last_part(candidate)) + 1;
            int d = whole < part ? whole : part;
            if (d < best) {
                best = d;
                memcpy(nearest, candidate, sizeof nearest);
            }
            dot = strrchr(candidate, '.');
            if (dot != NULL) *dot = '\0';
        }
    }
    strbuf_printf(out, "%s", nearest);
    return nearest[0] != '\0';
}

void config_key_expects(const ConfigKey *k, StrBuf *out) {
    switch (k->type) {
    case KEY_INT:
    case KEY_INT64:
        if (k->names != NULL) strbuf_printf(out, "%s, or ", k->names[0]);
        strbuf_printf(out, "an integer from %.0f to %.0f", k->min, k->max);
        break;
    case KEY_DOUBLE:
        strbuf_printf(out, "a number from %.15g to %.15g", k->min, k->max);
        break;
    case KEY_BOOL:
        strbuf_printf(out, "true or false");
        break;
    case KEY_STRING:
        strbuf_printf(out, "a printable string of %.0f to %.0f bytes", k->min, k->max);
        break;
    case KEY_ENUM:
        strbuf_printf(out, "one of ");
        for (int i = 0; k->names[i] != NULL; i++)
            strbuf_printf(out, "%s%s", i > 0 ? ", " : "", k->names[i]);
        break;
    case KEY_SOURCES:
        strbuf_printf(out, "a path, a list of paths, or a list of {path, weight}%s",
                      k->default_value != NULL ? "; [] = none" : "");
    }
}

const char *config_enum_name(int value, const char *key) {
    const ConfigKey *k = config_key_find(key);
    REQUIRE(k != NULL && k->type == KEY_ENUM && value >= 0);
    for (int i = 0; i <= value; i++) REQUIRE(k->names[i] != NULL);
    return k->names[value];
}
