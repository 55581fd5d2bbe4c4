#include "cli/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/text.h"
#include "session/generator.h"
#include "session/prompt.h"

enum { TOKENS = 128 }; /* where --tokens is not given */

typedef struct {
    const GenerateArguments *a;
    Generator generator;
    Tokenizer *tokenizer; /* NULL: --ids */
    TextStream stream;
    DeviceKind device;
    TokenIds prompt;
    Generation text;
    int64_t tokens;
} Command;

/* ---- arguments ------------------------------------------------------------------------------- */

static Status parse_number(const char *name, const char *text, double least, double most,
                           double *out) {
    char *end;
    if (text == NULL) return OK;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most))
        return status_fail(ERR_USER, "%s %s: expected a number from %.15g to %.15g", name, text,
                           least, most);
    *out = value;
    return OK;
}

static Status parse_integer(const char *name, const char *text, int64_t least, int64_t most,
                            int64_t *out) {
    char *end;
    if (text == NULL) return OK;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || value < least || value > most)
        return status_fail(ERR_USER, "%s %s: expected an integer from %lld to %lld", name, text,
                           (long long)least, (long long)most);
    *out = value;
    return OK;
}

static Status parse_device(const char *text, DeviceKind *out) {
    if (text == NULL) return OK;
    for (DeviceKind d = DEVICE_AUTO; d <= DEVICE_CUDA; d++) {
        *out = d;
        if (strcmp(text, config_enum_name((int)d, "device")) == 0) return OK;
    }
    return status_fail(ERR_USER, "--device %s: expected auto, cpu or cuda", text);
}

static Status parse(Command *c) {
    const GenerateArguments *a = c->a;
    int64_t seed = 0;
    SampleOptions *sample = &c->text.sample;
    *sample = (SampleOptions){.temperature = 0.8, .top_p = 0.95};
    c->tokens = TOKENS;
    CHECK(parse_number("--temperature", a->temperature, 0, 1e3, &sample->temperature));
    CHECK(parse_number("--top-p", a->top_p, 0, 1, &sample->top_p));
    CHECK(parse_integer("--seed", a->seed, 0, INT64_MAX, &seed));
    CHECK(parse_integer("--tokens", a->tokens, 1, INT32_MAX, &c->tokens));
    sample->seed = (uint64_t)seed;
    return parse_device(a->device, &c->device);
}

/* ---- tokenizer and prompt -------------------------------------------------------------------- */

static Status load_tokenizer(Command *c) {
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

static Status read_prompt(Command *c) {
    const ModelSource *model = &c->generator.source;
    const HfExtra *marks = &model->extra;
    int64_t start = marks->bos >= 0 ? marks->bos : marks->n_eos > 0 ? marks->eos[0] : -1;
    const char *text = c->a->prompt != NULL ? c->a->prompt : "";
    return prompt_read(c->tokenizer, text, start, model->config.model.vocab, &c->prompt);
}

/* Without --tokens as many as there is room for, up to TOKENS. */
static Status fit(Command *c) {
    const ModelSource *model = &c->generator.source;
    int64_t room = model->extra.max_positions - c->prompt.n, *tokens = &c->tokens;
    if (c->a->tokens == NULL) *tokens = i64_min(*tokens, i64_max(room, 1));
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

static void print_token(Command *c, int32_t id) {
    StrBuf text = {0};
    if (c->tokenizer != NULL)
        tokenizer_decode(c->tokenizer, &c->stream, id, &text);
    else
        strbuf_printf(&text, " %d", id);
    if (text.len > 0) print(text.text, text.len);
    strbuf_free(&text);
}

static void print_prompt(const Command *c) {
    if (c->tokenizer != NULL) {
        if (c->a->prompt != NULL) print(c->a->prompt, strlen(c->a->prompt));
        return;
    }
    for (int64_t i = 0; i < c->prompt.n; i++)
        output_print("%s%d", i > 0 ? " " : "", c->prompt.ids[i]);
}

static void print_end(Command *c) {
    StrBuf text = {0};
    text_stream_end(&c->stream, &text);
    strbuf_printf(&text, "\n");
    print(text.text, text.len);
    strbuf_free(&text);
}

/* ---- the command ----------------------------------------------------------------------------- */

static Status generate(Command *c) {
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

static Status run(Command *c) {
    Generator *g = &c->generator;
    CHECK(parse(c));
    CHECK(generator_open(g, c->a->model));
    if (!c->a->ids) CHECK(load_tokenizer(c));
    CHECK(read_prompt(c));
    CHECK(fit(c));
    CHECK(generator_start(g, c->device, c->prompt.n + c->tokens));
    print_prompt(c);
    Status st = generate(c);
    print_end(c);
    return st;
}

Status generate_command_run(const GenerateArguments *a) {
    Command c = {.a = a};
    Status st = run(&c);
    generator_close(&c.generator);
    tokenizer_free(c.tokenizer);
    free(c.prompt.ids);
    return st;
}
