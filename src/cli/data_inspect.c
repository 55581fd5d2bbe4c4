/* data_inspect.c: `cria data inspect`: reads token files through and says what is in them. */
#include "cli/data_options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "cli/commands.h"
#include "data/documents.h"
#include "data/source.h"
#include "base/output.h"

enum { BINS = 40 };

typedef struct {
    int64_t documents, shortest, longest, eods;
    int64_t bins[BINS]; /* documents of [2^i, 2^(i+1)) tokens */
    int32_t least, largest;
    uint32_t crc; /* of the ids as int32: the same in every format */
} Findings;

static void count_document(Findings *f, int64_t tokens) {
    f->documents++;
    f->shortest = f->documents == 1 ? tokens : i64_min(f->shortest, tokens);
    f->longest = i64_max(f->longest, tokens);
    f->bins[63 - __builtin_clzll((uint64_t)tokens)]++;
}

static Status read_all(const TokenFile *file, const DataInputs *a, Progress *progress,
                       Findings *f) {
    DocumentReader *r = documents_open(file, a->eod, a->vocab, progress);
    Piece p;
    Status st;
    int64_t length = 0;
    *f = (Findings){.least = INT32_MAX};
    while (documents_next(r, &p, &st)) {
        for (int64_t i = 0; i < p.n; i++) {
            f->least = p.ids[i] < f->least ? p.ids[i] : f->least;
            f->largest = p.ids[i] > f->largest ? p.ids[i] : f->largest;
            f->eods += p.ids[i] == a->eod;
        }
        f->crc = (uint32_t)crc32_z(f->crc, (const Bytef *)p.ids, 4 * (size_t)p.n);
        length += p.n;
        if (p.ends) {
            count_document(f, length);
            length = 0;
        }
    }
    documents_close(r);
    return st;
}

static void print_lengths(const Findings *f, int64_t tokens) {
    int64_t most = 1;
    for (int i = 0; i < BINS; i++) most = i64_max(most, f->bins[i]);
    output_print("  lengths      %lld to %lld tokens, %.1f on average\n", (long long)f->shortest,
                 (long long)f->longest, (double)tokens / (double)f->documents);
    for (int i = 0; i < BINS; i++) {
        static const char bar[] = "########################################";
        if (f->bins[i] == 0) continue;
        output_print("  %12lld+ %10lld %.*s\n", 1LL << i, (long long)f->bins[i],
                     (int)ceil_div(f->bins[i] * 40, most), bar);
    }
}

static void print_file(const TokenFile *file, const DataInputs *a, const Findings *f) {
    const MegatronIndex *x = tokens_index(file);
    char *path = mem_printable(tokens_path(file));
    output_print("%s\n", path);
    free(path);
    output_print("  format       %s, %s ids%s\n",
                 config_enum_name((int)tokens_format(file), "data.format"),
                 id_type_name(tokens_id_type(file)), tokens_is_gzip(file) ? ", gzip" : "");
    output_print("  bytes        %lld\n", (long long)tokens_bytes(file));
    output_print("  tokens       %lld\n", (long long)tokens_count(file));
    if (x != NULL)
        output_print("  documents    %lld by the index, %lld of them empty; %lld sequences\n",
                     (long long)x->documents, (long long)(x->documents - f->documents),
                     (long long)x->sequences);
    else if (a->eod >= 0)
        output_print("  documents    %lld by id %lld\n", (long long)f->documents,
                     (long long)a->eod);
    else
        output_print(
            "  documents    not in the file; --eod ID counts them by the id that ends them\n");
    if (a->eod >= 0 && f->eods == 0)
        output_print("               id %lld does not occur\n", (long long)a->eod);
    if (x != NULL || a->eod >= 0) print_lengths(f, tokens_count(file));
    output_print("  ids          %d to %d: model.vocab must be at least %d\n", f->least, f->largest,
                 f->largest + 1);
    output_print("  fingerprint  %08x, ids %08x\n", tokens_fingerprint(file), f->crc);
}

static Status inspect(const char *path, const DataInputs *a) {
    TokenFile *file;
    Findings found;
    Progress progress;
    CHECK(tokens_open(&file, path, (DataFormat)a->format));
    progress_start(&progress, tokens_count(file));
    Status st = tokens_check_eod(file, a->eod, "--eod");
    if (st == OK) st = read_all(file, a, &progress, &found);
    progress_end(&progress);
    if (st == OK) print_file(file, a, &found);
    tokens_close(file);
    return st;
}

static Status inspect_all(const Args *a) {
    DataInputs *in = a->options;
    Status st = data_inputs_open(in, a);
    for (int i = 0; i < in->n_paths && st == OK; i++) st = inspect(in->paths[i], in);
    data_inputs_free(in);
    return st;
}

static const ArgOption options[] = {DATA_INPUT_OPTIONS, {.name = NULL}};
const Command command_data_inspect = {
    .name = "data inspect",
    .summary = "Print what token files hold: format, documents, ids.",
    .arguments = "FILE...",
    .details = "Reads token files through and prints their format, number of tokens and documents, "
               "lengths of documents, least and largest id, and fingerprints.",
    COMMAND_OPTIONS(options, DataInputs),
    COMMAND_PATHS(1, INT_MAX),
    .run = inspect_all};
