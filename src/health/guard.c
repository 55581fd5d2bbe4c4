#include "health/guard.h"

#include <math.h>
#include <stdlib.h>

#include "comm/agree.h"
#include "health/nonfinite.h"

enum { MIN_STEPS_FOR_STATS = 20 }; /* before, nothing is a spike */

/* ---- statistics of recent steps -------------------------------------------------------------- */

static void learn(GuardState *g, const StepNumbers *n) {
    g->losses[g->seen % GUARD_WINDOW] = n->loss;
    g->norms[g->seen++ % GUARD_WINDOW] = n->grad_norm;
    g->in_a_row = 0;
}

/* Standard deviations of `loss` above the mean. The deviation is taken as at least 1e-3 of the
 * mean, so that where losses hardly vary a difference of a thousandth is no spike. */
static double deviations_above(const GuardState *g, double loss, double *mean) {
    int64_t n = guard_steps_kept(g);
    double sum = 0, squares = 0;
    if (n < MIN_STEPS_FOR_STATS) return 0;
    for (int64_t i = 0; i < n; i++) sum += g->losses[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = g->losses[i] - *mean;
        squares += d * d; /* the same bits on every rank, which libm does not promise */
    }
    return (loss - *mean) / fmax(sqrt(squares / (double)n), 1e-3 * fabs(*mean));
}

/* `norm` divided by the mean. */
static double norm_ratio(const GuardState *g, double norm, double *mean) {
    int64_t n = 0;
    double sum = 0;
    for (int64_t i = 0; i < guard_steps_kept(g); i++) {
        sum += g->norms[i];
        n += g->norms[i] > 0;
    }
    *mean = n > 0 ? sum / (double)n : 0;
    return n < MIN_STEPS_FOR_STATS ? 0 : norm / *mean;
}

typedef enum { NO_FAULT, NOT_FINITE, LOSS_SPIKE, NORM_SPIKE } Fault;

static Fault find_fault(const GuardState *g, const Config *c, const StepNumbers *n) {
    double mean;
    if (!isfinite(n->loss) || !isfinite(n->grad_norm)) return NOT_FINITE;
    if (c->run.spike_z > 0 && deviations_above(g, n->loss, &mean) > c->run.spike_z)
        return LOSS_SPIKE;
    if (c->run.spike_norm > 0 && norm_ratio(g, n->grad_norm, &mean) > c->run.spike_norm)
        return NORM_SPIKE;
    return NO_FAULT;
}

/* ---- recomputing the step -------------------------------------------------------------------- */

/* This rank's micro-batch with the highest mean loss. */
typedef struct {
    Session *s;
    double sum; /* of the losses so far */
    double loss;
    StrBuf samples;
} Worst;

static Status note_worst(void *worst, const MicroBatch *mb) {
    Worst *w = worst;
    const Session *s = w->s;
    double before = w->sum;
    /* Without resetting it: the sum must be accumulated as in the first run, for the same bits. */
    s->ops->mem_copy(&w->sum, &s->losses[LLAMA_CE], sizeof w->sum, s->stream);
    CHECK(s->ops->stream_sync(s->stream));
    double loss = (w->sum - before) / fmax(mb->cp_batch->weight_sum, 1);
    if (!(loss > w->loss)) return OK;
    w->loss = loss;
    strbuf_free(&w->samples);
    print_samples(mb, &w->samples);
    return OK;
}

/* The step's micro-batches in the same order. */
static Status run_again(Session *s, int64_t step, StepNumbers *n, Worst *w) {
    const MicroBatches batches = {.n = s->micro_steps,
                                  .train = true,
                                  .reduce = true,
                                  .step = step + 1,
                                  .phase = "forward and backward again",
                                  .data = s->train_data,
                                  .options = &s->loader,
                                  .batch = step,
                                  .inspect = note_worst,
                                  .inspector = w};
    double sums[SUM_OWN] = {0};
    llama_zero_gradients(s->llama, s->stream);
    CHECK(session_accumulate(s, &batches, &sums[SUM_COUNT]));
    CHECK(session_sum(s, sums, SUM_OWN, n));
    return session_grad_norm(s, n);
}

/* The worst micro-batch of all ranks. */
static Status share_worst(const Worst *w, char **found) {
    Comm *host = w->s->comm.host;
    double highest = w->loss;
    CHECK(comm_all_reduce(host, &highest, 1, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL));
    if (w->loss == highest)
        *found =
            mem_printf("highest in samples %s, %g on average", strbuf_text(&w->samples), w->loss);
    return agree_first(host, found);
}

/* ---- the decision ---------------------------------------------------------------------------- */

