#include "session/generator.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "session/device.h"

enum { BLOCK = 4 << 20 }; /* weights read at a time */

static bool is_hugging_face(const char *path) {
    char *config = mem_printf("%s/config.json", path);
    bool found = access(config, F_OK) == 0;
    free(config);
    return found;
}

Status generator_open(Generator *g, const char *path) {
    *g = (Generator){0};
    if (is_hugging_face(path)) return model_source_open_directory(&g->source, path);
    CHECK(checkpoint_find(path, &g->path));
    CHECK(model_source_open_checkpoint(&g->source, g->path));
    if (g->source.config.data.mask != MASK_FULL) return OK;
    return status_fail(ERR_USER,
                       "%s was trained with data.mask full: it expects to see the tokens that are "
                       "to be generated",
                       g->path);
}

static Status open_device(Generator *g, DeviceKind device, int64_t max_tokens) {
    const ModelConfig *m = &g->source.config.model;
    char *why_cpu;
    CHECK(device_open(&g->ops, device, true, m, &why_cpu));
    if (why_cpu != NULL) log_warn("%s", why_cpu);
    free(why_cpu);
    if (g->ops->gpu == NULL) return OK;
    ModelSizes sizes = {.rows = max_tokens,
                        .hidden = m->hidden,
                        .heads = m->heads,
                        .kv_heads = m->kv_heads,
                        .head_dim = m->head_dim,
                        .ffn = m->ffn};
    return gpu_check_model(g->ops->gpu, &sizes);
}

static Status check_finite(const ModelSource *s, const Param *p, int64_t begin, const float *block,
                           int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(block[i]))
            return status_fail(ERR_USER,
                               "%s: tensor %s holds NaN or infinity at element %lld: such a model "
                               "computes nothing else",
                               s->path, p->name, (long long)(begin + i));
    return OK;
}

static Status load_tensor(Generator *g, int i, float *block) {
    const Param *p = &g->source.table->params[i];
    char *to = (char *)g->weights + p->offset * g->ops->act_bytes;
    int64_t count = p->rows * p->cols;
    for (int64_t begin = 0, n; begin < count; begin += n) {
        n = i64_min(BLOCK, count - begin);
        CHECK(model_source_read(&g->source, i, begin, n, block));
        CHECK(check_finite(&g->source, p, begin, block, n));
        g->ops->mem_copy(g->block, block, n * (int64_t)sizeof *block, g->stream);
        g->ops->cast_f32(to + begin * g->ops->act_bytes, g->block, n, g->stream);
        CHECK(g->ops->stream_sync(g->stream));
    }
    return OK;
}

static Status load_weights(Generator *g) {
    const ParamTable *t = g->source.table;
    float *block = NEW(float, BLOCK);
    Status st = OK;
    g->ops->mem_zero(g->weights, t->total * g->ops->act_bytes, g->stream); /* the padding, too */
    for (int i = 0; i < t->n_params && st == OK; i++) st = load_tensor(g, i, block);
    free(block);
    return st;
}

Status generator_start(Generator *g, DeviceKind device, int64_t max_tokens) {
    CHECK(open_device(g, device, max_tokens));
    DecodeOptions o = {.ops = g->ops,
                       .model = &g->source.config.model,
                       .table = g->source.table,
                       .max_tokens = max_tokens,
                       .window = g->source.config.data.window};
    arena_reserve(&g->arena, "weights", "all", g->source.table->total * g->ops->act_bytes,
                  &g->weights);
    arena_reserve(&g->arena, "weights", "block", BLOCK * (int64_t)sizeof(float),
                  (void **)&g->block);
    g->decoder = decoder_create(&o, &g->arena);
    CHECK(arena_check(&g->arena));
    CHECK(arena_commit(&g->arena, g->ops));
    CHECK(g->ops->stream_create(g->ops, &g->stream));
    CHECK(load_weights(g));
    return decoder_start(g->decoder, g->weights, g->stream);
}

void generator_close(Generator *g) {
    if (g->stream != NULL) g->ops->stream_free(g->stream);
    arena_free(&g->arena);
    decoder_free(g->decoder);
    model_source_close(&g->source);
    free(g->path);
}
