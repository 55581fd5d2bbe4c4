#include "report/estimate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/flops.h"
#include "report/plan_report.h"

/* FLOP/s of the matrix products, with norms, loss and optimizer in their time: the example 1B on
 * one H200 (README), its time of attention taken away. */
#define MATRIX_RATE 560e12
/* Of the linear layers in FP8, with their casts: 1.5 times as fast in the example 1B and LLaMA-3B.
 */
#define FP8_RATE (1.5 * MATRIX_RATE)

static const double GIB = 1 << 30;

bool estimate_is_made(const Session *s) {
    return strcmp(s->ops->name, "cuda") == 0;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Of a rank and step; recomputation runs the forward pass of all but the head again. */
static double matrix_seconds(const Session *s) {
    const Config *c = s->config;
    const ModelConfig *m = &c->model;
    bool fp8 = c->precision == PRECISION_FP8;
    double tokens = s->step_tokens / s->world, all = flops_train(m, s->table, tokens, 0);
    double head = 6.0 * m->hidden * s->table->vocab_padded * tokens, layers = all - head;
    double in_fp8 = fp8 ? (double)i64_max(0, m->layers - c->fp8.first_bf16 - c->fp8.last_bf16) : 0;
    double share = in_fp8 / m->layers;
    if (c->memory.recompute == RECOMPUTE_LAYER) layers += layers / 3;
    return head / (fp8 && c->fp8.head ? FP8_RATE : MATRIX_RATE) +
           layers * (share / FP8_RATE + (1 - share) / MATRIX_RATE);
}

/* Of a layer and micro-batch, on the slowest rank. */
static double attention_seconds(const Session *s, const AttnPlan *p, const CostModel *m) {
    double most = 0;
    for (int r = 0; r < p->P; r++) {
        RankTimes t = plan_rank_times(p, r, m, false);
        double again = s->config->memory.recompute == RECOMPUTE_LAYER ? t.forward.seconds : 0;
        double all = t.forward.seconds + t.backward.seconds + again;
        if (all > most) most = all;
    }
    return most;
}

RunEstimate run_estimate(const Session *s, const AttnPlan *p, const CostModel *m) {
    const Config *c = s->config;
    double seconds =
        matrix_seconds(s) + (double)s->micro_steps * c->model.layers * attention_seconds(s, p, m);
    return (RunEstimate){.step_seconds = seconds,
                         .tok_s = s->step_tokens / seconds,
                         .run_seconds = seconds * (double)config_steps(c)};
}

void estimate_print_duration(double seconds, StrBuf *out) {
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"days", 86400}, {"hours", 3600}, {"minutes", 60}, {"seconds", 1}};
    size_t i = 0;
    while (i < 3 && seconds < 1.5 * units[i].seconds) i++;
    double x = seconds / units[i].seconds;
    strbuf_printf(out, "%.*f %s", x < 9.95 ? 1 : 0, x, units[i].name);
}

static void print_time(const Session *s, const RunEstimate *e, StrBuf *out) {
    strbuf_printf(out, "speed      about %s tokens/s on %d rank%s, %.3g s a step; ",
                  number_text(e->tok_s, " ").text, s->world, s->world == 1 ? "" : "s",
                  e->step_seconds);
    estimate_print_duration(e->run_seconds, out);
    strbuf_printf(out,
                  " for %" PRId64 " steps\n"
                  "           (an estimate for H200s: matrix products at %.0f",
                  config_steps(s->config), MATRIX_RATE / 1e12);
    if (s->config->precision == PRECISION_FP8) strbuf_printf(out, " (FP8 %.0f)", FP8_RATE / 1e12);
    strbuf_printf(out, " TFLOP/s, attention as planned;\n"
                       "           without sums of gradients, evaluation and checkpoints)\n");
}

/* ---- memory ---------------------------------------------------------------------------------- */

#define LITTLE      0.5 /* of a card: most of it is wasted */
#define MOST        0.9 /* of a card: what is advised leaves room */
#define RESERVE_GIB 3   /* CUDA's context, NCCL, cuBLAS */
static const struct {
    const char *name;
    double gib; /* that nvidia-smi shows */
} cards[] = {{"80 GB", 79.6}, {"141 GB", 140.4}};

/* In so much of the smallest card? */
static bool fits(int64_t bytes, double share) {
    return (double)bytes / GIB + RESERVE_GIB <= share * cards[0].gib;
}

/* Bytes of a rank with this configuration; INT64_MAX where it cannot run. */
static int64_t memory_of(const Config *c, int world) {
    Session s;
    Status st = session_plan(&s, c, world, NULL);
    int64_t bytes = st == OK ? s.arena.bytes : INT64_MAX;
    session_close(&s);
    status_ignore(st);
    return bytes;
}

typedef enum { ZERO, MICRO, RECOMPUTE, CP, CHANGES } Change;

