/* import.c: a Hugging Face directory as the checkpoint of a run at step 0. */
#include "hf/hf.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "base/file.h"
#include "hf/files.h"
#include "base/log.h"
#include "model/params.h"
#include "base/version.h"

enum {
    BLOCK = 1 << 20,      /* weights in memory at a time */
    CONFIG_MAX = 4 << 20, /* bytes of config.json; real ones have some KB */
    STATES = 3            /* tensors per weight of a checkpoint: itself and two moments */
};

typedef struct {
    const char *dir, *checkpoint;
    Config config;
    HfExtra extra;
    HfFiles files;
    ParamTable *table;
    const HfTensor **sources; /* per tensor of the table */
    int scratch;              /* an unlinked file: all weights in fp32, in the table's order */
    float *weights;           /* the same, mapped */
    int64_t bytes;            /* of it */
} Import;

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

static Status read_config(Import *m) {
    char *path = mem_printf("%s/config.json", m->dir);
    StrBuf text = {0};
    Status st = hf_text_read(&text, path, "this config of a model", CONFIG_MAX);
    if (st == OK)
        st = hf_config_parse(&m->config, &m->extra, path, strbuf_text(&text), (int64_t)text.len);
    strbuf_free(&text);
    free(path);
    return st;
}

/* ---- does everything fit together? ----------------------------------------------------------- */

static const char *const head_name = "lm_head.weight";

/* An lm_head.weight too many or too few has this cause. */
static const char *head_hint(const Import *m, const char *tensor) {
    if (strcmp(tensor, head_name) != 0) return "";
    return m->config.model.tie_embeddings ? " (tie_word_embeddings is true)"
                                          : " (tie_word_embeddings is not true)";
}

static void print_shape(const int64_t *shape, int ndim, StrBuf *out) {
    for (int d = 0; d < ndim; d++)
        strbuf_printf(out, "%s%lld", d > 0 ? " x " : "", (long long)shape[d]);
}

static Status check_shape(const Import *m, const SafeTensor *t, const Param *p) {
    REQUIRE(p->ndim <= 2);
    if (t->ndim == p->ndim && t->shape[0] == p->rows && (p->ndim == 1 || t->shape[1] == p->cols))
        return OK;
    StrBuf found = {0}, expected = {0};
    print_shape(t->shape, t->ndim, &found);
    print_shape((const int64_t[]){p->rows, p->cols}, p->ndim, &expected);
    Status st = status_fail(ERR_USER, "%s: tensor %s is %s, config.json calls for %s", m->dir,
                            t->name, strbuf_text(&found), strbuf_text(&expected));
    strbuf_free(&found);
    strbuf_free(&expected);
    return st;
}

static Status check_tensor(Import *m, int i) {
    const Param *p = &m->table->params[i];
    HfTensor *t = hf_files_find(&m->files, p->name);
    if (t == NULL)
        return status_fail(ERR_USER,
                           "%s: the weights lack tensor %s, for which config.json calls%s", m->dir,
                           p->name, head_hint(m, p->name));
    CHECK(check_shape(m, t->tensor, p));
    t->used = true;
    m->sources[i] = t;
    return OK;
}

/* A tied model whose files repeat the embedding as lm_head.weight. Where the two differ there is no
 * right model: transformers 4 takes the embedding for both, 5 takes each as it is. */
static Status check_repeated_head(Import *m, float *block) {
    HfTensor *head = hf_files_find(&m->files, head_name);
    if (head == NULL || !m->config.model.tie_embeddings) return OK;
    const Param *embed = &m->table->params[m->table->embed];
    const HfTensor *source = m->sources[m->table->embed];
    CHECK(check_shape(m, head->tensor, embed));
    int64_t count = embed->rows * embed->cols, half = BLOCK / 2;
    for (int64_t begin = 0; begin < count; begin += half) {
        int64_t n = i64_min(half, count - begin);
        CHECK(hf_files_read(&m->files, source, begin, n, block));
        CHECK(hf_files_read(&m->files, head, begin, n, block + half));
        if (memcmp(block, block + half, (size_t)n * sizeof *block) != 0)
            return status_fail(
                ERR_USER,
                "%s: tie_word_embeddings is true, but lm_head.weight is not %s; remove "
                "lm_head.weight, or set tie_word_embeddings to false if it was trained apart",
                m->dir, embed->name);
    }
    head->used = true;
    return OK;
}

