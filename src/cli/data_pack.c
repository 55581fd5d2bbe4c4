/* data_pack.c: `cria data pack`: token files of any format into one format, in shards, compressed,
 * with a part of the documents held out. */
#include "cli/data_options.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "data/documents.h"
#include "data/writer.h"
#include "base/log.h"
#include "base/output.h"
#include "base/rng.h"

typedef struct {
    DataInputs in;
    int to; /* DataFormat; FORMAT_AUTO: not given */
    const char *out, *ids;
    double val;          /* share of the documents held out */
    int64_t seed, shard; /* of the choice of documents; tokens */
    bool gzip, force;
} PackOptions;

typedef struct {
    const PackOptions *a;
    DataFormat to;
    IdType ids;        /* 0: not given */
    TokenFile **files; /* [a->in.n_paths] */
    int n_files;
    Writer *train, *val; /* val NULL: nothing is held out */
    int64_t seed;
    int64_t tokens; /* of all files */
    int64_t documents;
    int64_t at, cut; /* tokens copied; those behind `cut` are held out; cut -1: by document */
    bool eod_found;
    Progress progress;
} Pack;

static Status read_ids(const char *name, IdType *out) {
    static const IdType types[] = {ID_U8, ID_I8, ID_I16, ID_I32, ID_I64, ID_U16, ID_U32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(name, id_type_name(*out = types[i])) == 0) return OK;
    return status_fail(ERR_USER,
                       "cria data pack: --ids: found '%s', expected uint8, int8, int16, uint16, "
                       "int32, int64 or uint32",
                       name);
}

static Status check(Pack *p) {
    const PackOptions *a = p->a;
    if (a->to == FORMAT_AUTO || a->out == NULL)
        return status_fail(ERR_USER,
                           "cria data pack needs --to nanogpt|megatron|llmc and --out PATH "
                           "(without .bin)");
    p->to = (DataFormat)a->to;
    if (a->ids == NULL) return OK;
    CHECK(read_ids(a->ids, &p->ids));
    static const char *const allowed[] = {[FORMAT_NANOGPT] = "uint16",
                                          [FORMAT_MEGATRON] =
                                              "uint8, int8, int16, uint16, int32 or int64",
                                          [FORMAT_LLMC] = "uint16 or uint32"};
    bool valid = (p->to == FORMAT_NANOGPT && p->ids == ID_U16) ||
                 (p->to == FORMAT_MEGATRON && p->ids != ID_U32) ||
                 (p->to == FORMAT_LLMC && (p->ids == ID_U16 || p->ids == ID_U32));
    return valid ? OK
                 : status_fail(ERR_USER, "--ids: found %s, expected %s with --to %s", a->ids,
                               allowed[p->to], data_format_names[p->to]);
}

/* As Megatron chooses, where the vocabulary is known; else the inputs' width is kept. */
static IdType choose_ids(const Pack *p) {
    if (p->ids != 0) return p->ids;
    bool narrow = p->a->in.vocab < 65500;
    if (p->a->in.vocab == INT32_MAX) {
        narrow = true;
        for (int i = 0; i < p->n_files; i++)
            narrow = narrow && id_type_bytes(tokens_id_type(p->files[i])) <= 2;
    }
    if (narrow || p->to == FORMAT_NANOGPT) return ID_U16;
    return p->to == FORMAT_LLMC ? ID_U32 : ID_I32;
}

/* Documents must be known for an index, for cutting, and for putting the eod where the output has
 * it: llm.c's is in front of each document, nanoGPT's behind. */
static Status check_documents(const Pack *p, const TokenFile *file) {
    static const char *const places[] = {
        [FORMAT_NANOGPT] = "behind", [FORMAT_MEGATRON] = "behind", [FORMAT_LLMC] = "before"};
    const char *path = tokens_path(file), *to = data_format_names[p->to];
    DataFormat from = tokens_format(file);
    bool by_index = tokens_index(file) != NULL;
    if (!by_index) CHECK(tokens_check_eod(file, p->a->in.eod, "--eod"));
    if (p->a->in.eod_given || p->to == from || (by_index && p->to == FORMAT_MEGATRON)) {
        bool known = by_index || p->a->in.eod_given;
        bool needed = p->to == FORMAT_MEGATRON || p->a->val > 0 || p->a->shard > 0;
        if (known || !needed) return OK;
    } else if (by_index) {
        return status_fail(
            ERR_USER,
            "only the index of %s says where documents end, and --to %s has none; give "
            "--eod, the id to put %s each document (GPT-2: 50256, Llama 3: 128001), or "
            "--eod none to write the ids alone",
            path, to, places[p->to]);
    } else if (p->to != FORMAT_MEGATRON) {
        return status_fail(
            ERR_USER,
            "the id between documents is %s each of them in %s, and %s with --to %s; "
            "give --eod, that id (GPT-2: 50256, Llama 3: 128001), or --eod none to "
            "write the ids as they are",
            places[from], path, places[p->to], to);
    }
    return status_fail(ERR_USER,
                       "%s does not say where documents end; give --eod, the id that ends them "
                       "(GPT-2: 50256, Llama 3: 128001), or --eod none where all of it is one",
                       path);
}

