#include "data/arguments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "data/source.h"

typedef enum {
    OPT_INTEGER,
    OPT_EOD,
    OPT_SHARE,
    OPT_FORMAT,
    OPT_IDS,
    OPT_TEXT,
    OPT_FLAG
} OptionKind;

typedef struct {
    const char *name;
    OptionKind kind;
    size_t offset; /* in Arguments */
    int64_t min, max;
    const char *expects;
} Option;

#define FIELD(f) offsetof(Arguments, f)
static const Option options[] = {
    {"format", OPT_FORMAT, FIELD(format), 0, 0, "auto, nanogpt, megatron or llmc"},
    {"eod", OPT_EOD, FIELD(eod), 0, INT32_MAX - 1, "the id that ends a document, or none"},
    {"vocab", OPT_INTEGER, FIELD(vocab), 1, INT32_MAX, "the number of ids"},
    {"to", OPT_FORMAT, FIELD(to), 0, 0, "nanogpt, megatron or llmc"},
    {"ids", OPT_IDS, FIELD(ids), 0, 0, "uint8, int8, int16, uint16, int32, int64 or uint32"},
    {"out", OPT_TEXT, FIELD(out), 0, 0, "the output's path without .bin"},
    {"val", OPT_SHARE, FIELD(val), 0, 0, "a share of the documents between 0 and 1, as 0.0005"},
    {"seed", OPT_INTEGER, FIELD(seed), 0, INT64_MAX, "a number"},
    {"shard", OPT_INTEGER, FIELD(shard), 1, INT64_MAX, "a number of tokens"},
    {"gzip", OPT_FLAG, FIELD(gzip), 0, 0, ""},
    {"force", OPT_FLAG, FIELD(force), 0, 0, ""},
};

static bool read_format(const char *text, DataFormat *out) {
    for (int f = FORMAT_AUTO; f <= FORMAT_LLMC; f++)
        if (strcmp(text, config_enum_name(f, "data.format")) == 0) {
            *out = (DataFormat)f;
            return true;
        }
    return false;
}

static bool read_ids(const char *text, IdType *out) {
    static const IdType types[] = {ID_U8, ID_I8, ID_I16, ID_I32, ID_I64, ID_U16, ID_U32};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(text, id_type_name(types[i])) == 0) {
            *out = types[i];
            return true;
        }
    return false;
}

static bool read_integer(const char *text, const Option *o, int64_t *out) {
    char *end = NULL;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text != '\0' && *end == '\0' && errno == 0 && *out >= o->min && *out <= o->max;
}

static bool set(Arguments *a, const Option *o, const char *text) {
    void *field = (char *)a + o->offset;
    char *end = NULL;
    switch (o->kind) {
    case OPT_INTEGER:
        return read_integer(text, o, field);
    case OPT_EOD:
        a->eod = -1;
        a->eod_given = true;
        return strcmp(text, "none") == 0 || read_integer(text, o, &a->eod);
    case OPT_SHARE:
        *(double *)field = strtod(text, &end);
        return *text != '\0' && *end == '\0' && *(double *)field > 0 && *(double *)field < 1;
    case OPT_FORMAT:
        return read_format(text, field);
    case OPT_IDS:
        return read_ids(text, field);
    case OPT_TEXT:
        *(const char **)field = text;
        return *text != '\0';
    case OPT_FLAG:
        *(bool *)field = true;
        return true;
    }
    return false;
}

/* Is the word among the space-separated ones? */
static bool listed(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *w = words; (w = strstr(w, word)) != NULL; w += n)
        if ((w == words || w[-1] == ' ') && (w[n] == ' ' || w[n] == '\0')) return true;
    return false;
}

static Status take_paths(Arguments *a, const char *pattern) {
    char **found;
    int n;
    CHECK(source_expand(pattern, &found, &n));
    a->paths = mem_grow(a->paths, a->n_paths + n, sizeof *a->paths);
    for (int i = 0; i < n; i++) a->paths[a->n_paths++] = found[i];
    free(found);
    return OK;
}

Status arguments_parse(Arguments *a, const char *command, int argc, char **argv,
                       const char *allowed) {
    *a = (Arguments){.eod = -1, .vocab = INT32_MAX, .seed = 1234};
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            CHECK(take_paths(a, argv[i]));
            continue;
        }
        char name[16] = "";
        size_t len = strcspn(argv[i] + 2, "=");
        if (len < sizeof name) memcpy(name, argv[i] + 2, len);
        const Option *o = NULL;
        for (size_t k = 0; k < sizeof options / sizeof *options; k++)
            if (strcmp(options[k].name, name) == 0 && listed(allowed, name)) o = &options[k];
        if (o == NULL)
            return status_fail(ERR_USER, "%s has no option %s; it has: %s", command, argv[i],
                               allowed);
        const char *value = argv[i][2 + len] == '=' ? argv[i] + 3 + len : NULL;
        if (value == NULL && o->kind != OPT_FLAG && i + 1 < argc) value = argv[++i];
        if ((value == NULL) != (o->kind == OPT_FLAG) || !set(a, o, value))
            return status_fail(ERR_USER, "%s --%s: found '%s', expected %s", command, name,
                               value != NULL ? value : "nothing",
                               o->kind == OPT_FLAG ? "no value" : o->expects);
    }
    if (a->eod >= a->vocab)
        return status_fail(ERR_USER, "%s --eod: found %lld, expected an id below --vocab %lld",
                           command, (long long)a->eod, (long long)a->vocab);
    if (a->n_paths == 0) return status_fail(ERR_USER, "%s: which token files?", command);
    return OK;
}

void arguments_free(Arguments *a) {
    for (int i = 0; i < a->n_paths; i++) free(a->paths[i]);
    free(a->paths);
    *a = (Arguments){0};
}
