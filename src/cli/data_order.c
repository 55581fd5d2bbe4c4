/* data_order.c: `cria data order`: which samples a step of a configuration trains on, and where
 * their tokens are. Needs the token files, no MPI and no device. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "cli/commands.h"
#include "train/eval.h"
#include "session/run_data.h"

typedef struct {
    const char *step; /* "N" or "N:M", both included, as log.jsonl counts them; NULL: 1 */
    bool eval, json;
} OrderOptions;

/* Digits, without sign or space; *end is what follows. */
static bool parse_step(const char *text, const char **end, int64_t *step) {
    errno = 0;
    *step = strtoll(text, (char **)(uintptr_t)end, 10);
    return *text >= '0' && *text <= '9' && errno == 0;
}

/* "N" or "N:M" from `least` to `most`. */
static Status parse_range(const char *text, int64_t least, int64_t most, int64_t *first,
                          int64_t *last) {
    const char *end = text;
    bool valid = parse_step(text, &end, first);
    *last = *first;
    if (valid && *end == ':') valid = parse_step(end + 1, &end, last);
    if (!valid || *end != '\0')
        return status_fail(ERR_USER, "--step %s: expected a step N or steps N:M", text);
    if (*first < least || *last > most || *first > *last)
        return status_fail(ERR_USER, "--step %s: expected steps from %lld to run.steps %lld", text,
                           (long long)least, (long long)most);
    return OK;
}

/* By the index of its file, if there is one: the document in which a piece begins, and how far in.
 */
static bool find_document(const SamplePiece *p, int64_t *document, int64_t *offset) {
    const MegatronIndex *x = tokens_index(p->file);
    if (x == NULL) return false;
    *document = megatron_document_from(x, p->begin + 1) - 1;
    *offset = p->begin - megatron_document_start(x, *document);
    return true;
}

static void print_piece_json(const SamplePiece *p, StrBuf *out) {
    int64_t document, offset;
    strbuf_printf(out, "{\"file\":");
    strbuf_json_string(out, tokens_path(p->file));
    strbuf_printf(out, ",\"begin\":%lld,\"tokens\":%lld", (long long)p->begin,
                  (long long)p->tokens);
    if (find_document(p, &document, &offset))
        strbuf_printf(out, ",\"document\":%lld,\"offset\":%lld", (long long)document,
                      (long long)offset);
    strbuf_printf(out, "}");
}

static void print_piece(const SamplePiece *p, int64_t step, int64_t sample, StrBuf *out) {
    int64_t document, offset;
    strbuf_printf(out, "%8lld %10lld %13lld %8lld ", (long long)step, (long long)sample,
                  (long long)p->begin, (long long)p->tokens);
    if (find_document(p, &document, &offset))
        strbuf_printf(out, "%10lld %9lld", (long long)document, (long long)offset);
    else
        strbuf_printf(out, "%10s %9s", "-", "-");
    char *path = mem_printable(tokens_path(p->file));
    strbuf_printf(out, "  %s\n", path);
    free(path);
}

/* set NULL: one without a name. */
static void print_sample(const Dataset *data, const char *set, int64_t step, int64_t sample,
                         bool json) {
    StrBuf text = {0};
    SamplePiece *pieces;
    int64_t n = dataset_sample_pieces(data, sample, &pieces);
    if (json)
        strbuf_printf(&text, "{\"step\":%lld,%s%s%s\"sample\":%lld,\"pieces\":[", (long long)step,
                      set != NULL ? "\"set\":\"" : "", set != NULL ? set : "",
                      set != NULL ? "\"," : "", (long long)sample);
    for (int64_t i = 0; i < n; i++) {
        if (json && i > 0) strbuf_printf(&text, ",");
        if (json)
            print_piece_json(&pieces[i], &text);
        else
            print_piece(&pieces[i], step, sample, &text);
    }
    if (json) strbuf_printf(&text, "]}\n");
    output_write(OUTPUT_STDOUT, strbuf_text(&text), text.len);
    strbuf_free(&text);
    free(pieces);
}

/* Of the evaluation after `step`. */
static void print_eval(const StageData *stage, int64_t step, bool json) {
    for (int k = 0; k < stage->val.n; k++) {
        const ValSet *set = &stage->val.sets[k];
        int64_t begin, n;
        eval_samples(stage->config, set->data, step, &begin, &n);
        for (int64_t i = 0; i < n; i++) print_sample(set->data, set->name, step, begin + i, json);
    }
}

static Status print_steps(const Config *c, const OrderOptions *o, const RunData *data) {
    int64_t first, last, found = 0;
    CHECK(
        parse_range(o->step != NULL ? o->step : "1", o->eval ? 0 : 1, c->run.steps, &first, &last));
    if (o->eval && data->stages[0].val.n == 0)
        return status_fail(ERR_USER, "this configuration makes no evaluations: data.val, or the "
                                     "second share of data.split, and run.eval_every make some");
    if (!o->json)
        output_print("%8s %10s %13s %8s %10s %9s  %s\n", "step", "sample", "begin", "tokens",
                     "document", "offset", "file");
    for (int64_t step = first; step <= last; step++) {
        int k = config_stage_at(c, step);
        const StageData *stage = &data->stages[k];
        if (o->eval && !eval_due(c, step)) continue;
        if (o->eval) print_eval(stage, step, o->json);
        int64_t begin = o->eval ? 0 : run_data_sample(data, c, k, step - 1);
        for (int64_t i = 0; i < stage->config->batch.global && !o->eval; i++)
            print_sample(stage->train, NULL, step, begin + i, o->json);
        found++;
    }
    if (found > 0) return OK;
    return status_fail(ERR_USER,
                       "--step %s: there is no evaluation; they are at step 0, multiples of "
                       "run.eval_every %lld and the last step",
                       o->step, (long long)c->run.eval_every);
}

static Status order(const Args *a) {
    Config config = {0};
    RunData data = {0};
    Status st = config_load(&config, a->paths[0], a->n_overrides, a->overrides);
    if (st == OK) st = run_data_open(&config, &data);
    if (st == OK) st = print_steps(&config, a->options, &data);
    run_data_close(&data);
    config_free(&config);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("step", TEXT, OrderOptions, step, "N[:M]",
               "The steps, as log.jsonl counts them. [1]"),
    ARG_OPTION("eval", FLAG, OrderOptions, eval, NULL,
               "The samples of the evaluation after each step instead."),
    ARG_OPTION("json", FLAG, OrderOptions, json, NULL,
               "Print a JSON object a line for each sample; data/README.md says which."),
    {.name = NULL}};
const Command command_data_order = {
    .name = "data order",
    .summary = "Print the samples that steps train on: file, token, document.",
    .arguments = "CONFIG [key=value ...]",
    .details =
        "Prints a line for each piece of each sample of a step: step, number of the sample, "
        "its first token in the file, tokens, and, where the file has an index, the document "
        "and how far in it the piece begins.",
    COMMAND_OPTIONS(options, OrderOptions),
    COMMAND_PATHS(1, 1),
    .overrides = true,
    .run = order};
