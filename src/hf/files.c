#include "hf/files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { INDEX_MAX = 4 << 20 }; /* bytes; real ones have some KB */

Status hf_text_read(StrBuf *text, const char *path, const char *what, int64_t limit) {
    CHECK(file_read_all(text, path, what, limit));
    return file_is_lfs_pointer(strbuf_text(text), (int64_t)text->len) ? file_lfs_fail(path) : OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

static Status read_index(HfFiles *f, const char *path) {
    StrBuf text = {0};
    Status st = hf_text_read(&text, path, "this index of weights", INDEX_MAX);
    if (st == OK) st = hf_index_parse(&f->index, path, strbuf_text(&text), (int64_t)text.len);
    strbuf_free(&text);
    return st;
}

/* Opens a weight file, once. */
static Status open_file(HfFiles *f, const char *name) {
    for (int i = 0; i < f->n_files; i++)
        if (strcmp(f->names[i], name) == 0) return OK;
    if (f->n_files == HF_FILES_MAX)
        return status_fail(ERR_USER, "%s has more than %d weight files", f->dir, HF_FILES_MAX);
    char *path = mem_printf("%s/%s", f->dir, name);
    Status st = checkpoint_open(&f->files[f->n_files], path);
    if (st == OK) f->names[f->n_files++] = mem_strdup(name);
    free(path);
    return st;
}

static bool has_file(const char *dir, const char *name) {
    char *path = mem_printf("%s/%s", dir, name);
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* Other forms of weights that a directory may hold, and what makes safetensors of them. */
static Status no_weights(const char *dir) {
    static const char *const torch[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                        "tf_model.h5", "flax_model.msgpack"};
    for (size_t i = 0; i < sizeof torch / sizeof *torch; i++)
        if (has_file(dir, torch[i]))
            return status_fail(
                ERR_USER,
                "%s has its weights in %s, cria reads safetensors; convert it: python3 -c 'from "
                "transformers import AutoModelForCausalLM as M; "
                "M.from_pretrained(\"%s\", dtype=\"auto\").save_pretrained(\"NEW_DIR\")'",
                dir, torch[i], dir);
    if (has_file(dir, "consolidated.00.pth"))
        return status_fail(ERR_USER,
                           "%s has its weights in consolidated.00.pth, Meta's own form; convert it "
                           "by transformers' convert_llama_weights_to_hf.py",
                           dir);
    if (has_file(dir, "adapter_model.safetensors"))
        return status_fail(ERR_USER,
                           "%s holds an adapter (LoRA), not a model; merge it into its model first "
                           "(peft's merge_and_unload)",
                           dir);
    return status_fail(ERR_USER,
                       "%s has neither model.safetensors nor model.safetensors.index.json", dir);
}

/* model.safetensors first, as transformers does. */
static Status open_files(HfFiles *f) {
    char *index = mem_printf("%s/model.safetensors.index.json", f->dir);
    Status st = OK;
    if (has_file(f->dir, "model.safetensors")) {
        st = open_file(f, "model.safetensors");
    } else if (access(index, F_OK) == 0) {
        st = read_index(f, index);
        for (int i = 0; i < f->index.n_places && st == OK; i++)
            st = open_file(f, f->index.places[i].value);
    } else {
        st = no_weights(f->dir);
    }
    free(index);
    return st;
}

static int by_name(const void *a, const void *b) {
    const HfTensor *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

static Status list_tensors(HfFiles *f) {
    for (int i = 0; i < f->n_files; i++) f->n_tensors += checkpoint_file(f->files[i])->n_tensors;
    f->tensors = NEW(HfTensor, f->n_tensors);
    int n = 0;
    for (int i = 0; i < f->n_files; i++) {
        const SafeFile *file = checkpoint_file(f->files[i]);
        for (int k = 0; k < file->n_tensors; k++)
            f->tensors[n++] = (HfTensor){.tensor = &file->tensors[k], .file = i};
    }
    if (n > 1) qsort(f->tensors, (size_t)n, sizeof *f->tensors, by_name);
    for (int i = 1; i < n; i++)
        if (by_name(&f->tensors[i - 1], &f->tensors[i]) == 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' is in %s and in %s", f->dir,
                               f->tensors[i].tensor->name, f->names[f->tensors[i - 1].file],
                               f->names[f->tensors[i].file]);
    return OK;
}

/* The index and the files say the same. Both are sorted. */
static Status check_index(const HfFiles *f) {
    int n = f->index.n_places;
    if (n == 0) return OK;
    for (int i = 0; i < n || i < f->n_tensors; i++) {
        const SafeEntry *place = i < n ? &f->index.places[i] : NULL;
        const HfTensor *t = i < f->n_tensors ? &f->tensors[i] : NULL;
        int order = i >= n ? 1 : i >= f->n_tensors ? -1 : strcmp(place->key, t->tensor->name);
        if (order < 0)
            return status_fail(ERR_USER,
                               "%s: the index has tensor '%.200s' in %s, which does not hold it",
                               f->dir, place->key, place->value);
        if (order > 0)
            return status_fail(ERR_USER,
                               "%s: %s holds tensor '%.200s', which the index does not have",
                               f->dir, f->names[t->file], t->tensor->name);
        if (strcmp(place->value, f->names[t->file]) != 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' is in %s, the index has it in %s",
                               f->dir, place->key, f->names[t->file], place->value);
    }
    return OK;
}

Status hf_files_open(HfFiles *f, const char *dir) {
    *f = (HfFiles){.dir = dir};
    CHECK(open_files(f));
    CHECK(list_tensors(f));
    return check_index(f);
}

void hf_files_close(HfFiles *f) {
    for (int i = 0; i < f->n_files; i++) {
        checkpoint_close(f->files[i]);
        free(f->names[i]);
    }
    hf_index_free(&f->index);
    free(f->tensors);
    *f = (HfFiles){0};
}

HfTensor *hf_files_find(const HfFiles *f, const char *name) {
    const SafeTensor wanted = {.name = (char *)name};
    const HfTensor key = {.tensor = &wanted};
    if (f->n_tensors == 0) return NULL;
    return bsearch(&key, f->tensors, (size_t)f->n_tensors, sizeof key, by_name);
}

/* ---- values ---------------------------------------------------------------------------------- */

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* bf16 is the upper half of fp32. */
static float widen_bf16(uint16_t x) {
    return float_of((uint32_t)x << 16);
}

/* A sign, 5 bits of exponent (bias 15) and 10 of fraction; fp32 has a bias of 127 and 23 bits of
 * fraction. What is subnormal in fp16 is normal in fp32. */
static float widen_f16(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16;
    uint32_t exponent = x >> 10 & 0x1f, fraction = (uint32_t)(x & 0x3ff) << 13;
    if (exponent == 0x1f) return float_of(sign | 0x7f800000 | fraction); /* infinite or NaN */
    if (exponent != 0) return float_of(sign | (exponent + 127 - 15) << 23 | fraction);
    float size = (float)(x & 0x3ff) * 0x1p-24F;
    return sign != 0 ? -size : size;
}

Status hf_files_read(const HfFiles *f, const HfTensor *t, int64_t begin, int64_t n, float *out) {
    Checkpoint *file = f->files[t->file];
    const char *name = t->tensor->name;
    Dtype dtype = t->tensor->dtype;
    if (dtype == DT_F32) return checkpoint_read(file, name, begin, n, out);
    if (dtype != DT_BF16 && dtype != DT_F16)
        return status_fail(ERR_USER,
                           "%s: tensor '%.200s' is of type %s, expected F32, BF16 or F16; save the "
                           "model as one of them, such as by model.float().save_pretrained(DIR)",
                           f->dir, name, t->tensor->type);
    /* Read into the second half of `out`, none is overwritten before its turn. */
    const size_t size = sizeof(uint16_t);
    char *half = (char *)out + (size_t)n * size;
    CHECK(checkpoint_read(file, name, begin, n, half));
    for (int64_t i = 0; i < n; i++) {
        uint16_t x;
        memcpy(&x, half + (size_t)i * size, size);
        out[i] = dtype == DT_BF16 ? widen_bf16(x) : widen_f16(x);
    }
    return OK;
}
