/* log.jsonl: one object a line, appended at once. After a resume a step may appear twice; readers
 * let the later line win. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics/log_file.h"
#include "metrics/sink.h"

typedef struct {
    Sink sink;
    LogFile file;
} JsonlSink;

/* {"kind":KIND,"step":STEP */
static StrBuf begin(const char *kind, int64_t step) {
    StrBuf line = {0};
    strbuf_printf(&line, "{\"kind\":\"%s\",\"step\":%lld", kind, (long long)step);
    return line;
}

static void text(StrBuf *b, const char *key, const char *value) {
    strbuf_printf(b, ",\"%s\":", key);
    strbuf_json_string(b, value);
}

static void end(Sink *s, StrBuf *line) {
    strbuf_append(line, "}\n", 2);
    log_file_append(&((JsonlSink *)s)->file, line->text, line->len);
    strbuf_free(line);
}

/* After a kill the last line may be cut: what follows starts a new one. */
static bool ends_in_a_line(const char *path) {
    FILE *f = fopen(path, "r");
    if (f == NULL) return true; /* not there yet */
    bool cut = fseek(f, -1, SEEK_END) == 0 && fgetc(f) != '\n';
    fclose(f);
    return !cut;
}

/* JSON has no NaN or infinity. */
static void value(StrBuf *b, double x, int digits) {
    if (isfinite(x))
        strbuf_printf(b, "%.*g", digits, x);
    else
        strbuf_printf(b, "null");
}

static void number(StrBuf *b, const char *key, double x, int digits) {
    strbuf_printf(b, ",\"%s\":", key);
    value(b, x, digits);
}

static void phases(StrBuf *b, const PhaseSpread *of) {
    strbuf_printf(b, ",\"phase_ms\":{");
    for (int p = 0; p < PHASES; p++)
        strbuf_printf(b, "%s\"%s\":{\"min\":%.5g,\"median\":%.5g,\"max\":%.5g,\"rank\":%d}",
                      p > 0 ? "," : "", phase_names[p], of[p].min, of[p].median, of[p].max,
                      of[p].rank);
    strbuf_printf(b, "}");
}

/* {"qkv":{"input":{"saturated":S,"absmax":A,"zeros":Z},"weight":...},...}: what is in FP8 */
static void fp8_shares(StrBuf *b, const Fp8Record *r) {
    const char *before_kind = "";
    strbuf_printf(b, ",\"fp8\":{");
    for (int k = 0; k < LINEAR_KINDS; k++) {
        if (!r->of[k][OPERAND_INPUT].used) continue;
        strbuf_printf(b, "%s\"%s\":{", before_kind, linear_kind_names[k]);
        for (int o = 0; o < OPERAND_KINDS; o++) {
            const Fp8Shares *f = &r->of[k][o];
            strbuf_printf(b, "%s\"%s\":{\"saturated\":%.6g", o > 0 ? "," : "",
                          operand_kind_names[o], f->saturated);
            number(b, "absmax", f->absmax, 6);
            number(b, "zeros", f->zeros, 6);
            strbuf_printf(b, "}");
        }
        strbuf_printf(b, "}");
        before_kind = ",";
    }
    strbuf_printf(b, "}");
}

