/* gpu_attention_case.cuh: one shape and mask, forward and backward, against the reference of
 * gpu_attention.cuh. */
#ifndef CRIA_TESTS_GPU_ATTENTION_CASE_CUH
#define CRIA_TESTS_GPU_ATTENTION_CASE_CUH

#include "gpu_attention.cuh"

/* ---- comparison ------------------------------------------------------------------------------ */

static double as_double(float x) {
    return (double)x;
}
static double as_double(bf16 x) {
    return (double)__bfloat162float(x);
}

/* The rms of x - ref over that of ref, or over `floor` where ref is smaller: a row with one key has
 * no gradient but noise. */
template <class T>
static double rms_error(const std::vector<T> &x, const std::vector<double> &ref, double floor) {
    double diff2 = 0, ref2 = 0;
    for (size_t i = 0; i < ref.size(); i++) {
        double e = as_double(x[i]) - ref[i];
        diff2 += e * e;
        ref2 += ref[i] * ref[i];
    }
    return sqrt(diff2 / std::max(ref2, floor * floor * (double)ref.size() + 1e-30));
}

/* The worst of a case's tensors so far; `ratio` over the error that bf16 makes inevitable. */
struct Worst {
    double error, ratio;
};

/* x against the exact result: its rms error is to be at most twice that of the rounded reference
 * (if `rounded` is given, and in large tensors; luck decides in small ones), and none of its
 * elements far off. A mismatch prints where it is; `heads` and `width` describe [row, head, width].
 */
template <class T>
static bool agrees(const char *name, const std::vector<T> &x, const std::vector<double> &exact,
                   const std::vector<double> *rounded, int heads, int width, double tolerance,
                   double floor, Worst *worst) {
    const bool large = rounded && exact.size() >= 1 << 15;
    double inevitable = large ? rms_error(*rounded, exact, floor) : 0;
    double error = rms_error(x, exact, floor);
    double limit = large ? std::min(tolerance, 2 * inevitable + 1e-5) : tolerance;
    worst->error = std::max(worst->error, error);
    if (inevitable > 1e-4) worst->ratio = std::max(worst->ratio, error / inevitable);
    double top = floor;
    for (double r : exact) top = std::max(top, fabs(r));
    size_t bad = 0, first = 0, by_row[16] = {}, by_column[16] = {};
    for (size_t i = 0; i < exact.size(); i++) {
        if (fabs(as_double(x[i]) - exact[i]) <= 4 * tolerance * top) continue; /* not so for NaN */
        if (bad++ == 0) first = i;
        by_row[i / width / heads / 8 % 16]++;
        by_column[i % width / 8 % 16]++;
    }
    if (bad == 0 && error <= limit) return true;
    printf("    %s: rms error %.2e (limit %.1e, of bf16 %.1e), %zu of %zu elements bad", name,
           error, limit, inevitable, bad, exact.size());
    if (bad) {
        printf("; first [%zu, %zu, %zu]: %g, expected %g\n      bad by row / 8 %% 16:",
               first / width / heads, first / width % heads, first % width, as_double(x[first]),
               exact[first]);
        for (size_t n : by_row) printf(" %zu", n);
        printf("\n      by column / 8:");
        for (size_t n : by_column) printf(" %zu", n);
    }
    printf("\n");
    return false;
}

/* ---- one case -------------------------------------------------------------------------------- */

/* What makes scores hard for a softmax that reads them once: q and the keys are multiplied. */
struct Hard {
    const char *name;
    double q, (*key)(int key, int n_keys);
};

struct Case {
    Shape x;
    Bands bands;
    AttnKernels kernels;
    int stages;              /* the bands are dealt to this many calls */
    bool any_order;          /* dq may differ in its bits from run to run */
    const Hard *hard = NULL; /* forward only: P is near 0 or 1, and dS what is left of rounding */
};

static AttnWork *make_work(const Bands &bands, Shape x, AttnKernels kernels) {
    AttnShape s = {x.Sq, x.Sk, x.H, x.K, x.D, (float)(1 / sqrt((double)x.D))};
    AttnWork *work = NULL;
    Status st = cuda_attn_work_create_as(kernels, &work, bands.data(), (int64_t)bands.size(), s,
                                         NULL, &test_stream);
    REQUIRE(st == OK);
    return work;
}

