/* keys.c: the table of keys. A row's type comes from the type of its field in Config, so the
 * two cannot disagree. Keys of one section are neighbours; a sub-section ends its section. */
#include "config/keys.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define COUNT_MAX  1e12
#define WITH(mask) (1u << MASK_##mask)

const char *const device_names[] = {
    [DEVICE_AUTO] = "auto", [DEVICE_CPU] = "cpu", [DEVICE_CUDA] = "cuda", NULL};
const char *const data_format_names[] = {[FORMAT_AUTO] = "auto",
                                         [FORMAT_NANOGPT] = "nanogpt",
                                         [FORMAT_MEGATRON] = "megatron",
                                         [FORMAT_LLMC] = "llmc",
                                         NULL};
static const char *const order_names[] = {
    [ORDER_CRIA] = "cria", [ORDER_MEGATRON] = "megatron", NULL};
const char *const mask_names[] = {
#define X(id, name) #name,
    MASK_LIST(X)
#undef X
        NULL};
static const char *const schedule_names[] = {[SCHEDULE_CONSTANT] = "constant",
                                             [SCHEDULE_LINEAR] = "linear",
                                             [SCHEDULE_COSINE] = "cosine",
                                             [SCHEDULE_WSD] = "wsd",
                                             NULL};
const char *const cp_backend_names[] = {
#define X(id, name, properties) #name,
    CP_BACKEND_LIST(X)
#undef X
        NULL};
static const char *const accum_names[] = {[ACCUM_FP32] = "fp32", [ACCUM_BF16] = "bf16", NULL};
static const char *const transport_names[] = {
    [TRANSPORT_AUTO] = "auto", [TRANSPORT_NCCL] = "nccl", NULL};
/* After a loss that is not finite there is nothing to go on with: no warn. */
static const char *const nonfinite_names[] = {[GUARD_STOP] = "stop", [GUARD_SKIP] = "skip", NULL};
static const char *const spike_names[] = {
    [GUARD_STOP] = "stop", [GUARD_SKIP] = "skip", [GUARD_WARN] = "warn", NULL};
static const char *const recompute_names[] = {
    [RECOMPUTE_NONE] = "none", [RECOMPUTE_LAYER] = "layer", NULL};
static const char *const precision_names[] = {
    [PRECISION_BF16] = "bf16", [PRECISION_FP8] = "fp8", NULL};
static const char *const fp8_gradient_names[] = {
    [FP8_GRADIENTS_E5M2] = "e5m2", [FP8_GRADIENTS_E4M3] = "e4m3", NULL};
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
        StageItem *: KEY_STAGES,                                                                   \
        default: KEY_ENUM)
/* What the table says of one key: name, type and offset come from its field. KEY's last arguments
 * are the help text and, where a row needs them, further fields such as .check. */
#define KEY(field, default_, min_, max_, unit_, effect, ...)                                       \
    {                                                                                              \
        .name = #field, .type = TYPE_OF(field), .offset = offsetof(Config, field),                 \
        .default_value = default_, .min = min_, .max = max_, .unit = unit_,                        \
        .affects_result = AFFECTS_##effect, .help = __VA_ARGS__                                    \
    }
#define NUM KEY
#define NAMED(field, default_, names_, effect, ...)                                                \
    KEY(field, default_, 0, 0, "", effect, __VA_ARGS__, .names = names_)
#define FLAG(field, default_, effect, ...) KEY(field, default_, 0, 1, "", effect, __VA_ARGS__)
#define TEXT(field, default_, min_, max_, effect, ...)                                             \
    KEY(field, default_, min_, max_, "", effect, __VA_ARGS__)
#define FILES(field, n, default_, effect, ...)                                                     \
    KEY(field, default_, 1, 4096, "", effect, __VA_ARGS__, .count_offset = offsetof(Config, n))

