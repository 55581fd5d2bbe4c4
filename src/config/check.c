/* check.c: what one key demands of another: the checks that the table in keys.c names. */
#include "config/keys.h"

#include <math.h>
#include <string.h>

/* Tokens of a micro-batch that attention can address (BAND_MAX_TOKENS of attn/band.h). */
#define STREAM_MAX (1LL << 29)

/* Is what these fields of r->config hold allowed by the table? `fields` ends with NULL. */
static bool all_valid(const ConfigReader *r, const void *const *fields) {
    for (; *fields != NULL; fields++) {
        size_t offset = (size_t)((const char *)*fields - (const char *)r->config);
        int i = 0;
        while (i < config_n_keys && config_keys[i].offset != offset) i++;
        REQUIRE(i < config_n_keys);
        if (!r->origin[i].valid) return false;
    }
    return true;
}
#define VALID(r, ...) all_valid(r, (const void *const[]){__VA_ARGS__, NULL})

static long long ll(int64_t v) {
    return (long long)v;
}

void config_check_keys(ConfigReader *r) {
    for (int i = 0; i < config_n_keys; i++)
        if (r->origin[i].valid && config_keys[i].check != NULL)
            config_keys[i].check(r, &config_keys[i]);
}

/* ---- model --------------------------------------------------------------------------------- */

void config_check_kv_heads(ConfigReader *r, const ConfigKey *k) {
    const ModelConfig *m = &r->config->model;
    if (VALID(r, &m->heads) && m->heads % m->kv_heads != 0)
        config_problem_at(r, k, "found %d, expected a divisor of model.heads %d", m->kv_heads,
                          m->heads);
}

/* Resolves model.head_dim where that is 0. */
void config_check_hidden(ConfigReader *r, const ConfigKey *k) {
    ModelConfig *m = &r->config->model;
    if (!VALID(r, &m->heads, &m->head_dim) || m->head_dim != 0) return;
    int width = m->hidden / m->heads;
    if (m->hidden % m->heads != 0)
        config_problem_at(
            r, k, "found %d, expected a multiple of model.heads %d, or model.head_dim to be set",
            m->hidden, m->heads);
    else if (width % 2 != 0)
        config_problem_at(r, k,
                          "found %d, which makes heads of hidden %d / heads %d = %d; expected an "
                          "even width, which RoPE needs",
                          m->hidden, m->hidden, m->heads, width);
    else
        m->head_dim = width;
}

void config_check_head_dim(ConfigReader *r, const ConfigKey *k) {
    int width = r->config->model.head_dim;
    if (width % 2 != 0)
        config_problem_at(r, k, "found %d, expected an even number, which RoPE needs", width);
}

void config_check_rope_scaling(ConfigReader *r, const ConfigKey *k) {
    const ModelConfig *m = &r->config->model;
    if (VALID(r, &m->rope_scaling.factor, &m->rope_scaling.high) && m->rope_scaling.factor != 1 &&
        m->rope_scaling.low >= m->rope_scaling.high)
        config_problem_at(r, k, "found %g, expected less than model.rope_scaling.high %g",
                          m->rope_scaling.low, m->rope_scaling.high);
}

/* ---- data ---------------------------------------------------------------------------------- */

/* "94,5,1": up to three shares, the first of them above 0. As for Megatron, a missing one is 0. */
static bool is_split(const char *text) {
    double share, first = 0;
    for (int i = 0; i < 3; i++) {
        text += strspn(text, " ");
        size_t n = strcspn(text, ", ");
        if (!config_number_parse(text, n, &share) || share < 0) return false;
        if (i == 0) first = share;
        text += n;
        text += strspn(text, " ");
        if (*text == '\0') return first > 0;
        if (*text++ != ',') return false;
    }
    return false;
}

void config_check_weights(ConfigReader *r, const ConfigKey *k) {
    const DataSource *sources = *(DataSource *const *)config_key_field(k, r->config);
    int n = *config_key_count(k, r->config);
    for (int first = 0, end; first < n; first = end) {
        int weighted = 0;
        end = config_set_end(sources, n, first);
        for (int i = first; i < end; i++) weighted += sources[i].weight > 0;
        const char *set = sources[first].set;
        if (weighted != 0 && weighted != end - first)
            config_problem_at(
                r, k, "found weights on %d of %d files%s%s, expected them on all or none", weighted,
                end - first, set != NULL ? " of the set " : "", set != NULL ? set : "");
    }
}

