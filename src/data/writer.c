#include "data/writer.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/outfile.h"

enum { LLMC_HEADER = 1024 };

typedef struct {
    OutFile *data, *index; /* index: Megatron's, else NULL */
    int64_t tokens, documents;
} Shard;

struct Writer {
    WriterOptions o;
    char *prefix;
    Shard *shards; /* the last is being written */
    int n_shards;
    bool in_document; /* something of it has been written */
    int64_t begin;    /* tokens of the shard before this document */
    int32_t *lengths; /* Megatron: of this shard's documents */
    int64_t lengths_cap;
    int64_t tokens, documents;
};

/* ---- shards ---------------------------------------------------------------------------------- */

static Status open_shard(Writer *w) {
    const WriterOptions *o = &w->o;
    char *stem =
        o->shard_tokens > 0 ? mem_printf("%s_%06d", w->prefix, w->n_shards) : mem_strdup(w->prefix);
    char *data = mem_printf("%s.bin", stem), *index = mem_printf("%s.idx", stem);
    w->shards = mem_grow(w->shards, w->n_shards + 1, sizeof *w->shards);
    Shard *s = &w->shards[w->n_shards++];
    *s = (Shard){0};
    bool misleads = o->format != FORMAT_MEGATRON && access(index, F_OK) == 0;
    Status st = OK;
    if (misleads)
        st = status_fail(ERR_USER,
                         "%s exists and would be taken for the index of %s; delete it, or choose "
                         "another --out",
                         index, data);
    if (st == OK)
        st = outfile_open(&s->data, data, o->format == FORMAT_LLMC ? LLMC_HEADER : 0, o->gzip,
                          o->replace);
    if (st == OK && o->format == FORMAT_MEGATRON)
        st = outfile_open(&s->index, index, 0, false, o->replace);
    free(stem);
    free(data);
    free(index);
    return st;
}

static Status write_index(const Writer *w, const Shard *s) {
    const int64_t version = 1, sequences = s->documents, ends = s->documents + 1;
    const unsigned char code = (unsigned char)w->o.type;
    CHECK(outfile_write(s->index, MEGATRON_MAGIC, 9));
    CHECK(outfile_write(s->index, &version, sizeof version));
    CHECK(outfile_write(s->index, &code, 1));
    CHECK(outfile_write(s->index, &sequences, sizeof sequences));
    CHECK(outfile_write(s->index, &ends, sizeof ends));
    CHECK(outfile_write(s->index, w->lengths, 4 * s->documents));
    int64_t pointer = 0;
    for (int64_t d = 0; d < s->documents; d++) {
        CHECK(outfile_write(s->index, &pointer, sizeof pointer));
        pointer += (int64_t)w->lengths[d] * id_type_bytes(w->o.type);
    }
    for (int64_t d = 0; d <= s->documents; d++) CHECK(outfile_write(s->index, &d, sizeof d));
    return outfile_finish(s->index);
}

static Status close_shard(Writer *w) {
    Shard *s = &w->shards[w->n_shards - 1];
    CHECK(outfile_finish(s->data));
    if (w->o.format == FORMAT_LLMC) {
        int32_t header[LLMC_HEADER / 4] = {20240520, 1, (int32_t)s->tokens};
        if (w->o.type == ID_U32) header[0] = 20240801, header[1] = 7;
        CHECK(outfile_header(s->data, header));
        CHECK(outfile_finish(s->data));
    }
    return s->index != NULL ? write_index(w, s) : OK;
}

/* ---- ids ------------------------------------------------------------------------------------- */

