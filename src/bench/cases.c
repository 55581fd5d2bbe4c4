#include "bench/cases.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/synthetic.h"

/* ---- masks --------------------------------------------------------------------------------- */

/* Those of data.mask that need no file, and causal with a window. */
enum { WINDOW = -1 };
static const char *names[MASK_KINDS + 1]; /* ends with NULL */
static int kinds[MASK_KINDS];             /* MaskKind or WINDOW, parallel to names */

static void list_masks(void) {
    int n = 0;
    for (int kind = 0; kind < MASK_KINDS; kind++)
        if (kind != MASK_SLICES) names[n] = mask_names[kind], kinds[n++] = kind;
    names[n] = "window", kinds[n] = WINDOW;
}

/* All sequences alike; documents of seed 0. */
Status bench_case_mask(Mask *out, const BenchCase *c) {
    int32_t *begin = NEW(int32_t, c->B * c->T);
    int64_t n = synthetic_documents(0, c->T, begin);
    for (int64_t i = n; i < c->B * n; i++) begin[i] = (int32_t)(i / n * c->T) + begin[i % n];
    Status st = mask_build(out, &c->mask, c->B * c->T, c->T, begin, c->B * n);
    free(begin);
    return st;
}

/* ---- cases --------------------------------------------------------------------------------- */

void bench_case_settings(Setting *s, const char *gpu_tokens, const char *cpu_tokens,
                         const char *masks) {
    list_masks();
    s[CASE_HEAD_DIM] = SETTING("D", COUNT, "64,128", "64", "Width of a head.", NULL);
    s[CASE_HEAD_DIM].most = BENCH_HEAD_DIM_MAX;
    s[CASE_HEADS] = SETTING("heads", HEADS, NULL, NULL,
                            "Query/kv heads. [GPU 24/8,64/8 for D=128, else 32/8; CPU 4/2]", NULL);
    s[CASE_TOKENS] =
        SETTING("S", TOKENS, gpu_tokens, cpu_tokens, "Tokens, or sequences x tokens.", NULL);
    s[CASE_MASK] = SETTING("mask", NAME, masks, masks,
                           "Of causal, full, document, window and prefix_lm.", names);
    s[CASE_WINDOW] =
        SETTING("window", COUNT, "1024", "64", "Previous tokens that mask=window sees.", NULL);
    s[CASE_PREFIX] = SETTING("prefix", COUNT, "1024", "64",
                             "First tokens of a sequence that all see under mask=prefix_lm.", NULL);
    s[CASE_WINDOW].single = s[CASE_PREFIX].single = true;
}

Status bench_check_cases(const Ops *ops, const Setting *s) {
    for (int i = 0; i < s[CASE_HEAD_DIM].n && ops->gpu != NULL; i++)
        CHECK(gpu_check_head_dim((int)s[CASE_HEAD_DIM].values[i].a));
    return OK;
}

/* Full attention over a long stream takes minutes: only when asked for. */
static bool too_long(const Setting *s, const BenchCase *c) {
    return !s[CASE_TOKENS].given && c->mask.kind == MASK_FULL && c->T > 32768;
}

/* The heads that go with a width when none are given: Llama-3.2 1B's, 3B's, and MagiAttention's
 * published benchmark's. */
static int heads_of(const Setting *s, int64_t D, bool gpu, const SettingValue **out) {
    static const SettingValue narrow[] = {{32, 8}}, wide[] = {{24, 8}, {64, 8}}, small[] = {{4, 2}};
    bool two = gpu && D == 128;
    *out = s->given ? s->values : !gpu ? small : two ? wide : narrow;
    return s->given ? s->n : two ? 2 : 1;
}

static MaskSpec mask_of(const Setting *s, int i, int64_t T) {
    int kind = kinds[s[CASE_MASK].values[i].a];
    if (kind == WINDOW)
        return (MaskSpec){.kind = MASK_CAUSAL, .window = s[CASE_WINDOW].values[0].a};
    return (MaskSpec){.kind = (MaskKind)kind, .prefix = i64_min(T, s[CASE_PREFIX].values[0].a)};
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
                           .mask = mask_of(s, i % s[CASE_MASK].n, tokens.b),
                           .mask_name = names[s[CASE_MASK].values[i % s[CASE_MASK].n].a]};
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
