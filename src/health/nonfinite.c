#include "health/nonfinite.h"

#include <math.h>
#include <stdlib.h>

#include "comm/agree.h"
#include "session/step.h"

static Status sum_of_squares(Session *s, const float *x, int64_t n, double *sum) {
    double sums[LLAMA_SUMS];
    CHECK(session_take_losses(s, sums)); /* the accumulators are free between micro-batches */
    s->ops->sum_squares(s->losses, x, n, s->stream);
    CHECK(session_take_losses(s, sums));
    *sum = sums[0];
    return OK;
}

static Status check_weights(Session *s, char **found) {
    ParamPiece *own;
    int n = param_table_pieces(s->table, s->rank, &own);
    Status st = OK;
    for (int i = 0; i < n && st == OK && *found == NULL; i++) {
        double sum;
        st = sum_of_squares(s, optimizer_state(s->optimizer, OPTIM_WEIGHT, &own[i]), own[i].count,
                            &sum);
        if (st == OK && !isfinite(sum))
            *found = mem_printf("weights of %s were already not finite before the step",
                                s->table->params[own[i].param].name);
    }
    free(own);
    return st;
}

/* In the order in which the backward makes them: head, layers from the last down, embedding. */
static Status check_gradients(Session *s, const char *samples, char **found) {
    for (int i = s->table->n_params - 1; i >= 0 && *found == NULL; i--) {
        const Param *p = &s->table->params[i];
        double sum;
        CHECK(sum_of_squares(s, llama_gradients(s->llama) + p->offset, p->count, &sum));
        if (!isfinite(sum))
            *found = mem_printf("the gradient of %s is not finite, samples %s", p->name, samples);
    }
    return OK;
}

static Status check_activations(Session *s, const MicroBatch *mb, const char *samples,
                                char **found) {
    int layer = -1;
    CHECK(llama_first_nonfinite(s->llama, mb->cp_batch->S, s->stream, &layer));
    if (layer == 0)
        *found = mem_printf("the embedding's output is not finite, samples %s", samples);
    else if (layer > 0)
        *found =
            mem_printf("the output of layer %d is the first tensor that is not finite, samples %s",
                       layer - 1, samples);
    else
        *found = mem_printf("the loss is not finite although every layer's output is, samples %s",
                            samples);
    return OK;
}

void print_samples(const MicroBatch *mb, StrBuf *out) {
    for (int64_t b = 0; b < mb->B; b++)
        strbuf_printf(out, "%s%lld", b > 0 ? ", " : "", (long long)mb->samples[b]);
}

typedef struct {
    Session *s;
    char **found;
} Search;

static Status check_micro(void *search, const MicroBatch *mb) {
    Session *s = ((Search *)search)->s;
    char **found = ((Search *)search)->found;
    StrBuf samples = {0};
    print_samples(mb, &samples);
    double losses[LLAMA_SUMS];
    Status st = session_take_losses(s, losses);
    if (st == OK && !isfinite(losses[LLAMA_CE]))
        st = check_activations(s, mb, strbuf_text(&samples), found);
    if (st == OK) st = check_gradients(s, strbuf_text(&samples), found);
    strbuf_free(&samples);
    return st;
}

Status nonfinite_weights(Session *s, char **found) {
    *found = NULL;
    CHECK(comm_agree(s->comm.host, check_weights(s, found)));
    return agree_first(s->comm.host, found);
}

Status nonfinite_locate(Session *s, int64_t step, char **found) {
    Search search = {.s = s, .found = found};
    MicroBatches one = {.n = 1,
                        .train = true,
                        .step = step + 1,
                        .phase = "search for a number that is not finite",
                        .data = s->train_data,
                        .options = &s->loader,
                        .batch = step,
                        .inspect = check_micro,
                        .inspector = &search};
    for (*found = NULL; one.first < s->micro_steps && *found == NULL; one.first++) {
        double count;
        llama_zero_gradients(s->llama, s->stream);
        CHECK(comm_agree(s->comm.host, session_accumulate(s, &one, &count)));
        CHECK(agree_first(s->comm.host, found));
    }
    if (*found == NULL)
        *found = mem_strdup("its micro-batches one by one gave finite numbers: their sum "
                            "overflows, or what sums it up fails");
    return OK;
}
