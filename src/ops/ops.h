/* ops.h: seam 1, the table of everything that touches device memory. Two rows exist: "cpu" (fp32,
 * src/cpu/, the reference) and "cuda" (bf16, cuda/). Model, optimizer and context-parallel runtimes
 * are written once against this table.
 *
 * Conventions
 *   Arguments: outputs, inputs, sizes, stream. All pointers are device memory unless said.
 *   `void *` tensors hold the backend's activation type (`act_bytes` each: fp32 4, bf16 2);
 *   `float *` tensors are fp32 on every backend. Row-major, no padding between rows.
 *   Shape letters: S local tokens, C hidden, H query heads, K kv heads, D head dim, F ffn,
 *   V vocab (Vp padded), N and M plain matrix sides.
 *   Numeric ops return nothing: work is queued on `stream`, and a failure there surfaces in the
 * next stream_sync(). CPU streams are synchronous: the work is done when the call returns. With
 * set_deterministic(true) every op gives the same bits for the same inputs, in every run and with
 * any number of host threads. */
#ifndef CRIA_OPS_OPS_H
#define CRIA_OPS_OPS_H

#include "attn/tiles.h"
#include "base/base.h"
#include "ops/limits.h"

typedef struct Stream Stream;     /* an in-order queue of device work */
typedef struct Event Event;       /* a point in a stream */
typedef struct AttnWork AttnWork; /* bands prepared for one attention call */

typedef struct {
    float lr, beta1, beta2, eps, weight_decay;
    float bias1, bias2; /* 1 - beta1^t, 1 - beta2^t for update t >= 1 */
    float grad_scale;   /* multiplies the gradient: clipping and 1 / token count */
} AdamwStep;

typedef struct {
    int64_t Sq, Sk; /* rows of q and of kv that the buffers hold */
    int H, K, D;    /* H % K == 0: query head h reads kv head h / (H / K) */
    float scale;    /* of the scores, 1 / sqrt(D) */
} AttnShape;