/* One step of a change towards less or more memory; false: there is none left. */
static bool change(Config *c, Change what, bool less) {
    switch (what) {
    case ZERO:
        if (!less || c->parallel.zero == 1) return false;
        c->parallel.zero = 1;
        return true;
    case MICRO:
        if (less && c->batch.micro % 2 != 0) return false;
        c->batch.micro = less ? c->batch.micro / 2 : c->batch.micro * 2;
        return true;
    case RECOMPUTE:
        if (less == (c->memory.recompute == RECOMPUTE_LAYER)) return false;
        c->memory.recompute = less ? RECOMPUTE_LAYER : RECOMPUTE_NONE;
        return true;
    default:
        if (!less && c->parallel.cp % 2 != 0) return false;
        c->parallel.cp = less ? c->parallel.cp * 2 : c->parallel.cp / 2;
        return true;
    }
}

/* The values of *c that differ from those of `before`. */
static void print_changes(const Config *before, const Config *c, StrBuf *out) {
    if (c->parallel.zero != before->parallel.zero)
        strbuf_printf(out, " parallel.zero=%d", (int)c->parallel.zero);
    if (c->batch.micro != before->batch.micro)
        strbuf_printf(out, " batch.micro=%" PRId64, c->batch.micro);
    if (c->memory.recompute != before->memory.recompute)
        strbuf_printf(out, " memory.recompute=%s",
                      config_enum_name((int)c->memory.recompute, "memory.recompute"));
    if (c->parallel.cp != before->parallel.cp)
        strbuf_printf(out, " parallel.cp=%d", c->parallel.cp);
}

/* Changes *c until a rank fits the smallest card (less), or fills it further (more). Returns its
 * bytes. */
static int64_t adapt(Config *c, int world, int64_t bytes, bool less) {
    for (Change what = 0; what < CHANGES && !(less && fits(bytes, 1));) {
        Config next = *c;
        int64_t then = INT64_MAX;
        if (change(&next, what, less)) then = memory_of(&next, world);
        if (less ? then < bytes : fits(then, MOST)) {
            *c = next;
            bytes = then;
        } else {
            what++;
        }
    }
    return bytes;
}

static void print_advice(const Session *s, int64_t bytes, StrBuf *out) {
    Config c = *s->config;
    bool less = !fits(bytes, 1);
    if (!less && !fits(bytes, LITTLE)) return;
    int64_t then = adapt(&c, s->world, bytes, less);
    if (then == bytes && !less) return;
    strbuf_printf(out, "           %s",
                  !less ? "more of 80 GB with"
                  : fits(then, 1)
                      ? "fits 80 GB with"
                      : "80 GB need more ranks or a smaller model;\n           least is");
    print_changes(s->config, &c, out);
    strbuf_printf(out, "%s %.1f GiB\n", then == bytes ? "" : ":", (double)then / GIB);
}

static void print_cards(int64_t bytes, StrBuf *out) {
    double gib = (double)bytes / GIB;
    strbuf_printf(out, "cards      %.1f GiB a rank, about %d more for CUDA and NCCL:", gib,
                  RESERVE_GIB);
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        double share = (gib + RESERVE_GIB) / cards[i].gib;
        strbuf_printf(out, "%s %s ", i == 0 ? "" : ",", cards[i].name);
        if (share <= 1)
            strbuf_printf(out, "%.0f %% full", 100 * share);
        else
            strbuf_printf(out, "too small");
    }
    strbuf_printf(out, "\n");
}

/* ---- all ------------------------------------------------------------------------------------- */

/* Of a micro-batch of whole sequences. */
static Status plan_sequences(const CpOptions *o, AttnPlan *p) {
    int64_t n = o->tokens / o->seq_len;
    int32_t *begin = NEW(int32_t, n);
    for (int64_t i = 0; i < n; i++) begin[i] = (int32_t)(i * o->seq_len);
    Mask mask;
    Status st = cp_mask(&mask, o, begin, n);
    free(begin);
    CHECK(st);
    st = cp_plan(p, o, &mask);
    mask_free(&mask);
    return st;
}

Status run_estimate_sequences(const Session *s, RunEstimate *e) {
    const ModelConfig *m = &s->config->model;
    CostModel cost = cost_default(m->heads, m->kv_heads, m->head_dim);
    AttnPlan plan;
    CHECK(plan_sequences(&s->cp_options, &plan));
    *e = run_estimate(s, &plan, &cost);
    plan_free(&plan);
    return OK;
}

void run_estimate_text(const Session *s, const AttnPlan *p, StrBuf *out) {
    const ModelConfig *m = &s->config->model;
    if (!estimate_is_made(s)) {
        strbuf_printf(
            out,
            "speed      not estimated for CPUs; what `cria plan` says of times is for H200s\n");
        return;
    }
    CostModel cost = cost_default(m->heads, m->kv_heads, m->head_dim);
    RunEstimate e;
    Status st = OK;
    if (p != NULL)
        e = run_estimate(s, p, &cost);
    else
        st = run_estimate_sequences(s, &e);
    if (st == OK) print_time(s, &e, out);
    status_ignore(st);
    print_cards(s->arena.bytes, out);
    print_advice(s, s->arena.bytes, out);
}
