/* meter_ops.c: the table of Ops that notes when each op begins and ends. */
#include "bench/meter_private.h"

/* An op does not know its table, so the meter that it reports to cannot be an argument: this is the
 * one place that knows it. Ops are called by one thread. */
static Meter *current;

/* op, class, parameters and arguments; the stream is always called `stream`. */
#define METERED(X)                                                                                 \
    X(mem_zero, DATA, (void *ptr, int64_t bytes, Stream *stream), (ptr, bytes, stream))            \
    X(mem_upload, DATA, (void *dst, const void *src, int64_t bytes, Stream *stream),               \
      (dst, src, bytes, stream))                                                                   \
    X(mem_copy, DATA, (void *dst, const void *src, int64_t bytes, Stream *stream),                 \
      (dst, src, bytes, stream))                                                                   \
    X(event_wait, EXPOSED, (Event * event, Stream * stream), (event, stream))                      \
    X(embedding_fwd, OTHER,                                                                        \
      (void *x, const int32_t *tokens, const void *table, int64_t S, int C, Stream *stream),       \
      (x, tokens, table, S, C, stream))                                                            \
    X(embedding_bwd, OTHER,                                                                        \
      (float *dtable, const void *dx, const int32_t *tokens, int64_t S, int C, int V,              \
       Stream *stream),                                                                            \
      (dtable, dx, tokens, S, C, V, stream))                                                       \
    X(rmsnorm_fwd, OTHER,                                                                          \
      (void *y, float *rstd, const void *x, const void *w, int64_t S, int C, float eps,            \
       Stream *stream),                                                                            \
      (y, rstd, x, w, S, C, eps, stream))                                                          \
    X(rmsnorm_bwd, OTHER,                                                                          \
      (void *dx, float *dw, void *y, const void *dy, const void *x, const void *w,                 \
       const float *rstd, const void *dres, int64_t S, int C, Stream *stream),                     \
      (dx, dw, y, dy, x, w, rstd, dres, S, C, stream))                                             \
    X(linear_fwd, GEMM_FWD,                                                                        \
      (void *y, const void *x, const void *w, const void *residual, int64_t S, int64_t N,          \
       int64_t M, Stream *stream),                                                                 \
      (y, x, w, residual, S, N, M, stream))                                                        \
    X(linear_dgrad, GEMM_BWD,                                                                      \
      (void *dx, const void *dy, const void *w, bool accumulate, int64_t S, int64_t N, int64_t M,  \
       Stream *stream),                                                                            \
      (dx, dy, w, accumulate, S, N, M, stream))                                                    \
    X(linear_wgrad, GEMM_BWD,                                                                      \
      (float *dw, const void *dy, const void *x, int64_t S, int64_t N, int64_t M, Stream *stream), \
      (dw, dy, x, S, N, M, stream))                                                                \
    X(rope_split_fwd, OTHER,                                                                       \
      (void *q, void *kv, const void *qkv, const int32_t *positions, const float *inv_freq,        \
       int64_t S, int H, int K, int D, Stream *stream),                                            \
      (q, kv, qkv, positions, inv_freq, S, H, K, D, stream))                                       \
    X(rope_split_bwd, OTHER,                                                                       \
      (void *dqkv, const float *dq, const float *dkv, const int32_t *positions,                    \
       const float *inv_freq, int64_t S, int H, int K, int D, Stream *stream),                     \
      (dqkv, dq, dkv, positions, inv_freq, S, H, K, D, stream))                                    \
    X(attention_fwd, ATTENTION_FWD,                                                                \
      (void *o, float *o_acc, float *lse, const void *q, const void *kv, const AttnWork *work,     \
       bool resume, Stream *stream),                                                               \
      (o, o_acc, lse, q, kv, work, resume, stream))                                                \
    X(attention_delta, ATTENTION_BWD,                                                              \
      (float *delta, const void *d_o, const void *o, int64_t S, int H, int D, Stream *stream),     \
      (delta, d_o, o, S, H, D, stream))                                                            \
    X(attention_bwd, ATTENTION_BWD,                                                                \
      (float *dq, float *dkv, const void *d_o, const void *q, const void *kv, const float *lse,    \
       const float *delta, const AttnWork *work, bool accumulate_dq, bool accumulate_dkv,          \
       Stream *stream),                                                                            \
      (dq, dkv, d_o, q, kv, lse, delta, work, accumulate_dq, accumulate_dkv, stream))              \
    X(swiglu_fwd, OTHER, (void *h, const void *gate_up, int64_t S, int F, Stream *stream),         \
      (h, gate_up, S, F, stream))                                                                  \
    X(swiglu_bwd, OTHER,                                                                           \
      (void *dgate_up, void *h, const void *dh, const void *gate_up, int64_t S, int F,             \
       Stream *stream),                                                                            \
      (dgate_up, h, dh, gate_up, S, F, stream))                                                    \
    X(cross_entropy, OTHER,                                                                        \
      (float *loss, void *logits, const int32_t *labels, const float *weights, bool grad,          \
       int64_t S, int V, int Vp, Stream *stream),                                                  \
      (loss, logits, labels, weights, grad, S, V, Vp, stream))                                     \
    X(adamw, OPTIMIZER,                                                                            \
      (float *master, float *m, float *v, void *param, const float *grad, const AdamwStep *step,   \
       int64_t n, Stream *stream),                                                                 \
      (master, m, v, param, grad, step, n, stream))                                                \
    X(cast_f32, OTHER, (void *dst, const float *src, int64_t n, Stream *stream),                   \
      (dst, src, n, stream))                                                                       \
    X(add_f32, OTHER, (float *dst, const float *src, int64_t n, Stream *stream),                   \
      (dst, src, n, stream))                                                                       \
    X(widen, OTHER, (float *dst, const void *src, bool add, int64_t n, Stream *stream),            \
      (dst, src, add, n, stream))                                                                  \
    X(checksum, OTHER, (uint64_t * out, const void *x, int64_t bytes, Stream *stream),             \
      (out, x, bytes, stream))                                                                     \
    X(sum_f32, OTHER, (double *out, const float *x, int64_t n, Stream *stream),                    \
      (out, x, n, stream))                                                                         \
    X(sum_squares, OPTIMIZER, (double *out, const float *x, int64_t n, Stream *stream),            \
      (out, x, n, stream))                                                                         \
    X(gather_rows, OTHER,                                                                          \
      (void *dst, const void *src, const int32_t *index, int64_t n, int64_t row_bytes,             \
       Stream *stream),                                                                            \
      (dst, src, index, n, row_bytes, stream))                                                     \
    X(scatter_rows, OTHER,                                                                         \
      (void *dst, const void *src, const int32_t *index, int64_t n, int64_t row_bytes,             \
       Stream *stream),                                                                            \
      (dst, src, index, n, row_bytes, stream))                                                     \
    X(sum_rows, OTHER,                                                                             \
      (float *dst, const float *base, const float *src, const int32_t *begin, const int32_t *from, \
       int64_t n, int64_t row_floats, Stream *stream),                                             \
      (dst, base, src, begin, from, n, row_floats, stream))

#define X(op, class, parameters, arguments)                                                        \
    static void metered_##op parameters {                                                          \
        bool noted = stream == current->stream;                                                    \
        int64_t mark = noted ? meter_open(current, METER_##class, #op, stream) : -1;               \
        current->ops->op arguments;                                                                \
        meter_close(current, mark, stream);                                                        \
    }
METERED(X)
#undef X

static Status metered_work(AttnWork **work, const Band *bands, int64_t n_bands, AttnShape shape,
                           const RemoteKv *remote, Stream *stream) {
    bool noted = stream == current->stream;
    int64_t mark = noted ? meter_open(current, METER_DATA, "attn_work_create", stream) : -1;
    Status st = current->ops->attn_work_create(work, bands, n_bands, shape, remote, stream);
    meter_close(current, mark, stream);
    return st;
}

void meter_fill_table(Meter *m) {
    REQUIRE(current == NULL);
    current = m;
    m->table = *m->ops;
#define X(op, class, parameters, arguments) m->table.op = metered_##op;
    METERED(X)
#undef X
    m->table.attn_work_create = metered_work;
}

void meter_forget_table(void) {
    current = NULL;
}
