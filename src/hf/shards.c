#include "hf/shards.h"

#include <stdlib.h>

/* The table's tensors in the order of transformers' modules, in which version 4 fills files. */
static void list_modules(const ParamTable *t, int *order) {
    int n = 0;
    order[n++] = t->embed;
    for (int at = t->layer_first; at < t->final_norm; at += t->layer_stride, n += PARAMS_PER_LAYER)
        for (int i = 0; i < PARAMS_PER_LAYER; i++) order[n + param_specs[i].module] = at + i;
    order[n++] = t->final_norm;
    if (t->head != t->embed) order[n++] = t->head;
    REQUIRE(n == t->n_params);
}

/* As huggingface_hub's split_state_dict_into_shards_factory: a file is closed when the next tensor
 * would be too much for it, and a tensor that is too much for any gets one of its own at once. */
HfShards hf_shards_assign(const ParamTable *t, Dtype dtype, int64_t shard_bytes) {
    HfShards s = {.of = NEW(int, t->n_params)};
    int *order = NEW(int, t->n_params), first = 0; /* of the open file, in `order` */
    int64_t held = 0;                              /* bytes in the open file */
    list_modules(t, order);
    for (int i = 0; i < t->n_params; i++) s.of[i] = -1;
    for (int i = 0; i <= t->n_params; i++) {
        const Param *p = i < t->n_params ? &t->params[order[i]] : NULL;
        int64_t size = p != NULL ? p->rows * p->cols * dtype_bytes(dtype) : 0;
        if (size > shard_bytes) {
            s.of[order[i]] = s.n++;
            continue;
        }
        if (held > 0 && (p == NULL || held + size > shard_bytes)) {
            for (; first < i; first++)
                if (s.of[order[first]] < 0) s.of[order[first]] = s.n;
            s.n++;
            held = 0;
        }
        held += size;
    }
    free(order);
    return s;
}

char *hf_shard_name(const HfShards *s, int shard) {
    if (s->n == 1) return mem_strdup("model.safetensors");
    return mem_printf("model-%05d-of-%05d.safetensors", shard + 1, s->n);
}
