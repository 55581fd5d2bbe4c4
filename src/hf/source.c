#include "hf/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "base/file.h"
#include "base/text.h"

enum {
    BLOCK = 1 << 20,     /* weights in memory at a time */
    CONFIG_MAX = 4 << 20 /* bytes of config.json; real ones have some KB */
};

/* ---- a Hugging Face directory ---------------------------------------------------------------- */

static Status check_directory(const char *dir) {
    struct stat info;
    if (stat(dir, &info) != 0)
        return status_fail(
            file_open_status(errno),
            "cannot open %s: %s; a model of the Hugging Face hub is downloaded first, "
            "by hf download",
            dir, strerror(errno));
    if (S_ISDIR(info.st_mode)) return OK;
    return status_fail(ERR_USER,
                       "%s is not a directory: expected one with config.json and model.safetensors",
                       dir);
}

static Status read_config(ModelSource *s) {
    char *path = mem_printf("%s/config.json", s->path);
    StrBuf text = {0};
    Status st = hf_text_read(&text, path, "this config of a model", CONFIG_MAX);
    if (st == OK)
        st = hf_config_parse(&s->config, &s->extra, path, strbuf_text(&text), (int64_t)text.len);
    strbuf_free(&text);
    free(path);
    return st;
}

/* ---- does everything fit together? ----------------------------------------------------------- */

static const char *const head_name = "lm_head.weight";

/* An lm_head.weight too many or too few has this cause. */
static const char *head_hint(const ModelSource *s, const char *tensor) {
    if (strcmp(tensor, head_name) != 0) return "";
    return s->config.model.tie_embeddings ? " (tie_word_embeddings is true)"
                                          : " (tie_word_embeddings is not true)";
}

static void print_shape(const int64_t *shape, int ndim, StrBuf *out) {
    for (int d = 0; d < ndim; d++)
        strbuf_printf(out, "%s%lld", d > 0 ? " x " : "", (long long)shape[d]);
}

static Status check_shape(const ModelSource *s, const SafeTensor *t, const Param *p) {
    REQUIRE(p->ndim <= 2);
    if (t->ndim == p->ndim && t->shape[0] == p->rows && (p->ndim == 1 || t->shape[1] == p->cols))
        return OK;
    StrBuf found = {0}, expected = {0};
    print_shape(t->shape, t->ndim, &found);
    print_shape((const int64_t[]){p->rows, p->cols}, p->ndim, &expected);
    Status st = status_fail(ERR_USER, "%s: tensor %s is %s, config.json calls for %s", s->path,
                            t->name, strbuf_text(&found), strbuf_text(&expected));
    strbuf_free(&found);
    strbuf_free(&expected);
    return st;
}

static Status check_tensor(ModelSource *s, int i) {
    const Param *p = &s->table->params[i];
    HfTensor *t = hf_files_find(&s->files, p->name);
    if (t == NULL)
        return status_fail(ERR_USER,
                           "%s: the weights lack tensor %s, for which config.json calls%s", s->path,
                           p->name, head_hint(s, p->name));
    CHECK(check_shape(s, t->tensor, p));
    t->used = true;
    s->tensors[i] = t;
    return OK;
}

/* A tied model whose files repeat the embedding as lm_head.weight. Where the two differ there is no
 * right model: transformers 4 takes the embedding for both, 5 takes each as it is. */
static Status check_repeated_head(ModelSource *s, float *block) {
    HfTensor *head = hf_files_find(&s->files, head_name);
    if (head == NULL || !s->config.model.tie_embeddings) return OK;
    const Param *embed = &s->table->params[s->table->embed];
    const HfTensor *source = s->tensors[s->table->embed];
    CHECK(check_shape(s, head->tensor, embed));
    int64_t count = embed->rows * embed->cols, half = BLOCK / 2;
    for (int64_t begin = 0; begin < count; begin += half) {
        int64_t n = i64_min(half, count - begin);
        CHECK(hf_files_read(&s->files, source, begin, n, block));
        CHECK(hf_files_read(&s->files, head, begin, n, block + half));
        if (memcmp(block, block + half, (size_t)n * sizeof *block) != 0)
            return status_fail(
                ERR_USER,
                "%s: tie_word_embeddings is true, but lm_head.weight is not %s; remove "
                "lm_head.weight, or set tie_word_embeddings to false if it was trained apart",
                s->path, embed->name);
    }
    head->used = true;
    return OK;
}

