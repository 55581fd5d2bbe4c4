/* generate.c: `cria generate`: text from a trained model. */
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/text.h"
#include "cli/commands.h"
#include "session/generator.h"
#include "session/prompt.h"

enum { TOKENS = 128 }; /* where --tokens is not given */

typedef struct {
    const char *prompt, *tokenizer; /* NULL: not given */
    int64_t tokens, seed;
    double temperature, top_p;
    int device; /* DeviceKind */
    bool ids;
} Options;

typedef struct {
    const Options *a;
    Generator generator;
    Tokenizer *tokenizer; /* NULL: --ids */
    TextStream stream;
    TokenIds prompt;
    Generation text;
    int64_t tokens;
} Generate;

/* ---- tokenizer and prompt -------------------------------------------------------------------- */

static Status load_tokenizer(Generate *c) {
    const ModelSource *model = &c->generator.source;
    const char *path = c->a->tokenizer;
    if (path == NULL) path = model->ck == NULL ? model->path : model->config.data.tokenizer;
    if (path[0] == '\0')
        return status_fail(ERR_USER,
                           "%s does not tell its tokenizer (data.tokenizer): name it by "
                           "--tokenizer FILE, or give and take token ids by --ids",
                           model->path);
    Status st = tokenizer_load(&c->tokenizer, path);
    if (st != OK) status_suffix("; --tokenizer names another, --ids needs none");
    return st;
}

static Status read_prompt(Generate *c) {
    const ModelSource *model = &c->generator.source;
    const HfExtra *marks = &model->extra;
    int64_t start = marks->bos >= 0 ? marks->bos : marks->n_eos > 0 ? marks->eos[0] : -1;
    const char *text = c->a->prompt != NULL ? c->a->prompt : "";
    return prompt_read(c->tokenizer, text, start, model->config.model.vocab, &c->prompt);
}

/* Without --tokens as many as there is room for, up to TOKENS. */
static Status fit(Generate *c) {
    const ModelSource *model = &c->generator.source;
    int64_t room = model->extra.max_positions - c->prompt.n, *tokens = &c->tokens;
    *tokens = c->a->tokens > 0 ? c->a->tokens : i64_min(TOKENS, i64_max(room, 1));
    if (*tokens <= room) return OK;
    return status_fail(ERR_USER,
                       "a prompt of %lld tokens and %lld new ones are more than the %lld that %s "
                       "takes (model.seq_len)",
                       (long long)c->prompt.n, (long long)*tokens,
                       (long long)model->extra.max_positions, model->path);
}

/* ---- printing -------------------------------------------------------------------------------- */

/* A terminal is sent no control characters. */
static void print(const char *bytes, size_t n) {
    StrBuf text = {0};
    strbuf_append(&text, bytes, n);
    if (output_is_terminal()) {
        text_make_printable(text.text, true);
        text.len = strlen(text.text);
    }
    output_write(OUTPUT_STDOUT, text.text, text.len);
    strbuf_free(&text);
}

static void print_token(Generate *c, int32_t id) {
    StrBuf text = {0};
    if (c->tokenizer != NULL)
        tokenizer_decode(c->tokenizer, &c->stream, id, &text);
    else
        strbuf_printf(&text, " %d", id);
    if (text.len > 0) print(text.text, text.len);
    strbuf_free(&text);
}

static void print_prompt(const Generate *c) {
    if (c->tokenizer != NULL) {
        if (c->a->prompt != NULL) print(c->a->prompt, strlen(c->a->prompt));
        return;
    }
    for (int64_t i = 0; i < c->prompt.n; i++)
        output_print("%s%d", i > 0 ? " " : "", c->prompt.ids[i]);
}

static void print_end(Generate *c) {
    StrBuf text = {0};
    text_stream_end(&c->stream, &text);
    strbuf_printf(&text, "\n");
    print(text.text, text.len);
    strbuf_free(&text);
}

/* ---- the command ----------------------------------------------------------------------------- */

static Status generate(Generate *c) {
    Generator *g = &c->generator;
    Generation *text = &c->text;
    text->decoder = g->decoder;
    text->stream = g->stream;
    text->ends = g->source.extra.eos;
    text->n_ends = g->source.extra.n_eos;
    generation_begin(text, c->prompt.ids, c->prompt.n);
    Status st = OK;
    int32_t id = 0;
    for (int64_t i = 0; i < c->tokens && st == OK && id >= 0; i++) {
        st = generation_next(text, &id);
        if (st == OK && id >= 0) print_token(c, id);
    }
    generation_end(text);
    return st;
}

static Status run(Generate *c, const char *model) {
    Generator *g = &c->generator;
    CHECK(generator_open(g, model));
    if (!c->a->ids) CHECK(load_tokenizer(c));
    CHECK(read_prompt(c));
    CHECK(fit(c));
    CHECK(generator_start(g, (DeviceKind)c->a->device, c->prompt.n + c->tokens));
    print_prompt(c);
    Status st = generate(c);
    print_end(c);
    return st;
}

static Status generate_text(const Args *args) {
    Options *a = args->options;
    if (!args_given(args, offsetof(Options, temperature))) a->temperature = 0.8;
    if (!args_given(args, offsetof(Options, top_p))) a->top_p = 0.95;
    Generate c = {.a = a,
                  .text.sample = {
                      .temperature = a->temperature, .top_p = a->top_p, .seed = (uint64_t)a->seed}};
    Status st = run(&c, args->paths[0]);
    generator_close(&c.generator);
    tokenizer_free(c.tokenizer);
    free(c.prompt.ids);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("prompt", TEXT, Options, prompt, "TEXT",
               "What the text begins with. [the token that begins a text]",
               .when_empty = "without --prompt the model begins by itself"),
    ARG_OPTION("tokens", INTEGER, Options, tokens, "N",
               "The most tokens to add. [128, or what the model's length leaves]", .min = 1,
               .max = INT32_MAX),
    ARG_OPTION("temperature", NUMBER, Options, temperature, "T",
               "0 takes the likeliest token; larger ones vary more. [0.8]", .max = 1000),
    ARG_OPTION("top-p", NUMBER, Options, top_p, "P",
               "Draw from the likeliest tokens that have this probability together. [0.95]",
               .max = 1),
    ARG_OPTION("seed", INTEGER, Options, seed, "N", "Of the draws. [0]", .max = INT64_MAX),
    ARG_OPTION("tokenizer", TEXT, Options, tokenizer, "FILE",
               "A tokenizer.json. [the directory's own, or data.tokenizer of the run]"),
    ARG_OPTION("ids", FLAG, Options, ids, NULL,
               "The prompt and what is printed are token ids; needs no tokenizer."),
    ARG_OPTION("device", NAME, Options, device, "NAME", "One of auto, cpu and cuda. [auto]",
               .names = device_names),
    {.name = NULL}};
const Command command_generate = {
    .name = "generate",
    .summary = "Print text from a trained model.",
    .arguments = "CHECKPOINT|DIR",
    .details =
        "Prints the prompt and, token by token, what follows. The model is a checkpoint, the "
        "newest one of a run.dir, or a Hugging Face directory.",
    COMMAND_OPTIONS(options, Options),
    COMMAND_PATHS(1, 1),
    .run = generate_text};
