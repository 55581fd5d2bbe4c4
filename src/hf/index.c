/* index.c: model.safetensors.index.json, both ways. */
#include "hf/hf.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

static int by_key(const void *a, const void *b) {
    const SafeEntry *x = a, *y = b;
    return strcmp(x->key, y->key);
}

/* A file of the directory itself. */
static bool is_file_name(const char *name) {
    for (const char *c = name; *c != '\0'; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f || *c == '/') return false;
    return name[0] != '.' && text_ends_with(name, ".safetensors");
}

static Status read_places(HfIndex *index, Json *j, const char *name) {
    int64_t cap = index->n_places;
    char *key;
    for (json_object(j); json_object_next(j, &key);) {
        GROW(index->places, index->n_places, cap);
        SafeEntry *e = &index->places[index->n_places++];
        *e = (SafeEntry){.key = key, .value = json_string(j)};
        if (e->value != NULL && !is_file_name(e->value))
            return status_fail(ERR_USER,
                               "%s: '%.200s' is not the name of a safetensors file beside it", name,
                               e->value);
    }
    return OK;
}

static Status read_index(HfIndex *index, Json *j, const char *name) {
    bool found = false;
    Status st = OK;
    char *key;
    for (json_object(j); st == OK && json_object_next(j, &key); free(key)) {
        if (strcmp(key, "weight_map") != 0) {
            json_skip(j);
        } else {
            st = read_places(index, j, name);
            found = true;
        }
    }
    CHECK(st);
    json_end(j);
    if (j->error != NULL)
        return status_fail(ERR_USER, "%s: not an index of weights: %s at byte %lld", name, j->error,
                           (long long)j->pos);
    if (!found) return status_fail(ERR_USER, "%s: it has no weight_map", name);
    if (index->n_places > 1)
        qsort(index->places, (size_t)index->n_places, sizeof *index->places, by_key);
    for (int i = 1; i < index->n_places; i++)
        if (by_key(&index->places[i - 1], &index->places[i]) == 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' appears twice", name,
                               index->places[i].key);
    return OK;
}

Status hf_index_parse(HfIndex *index, const char *name, const char *text, int64_t len) {
    Json j;
    *index = (HfIndex){0};
    json_start(&j, text, len);
    Status st = read_index(index, &j, name);
    if (st != OK) hf_index_free(index);
    return st;
}

void hf_index_print(const HfIndex *index, int64_t n_weights, int64_t bytes, StrBuf *out) {
    strbuf_printf(out,
                  "{\n  \"metadata\": {\n    \"total_parameters\": %lld,\n"
                  "    \"total_size\": %lld\n  },\n  \"weight_map\": {",
                  (long long)n_weights, (long long)bytes);
    for (int i = 0; i < index->n_places; i++) {
        strbuf_printf(out, "%s\n    ", i > 0 ? "," : "");
        strbuf_json_string(out, index->places[i].key);
        strbuf_printf(out, ": ");
        strbuf_json_string(out, index->places[i].value);
    }
    strbuf_printf(out, "\n  }\n}\n");
}

void hf_index_free(HfIndex *index) {
    for (int i = 0; i < index->n_places; i++) {
        free(index->places[i].key);
        free(index->places[i].value);
    }
    free(index->places);
    *index = (HfIndex){0};
}
