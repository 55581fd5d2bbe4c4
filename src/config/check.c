/* check.c: what one key demands of another, and of the number of ranks. */
#include "config/keys.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens of a micro-batch that attention can address (BAND_MAX_TOKENS of attn/band.h). */
#define STREAM_MAX (1LL << 29)

/* Is every one of these keys (space-separated) valid? */
static bool valid(const ConfigReader *r, const char *keys) {
    char name[64];
    while (*keys != '\0') {
        size_t n = strcspn(keys, " ");
        REQUIRE(n < sizeof name);
        memcpy(name, keys, n);
        name[n] = '\0';
        const ConfigKey *k = config_key_find(name);
        REQUIRE(k != NULL);
        if (!r->origin[k - config_keys].valid) return false;
        keys += n + (keys[n] == ' ');
    }
    return true;
}

static long long ll(int64_t v) {
    return (long long)v;
}

static void check_model(ConfigReader *r) {
    ModelConfig *m = &r->config->model;
    if (valid(r, "model.heads model.kv_heads") && m->heads % m->kv_heads != 0)
        config_problem_at(r, "model.kv_heads", "found %d, expected a divisor of model.heads %d",
                          m->kv_heads, m->heads);
    if (valid(r, "model.hidden model.heads model.head_dim")) {
        if (m->head_dim == 0 && m->hidden % m->heads != 0) {
            config_problem_at(r, "model.hidden",
                              "found %d, expected a multiple of model.heads %d, or model.head_dim "
                              "to be set",
                              m->hidden, m->heads);
        } else if (m->head_dim == 0) {
            m->head_dim = m->hidden / m->heads;
            if (m->head_dim % 2 != 0)
                config_problem_at(r, "model.hidden",
                                  "found %d, which makes heads of hidden %d / heads %d = %d; "
                                  "expected an even width, which RoPE needs",
                                  m->hidden, m->hidden, m->heads, m->head_dim);
        } else if (m->head_dim % 2 != 0) {
            config_problem_at(r, "model.head_dim",
                              "found %d, expected an even number, which RoPE needs", m->head_dim);
        }
    }
    if (valid(r, "model.rope_scaling.factor model.rope_scaling.low model.rope_scaling.high") &&
        m->rope_scaling.factor != 1 && m->rope_scaling.low >= m->rope_scaling.high)
        config_problem_at(r, "model.rope_scaling.low",
                          "found %g, expected less than model.rope_scaling.high %g",
                          m->rope_scaling.low, m->rope_scaling.high);
}

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

static void check_weights(ConfigReader *r, const char *key, const DataSource *sources, int n) {
    int weighted = 0;
    for (int i = 0; i < n; i++) weighted += sources[i].weight > 0;
    if (weighted != 0 && weighted != n)
        config_problem_at(r, key, "found weights on %d of %d files, expected them on all or none",
                          weighted, n);
}

static void check_data(ConfigReader *r) {
    Config *c = r->config;
    if (valid(r, "data.train")) {
        if (c->data.n_train == 0)
            config_problem_at(r, "data.train", "found an empty list, expected a token file");
        check_weights(r, "data.train", c->data.train, c->data.n_train);
    }
    if (valid(r, "data.val")) check_weights(r, "data.val", c->data.val, c->data.n_val);
    if (valid(r, "data.split") && c->data.split[0] != '\0') {
        if (!is_split(c->data.split))
            config_problem_at(r, "data.split",
                              "found '%s', expected shares for training, evaluation and test as in "
                              "94,5,1, the first above 0",
                              c->data.split);
        if (valid(r, "data.val") && c->data.n_val > 0)
            config_problem_at(r, "data.split",
                              "found '%s' beside data.val, expected one of the two: the split "
                              "takes the evaluation data from data.train",
                              c->data.split);
    }
    if (valid(r, "data.order run.seed") && c->data.order == ORDER_MEGATRON &&
        c->run.seed > UINT32_MAX)
        config_problem_at(r, "run.seed", "found %lld with data.order megatron, expected below 2^32",
                          ll(c->run.seed));
    if (valid(r, "data.order data.format") && c->data.order == ORDER_MEGATRON &&
        (c->data.format == FORMAT_NANOGPT || c->data.format == FORMAT_LLMC))
        config_problem_at(r, "data.order",
                          "found megatron with data.format %s, expected data.format megatron: the "
                          "order needs its document index",
                          config_enum_name((int)c->data.format, "data.format"));
    if (valid(r, "data.eod model.vocab") && c->data.eod >= c->model.vocab)
        config_problem_at(r, "data.eod", "found %lld, expected an id below model.vocab %d",
                          ll(c->data.eod), c->model.vocab);
    if (valid(r, "data.eod data.format") && c->data.eod < 0 && c->data.format != FORMAT_MEGATRON) {
        const char *remedy = "expected data.eod to be set (only data.format megatron stores where "
                             "documents end)";
        if (valid(r, "data.mask") && c->data.mask == MASK_DOCUMENT)
            config_problem_at(r, "data.mask", "found document without data.eod, %s", remedy);
        if (valid(r, "data.reset_positions") && c->data.reset_positions)
            config_problem_at(r, "data.reset_positions", "found true without data.eod, %s", remedy);
    }
    if (valid(r, "data.eod data.eod_mask_loss") && c->data.eod < 0 && c->data.eod_mask_loss)
        config_problem_at(r, "data.eod_mask_loss",
                          "found true without data.eod, expected data.eod to be set");
    if (valid(r, "data.mask data.window") && c->data.mask == MASK_FULL && c->data.window > 0)
        config_problem_at(r, "data.window",
                          "found %lld with data.mask full, expected 0: a window looks back only",
                          ll(c->data.window));
}

