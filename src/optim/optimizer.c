#include "optim/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "ops/phases.h"

struct Optimizer {
    const OptimDesc *desc;
    OptimConfig config;
    bool sharded; /* state holds this rank's blocks only */
    const ParamTable *table;
    const Ops *ops;
    Comm *comm;
    ParamPiece *own; /* this rank's part in checkpoints and in ZeRO-1 */
    int n_own;
    void *weights;
    float *grads;
    float *states[OPTIM_STATES_MAX]; /* [OPTIM_WEIGHT] NULL: the weights themselves */
    double *sums;        /* [world] partial sums of squares, or [PARAM_CLASSES], device */
    uint64_t *checksums; /* [1 + n_states][n_params], device */
    Stream *side;        /* reductions run here */
    Event *ready, *reduced;
};

static int64_t checksums_bytes(const Optimizer *o) {
    return (int64_t)(1 + o->desc->n_states) * o->table->n_params * (int64_t)sizeof(uint64_t);
}

Optimizer *optimizer_create(const OptimConfig *config, int zero, const ParamTable *table,
                            const Ops *ops, Comm *comm, Arena *arena) {
    REQUIRE(table->world == comm->size);
    Optimizer *o = NEW(Optimizer, 1);
    *o = (Optimizer){.desc = &optim_adamw,
                     .config = *config,
                     .sharded = zero > 0 && comm->size > 1,
                     .table = table,
                     .ops = ops,
                     .comm = comm};
    o->n_own = param_table_pieces(table, comm->rank, &o->own);
    int64_t n = o->sharded ? table->total / comm->size : table->total;
    int64_t bytes = n * (int64_t)sizeof(float);
    for (int i = ops->act_dtype == DT_F32 ? 1 : 0; i < o->desc->n_states; i++)
        arena_reserve(arena, "optimizer", o->desc->states[i].label, bytes, (void **)&o->states[i]);
    arena_reserve(arena, "optimizer", "norm",
                  i64_max(comm->size, PARAM_CLASSES) * (int64_t)sizeof(double), (void **)&o->sums);
    arena_reserve(arena, "optimizer", "checksums", checksums_bytes(o), (void **)&o->checksums);
    return o;
}

void optimizer_free(Optimizer *o) {
    if (o == NULL) return;
    if (o->side != NULL) o->ops->stream_free(o->side);
    if (o->ready != NULL) o->ops->event_free(o->ready);
    if (o->reduced != NULL) o->ops->event_free(o->reduced);
    free(o->own);
    free(o);
}

const OptimDesc *optimizer_desc(const Optimizer *o) {
    return o->desc;
}

Status optimizer_start(Optimizer *o, void *weights, float *grads) {
    o->weights = weights;
    o->grads = grads;
    CHECK(o->ops->stream_create(o->ops, &o->side));
    CHECK(o->ops->event_create(&o->ready));
    return o->ops->event_create(&o->reduced);
}

static void *weight_at(const Optimizer *o, int64_t flat) {
    return (char *)o->weights + flat * o->ops->act_bytes;
}

float *optimizer_state(Optimizer *o, int which, const ParamPiece *piece) {
    int64_t at = o->sharded ? piece->shard : piece->flat;
    return o->states[which] != NULL ? o->states[which] + at : (float *)o->weights + piece->flat;
}

Status optimizer_publish(Optimizer *o, Stream *stream) {
    const ParamTable *t = o->table;
    if (o->states[OPTIM_WEIGHT] != NULL)
        for (int i = 0; i < o->n_own; i++)
            o->ops->cast_f32(weight_at(o, o->own[i].flat),
                             optimizer_state(o, OPTIM_WEIGHT, &o->own[i]), o->own[i].count, stream);
    for (int b = 0; b < t->n_buckets; b++)
        CHECK(comm_all_gather(o->comm, weight_at(o, t->buckets[b].offset),
                              t->buckets[b].count / t->world, o->ops->act_dtype, COMM_KIND_PARAM,
                              stream));
    if (o->sharded || t->world == 1) return OK;
    /* Replicated states: the other ranks' are needed here too. */
    for (int s = 0; s < o->desc->n_states; s++)
        for (int b = 0; b < t->n_buckets && o->states[s] != NULL; b++)
            CHECK(comm_all_gather(o->comm, o->states[s] + t->buckets[b].offset,
                                  t->buckets[b].count / t->world, DT_F32, COMM_KIND_PARAM, stream));
    return OK;
}