typedef struct FIELDS_BY_NAME Ops {
    const char *name;        /* "cpu", "cuda" */
    const char *device_name; /* of the GPU, as its driver calls it; "cpu" on the CPU */
    int act_bytes;
    Dtype act_dtype;
    bool host_memory;         /* device pointers can be read and written by the host directly */
    const GpuProperties *gpu; /* what limits the models it can run; NULL: nothing does */

    /* ---- memory, streams, events --------------------------------------------------------- */
    /* Bytes are uninitialised; `what` names the allocation in the error message (ERR_ENV). */
    Status (*mem_alloc)(void **ptr, int64_t bytes, const char *what);
    void (*mem_free)(void *ptr);
    Status (*host_alloc)(void **ptr, int64_t bytes, const char *what); /* page-locked host memory */
    void (*host_free)(void *ptr);
    void (*mem_zero)(void *ptr, int64_t bytes, Stream *stream);
    /* dst and src may each be host or device. From or to pageable host memory it may block. */
    void (*mem_copy)(void *dst, const void *src, int64_t bytes, Stream *stream);
    /* From host memory that may be changed or freed at once; waits for the stream only where MiB of
     * earlier uploads are still to be done. */
    void (*mem_upload)(void *dst, const void *src, int64_t bytes, Stream *stream);
    int64_t (*mem_peak)(void); /* bytes of device memory this process has held at most */
    /* false (the start): the fastest kernels, some of which add in any order. true: the same inputs
     * give the same bits in every run. The CPU always does. While no numeric op is under way. */
    void (*set_deterministic)(bool on);

    Status (*stream_create)(Stream **stream);
    void (*stream_free)(Stream *stream);
    Status (*stream_sync)(Stream *stream); /* ERR_ENV names the first op that failed */
    Status (*event_create)(Event **event);
    void (*event_free)(Event *event);
    void (*event_record)(Event *event, Stream *stream);
    void (*event_wait)(Event *event, Stream *stream); /* later work in stream runs after event */
    double (*event_ms)(Event *begin, Event *end);     /* both recorded and reached */

    /* ---- embedding ----------------------------------------------------------------------- */
    /* x[S,C] = table[tokens[s]]. tokens in [0, V) are the caller's duty (the loader checks). */
    void (*embedding_fwd)(void *x, const int32_t *tokens, const void *table, int64_t S, int C,
                          Stream *stream);
    /* dtable[V,C] += sum over rows with that token of dx[S,C], in row order. */
    void (*embedding_bwd)(float *dtable, const void *dx, const int32_t *tokens, int64_t S, int C,
                          int V, Stream *stream);

    /* ---- RMSNorm: y = x * rstd * w, rstd = 1 / sqrt(mean(x^2) + eps) ------------------------ */
    /* y[S,C], rstd[S], x[S,C], w[C]. rstd may be NULL. (Zhang and Sennrich, 2019) */
    void (*rmsnorm_fwd)(void *y, float *rstd, const void *x, const void *w, int64_t S, int C,
                        float eps, Stream *stream);
    /* dx[S,C] = dres + norm backward of dy; dw[C] += ... dres may be NULL or alias dx. When y is
     * not NULL the normalised output is written there again, so that it need not be kept. */
    void (*rmsnorm_bwd)(void *dx, float *dw, void *y, const void *dy, const void *x, const void *w,
                        const float *rstd, const void *dres, int64_t S, int C, Stream *stream);

    /* ---- linear: weights are [N,M] as in Hugging Face ---------------------------------------- */
    /* y[S,N] = x[S,M] w[N,M]^T (+ residual[S,N] when not NULL; y may alias residual, at the price
     * of one more rounding of the product in bf16) */
    void (*linear_fwd)(void *y, const void *x, const void *w, const void *residual, int64_t S,
                       int64_t N, int64_t M, Stream *stream);
    /* dx[S,M] = dy[S,N] w[N,M] (+ the old dx when accumulate) */
    void (*linear_dgrad)(void *dx, const void *dy, const void *w, bool accumulate, int64_t S,
                         int64_t N, int64_t M, Stream *stream);
    /* dw[N,M] += dy[S,N]^T x[S,M], accumulated in fp32 in place */
    void (*linear_wgrad)(float *dw, const void *dy, const void *x, int64_t S, int64_t N, int64_t M,
                         Stream *stream);

    /* ---- RoPE with the split of the fused projection ----------------------------------------- */
    /* qkv[S, (H+2K)*D] = q | k | v  ->  q[S,H,D] and kv[S,2,K,D] (k, then v), with q and k rotated
     * rotate-half by positions[s] * inv_freq[D/2]; angles in fp32. (Su et al., 2021) */
    void (*rope_split_fwd)(void *q, void *kv, const void *qkv, const int32_t *positions,
                           const float *inv_freq, int64_t S, int H, int K, int D, Stream *stream);
    /* dqkv[S,(H+2K)*D] from fp32 dq[S,H,D] and dkv[S,2,K,D]: rotated back, joined, rounded. */
    void (*rope_split_bwd)(void *dqkv, const float *dq, const float *dkv, const int32_t *positions,
                           const float *inv_freq, int64_t S, int H, int K, int D, Stream *stream);

    /* ---- attention over a band list ---------------------------------------------------------- */
    /* Prepares bands (host memory, copied) in coordinates of the q and kv buffers of the calls they
     * are for: rows in [0,Sq), keys in [0,Sk). No (row, key) pair may be covered twice. Device
     * arrays are uploaded on `stream`. `remote` NULL: all keys are local. Work with remote KV
     * neither resumes nor accumulates, and is not for backends with host_memory. */
    Status (*attn_work_create)(AttnWork **work, const Band *bands, int64_t n_bands, AttnShape shape,
                               const RemoteKv *remote, Stream *stream);
    void (*attn_work_free)(AttnWork *work);
    /* One online softmax over every band that touches a row. q[Sq,H,D], kv[Sk,2,K,D].
     *   resume false: o_acc[Sq,H,D] and lse[H,Sq] are fully written; rows that no band touches get
     *                 o = 0, lse = -inf.
     *   resume true:  o_acc and lse hold an earlier stage's result and are continued.
     * o_acc is fp32 and may be NULL on a call that is first and last (resume false, o not NULL)
     * without remote KV; with it, it is working memory, and o is not NULL.
     * o[Sq,H,D], when not NULL, gets the result rounded to the activation type. lse is natural. */
    void (*attention_fwd)(void *o, float *o_acc, float *lse, const void *q, const void *kv,
                          const AttnWork *work, bool resume, Stream *stream);
    /* delta[H,S] = rowsum(dO * O), once per layer from the final O. */
    void (*attention_delta)(float *delta, const void *d_o, const void *o, int64_t S, int H, int D,
                            Stream *stream);
    /* dq[Sq,H,D] and dkv[Sk,2,K,D] in fp32; each is added to when its accumulate flag is set and
     * fully written (zero where no band touches) when not. lse and delta are the final ones. */
    void (*attention_bwd)(float *dq, float *dkv, const void *d_o, const void *q, const void *kv,
                          const float *lse, const float *delta, const AttnWork *work,
                          bool accumulate_dq, bool accumulate_dkv, Stream *stream);

    /* ---- SwiGLU: h = silu(gate) * up, gate_up[S,2F] = gate | up (Shazeer, 2020) ----------------
     */
    void (*swiglu_fwd)(void *h, const void *gate_up, int64_t S, int F, Stream *stream);
    /* dgate_up[S,2F] (may alias gate_up); h[S,F] is written again when not NULL. */
    void (*swiglu_bwd)(void *dgate_up, void *h, const void *dh, const void *gate_up, int64_t S,
                       int F, Stream *stream);

    /* ---- softmax cross entropy over logits[S,Vp], columns V..Vp-1 excluded ---------------------
     */
    /* loss[s] = weights[s] * ce(logits[s], labels[s]); when grad, logits become
     * weights[s] * (softmax - onehot) in place, zero in the padding. A row of weight 0 gives 0. */
    void (*cross_entropy)(float *loss, void *logits, const int32_t *labels, const float *weights,
                          bool grad, int64_t S, int V, int Vp, Stream *stream);

    /* ---- optimizer and reductions -------------------------------------------------------------
     */
    /* AdamW (Loshchilov and Hutter, 2019) on n elements: m, v, master in fp32; param gets the
     * master rounded to the activation type (may be the same memory as master when act is fp32). */
    void (*adamw)(float *master, float *m, float *v, void *param, const float *grad,
                  const AdamwStep *step, int64_t n, Stream *stream);
    void (*cast_f32)(void *dst, const float *src, int64_t n, Stream *stream); /* round to act */
    void (*add_f32)(float *dst, const float *src, int64_t n, Stream *stream); /* dst += src */
    /* dst = src, or dst += src, from the activation type */
    void (*widen)(float *dst, const void *src, bool add, int64_t n, Stream *stream);
    /* *out += sum of x (of x^2), in double, in a fixed order; out is device memory. */
    void (*sum_f32)(double *out, const float *x, int64_t n, Stream *stream);
    void (*sum_squares)(double *out, const float *x, int64_t n, Stream *stream);
    /* *out += sum over the 8-byte words i of x of checksum_mix(word, i), modulo 2^64; the last word
     * is filled up with zeros. Integers: the same for every order and backend. A change within one
     * word always shows, others but for one in 2^64. out is device memory. */
    void (*checksum)(uint64_t *out, const void *x, int64_t bytes, Stream *stream);

    /* ---- rows by index, for packing what context parallelism sends -----------------------------
     */
    /* dst[i] = src[index[i]] for n rows of row_bytes (a multiple of 4); index in device memory */
    void (*gather_rows)(void *dst, const void *src, const int32_t *index, int64_t n,
                        int64_t row_bytes, Stream *stream);
    /* dst[index[i]] = src[i]; indices within one call are distinct */
    void (*scatter_rows)(void *dst, const void *src, const int32_t *index, int64_t n,
                         int64_t row_bytes, Stream *stream);
    /* dst[i] = base[i] + src[from[begin[i]]] + ... + src[from[begin[i + 1] - 1]], added in this
     * order; rows of row_floats, begin[n + 1] and from in device memory; base may be dst */
    void (*sum_rows)(float *dst, const float *base, const float *src, const int32_t *begin,
                     const int32_t *from, int64_t n, int64_t row_floats, Stream *stream);
} Ops;

/* One to one for every i. (The finisher of splitmix64; Steele et al., 2014) */
#ifdef __CUDACC__
__host__ __device__
#endif
    static inline uint64_t
    checksum_mix(uint64_t word, int64_t i) {
    uint64_t x = word + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

const Ops *cpu_ops(void);

/* The GPU backend on the local_rank-th visible GPU. ERR_ENV with a message when this binary holds
 * none or no usable GPU is there, ERR_USER when the GPU is too old. */
Status cuda_ops_open(const Ops **ops, int local_rank);
extern const bool cuda_built; /* does this binary hold the GPU backend? */

#endif
