#include "bench/step_report.h"

#include "base/log.h"
#include "bench/timing.h"
#include "model/flops.h"

typedef struct {
    double tok_s, flops, mfu, gib, idle_ms;
    double attention_fwd, attention_bwd; /* FLOP/s over allowed pairs */
} Summary;

/* ---- floors ---------------------------------------------------------------------------------- */

enum { COPY_BYTES = 512 << 20, CPU_COPY_BYTES = 64 << 20 };

static Status time_copy(const Session *s, double *rate) {
    int64_t bytes = s->ops->host_memory ? CPU_COPY_BYTES : COPY_BYTES;
    Timing *t;
    Status st = timing_create(&t, s->ops, s->stream, STATE_SUSTAINED);
    if (st == OK) st = timing_copy_rate(t, bytes, rate);
    timing_free(t);
    return st;
}

/* A model may leave no memory for it, which is no reason to lose what was measured. */
static void measure_copy(StepBench *x) {
    Status st = time_copy(&x->s, &x->ops.copy_rate);
    if (st != OK) log_warn("floors count FLOPs only: %s", status_message());
    status_ignore(st);
}

/* Gives the op its FLOPs of a step. Returns its FLOP/s, with the time of the op `before` it. */
static double attention_rate(OpTimes *t, const char *name, const char *before, double flops) {
    OpTime *op = op_times_find(t, name), *other = op_times_find(t, before);
    if (op == NULL) return 0;
    op->cost.flops = flops;
    return 1e3 * flops / (op->ms + (other != NULL ? other->ms : 0));
}

static void measure_attention(StepBench *x, Summary *sum) {
    const Config *c = x->s.config;
    double fwd = 4 * x->own_area * c->model.heads * c->model.head_dim;
    int again = c->memory.recompute == RECOMPUTE_LAYER ? c->model.layers - 1 : 0;
    sum->attention_fwd =
        attention_rate(&x->ops, "attention_fwd", "", fwd * (c->model.layers + again));
    sum->attention_bwd =
        attention_rate(&x->ops, "attention_bwd", "attention_delta", 2.5 * fwd * c->model.layers);
}

/* ---- report ---------------------------------------------------------------------------------- */

static Status summarize(const StepBench *x, Summary *sum) {
    const Session *s = &x->s;
    double flops = flops_train(&s->config->model, s->table, s->step_tokens, x->area);
    double peak = flops_peak(s->ops->device_name), gib = (double)s->ops->mem_peak() / 0x1p30;
    CHECK(comm_all_reduce(s->comm.host, &gib, 1, DT_F64, COMM_MAX, COMM_KIND_OTHER, NULL));
    *sum = (Summary){.tok_s = 1e3 * s->step_tokens / x->ms.step,
                     .flops = 1e3 * flops / x->ms.step / s->world,
                     .gib = gib,
                     .idle_ms = x->metered.step};
    sum->mfu = peak > 0 ? sum->flops / peak : 0;
    for (MeterClass c = 0; c < METER_TRANSFER; c++) sum->idle_ms -= x->metered.class[c];
    return OK;
}

static void print_part(StrBuf *out, const char *name, double ms, double all) {
    strbuf_printf(out, "  %-18s %9.2f ms  %5.1f %%\n", name, ms, 100 * ms / all);
}

static void print_op(StrBuf *out, const StepBench *x, const OpTime *op) {
    double floor_ms = op_times_floor_ms(&x->ops, op);
    strbuf_printf(out, "\n  %-18s %9.2f ms  %5.1f %%", op->name, op->ms,
                  100 * op->ms / x->metered.step);
    if (floor_ms > 0) strbuf_printf(out, "  %9.3f     %10.1f", floor_ms, 100 * floor_ms / op->ms);
}

