#include "model/linears.h"

#include <stdio.h>
#include <stdlib.h>

/* One linear layer that is in FP8: its weight, and its input of this micro-batch. */
typedef struct {
    bool fp8;
    Fp8Matrix weight, input;
} Slot;

/* cuBLASLt refuses a scale whose address is not a multiple of 16 bytes. */
enum { SCALE_FLOATS = 4 };

struct Linears {
    LinearsOptions opt;
    const void *weights;
    Slot *slots;   /* [n]: LINEARS_PER_LAYER for each layer, then the head */
    float *absmax; /* [OPERAND_KINDS, n] */
    float *scales; /* [OPERAND_KINDS, n, SCALE_FLOATS], the first of them each */
    LinearsCounts *counts;
    Fp8Matrix gradient; /* of the product whose dgrad came last */
    void *input_rows;
    int n;
};

const char *const linear_kind_names[LINEAR_KINDS] = {[LINEAR_QKV] = "qkv",
                                                     [LINEAR_O] = "o",
                                                     [LINEAR_GATE_UP] = "gate_up",
                                                     [LINEAR_DOWN] = "down",
                                                     [LINEAR_HEAD] = "head"};
const char *const operand_kind_names[OPERAND_KINDS] = {
    [OPERAND_INPUT] = "input", [OPERAND_WEIGHT] = "weight", [OPERAND_GRADIENT] = "gradient"};

static Linear shape(const Linears *l, LinearKind kind, int64_t S) {
    ModelLinears z = model_linears(l->opt.model, S);
    const Linear all[] = {[LINEAR_QKV] = z.qkv,
                          [LINEAR_O] = z.o,
                          [LINEAR_GATE_UP] = z.gate_up,
                          [LINEAR_DOWN] = z.down,
                          [LINEAR_HEAD] = z.head};
    return all[kind];
}

static const void *weight(const Linears *l, int layer, LinearKind kind) {
    static const int first[] = {[LINEAR_QKV] = PARAM_Q,
                                [LINEAR_O] = PARAM_O,
                                [LINEAR_GATE_UP] = PARAM_GATE,
                                [LINEAR_DOWN] = PARAM_DOWN};
    const ParamTable *t = l->opt.table;
    int64_t offset =
        kind == LINEAR_HEAD ? t->params[t->head].offset : param_layer_offset(t, layer, first[kind]);
    return (const char *)l->weights + offset * l->opt.ops->act_bytes;
}

static int slot_index(int layer, LinearKind kind) {
    return layer * LINEARS_PER_LAYER + (kind == LINEAR_HEAD ? 0 : (int)kind);
}

static LinearKind slot_kind(const Linears *l, int i) {
    return i == l->n - 1 ? LINEAR_HEAD : (LinearKind)(i % LINEARS_PER_LAYER);
}

