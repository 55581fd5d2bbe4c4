#include "report/stages_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "report/estimate.h"

typedef struct {
    const Config *config;
    int64_t from, steps;
    double tokens;
    int64_t bytes;         /* of a rank */
    double tok_s, seconds; /* NAN: not estimated */
} StageCost;

static Status find_cost(const Config *c, int k, int world, bool cpu, StageCost *cost) {
    const Config *stage = config_of_stage(c, k);
    Config one = *stage; /* borrows its strings */
    if (cpu) one.device = DEVICE_CPU;
    Session s;
    RunEstimate e = {.tok_s = NAN, .run_seconds = NAN};
    Status st = session_plan(&s, &one, world, NULL);
    if (st == OK && estimate_is_made(&s)) st = run_estimate_sequences(&s, &e);
    *cost = (StageCost){.config = stage,
                        .from = config_stage_from(c, k),
                        .steps = config_steps(stage),
                        .bytes = s.arena.bytes,
                        .tok_s = e.tok_s,
                        .seconds = e.run_seconds};
    cost->tokens = (double)cost->steps * (double)stage->batch.global * (double)stage->model.seq_len;
    session_close(&s);
    if (st != OK) status_prefix("%s", c->timeline[k].name);
    return st;
}

static void print_line(const char *steps, const StageCost *cost, const char *sizes, StrBuf *out) {
    StrBuf time = {0};
    if (isnan(cost->seconds))
        strbuf_printf(&time, "-");
    else
        estimate_print_duration(cost->seconds, &time);
    strbuf_printf(out, "           %-17s %8s %s %8s %12s %7.3g\n", steps,
                  number_text(cost->tokens, " ").text, sizes,
                  isnan(cost->tok_s) ? "-" : number_text(cost->tok_s, "").text, strbuf_text(&time),
                  (double)cost->bytes / (1 << 30));
    strbuf_free(&time);
}

Status stages_report_text(const Config *c, int world, bool cpu, StrBuf *out) {
    int n = config_n_stages(c);
    if (n == 1) return OK;
    StageCost all = {.steps = c->run.steps, .tok_s = NAN};
    strbuf_printf(out, "stages     %-17s %8s %8s %8s %6s %8s %12s %7s\n", "steps", "tokens",
                  "seq_len", "global", "micro", "tokens/s", "time", "GiB");
    for (int k = 0; k < n; k++) {
        StageCost cost;
        char steps[48], sizes[80];
        CHECK(find_cost(c, k, world, cpu, &cost));
        snprintf(steps, sizeof steps, "%" PRId64 " .. %" PRId64, cost.from + 1,
                 cost.from + cost.steps);
        snprintf(sizes, sizeof sizes, "%8" PRId64 " %8" PRId64 " %6" PRId64,
                 cost.config->model.seq_len, cost.config->batch.global, cost.config->batch.micro);
        print_line(steps, &cost, sizes, out);
        if (k > 0) {
            char *changes = mem_printf("%s: %s", c->timeline[k].name, c->timeline[k].changes);
            strbuf_wrap(out, changes, 13);
            free(changes);
        }
        all.tokens += cost.tokens;
        all.seconds += cost.seconds;
        all.bytes = i64_max(all.bytes, cost.bytes);
    }
    char sizes[80];
    snprintf(sizes, sizeof sizes, "%24s", "");
    print_line("all", &all, sizes, out);
    return OK;
}

static void print_number(double x, StrBuf *out) {
    if (isnan(x))
        strbuf_printf(out, "null");
    else
        strbuf_printf(out, "%.6g", x);
}

Status stages_report_json(const Config *c, int world, bool cpu, StrBuf *out) {
    strbuf_printf(out, "[");
    for (int k = 0; k < c->n_timeline; k++) {
        StageCost cost;
        CHECK(find_cost(c, k, world, cpu, &cost));
        strbuf_printf(out,
                      "%s{\"stage\":\"%s\",\"from\":%" PRId64 ",\"steps\":%" PRId64
                      ",\"tokens\":%.0f,\"seq_len\":%" PRId64 ",\"global\":%" PRId64
                      ",\"micro\":%" PRId64 ",\"bytes_per_rank\":%" PRId64 ",\"tok_s\":",
                      k > 0 ? "," : "", c->timeline[k].name, cost.from, cost.steps, cost.tokens,
                      cost.config->model.seq_len, cost.config->batch.global,
                      cost.config->batch.micro, cost.bytes);
        print_number(cost.tok_s, out);
        strbuf_printf(out, ",\"seconds\":");
        print_number(cost.seconds, out);
        strbuf_printf(out, ",\"changes\":{%s}}", c->timeline[k].changes);
    }
    strbuf_printf(out, "]");
    return OK;
}