static void jsonl_step(Sink *s, const StepRecord *r) {
    StrBuf b = begin("step", r->step);
    number(&b, "loss", r->loss, 17);
    if (r->has_z_loss) number(&b, "z_loss", r->z_loss, 17);
    number(&b, "grad_norm", r->grad_norm, 17);
    number(&b, "lr", r->lr, 9);
    number(&b, "tokens", r->tokens, 17);
    number(&b, "ms", r->ms, 6);
    number(&b, "tok_s", r->tok_s, 7);
    number(&b, "tok_s_gpu", r->tok_s_gpu, 7);
    number(&b, "tflops_gpu", r->tflops_gpu, 6);
    number(&b, "mfu", r->mfu > 0 ? r->mfu : NAN, 5);
    number(&b, "mem_gib", r->mem_gib, 5);
    number(&b, "data_ms", r->data_ms, 4);
    strbuf_printf(&b, ",\"comm_bytes\":{");
    for (int k = 0; k < COMM_KINDS; k++)
        strbuf_printf(&b, "%s\"%s\":%lld", k > 0 ? "," : "", comm_kind_names[k],
                      (long long)r->comm_bytes[k]);
    strbuf_printf(&b, "}");
    if (r->phases != NULL) phases(&b, r->phases);
    if (r->has_grad_norms) {
        strbuf_printf(&b, ",\"grad_norms\":{\"%s\":", param_class_names[0]);
        for (int k = 0; k < PARAM_CLASSES; k++) {
            if (k > 0) strbuf_printf(&b, ",\"%s\":", param_class_names[k]);
            value(&b, r->grad_norms[k], 17);
        }
        strbuf_printf(&b, "}");
    }
    if (r->has_crc) strbuf_printf(&b, ",\"weights_crc\":\"%08x\"", r->weights_crc);
    if (r->fp8 != NULL) fp8_shares(&b, r->fp8);
    end(s, &b);
}

static void jsonl_stage(Sink *s, const StageRecord *r) {
    StrBuf b = begin("stage", r->step);
    text(&b, "stage", r->stage);
    number(&b, "tokens", r->tokens, 17);
    strbuf_printf(&b, ",\"sample\":%lld,\"changes\":{%s}", (long long)r->sample, r->changes);
    end(s, &b);
}

/* The members of an object. by_position: [end, loss, tokens] of each. */
static void eval_numbers(StrBuf *b, const EvalNumbers *n) {
    strbuf_printf(b, "\"loss\":");
    value(b, n->loss, 17);
    number(b, "tokens", n->tokens, 17);
    number(b, "ppl", exp(n->loss), 9);
    if (!isnan(n->bits_per_byte)) number(b, "bpb", n->bits_per_byte, 17);
    strbuf_printf(b, ",\"by_position\":[");
    for (int i = 0; i < n->n_positions; i++) {
        strbuf_printf(b, "%s[%lld,", i > 0 ? "," : "", (long long)n->positions[i].end);
        value(b, n->positions[i].loss, 17);
        strbuf_printf(b, ",%.0f]", n->positions[i].tokens);
    }
    strbuf_printf(b, "]");
}

StrBuf sink_eval_json(const EvalRecord *r) {
    StrBuf b = begin("eval", r->step);
    strbuf_printf(&b, ",");
    eval_numbers(&b, &r->all);
    for (int i = 0; i < r->n_sets; i++) {
        strbuf_printf(&b, i > 0 ? "},\"%s\":{" : ",\"sets\":{\"%s\":{", r->sets[i].name);
        eval_numbers(&b, &r->sets[i]);
    }
    if (r->n_sets > 0) strbuf_printf(&b, "}}");
    return b;
}

static void jsonl_eval(Sink *s, const EvalRecord *r) {
    StrBuf b = sink_eval_json(r);
    end(s, &b);
}

static void jsonl_sample(Sink *s, const SampleRecord *r) {
    StrBuf b = begin("sample", r->step);
    text(&b, "prompt", r->prompt);
    text(&b, "text", r->text);
    strbuf_printf(&b, ",\"tokens\":%lld", (long long)r->tokens);
    end(s, &b);
}

static void jsonl_snapshot(Sink *s, const SaveRecord *r) {
    StrBuf b = begin("snapshot", r->step);
    strbuf_printf(&b, ",\"seconds\":%.3f", r->snapshot_seconds);
    end(s, &b);
}