/* Old files keep the RoPE frequencies, which follow from config.json. */
static bool is_redundant(const char *name) {
    const char *end = ".rotary_emb.inv_freq";
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static Status check_tensors(Import *m, float *block) {
    m->table = param_table_create(&m->config.model, 1);
    m->sources = NEW(const HfTensor *, m->table->n_params);
    for (int i = 0; i < m->table->n_params; i++) CHECK(check_tensor(m, i));
    CHECK(check_repeated_head(m, block));
    for (int i = 0; i < m->files.n_tensors; i++) {
        const HfTensor *t = &m->files.tensors[i];
        if (!t->used && !is_redundant(t->tensor->name))
            return status_fail(ERR_USER,
                               "%s: the weights have tensor '%.200s', for which config.json "
                               "does not call%s",
                               m->dir, t->tensor->name, head_hint(m, t->tensor->name));
    }
    return OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static Status write_fail(const Import *m, int error) {
    return status_fail(file_create_status(error), "cannot write beside %s: %s", m->checkpoint,
                       file_error(error));
}

/* checkpoint_save takes memory. A mapped file is memory that the kernel can take back, so that
 * weights of any size and type can be given to it. */
static Status make_scratch(Import *m) {
    char *path = mem_printf("%s.XXXXXX", m->checkpoint);
    m->scratch = mkstemp(path);
    int error = m->scratch < 0 ? errno : 0;
    if (error == 0 && unlink(path) != 0) error = errno;
    free(path);
    return error == 0 ? OK : write_fail(m, error);
}

static Status fill_tensor(Import *m, int i, float *block) {
    const Param *p = &m->table->params[i];
    int64_t count = p->rows * p->cols, strange = 0, first = -1;
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t n = i64_min(BLOCK, count - begin), bytes = n * (int64_t)sizeof *block;
        CHECK(hf_files_read(&m->files, m->sources[i], begin, n, block));
        for (int64_t k = 0; k < n; k++) {
            if (isfinite(block[k])) continue;
            if (strange++ == 0) first = begin + k;
        }
        int error = file_write_at(m->scratch, block, bytes, m->bytes);
        if (error != 0) return write_fail(m, error);
        m->bytes += bytes;
    }
    if (strange > 0)
        log_warn("%s: %lld of %lld values of tensor %s are NaN or infinite, the first at row %lld, "
                 "column %lld: the model computes only NaN",
                 m->dir, (long long)strange, (long long)count, p->name,
                 (long long)(p->ndim == 2 ? first / p->cols : 0),
                 (long long)(p->ndim == 2 ? first % p->cols : first));
    return OK;
}

static Status fill_scratch(Import *m, float *block) {
    for (int i = 0; i < m->table->n_params; i++) CHECK(fill_tensor(m, i, block));
    void *map = mmap(NULL, (size_t)m->bytes, PROT_READ, MAP_SHARED, m->scratch, 0);
    if (map == MAP_FAILED)
        return status_fail(ERR_ENV, "cannot map %lld bytes of weights: %s", (long long)m->bytes,
                           strerror(errno));
    m->weights = map;
    return OK;
}

/* The tensors and entries that session/train_state.c writes and reads, less what only a run knows.
 */
static Status save(const Import *m, int64_t *bytes) {
    static const char *const prefix[STATES] = {"", "optim.m.", "optim.v."};
    const ParamTable *t = m->table;
    SafeTensor *tensors = NEW(SafeTensor, STATES * (int64_t)t->n_params);
    CkptPiece *pieces = NEW(CkptPiece, STATES * (int64_t)t->n_params);
    int64_t largest = 0, at = 0;
    for (int i = 0; i < t->n_params; i++)
        largest = i64_max(largest, t->params[i].rows * t->params[i].cols);
    float *zeros = NEW(float, largest); /* never written, so the kernel backs it with one page */
    for (int k = 0; k < STATES * t->n_params; k++) {
        const Param *p = &t->params[k % t->n_params];
        const float *data = k < t->n_params ? m->weights + at : zeros;
        int64_t count = p->rows * p->cols;
        tensors[k] = (SafeTensor){.name = mem_printf("%s%s", prefix[k / t->n_params], p->name),
                                  .dtype = DT_F32,
                                  .ndim = p->ndim,
                                  .shape = {p->rows, p->cols}};
        pieces[k] = (CkptPiece){.tensor = k, .count = count, .data = data};
        at += count;
    }
    StrBuf config = {0}, extra = {0};
    config_print(&m->config, &config);
    hf_extra_print(&m->extra, &extra);
    char hash[9];
    snprintf(hash, sizeof hash, "%08" PRIx32, config_hash(&m->config));
    const CkptEntry entries[] = {{"cria.version", cria_version},
                                 {"cria.step", "0"},
                                 {"cria.tokens", "0"},
                                 {"cria.weights_crc", NULL},
                                 {"cria.config_hash", hash},
                                 {HF_ENTRY, strbuf_text(&extra)},
                                 {"cria.config", strbuf_text(&config)}};
    Comm *self = comm_self_create();
    Status st = checkpoint_save(m->checkpoint, tensors, STATES * t->n_params, entries,
                                (int)(sizeof entries / sizeof *entries), pieces,
                                STATES * t->n_params, self, bytes);
    comm_free(self);
    for (int k = 0; k < STATES * t->n_params; k++) free(tensors[k].name);
    free(tensors);
    free(pieces);
    free(zeros);
    strbuf_free(&config);
    strbuf_free(&extra);
    return st;
}

static Status import_all(Import *m, float *block, int64_t *bytes) {
    if (access(m->checkpoint, F_OK) == 0)
        return status_fail(ERR_USER, "%s exists; name another checkpoint", m->checkpoint);
    CHECK(check_directory(m->dir));
    CHECK(read_config(m));
    CHECK(hf_files_open(&m->files, m->dir));
    CHECK(check_tensors(m, block));
    CHECK(make_scratch(m));
    CHECK(fill_scratch(m, block));
    return save(m, bytes);
}

/* As YAML, with the rest as comments, so that it can be pasted. */
static void print_found(const Import *m, int64_t bytes) {
    StrBuf text = {0};
    config_print_section(&m->config, "model", &text);
    log_info("imported %s as %s: %lld weights, %lld bytes\n"
             "# For the configuration of a run that goes on from it; seq_len may be shorter.\n%s"
             "# Set data.eod: %lld, and data.train to files of ids that its tokenizer made.",
             m->dir, m->checkpoint, (long long)m->table->n_weights, (long long)bytes,
             strbuf_text(&text), (long long)m->config.data.eod);
    strbuf_free(&text);
}

Status hf_import(const char *dir, const char *checkpoint) {
    Import m = {.dir = dir, .checkpoint = checkpoint, .scratch = -1};
    int64_t bytes = 0;
    float *block = NEW(float, BLOCK);
    Status st = import_all(&m, block, &bytes);
    free(block);
    if (st == OK) print_found(&m, bytes);
    if (m.weights != NULL) munmap(m.weights, (size_t)m.bytes);
    if (m.scratch >= 0) close(m.scratch);
    hf_files_close(&m.files);
    config_free(&m.config);
    param_table_free(m.table);
    free(m.sources);
    return st;
}