void config_check_train(ConfigReader *r, const ConfigKey *k) {
    if (r->config->data.n_train == 0)
        config_problem_at(r, k, "found an empty list, expected a token file");
    config_check_weights(r, k);
}

void config_check_split(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (c->data.split[0] == '\0') return;
    if (!is_split(c->data.split))
        config_problem_at(r, k,
                          "found '%s', expected shares for training, evaluation and test as in "
                          "94,5,1, the first above 0",
                          c->data.split);
    if (VALID(r, &c->data.val) && c->data.n_val > 0)
        config_problem_at(r, k,
                          "found '%s' beside data.val, expected one of the two: the split takes "
                          "the evaluation data from data.train",
                          c->data.split);
}

void config_check_seed(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->data.order) && c->data.order == ORDER_MEGATRON && c->run.seed > UINT32_MAX)
        config_problem_at(r, k, "found %lld with data.order megatron, expected below 2^32",
                          ll(c->run.seed));
}

void config_check_order(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->data.format) && c->data.order == ORDER_MEGATRON &&
        (c->data.format == FORMAT_NANOGPT || c->data.format == FORMAT_LLMC))
        config_problem_at(r, k,
                          "found megatron with data.format %s, expected data.format megatron: the "
                          "order needs its document index",
                          config_enum_name((int)c->data.format, "data.format"));
}

void config_check_eod(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->model.vocab) && c->data.eod >= c->model.vocab)
        config_problem_at(r, k, "found %lld, expected an id below model.vocab %d", ll(c->data.eod),
                          c->model.vocab);
}

/* A key whose value needs to know where documents end. */
static void check_documents(ConfigReader *r, const ConfigKey *k, const char *value) {
    const Config *c = r->config;
    if (VALID(r, &c->data.eod, &c->data.format) && c->data.eod < 0 &&
        c->data.format != FORMAT_MEGATRON)
        config_problem_at(r, k,
                          "found %s without data.eod, expected data.eod to be set (only "
                          "data.format megatron stores where documents end)",
                          value);
}

void config_check_eod_use(ConfigReader *r, const ConfigKey *k) {
    if (*(const bool *)config_key_field(k, r->config)) check_documents(r, k, "true");
}

void config_check_eod_mask_loss(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->data.eod) && c->data.eod < 0 && c->data.eod_mask_loss)
        config_problem_at(r, k, "found true without data.eod, expected data.eod to be set");
}

/* Keys of some masks keep their default under the others. */
static void check_mask_keys(ConfigReader *r) {
    const Config *c = r->config;
    for (const ConfigKey *k = config_keys; k < config_keys + config_n_keys; k++) {
        bool used = k->masks == 0 || k->masks >> c->data.mask & 1;
        if (used || !VALID(r, config_key_field(k, c)) || config_value_is_default(k, c)) continue;
        StrBuf value = {0};
        config_value_print(k, c, false, &value);
        config_problem_at(r, k, "found %s with data.mask %s, expected %s, or another mask",
                          strbuf_text(&value), mask_names[c->data.mask],
                          k->default_value[0] != '\0' ? k->default_value : "none");
        strbuf_free(&value);
    }
}

void config_check_mask(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    check_mask_keys(r);
    if (c->data.mask == MASK_DOCUMENT) check_documents(r, k, "document");
    if (c->data.mask == MASK_PREFIX_LM && VALID(r, &c->data.prefix, &c->model.seq_len) &&
        (c->data.prefix == 0 || c->data.prefix > c->model.seq_len))
        config_problem_at(r, config_key_find("data.prefix"),
                          "found %lld with data.mask prefix_lm, expected 1 to model.seq_len %lld",
                          ll(c->data.prefix), ll(c->model.seq_len));
    if (c->data.mask == MASK_SLICES && VALID(r, &c->data.mask_file) && c->data.mask_file[0] == '\0')
        config_problem_at(r, config_key_find("data.mask_file"),
                          "found none with data.mask slices, expected the file that lists them");
}

/* ---- steps and batches --------------------------------------------------------------------- */

/* Sequences are counted in int64_t and, in Megatron's order, as doubles: both are exact here. */
void config_check_steps(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    double sequences = (double)c->run.steps * (double)c->batch.global;
    if (VALID(r, &c->batch.global) && sequences > CONFIG_EXACT_MAX)
        config_problem_at(r, k,
                          "found %lld x batch.global %lld = %.3g sequences, expected at most %.0f",
                          ll(c->run.steps), ll(c->batch.global), sequences, CONFIG_EXACT_MAX);
}