/* Runs the step again; *found describes what is wrong with it, NULL: nothing is. */
static Status examine(const GuardState *g, Session *s, int64_t step, StepNumbers *again,
                      char **found) {
    Worst worst = {.s = s, .loss = -INFINITY};
    Status st = run_again(s, step, again, &worst);
    Fault fault = st == OK ? find_fault(g, s->config, again) : NO_FAULT;
    if (fault == NOT_FINITE)
        st = nonfinite_locate(s, step, found);
    else if (fault != NO_FAULT)
        st = share_worst(&worst, found);
    strbuf_free(&worst.samples);
    return st;
}

static void describe(const GuardRecord *r, Fault fault, StrBuf *out) {
    strbuf_printf(out, "step %lld: loss %g", (long long)r->step, fabs(r->loss)); /* not "-nan" */
    if (fault == LOSS_SPIKE)
        strbuf_printf(out, " is %.1f standard deviations above its mean %g", r->z, r->mean);
    else
        strbuf_printf(out, ", gradient norm %g", fabs(r->grad_norm));
    if (fault == NORM_SPIKE)
        strbuf_printf(out, " is %.1f times its mean %g", r->norm_ratio, r->norm_mean);
}

/* The outcome. */
static void describe_end(const GuardRecord *r, const GuardState *g, const Config *c,
                         const char *found, StrBuf *out) {
    bool stops = r->outcome == GUARD_STOPPED;
    if (found == NULL)
        strbuf_printf(out,
                      "; run again it was %g, gradient norm %g: a fault of the hardware that "
                      "came and went; %s",
                      r->again_loss, r->again_norm,
                      stops ? "nothing was written, --resume auto continues" : "the step goes on");
    else
        strbuf_printf(out, ", and the same when run again; %s: %s",
                      stops ? "nothing was written" : "the update is left out", found);
    if (stops && g->in_a_row > c->run.max_skips)
        strbuf_printf(out, "; %lld updates in a row would be left out, run.max_skips is %lld",
                      (long long)g->in_a_row, (long long)c->run.max_skips);
}

static Status react(GuardState *g, Session *s, StepNumbers *n, Fault fault, GuardRecord *r,
                    StrBuf *message) {
    const Config *c = s->config;
    bool skips = (fault == NOT_FINITE ? c->run.on_nonfinite : c->run.on_spike) == GUARD_SKIP;
    char *found = NULL;
    if (fault == NOT_FINITE) { /* with bad weights every step is bad */
        CHECK(nonfinite_weights(s, &found));
        if (found != NULL) {
            r->outcome = GUARD_STOPPED;
            strbuf_printf(message, "; nothing was written: %s", found);
            free(found);
            return OK;
        }
    }
    StepNumbers again;
    CHECK(examine(g, s, r->step - 1, &again, &found));
    r->again_loss = again.loss;
    r->again_norm = again.grad_norm;
    if (skips && found == NULL) {
        r->outcome = GUARD_RECOMPUTED;
        *n = again;
        learn(g, n);
    } else if (skips && ++g->in_a_row <= c->run.max_skips) {
        r->outcome = GUARD_SKIPPED;
        g->skipped++;
    } else {
        r->outcome = GUARD_STOPPED;
    }
    describe_end(r, g, c, found, message);
    free(found);
    return OK;
}

Status guard_step(GuardState *g, Session *s, int64_t step, StepNumbers *n, GuardRecord *r) {
    const Config *c = s->config;
    Fault fault = find_fault(g, c, n);
    *r = (GuardRecord){.outcome = fault == NO_FAULT ? GUARD_PASSED : GUARD_WARNED,
                       .step = step + 1,
                       .loss = n->loss,
                       .grad_norm = n->grad_norm,
                       .z = NAN,
                       .norm_ratio = NAN,
                       .again_loss = NAN,
                       .again_norm = NAN,
                       .first_sample = s->loader.sample_shift + step * c->batch.global,
                       .samples = c->batch.global};
    if (fault == LOSS_SPIKE || fault == NORM_SPIKE) {
        r->z = deviations_above(g, n->loss, &r->mean);
        r->norm_ratio = norm_ratio(g, n->grad_norm, &r->norm_mean);
    }
    if (fault == NO_FAULT || (fault != NOT_FINITE && c->run.on_spike == GUARD_WARN)) learn(g, n);
    if (fault == NO_FAULT) return OK;
    StrBuf message = {0};
    describe(r, fault, &message);
    Status st = OK;
    if (fault == NOT_FINITE || c->run.on_spike != GUARD_WARN)
        st = react(g, s, n, fault, r, &message);
    r->message = message.text;
    CHECK(st);
    if (r->outcome == GUARD_STOPPED) st = status_fail(ERR_ENV, "%s", r->message);
    return comm_agree(s->comm.host, st);
}
