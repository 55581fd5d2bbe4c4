/* stages.c: `stages` and batch.ramp as whole configurations, in the order of steps. Each begins
 * where the steps before, with their own batches, have come to its step or token. */
#include "config/keys.h"

#include <stdlib.h>
#include <string.h>

static long long ll(int64_t v) {
    return (long long)v;
}

char *config_item_name(int i) {
    return mem_printf("stages[%d]", i);
}

typedef struct {
    ConfigReader *r;
    Config *given; /* what holds, as it was written: each stage resolves what is 0 = derived */
    KeyOrigin origin[CONFIG_KEYS_MAX];
    int64_t step; /* updates before the stage that was added last */
    double tokens;
} Builder;

/* ---- one stage ------------------------------------------------------------------------------- */

static void add(Builder *b, const char *name, const char *changes) {
    Config *c = b->r->config;
    ConfigReader one = *b->r;
    one.config = NEW(Config, 1);
    one.stage = name[0] != '\0' ? name : NULL;
    memcpy(one.origin, b->origin, sizeof one.origin);
    config_copy(one.config, b->given);
    config_check_keys(&one);
    b->r->problems = one.problems;
    b->r->n_problems = one.n_problems;
    c->timeline = mem_grow(c->timeline, c->n_timeline + 1, sizeof *c->timeline);
    c->timeline[c->n_timeline++] = (ConfigStage){.from = b->step,
                                                 .tokens = b->tokens,
                                                 .name = mem_strdup(name),
                                                 .changes = mem_strdup(changes),
                                                 .config = one.config};
}

/* Sets the keys of an item; appends them to `changes`. */
static void apply(Builder *b, const StageItem *item, StrBuf *changes) {
    const char *override = b->r->origin[config_key_find("stages") - config_keys].override;
    for (int i = 0; i < item->n_keys; i++) {
        const ConfigKey *k = &config_keys[item->keys[i]];
        config_value_copy(k, b->given, item->values);
        b->origin[item->keys[i]] =
            (KeyOrigin){.line = item->line, .override = override, .valid = true};
        strbuf_printf(changes, "%s\"%s\": ", changes->len > 0 ? ", " : "", k->name);
        config_value_print(k, item->values, true, changes);
    }
}

static bool sets(const StageItem *item, const char *key) {
    const ConfigKey *k = config_key_find(key);
    for (int i = 0; i < item->n_keys; i++)
        if (&config_keys[item->keys[i]] == k) return true;
    return false;
}