/* Sequences are counted in int64_t and, in Megatron's order, as doubles: both are exact here. */
static void check_counts(ConfigReader *r) {
    const Config *c = r->config;
    double steps = (double)c->run.steps, global = (double)c->batch.global;
    if (valid(r, "run.steps batch.global") && steps * global > CONFIG_EXACT_MAX)
        config_problem_at(r, "run.steps",
                          "found %lld x batch.global %lld = %.3g sequences, expected at most %.0f",
                          ll(c->run.steps), ll(c->batch.global), steps * global, CONFIG_EXACT_MAX);
    if (!valid(r, "run.steps run.eval_every run.eval_sequences") || c->run.eval_every == 0) return;
    double evaluations = floor(steps / (double)c->run.eval_every) + 1;
    double all = evaluations * ((double)c->run.eval_sequences + global);
    if (all > CONFIG_EXACT_MAX)
        config_problem_at(r, "run.eval_sequences",
                          "found %lld in each of %.0f evaluations = %.3g sequences, expected at "
                          "most %.0f",
                          ll(c->run.eval_sequences), evaluations, all, CONFIG_EXACT_MAX);
}

static void check_batch(ConfigReader *r) {
    const Config *c = r->config;
    if (valid(r, "batch.global batch.micro") && c->batch.global % c->batch.micro != 0)
        config_problem_at(r, "batch.micro", "found %lld, expected a divisor of batch.global %lld",
                          ll(c->batch.micro), ll(c->batch.global));
    if (valid(r, "batch.micro model.seq_len") && c->batch.micro * c->model.seq_len > STREAM_MAX)
        config_problem_at(r, "batch.micro",
                          "found %lld x model.seq_len %lld = %lld tokens, expected at most %lld",
                          ll(c->batch.micro), ll(c->model.seq_len),
                          ll(c->batch.micro * c->model.seq_len), STREAM_MAX);
    if (valid(r, "parallel.cp parallel.backend") && c->parallel.cp > 1 &&
        c->parallel.backend == BACKEND_NONE)
        config_problem_at(r, "parallel.backend",
                          "found none with parallel.cp %d, expected ring, magi, allgather or "
                          "ulysses, or parallel.cp 1",
                          c->parallel.cp);
}

static void check_optim(ConfigReader *r) {
    const Config *c = r->config;
    OptimConfig *o = &r->config->optim;
    if (valid(r, "optim.lr optim.min_lr") && o->min_lr > o->lr)
        config_problem_at(r, "optim.min_lr", "found %g, expected at most optim.lr %g", o->min_lr,
                          o->lr);
    if (!valid(r, "run.steps optim.schedule optim.warmup_steps optim.decay_steps")) return;
    switch (o->schedule) {
    case SCHEDULE_CONSTANT:
        break;
    case SCHEDULE_LINEAR:
    case SCHEDULE_COSINE:
        if (o->decay_steps == 0) o->decay_steps = c->run.steps;
        if (o->warmup_steps > o->decay_steps)
            config_problem_at(r, "optim.warmup_steps",
                              "found %lld, expected at most the %lld steps after which the decay "
                              "ends (optim.decay_steps, or run.steps when that is 0)",
                              ll(o->warmup_steps), ll(o->decay_steps));
        break;
    case SCHEDULE_WSD:
        if (o->decay_steps == 0) o->decay_steps = ceil_div(c->run.steps, 10);
        if (o->warmup_steps + o->decay_steps > c->run.steps)
            config_problem_at(r, "optim.warmup_steps",
                              "found %lld and a final decay of %lld steps, expected together at "
                              "most run.steps %lld",
                              ll(o->warmup_steps), ll(o->decay_steps), ll(c->run.steps));
    }
}