static Status write_ids(Writer *w, const int32_t *ids, int64_t n) {
    Shard *s = &w->shards[w->n_shards - 1];
    int64_t limit = id_type_largest(w->o.type);
    int bytes = id_type_bytes(w->o.type);
    unsigned char raw[8192];
    const int64_t most = (int64_t)sizeof raw / bytes;
    for (int64_t done = 0, part; done < n; done += part) {
        part = i64_min(n - done, most);
        for (int64_t i = 0; i < part; i++) {
            int32_t id = ids[done + i];
            if (id < 0 || id > limit)
                return status_fail(
                    ERR_USER,
                    "id %d (token %lld of the output) does not fit %s, the ids of %s; "
                    "choose a wider --ids, or a format that has them (megatron, llmc)",
                    id, (long long)(w->tokens + done + i), id_type_name(w->o.type),
                    outfile_path(s->data));
            uint64_t v = htole64((uint64_t)id);
            memcpy(raw + i * bytes, &v, (size_t)bytes);
        }
        CHECK(outfile_write(s->data, raw, part * bytes));
    }
    s->tokens += n;
    w->tokens += n;
    if (w->o.format == FORMAT_LLMC && s->tokens > INT32_MAX)
        return status_fail(
            ERR_USER,
            "%s reaches 2^31 tokens, more than an llm.c shard can count; give --shard, "
            "for example 100000000",
            outfile_path(s->data));
    if (s->index != NULL && s->tokens - w->begin > INT32_MAX)
        return status_fail(ERR_USER,
                           "document %lld has 2^31 tokens or more: is --eod the id that ends "
                           "documents?",
                           (long long)w->documents);
    return OK;
}

static Status write_eod(Writer *w) {
    int32_t eod = (int32_t)w->o.eod;
    return eod >= 0 ? write_ids(w, &eod, 1) : OK;
}

static Status begin_document(Writer *w) {
    Shard *s = &w->shards[w->n_shards - 1];
    if (w->o.shard_tokens > 0 && s->tokens >= w->o.shard_tokens) {
        CHECK(close_shard(w));
        CHECK(open_shard(w));
    }
    w->begin = w->shards[w->n_shards - 1].tokens;
    w->in_document = true;
    return w->o.format == FORMAT_LLMC ? write_eod(w) : OK;
}

Status writer_append(Writer *w, const int32_t *ids, int64_t n) {
    if (!w->in_document) CHECK(begin_document(w));
    return write_ids(w, ids, n);
}

Status writer_end_document(Writer *w) {
    if (!w->in_document) CHECK(begin_document(w));
    if (w->o.format != FORMAT_LLMC) CHECK(write_eod(w));
    w->in_document = false;
    Shard *s = &w->shards[w->n_shards - 1];
    if (s->index != NULL) {
        GROW(w->lengths, s->documents, w->lengths_cap);
        w->lengths[s->documents] = (int32_t)(s->tokens - w->begin);
    }
    s->documents++;
    w->documents++;
    return OK;
}

/* ---- open, finish, free ---------------------------------------------------------------------- */

Status writer_open(Writer **out, const WriterOptions *o) {
    Writer *w = NEW(Writer, 1);
    w->o = *o;
    w->prefix = mem_strdup(o->prefix);
    Status st = open_shard(w);
    if (st != OK) {
        writer_free(w);
        w = NULL;
    }
    *out = w;
    return st;
}

Status writer_finish(Writer *w) {
    REQUIRE(!w->in_document);
    return close_shard(w);
}

Status writer_commit(Writer *w) {
    for (int i = 0; i < w->n_shards; i++) CHECK(outfile_commit(w->shards[i].data));
    for (int i = 0; i < w->n_shards; i++)
        if (w->shards[i].index != NULL) CHECK(outfile_commit(w->shards[i].index));
    return OK;
}

void writer_free(Writer *w) {
    if (w == NULL) return;
    for (int i = 0; i < w->n_shards; i++) {
        outfile_free(w->shards[i].data);
        outfile_free(w->shards[i].index);
    }
    free(w->shards);
    free(w->prefix);
    free(w->lengths);
    free(w);
}

int64_t writer_tokens(const Writer *w) {
    return w->tokens;
}

void writer_describe(const Writer *w, StrBuf *out) {
    for (int i = 0; i < w->n_shards; i++) {
        const Shard *s = &w->shards[i];
        char *path = mem_printable(outfile_path(s->data));
        strbuf_printf(out, "%s%s: %lld tokens, %lld documents\n", path,
                      s->index != NULL ? " and .idx" : "", (long long)s->tokens,
                      (long long)s->documents);
        free(path);
    }
}
