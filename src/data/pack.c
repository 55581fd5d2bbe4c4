#include "data/pack.h"

#include <stdlib.h>

#include "data/arguments.h"
#include "data/documents.h"
#include "data/writer.h"
#include "output.h"
#include "rng.h"

typedef struct {
    Arguments a;
    TokenFile **files; /* [a.n_paths] */
    int n_files;
    Writer *train, *val; /* val NULL: nothing is held out */
    int64_t documents;
    Progress progress;
} Pack;

static Status check(const Arguments *a) {
    if (a->to == FORMAT_AUTO || a->out == NULL)
        return status_fail(ERR_USER,
                           "cria data pack needs --to nanogpt|megatron|llmc and --out PATH "
                           "(without .bin)");
    static const char *const allowed[] = {[FORMAT_NANOGPT] = "uint16",
                                          [FORMAT_MEGATRON] =
                                              "uint8, int8, int16, uint16, int32 or int64",
                                          [FORMAT_LLMC] = "uint16 or uint32"};
    bool good = a->ids == 0 || (a->to == FORMAT_NANOGPT && a->ids == ID_U16) ||
                (a->to == FORMAT_MEGATRON && a->ids != ID_U32) ||
                (a->to == FORMAT_LLMC && (a->ids == ID_U16 || a->ids == ID_U32));
    return good ? OK
                : status_fail(ERR_USER, "--ids: found %s, expected %s with --to %s",
                              id_type_name(a->ids), allowed[a->to],
                              config_enum_name((int)a->to, "data.format"));
}

/* As Megatron chooses, where the vocabulary is known; else the inputs' width is kept. */
static IdType choose_ids(const Pack *p) {
    if (p->a.ids != 0) return p->a.ids;
    bool narrow = p->a.vocab < 65500;
    if (p->a.vocab == INT32_MAX) {
        narrow = true;
        for (int i = 0; i < p->n_files; i++)
            narrow = narrow && id_type_bytes(tokens_id_type(p->files[i])) <= 2;
    }
    if (narrow || p->a.to == FORMAT_NANOGPT) return ID_U16;
    return p->a.to == FORMAT_LLMC ? ID_U32 : ID_I32;
}

/* Documents must be known for an index, for cutting, and for moving the eod. */
static Status check_documents(const Pack *p) {
    bool needed = p->a.to == FORMAT_MEGATRON || p->a.val > 0 || p->a.shard > 0;
    for (int i = 0; i < p->n_files && needed && p->a.eod < 0; i++)
        if (tokens_index(p->files[i]) == NULL)
            return status_fail(ERR_USER,
                               "%s does not say where documents end; give --eod, the id that ends "
                               "them (GPT-2: 50256, Llama 3: 128001)",
                               tokens_path(p->files[i]));
    return OK;
}

static Status open_writer(Pack *p, Writer **w, const char *suffix) {
    char *prefix = mem_printf("%s%s", p->a.out, suffix);
    WriterOptions o = {.prefix = prefix,
                       .format = p->a.to,
                       .type = choose_ids(p),
                       .eod = p->a.eod,
                       .shard_tokens = p->a.shard,
                       .gzip = p->a.gzip,
                       .replace = p->a.force};
    Status st = writer_open(w, &o);
    free(prefix);
    return st;
}

static Status open_all(Pack *p) {
    int64_t total = 0;
    CHECK(check(&p->a));
    p->files = NEW(TokenFile *, p->a.n_paths);
    for (int i = 0; i < p->a.n_paths; i++) {
        CHECK(tokens_open(&p->files[i], p->a.paths[i], p->a.format));
        p->n_files++;
        total += tokens_count(p->files[i]);
    }
    CHECK(check_documents(p));
    progress_start(&p->progress, total);
    CHECK(open_writer(p, &p->train, p->a.val > 0 ? "_train" : ""));
    return p->a.val > 0 ? open_writer(p, &p->val, "_val") : OK;
}

static Status copy_file(Pack *p, const TokenFile *file) {
    DocumentReader *r = documents_open(file, p->a.eod, p->a.vocab, &p->progress);
    const int32_t eod = (int32_t)p->a.eod;
    const bool leading = tokens_format(file) == FORMAT_LLMC;
    Writer *w = NULL;
    Piece d;
    Status st;
    while (documents_next(r, &d, &st)) {
        if (d.begins) {
            uint64_t n = (uint64_t)p->documents++;
            bool held_out = p->val != NULL && rng_uniform((uint64_t)p->a.seed,
                                                          rng_stream(RNG_ORDER, 0), n) < p->a.val;
            w = held_out ? p->val : p->train;
        }
        /* without the id where this format has it: the writer puts it where its own does */
        if (eod >= 0 && leading && d.begins && d.ids[0] == eod) d.ids++, d.n--;
        if (eod >= 0 && !leading && d.ends && d.ids[d.n - 1] == eod) d.n--;
        if (d.n > 0) CHECK_GOTO(writer_append(w, d.ids, d.n), done);
        if (d.ends) CHECK_GOTO(writer_end_document(w), done);
    }
done:
    documents_close(r);
    return st;
}

static Status commit(Pack *p) {
    Writer *writers[] = {p->train, p->val};
    static const char *const names[] = {"training", "validation"};
    for (int i = 0; i < 2 && writers[i] != NULL; i++) {
        if (writer_tokens(writers[i]) == 0)
            return status_fail(ERR_USER,
                               "no document was drawn for the %s part; choose another --val "
                               "or --seed",
                               names[i]);
        CHECK(writer_finish(writers[i]));
    }
    StrBuf text = {0};
    Status st = OK;
    for (int i = 0; i < 2 && writers[i] != NULL && st == OK; i++) {
        st = writer_commit(writers[i]);
        writer_describe(writers[i], &text);
    }
    if (st == OK) output_print("%s", strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

Status pack_command(int argc, char **argv) {
    Pack p = {0};
    Status st = arguments_parse(&p.a, "cria data pack", argc, argv,
                                "to out format eod vocab ids val seed shard gzip force");
    if (st == OK) st = open_all(&p);
    for (int i = 0; i < p.n_files && st == OK; i++) st = copy_file(&p, p.files[i]);
    progress_end(&p.progress);
    if (st == OK) st = commit(&p);
    writer_free(p.train);
    writer_free(p.val);
    for (int i = 0; i < p.n_files; i++) tokens_close(p.files[i]);
    free(p.files);
    arguments_free(&p.a);
    return st;
}