static bool run_case(const char *name, const Case &c) {
    const Shape x = c.x;
    double scale = (double)(float)(1 / sqrt((double)x.D));
    Buffer<bf16> q, kv, d_o, o;
    Buffer<float> o_acc, lse, delta, dq, dkv;
    q.create((size_t)x.Sq * x.H * x.D);
    kv.create((size_t)x.Sk * 2 * x.K * x.D);
    d_o.create(q.n);
    o.create(q.n);
    o_acc.create(q.n);
    lse.create((size_t)x.H * x.Sq);
    delta.create(lse.n);
    dq.create(q.n);
    dkv.create(kv.n);
    /* peaked, so that one wrong key shows */
    q.put(random_bf16(q.n, 10, 2.0 * (c.hard ? c.hard->q : 1)));
    std::vector<bf16> kv_host = random_bf16(kv.n, 11, 1.0);
    for (size_t i = 0; c.hard && i < kv.n; i++) {
        int row = (int)(i / ((size_t)2 * x.K * x.D)), head = (int)(i / x.D % (2 * x.K));
        if (head < x.K)
            kv_host[i] = __float2bfloat16((float)(as_double(kv_host[i]) * c.hard->key(row, x.Sk)));
    }
    kv.put(kv_host);
    d_o.put(random_bf16(q.n, 12, 1.0));
    Reference ref = reference(c.bands, x, scale, q.d, kv.d, d_o.d);

    std::vector<Bands> stages((size_t)c.stages);
    for (size_t i = 0; i < c.bands.size(); i++) stages[i % stages.size()].push_back(c.bands[i]);
    std::vector<AttnWork *> works;
    for (const Bands &b : stages) works.push_back(make_work(b, x, c.kernels));
    std::vector<bf16> o1;
    std::vector<float> lse1, dq1, dkv1, o_acc1;
    bool ok = true;
    size_t dq_differs = 0;
    test_ops.deterministic = !c.any_order;
    for (int repeat = 0; repeat < 3; repeat++) {
        o.poison();
        o_acc.poison();
        lse.poison();
        delta.poison();
        dq.poison();
        dkv.poison();
        for (size_t i = 0; i < works.size(); i++) {
            bool last = i + 1 == works.size(), only = works.size() == 1 && repeat == 2;
            AttnFwd a = {};
            a.o = last ? o.d : NULL, a.o_acc = only ? NULL : o_acc.d, a.lse = lse.d;
            a.q = q.d, a.kv = kv.d, a.work = works[i], a.resume = i > 0;
            cuda_attention_fwd(&a, &test_stream);
        }
        cuda_attention_delta(delta.d, d_o.d, o.d, x.Sq, x.H, x.D, &test_stream);
        for (size_t i = 0; !c.hard && i < works.size(); i++) {
            AttnBwd a = {};
            a.dq = dq.d, a.dkv = dkv.d, a.d_o = d_o.d, a.q = q.d, a.kv = kv.d;
            a.lse = lse.d, a.delta = delta.d, a.work = works[i];
            a.accumulate_dq = a.accumulate_dkv = i > 0;
            cuda_attention_bwd(&a, &test_stream);
        }
        CU(cudaStreamSynchronize(test_stream.s));
        if (repeat == 0) {
            o1 = o.get();
            o_acc1 = o_acc.get();
            lse1 = lse.get();
            dq1 = dq.get();
            dkv1 = dkv.get();
            continue;
        }
        bool same = memcmp(o1.data(), o.get().data(), o.n * 2) == 0 &&
                    memcmp(lse1.data(), lse.get().data(), lse.n * 4) == 0 &&
                    memcmp(dkv1.data(), dkv.get().data(), dkv.n * 4) == 0;
        if (!same) printf("    repeat %d: o, lse or dkv differ in their bits\n", repeat);
        ok &= same;
        std::vector<float> again = dq.get();
        for (size_t i = 0; i < dq.n; i++) dq_differs += memcmp(&again[i], &dq1[i], 4) != 0;
    }
    if (!c.any_order && dq_differs) {
        printf("    dq differs in its bits\n");
        ok = false;
    }
    Worst worst = {};
    double lse_worst = 0;
    bool lse_right = true;
    const std::vector<double> *rounded_o = c.hard ? NULL : &ref.rounded.o;
    ok &= agrees("o", o1, ref.exact.o, rounded_o, x.H, x.D, 6e-3, 0.01, &worst);
    ok &= agrees("o_acc", o_acc1, ref.exact.o, rounded_o, x.H, x.D, 6e-3, 0.01, &worst);
    for (size_t i = 0; i < lse1.size(); i++) {
        double e = fabs((double)lse1[i] - ref.lse[i]);
        if ((double)lse1[i] == ref.lse[i]) e = 0;
        if (!(e <= 2e-4 + (c.hard != NULL ? 1e-5 * fabs(ref.lse[i]) : 0))) {
            if (lse_right)
                printf("    lse: first [head %zu, row %zu]: %g, expected %g\n", i / x.Sq, i % x.Sq,
                       lse1[i], ref.lse[i]);
            lse_right = false;
        }
        if (!(e <= lse_worst)) lse_worst = e;
    }
    ok &= lse_right;
    if (!c.hard) {
        ok &= agrees("dq", dq1, ref.exact.dq, &ref.rounded.dq, x.H, x.D, 1e-2, 0.3, &worst);
        ok &= agrees("dkv", dkv1, ref.exact.dkv, &ref.rounded.dkv, 2 * x.K, x.D, 1e-2, 0.3, &worst);
    }
    bool guards = o.guards_whole() && o_acc.guards_whole() && lse.guards_whole() &&
                  dq.guards_whole() && dkv.guards_whole() && delta.guards_whole();
    if (!guards) printf("    a buffer's sentinels were overwritten\n");
    ok &= guards;
    printf("  %s %s D=%d H=%d/%d %dx%d bands=%zu stages=%d: error %.1e (%.2f of bf16's), lse %.1e, "
           "dq bits differ %zu\n",
           ok ? "ok  " : "FAIL", name, x.D, x.H, x.K, x.Sq, x.Sk, c.bands.size(), c.stages,
           worst.error, worst.ratio, lse_worst, dq_differs);
    fflush(stdout);
    for (AttnWork *w : works) cuda_attn_work_free(w);
    q.destroy();
    kv.destroy();
    d_o.destroy();
    o.destroy();
    o_acc.destroy();
    lse.destroy();
    delta.destroy();
    dq.destroy();
    dkv.destroy();
    return ok;
}

#endif