/* Old files keep the RoPE frequencies, which follow from config.json. */
static bool is_redundant(const char *name) {
    return text_ends_with(name, ".rotary_emb.inv_freq");
}

static Status check_tensors(ModelSource *s, float *block) {
    s->table = param_table_create(&s->config.model, 1);
    s->tensors = NEW(const HfTensor *, s->table->n_params);
    for (int i = 0; i < s->table->n_params; i++) CHECK(check_tensor(s, i));
    CHECK(check_repeated_head(s, block));
    for (int i = 0; i < s->files.n_tensors; i++) {
        const HfTensor *t = &s->files.tensors[i];
        if (!t->used && !is_redundant(t->tensor->name))
            return status_fail(ERR_USER,
                               "%s: the weights have tensor '%.200s', for which config.json "
                               "does not call%s",
                               s->path, t->tensor->name, head_hint(s, t->tensor->name));
    }
    return OK;
}

Status model_source_open_directory(ModelSource *s, const char *path) {
    *s = (ModelSource){.path = path};
    CHECK(check_directory(path));
    CHECK(read_config(s));
    CHECK(hf_files_open(&s->files, path));
    float *block = NEW(float, BLOCK);
    Status st = check_tensors(s, block);
    free(block);
    return st;
}

/* ---- a checkpoint ---------------------------------------------------------------------------- */

static Status check_saved(const ModelSource *s, const Param *p) {
    const SafeTensor *t = safetensors_find(checkpoint_file(s->ck), p->name);
    if (t != NULL && t->dtype == DT_F32 && t->ndim == p->ndim && t->shape[0] == p->rows &&
        (p->ndim == 1 || t->shape[1] == p->cols))
        return OK;
    return status_fail(ERR_USER, "%s: its configuration and its tensor %s do not agree", s->path,
                       p->name);
}

Status model_source_open_checkpoint(ModelSource *s, const char *path) {
    *s = (ModelSource){.path = path};
    CHECK(checkpoint_open(&s->ck, path));
    const char *text = checkpoint_entry(s->ck, "cria.config");
    if (text == NULL)
        return status_fail(
            ERR_USER, "%s holds no configuration: it is not a checkpoint that cria wrote", path);
    CHECK(checkpoint_verify_header(s->ck));
    CHECK(config_parse(&s->config, path, text, strlen(text), 0, NULL));
    config_take_stage(&s->config, config_stage_at(&s->config, checkpoint_step(s->ck)));
    HfExtra kept;
    CHECK(hf_extra_parse(&kept, path, checkpoint_entry(s->ck, HF_ENTRY)));
    s->extra = hf_extra_resolve(&kept, &s->config);
    s->table = param_table_create(&s->config.model, 1);
    for (int i = 0; i < s->table->n_params; i++) CHECK(check_saved(s, &s->table->params[i]));
    return OK;
}

/* ---- either ---------------------------------------------------------------------------------- */

Status model_source_read(ModelSource *s, int i, int64_t begin, int64_t n, float *out) {
    const Param *p = &s->table->params[i];
    uint32_t crc;
    if (s->ck == NULL) return hf_files_read(&s->files, s->tensors[i], begin, n, out);
    CHECK(checkpoint_read_crc(s->ck, p->name, begin, n, out, &crc));
    s->crc = (uint32_t)crc32_combine(begin > 0 ? s->crc : 0, crc, n * (int64_t)sizeof *out);
    if (begin + n < p->rows * p->cols) return OK;
    return checkpoint_check_crc(s->ck, safetensors_find(checkpoint_file(s->ck), p->name), s->crc);
}

void model_source_close(ModelSource *s) {
    if (s->ck != NULL) checkpoint_close(s->ck);
    hf_files_close(&s->files);
    config_free(&s->config);
    param_table_free(s->table);
    free(s->tensors);
}
