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
#include "ckpt/run_layout.h"
#include "base/file.h"
#include "hf/source.h"
#include "base/log.h"
#include "model/params.h"
#include "base/version.h"

enum { BLOCK = 1 << 20 }; /* weights in memory at a time */

typedef struct {
    const char *checkpoint;
    ModelSource from;
    int scratch;    /* an unlinked file: all weights in fp32, in the table's order */
    float *weights; /* the same, mapped */
    int64_t bytes;  /* of it */
} Import;

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
    const Param *p = &m->from.table->params[i];
    int64_t count = p->rows * p->cols, strange = 0, first = -1;
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t n = i64_min(BLOCK, count - begin), bytes = n * (int64_t)sizeof *block;
        CHECK(model_source_read(&m->from, i, begin, n, block));
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
                 m->from.path, (long long)strange, (long long)count, p->name,
                 (long long)(p->ndim == 2 ? first / p->cols : 0),
                 (long long)(p->ndim == 2 ? first % p->cols : first));
    return OK;
}

static Status fill_scratch(Import *m, float *block) {
    for (int i = 0; i < m->from.table->n_params; i++) CHECK(fill_tensor(m, i, block));
    void *map = mmap(NULL, (size_t)m->bytes, PROT_READ, MAP_SHARED, m->scratch, 0);
    if (map == MAP_FAILED)
        return status_fail(ERR_ENV, "cannot map %lld bytes of weights: %s", (long long)m->bytes,
                           strerror(errno));
    m->weights = map;
    return OK;
}

/* The entries that session/train_state.c writes and reads, less what only a run knows. */
static Status save(const Import *m, int64_t *bytes) {
    const ParamTable *t = m->from.table;
    const RunLayout layout = {t, &optim_adamw};
    const int n = run_layout_count(&layout);
    SafeTensor *tensors = run_layout_tensors(&layout);
    CkptPiece *pieces = NEW(CkptPiece, n);
    int64_t largest = 0, at = 0;
    for (int i = 0; i < n; i++) largest = i64_max(largest, safetensors_count(&tensors[i]));
    float *zeros = NEW(float, largest); /* never written, so the kernel backs it with one page */
    for (int i = 0; i < n; i++) {
        int64_t count = safetensors_count(&tensors[i]);
        const float *data = i < t->n_params ? m->weights + at : zeros;
        pieces[i] = (CkptPiece){.tensor = i, .count = count, .data = data};
        at += count;
    }
    StrBuf config = {0}, extra = {0};
    config_print(&m->from.config, &config);
    hf_extra_print(&m->from.extra, &extra);
    char hash[9];
    snprintf(hash, sizeof hash, "%08" PRIx32, config_hash(&m->from.config));
    const CkptEntry entries[] = {{"cria.version", cria_version},
                                 {"cria.step", "0"},
                                 {"cria.tokens", "0"},
                                 {"cria.weights_crc", NULL},
                                 {"cria.config_hash", hash},
                                 {HF_ENTRY, strbuf_text(&extra)},
                                 {"cria.config", strbuf_text(&config)}};
    Comm *self = comm_self_create();
    Status st = checkpoint_save(m->checkpoint, tensors, n, entries,
                                (int)(sizeof entries / sizeof *entries), pieces, n, self, bytes);
    comm_free(self);
    run_layout_free(&layout, tensors);
    free(pieces);
    free(zeros);
    strbuf_free(&config);
    strbuf_free(&extra);
    return st;
}

static Status import_all(Import *m, const char *dir, float *block, int64_t *bytes) {
    if (access(m->checkpoint, F_OK) == 0)
        return status_fail(ERR_USER, "%s exists; name another checkpoint", m->checkpoint);
    CHECK(model_source_open_directory(&m->from, dir));
    CHECK(make_scratch(m));
    CHECK(fill_scratch(m, block));
    return save(m, bytes);
}

/* As YAML, with the rest as comments, so that it can be pasted. */
static void print_found(const Import *m, int64_t bytes) {
    StrBuf text = {0};
    config_print_section(&m->from.config, "model", &text);
    log_info("imported %s as %s: %lld weights, %lld bytes\n"
             "# For the configuration of a run that goes on from it; seq_len may be shorter.\n%s"
             "# Set data.eod: %lld, and data.train to files of ids that its tokenizer made.",
             m->from.path, m->checkpoint, (long long)m->from.table->n_weights, (long long)bytes,
             strbuf_text(&text), (long long)m->from.config.data.eod);
    strbuf_free(&text);
}

Status hf_import(const char *dir, const char *checkpoint) {
    Import m = {.checkpoint = checkpoint, .scratch = -1};
    int64_t bytes = 0;
    float *block = NEW(float, BLOCK);
    Status st = import_all(&m, dir, block, &bytes);
    free(block);
    if (st == OK) print_found(&m, bytes);
    if (m.weights != NULL) munmap(m.weights, (size_t)m.bytes);
    if (m.scratch >= 0) close(m.scratch);
    model_source_close(&m.from);
    return st;
}
