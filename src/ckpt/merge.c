/* merge.c: averages of checkpoints. Those of one plateau, or of its last steps, stand in for a
 * decay of the learning rate (LAWA, arXiv:2209.14981; WSM, arXiv:2507.17634).
 *
 * Published averages are of weights alone, and who trains on from one starts its optimizer anew.
 * Here the moments are averaged, too: both are running means, of gradients and of their squares, so
 * that the mean of several is one again, and a run that goes on from the file does so without a
 * jump. */
#include "ckpt/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/version.h"
#include "ckpt/lineage.h"
#include "config/config.h"

enum { BLOCK = 1 << 20 }; /* elements in memory at a time, of one file and of the sum */

typedef struct {
    const char *path;
    Checkpoint *ck;
    double weight;
    int64_t step;
    uint32_t crc; /* of what has been read of the tensor */
} Parent;

typedef struct {
    Parent *parents;
    int n;
    double total; /* of the weights */
    int base;     /* the parent whose entries are taken over */
    float *block;
    double *sum;
} Merge;

/* ---- do they fit together? ------------------------------------------------------------------- */

static Status open_parent(Parent *p) {
    CHECK(checkpoint_open(&p->ck, p->path));
    CHECK(checkpoint_verify_header(p->ck));
    const char *step = checkpoint_entry(p->ck, "cria.step");
    if (step == NULL)
        return status_fail(
            ERR_USER, "%s does not say which step it is of: it is not a checkpoint that cria wrote",
            p->path);
    p->step = strtoll(step, NULL, 10);
    return OK;
}

/* Compares what the runs computed with; older files, without a configuration, by shapes alone. */
static Status compare_models(const Parent *a, const Parent *b) {
    const char *texts[] = {checkpoint_entry(a->ck, "cria.config"),
                           checkpoint_entry(b->ck, "cria.config")};
    if (texts[0] == NULL || texts[1] == NULL) return OK;
    Config first, other;
    StrBuf changes = {0};
    Status st = config_parse_printed(&first, texts[0]);
    if (st != OK) status_prefix("%s", a->path);
    Status read = config_parse_printed(&other, texts[1]);
    if (st == OK && read != OK) status_prefix("%s", b->path);
    if (st == OK) st = read;
    if (st == OK) config_take_stage(&first, config_stage_at(&first, a->step));
    if (st == OK) config_take_stage(&other, config_stage_at(&other, b->step));
    if (st == OK && config_differences(&first, &other, DIFFERS_MODEL, &changes) > 0)
        st = status_fail(ERR_USER,
                         "%s and %s are of different models: %s; only checkpoints of one model can "
                         "be averaged",
                         a->path, b->path, strbuf_text(&changes));
    strbuf_free(&changes);
    config_free(&first);
    config_free(&other);
    return st;
}

static Status compare_tensor(const Parent *a, const SafeTensor *t, const Parent *b) {
    const SafeTensor *x = safetensors_find(checkpoint_file(b->ck), t->name);
    if (x == NULL)
        return status_fail(ERR_USER, "%s has no tensor '%.200s', which %s has", b->path, t->name,
                           a->path);
    if (x->ndim == t->ndim && x->dtype == t->dtype &&
        memcmp(x->shape, t->shape, (size_t)t->ndim * sizeof *t->shape) == 0)
        return OK;
    return status_fail(ERR_USER,
                       "tensor '%.200s' has %lld elements of type %s in %s, %lld of type %s in %s: "
                       "only checkpoints of one model can be averaged",
                       t->name, (long long)safetensors_count(x), x->type, b->path,
                       (long long)safetensors_count(t), t->type, a->path);
}

static Status compare_tensors(const Parent *a, const Parent *b) {
    const SafeFile *f = checkpoint_file(a->ck), *g = checkpoint_file(b->ck);
    for (int i = 0; i < f->n_tensors; i++) CHECK(compare_tensor(a, &f->tensors[i], b));
    for (int i = 0; i < g->n_tensors; i++)
        if (safetensors_find(f, g->tensors[i].name) == NULL)
            return status_fail(ERR_USER, "%s has no tensor '%.200s', which %s has", a->path,
                               g->tensors[i].name, b->path);
    return OK;
}

static Status check_types(const Parent *p) {
    const SafeFile *f = checkpoint_file(p->ck);
    for (int i = 0; i < f->n_tensors; i++)
        if (f->tensors[i].dtype != DT_F32)
            return status_fail(ERR_USER, "%s: tensor '%.200s' is of type %s, expected F32", p->path,
                               f->tensors[i].name, f->tensors[i].type);
    return OK;
}