/* ---- the validation part --------------------------------------------------------------------- */

static bool is_held_out(const Pack *p, int64_t document) {
    return rng_uniform((uint64_t)p->seed, rng_stream(RNG_ORDER, 0), (uint64_t)document) < p->a->val;
}

/* Numbers the documents until both parts have got one, which takes 1 / val of them. */
static Status draw_until_both(const Pack *p, int64_t *documents, bool *held_out, bool *kept) {
    Progress silent = {.begin = time_now(), .shown = INFINITY};
    Status st = OK;
    *documents = 0;
    *held_out = *kept = false;
    for (int i = 0; i < p->n_files && st == OK && !(*held_out && *kept); i++) {
        DocumentReader *r = documents_open(p->files[i], p->a->in.eod, p->a->in.vocab, &silent);
        Piece d;
        while (!(*held_out && *kept) && documents_next(r, &d, &st))
            if (d.begins) *(is_held_out(p, (*documents)++) ? held_out : kept) = true;
        documents_close(r);
    }
    return st;
}

/* Where there are too few documents to draw from, the last tokens are held out instead. */
static Status choose_validation(Pack *p) {
    int64_t documents;
    bool held_out, kept;
    p->cut = -1;
    if (p->a->val == 0) return OK;
    CHECK(draw_until_both(p, &documents, &held_out, &kept));
    if (held_out && kept) return OK;
    p->cut = llround((1 - p->a->val) * (double)p->tokens);
    if (p->cut < 1 || p->tokens - p->cut < 2)
        return status_fail(ERR_USER,
                           "--val %g of %lld documents and %lld tokens leaves no part to hold out; "
                           "choose another share",
                           p->a->val, (long long)documents, (long long)p->tokens);
    log_warn(
        "--val %g draws %s of %lld document%s: instead the last %lld of all tokens are held out, "
        "cut within a document",
        p->a->val, held_out ? "all" : "none", (long long)documents, documents == 1 ? "" : "s",
        (long long)(p->tokens - p->cut));
    return OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static Status open_writer(Pack *p, Writer **w, const char *suffix) {
    char *prefix = mem_printf("%s%s", p->a->out, suffix);
    WriterOptions o = {.prefix = prefix,
                       .format = p->to,
                       .type = choose_ids(p),
                       .eod = p->a->in.eod,
                       .shard_tokens = p->a->shard,
                       .gzip = p->a->gzip,
                       .replace = p->a->force};
    Status st = writer_open(w, &o);
    free(prefix);
    return st;
}

static Status open_all(Pack *p) {
    CHECK(check(p));
    p->files = NEW(TokenFile *, p->a->in.n_paths);
    for (int i = 0; i < p->a->in.n_paths; i++) {
        CHECK(tokens_open(&p->files[i], p->a->in.paths[i], (DataFormat)p->a->in.format));
        p->n_files++;
        p->tokens += tokens_count(p->files[i]);
    }
    for (int i = 0; i < p->n_files; i++) CHECK(check_documents(p, p->files[i]));
    CHECK(choose_validation(p));
    progress_start(&p->progress, p->tokens);
    CHECK(open_writer(p, &p->train, p->a->val > 0 ? "_train" : ""));
    return p->a->val > 0 ? open_writer(p, &p->val, "_val") : OK;
}

/* Without the id where its format has it: the writer puts it where its own does. */
static Status write_piece(Pack *p, Writer *w, Piece d, bool leading) {
    const int32_t eod = (int32_t)p->a->in.eod;
    for (int64_t i = 0; eod >= 0 && !p->eod_found && i < d.n; i++) p->eod_found = d.ids[i] == eod;
    if (eod >= 0 && leading && d.begins && d.ids[0] == eod) d.ids++, d.n--;
    if (eod >= 0 && !leading && d.ends && d.ids[d.n - 1] == eod) d.n--;
    if (d.n > 0) CHECK(writer_append(w, d.ids, d.n));
    return d.ends ? writer_end_document(w) : OK;
}

/* Of a document that begins. */
static Writer *choose_part(Pack *p) {
    int64_t document = p->documents++;
    if (p->cut >= 0) return p->at >= p->cut ? p->val : p->train;
    return p->val != NULL && is_held_out(p, document) ? p->val : p->train;
}

static Status copy_file(Pack *p, const TokenFile *file) {
    DocumentReader *r = documents_open(file, p->a->in.eod, p->a->in.vocab, &p->progress);
    const bool leading = tokens_format(file) == FORMAT_LLMC;
    Piece d;
    Status st;
    Writer *w = NULL;
    while (documents_next(r, &d, &st)) {
        if (d.begins) w = choose_part(p);
        int64_t before = p->cut - p->at; /* tokens of this piece that are not held out */
        p->at += d.n;
        if (p->cut >= 0 && before >= 0 && before < d.n) {
            Piece first = {d.ids, before, d.begins, true};
            if (before > 0) CHECK_GOTO(write_piece(p, p->train, first, leading), done);
            if (before == 0 && !d.begins) CHECK_GOTO(writer_end_document(p->train), done);
            d = (Piece){d.ids + before, d.n - before, true, d.ends};
            w = p->val;
        }
        CHECK_GOTO(write_piece(p, w, d, leading), done);
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
            return status_fail(ERR_USER, "no token is left for the %s part; choose another --val",
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

static Status pack(const Args *args) {
    PackOptions *a = args->options;
    Pack p = {.a = a, .seed = args_given(args, offsetof(PackOptions, seed)) ? a->seed : 1234};
    Status st = data_inputs_open(&a->in, args);
    if (st == OK) st = open_all(&p);
    for (int i = 0; i < p.n_files && st == OK; i++) st = copy_file(&p, p.files[i]);
    progress_end(&p.progress);
    if (st == OK) st = commit(&p);
    bool by_index = p.n_files > 0 && tokens_index(p.files[0]) != NULL;
    if (st == OK && p.a->in.eod >= 0 && !p.eod_found && !by_index)
        log_warn("--eod %lld does not occur: each file was taken for one document",
                 (long long)p.a->in.eod);
    writer_free(p.train);
    writer_free(p.val);
    for (int i = 0; i < p.n_files; i++) tokens_close(p.files[i]);
    free(p.files);
    data_inputs_free(&a->in);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("to", NAME, PackOptions, to, "FORMAT", "One of nanogpt, megatron and llmc.",
               .min = FORMAT_NANOGPT, .names = data_format_names),
    ARG_OPTION("out", TEXT, PackOptions, out, "PATH", "The output, without .bin."),
    DATA_INPUT_OPTIONS,
    ARG_OPTION("ids", TEXT, PackOptions, ids, "TYPE",
               "One of uint8, int8, int16, uint16, int32, int64 and uint32. [as the input, or by "
               "--vocab]"),
    ARG_OPTION(
        "val", SHARE, PackOptions, val, "SHARE",
        "Send each document to PATH_val with this probability, the rest to PATH_train. Where that "
        "leaves one of them empty, the last tokens are held out instead."),
    ARG_OPTION("seed", INTEGER, PackOptions, seed, "N", "Of the choice of documents. [1234]",
               .min = 0, .max = INT64_MAX),
    ARG_OPTION("shard", INTEGER, PackOptions, shard, "TOKENS",
               "Begin a new file with the document behind so many tokens.", .min = 1,
               .max = INT64_MAX),
    ARG_OPTION("gzip", FLAG, PackOptions, gzip, NULL, "Compress."),
    ARG_OPTION("force", FLAG, PackOptions, force, NULL, "Replace what exists."),
    {.name = NULL}};
const Command command_data_pack = {
    .name = "data pack",
    .summary = "Convert, shard, compress token files; hold some out.",
    .arguments = "FILE... --to FORMAT --out PATH",
    .details =
        "Documents keep their order. With --eod a document is what lies between two such "
        "ids, and the id is put where the output's format has it; with --eod none, or "
        "without it where input and output have it in the same place, ids are copied as they "
        "are. Nothing has its final name before all is written.",
    COMMAND_OPTIONS(options, PackOptions),
    COMMAND_PATHS(1, INT_MAX),
    .run = pack};
