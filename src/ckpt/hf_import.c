/* hf_import.c: a Hugging Face directory as the checkpoint of a run at step 0. */
#include "ckpt/hf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "file.h"
#include "log.h"
#include "model/params.h"
#include "version.h"

enum {
    BLOCK = 1 << 20,    /* weights in memory at a time */
    JSON_MAX = 4 << 20, /* bytes of a JSON file; real ones have some KB */
    PARTS_MAX = 512,    /* weight files, all open at once */
    STATES = 3          /* tensors per weight of a checkpoint: itself and two moments */
};

typedef struct {
    const SafeTensor *tensor;
    int part; /* the file that holds it */
    bool used;
} Found;

typedef struct {
    const char *dir, *checkpoint;
    Config config;
    HfIndex index; /* empty when there is one file */
    Checkpoint *parts[PARTS_MAX];
    char *names[PARTS_MAX]; /* of their files */
    int n_parts;
    Found *found; /* every tensor of every file, by name */
    int n_found;
    ParamTable *table;
    const Found **sources; /* per tensor of the table */
    int scratch;           /* an unlinked file: all weights in fp32, in the table's order */
    float *weights;        /* the same, mapped */
    int64_t bytes;         /* of it */
} Import;

/* ---- reading the directory ------------------------------------------------------------------- */

static Status read_text(const char *path, char **text, int64_t *len) {
    struct stat info;
    int fd;
    CHECK(file_open(path, &fd));
    Status st = OK;
    if (fstat(fd, &info) != 0 || info.st_size > JSON_MAX) {
        st = status_fail(ERR_USER, "%s is not a file of at most %d bytes", path, JSON_MAX);
    } else {
        *len = info.st_size;
        *text = NEW(char, *len);
        int error = file_read_at(fd, *text, *len, 0);
        if (error != 0) st = status_fail(ERR_ENV, "cannot read %s: %s", path, file_error(error));
    }
    close(fd);
    return st;
}

static Status read_config(Import *m) {
    char *path = mem_printf("%s/config.json", m->dir), *text = NULL;
    int64_t len;
    Status st = read_text(path, &text, &len);
    if (st == OK) st = hf_config_parse(&m->config, path, text, len);
    free(text);
    free(path);
    return st;
}

static Status read_index(Import *m, const char *path) {
    char *text = NULL;
    int64_t len;
    Status st = read_text(path, &text, &len);
    if (st == OK) st = hf_index_parse(&m->index, path, text, len);
    free(text);
    return st;
}

/* Opens a weight file, once. */
static Status open_part(Import *m, const char *name) {
    for (int i = 0; i < m->n_parts; i++)
        if (strcmp(m->names[i], name) == 0) return OK;
    if (m->n_parts == PARTS_MAX)
        return status_fail(ERR_USER, "%s has more than %d weight files", m->dir, PARTS_MAX);
    char *path = mem_printf("%s/%s", m->dir, name);
    Status st = checkpoint_open(&m->parts[m->n_parts], path);
    if (st == OK) m->names[m->n_parts++] = mem_strdup(name);
    free(path);
    return st;
}

/* model.safetensors, or what the index lists: transformers looks in this order. */
static Status open_parts(Import *m) {
    char *single = mem_printf("%s/model.safetensors", m->dir);
    char *index = mem_printf("%s.index.json", single);
    Status st = OK;
    if (access(single, F_OK) == 0) {
        st = open_part(m, "model.safetensors");
    } else if (access(index, F_OK) == 0) {
        st = read_index(m, index);
        for (int i = 0; i < m->index.n_places && st == OK; i++)
            st = open_part(m, m->index.places[i].value);
    } else {
        st = status_fail(
            ERR_USER, "%s has neither model.safetensors nor model.safetensors.index.json", m->dir);
    }
    free(single);
    free(index);
    return st;
}

