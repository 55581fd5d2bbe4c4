/* One line a step, and on a terminal a progress bar that the next line replaces. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "metrics/sink.h"

typedef struct {
    Sink sink;
    const char *run_dir;
    bool terminal, color, bar_shown;
} ConsoleSink;

/* Goes before a line. */
static const char *clear_bar(ConsoleSink *c) {
    bool shown = c->bar_shown;
    c->bar_shown = false;
    return shown ? "\r\033[K" : "";
}

/* Escape sequences, or nothing. */
static const char *bold(const ConsoleSink *c) {
    return c->color ? "\033[1m" : "";
}

static const char *green(const ConsoleSink *c) {
    return c->color ? "\033[32m" : "";
}

static const char *plain(const ConsoleSink *c) {
    return c->color ? "\033[0m" : "";
}

/* "[####----]  50%" behind a line, where the next one replaces it. */
static void print_bar(ConsoleSink *c, const StepRecord *r) {
    enum { WIDTH = 40 };
    static const char full[] = "########################################",
                      rest[] = "----------------------------------------";
    int64_t steps = i64_max(r->steps, 1);
    int n = (int)(WIDTH * r->step / steps);
    output_print("[%s%.*s%s%.*s] %3d%%", green(c), n, full, plain(c), WIDTH - n, rest,
                 (int)(100 * r->step / steps));
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

/* Below 100 columns, up to 99999 steps. */
static void console_step(Sink *s, const StepRecord *r) {
    ConsoleSink *c = (ConsoleSink *)s;
    char eta[32], mfu[16] = "";
    format_eta(eta, sizeof eta, r->eta_seconds);
    if (r->mfu > 0) snprintf(mfu, sizeof mfu, " mfu %.0f%%", 100 * r->mfu);
    output_print("%sstep %*lld/%lld %sloss %.4f%s norm %5.3g lr %.1e %4.*f ms %5s tok/s%s %s GiB "
                 "eta %s\n",
                 clear_bar(c), snprintf(NULL, 0, "%lld", (long long)r->steps), (long long)r->step,
                 (long long)r->steps, bold(c), fabs(r->loss), plain(c),
                 fabs(r->grad_norm) /* not "-nan" */, r->lr, r->ms < 100 ? 1 : 0, r->ms,
                 number_text(r->tok_s, "").text, mfu, number_text(r->mem_gib, "").text, eta);
    if (c->terminal) print_bar(c, r);
}

static void console_stage(Sink *s, const StageRecord *r) {
    output_print("%s%s begins after step %lld and %.0f tokens | %s\n", clear_bar((ConsoleSink *)s),
                 r->stage, (long long)r->step, r->tokens, r->changes);
}

static void console_eval(Sink *s, const EvalRecord *r) {
    ConsoleSink *c = (ConsoleSink *)s;
    for (int i = r->n_sets == 1 ? 0 : -1; i < r->n_sets; i++) {
        const EvalNumbers *n = i < 0 ? &r->all : &r->sets[i];
        char bits[32] = "";
        if (!isnan(n->bits_per_byte))
            snprintf(bits, sizeof bits, " %.4f bits/byte", n->bits_per_byte);
        output_print("%seval at step %lld | %s%s%sloss %.4f%s%s over %.0f held-out tokens\n",
                     clear_bar(c), (long long)r->step, i < 0 ? "" : n->name, i < 0 ? "" : ": ",
                     bold(c), n->loss, plain(c), bits, n->tokens);
    }
}

static void console_sample(Sink *s, const SampleRecord *r) {
    char *text = mem_printf("%s%s", r->prompt, r->text);
    text_make_printable(text, true);
    output_print("%ssample at step %lld | %s\n", clear_bar((ConsoleSink *)s), (long long)r->step,
                 text);
    free(text);
}

static void console_snapshot(Sink *s, const SaveRecord *r) {
    output_print("%ssnapshot of step %lld | training waited %.3f s\n", clear_bar((ConsoleSink *)s),
                 (long long)r->step, r->snapshot_seconds);
}

static void console_save(Sink *s, const SaveRecord *r) {
    output_print("%ssaved %s | %.1f MiB in %.2f s | weights %08x\n", clear_bar((ConsoleSink *)s),
                 r->path, (double)r->bytes / (1024.0 * 1024.0), r->seconds, r->weights_crc);
}

/* A stop is reported by the caller. */
static void console_guard(Sink *s, const GuardRecord *r) {
    output_print("%s", clear_bar((ConsoleSink *)s));
    if (r->outcome != GUARD_STOPPED) log_warn("%s", r->message);
}

static void console_slow(Sink *s, const SlowRecord *r) {
    output_print("%s", clear_bar((ConsoleSink *)s));
    log_warn("%s", r->message);
}

static void console_hook(Sink *s, const HookRecord *r) {
    long long step = r->step;
    const char *run_dir = ((ConsoleSink *)s)->run_dir;
    output_print("%s", clear_bar((ConsoleSink *)s));
    if (r->outcome == HOOK_DONE)
        output_print("on_save of step %lld | done in %.1f s\n", step, r->seconds);
    else if (r->outcome == HOOK_REPLACED)
        output_print("on_save of step %lld | left out: a newer checkpoint took its turn\n", step);
    else if (r->outcome == HOOK_NOT_STARTED)
        output_print("on_save of step %lld | not started: the run ends\n", step);
    else if (r->outcome == HOOK_ENDED)
        log_warn(
            "run.on_save of step %lld was ended with the run, after %.1f s: a run that is done "
            "waits run.on_save_minutes for it, a stopped one 10 seconds",
            step, r->seconds);
    else if (r->signal > 0)
        log_warn(
            "run.on_save of step %lld: signal %d (%s) ended it after %.1f s; %s/on_save.log has "
            "what it printed",
            step, r->signal, strsignal(r->signal), r->seconds, run_dir);
    else
        log_warn(
            "run.on_save of step %lld: exit status %d after %.1f s; %s/on_save.log has what it "
            "printed",
            step, r->status, r->seconds, run_dir);
}

static void console_free(Sink *s) {
    output_print("%s", clear_bar((ConsoleSink *)s));
    free(s);
}

Status sink_console_open(Sink **s, const SinkRun *run) {
    ConsoleSink *c = NEW(ConsoleSink, 1);
    c->run_dir = run->config->run.dir;
    c->sink = (Sink){.step = console_step,
                     .stage = console_stage,
                     .eval = console_eval,
                     .sample = console_sample,
                     .snapshot = console_snapshot,
                     .save = console_save,
                     .guard = console_guard,
                     .slow = console_slow,
                     .hook = console_hook,
                     .free = console_free};
    const char *no_color = getenv("NO_COLOR"); /* https://no-color.org */
    c->terminal = output_is_terminal();
    c->color = c->terminal && (no_color == NULL || *no_color == '\0');
    *s = &c->sink;
    return OK;
}