const ConfigKey config_keys[] = {
    TEXT(run.dir, "runs/default", 1, 4096, NOTHING,
         "Directory for config.yaml, log.jsonl and checkpoints."),
    NUM(run.seed, "1234", 0, CONFIG_EXACT_MAX, "", BATCHES,
        "Seed of the initial weights and of the data order.", .check = config_check_seed),
    NUM(run.steps, "1000", 1, COUNT_MAX, "steps", LATER_STEPS, "Optimizer steps of the whole run.",
        .check = config_check_steps),
    NUM(run.log_every, "1", 1, COUNT_MAX, "steps", NOTHING, "Steps between log records."),
    NUM(run.eval_every, "0", 0, COUNT_MAX, "steps", NOTHING,
        "Steps between evaluations; 0 = never."),
    NUM(run.eval_sequences, "64", 0, COUNT_MAX, "sequences", NOTHING,
        "Sequences in one evaluation of a set; 0 = all.", .check = config_check_eval_sequences),
    NUM(run.save_every, "0", 0, COUNT_MAX, "steps", NOTHING,
        "Steps between checkpoints; 0 = only when the run ends or is stopped."),
    NUM(run.keep_last, "0", 0, COUNT_MAX, "checkpoints", NOTHING,
        "Number of newest checkpoints to keep; 0 = all."),
    FLAG(run.save_async, "true", NOTHING,
         "Write checkpoints from a copy of the state while training continues."),
    NUM(run.time_limit_minutes, "0", 0, 1e6, "minutes", NOTHING,
        "Save and stop (exit status 4) after this time; 0 = no limit."),
    NUM(run.watchdog_seconds, "600", 0, 1e6, "seconds", NOTHING,
        "End the job when a rank makes no progress for this time; 0 = never."),
    FLAG(run.deterministic, "false", NOTHING,
         "Produce the same bits in every repetition of a run, at some cost in speed."),
    NUM(run.check_every, "100", 0, COUNT_MAX, "steps", NOTHING,
        "Steps between comparisons of the weights of all ranks; also before every save; 0 = "
        "never."),
    NAMED(run.on_nonfinite, "stop", nonfinite_names, LATER_STEPS,
          "On a NaN or infinite loss or gradient: stop with exit status 3, or skip the update."),
    NUM(run.spike_z, "0", 0, 1e6, "standard deviations", LATER_STEPS,
        "Treat a loss this many standard deviations above the mean of the last 100 steps as a "
        "spike; 0 disables."),
    NUM(run.spike_norm, "0", 0, 1e6, "times the mean", LATER_STEPS,
        "Treat a gradient norm this many times the mean of the last 100 steps as a spike; 0 "
        "disables."),
    NAMED(run.on_spike, "warn", spike_names, LATER_STEPS,
          "On a spike: stop with exit status 3, skip the update, or log a warning."),
    NUM(run.max_skips, "10", 1, COUNT_MAX, "steps", LATER_STEPS,
        "Stop with exit status 3 when more updates in a row would be skipped."),
    NUM(run.sample_every, "0", 0, COUNT_MAX, "steps", NOTHING,
        "Steps between texts that the model generates and the logs show; 0 = never. Needs "
        "data.tokenizer.",
        .check = config_check_sample_every),
    TEXT(run.sample_prompt, "", 0, 4096, NOTHING, "How these texts begin; \"\" = as documents do."),
    NUM(run.sample_tokens, "64", 1, 1 << 20, "tokens", NOTHING, "Length of these texts."),
    TEXT(run.on_save, "", 0, 4096, NOTHING,
         "Command that rank 0 starts beside training after each checkpoint; \"\" = none."),
    NUM(run.on_save_minutes, "10", 0, 1e6, "minutes", NOTHING,
        "Longest time that the end of the run waits for that command."),
    FLAG(run.check_hardware, "true", NOTHING,
         "At the start each device multiplies matrices of known product, and ranks that share a "
         "sequence copy a pattern from each other; what is wrong or slow is named."),
    NUM(run.profile_from, "0", 0, COUNT_MAX, "steps", NOTHING,
        "First step that nsys profile -c cudaProfilerApi records; 0 = none."),
    NUM(run.profile_steps, "3", 1, COUNT_MAX, "steps", NOTHING, "Steps that it records."),
    FLAG(run.allow_data_change, "false", NOTHING,
         "Resume even if data, seed, seq_len or mask differ from those of the checkpoint."),
    NAMED(device, "auto", device_names, NOTHING,
          "Where to compute; auto = cuda if there is a GPU, else cpu with a warning."),
    NAMED(precision, "bf16", precision_names, COURSE,
          "Of matrix products: bf16 (on CPUs fp32), or fp8 in the linear layers that fp8.* leave.",
          .check = config_check_precision, .late = true),
    NUM(fp8.first_bf16, "0", 0, 1024, "layers", COURSE,
        "With precision fp8: layers at the input that stay in bf16.", .late = true),
    NUM(fp8.last_bf16, "0", 0, 1024, "layers", COURSE,
        "With precision fp8: layers at the output that stay in bf16.", .late = true),
    NAMED(fp8.gradients, "e5m2", fp8_gradient_names, COURSE,
          "With precision fp8: format of the gradients of outputs, e5m2 (wider range) or e4m3 "
          "(finer).",
          .late = true),
    FLAG(fp8.head, "false", COURSE, "With precision fp8: compute the output head in FP8, too.",
         .late = true),
    NUM(model.layers, NULL, 1, 1024, "", MODEL, "Transformer layers."),
    NUM(model.hidden, NULL, 1, 65536, "", MODEL, "Width of the residual stream.",
        .check = config_check_hidden),
    NUM(model.heads, NULL, 1, 1024, "", MODEL, "Query heads."),
    NUM(model.kv_heads, NULL, 1, 1024, "", MODEL, "Key/value heads; must divide heads.",
        .check = config_check_kv_heads),
    NUM(model.head_dim, "0", 0, 1024, "", MODEL,
        "Width of a head, even (on GPUs a multiple of 16 up to 128); 0 = hidden / heads.",
        .check = config_check_head_dim),
    NUM(model.ffn, NULL, 1, 1 << 20, "", MODEL, "Inner width of the SwiGLU feed-forward layer."),
    NUM(model.vocab, NULL, 2, 1 << 24, "", MODEL,
        "Number of token ids; padded internally to a multiple of 128."),
    NUM(model.seq_len, NULL, 1, 1 << 29, "tokens", BATCHES, "Length of a training sequence.",
        .in_stages = true),
    FLAG(model.tie_embeddings, "false", MODEL,
         "Use one matrix for the embedding and the output layer."),
    NUM(model.norm_eps, "1e-5", 1e-12, 1, "", MODEL, "Epsilon of RMSNorm."),
    NUM(model.init_std, "0.02", 0, 10, "", INITIAL_WEIGHTS,
        "Standard deviation of the initial weights; projections into the residual stream use it "
        "divided by sqrt(2 layers)."),
    NUM(model.rope_theta, "500000", 1, 1e12, "", MODEL, "Base of the rotary position angles.",
        .in_stages = true),
    NUM(model.rope_scaling.factor, "1", 1, 1e6, "", MODEL,
        "Llama-3 RoPE scaling factor; 1 = no scaling.", .in_stages = true),
    NUM(model.rope_scaling.low, "1", 1e-6, 1e6, "", MODEL,
        "Wavelengths above original / low are stretched by the full factor.",
        .check = config_check_rope_scaling, .in_stages = true),
    NUM(model.rope_scaling.high, "4", 1e-6, 1e6, "", MODEL,
        "Wavelengths below original / high are not stretched; those between are interpolated.",
        .in_stages = true),
    NUM(model.rope_scaling.original, "8192", 1, COUNT_MAX, "tokens", MODEL,
        "Context length of the unscaled model.", .in_stages = true),
    FILES(data.train, data.n_train, NULL, BATCHES,
          "Token files to train on; relative paths start at the current directory.",
          .check = config_check_train, .in_stages = true),
    FILES(data.val, data.n_val, "", NOTHING,
          "Token files to evaluate on, or several sets of them with names; none = no evaluation.",
          .check = config_check_weights, .sets = true),
    NAMED(data.format, "auto", data_format_names, NOTHING,
          "Format of the token files; auto = detected from their content."),
    TEXT(data.split, "", 0, 64, BATCHES,
         "\"train,val,test\" shares of data.train's documents, such as 94,5,1; \"\" = no split.",
         .check = config_check_split),
    NAMED(data.order, "cria", order_names, BATCHES,
          "Order of the samples; megatron = as Megatron-LM core_v0.11, which depends on run.steps.",
          .check = config_check_order),
    NUM(data.eod, "-1", -1, (1 << 24) - 1, "", BATCHES, "Token id that ends a document; -1 = none.",
        .check = config_check_eod),
    NAMED(data.mask, "causal", mask_names, BATCHES,
          "Attention mask; document = causal within each document, prefix_lm = causal after a "
          "prefix that all tokens see, slices = as data.mask_file says.",
          .check = config_check_mask, .in_stages = true),
    NUM(data.prefix, "0", 0, 1 << 29, "tokens", BATCHES,
        "mask prefix_lm: first tokens of every sequence, which all its tokens attend to.",
        .masks = WITH(PREFIX_LM), .late = true, .in_stages = true),
    TEXT(data.mask_file, "", 0, 4096, BATCHES,
         "mask slices: file that lists the slices of a sequence, 'q_begin q_end k_begin k_end "
         "TYPE' a line.",
         .masks = WITH(SLICES), .late = true, .in_stages = true),
    NUM(data.window, "0", 0, 1 << 29, "tokens", BATCHES,
        "Number of previous tokens that a token attends to; 0 = no limit.",
        .masks = WITH(CAUSAL) | WITH(DOCUMENT), .in_stages = true),
    FLAG(data.reset_positions, "false", BATCHES, "Restart positions at 0 in every document.",
         .check = config_check_eod_use),
    FLAG(data.eod_mask_loss, "false", BATCHES,
         "Leave the token after a document's end out of the loss.",
         .check = config_check_eod_mask_loss),
    TEXT(data.tokenizer, "", 0, 4096, NOTHING,
         "The tokenizer.json that made the token ids; for generated texts and bits per byte."),
    NUM(batch.global, "8", 1, 1e9, "sequences", COURSE,
        "Sequences in one optimizer step, over all ranks.", .in_stages = true),
    NUM(batch.micro, "1", 1, 1e6, "sequences", NOTHING,
        "Sequences that one context-parallel group processes at a time.",
        .check = config_check_micro, .in_stages = true),
    NUM(batch.ramp.from, "0", 0, 1e9, "sequences", COURSE,
        "Sequences in the first steps, where batch.global rises.", .late = true),
    NUM(batch.ramp.step, "0", 0, 1e9, "sequences", COURSE, "By how many it rises at a time.",
        .late = true),
    NUM(batch.ramp.tokens, "0", 0, CONFIG_EXACT_MAX, "tokens", COURSE,
        "Tokens over which it rises, evenly, up to batch.global; 0 = it is the same in all steps.",
        .check = config_check_ramp, .late = true),
    NUM(optim.lr, "3e-4", 0, 100, "", COURSE, "Highest learning rate.", .in_stages = true),
    NUM(optim.min_lr, "0", 0, 100, "", COURSE, "Learning rate after the decay.",
        .check = config_check_min_lr, .in_stages = true),
    NAMED(optim.schedule, "cosine", schedule_names, COURSE,
          "Shape of the learning rate after the warm-up.", .in_stages = true),
    NUM(optim.schedule_start, "1", 0, 1, "", COURSE,
        "Schedule step of the first update; 0 = as Megatron-LM, whose first learning rate is 0.",
        .in_stages = true),
    NUM(optim.warmup_steps, "0", 0, COUNT_MAX, "steps", COURSE, "Steps of linear warm-up from 0.",
        .check = config_check_schedule, .in_stages = true),
    NUM(optim.decay_steps, "0", 0, COUNT_MAX, "steps", COURSE,
        "Step at which the decay ends, 0 = run.steps; wsd: length of the final decay, 0 = a tenth "
        "of run.steps.",
        .in_stages = true),
    NUM(optim.beta1, "0.9", 0, 0.999999999, "", COURSE, "AdamW: decay of the first moment."),
    NUM(optim.beta2, "0.95", 0, 0.999999999, "", COURSE, "AdamW: decay of the second moment."),
    NUM(optim.eps, "1e-8", 1e-30, 1, "", COURSE, "AdamW: epsilon."),
    NUM(optim.weight_decay, "0.1", 0, 100, "", COURSE,
        "AdamW: weight decay of matrices; norms have none."),
    NUM(optim.clip, "1", 0, 1e9, "", COURSE,
        "Clip gradients to this global norm; 0 = no clipping."),
    NUM(optim.z_loss, "0", 0, 1, "", COURSE,
        "Coefficient of the z-loss, the mean square of the logarithm of a token's softmax "
        "denominator; 0 = none.",
        .late = true),
    NUM(parallel.cp, "1", 1, 1 << 16, "ranks", NOTHING, "Ranks that share a sequence."),
    NAMED(parallel.backend, "magi", cp_backend_names, NOTHING,
          "How attention runs across the cp ranks.", .check = config_check_backend),
    NUM(parallel.chunk_size, "0", 0, 1 << 29, "tokens", NOTHING,
        "magi: tokens that are dispatched as one piece; 0 = chosen by the planner."),
    NUM(parallel.overlap_degree, "auto", 0, OVERLAP_DEGREE_MAX, "", NOTHING,
        "magi: stages that overlap transfers with attention; 0 = no overlap, auto = by cost "
        "model, or one call where GPUs read each other's memory.",
        .names = auto_name),
    NAMED(parallel.ring_accum, "fp32", accum_names, NOTHING, "ring: type of the partial sums."),
    NAMED(parallel.transport, "auto", transport_names, NOTHING,
          "How keys and values travel between GPUs of a host; auto = copied from memory to "
          "memory."),
    NUM(parallel.zero, "1", 0, 1, "", NOTHING,
        "1 = shard the optimizer state over all ranks (ZeRO-1)."),
    NAMED(memory.recompute, "none", recompute_names, NOTHING,
          "layer = recompute each layer's activations in the backward pass."),
    NUM(memory.lm_head_chunk, "0", 0, 1 << 29, "tokens", NOTHING,
        "Tokens whose logits are held at once; 0 = chosen automatically."),
#define X(name, default_, help) FLAG(log.name, default_, NOTHING, help),
    LOG_LIST(X)
#undef X
        FLAG(log.grad_norms, "false", NOTHING,
             "Log the gradient norms of embedding, attention, MLP, norms and head apart."),
    FLAG(log.phases, "false", NOTHING,
         "Time the parts of a step on every rank; a rank that stays behind is named."),
    KEY(stages, "[]", 0, 0, "", COURSE,
        "Keys that have other values from a step or token on; each stage keeps what the one before "
        "has set.",
        .count_offset = offsetof(Config, n_stages), .late = true),
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
            int all = text_distance(name, candidate);
            /* a right name in the wrong section is as near as one wrong letter */
            int part = text_distance(last_part(name), last_part(candidate)) + 1;
            int d = all < part ? all : part;
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

const char *config_key_elsewhere(const char *name) {
    static const char parallel[] =
        "cria splits a model over ranks by data, context (parallel.cp) and optimizer state "
        "(parallel.zero), not by tensors, layers or experts";
    static const char precision[] = "the key precision chooses in what GPUs compute";
    static const char accumulation[] =
        "the micro-batches of a step are batch.global / (batch.micro * dp)";
    static const char tracking[] = "scripts/track.py RUN sends a run to Weights & Biases or MLflow";
    static const char *const known[][2] = {{"tp", parallel},
                                           {"pp", parallel},
                                           {"ep", parallel},
                                           {"tensor_parallel", parallel},
                                           {"pipeline_parallel", parallel},
                                           {"dtype", precision},
                                           {"bf16", precision},
                                           {"fp16", precision},
                                           {"amp", precision},
                                           {"gradient_accumulation_steps", accumulation},
                                           {"grad_accum", accumulation},
                                           {"wandb", tracking},
                                           {"mlflow", tracking}};
    size_t section = strcspn(name, "."); /* wandb.project */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(last_part(name), known[i][0]) == 0 ||
            (strlen(known[i][0]) == section && strncmp(name, known[i][0], section) == 0))
            return known[i][1];
    return NULL;
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
        strbuf_printf(out, "a path, a list of paths, or a list of {path, weight}%s%s",
                      k->sets ? ", or {NAME: such files, ...}" : "",
                      k->default_value != NULL ? "; [] = none" : "");
        break;
    case KEY_STAGES:
        strbuf_printf(out, "a list of {from: STEP or from_tokens: TOKENS, KEY: VALUE, ...}");
    }
}

bool cp_backend_is(CpBackend backend, unsigned wanted) {
    static const unsigned properties[] = {
#define X(id, name, properties) properties,
        CP_BACKEND_LIST(X)
#undef X
    };
    return (properties[backend] & wanted) != 0;
}

const char *config_enum_name(int value, const char *key) {
    const ConfigKey *k = config_key_find(key);
    REQUIRE(k != NULL && k->type == KEY_ENUM && value >= 0);
    for (int i = 0; i <= value; i++) REQUIRE(k->names[i] != NULL);
    return k->names[value];
}