/* ---- does everything fit together? ----------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    const Found *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

static Status list_found(Import *m) {
    for (int i = 0; i < m->n_parts; i++) m->n_found += checkpoint_file(m->parts[i])->n_tensors;
    m->found = NEW(Found, m->n_found);
    int n = 0;
    for (int i = 0; i < m->n_parts; i++) {
        const SafeFile *f = checkpoint_file(m->parts[i]);
        for (int k = 0; k < f->n_tensors; k++)
            m->found[n++] = (Found){.tensor = &f->tensors[k], .part = i};
    }
    if (n > 1) qsort(m->found, (size_t)n, sizeof *m->found, by_name);
    for (int i = 1; i < n; i++)
        if (by_name(&m->found[i - 1], &m->found[i]) == 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' is in %s and in %s", m->dir,
                               m->found[i].tensor->name, m->names[m->found[i - 1].part],
                               m->names[m->found[i].part]);
    return OK;
}

/* The index and the files say the same. Both are sorted. */
static Status check_index(const Import *m) {
    int n = m->index.n_places;
    if (n == 0) return OK;
    for (int i = 0; i < n || i < m->n_found; i++) {
        const SafeEntry *place = i < n ? &m->index.places[i] : NULL;
        const Found *f = i < m->n_found ? &m->found[i] : NULL;
        int order = i >= n ? 1 : i >= m->n_found ? -1 : strcmp(place->key, f->tensor->name);
        if (order < 0)
            return status_fail(ERR_USER,
                               "%s: the index has tensor '%.200s' in %s, which does not hold it",
                               m->dir, place->key, place->value);
        if (order > 0)
            return status_fail(ERR_USER,
                               "%s: %s holds tensor '%.200s', which the index does not have",
                               m->dir, m->names[f->part], f->tensor->name);
        if (strcmp(place->value, m->names[f->part]) != 0)
            return status_fail(ERR_USER, "%s: tensor '%.200s' is in %s, the index has it in %s",
                               m->dir, place->key, m->names[f->part], place->value);
    }
    return OK;
}

/* An lm_head.weight too many or too few has this cause. */
static const char *head_hint(const Import *m, const char *tensor) {
    if (strcmp(tensor, "lm_head.weight") != 0) return "";
    return m->config.model.tie_embeddings ? " (tie_word_embeddings is true)"
                                          : " (tie_word_embeddings is not true)";
}

static void print_shape(const int64_t *shape, int ndim, StrBuf *out) {
    for (int d = 0; d < ndim; d++)
        strbuf_printf(out, "%s%lld", d > 0 ? " x " : "", (long long)shape[d]);
}

static Status shape_fail(const Import *m, const SafeTensor *t, const Param *p) {
    StrBuf found = {0}, expected = {0};
    REQUIRE(p->ndim <= 2);
    print_shape(t->shape, t->ndim, &found);
    print_shape((const int64_t[]){p->rows, p->cols}, p->ndim, &expected);
    Status st = status_fail(ERR_USER, "%s: tensor %s is %s, config.json calls for %s", m->dir,
                            p->name, strbuf_text(&found), strbuf_text(&expected));
    strbuf_free(&found);
    strbuf_free(&expected);
    return st;
}

static Status check_tensor(Import *m, int i) {
    const Param *p = &m->table->params[i];
    const SafeTensor wanted = {.name = (char *)p->name};
    const Found key = {.tensor = &wanted};
    Found *f =
        m->n_found > 0 ? bsearch(&key, m->found, (size_t)m->n_found, sizeof key, by_name) : NULL;
    if (f == NULL)
        return status_fail(ERR_USER,
                           "%s: the weights lack tensor %s, for which config.json calls%s", m->dir,
                           p->name, head_hint(m, p->name));
    const SafeTensor *t = f->tensor;
    if (t->ndim != p->ndim || t->shape[0] != p->rows || (p->ndim == 2 && t->shape[1] != p->cols))
        return shape_fail(m, t, p);
    if (t->dtype != DT_F32 && t->dtype != DT_BF16)
        return status_fail(ERR_USER, "%s: tensor %s is of type %s, expected F32 or BF16", m->dir,
                           p->name, safetensors_dtype_name(t->dtype));
    f->used = true;
    m->sources[i] = f;
    return OK;
}

