#include "session/step.h"

#include <math.h>

#include "base/progress.h"
#include "ops/nvtx.h"
#include "ops/phases.h"

static Status reduce_bucket(void *session, int bucket) {
    Session *s = session;
    nvtx_push("reduce gradients of bucket", bucket);
    Phase before = phase_enter(s->stream, PHASE_GRAD_REDUCE);
    CHECK(optimizer_reduce_bucket(s->optimizer, bucket, s->stream));
    phase_enter(s->stream, before);
    nvtx_pop();
    return OK;
}

static Status read_batch(const MicroBatches *b, int64_t j, MicroBatch *own, const MicroBatch **mb) {
    if (b->read != NULL) return b->read(b->reader, j, mb);
    loader_batch_free(own, b->options);
    *mb = own;
    return loader_batch(own, b->data, b->options, b->batch, j);
}

static Status accumulate(Session *s, const MicroBatches *b, MicroBatch *own, double *count) {
    for (int64_t j = b->first; j < b->first + b->n; j++) {
        /* fetch the next micro-batch */
        progress_beat(b->step, "data");
        const MicroBatch *mb = NULL;
        nvtx_push("data", j);
        phase_enter(s->stream, PHASE_DATA);
        Status st = read_batch(b, j, own, &mb);
        phase_enter(s->stream, PHASE_WAIT);
        CHECK(comm_agree(s->comm.host, st));
        nvtx_pop();
        *count += mb->cp_batch->weight_sum;

        /* forward, and backward: the last one reduces each bucket as soon as it is final */
        progress_beat(b->step, b->phase);
        bool reduce = b->reduce && j + 1 == b->first + b->n;
        nvtx_push("micro-batch", j);
        phase_enter(s->stream, PHASE_FORWARD);
        CHECK(cp_begin(s->cp, mb->cp_batch, s->stream));
        CHECK(llama_run(s->llama, mb->cp_batch, b->train, s->losses, reduce ? reduce_bucket : NULL,
                        s, s->stream));
        nvtx_pop();
        if (b->inspect != NULL) CHECK(b->inspect(b->inspector, mb));
    }
    return OK;
}

Status session_accumulate(Session *s, const MicroBatches *b, double *count) {
    MicroBatch own = {0};
    *count = 0;
    llama_cast_weights(s->llama, s->stream);
    Status st = accumulate(s, b, &own, count);
    if (b->read == NULL) loader_batch_free(&own, b->options);
    return st;
}

Status session_take_losses(Session *s, double sums[LLAMA_SUMS]) {
    enum { BYTES = LLAMA_SUMS * sizeof *sums };
    s->ops->mem_copy(sums, s->losses, BYTES, s->stream);
    CHECK(phases_sync(s->stream));
    s->ops->mem_zero(s->losses, BYTES, s->stream);
    return OK;
}

Status session_sum(Session *s, double *sums, int n, StepNumbers *numbers) {
    phase_enter(s->stream, PHASE_WAIT);
    CHECK(session_take_losses(s, &sums[SUM_LOSSES]));
    CHECK(comm_all_reduce(s->comm.host, sums, n, DT_F64, COMM_SUM, COMM_KIND_OTHER, NULL));
    /* A batch whose labels are all ignored has loss and gradient 0; AdamW still decays weights and
     * moments. */
    double count = sums[SUM_COUNT] > 0 ? sums[SUM_COUNT] : 1;
    *numbers = (StepNumbers){.loss = sums[SUM_LOSSES + LLAMA_CE] / count,
                             .z_loss = sums[SUM_LOSSES + LLAMA_Z_LOSS] / count,
                             .count = count};
    return OK;
}

Status session_grad_norm(Session *s, StepNumbers *n) {
    CHECK(optimizer_grad_norm(s->optimizer, &n->grad_norm, s->stream));
    n->grad_norm /= n->count;
    return OK;
}

Status session_update(Session *s, int64_t update, double lr, const StepNumbers *n) {
    double scale = 1 / n->count, clip = s->config->optim.clip;
    /* 1e-6 as in PyTorch's clip_grad_norm_ */
    if (clip > 0) scale *= fmin(1, clip / (n->grad_norm + 1e-6));
    nvtx_push("optimizer", -1);
    phase_enter(s->stream, PHASE_OPTIMIZER);
    CHECK(optimizer_step(s->optimizer, update, lr, scale, s->stream));
    nvtx_pop();
    return OK;
}
