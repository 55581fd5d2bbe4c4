#include "train/nonfinite.h"

#include <math.h>
#include <stdlib.h>

static Status sum_of_squares(Session *s, const float *x, int64_t n, double *sum) {
    CHECK(session_take_loss(s, sum)); /* the accumulator is free between micro-batches */
    s->ops->sum_squares(s->loss, x, n, s->stream);
    return session_take_loss(s, sum);
}

static Status check_weights(Session *s) {
    ParamPiece *own;
    int n = param_table_pieces(s->table, s->rank, &own);
    Status st = OK;
    for (int i = 0; i < n && st == OK; i++) {
        double sum;
        st = sum_of_squares(s, optimizer_state(s->optimizer, OPTIM_WEIGHT, &own[i]), own[i].count,
                            &sum);
        if (st == OK && !isfinite(sum))
            st = status_fail(ERR_ENV, "weights of %s were already not finite before the step",
                             s->table->params[own[i].param].name);
    }
    free(own);
    return st;
}

/* In the order in which the backward makes them: head, layers from the last down, embedding. */
static Status check_gradients(Session *s, const char *samples) {
    for (int i = s->table->n_params - 1; i >= 0; i--) {
        const Param *p = &s->table->params[i];
        double sum;
        CHECK(sum_of_squares(s, llama_gradients(s->llama) + p->offset, p->count, &sum));
        if (!isfinite(sum))
            return status_fail(ERR_ENV, "the gradient of %s is not finite, samples %s", p->name,
                               samples);
    }
    return OK;
}

static Status check_micro(Session *s, const MicroBatch *mb) {
    StrBuf samples = {0};
    for (int64_t b = 0; b < mb->B; b++)
        strbuf_printf(&samples, "%s%lld", b > 0 ? ", " : "", (long long)mb->samples[b]);
    llama_zero_gradients(s->llama, s->stream);
    double loss;
    Status st = session_run_micro(s, mb, true, NULL, NULL);
    if (st == OK) st = session_take_loss(s, &loss);
    int layer = -1;
    if (st == OK && !isfinite(loss)) {
        st = llama_first_nonfinite(s->llama, ((const CpBatch *)mb->prepared)->S, s->stream, &layer);
        if (st == OK && layer == 0)
            st = status_fail(ERR_ENV, "the embedding's output is not finite, samples %s",
                             strbuf_text(&samples));
        if (st == OK && layer > 0)
            st = status_fail(ERR_ENV, "the output of layer %d is the first tensor that is not "
                                      "finite, samples %s", layer - 1, strbuf_text(&samples));
        if (st == OK)
            st = status_fail(ERR_ENV, "the loss is not finite although every layer's output is, "
                                      "samples %s", strbuf_text(&samples));
    }
    if (st == OK) st = check_gradients(s, strbuf_text(&samples));
    strbuf_free(&samples);
    return st;
}

/* Only the first rank that found something reports it, so that comm_agree names that rank. */
static Status agree_first(Session *s, Status mine) {
    int32_t first = mine != OK ? s->rank : s->world;
    CHECK(comm_all_reduce(s->comm.host, &first, 1, DT_I32, COMM_MIN, NULL));
    if (mine != OK && first != s->rank) {
        status_clear();
        mine = OK;
    }
    return comm_agree(s->comm.host, mine);
}

Status nonfinite_locate(Session *s, int64_t step, double loss, double grad_norm) {
    Status st = agree_first(s, check_weights(s));
    for (int64_t j = 0; st == OK && j < s->micro_steps; j++) {
        MicroBatch mb;
        st = loader_batch(&mb, s->train_data, &s->loader, step, j);
        if (st == OK) st = check_micro(s, &mb);
        loader_batch_free(&mb, &s->loader);
        st = agree_first(s, st);
    }
    if (st == OK)
        st = status_fail(ERR_ENV, "its micro-batches run again one by one gave finite numbers: "
                                  "their sum overflows, or the hardware fails");
    status_prefix("step %lld: loss %g, gradient norm %g; nothing was written", (long long)step + 1,
                  fabs(loss), fabs(grad_norm)); /* not "-nan" */
    return st;
}