bool linears_is_fp8(const Linears *l, int layer, LinearKind kind) {
    return l->slots[slot_index(layer, kind)].fp8;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void reserve(Arena *arena, const char *region, int layer, LinearKind kind, const char *what,
                    int64_t bytes, void **slot) {
    char name[80];
    if (kind == LINEAR_HEAD)
        snprintf(name, sizeof name, "head %s in FP8", what);
    else
        snprintf(name, sizeof name, "layer %d %s %s in FP8", layer, linear_kind_names[kind], what);
    arena_reserve(arena, region, name, bytes, slot);
}

static bool wants_fp8(const LinearsOptions *o, int layer, LinearKind kind) {
    if (o->fp8 == NULL) return false;
    if (kind == LINEAR_HEAD) return o->fp8->head;
    return layer >= o->fp8->first_bf16 && layer < o->model->layers - o->fp8->last_bf16;
}

static void reserve_all(Linears *l, Arena *arena) {
    int64_t inputs = 0, gradients = 0;
    bool kept[LINEAR_KINDS] = {false};
    for (int i = 0; i < l->n; i++) {
        LinearKind kind = slot_kind(l, i);
        int layer = i / LINEARS_PER_LAYER;
        Slot *s = &l->slots[i];
        s->fp8 = wants_fp8(&l->opt, layer, kind);
        if (!s->fp8) continue;
        Linear z = shape(l, kind, kind == LINEAR_HEAD ? l->opt.head_rows : l->opt.S);
        s->weight.type = s->input.type = DT_F8_E4M3;
        reserve(arena, "weights", layer, kind, "weight", z.N * z.M, &s->weight.rows);
        reserve(arena, "weights", layer, kind, "weight transposed", z.M * round_up(z.N, FP8_UNIT),
                &s->weight.columns);
        if (!kept[kind] || !l->opt.share_layers)
            reserve(arena, "activations", layer, kind, "input", z.M * round_up(z.S, FP8_UNIT),
                    &s->input.columns);
        kept[kind] = true;
        inputs = i64_max(inputs, z.S * z.M);
        gradients = i64_max(gradients, round_up(z.S, FP8_UNIT) * z.N);
    }
    if (inputs == 0) return;
    int64_t floats = (int64_t)OPERAND_KINDS * l->n * (int64_t)sizeof(float);
    const char *W = "workspace";
    arena_reserve(arena, W, "input in FP8", inputs, &l->input_rows);
    arena_reserve(arena, W, "gradient in FP8", gradients, &l->gradient.rows);
    arena_reserve(arena, W, "gradient transposed in FP8", gradients, &l->gradient.columns);
    arena_reserve(arena, W, "absolute maxima", floats, (void **)&l->absmax);
    arena_reserve(arena, W, "FP8 scales", SCALE_FLOATS * floats, (void **)&l->scales);
    arena_reserve(arena, W, "FP8 counts", sizeof *l->counts, (void **)&l->counts);
}

Linears *linears_create(const LinearsOptions *options, Arena *arena) {
    Linears *l = NEW(Linears, 1);
    l->opt = *options;
    l->n = options->model->layers * LINEARS_PER_LAYER + 1;
    l->slots = NEW(Slot, l->n);
    if (options->fp8 != NULL)
        l->gradient.type = options->fp8->gradients == FP8_GRADIENTS_E5M2 ? DT_F8_E5M2 : DT_F8_E4M3;
    reserve_all(l, arena);
    return l;
}

void linears_free(Linears *l) {
    if (l == NULL) return;
    free(l->slots);
    free(l);
}

static float *absmax_of(const Linears *l, OperandKind operand, int slot) {
    return l->absmax + (int64_t)operand * l->n + slot;
}
static float *scale_of(const Linears *l, OperandKind operand, int slot) {
    return l->scales + ((int64_t)operand * l->n + slot) * SCALE_FLOATS;
}

/* Attention comes in parts under context parallelism, and the head's rows in chunks. */
static bool made_with_absmax(LinearKind kind, OperandKind operand) {
    if (kind == LINEAR_HEAD || operand == OPERAND_WEIGHT) return false;
    return kind != LINEAR_O || operand == OPERAND_GRADIENT;
}

float *linears_absmax(const Linears *l, int layer, LinearKind kind, OperandKind operand) {
    REQUIRE(made_with_absmax(kind, operand));
    int slot = slot_index(layer, kind);
    return l->slots[slot].fp8 ? absmax_of(l, operand, slot) : NULL;
}

void linears_start(Linears *l, const void *weights, Stream *stream) {
    l->weights = weights;
    if (l->absmax == NULL) return;
    void *kept[LINEAR_KINDS] = {NULL};
    for (int i = 0; i < l->n; i++) {
        Slot *s = &l->slots[i];
        LinearKind kind = slot_kind(l, i);
        if (s->input.columns == NULL) s->input.columns = kept[kind];
        kept[kind] = s->input.columns;
        s->input.rows = l->input_rows;
        s->input.scale = scale_of(l, OPERAND_INPUT, i);
        s->weight.scale = scale_of(l, OPERAND_WEIGHT, i);
    }
    l->opt.ops->mem_zero(l->counts, sizeof *l->counts, stream);
}

/* ---- casts ----------------------------------------------------------------------------------- */

/* x[R,C] of slot i into `to`, by rows and, with columns, transposed. A maximum is zeroed by the
 * caller; a tensor that is cast again (recomputation) has the same one. */
static void cast(Linears *l, int i, OperandKind operand, const Fp8Matrix *to, bool columns,
                 const void *x, int64_t R, int64_t C, Stream *stream) {
    float *absmax = absmax_of(l, operand, i);
    LinearKind kind = slot_kind(l, i);
    Fp8Cast a = {.type = to->type,
                 .rows = to->rows,
                 .columns = columns ? to->columns : NULL,
                 .scale = to->scale,
                 .counts = &l->counts->of[kind][operand],
                 .x = x,
                 .absmax = absmax,
                 .R = R,
                 .C = C};
    if (!made_with_absmax(kind, operand)) l->opt.ops->absmax(absmax, x, R * C, stream);
    l->opt.ops->fp8_cast(&a, stream);
}

static void zero_absmax(Linears *l, OperandKind operand, int first, int n, Stream *stream) {
    l->opt.ops->mem_zero(absmax_of(l, operand, first), n * (int64_t)sizeof(float), stream);
}

void linears_cast_weights(Linears *l, Stream *stream) {
    if (l->absmax == NULL) return;
    zero_absmax(l, OPERAND_WEIGHT, 0, l->n, stream);
    for (int i = 0; i < l->n; i++) {
        LinearKind kind = slot_kind(l, i);
        Linear z = shape(l, kind, 0);
        if (l->slots[i].fp8)
            cast(l, i, OPERAND_WEIGHT, &l->slots[i].weight, true,
                 weight(l, i / LINEARS_PER_LAYER, kind), z.N, z.M, stream);
    }
}

void linears_begin(Linears *l, Stream *stream) {
    if (l->absmax == NULL) return;
    zero_absmax(l, OPERAND_INPUT, 0, l->n, stream);
    zero_absmax(l, OPERAND_GRADIENT, 0, l->n, stream);
}

/* ---- products -------------------------------------------------------------------------------- */

void linears_fwd(Linears *l, LinearAt at, void *y, const void *x, const void *residual, bool keep,
                 Stream *stream) {
    int i = slot_index(at.layer, at.kind);
    Slot *s = &l->slots[i];
    Linear z = shape(l, at.kind, at.S);
    if (!s->fp8) {
        linear_fwd(l->opt.ops, z, y, x, weight(l, at.layer, at.kind), residual, stream);
        return;
    }
    if (at.kind == LINEAR_HEAD) zero_absmax(l, OPERAND_INPUT, i, 1, stream); /* called in chunks */
    cast(l, i, OPERAND_INPUT, &s->input, keep, x, z.S, z.M, stream);
    linear_fwd_fp8(l->opt.ops, z, y, &s->input, &s->weight, residual, stream);
}

void linears_dgrad(Linears *l, LinearAt at, void *dx, const void *dy, Stream *stream) {
    int i = slot_index(at.layer, at.kind);
    Slot *s = &l->slots[i];
    Linear z = shape(l, at.kind, at.S);
    if (!s->fp8) {
        linear_dgrad(l->opt.ops, z, dx, dy, weight(l, at.layer, at.kind), stream);
        return;
    }
    if (at.kind == LINEAR_HEAD) zero_absmax(l, OPERAND_GRADIENT, i, 1, stream);
    l->gradient.scale = scale_of(l, OPERAND_GRADIENT, i);
    cast(l, i, OPERAND_GRADIENT, &l->gradient, true, dy, z.S, z.N, stream);
    linear_dgrad_fp8(l->opt.ops, z, dx, &l->gradient, &s->weight, stream);
}

void linears_wgrad(Linears *l, LinearAt at, float *dw, const void *dy, const void *x,
                   Stream *stream) {
    int i = slot_index(at.layer, at.kind);
    Slot *s = &l->slots[i];
    Linear z = shape(l, at.kind, at.S);
    if (s->fp8)
        linear_wgrad_fp8(l->opt.ops, z, dw, &l->gradient, &s->input, stream);
    else
        linear_wgrad(l->opt.ops, z, dw, dy, x, stream);
}

Status linears_take_counts(Linears *l, LinearsCounts *out, Stream *stream) {
    l->opt.ops->mem_copy(out, l->counts, sizeof *out, stream);
    CHECK(l->opt.ops->stream_sync(stream));
    l->opt.ops->mem_zero(l->counts, sizeof *out, stream);
    return OK;
}