static void jsonl_save(Sink *s, const SaveRecord *r) {
    StrBuf b = begin("save", r->step);
    text(&b, "path", r->path);
    strbuf_printf(
        &b, ",\"bytes\":%lld,\"seconds\":%.3f,\"snapshot_seconds\":%.3f,\"weights_crc\":\"%08x\"",
        (long long)r->bytes, r->seconds, r->snapshot_seconds, r->weights_crc);
    end(s, &b);
}

static void jsonl_guard(Sink *s, const GuardRecord *r) {
    /* `kind` has its values of before for another version: CHANGELOG.md */
    static const char *const names[GUARD_OUTCOMES][2] = {
        [GUARD_WARNED] = {"spike", "warned"},
        [GUARD_RECOMPUTED] = {"redo", "recomputed"},
        [GUARD_SKIPPED] = {"skip", "skipped"},
        [GUARD_STOPPED] = {"stop", "stopped"},
    };
    StrBuf b = begin(names[r->outcome][0], r->step);
    number(&b, "loss", r->loss, 17);
    number(&b, "grad_norm", r->grad_norm, 17);
    number(&b, "z", r->z, 5);
    number(&b, "norm_ratio", r->norm_ratio, 5);
    number(&b, "again_loss", r->again_loss, 17);
    number(&b, "again_grad_norm", r->again_norm, 17);
    strbuf_printf(&b, ",\"outcome\":\"%s\",\"samples\":[", names[r->outcome][1]);
    for (int64_t i = 0; i < r->samples; i++)
        strbuf_printf(&b, "%s%lld", i > 0 ? "," : "", (long long)(r->first_sample + i));
    strbuf_printf(&b, "]");
    text(&b, "found", r->message);
    end(s, &b);
}

static void jsonl_slow(Sink *s, const SlowRecord *r) {
    StrBuf b = begin("slow", r->step);
    strbuf_printf(&b, ",\"rank\":%d", r->rank);
    text(&b, "node", r->node);
    number(&b, "compute_ms", r->compute_ms, 6);
    number(&b, "median_ms", r->median_ms, 6);
    strbuf_printf(&b, ",\"records\":%d", r->records);
    text(&b, "found", r->message);
    end(s, &b);
}

static void jsonl_hook(Sink *s, const HookRecord *r) {
    static const char *const outcomes[] = {
#define X(id, name) name,
        HOOK_OUTCOME_LIST(X)
#undef X
    };
    bool started = r->outcome != HOOK_REPLACED && r->outcome != HOOK_NOT_STARTED;
    StrBuf b = begin("hook", r->step);
    text(&b, "path", r->path);
    text(&b, "outcome", outcomes[r->outcome]);
    number(&b, "status", started && r->status >= 0 ? (double)r->status : NAN, 3);
    number(&b, "signal", r->signal > 0 ? (double)r->signal : NAN, 3);
    number(&b, "seconds", started ? r->seconds : NAN, 6);
    end(s, &b);
}

static void jsonl_free(Sink *s) {
    log_file_close(&((JsonlSink *)s)->file);
    free(s);
}

Status sink_jsonl_open(Sink **s, const SinkRun *run) {
    char *path = mem_printf("%s/log.jsonl", run->config->run.dir);
    bool starts_a_line = ends_in_a_line(path);
    LogFile file;
    Status st = log_file_open(&file, path);
    free(path);
    CHECK(st);
    JsonlSink *j = NEW(JsonlSink, 1);
    j->sink = (Sink){.step = jsonl_step,
                     .stage = jsonl_stage,
                     .eval = jsonl_eval,
                     .sample = jsonl_sample,
                     .snapshot = jsonl_snapshot,
                     .save = jsonl_save,
                     .guard = jsonl_guard,
                     .slow = jsonl_slow,
                     .hook = jsonl_hook,
                     .free = jsonl_free};
    j->file = file;
    char *head = mem_printf("%s%s\n", starts_a_line ? "" : "\n", run->head);
    log_file_append(&j->file, head, strlen(head));
    free(head);
    *s = &j->sink;
    return OK;
}
