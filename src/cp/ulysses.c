/* ulysses: all-to-all turns "my tokens, all heads" into "all tokens, my heads", one attention call
 * covers the whole stream for H / P query heads, and a second all-to-all brings the result home
 * (Jacobs et al., 2023). Tokens keep rank order, in which the plan's bands are written. */
#include "cp/runtime.h"

#include <stdlib.h>

/* "full": of all tokens, for this rank's heads. */
typedef struct {
    CpRuntime rt;
    void *pack; /* act or fp32, one tensor at a time */
    void *q_full, *kv_full, *o_full, *do_full;
    float *dq_full, *dkv_full;
    int32_t *index_q, *index_kv; /* see upload_index() */
} Ulysses;

/* A tensor [S, parts, heads, D] is seen as rows of one rank's share of the heads, heads / P * D
 * elements: the row of rank p in (s, part) is (s * parts + part) * P + p. `index` lists them by
 * (p, s, part), which is the order in which they are sent. */
static void upload_index(CpRuntime *rt, int32_t *device, int parts, Stream *stream) {
    int64_t P = rt->opt.size, n = rt->S * parts;
    int32_t *index = NEW(int32_t, P * n);
    for (int64_t p = 0; p < P; p++)
        for (int64_t i = 0; i < n; i++) index[p * n + i] = (int32_t)(i * P + p);
    rt->ops->mem_upload(device, index, P * n * (int64_t)sizeof *index, stream);
    free(index);
}

static Status create(CpRuntime *rt, Arena *arena) {
    Ulysses *x = (Ulysses *)rt;
    int P = rt->opt.size;
    int64_t act = rt->ops->act_bytes, f32 = sizeof(float), all = P * rt->S;
    rt->heads = rt->opt.H / P; /* cp_tokens has checked that P divides both */
    rt->kv_heads = rt->opt.K / P;
    int64_t q = all * rt->heads * rt->opt.D, kv = all * cp_kv_width(rt);
    arena_reserve(arena, "cp", "packed", i64_max(q, kv) * f32, &x->pack);
    arena_reserve(arena, "cp", "q of all tokens", q * act, &x->q_full);
    arena_reserve(arena, "cp", "o of all tokens", q * act, &x->o_full);
    arena_reserve(arena, "cp", "do of all tokens", q * act, &x->do_full);
    arena_reserve(arena, "cp", "dq of all tokens", q * f32, (void **)&x->dq_full);
    cp_reserve_kv(rt, arena, "kv of all tokens", all, &x->kv_full);
    cp_reserve_dkv(rt, arena, "dkv of all tokens", all, &x->dkv_full);
    arena_reserve(arena, "cp", "head index q", all * 4, (void **)&x->index_q);
    arena_reserve(arena, "cp", "head index kv", 2 * all * 4, (void **)&x->index_kv);
    return OK;
}

static void start(CpRuntime *rt, Stream *stream) {
    Ulysses *x = (Ulysses *)rt;
    upload_index(rt, x->index_q, 1, stream);
    upload_index(rt, x->index_kv, 2, stream);
}

/* Blocks of n elements: block p of src goes to rank p, whose block lands at p in dst. */
static Status all_to_all(CpRuntime *rt, void *dst, const void *src, int64_t n, Dtype t,
                         CommKind kind, Stream *stream) {
    CommTicket ticket;
    int64_t bytes = n * dtype_bytes(t);
    CHECK(comm_group_begin(rt->comm));
    for (int p = 0; p < rt->opt.size; p++) {
        CHECK(comm_send(rt->comm, (const char *)src + p * bytes, n, t, p, kind));
        CHECK(comm_recv(rt->comm, (char *)dst + p * bytes, n, t, p));
    }
    CHECK(comm_group_end(rt->comm, stream, &ticket));
    return comm_wait(rt->comm, ticket, stream);
}

/* parts = 1: q, o, do [S,H,D]; parts = 2: kv [S,2,K,D]. */
static Status to_heads(CpRuntime *rt, void *full, const void *local, int parts, CommKind kind,
                       Stream *stream) {
    Ulysses *x = (Ulysses *)rt;
    int64_t row = (parts == 1 ? rt->heads : rt->kv_heads) * (int64_t)rt->opt.D;
    int64_t rows = rt->S * parts;
    rt->ops->gather_rows(x->pack, local, parts == 1 ? x->index_q : x->index_kv, rt->opt.size * rows,
                         row * rt->ops->act_bytes, stream);
    return all_to_all(rt, full, x->pack, rows * row, rt->ops->act_dtype, kind, stream);
}

static Status to_tokens(CpRuntime *rt, void *local, const void *full, int parts, Dtype t,
                        CommKind kind, Stream *stream) {
    Ulysses *x = (Ulysses *)rt;
    int64_t row = (parts == 1 ? rt->heads : rt->kv_heads) * (int64_t)rt->opt.D;
    int64_t rows = rt->S * parts;
    CHECK(all_to_all(rt, x->pack, full, rows * row, t, kind, stream));
    rt->ops->scatter_rows(local, x->pack, parts == 1 ? x->index_q : x->index_kv,
                          rt->opt.size * rows, row * dtype_bytes(t), stream);
    return OK;
}

static Status forward(CpRuntime *rt, AttnFwd call, Stream *stream) {
    Ulysses *x = (Ulysses *)rt;
    CHECK(to_heads(rt, x->q_full, call.q, 1, COMM_KIND_KV, stream));
    CHECK(to_heads(rt, x->kv_full, call.kv, 2, COMM_KIND_KV, stream));
    AttnFwd full = {.o = x->o_full, .lse = call.lse, .q = x->q_full, .kv = x->kv_full};
    cp_stage_forward(rt, 0, full, stream);
    return to_tokens(rt, call.o, x->o_full, 1, rt->ops->act_dtype, COMM_KIND_KV, stream);
}

static Status backward(CpRuntime *rt, AttnBwd call, const void *o, Stream *stream) {
    Ulysses *x = (Ulysses *)rt;
    CHECK(to_heads(rt, x->q_full, call.q, 1, COMM_KIND_DKV, stream));
    CHECK(to_heads(rt, x->kv_full, call.kv, 2, COMM_KIND_DKV, stream));
    CHECK(to_heads(rt, x->o_full, o, 1, COMM_KIND_DKV, stream));
    CHECK(to_heads(rt, x->do_full, call.d_o, 1, COMM_KIND_DKV, stream));
    cp_delta(rt, x->do_full, x->o_full, stream);
    AttnBwd full = {.dq = x->dq_full,
                    .dkv = x->dkv_full,
                    .d_o = x->do_full,
                    .q = x->q_full,
                    .kv = x->kv_full,
                    .lse = call.lse,
                    .delta = call.delta};
    cp_stage_backward(rt, 0, full, stream);
    CHECK(to_tokens(rt, call.dq, x->dq_full, 1, DT_F32, COMM_KIND_DKV, stream));
    return to_tokens(rt, call.dkv, x->dkv_full, 2, DT_F32, COMM_KIND_DKV, stream);
}

const CpTable cp_ulysses = {.state_bytes = sizeof(Ulysses),
                            .create = create,
                            .forward = forward,
                            .backward = backward,
                            .start = start};