/* Old files keep the RoPE frequencies, which follow from config.json. */
static bool is_redundant(const char *name) {
    const char *end = ".rotary_emb.inv_freq";
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

static Status check_tensors(Import *m) {
    m->table = param_table_create(&m->config.model, 1);
    m->sources = NEW(const Found *, m->table->n_params);
    for (int i = 0; i < m->table->n_params; i++) CHECK(check_tensor(m, i));
    for (int i = 0; i < m->n_found; i++) {
        const char *name = m->found[i].tensor->name;
        if (!m->found[i].used && !is_redundant(name))
            return status_fail(ERR_USER,
                               "%s: the weights have tensor '%.200s', for which config.json "
                               "does not call%s",
                               m->dir, name, head_hint(m, name));
    }
    return OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* checkpoint_save takes memory. A mapped file is memory that the kernel can take back, so that
 * weights of any size and type can be given to it. */
static Status make_scratch(Import *m) {
    char *path = mem_printf("%s.XXXXXX", m->checkpoint);
    m->scratch = mkstemp(path);
    int error = m->scratch < 0 ? errno : 0;
    if (error == 0 && unlink(path) != 0) error = errno;
    free(path);
    if (error == 0) return OK;
    return status_fail(ERR_ENV, "cannot write beside %s: %s", m->checkpoint, file_error(error));
}

/* n values of a tensor as fp32. Those of bf16 are the upper halves of fp32; read into the second
 * half of `out`, none is overwritten before its turn. */
static Status read_values(const Import *m, const Found *f, int64_t begin, int64_t n, float *out) {
    Checkpoint *part = m->parts[f->part];
    if (f->tensor->dtype == DT_F32) return checkpoint_read(part, f->tensor->name, begin, n, out);
    const size_t size = sizeof(uint16_t);
    char *half = (char *)out + (size_t)n * size;
    CHECK(checkpoint_read(part, f->tensor->name, begin, n, half));
    for (int64_t i = 0; i < n; i++) {
        uint16_t upper;
        memcpy(&upper, half + (size_t)i * size, size);
        uint32_t bits = (uint32_t)upper << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
    return OK;
}

static Status fill_scratch(Import *m, float *block) {
    for (int i = 0; i < m->table->n_params; i++) {
        const Param *p = &m->table->params[i];
        int64_t count = p->rows * p->cols;
        for (int64_t begin = 0; begin < count; begin += BLOCK) {
            int64_t n = i64_min(BLOCK, count - begin), bytes = n * (int64_t)sizeof *block;
            CHECK(read_values(m, m->sources[i], begin, n, block));
            int error = file_write_at(m->scratch, block, bytes, m->bytes);
            if (error != 0)
                return status_fail(ERR_ENV, "cannot write beside %s: %s", m->checkpoint,
                                   file_error(error));
            m->bytes += bytes;
        }
    }
    void *map = mmap(NULL, (size_t)m->bytes, PROT_READ, MAP_SHARED, m->scratch, 0);
    if (map == MAP_FAILED)
        return status_fail(ERR_ENV, "cannot map %lld bytes of weights: %s", (long long)m->bytes,
                           strerror(errno));
    m->weights = map;
    return OK;
}

/* The tensors and entries that train/state.c writes and reads, less what only a run knows. */
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
    StrBuf config = {0};
    config_print(&m->config, &config);
    char hash[9];
    snprintf(hash, sizeof hash, "%08" PRIx32, config_hash(&m->config));
    const CkptEntry entries[] = {
        {"cria.version", cria_version}, {"cria.step", "0"},
        {"cria.tokens", "0"},           {"cria.weights_crc", NULL},
        {"cria.config_hash", hash},     {"cria.config", strbuf_text(&config)}};
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
    return st;
}

static Status import_all(Import *m, int64_t *bytes) {
    if (access(m->checkpoint, F_OK) == 0)
        return status_fail(ERR_USER, "%s exists; name another checkpoint", m->checkpoint);
    CHECK(read_config(m));
    CHECK(open_parts(m));
    CHECK(list_found(m));
    CHECK(check_index(m));
    CHECK(check_tensors(m));
    CHECK(make_scratch(m));
    float *block = NEW(float, BLOCK);
    Status st = fill_scratch(m, block);
    free(block);
    CHECK(st);
    return save(m, bytes);
}

Status hf_import(const char *dir, const char *checkpoint) {
    Import m = {.dir = dir, .checkpoint = checkpoint, .scratch = -1};
    int64_t bytes = 0;
    Status st = import_all(&m, &bytes);
    if (st == OK)
        log_info("imported %s as %s: %lld weights, %lld bytes", dir, checkpoint,
                 (long long)m.table->n_weights, (long long)bytes);
    if (m.weights != NULL) munmap(m.weights, (size_t)m.bytes);
    if (m.scratch >= 0) close(m.scratch);
    for (int i = 0; i < m.n_parts; i++) {
        checkpoint_close(m.parts[i]);
        free(m.names[i]);
    }
    hf_index_free(&m.index);
    config_free(&m.config);
    param_table_free(m.table);
    free(m.found);
    free(m.sources);
    return st;
}
