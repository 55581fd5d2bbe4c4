/* export.c: a checkpoint's weights as a Hugging Face directory. */
#include "hf/hf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "hf/shards.h"
#include "hf/source.h"
#include "base/log.h"
#include "model/params.h"

enum { BLOCK = 1 << 20 }; /* weights in memory at a time */

typedef struct {
    const HfExportOptions *o;
    ModelSource from;
    HfShards shards;
    int64_t bytes; /* of all tensors */
    char *dir;     /* without slashes at its end */
    char *tmp;
    int lock; /* tmp, open, and locked against other exports; -1: not made */
    float *block;
    uint16_t *rounded;
} Export;

/* ---- the directory --------------------------------------------------------------------------- */

static Status write_fail(const Export *e, const char *what, int error) {
    return status_fail(ERR_ENV, "cannot export to %s: %s: %s", e->dir, what, file_error(error));
}

static bool is_dots(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static Status check_unused(const Export *e) {
    DIR *d = opendir(e->dir);
    if (d == NULL && errno == ENOENT) return OK;
    if (d == NULL)
        return status_fail(file_open_status(errno), "cannot export to %s: %s", e->dir,
                           strerror(errno));
    bool empty = true;
    errno = 0; /* which tells the end of a directory from a failure */
    for (struct dirent *f; (f = readdir(d)) != NULL;) empty &= is_dots(f->d_name);
    int error = errno;
    closedir(d);
    if (error != 0) return write_fail(e, "listing it", error);
    if (empty) return OK;
    return status_fail(ERR_USER, "cannot export to %s: it is not empty; name another directory",
                       e->dir);
}

/* Deletes the files of a tmp, this export's or an interrupted one's. */
static Status clear_tmp(const Export *e) {
    DIR *d = opendir(e->tmp);
    if (d == NULL) return write_fail(e, "emptying its .tmp", errno);
    errno = 0;
    for (struct dirent *f; errno == 0 && (f = readdir(d)) != NULL;)
        if (!is_dots(f->d_name)) unlinkat(dirfd(d), f->d_name, 0);
    int error = errno;
    closedir(d);
    return error != 0 ? write_fail(e, "emptying its .tmp", error) : OK;
}

static Status make_tmp(Export *e) {
    if (mkdir(e->tmp, 0777) != 0 && errno != EEXIST)
        return status_fail(file_create_status(errno), "cannot export to %s: making %s: %s", e->dir,
                           e->tmp, strerror(errno));
    int fd = open(e->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return write_fail(e, "opening its .tmp", errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            close(fd);
            return status_fail(ERR_USER, "cannot export to %s: another export is writing it",
                               e->dir);
        }
        log_warn("cannot lock %s (%s): see that no other export writes it", e->tmp,
                 strerror(errno));
    }
    e->lock = fd;
    return clear_tmp(e);
}

/* Readers of `dir` see all of it or nothing. */
static Status publish(const Export *e) {
    if (fsync(e->lock) != 0) return write_fail(e, "syncing its .tmp", errno);
    if (rename(e->tmp, e->dir) != 0) return write_fail(e, "renaming its .tmp", errno);
    int error = file_sync_parent(e->dir);
    return error != 0 ? write_fail(e, "syncing the directory it is in", error) : OK;
}

static int create_file(const Export *e, const char *name) {
    return openat(e->lock, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

/* Puts a file on disk, unless `error` says that it could not be written. */
static Status finish_file(const Export *e, const char *name, int fd, int error) {
    if (error == 0 && fsync(fd) != 0) error = errno;
    if (fd >= 0 && close(fd) != 0 && error == 0) error = errno;
    return error != 0 ? write_fail(e, name, error) : OK;
}

static Status write_text(const Export *e, const char *name, const StrBuf *text) {
    int fd = create_file(e, name);
    int error = fd < 0 ? errno : file_write_at(fd, text->text, (int64_t)text->len, 0);
    return finish_file(e, name, fd, error);
}

/* ---- weights --------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    const SafeTensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The tensors of a file; their names are the table's. free(*list) */
static int list_shard(const Export *e, int shard, SafeTensor **list) {
    int n = 0;
    *list = NEW(SafeTensor, e->from.table->n_params);
    for (int i = 0; i < e->from.table->n_params; i++) {
        Param *p = &e->from.table->params[i];
        if (e->shards.of[i] == shard)
            (*list)[n++] = (SafeTensor){.name = p->name,
                                        .dtype = e->o->dtype,
                                        .ndim = p->ndim,
                                        .shape = {p->rows, p->cols}};
    }
    qsort(*list, (size_t)n, sizeof **list, by_name);
    safetensors_layout(*list, n);
    return n;
}

/* The header padded to 8 bytes instead of 64, as the safetensors package does. */
static void print_header(const SafeTensor *list, int n, StrBuf *out) {
    const SafeEntry format = {"format", "pt"};
    safetensors_header(out, list, n, &format, 1);
    while (memcmp(out->text + out->len - 8, "        ", 8) == 0) out->len -= 8;
    uint64_t len = out->len - 8;
    for (int i = 0; i < 8; i++) out->text[i] = (char)(len >> (8 * i) & 0xff);
}

/* To the nearest, ties to even; a NaN stays one (as PyTorch writes it). */
static uint16_t round_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static Status write_tensor(const Export *e, const SafeTensor *t, const char *file, int fd,
                           int64_t at) {
    int64_t count = safetensors_count(t), size = dtype_bytes(t->dtype);
    uLong crc = 0; /* of what is read here, which checkpoint_verify() has read before */
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t n = i64_min(BLOCK, count - begin);
        const void *data = e->block;
        uint32_t part;
        CHECK(checkpoint_read_crc(e->from.ck, t->name, begin, n, e->block, &part));
        crc = crc32_combine(crc, part, n * (int64_t)sizeof *e->block);
        if (t->dtype == DT_BF16) {
            for (int64_t i = 0; i < n; i++) e->rounded[i] = round_bf16(e->block[i]);
            data = e->rounded;
        }
        int error = file_write_at(fd, data, n * size, at + begin * size);
        if (error != 0) return write_fail(e, file, error);
    }
    const SafeTensor *from = safetensors_find(checkpoint_file(e->from.ck), t->name);
    Status st = checkpoint_check_crc(e->from.ck, from, (uint32_t)crc);
    if (st == OK) return OK;
    status_ignore(st);
    return status_fail(
        ERR_ENV,
        "cannot export to %s: a second read of tensor %s of %s gave other bytes than "
        "the first: memory or storage is faulty",
        e->dir, t->name, e->from.path);
}

static Status write_shard(const Export *e, int shard) {
    char *name = hf_shard_name(&e->shards, shard);
    SafeTensor *list;
    StrBuf header = {0};
    int n = list_shard(e, shard, &list), fd = create_file(e, name);
    int error = fd < 0 ? errno : 0;
    print_header(list, n, &header);
    if (error == 0) error = file_write_at(fd, header.text, (int64_t)header.len, 0);
    Status st = OK;
    for (int i = 0; i < n && st == OK && error == 0; i++)
        st = write_tensor(e, &list[i], name, fd, (int64_t)header.len + list[i].begin);
    Status finished = finish_file(e, name, fd, error);
    strbuf_free(&header);
    free(list);
    free(name);
    return st != OK ? st : finished;
}

static Status write_index(const Export *e) {
    const ParamTable *t = e->from.table;
    HfIndex index = {.places = NEW(SafeEntry, t->n_params)};
    StrBuf text = {0};
    SafeTensor *all = NEW(SafeTensor, t->n_params);
    for (int i = 0; i < t->n_params; i++)
        all[i] = (SafeTensor){.name = t->params[i].name, .begin = e->shards.of[i]};
    qsort(all, (size_t)t->n_params, sizeof *all, by_name);
    for (int i = 0; i < t->n_params; i++)
        index.places[index.n_places++] =
            (SafeEntry){mem_strdup(all[i].name), hf_shard_name(&e->shards, (int)all[i].begin)};
    hf_index_print(&index, t->n_weights, e->bytes, &text);
    Status st = write_text(e, "model.safetensors.index.json", &text);
    free(all);
    strbuf_free(&text);
    hf_index_free(&index);
    return st;
}

static Status write_weights(Export *e) {
    e->bytes = e->from.table->n_weights * dtype_bytes(e->o->dtype);
    e->shards = hf_shards_assign(e->from.table, e->o->dtype, e->o->shard_bytes);
    e->block = NEW(float, BLOCK);
    e->rounded = NEW(uint16_t, BLOCK);
    for (int i = 0; i < e->shards.n; i++) CHECK(write_shard(e, i));
    return e->shards.n > 1 ? write_index(e) : OK;
}

/* ---- the other files ------------------------------------------------------------------------- */

static Status write_configs(const Export *e) {
    StrBuf model = {0}, generation = {0};
    hf_config_print(&e->from.config, &e->from.extra, e->o->dtype, &model);
    hf_generation_print(&e->from.extra, &generation);
    Status st = write_text(e, "config.json", &model);
    if (st == OK) st = write_text(e, "generation_config.json", &generation);
    strbuf_free(&model);
    strbuf_free(&generation);
    return st;
}

static Status copy_file(const Export *e, const char *from, const char *name) {
    struct stat info;
    int in, out = -1, error = 0;
    CHECK(file_open(from, &in));
    if (fstat(in, &info) != 0 || (out = create_file(e, name)) < 0) error = errno;
    bool pointer = false;
    for (int64_t at = 0; error == 0 && at < info.st_size; at += BLOCK) {
        int64_t n = i64_min(BLOCK, info.st_size - at);
        error = file_read_at(in, e->block, n, at);
        pointer |= error == 0 && at == 0 && file_is_lfs_pointer((const char *)e->block, n);
        if (error == 0) error = file_write_at(out, e->block, n, at);
    }
    close(in);
    Status st = finish_file(e, name, out, error);
    return st == OK && pointer ? file_lfs_fail(from) : st;
}

/* What a tokenizer may consist of. Others in its directory (weights, a config.json) are none of an
 * export's business. The first SETTINGS say how the others are read, and belong to a tokenizer.json
 * beside them that is given alone. */
static const char *const tokenizer_files[] = {"tokenizer_config.json",
                                              "special_tokens_map.json",
                                              "tokenizer.json",
                                              "tokenizer.model",
                                              "added_tokens.json",
                                              "vocab.json",
                                              "merges.txt",
                                              "chat_template.jinja",
                                              "chat_template.json"};
enum { SETTINGS = 2, N_TOKENIZER_FILES = sizeof tokenizer_files / sizeof *tokenizer_files };

/* tokenizer_config.json of the tokenizer `path`; *known: it could be made. */
static Status make_tokenizer_config(const Export *e, const char *path, bool *known) {
    StrBuf text = {0};
    Status st = hf_tokenizer_config(path, &e->from.extra, e->from.config.model.vocab, &text);
    *known = st == OK && text.len > 0;
    if (*known) st = write_text(e, tokenizer_files[0], &text);
    strbuf_free(&text);
    return st;
}

/* When none was copied: it is made of the file in which transformers looks first. */
static Status write_tokenizer_config(const Export *e, const char *folder, const bool *copied) {
    static const char *const sources[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    if (copied[0]) return OK;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        int k = 0;
        while (strcmp(tokenizer_files[k], sources[i]) != 0) k++;
        if (!copied[k] || (i == 2 && !copied[k + 1])) continue; /* vocab.json needs merges.txt */
        char *path = mem_printf("%s/%s", folder, sources[i]);
        bool known;
        Status st = make_tokenizer_config(e, path, &known);
        free(path);
        return st;
    }
    return OK;
}

/* A tokenizer.json of another name, such as data/bpe-4096.json. */
static Status copy_renamed(const Export *e, const char *path) {
    const char *end = strrchr(file_name(path), '.');
    bool known = false;
    if (end != NULL && strcmp(end, ".json") == 0) CHECK(make_tokenizer_config(e, path, &known));
    if (known) return copy_file(e, path, "tokenizer.json");
    return status_fail(ERR_USER,
                       "tokenizer %s: found no file of a tokenizer, such as tokenizer.json", path);
}

static Status copy_tokenizer(const Export *e, const char *path) {
    struct stat info;
    if (stat(path, &info) != 0)
        return status_fail(file_open_status(errno), "cannot find the tokenizer %s: %s", path,
                           strerror(errno));
    bool is_folder = S_ISDIR(info.st_mode), copied[N_TOKENIZER_FILES] = {false}, found = false;
    char *folder = is_folder ? mem_strdup(path) : file_parent(path);
    Status st = OK;
    for (int i = N_TOKENIZER_FILES - 1; i >= 0 && st == OK; i--) {
        const char *name = tokenizer_files[i];
        char *from = mem_printf("%s/%s", folder, name);
        bool given = is_folder || strcmp(file_name(path), name) == 0;
        if ((given || (found && i < SETTINGS)) && access(from, F_OK) == 0) {
            st = copy_file(e, from, name);
            copied[i] = found = true;
        }
        free(from);
    }
    if (st == OK) st = found ? write_tokenizer_config(e, folder, copied) : copy_renamed(e, path);
    free(folder);
    return st;
}

/* The one that was asked for, or that of the run, whose path is as seen from where it trained. */
static Status add_tokenizer(const Export *e) {
    const char *of_run = e->from.config.data.tokenizer;
    if (e->o->tokenizer != NULL) return copy_tokenizer(e, e->o->tokenizer);
    if (of_run[0] != '\0' && access(of_run, R_OK) == 0) return copy_tokenizer(e, of_run);
    if (of_run[0] != '\0')
        log_warn("%s gets no tokenizer: data.tokenizer %s: %s; --tokenizer PATH names one", e->dir,
                 of_run, strerror(errno));
    return OK;
}

/* ---- the export ------------------------------------------------------------------------------ */

static Status open_checkpoint(Export *e, const char *path) {
    CHECK(model_source_open_checkpoint(&e->from, path));
    CHECK(checkpoint_verify(e->from.ck));
    const ModelConfig *m = &e->from.config.model;
    if (m->hidden % m->heads != 0)
        log_warn(
            "transformers 4 loads %s, but 5 does not: it wants model.hidden %d to be a multiple of "
            "model.heads %d",
            e->dir, m->hidden, m->heads);
    return OK;
}

static Status export_all(Export *e, const char *checkpoint) {
    CHECK(check_unused(e));
    CHECK(open_checkpoint(e, checkpoint));
    CHECK(make_tmp(e));
    CHECK(write_weights(e));
    CHECK(write_configs(e));
    CHECK(add_tokenizer(e));
    return publish(e);
}

Status hf_export(const char *checkpoint, const char *dir, const HfExportOptions *o) {
    Export e = {.o = o, .dir = mem_strdup(dir), .lock = -1};
    for (size_t n = strlen(dir); n > 1 && e.dir[n - 1] == '/'; n--) e.dir[n - 1] = '\0';
    e.tmp = mem_printf("%s.tmp", e.dir);
    Status st = export_all(&e, checkpoint);
    if (st == OK) {
        log_info("exported %s to %s: %lld weights, %lld bytes in %d file%s", checkpoint, e.dir,
                 (long long)e.from.table->n_weights, (long long)e.bytes, e.shards.n,
                 e.shards.n == 1 ? "" : "s");
    } else if (e.lock >= 0) {
        clear_tmp(&e);
        rmdir(e.tmp);
    }
    if (e.lock >= 0) close(e.lock);
    model_source_close(&e.from);
    void *parts[] = {e.shards.of, e.dir, e.tmp, e.block, e.rounded};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
    return st;
}