/* A line of the problems about item i as a whole. */
static void problem(Builder *b, int i, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void problem(Builder *b, int i, const char *fmt, ...) {
    const char *override = b->r->origin[config_key_find("stages") - config_keys].override;
    StrBuf text = {0};
    char *name = config_item_name(i);
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    config_problem_in(b->r, override, b->r->config->stages[i].line, "%s: %s", name, text.text);
    strbuf_free(&text);
    free(name);
}

/* ---- when ------------------------------------------------------------------------------------ */

/* The first step at whose begin the run has seen so many tokens, if it goes on as it is. Not above
 * b->step when it has seen them already. */
static int64_t step_of(const Builder *b, int64_t tokens) {
    int64_t per_step = b->given->batch.global * b->given->model.seq_len;
    if ((double)tokens <= b->tokens) return b->step;
    return b->step + ceil_div(tokens - (int64_t)b->tokens, per_step);
}

static void go_to(Builder *b, int64_t step) {
    b->tokens +=
        (double)(step - b->step) * (double)b->given->batch.global * (double)b->given->model.seq_len;
    b->step = step;
}

/* Tokens of the run at rise number i of n. */
static int64_t tokens_of_rise(const Config *c, int64_t i, int64_t n) {
    int64_t all = c->batch.ramp.tokens;
    return all / n * i + all % n * i / n; /* without overflow: all and n are below 2^53 and 2^30 */
}

/* ---- all ------------------------------------------------------------------------------------- */

/* Megatron's order is laid out for all samples of a run at once. */
static void check_order(Builder *b) {
    static const char *const keys[] = {"data.train", "model.seq_len", "batch.global"};
    const Config *c = b->r->config;
    if (c->data.order != ORDER_MEGATRON) return;
    if (c->batch.ramp.tokens > 0)
        config_problem_at(b->r, config_key_find("batch.ramp.tokens"),
                          "found %lld with data.order megatron, expected data.order cria",
                          ll(c->batch.ramp.tokens));
    for (int i = 0; i < c->n_stages; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (sets(&c->stages[i], keys[k]))
                problem(b, i, "found %s with data.order megatron, expected data.order cria",
                        keys[k]);
}

static void check_item_begins_later(Builder *b, int i, int64_t at) {
    const StageItem *item = &b->r->config->stages[i];
    bool by_step = item->from > 0;
    if (at <= b->step)
        problem(b, i,
                "found %s %lld, expected one or more steps after the beginning of the stage before "
                "(step %lld, after %.0f tokens)",
                by_step ? "from" : "from_tokens", ll(by_step ? item->from : item->from_tokens),
                ll(b->step), b->tokens);
}

/* While the ramp rises, the batch is the ramp's. */
static void check_item_batch(Builder *b, int i) {
    if (sets(&b->r->config->stages[i], "batch.global"))
        problem(b, i,
                "found batch.global before batch.ramp has come to its end, expected it in a stage "
                "from %lld tokens on",
                ll(b->r->config->batch.ramp.tokens));
}

static void build(Builder *b) {
    const Config *c = b->r->config;
    int64_t rises = 0, done = 0; /* of the ramp */
    if (c->batch.ramp.tokens > 0) {
        rises = (c->batch.global - c->batch.ramp.from) / c->batch.ramp.step;
        b->given->batch.global = c->batch.ramp.from;
        memset(&b->given->batch.ramp, 0, sizeof b->given->batch.ramp); /* stages are the ramp */
    }
    add(b, rises > 0 ? "batch.ramp.from" : "", "");
    for (int next = 0; b->r->n_problems == 0;) {
        const StageItem *item = next < c->n_stages ? &c->stages[next] : NULL;
        int64_t item_at = INT64_MAX, rise_at = INT64_MAX;
        if (item != NULL) item_at = item->from > 0 ? item->from : step_of(b, item->from_tokens);
        if (done < rises) rise_at = step_of(b, tokens_of_rise(c, done + 1, rises));
        int64_t at = i64_min(item_at, rise_at);
        if (at >= c->run.steps) {
            if (item != NULL)
                config_note_at(b->r, config_key_find("stages"),
                               "run.steps %lld ends before stages[%d] begins (step %lld)",
                               ll(c->run.steps), next, ll(item_at));
            return;
        }
        if (item_at == at) check_item_begins_later(b, next, at);
        if (b->r->n_problems > 0) return;
        go_to(b, at);
        StrBuf changes = {0};
        char *name = NULL;
        if (rise_at == at) {
            while (done < rises && (double)tokens_of_rise(c, done + 1, rises) <= b->tokens) done++;
            b->given->batch.global = c->batch.ramp.from + done * c->batch.ramp.step;
            strbuf_printf(&changes, "\"batch.global\": %lld", ll(b->given->batch.global));
            name = mem_printf("batch.ramp at step %lld", ll(at));
        }
        if (item_at == at) {
            if (done < rises) check_item_batch(b, next);
            apply(b, item, &changes);
            free(name);
            name = config_item_name(next++);
        }
        add(b, name, strbuf_text(&changes));
        free(name);
        strbuf_free(&changes);
    }
}

void config_build_stages(ConfigReader *r, Config *given) {
    Builder b = {.r = r, .given = given};
    Config *c = r->config;
    if (c->n_stages == 0 && c->batch.ramp.tokens == 0) return;
    memcpy(b.origin, r->origin, sizeof b.origin);
    check_order(&b);
    if (r->n_problems == 0) build(&b);
    for (int k = 0; k < c->n_timeline; k++)
        c->timeline[k].config->stage_steps = config_stage_end(c, k) - config_stage_from(c, k);
}

void config_free_stages(Config *c) {
    for (int k = 0; k < c->n_timeline; k++) {
        free(c->timeline[k].name);
        free(c->timeline[k].changes);
        config_free(c->timeline[k].config);
        free(c->timeline[k].config);
    }
    free(c->timeline);
    c->timeline = NULL;
    c->n_timeline = 0;
}

/* ---- questions ------------------------------------------------------------------------------- */

int config_n_stages(const Config *c) {
    return c->n_timeline > 0 ? c->n_timeline : 1;
}

int config_stage_at(const Config *c, int64_t step) {
    int k = config_n_stages(c) - 1;
    while (k > 0 && c->timeline[k].from >= step) k--;
    return k;
}

const Config *config_of_stage(const Config *c, int k) {
    REQUIRE(k >= 0 && k < config_n_stages(c));
    return c->n_timeline > 0 ? c->timeline[k].config : c;
}

int64_t config_stage_from(const Config *c, int k) {
    return k > 0 ? c->timeline[k].from : 0;
}

int64_t config_stage_end(const Config *c, int k) {
    return k + 1 < config_n_stages(c) ? c->timeline[k + 1].from : c->run.steps;
}

int64_t config_steps(const Config *c) {
    return c->stage_steps > 0 ? c->stage_steps : c->run.steps;
}

void config_print_stages(const Config *c, int64_t first, int64_t end, StrBuf *out) {
    int n = 0;
    strbuf_printf(out, "[");
    for (int k = 1; k < c->n_timeline; k++) {
        const ConfigStage *s = &c->timeline[k];
        if (s->from < first || s->from >= end) continue;
        strbuf_printf(out, "%s{\"from\": %lld, %s}", n++ > 0 ? ", " : "", ll(s->from), s->changes);
    }
    strbuf_printf(out, "]");
}

void config_take_stage(Config *c, int k) {
    if (c->n_timeline == 0) return;
    Config *stage = c->timeline[k].config;
    Config whole = *c;
    *c = *stage;
    *stage = (Config){0};
    config_free(&whole);
}
