/* bench_plan.c: how long planning takes, and what plans of packed documents move and balance.
 * Prints two tables; run it as build/tests/bench_plan. */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "attn/plan.h"
#include "mask_cases.h"

enum { REPEATS = 20, PACKS = 12 };

static void require_ok(Status st) {
    if (st == OK) return;
    fprintf(stderr, "bench_plan: %s\n", status_message());
    exit(status_exit_code(st));
}

/* n documents of random lengths that fill S tokens */
static void cut_documents(int64_t S, int64_t n, uint64_t seed, int32_t *begin) {
    double total = 0, at = 0;
    for (int64_t i = 0; i < n; i++) total += 0.1 + rng_uniform(seed, 1, (uint64_t)i);
    for (int64_t i = 0; i < n; i++) {
        begin[i] = (int64_t)((double)(S - n) * at / total) + i; /* at least one token each */
        at += 0.1 + rng_uniform(seed, 1, (uint64_t)i);
    }
}

/* Of this process: planning is one thread of arithmetic, and other processes shall not count. */
static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Milliseconds of mask + plan_build, and of plan_rank for one rank: the fastest of `repeats`. */
static void time_plan(const char *name, int64_t S, int64_t n_docs, PlanOptions o, int repeats) {
    double build = 1e9, rank = 1e9;
    int32_t *begin = NEW(int32_t, n_docs);
    PlanSummary s = {0};
    for (int i = 0; i < repeats; i++) {
        Mask m;
        AttnPlan p;
        RankPlan rp;
        cut_documents(S, n_docs, (uint64_t)i, begin);
        double t = cpu_ms();
        require_ok(mask_documents(&m, S, begin, n_docs, 0));
        require_ok(plan_build(&p, &m, &o));
        build = fmin(build, cpu_ms() - t);
        t = cpu_ms();
        plan_rank(&p, i % p.P, &rp);
        rank = fmin(rank, cpu_ms() - t);
        s = plan_summary(&p);
        rank_plan_free(&rp);
        plan_free(&p);
        mask_free(&m);
    }
    printf("%-44s %9lld %6lld %5d %10.3f %10.3f %7.1f %% %6.2f %%\n", name, (long long)S,
           (long long)n_docs, o.dispatch.P, build, rank,
           s.ring_rows ? 100 * (double)s.recv_rows / (double)s.ring_rows : 0, 100 * s.imbalance);
    fflush(stdout);
    free(begin);
}

static void print_times(void) {
    printf(
        "planning, CPU time of the fastest run; one build knows all ranks, tables are one rank's\n"
        "%-44s %9s %6s %5s %10s %10s %9s %8s\n",
        "plan", "tokens", "docs", "ranks", "build ms", "tables ms", "of ring", "imbal.");
    static const struct {
        int64_t S, docs;
        int P, repeats;
    } sizes[] = {{131072, 1000, 8, REPEATS},
                 {1 << 20, 1000, 64, REPEATS},
                 {1 << 23, 8000, 1024, 3},
                 {1 << 26, 64000, 8192, 1}};
    for (int i = 0; i < 4; i++) {
        PlanOptions o = {.backend = BACKEND_MAGI, .degree = -1, .dispatch.P = sizes[i].P};
        if (sizes[i].P > 8) o.dispatch.ranks_per_node = 8;
        int64_t S = sizes[i].S, docs = sizes[i].docs;
        int n = sizes[i].repeats;
        o.dispatch.kind = DISPATCH_CONTIGUOUS;
        time_plan("magi, documents, contiguous", S, docs, o, n);
        o.dispatch.kind = DISPATCH_MIN_HEAP;
        time_plan("magi, documents, min-heap", S, docs, o, n);
        o.dispatch.kind = DISPATCH_LOCAL_SEARCH;
        time_plan("magi, documents, local search", S, docs, o, n);
        o.dispatch.kind = DISPATCH_TWO_LEVEL;
        if (sizes[i].P > 8) time_plan("magi, documents, two levels (nodes of 8)", S, docs, o, n);
        o.dispatch.kind = DISPATCH_AUTO;
        time_plan("magi, causal, zigzag", S, 1, o, n);
        o.backend = BACKEND_RING;
        if (sizes[i].P <= 64) time_plan("ring, documents", S, docs, o, n);
    }
}

/* Rows received over what a ring moves (mean over ranks / greatest rank), and greatest over mean
 * area, for packs drawn as MagiAttention's benchmarks draw them. */
static void print_volumes(void) {
    static const struct {
        const char *name;
        DispatchKind kind;
    } kinds[] = {{"contiguous", DISPATCH_CONTIGUOUS},
                 {"zigzag", DISPATCH_ZIGZAG},
                 {"min-heap", DISPATCH_MIN_HEAP},
                 {"local search", DISPATCH_LOCAL_SEARCH}};
    printf("\npacked documents, 8 chunks a rank, mean of %d packs: rows received / ring's, mean "
           "(greatest rank), imbalance (worst pack)\n%7s %5s",
           PACKS, "tokens", "ranks");
    for (int k = 0; k < 4; k++) printf(" | %-30s", kinds[k].name);
    printf("\n");
    int32_t *begin = NEW(int32_t, 131072);
    for (int64_t S = 8192; S <= 131072; S *= 4)
        for (int P = 2; P <= 8; P *= 2) {
            printf("%7lld %5d", (long long)S, P);
            for (int k = 0; k < 4; k++) {
                double mean = 0, most = 0, imbalance = 0, worst = 0;
                for (uint64_t pack = 0; pack < PACKS; pack++) {
                    Mask m;
                    AttnPlan p;
                    PlanOptions o = {.backend = BACKEND_MAGI,
                                     .dispatch = {.P = P, .kind = kinds[k].kind}};
                    require_ok(mask_documents(&m, S, begin, draw_pack(pack, S, begin), 0));
                    require_ok(plan_build(&p, &m, &o));
                    PlanSummary s = plan_summary(&p);
                    mean += (double)s.recv_rows / (double)s.ring_rows / PACKS;
                    most += (double)s.max_recv_rows * P / (double)s.ring_rows / PACKS;
                    imbalance += s.imbalance / PACKS;
                    if (s.imbalance > worst) worst = s.imbalance;
                    plan_free(&p);
                    mask_free(&m);
                }
                printf(" | %4.1f %% (%4.1f %%) %5.1f %% (%5.1f %%)", 100 * mean, 100 * most,
                       100 * imbalance, 100 * worst);
            }
            printf("\n");
        }
    free(begin);
}

int main(void) {
    print_times();
    print_volumes();
    return 0;
}
