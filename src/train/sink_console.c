/* One line a step, and on a terminal a progress bar that the next line replaces. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "train/sink.h"

typedef struct {
    Sink sink;
    bool terminal, bar_shown;
} ConsoleSink;

static void clear_bar(ConsoleSink *c) {
    if (c->bar_shown) printf("\r\033[K");
    c->bar_shown = false;
}

static void show_bar(ConsoleSink *c, const StepRecord *r) {
    enum { WIDTH = 40 };
    int full = (int)(WIDTH * r->step / i64_max(r->steps, 1));
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) bar[i] = i < full ? '#' : '-';
    bar[WIDTH] = '\0';
    printf("[%s] %3d%%", bar, (int)(100 * r->step / i64_max(r->steps, 1)));
    c->bar_shown = true;
}

static void format_eta(char *out, size_t size, double seconds) {
    int64_t s = (int64_t)(seconds + 0.5);
    if (s >= 86400)
        snprintf(out, size, "%lldd%02lldh", (long long)(s / 86400), (long long)(s / 3600 % 24));
    else if (s >= 3600)
        snprintf(out, size, "%lldh%02lldm", (long long)(s / 3600), (long long)(s / 60 % 60));
    else
        snprintf(out, size, "%lldm%02llds", (long long)(s / 60), (long long)(s % 60));
}

static void console_step(Sink *s, const StepRecord *r) {
    ConsoleSink *c = (ConsoleSink *)s;
    char eta[32], mfu[32] = "";
    format_eta(eta, sizeof eta, r->eta_seconds);
    if (r->mfu > 0) snprintf(mfu, sizeof mfu, " | mfu %4.1f%%", 100 * r->mfu);
    clear_bar(c);
    printf("step %*lld/%lld | loss %7.4f | norm %7.4f | lr %.2e | %7.1f ms | %.0f tok/s | %.0f "
           "tok/s/gpu%s | %.2f GiB | eta %s\n",
           (int)(snprintf(NULL, 0, "%lld", (long long)r->steps)), (long long)r->step,
           (long long)r->steps, fabs(r->loss), fabs(r->grad_norm) /* not "-nan" */, r->lr, r->ms,
           r->tok_s, r->tok_s_gpu, mfu, r->mem_gib, eta);
    if (c->terminal) show_bar(c, r);
    fflush(stdout);
}

static void console_eval(Sink *s, const EvalRecord *r) {
    clear_bar((ConsoleSink *)s);
    printf("eval at step %lld | loss %.4f over %.0f held-out tokens\n", (long long)r->step, r->loss,
           r->tokens);
    fflush(stdout);
}

static void console_snapshot(Sink *s, const SaveRecord *r) {
    clear_bar((ConsoleSink *)s);
    printf("snapshot of step %lld | training waited %.3f s\n", (long long)r->step,
           r->snapshot_seconds);
    fflush(stdout);
}

static void console_save(Sink *s, const SaveRecord *r) {
    clear_bar((ConsoleSink *)s);
    printf("saved %s | %.1f MiB in %.2f s | weights %08x\n", r->path,
           (double)r->bytes / (1024.0 * 1024.0), r->seconds, r->weights_crc);
    fflush(stdout);
}

/* "stop" is told by who ends the run. */
static void console_guard(Sink *s, const GuardRecord *r) {
    clear_bar((ConsoleSink *)s);
    fflush(stdout);
    if (strcmp(r->kind, "stop") != 0) log_warn("%s", r->sentence);
}

static void console_free(Sink *s) {
    clear_bar((ConsoleSink *)s);
    fflush(stdout);
    free(s);
}

Sink *sink_console_create(void) {
    ConsoleSink *c = NEW(ConsoleSink, 1);
    c->sink = (Sink){.step = console_step,
                     .eval = console_eval,
                     .snapshot = console_snapshot,
                     .save = console_save,
                     .guard = console_guard,
                     .free = console_free};
    c->terminal = isatty(STDOUT_FILENO) == 1;
    return &c->sink;
}