void config_check_keys(ConfigReader *r) {
    check_model(r);
    check_data(r);
    check_batch(r);
    check_counts(r);
    check_optim(r);
}

/* ---- the number of ranks ------------------------------------------------------------------- */

/* "2, 4 or 8": the divisors of n up to `most`. */
static void print_divisors(int64_t n, int64_t most, StrBuf *out) {
    int64_t last = 0;
    for (int64_t d = 1; d <= i64_min(n, most); d++) {
        if (n % d != 0) continue;
        if (last > 0) strbuf_printf(out, "%s%lld", out->len > 0 ? ", " : "", ll(last));
        last = d;
    }
    strbuf_printf(out, "%s%lld", out->len > 0 ? " or " : "", ll(last));
}

/* "24 or 36": the multiples of `unit` next to n. */
static void print_multiples(int64_t n, int64_t unit, StrBuf *out) {
    int64_t below = n / unit * unit;
    if (below > 0) strbuf_printf(out, "%lld or ", ll(below));
    strbuf_printf(out, "%lld", ll(below + unit));
}

static void check_divides(ConfigReader *r, const Config *c, int world) {
    int cp = c->parallel.cp;
    StrBuf near = {0};
    if (world % cp != 0) {
        print_divisors(world, cp, &near);
        config_problem(r,
                       "parallel.cp: found %d on %d ranks (%d = %d x %d + %d), expected a divisor "
                       "of the ranks: use parallel.cp %s, or ",
                       cp, world, world, cp, world / cp, world % cp, near.text);
        strbuf_free(&near);
        print_multiples(world, cp, &near);
        strbuf_printf(&r->problems, "%s ranks", near.text);
    } else {
        int64_t dp = world / cp, pass = c->batch.micro * dp;
        if (c->batch.global % pass != 0) {
            print_multiples(c->batch.global, pass, &near);
            config_problem(r,
                           "batch.global: found %lld, expected a multiple of batch.micro %lld x %d "
                           "ranks / cp %d = %lld (%lld = %lld x %lld + %lld): use batch.global %s",
                           ll(c->batch.global), ll(c->batch.micro), world, cp, ll(pass),
                           ll(c->batch.global), ll(pass), ll(c->batch.global / pass),
                           ll(c->batch.global % pass), near.text);
        }
    }
    strbuf_free(&near);
}

static void check_backend(ConfigReader *r, const Config *c) {
    int64_t cp = c->parallel.cp, tokens = c->batch.micro * c->model.seq_len;
    int64_t chunk = c->parallel.chunk_size;
    StrBuf near = {0};
    if (cp == 1) return;
    if (c->parallel.backend == BACKEND_ULYSSES && c->model.kv_heads % cp != 0) {
        print_divisors(c->model.kv_heads, cp, &near);
        config_problem(r,
                       "parallel.cp: found %lld with backend ulysses, expected a divisor of "
                       "model.kv_heads %d, which it shares out: use parallel.cp %s, or another "
                       "backend",
                       ll(cp), c->model.kv_heads, near.text);
    }
    if (c->parallel.backend == BACKEND_RING && tokens % (2 * cp) != 0) {
        print_multiples(c->model.seq_len, 2 * cp, &near);
        config_problem(r,
                       "model.seq_len: found %lld x batch.micro %lld = %lld tokens with backend "
                       "ring, expected a multiple of 2 x cp %lld = %lld: use model.seq_len %s, or "
                       "another backend",
                       ll(c->model.seq_len), ll(c->batch.micro), ll(tokens), ll(cp), ll(2 * cp),
                       near.text);
    }
    if (c->parallel.backend == BACKEND_MAGI && chunk > 0 && ceil_div(tokens, chunk) < cp)
        config_problem(r,
                       "parallel.chunk_size: found %lld, which cuts batch.micro %lld x "
                       "model.seq_len %lld = %lld tokens into %lld chunks, expected one or more "
                       "for each of %lld ranks: use at most %lld, or 0",
                       ll(chunk), ll(c->batch.micro), ll(c->model.seq_len), ll(tokens),
                       ll(ceil_div(tokens, chunk)), ll(cp), ll(tokens / cp));
    strbuf_free(&near);
}

Status config_check_world(const Config *c, int world) {
    ConfigReader r = {0};
    REQUIRE(world > 0);
    check_divides(&r, c, world);
    check_backend(&r, c);
    return config_problems_status(&r);
}