void config_check_eval_sequences(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (!VALID(r, &c->run.steps, &c->run.eval_every) || c->run.eval_every == 0) return;
    if (VALID(r, &c->data.order) && c->data.order == ORDER_MEGATRON && c->run.eval_sequences == 0)
        config_problem_at(r, k,
                          "found 0 with data.order megatron, expected a number: Megatron's order "
                          "of the samples depends on it");
    double evaluations = floor((double)c->run.steps / (double)c->run.eval_every) + 1;
    double all = evaluations * ((double)c->run.eval_sequences + (double)c->batch.global);
    if (all > CONFIG_EXACT_MAX)
        config_problem_at(r, k,
                          "found %lld in each of %.0f evaluations = %.3g sequences, expected at "
                          "most %.0f",
                          ll(c->run.eval_sequences), evaluations, all, CONFIG_EXACT_MAX);
}

void config_check_sample_every(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (c->run.sample_every == 0) return;
    if (VALID(r, &c->data.tokenizer) && c->data.tokenizer[0] == '\0')
        config_problem_at(r, k,
                          "found %lld without data.tokenizer, expected a tokenizer.json there",
                          ll(c->run.sample_every));
    if (VALID(r, &c->run.sample_prompt, &c->data.eod) && c->run.sample_prompt[0] == '\0' &&
        c->data.eod < 0)
        config_problem_at(
            r, k,
            "found %lld without run.sample_prompt and data.eod, expected one of them: "
            "where does a text begin?",
            ll(c->run.sample_every));
}

void config_check_micro(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->batch.global) && c->batch.global % c->batch.micro != 0)
        config_problem_at(r, k, "found %lld, expected a divisor of batch.global %lld",
                          ll(c->batch.micro), ll(c->batch.global));
    if (VALID(r, &c->model.seq_len) && c->batch.micro * c->model.seq_len > STREAM_MAX)
        config_problem_at(r, k,
                          "found %lld x model.seq_len %lld = %lld tokens, expected at most %lld",
                          ll(c->batch.micro), ll(c->model.seq_len),
                          ll(c->batch.micro * c->model.seq_len), STREAM_MAX);
}

void config_check_ramp(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (!VALID(r, &c->batch.global, &c->batch.ramp.from, &c->batch.ramp.step)) return;
    int64_t from = c->batch.ramp.from, step = c->batch.ramp.step, rise = c->batch.global - from;
    if (c->batch.ramp.tokens == 0 && from == 0 && step == 0) return;
    if (c->batch.ramp.tokens == 0 || from == 0 || step == 0)
        config_problem_at(r, k,
                          "found %lld with batch.ramp.from %lld and batch.ramp.step %lld, expected "
                          "all three above 0, or none",
                          ll(c->batch.ramp.tokens), ll(from), ll(step));
    else if (rise <= 0 || rise % step != 0)
        config_problem_at(r, config_key_find("batch.ramp.step"),
                          "found %lld from batch.ramp.from %lld on, expected steps that end at "
                          "batch.global %lld",
                          ll(step), ll(from), ll(c->batch.global));
}

void config_check_backend(ConfigReader *r, const ConfigKey *k) {
    const Config *c = r->config;
    if (VALID(r, &c->parallel.cp) && c->parallel.cp > 1 &&
        cp_backend_is(c->parallel.backend, BACKEND_ONE_RANK))
        config_problem_at(r, k,
                          "found %s with parallel.cp %d, expected another backend, or "
                          "parallel.cp 1",
                          cp_backend_names[c->parallel.backend], c->parallel.cp);
}

/* ---- precision ----------------------------------------------------------------------------- */

