#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "session/device.h"

Setting bench_state_setting(void) {
    Setting s = SETTING("state", NAME, "step", "step",
                        "Products between the calls, the same call only, or a cool start.",
                        bench_state_names);
    s.single = true;
    return s;
}

Status bench_open(Bench *b, const char *what, const BenchArguments *a, const Setting *state) {
    b->json = a->json;
    if (a->baseline != NULL) CHECK(baseline_open(&b->baseline, a->baseline, a->json));
    char *why_cpu;
    CHECK(device_open(&b->ops, a->device, false, NULL, &why_cpu));
    if (why_cpu != NULL && comm_local_rank() == 0) log_warn("%s", why_cpu);
    free(why_cpu);
    CHECK(b->ops->stream_create(b->ops, &b->stream));
    b->state = state->given ? (BenchState)state->values[0].a : STATE_STEP;
    CHECK(timing_create(&b->timing, b->ops, b->stream, b->state));
    int64_t side = b->ops->host_memory ? 512 : 8192;
    CHECK(timing_product_rate(b->timing, side, &b->gemm_rate));
    b->members =
        mem_printf("\"bench\":\"%s\",\"device\":\"%s\",\"state\":\"%s\",\"gemm_tflops\":%.4g", what,
                   b->ops->device_name, bench_state_names[b->state], b->gemm_rate / 1e12);
    if (!b->json)
        log_info("%s, state %s; a product of %d x %d x %d runs at %.4g TFLOP/s",
                 b->ops->device_name, bench_state_names[b->state], (int)side, (int)side, (int)side,
                 b->gemm_rate / 1e12);
    return OK;
}

void bench_close(Bench *b) {
    if (b->ops != NULL) {
        timing_free(b->timing);
        if (b->stream != NULL) b->ops->stream_free(b->stream);
    }
    free(b->members);
    baseline_free(b->baseline);
    *b = (Bench){0};
}

Table bench_table(const Bench *b, const TableColumn *columns, int n) {
    Table t = {columns, n, b->json, b->members, b->baseline};
    table_begin(&t);
    return t;
}

Status bench_compared(const Bench *b) {
    return b->baseline == NULL ? OK : baseline_finish(b->baseline);
}

Status bench_agree(Status mine) {
    Comm *host;
    CHECK(comm_mpi_create(&host));
    Status st = comm_agree(host, mine);
    comm_free(host);
    return st;
}

Status bench_finish(Status mine) {
    if (mine == OK || status_is_agreed()) return mine;
    log_error("%s", status_message());
    comm_abort(status_exit_code(mine));
}

Status bench_run(const Benchmark *b, BenchArguments *a, int n, char **texts) {
    Setting settings[BENCH_SETTINGS_MAX + 1] = {0};
    b->list_settings(settings);
    CHECK(bench_arguments_parse(a, b->name, b->takes_config, settings, n, texts));
    return b->run(a, settings);
}

void bench_print_settings(const Benchmark *b, StrBuf *out) {
    Setting settings[BENCH_SETTINGS_MAX + 1] = {0};
    b->list_settings(settings);
    bench_settings_print(settings, out);
    strbuf_printf(out, "  device  ");
    strbuf_wrap(out, "One of auto, cpu and cuda. [auto]", 19);
}
