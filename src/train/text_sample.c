#include "train/text_sample.h"

#include <stdlib.h>

#include "base/progress.h"
#include "model/generate.h"

static Status open_on_first(TextSampler *t, const Session *s) {
    const Config *c = s->config;
    CHECK(tokenizer_load(&t->tokenizer, c->data.tokenizer));
    Status st =
        prompt_read(t->tokenizer, c->run.sample_prompt, c->data.eod, c->model.vocab, &t->prompt);
    if (st == OK && t->prompt.n >= c->model.seq_len)
        st = status_fail(ERR_USER, "it has %lld tokens, expected fewer than model.seq_len %lld",
                         (long long)t->prompt.n, (long long)c->model.seq_len);
    if (st != OK) status_prefix("run.sample_prompt");
    return st;
}

Status text_sampler_open(TextSampler *t, const Session *s) {
    if (s->decoder == NULL) return OK;
    return comm_agree(s->comm.host, s->rank == 0 ? open_on_first(t, s) : OK);
}

/* Nothing once the text is at its end. */
static Status next_token(const TextSampler *t, Generation *text, TextStream *stream, int32_t *id,
                         StrBuf *out) {
    if (*id < 0) return OK;
    CHECK(generation_next(text, id));
    if (*id >= 0) tokenizer_decode(t->tokenizer, stream, *id, out);
    return OK;
}

/* Ranks agree on every token, so that no watchdog takes one that waits for stuck. */
Status text_sampler_run(TextSampler *t, Session *s, int64_t step, Sink *sink) {
    const Config *c = s->config;
    bool first = s->rank == 0;
    SampleRecord record = {.step = step, .prompt = c->run.sample_prompt};
    StrBuf out = {0};
    TextStream stream = {0};
    Generation text = {.decoder = s->decoder,
                       .stream = s->stream,
                       .sample = {.temperature = 0.8,
                                  .top_p = 0.95,
                                  .seed = (uint64_t)c->run.seed,
                                  .run = (uint64_t)step},
                       .ends = &c->data.eod,
                       .n_ends = c->data.eod >= 0};
    int64_t most = i64_min(c->run.sample_tokens, c->model.seq_len - t->prompt.n);
    int32_t id = first ? 0 : -1;
    Status st = OK;
    if (first) generation_begin(&text, t->prompt.ids, t->prompt.n);
    for (int64_t i = 0; i < c->run.sample_tokens && st == OK; i++) {
        progress_beat(step, "generating a text");
        st = comm_agree(s->comm.host, i < most ? next_token(t, &text, &stream, &id, &out) : OK);
        record.tokens += i < most && id >= 0;
    }
    text_stream_end(&stream, &out);
    record.text = strbuf_text(&out);
    if (st == OK) sink->sample(sink, &record);
    generation_end(&text);
    strbuf_free(&out);
    return st;
}

void text_sampler_close(TextSampler *t) {
    tokenizer_free(t->tokenizer);
    free(t->prompt.ids);
}