/* FP8 products need sides that are multiples of 16 (cuBLASLt); the CPU computes the same recipe. */
void config_check_precision(ConfigReader *r, const ConfigKey *k) {
    enum { UNIT = 16 };
    const Config *c = r->config;
    const ModelConfig *m = &c->model;
    if (c->precision != PRECISION_FP8) return;
    if (VALID(r, &m->layers, &c->fp8.first_bf16, &c->fp8.last_bf16) && !c->fp8.head &&
        c->fp8.first_bf16 + c->fp8.last_bf16 >= m->layers)
        config_problem_at(r, k,
                          "found fp8 with fp8.first_bf16 %d + fp8.last_bf16 %d, expected them to "
                          "leave some of the model.layers %d",
                          c->fp8.first_bf16, c->fp8.last_bf16, m->layers);
    if (!VALID(r, &m->hidden, &m->heads, &m->kv_heads, &m->head_dim, &m->ffn)) return;
    int64_t head_dim = m->head_dim > 0 ? m->head_dim : m->hidden / m->heads;
    const struct {
        const char *what;
        int64_t size;
    } sides[] = {{"model.hidden", m->hidden},
                 {"model.ffn", m->ffn},
                 {"model.heads * model.head_dim", m->heads * head_dim},
                 {"(model.heads + 2 model.kv_heads) * model.head_dim",
                  (m->heads + 2 * m->kv_heads) * head_dim}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        if (sides[i].size % UNIT != 0)
            config_problem_at(r, k, "found fp8 with %s = %lld, expected a multiple of %d there",
                              sides[i].what, ll(sides[i].size), UNIT);
}

/* ---- learning rate ------------------------------------------------------------------------- */

static const char *override_of(const ConfigReader *r, const char *key) {
    return r->origin[config_key_find(key) - config_keys].override;
}

/* The override of one of `partners` (ends with NULL) that the value of k, which no override set,
 * has to give way to: who shortens a run by an argument need not know what else the file says.
 * NULL: none. */
static const char *gives_way_to(const ConfigReader *r, const char *k, const char *const *partners) {
    if (override_of(r, k) != NULL) return NULL;
    while (*partners != NULL && override_of(r, *partners) == NULL) partners++;
    return *partners != NULL ? override_of(r, *partners) : NULL;
}
#define GIVES_WAY_TO(r, k, ...) gives_way_to(r, k, (const char *const[]){__VA_ARGS__, NULL})

void config_check_min_lr(ConfigReader *r, const ConfigKey *k) {
    OptimConfig *o = &r->config->optim;
    if (!VALID(r, &o->lr) || o->min_lr <= o->lr) return;
    const char *winner = GIVES_WAY_TO(r, k->name, "optim.lr");
    if (winner == NULL) {
        config_problem_at(r, k, "found %g, expected at most optim.lr %g", o->min_lr, o->lr);
        return;
    }
    config_note_at(r, k, "found %g, lowered to %g because of %s", o->min_lr, o->lr, winner);
    o->min_lr = o->lr;
}

/* Lowers *steps of this key to `most`, where it gives way to `winner`. */
static void lower_steps(ConfigReader *r, const char *key, int64_t *steps, int64_t most,
                        const char *winner) {
    most = i64_max(most, 0);
    if (winner == NULL || *steps <= most) return;
    config_note_at(r, config_key_find(key), "found %lld, lowered to %lld because of %s", ll(*steps),
                   ll(most), winner);
    *steps = most;
}

/* The warm-up fits, or is made to. Resolves optim.decay_steps where that is 0. */
void config_check_schedule(ConfigReader *r, const ConfigKey *k) {
    int64_t steps = r->config->run.steps;
    OptimConfig *o = &r->config->optim;
    if (!VALID(r, &r->config->run.steps, &o->schedule, &o->decay_steps)) return;
    if (o->schedule == SCHEDULE_CONSTANT) return;
    bool wsd = o->schedule == SCHEDULE_WSD;
    if (o->decay_steps == 0) o->decay_steps = wsd ? ceil_div(steps, 10) : steps;
    const char *winner =
        GIVES_WAY_TO(r, k->name, "run.steps", "optim.decay_steps", "optim.schedule");
    lower_steps(r, k->name, &o->warmup_steps, wsd ? steps - o->decay_steps : o->decay_steps,
                winner);
    winner = GIVES_WAY_TO(r, "optim.decay_steps", "run.steps", k->name, "optim.schedule");
    if (wsd) lower_steps(r, "optim.decay_steps", &o->decay_steps, steps - o->warmup_steps, winner);
    if (wsd && o->warmup_steps + o->decay_steps > steps)
        config_problem_at(r, k,
                          "found %lld and a final decay of %lld steps, expected together at most "
                          "run.steps %lld",
                          ll(o->warmup_steps), ll(o->decay_steps), ll(steps));
    if (!wsd && o->warmup_steps > o->decay_steps)
        config_problem_at(r, k,
                          "found %lld, expected at most the %lld steps after which the decay ends "
                          "(optim.decay_steps, or run.steps when that is 0)",
                          ll(o->warmup_steps), ll(o->decay_steps));
}
