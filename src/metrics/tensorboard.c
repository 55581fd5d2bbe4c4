/* TensorBoard event files without its library, with the tags that Megatron-LM uses where it has
 * them (FIELDS.md lists all). Records are framed as TFRecord (length, masked CRC-32C of the length,
 * data, masked CRC-32C of the data), each holds one protobuf Event:
 *
 *     Event      { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary,
 *                  7: SessionLog }
 *     Summary    { 1: repeated Value }
 *     Value      { 1: string tag, 2: float simple_value, 8: Tensor, 9: Metadata }
 *     Tensor     { 1: enum type, 2: Shape, 8: repeated bytes }    STRING = 7
 *     Shape      { 2: repeated { 1: int64 size } }    Metadata { 1: { 1: string plugin } }
 *     SessionLog { 1: enum status }       START = 1 */
#include <math.h>
#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "metrics/log_file.h"
#include "metrics/sink.h"

typedef struct {
    Sink sink;
    LogFile file;
    /* Losses over tokens instead of steps. A START event hides events of any tag by their step, so
     * that these have a file, and for TensorBoard a run, of their own. */
    LogFile by_tokens;
    double tokens; /* of the last step record; 0: none yet */
} TensorboardSink;

static uint32_t masked_crc32c(const void *data, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= ((const unsigned char *)data)[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_varint(StrBuf *b, uint64_t x) {
    do {
        char byte = (char)((x & 127) | (x > 127 ? 128 : 0));
        strbuf_append(b, &byte, 1);
        x >>= 7;
    } while (x != 0);
}

static void put_bytes(StrBuf *b, int field, const char *data, size_t n) {
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, n);
    strbuf_append(b, data, n);
}

/* An Event with one of its fields of bytes. */
enum { VERSION = 3, SUMMARY = 5, SESSION_LOG = 7 };

static void write_event(LogFile *f, int64_t step, int field, const char *data, size_t n_data) {
    StrBuf event = {0}, record = {0};
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    double wall = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    put_varint(&event, 1 << 3 | 1);
    strbuf_append(&event, (const char *)&wall, sizeof wall);
    put_varint(&event, 2 << 3 | 0);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, field, data, n_data);
    uint64_t n = event.len;
    uint32_t crc_n = masked_crc32c(&n, sizeof n), crc = masked_crc32c(event.text, event.len);
    strbuf_append(&record, (const char *)&n, sizeof n);
    strbuf_append(&record, (const char *)&crc_n, sizeof crc_n);
    strbuf_append(&record, event.text, event.len);
    strbuf_append(&record, (const char *)&crc, sizeof crc);
    log_file_append(f, record.text, record.len);
    strbuf_free(&event);
    strbuf_free(&record);
}

static void put_scalar(StrBuf *summary, const char *tag, double value) {
    StrBuf v = {0};
    float x = (float)value;
    put_bytes(&v, 1, tag, strlen(tag));
    put_varint(&v, 2 << 3 | 5);
    strbuf_append(&v, (const char *)&x, sizeof x);
    put_bytes(summary, 1, v.text, v.len);
    strbuf_free(&v);
}

/* As its plugin "text" takes one: a tensor of one string. */
static void put_text(StrBuf *summary, const char *tag, const char *text) {
    static const char type_and_shape[] = {1 << 3 | 0, 7, 2 << 3 | 2, 4,
                                          2 << 3 | 2, 2, 1 << 3 | 0, 1};
    static const char metadata[] = {1 << 3 | 2, 6, 1 << 3 | 2, 4, 't', 'e', 'x', 't'};
    StrBuf tensor = {0}, v = {0};
    strbuf_append(&tensor, type_and_shape, sizeof type_and_shape);
    put_bytes(&tensor, 8, text, strlen(text));
    put_bytes(&v, 1, tag, strlen(tag));
    put_bytes(&v, 8, tensor.text, tensor.len);
    put_bytes(&v, 9, metadata, sizeof metadata);
    put_bytes(summary, 1, v.text, v.len);
    strbuf_free(&tensor);
    strbuf_free(&v);
}

static void write_summary(Sink *s, int64_t step, StrBuf *summary) {
    write_event(&((TensorboardSink *)s)->file, step, SUMMARY, summary->text, summary->len);
    strbuf_free(summary);
}

/* TensorBoard hides what earlier files hold of the step of a START event and of later ones. */
static void write_start(LogFile *f, int64_t step) {
    static const char start[] = {1 << 3 | 0, 1};
    write_event(f, step, SESSION_LOG, start, sizeof start);
}

static void write_over_tokens(TensorboardSink *t, StrBuf *summary) {
    write_event(&t->by_tokens, (int64_t)t->tokens, SUMMARY, summary->text, summary->len);
    strbuf_free(summary);
}

static void put_fp8(StrBuf *b, const Fp8Record *r) {
    for (int k = 0; k < LINEAR_KINDS; k++)
        for (int o = 0; o < OPERAND_KINDS; o++) {
            const Fp8Shares *f = &r->of[k][o];
            const double values[] = {f->absmax, f->zeros, f->saturated};
            static const char *const names[] = {"absmax", "zeros", "saturated"};
            for (int i = 0; i < 3 && f->used; i++) {
                char tag[64];
                snprintf(tag, sizeof tag, "fp8-%s/%s-%s", names[i], linear_kind_names[k],
                         operand_kind_names[o]);
                put_scalar(b, tag, values[i]);
            }
        }
}

