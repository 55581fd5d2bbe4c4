#include "report/run_report.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "model/flops.h"

/* Forward and backward, for the mask without documents. */
static double flops_per_token(const Session *s) {
    int64_t T = s->config->model.seq_len;
    Mask mask;
    REQUIRE(mask_build(&mask, &s->cp_options.mask, T, T, &(int32_t){0}, 1) == OK);
    double area = (double)mask_area(&mask);
    mask_free(&mask);
    return flops_train(&s->config->model, s->table, 1, area / (double)T);
}

static double epochs(const Session *s) {
    return (double)s->config->batch.global * (double)config_steps(s->config) /
           (double)dataset_epoch_samples(s->train_data);
}

static void describe_data(const Session *s, StrBuf *out) {
    int n = s->config->data.n_train;
    if (s->train_data == NULL) return;
    strbuf_printf(
        out,
        "data       %s training tokens in %d file%s, %" PRId64 " samples of %" PRId64 " an epoch\n",
        number_text((double)dataset_tokens(s->train_data), " ").text, n, n == 1 ? "" : "s",
        dataset_epoch_samples(s->train_data), s->config->model.seq_len);
    if (s->config->data.n_val > 0 && s->config->run.eval_every == 0)
        strbuf_printf(out, "           data.val is not used: run.eval_every is 0, never\n");
}

static void describe_world(const Session *s, StrBuf *out) {
    int cp = s->config->parallel.cp;
    strbuf_printf(out, "world      %d rank%s on %s = dp %d x cp %d (%s)\n", s->world,
                  s->world == 1 ? "" : "s", s->ops->device_name, s->dp, cp,
                  config_enum_name((int)s->config->parallel.backend, "parallel.backend"));
    for (int d = 0; d < s->dp && d < 8; d++)
        strbuf_printf(out, "           dp %d: rank%s %d%s%d\n", d, cp == 1 ? "" : "s", d * cp,
                      cp == 1 ? " = cp " : " .. ", cp == 1 ? 0 : (d + 1) * cp - 1);
    if (s->dp > 8) strbuf_printf(out, "           and so on to dp %d\n", s->dp - 1);
}

static void describe_batch(const Session *s, StrBuf *out) {
    const Config *c = s->config;
    strbuf_printf(out,
                  "batch      %" PRId64 " sequences = %" PRId64 " micro-batches x %" PRId64
                  " sequences x dp %d;\n           %.0f tokens a step, %s in %" PRId64 " steps",
                  c->batch.global, s->micro_steps, c->batch.micro, s->dp, s->step_tokens,
                  number_text(s->step_tokens * (double)config_steps(c), " ").text, config_steps(c));
    if (s->train_data != NULL) strbuf_printf(out, " (%.2f epochs)", epochs(s));
    strbuf_printf(out, "\n");
}

void session_describe(const Session *s, StrBuf *out) {
    const ModelConfig *m = &s->config->model;
    strbuf_printf(out,
                  "model      %s parameters: %d layers, hidden %d, %d/%d heads of %d, ffn %d,\n"
                  "           vocab %d (%d in memory)%s\n",
                  number_text((double)s->table->n_weights, " ").text, m->layers, m->hidden,
                  m->heads, m->kv_heads, m->head_dim, m->ffn, m->vocab, s->table->vocab_padded,
                  m->tie_embeddings ? ", tied" : "");
    describe_data(s, out);
    describe_world(s, out);
    describe_batch(s, out);
    strbuf_printf(
        out, "flops      %.4g G a token, forward and backward%s\n", flops_per_token(s) / 1e9,
        s->config->data.mask == MASK_DOCUMENT ? " (at most: documents make it less)" : "");
    arena_print(&s->arena, out);
}

static void memory_json(const Session *s, StrBuf *out) {
    const Arena *a = &s->arena;
    strbuf_printf(out, "\"memory\":{\"bytes_per_rank\":%" PRId64 ",\"act_bytes\":%d,\"regions\":[",
                  a->bytes, s->ops->act_bytes);
    const char *comma = "";
    for (int i = 0; i < a->n; i++) {
        bool first = true; /* buffer of its region */
        for (int j = 0; j < i; j++)
            first = first && strcmp(a->buffers[j].region, a->buffers[i].region) != 0;
        if (!first) continue;
        strbuf_printf(out, "%s{\"name\":\"%s\",\"bytes\":%" PRId64 "}", comma, a->buffers[i].region,
                      arena_region_bytes(a, a->buffers[i].region));
        comma = ",";
    }
    strbuf_printf(out, "]}");
}

void session_describe_json(const Session *s, StrBuf *out) {
    const Config *c = s->config;
    const ModelConfig *m = &c->model;
    strbuf_printf(out,
                  "\"model\":{\"parameters\":%" PRId64 ",\"layers\":%d,\"hidden\":%d,"
                  "\"heads\":%d,\"kv_heads\":%d,\"head_dim\":%d,\"ffn\":%d,\"vocab\":%d,"
                  "\"vocab_padded\":%d,\"tie_embeddings\":%s},",
                  s->table->n_weights, m->layers, m->hidden, m->heads, m->kv_heads, m->head_dim,
                  m->ffn, m->vocab, s->table->vocab_padded, m->tie_embeddings ? "true" : "false");
    if (s->train_data != NULL)
        strbuf_printf(out, "\"data\":{\"tokens\":%" PRId64 ",\"epoch_samples\":%" PRId64 "},",
                      dataset_tokens(s->train_data), dataset_epoch_samples(s->train_data));
    else
        strbuf_printf(out, "\"data\":null,");
    strbuf_printf(out, "\"world\":{\"ranks\":%d,\"dp\":%d,\"cp\":%d,\"device\":\"%s\"},", s->world,
                  s->dp, c->parallel.cp, s->ops->name);
    strbuf_printf(out,
                  "\"batch\":{\"global\":%" PRId64 ",\"micro\":%" PRId64 ",\"micro_steps\":%" PRId64
                  ",\"seq_len\":%" PRId64 ",\"tokens\":%.0f,\"steps\":%" PRId64 ",\"epochs\":",
                  c->batch.global, c->batch.micro, s->micro_steps, m->seq_len, s->step_tokens,
                  config_steps(c));
    if (s->train_data != NULL)
        strbuf_printf(out, "%.6g},", epochs(s));
    else
        strbuf_printf(out, "null},");
    strbuf_printf(out, "\"flops_per_token\":%.17g,", flops_per_token(s));
    memory_json(s, out);
}
