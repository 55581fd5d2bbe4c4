#include "bench/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/mt19937.h"

/* ---- masks --------------------------------------------------------------------------------- */

static const char *const mask_names[BENCH_MASKS + 1] = {"causal", "full", "document", "window",
                                                        NULL};

const char *bench_mask_name(BenchMask mask) {
    return mask_names[mask];
}

int64_t bench_documents(uint32_t seed, int64_t T, int32_t *begin) {
    Mt mt;
    mt_seed(&mt, seed);
    int64_t n = 0;
    for (int64_t at = 0; at < T; n++) {
        double u = (double)(mt_u32(&mt) & 0xffffff) * 0x1p-24; /* of 24 bits, as a float has */
        begin[n] = (int32_t)at;
        at += (int64_t)exp(log(100) + u * (log(4000) - log(100)));
    }
    return n;
}

static Status documents(Mask *out, int64_t B, int64_t T) {
    int32_t *one = NEW(int32_t, T);
    int64_t n = bench_documents(0, T, one), *begin = NEW(int64_t, B * n);
    for (int64_t i = 0; i < B * n; i++) begin[i] = i / n * T + one[i % n];
    Status st = mask_documents(out, B * T, begin, B * n, 0);
    free(begin);
    free(one);
    return st;
}

Status bench_case_mask(Mask *out, const BenchCase *c) {
    switch (c->mask) {
    case BENCH_CAUSAL:
        return mask_causal(out, c->B * c->T, c->T, 0);
    case BENCH_FULL:
        return mask_full(out, c->B * c->T, c->T);
    case BENCH_DOCUMENT:
        return documents(out, c->B, c->T);
    case BENCH_WINDOW:
        return mask_causal(out, c->B * c->T, c->T, c->window);
    case BENCH_MASKS:
        break;
    }
    base_bug(__FILE__, __LINE__, "the mask is one of the names");
}

/* ---- cases --------------------------------------------------------------------------------- */

void bench_case_settings(Setting *s, const char *gpu_tokens, const char *cpu_tokens,
                         const char *masks) {
    s[CASE_HEAD_DIM] = SETTING("D", COUNT, "64,128", "64", "width of a head", NULL);
    s[CASE_HEAD_DIM].most = BENCH_HEAD_DIM_MAX;
    s[CASE_HEADS] = SETTING("heads", HEADS, NULL, NULL,
                            "query/kv heads [GPU 24/8,64/8 for D=128, else 32/8; CPU 4/2]", NULL);
    s[CASE_TOKENS] =
        SETTING("S", TOKENS, gpu_tokens, cpu_tokens, "tokens, or sequences x tokens", NULL);
    s[CASE_MASK] =
        SETTING("mask", NAME, masks, masks, "of causal, full, document, window", mask_names);
    s[CASE_WINDOW] =
        SETTING("window", COUNT, "1024", "64", "previous tokens that mask=window sees", NULL);
    s[CASE_WINDOW].single = true;
}

Status bench_check_cases(const Ops *ops, const Setting *s) {
    for (int i = 0; i < s[CASE_HEAD_DIM].n && ops->gpu != NULL; i++)
        CHECK(gpu_check_head_dim((int)s[CASE_HEAD_DIM].values[i].a));
    return OK;
}

/* Full attention over a long stream takes minutes: only when asked for. */
static bool too_long(const Setting *s, const BenchCase *c) {
    return !s[CASE_TOKENS].given && c->mask == BENCH_FULL && c->T > 32768;
}

/* The heads that go with a width when none are given: Llama-3.2 1B's, 3B's, and MagiAttention's
 * published benchmark's. */
static int heads_of(const Setting *s, int64_t D, bool gpu, const SettingValue **out) {
    static const SettingValue narrow[] = {{32, 8}}, wide[] = {{24, 8}, {64, 8}}, small[] = {{4, 2}};
    bool two = gpu && D == 128;
    *out = s->given ? s->values : !gpu ? small : two ? wide : narrow;
    return s->given ? s->n : two ? 2 : 1;
}

int bench_cases(BenchCase **out, const Setting *s, bool gpu) {
    BenchCase *cases = NULL;
    int n = 0;
    for (int d = 0; d < s[CASE_HEAD_DIM].n; d++) {
        const SettingValue *heads;
        int64_t D = s[CASE_HEAD_DIM].values[d].a;
        int n_heads = heads_of(&s[CASE_HEADS], D, gpu, &heads);
        for (int i = 0; i < n_heads * s[CASE_TOKENS].n * s[CASE_MASK].n; i++) {
            int h = i / (s[CASE_TOKENS].n * s[CASE_MASK].n);
            SettingValue tokens = s[CASE_TOKENS].values[i / s[CASE_MASK].n % s[CASE_TOKENS].n];
            BenchCase c = {.H = (int)heads[h].a,
                           .K = (int)heads[h].b,
                           .D = (int)D,
                           .B = tokens.a,
                           .T = tokens.b,
                           .mask = (BenchMask)s[CASE_MASK].values[i % s[CASE_MASK].n].a,
                           .window = s[CASE_WINDOW].values[0].a};
            snprintf(c.heads, sizeof c.heads, "%d/%d", c.H, c.K);
            if (c.B > 1)
                snprintf(c.tokens, sizeof c.tokens, "%dx%d", (int)c.B, (int)c.T);
            else
                snprintf(c.tokens, sizeof c.tokens, "%d", (int)c.T);
            if (too_long(s, &c)) continue;
            cases = mem_grow(cases, n + 1, sizeof *cases);
            cases[n++] = c;
        }
    }
    *out = cases;
    return n;
}