static void tensorboard_step(Sink *s, const StepRecord *r) {
    StrBuf b = {0};
    put_scalar(&b, "lm loss", r->loss);
    put_scalar(&b, "grad-norm", r->grad_norm);
    put_scalar(&b, "learning-rate", r->lr);
    put_scalar(&b, "iteration-time", r->ms / 1000);
    put_scalar(&b, "throughput", r->tflops_gpu);
    put_scalar(&b, "tokens-per-second", r->tok_s);
    if (r->mfu > 0) put_scalar(&b, "mfu", r->mfu);
    put_scalar(&b, "memory-gib", r->mem_gib);
    put_scalar(&b, "tokens", r->tokens);
    if (r->has_z_loss) put_scalar(&b, "z-loss", r->z_loss);
    for (int k = 0; k < PARAM_CLASSES && r->has_grad_norms; k++) {
        char *tag = mem_printf("grad-norm/%s", param_class_names[k]);
        put_scalar(&b, tag, r->grad_norms[k]);
        free(tag);
    }
    for (int p = 0; p < PHASES && r->phases != NULL; p++) {
        char tag[64];
        snprintf(tag, sizeof tag, "phase/%s-median", phase_names[p]);
        put_scalar(&b, tag, r->phases[p].median);
        snprintf(tag, sizeof tag, "phase/%s-max", phase_names[p]);
        put_scalar(&b, tag, r->phases[p].max);
    }
    if (r->fp8 != NULL) put_fp8(&b, r->fp8);
    write_summary(s, r->step, &b);
    TensorboardSink *t = (TensorboardSink *)s;
    if (t->tokens == 0) write_start(&t->by_tokens, (int64_t)r->tokens);
    t->tokens = r->tokens;
    put_scalar(&b, "lm loss vs tokens", r->loss);
    write_over_tokens(t, &b);
}

/* TAG, or TAG/SET. */
static void put_scalar_of(StrBuf *summary, const char *tag, const char *set, double value) {
    char *name = mem_printf("%s%s%s", tag, set != NULL ? "/" : "", set != NULL ? set : "");
    if (!isnan(value)) put_scalar(summary, name, value);
    free(name);
}

static void put_eval(StrBuf *b, const EvalNumbers *n) {
    put_scalar_of(b, "lm loss validation", n->name, n->loss);
    put_scalar_of(b, "lm loss validation ppl", n->name, exp(n->loss));
    put_scalar_of(b, "bits per byte validation", n->name, n->bits_per_byte);
}

static void tensorboard_eval(Sink *s, const EvalRecord *r) {
    TensorboardSink *t = (TensorboardSink *)s;
    StrBuf b = {0};
    put_eval(&b, &r->all);
    for (int i = 0; i < r->n_sets; i++) put_eval(&b, &r->sets[i]);
    write_summary(s, r->step, &b);
    if (t->tokens == 0) return; /* before the first step */
    put_scalar(&b, "lm loss validation vs tokens", r->all.loss);
    write_over_tokens(t, &b);
}

static void tensorboard_sample(Sink *s, const SampleRecord *r) {
    StrBuf b = {0};
    char *text = mem_printf("%s%s", r->prompt, r->text);
    put_text(&b, "sample", text);
    write_summary(s, r->step, &b);
    free(text);
}

/* At the last step before it, as in log.jsonl: it says what the curves do from there on. */
static void tensorboard_stage(Sink *s, const StageRecord *r) {
    StrBuf b = {0};
    char *text = mem_printf("%s begins after step %lld and %.0f tokens: %s", r->stage,
                            (long long)r->step, r->tokens, r->changes);
    put_text(&b, "stage", text);
    write_summary(s, r->step, &b);
    free(text);
}

static void tensorboard_free(Sink *s) {
    log_file_close(&((TensorboardSink *)s)->file);
    log_file_close(&((TensorboardSink *)s)->by_tokens);
    free(s);
}

static Status open_events(LogFile *f, const char *folder) {
    char host[128] = "host";
    gethostname(host, sizeof host - 1);
    char *path = mem_printf("%s/events.out.tfevents.%lld.%s.%d", folder, (long long)time(NULL),
                            host, (int)getpid());
    Status st = log_file_open(f, path);
    free(path);
    CHECK(st);
    static const char version[] = "brain.Event:2";
    write_event(f, 0, VERSION, version, strlen(version));
    return OK;
}

Status sink_tensorboard_open(Sink **s, const SinkRun *run) {
    const char *dir = run->config->run.dir;
    LogFile file, by_tokens;
    CHECK(open_events(&file, dir));
    char *folder = mem_printf("%s/by-tokens", dir);
    Status st = mkdir(folder, 0777) == 0 || errno == EEXIST
                    ? open_events(&by_tokens, folder)
                    : status_fail(ERR_ENV, "cannot make %s: %s", folder, strerror(errno));
    free(folder);
    if (st != OK) {
        log_file_close(&file);
        return st;
    }
    TensorboardSink *t = NEW(TensorboardSink, 1);
    t->sink = (Sink){.step = tensorboard_step,
                     .stage = tensorboard_stage,
                     .eval = tensorboard_eval,
                     .sample = tensorboard_sample,
                     .free = tensorboard_free};
    t->file = file;
    t->by_tokens = by_tokens;
    write_start(&t->file, run->step + 1);
    *s = &t->sink;
    return OK;
}