static Status check_repeated(const Merge *m, int k) {
    struct stat a, b;
    if (stat(m->parents[k].path, &a) != 0) return OK; /* it is open */
    for (int i = 0; i < k; i++)
        if (stat(m->parents[i].path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
            return status_fail(ERR_USER,
                               "%s is named twice, the second time as %s: --weights "
                               "gives it a larger share",
                               m->parents[i].path, m->parents[k].path);
    return OK;
}

static Status open_parents(Merge *m) {
    for (int k = 0; k < m->n; k++) {
        CHECK(open_parent(&m->parents[k]));
        CHECK(check_repeated(m, k));
        m->total += m->parents[k].weight;
        if (m->parents[k].step > m->parents[m->base].step) m->base = k;
    }
    CHECK(check_types(&m->parents[0]));
    for (int k = 1; k < m->n; k++) {
        CHECK(compare_models(&m->parents[0], &m->parents[k]));
        CHECK(compare_tensors(&m->parents[0], &m->parents[k]));
    }
    return OK;
}

static Status check_out(const char *out) {
    struct stat info;
    if (lstat(out, &info) == 0)
        return status_fail(ERR_USER, "%s exists; name another checkpoint", out);
    char *dir = file_parent(out);
    bool found = stat(dir, &info) == 0 && S_ISDIR(info.st_mode);
    Status st =
        found ? OK : status_fail(ERR_USER, "cannot write %s: there is no folder %s", out, dir);
    free(dir);
    return st;
}

/* ---- the average ----------------------------------------------------------------------------- */

/* Adds elements [begin, begin + n) of parent p, times its weight, to the sum. */
static Status add(Merge *m, Parent *p, const SafeTensor *t, int64_t begin, int64_t n) {
    uint32_t crc;
    CHECK(checkpoint_read_crc(p->ck, t->name, begin, n, m->block, &crc));
    p->crc = (uint32_t)crc32_combine(begin > 0 ? p->crc : 0, crc, n * (int64_t)sizeof(float));
    const double w = p->weight;
#pragma omp parallel for simd
    for (int64_t i = 0; i < n; i++) m->sum[i] += w * m->block[i];
    if (begin + n < safetensors_count(t)) return OK;
    return checkpoint_check_crc(p->ck, safetensors_find(checkpoint_file(p->ck), t->name), p->crc);
}

static Status average_block(Merge *m, const SafeTensor *t, int64_t begin, int64_t n) {
    memset(m->sum, 0, (size_t)n * sizeof *m->sum);
    for (int k = 0; k < m->n; k++) CHECK(add(m, &m->parents[k], t, begin, n));
    for (int64_t i = 0; i < n; i++) m->block[i] = (float)(m->sum[i] / m->total);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(m->block[i]))
            return status_fail(ERR_USER,
                               "the average of tensor '%.200s' is NaN or infinite at element %lld: "
                               "one of the checkpoints holds such a value",
                               t->name, (long long)(begin + i));
    return OK;
}

static Status average_all(Merge *m, CkptSave *file) {
    const SafeFile *f = checkpoint_file(m->parents[0].ck);
    for (int i = 0; i < f->n_tensors; i++) {
        const SafeTensor *t = &f->tensors[i];
        int64_t count = safetensors_count(t);
        for (int64_t begin = 0, n; begin < count; begin += n) {
            n = i64_min(BLOCK, count - begin);
            CHECK(average_block(m, t, begin, n));
            const CkptPiece piece = {.tensor = i, .begin = begin, .count = n, .data = m->block};
            CHECK(checkpoint_write(file, &piece));
        }
    }
    return checkpoint_flush(file);
}

/* ---- the file -------------------------------------------------------------------------------- */

/* Entries that the save writes itself, or that say something else of an average. */
static bool is_own(const char *key) {
    static const char *const keys[] = {"header_crc", "format", "cria.version", "cria.weights_crc",
                                       MERGED_ENTRY};
    bool own = strncmp(key, "crc.", 4) == 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) own |= strcmp(key, keys[i]) == 0;
    return own;
}

static void print_parents(const Merge *m, StrBuf *out) {
    for (int k = 0; k < m->n; k++) {
        strbuf_printf(out, k == 0 ? "[" : ",");
        lineage_print_object(m->parents[k].ck, m->parents[k].path, m->parents[k].weight / m->total,
                             out);
    }
    strbuf_printf(out, "]");
}

static Status begin_file(const Merge *m, const char *out, Comm *self, CkptSave **file) {
    const SafeFile *base = checkpoint_file(m->parents[m->base].ck);
    const SafeFile *first = checkpoint_file(m->parents[0].ck);
    CkptEntry *entries = NEW(CkptEntry, (int64_t)base->n_entries + 3);
    StrBuf parents = {0};
    int n = 0;
    print_parents(m, &parents);
    entries[n++] = (CkptEntry){"cria.version", cria_version};
    entries[n++] = (CkptEntry){"cria.weights_crc", NULL};
    entries[n++] = (CkptEntry){MERGED_ENTRY, parents.text};
    for (int i = 0; i < base->n_entries; i++)
        if (!is_own(base->entries[i].key))
            entries[n++] = (CkptEntry){base->entries[i].key, base->entries[i].value};
    Status st = checkpoint_begin(file, out, first->tensors, first->n_tensors, entries, n, self);
    strbuf_free(&parents);
    free(entries);
    return st;
}

static Status write_file(Merge *m, const char *out, Merged *merged) {
    CkptSave *file = NULL;
    Comm *self = comm_self_create();
    Status st = begin_file(m, out, self, &file);
    if (st == OK) st = average_all(m, file);
    if (st == OK) st = checkpoint_gather(file, self);
    if (st == OK) st = checkpoint_publish(file);
    if (st == OK)
        *merged = (Merged){.step = m->parents[m->base].step, .bytes = checkpoint_size(file)};
    checkpoint_end(file);
    comm_free(self);
    return st;
}

Status checkpoint_merge(const char *out, char *const *paths, const double *weights, int n,
                        Merged *merged) {
    REQUIRE(n > 0);
    Merge m = {.parents = NEW(Parent, n), .n = n};
    for (int k = 0; k < n; k++) m.parents[k] = (Parent){.path = paths[k], .weight = weights[k]};
    Status st = check_out(out);
    if (st == OK) st = open_parents(&m);
    m.block = NEW(float, BLOCK);
    m.sum = NEW(double, BLOCK);
    if (st == OK) st = write_file(&m, out, merged);
    for (int k = 0; k < n; k++) checkpoint_close(m.parents[k].ck);
    free(m.parents);
    free(m.block);
    free(m.sum);
    return st;
}