Status optimizer_init(Optimizer *o, uint64_t seed, Stream *stream) {
    const Ops *ops = o->ops;
    const ParamTable *t = o->table;
    int64_t n = o->sharded ? t->total / t->world : t->total;
    ops->mem_zero(o->weights, t->total * ops->act_bytes, stream); /* padding stays zero */
    for (int i = 0; i < o->desc->n_states; i++)
        if (o->states[i] != NULL) ops->mem_zero(o->states[i], n * (int64_t)sizeof(float), stream);
    int64_t cap = 1 << 20;
    float *values = NEW(float, cap);
    Status st = OK;
    for (int i = 0; i < o->n_own; i++) {
        const ParamPiece *p = &o->own[i];
        for (int64_t at = 0; at < p->count; at += cap) {
            int64_t count = i64_min(cap, p->count - at);
#pragma omp parallel for schedule(static)
            for (int64_t k = 0; k < count; k++)
                values[k] = param_init_value(t, p->param, p->begin + at + k, seed);
            ops->mem_copy(optimizer_state(o, OPTIM_WEIGHT, p) + at, values,
                          count * (int64_t)sizeof(float), stream);
            CHECK_GOTO(ops->stream_sync(stream), done); /* values is used again */
        }
    }
    st = optimizer_publish(o, stream);
done:
    free(values);
    return st;
}

Status optimizer_reduce_bucket(Optimizer *o, int bucket, Stream *stream) {
    const ParamBucket *b = &o->table->buckets[bucket];
    float *grads = o->grads + b->offset;
    o->ops->event_record(o->ready, stream);
    o->ops->event_wait(o->ready, o->side);
    int64_t block = b->count / o->table->world;
    CHECK(comm_reduce_scatter(o->comm, grads, block, DT_F32, COMM_KIND_GRAD, o->side));
    /* Not an all-reduce, which NCCL may add in another order: the same bits as with ZeRO. */
    if (!o->sharded) CHECK(comm_all_gather(o->comm, grads, block, DT_F32, COMM_KIND_GRAD, o->side));
    o->ops->event_record(o->reduced, o->side);
    return OK;
}

Status optimizer_grad_norm(Optimizer *o, double *norm, Stream *stream) {
    const ParamTable *t = o->table;
    int64_t bytes = t->world * (int64_t)sizeof(double);
    double *host = NEW(double, t->world);
    phase_enter(stream, PHASE_GRAD_REDUCE);
    o->ops->event_wait(o->reduced, stream); /* the last of the reductions, if there were any */
    phase_enter(stream, PHASE_OPTIMIZER);
    /* One partial sum per rank's blocks, added in rank order, sharded or not. */
    o->ops->mem_zero(o->sums, bytes, stream);
    for (int r = 0; r < t->world; r++) {
        if (o->sharded && r != o->comm->rank) continue;
        for (int b = 0; b < t->n_buckets; b++) {
            int64_t block = t->buckets[b].count / t->world;
            o->ops->sum_squares(o->sums + r, o->grads + t->buckets[b].offset + r * block, block,
                                stream);
        }
    }
    Status st = OK;
    if (o->sharded)
        CHECK_GOTO(comm_all_gather(o->comm, o->sums, 1, DT_F64, COMM_KIND_OTHER, stream), done);
    o->ops->mem_copy(host, o->sums, bytes, stream);
    CHECK_GOTO(o->ops->stream_sync(stream), done);
    double sum = 0;
    for (int r = 0; r < t->world; r++) sum += host[r];
    *norm = sqrt(sum);
done:
    free(host);
    return st;
}

/* Sharded or not, a rank's own pieces are reduced; those of all ranks are every tensor once. */
Status optimizer_class_norms(Optimizer *o, Comm *host, double norms[PARAM_CLASSES],
                             Stream *stream) {
    const int64_t bytes = PARAM_CLASSES * (int64_t)sizeof(double);
    o->ops->mem_zero(o->sums, bytes, stream);
    for (int i = 0; i < o->n_own; i++) {
        const ParamPiece *p = &o->own[i];
        o->ops->sum_squares(o->sums + param_class(o->table, p->param), o->grads + p->flat, p->count,
                            stream);
    }
    o->ops->mem_copy(norms, o->sums, bytes, stream);
    CHECK(o->ops->stream_sync(stream));
    CHECK(comm_all_reduce(host, norms, PARAM_CLASSES, DT_F64, COMM_SUM, COMM_KIND_OTHER, NULL));
    for (int k = 0; k < PARAM_CLASSES; k++) norms[k] = sqrt(norms[k]);
    return OK;
}

/* ---- the update ------------------------------------------------------------------------------ */

/* x^n for n >= 0 by products alone: ranks on different types of CPU get the same bits, for which
 * libm's pow() has different code. */
static double power(double x, int64_t n) {
    double result = 1;
    for (; n > 0; n >>= 1, x *= x)
        if (n & 1) result *= x;
    return result;
}

static void update_adamw(const OptimUpdate *u, Stream *stream) {
    const OptimConfig *c = u->config;
    const AdamwStep step = {.lr = (float)u->lr,
                            .beta1 = (float)c->beta1,
                            .beta2 = (float)c->beta2,
                            .eps = (float)c->eps,
                            .weight_decay = u->param->decay ? (float)c->weight_decay : 0,
                            .bias1 = (float)(1 - power(c->beta1, u->t)),
                            .bias2 = (float)(1 - power(c->beta2, u->t)),
                            .grad_scale = (float)u->grad_scale};
    u->ops->adamw(u->states[OPTIM_WEIGHT], u->states[OPTIM_M], u->states[OPTIM_V], u->weights,
                  u->grads, &step, u->count, stream);
}