static void print_text(const StepBench *x, const Summary *sum, StrBuf *out) {
    const Session *s = &x->s;
    strbuf_printf(out, "%d x %s = dp %d x cp %d (%s), %lld micro-batches of %lld tokens a step\n",
                  s->world, s->ops->device_name, s->dp, s->config->parallel.cp,
                  config_enum_name((int)s->config->parallel.backend, "parallel.backend"),
                  (long long)s->micro_steps, (long long)s->cp_options.tokens);
    strbuf_printf(out, "%.2f ms a step, %.0f tok/s, %.0f per device, %.4g TFLOP/s per device",
                  x->ms.step, sum->tok_s, sum->tok_s / s->world, sum->flops / 1e12);
    if (sum->mfu > 0) strbuf_printf(out, ", MFU %.1f %%", 100 * sum->mfu);
    strbuf_printf(out, ", peak memory %.2f GiB\n", sum->gib);
    strbuf_printf(out,
                  "a micro-batch alone: queued by the host in %.2f ms, done after %.2f ms\n"
                  "the host has queued the micro-batches after %.2f ms\n"
                  "of a step under the meter, %.2f ms:\n",
                  x->ms.micro_host, x->ms.micro, x->ms.host, x->metered.step);
    const double *ms = x->metered.class;
    for (MeterClass c = 0; c < METER_TRANSFER; c++)
        print_part(out, meter_class_names[c], ms[c], x->metered.step);
    print_part(out, "idle", sum->idle_ms, x->metered.step);
    strbuf_printf(out,
                  "beside it %s %.2f ms\n"
                  "attention: forward %.4g TFLOP/s, backward %.4g TFLOP/s\n"
                  "by op; floors by a copy's %.4g GB/s and the largest product's %.4g TFLOP/s",
                  meter_class_names[METER_TRANSFER], ms[METER_TRANSFER], sum->attention_fwd / 1e12,
                  sum->attention_bwd / 1e12, x->ops.copy_rate / 1e9,
                  op_times_product_rate(&x->ops, false) / 1e12);
    double fp8 = op_times_product_rate(&x->ops, true);
    if (fp8 > 0) strbuf_printf(out, ", in FP8 %.4g", fp8 / 1e12);
    strbuf_printf(out, ":\n  %-18s %9s     %7s  %9s     %10s", "op", "time", "share", "floor ms",
                  "% of floor");
    for (int i = 0; i < x->ops.n; i++) print_op(out, x, &x->ops.list[i]);
}

static void print_json(const StepBench *x, const Summary *sum, StrBuf *out) {
    const Session *s = &x->s;
    strbuf_printf(out,
                  "{\"bench\":\"step\",\"device\":\"%s\",\"world\":%d,\"dp\":%d,\"cp\":%d,"
                  "\"backend\":\"%s\",\"micro_steps\":%lld,\"tokens\":%.0f,\"ms\":%.6g,"
                  "\"tok_s\":%.6g,\"tok_s_gpu\":%.6g,\"tflops_gpu\":%.6g,\"mfu\":%.6g,"
                  "\"mem_gib\":%.6g,\"host_ms\":%.6g,\"micro_host_ms\":%.6g,"
                  "\"micro_ms\":%.6g,\"metered_ms\":%.6g,\"phases\":{",
                  s->ops->device_name, s->world, s->dp, s->config->parallel.cp,
                  config_enum_name((int)s->config->parallel.backend, "parallel.backend"),
                  (long long)s->micro_steps, s->step_tokens, x->ms.step, sum->tok_s,
                  sum->tok_s / s->world, sum->flops / 1e12, sum->mfu, sum->gib, x->ms.host,
                  x->ms.micro_host, x->ms.micro, x->metered.step);
    for (MeterClass c = 0; c < METER_TRANSFER; c++)
        strbuf_printf(out, "\"%s\":%.6g,", meter_class_names[c], x->metered.class[c]);
    strbuf_printf(out, "\"idle\":%.6g},\"transfer\":%.6g,\"ops\":{", sum->idle_ms,
                  x->metered.class[METER_TRANSFER]);
    for (int i = 0; i < x->ops.n; i++)
        strbuf_printf(out, "%s\"%s\":%.6g", i > 0 ? "," : "", x->ops.list[i].name,
                      x->ops.list[i].ms);
    strbuf_printf(out, "},\"floors\":{");
    const char *comma = "";
    for (int i = 0; i < x->ops.n; i++) {
        double floor_ms = op_times_floor_ms(&x->ops, &x->ops.list[i]);
        if (floor_ms == 0) continue;
        strbuf_printf(out, "%s\"%s\":%.6g", comma, x->ops.list[i].name, floor_ms);
        comma = ",";
    }
    strbuf_printf(out,
                  "},\"copy_gbytes_s\":%.6g,\"gemm_tflops\":%.6g,\"gemm_fp8_tflops\":%.6g,"
                  "\"attention_fwd_tflops\":%.6g,\"attention_bwd_tflops\":%.6g}",
                  x->ops.copy_rate / 1e9, op_times_product_rate(&x->ops, false) / 1e12,
                  op_times_product_rate(&x->ops, true) / 1e12, sum->attention_fwd / 1e12,
                  sum->attention_bwd / 1e12);
}

Status step_report(StepBench *x, bool json) {
    Summary sum;
    StrBuf text = {0};
    CHECK(summarize(x, &sum));
    if (x->s.rank != 0) return OK;
    measure_copy(x);
    measure_attention(x, &sum);
    op_times_sort(&x->ops);
    (json ? print_json : print_text)(x, &sum, &text);
    log_info("%s", strbuf_text(&text));
    strbuf_free(&text);
    return OK;
}