const OptimDesc optim_adamw = {.name = "AdamW",
                               .n_states = 3,
                               .states = {[OPTIM_WEIGHT] = {"master weights", ""},
                                          [OPTIM_M] = {"first moments", "optim.m."},
                                          [OPTIM_V] = {"second moments", "optim.v."}},
                               .update = update_adamw};

static void update(Optimizer *o, const ParamPiece *pieces, int n, OptimUpdate u, Stream *stream) {
    for (int i = 0; i < n; i++) {
        const ParamPiece *p = &pieces[i];
        u.param = &o->table->params[p->param];
        for (int k = 0; k < o->desc->n_states; k++) u.states[k] = optimizer_state(o, k, p);
        u.weights = weight_at(o, p->flat);
        u.grads = o->grads + p->flat;
        u.count = p->count;
        o->desc->update(&u, stream);
    }
}

Status optimizer_step(Optimizer *o, int64_t t, double lr, double grad_scale, Stream *stream) {
    const ParamTable *table = o->table;
    const OptimUpdate u = {
        .ops = o->ops, .config = &o->config, .t = t, .lr = lr, .grad_scale = grad_scale};
    if (o->sharded) {
        update(o, o->own, o->n_own, u, stream);
        for (int b = 0; b < table->n_buckets; b++)
            CHECK(comm_all_gather(o->comm, weight_at(o, table->buckets[b].offset),
                                  table->buckets[b].count / table->world, o->ops->act_dtype,
                                  COMM_KIND_PARAM, stream));
        return OK;
    }
    for (int r = 0; r < table->world; r++) {
        ParamPiece *pieces;
        int n = param_table_pieces(table, r, &pieces);
        update(o, pieces, n, u, stream);
        free(pieces);
    }
    return OK;
}

/* ---- checksums ------------------------------------------------------------------------------- */

Status optimizer_checksums(Optimizer *o, uint64_t *sums, Stream *stream) {
    const ParamTable *t = o->table;
    o->ops->mem_zero(o->checksums, checksums_bytes(o), stream);
    for (int i = 0; i < t->n_params; i++) {
        const Param *p = &t->params[i];
        int64_t n = p->rows * p->cols; /* not the padding */
        o->ops->checksum(o->checksums + i, weight_at(o, p->offset), n * o->ops->act_bytes, stream);
        for (int s = 0; s < o->desc->n_states && !o->sharded; s++)
            if (o->states[s] != NULL)
                o->ops->checksum(o->checksums + (1 + s) * t->n_params + i, o->states[s] + p->offset,
                                 n * (int64_t)sizeof(float), stream);
    }
    o->ops->mem_copy(sums, o->checksums, checksums_bytes(o), stream);
    return o->ops->stream_sync(stream);
}

/* CRC-32 and length in bytes of this rank's part of a bucket. */
typedef struct {
    uint32_t crc;
    int64_t bytes;
} PartCrc;

static Status part_crc(Optimizer *o, int bucket, float *staging, int64_t cap, Stream *stream,
                       PartCrc *out) {
    *out = (PartCrc){0};
    for (int i = 0; i < o->n_own; i++) {
        const ParamPiece *p = &o->own[i];
        if (o->table->params[p->param].bucket != bucket) continue;
        const float *state = optimizer_state(o, OPTIM_WEIGHT, p);
        for (int64_t at = 0; at < p->count; at += cap) {
            int64_t bytes = i64_min(cap, p->count - at) * (int64_t)sizeof(float);
            const void *data = state + at;
            if (!o->ops->host_memory) {
                o->ops->mem_copy(staging, data, bytes, stream);
                CHECK(o->ops->stream_sync(stream));
                data = staging;
            }
            out->crc = (uint32_t)crc32_z(out->crc, data, (z_size_t)bytes);
            out->bytes += bytes;
        }
    }
    return OK;
}

Status optimizer_weights_crc(Optimizer *o, Comm *host, Stream *stream, uint32_t *crc) {
    int W = host->size, B = o->table->n_buckets;
    int64_t cap = 1 << 20;
    float *staging = o->ops->host_memory ? NULL : NEW(float, cap);
    int64_t *parts = NEW(int64_t, (int64_t)W * B * 2); /* [rank][bucket] crc, bytes */
    Status st = OK;
    for (int b = 0; b < B; b++) {
        PartCrc part;
        CHECK_GOTO(part_crc(o, b, staging, cap, stream, &part), done);
        int64_t *mine = parts + ((int64_t)host->rank * B + b) * 2;
        mine[0] = part.crc;
        mine[1] = part.bytes;
    }
    CHECK_GOTO(comm_all_gather(host, parts, 2 * B, DT_I64, COMM_KIND_OTHER, NULL), done);
    uLong all = 0;
    for (int b = 0; b < B; b++)
        for (int r = 0; r < W; r++) {
            const int64_t *part = parts + ((int64_t)r * B + b) * 2;
            all = crc32_combine(all, (uLong)part[0], (z_off_t)part[1]);
        }
    *crc = (uint32_t)all;
done:
    free(parts);
    free(staging);
    return st;
}
