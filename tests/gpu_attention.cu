/* gpu_attention.cu: the attention kernels of cuda/ against a dense double-precision reference.
 * Needs a GPU. How fast they are: cria bench attention.
 *
 *   gpu_attention test [filter]   every case, in child processes: a hang or a crash costs one group
 *   gpu_attention soak SECONDS D  causal, 8k, the same numbers again and again: the same bits
 *   gpu_attention once WHAT D S   one call (for a profiler): WHAT = fwd | bwd */
#include "gpu_attention_case.cuh"
#include "gpu_attention_remote.cuh"
#include "gpu_open.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- groups of cases ------------------------------------------------------------------------- */

static Bands one_band(int Sq, int Sk, int64_t lo, int64_t hi) {
    Bands b;
    add_band(b, 0, Sq, 0, Sk, lo, hi);
    return b;
}

static bool run_named(AttnKernels kernels, int D, bool any_order) {
    const int64_t no_lo = BAND_NO_LO, no_hi = BAND_NO_HI;
    bool ok = true;
    auto run = [&](const char *name, Shape x, Bands b, int stages = 1) {
        ok &= run_case(name, Case{x, b, kernels, stages, any_order});
    };
    run("one tile", {128, 128, 1, 1, D}, one_band(128, 128, no_lo, no_hi));
    run("two steps", {128, 256, 1, 1, D}, one_band(128, 256, no_lo, no_hi));
    run("three steps, two tiles", {256, 384, 1, 1, D}, one_band(256, 384, no_lo, no_hi));
    run("causal", {512, 512, 4, 1, D}, one_band(512, 512, no_lo, 0));
    run("causal, ragged", {333, 333, 6, 2, D}, one_band(333, 333, no_lo, 0));
    run("window", {500, 500, 2, 2, D}, one_band(500, 500, -100, 0));
    run("one row", {1, 300, 8, 1, D}, one_band(1, 300, no_lo, no_hi));
    run("one key", {300, 1, 8, 1, D}, one_band(300, 1, no_lo, no_hi));
    run("no band", {70, 90, 4, 1, D}, Bands());
    run("more keys", {100, 700, 8, 2, D}, one_band(100, 700, no_lo, 600));
    run("more rows", {700, 100, 8, 2, D}, one_band(700, 100, no_lo, -600));
    run("documents", {600, 600, 8, 2, D}, documents_bands({100, 7, 200, 1, 150, 142}));
    Bands halves;
    add_band(halves, 0, 400, 0, 200, no_lo, 0);
    add_band(halves, 0, 400, 200, 400, no_lo, 0);
    run("causal in two stages", {400, 400, 8, 2, D}, halves, 2);
    /* many steps of one row tile */
    run("long rows", {400, 2600, 4, 2, D}, one_band(400, 2600, no_lo, 2200));
    run("long rows, ragged", {193, 2345, 3, 1, D}, one_band(193, 2345, -2300, 2200));
    return ok;
}

/* Scores that grow or jump beyond what exp2 in fp32 can hold, and others that differ by nothing. */
static bool run_hard(AttnKernels kernels, int D) {
    static const Hard all[] = {
        {"growing keys", 1, [](int k, int) { return 1 + k / 16.0; }},
        {"falling keys", 1, [](int k, int n) { return 1 + (n - k) / 16.0; }},
        {"keys that grow a little", 1, [](int k, int) { return 1 + k / 300.0; }},
        {"one huge key", 1, [](int k, int n) { return k == n * 2 / 3 ? 1000.0 : 1.0; }},
        {"a huge key in every 150", 1, [](int k, int) { return k % 150 == 77 ? 5.0 * k : 1.0; }},
        {"keys by turns tiny and large", 1, [](int k, int) { return k / 200 % 2 ? 40.0 : 1e-4; }},
        {"huge", 100, [](int, int) { return 100.0; }},
        {"tiny", 1e-3, [](int, int) { return 1e-3; }}};
    const int64_t no_lo = BAND_NO_LO;
    Bands halves, long_halves;
    add_band(halves, 0, 700, 0, 300, no_lo, 0);
    add_band(halves, 0, 700, 300, 700, no_lo, 0);
    add_band(long_halves, 0, 200, 0, 2100, no_lo, BAND_NO_HI);
    add_band(long_halves, 0, 200, 2100, 4400, no_lo, 4200);
    bool ok = true;
    for (const Hard &hard : all) {
        auto run = [&](Shape x, const Bands &bands, int stages) {
            ok &= run_case(hard.name, Case{x, bands, kernels, stages, false, &hard});
        };
        run({700, 700, 4, 2, D}, one_band(700, 700, no_lo, 0), 1);
        run({700, 700, 4, 2, D}, halves, 2);
        run({500, 2500, 4, 2, D}, one_band(500, 2500, no_lo, 2000), 1);
        run({200, 4400, 2, 2, D}, long_halves, 2);
    }
    return ok;
}

static bool run_random(AttnKernels kernels, int D, int count, uint64_t seed) {
    static const int heads[4][2] = {{8, 2}, {6, 2}, {8, 1}, {2, 2}};
    bool ok = true;
    draw_index = seed << 40;
    for (int i = 0; i < count; i++) {
        const int *h = heads[i % 4];
        int top = i % 3 ? 300 : 700;
        Shape x = {(int)draw(1, top), (int)draw(1, top), h[0], h[1], D};
        Bands b;
        random_bands(b, 0, x.Sq, 0, x.Sk, (int)draw(0, 6));
        int stages = (int)draw(1, 3);
        printf("  random %d: D=%d H=%d/%d %dx%d bands=%zu stages=%d\n", i, D, x.H, x.K, x.Sq, x.Sk,
               b.size(), stages); /* before it runs: it may hang */
        fflush(stdout);
        ok &= run_case("random", Case{x, b, kernels, stages, i % 4 == 3});
    }
    return ok;
}

/* ---- many runs, the same bits ---------------------------------------------------------------- */

/* About normal, of deviation 1. */
__global__ void noise(bf16 *x, size_t n, uint64_t seed) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += gridDim.x * blockDim.x) {
        uint64_t z = (i + seed * 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9; /* splitmix64 */
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += (float)(z >> (16 * k) & 0xffff) / 65536.0f - 0.5f;
        x[i] = __float2bfloat16(sum * 1.732f);
    }
}

__global__ void count_differences(unsigned long long *count, const uint32_t *a, const uint32_t *b,
                                  size_t n) {
    unsigned long long mine = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += gridDim.x * blockDim.x)
        mine += a[i] != b[i];
    if (mine) atomicAdd(count, mine);
}

struct Inputs {
    Buffer<bf16> q, kv, d_o, o;
    Buffer<float> lse, delta, dq, dkv;
    AttnWork *work;
    Shape shape;
    void create(Shape x, const Bands &bands, AttnKernels kernels) {
        shape = x;
        q.create((size_t)x.Sq * x.H * x.D);
        kv.create((size_t)x.Sk * 2 * x.K * x.D);
        d_o.create(q.n);
        o.create(q.n);
        lse.create((size_t)x.H * x.Sq);
        delta.create(lse.n);
        dq.create(q.n);
        dkv.create(kv.n);
        noise<<<1024, 256, 0, test_stream.s>>>(q.d, q.n, 1);
        noise<<<1024, 256, 0, test_stream.s>>>(kv.d, kv.n, 2);
        noise<<<1024, 256, 0, test_stream.s>>>(d_o.d, d_o.n, 3);
        work = make_work(bands, x, kernels);
    }
    void destroy() {
        cuda_attn_work_free(work);
        q.destroy();
        kv.destroy();
        d_o.destroy();
        o.destroy();
        lse.destroy();
        delta.destroy();
        dq.destroy();
        dkv.destroy();
    }
    void fwd() {
        AttnFwd a = {};
        a.o = o.d, a.lse = lse.d, a.q = q.d, a.kv = kv.d, a.work = work;
        cuda_attention_fwd(&a, &test_stream);
    }
    void prepare() {
        fwd();
        cuda_attention_delta(delta.d, d_o.d, o.d, shape.Sq, shape.H, shape.D, &test_stream);
    }
    void bwd() {
        AttnBwd a = {};
        a.dq = dq.d, a.dkv = dkv.d, a.d_o = d_o.d, a.q = q.d, a.kv = kv.d;
        a.lse = lse.d, a.delta = delta.d, a.work = work;
        cuda_attention_bwd(&a, &test_stream);
    }
};

static Bands named_bands(const char *mask, int S) {
    if (!strcmp(mask, "causal")) return one_band(S, S, BAND_NO_LO, 0);
    if (!strcmp(mask, "full")) return one_band(S, S, BAND_NO_LO, BAND_NO_HI);
    if (!strcmp(mask, "window")) return one_band(S, S, -1023, 0);
    std::vector<int32_t> begin((size_t)S + 1);
    int64_t n = synthetic_documents(0, S, begin.data());
    begin[(size_t)n] = S;
    std::vector<int> lengths;
    for (size_t i = 0; i < (size_t)n; i++) lengths.push_back(begin[i + 1] - begin[i]);
    return documents_bands(lengths);
}

/* Forward and backward of the same numbers, for so many seconds and at least 100 times: the same
 * bits.
 */
static bool repeat(const char *mask, int S, int D, double seconds) {
    Inputs b;
    b.create(Shape{S, S, D == 64 ? 32 : 24, 8, D}, named_bands(mask, S), ATTN_BEST);
    Buffer<float> dq, dkv;
    Buffer<bf16> o;
    Buffer<unsigned long long> count;
    dq.create(b.dq.n);
    dkv.create(b.dkv.n);
    o.create(b.o.n);
    count.create(1);
    test_ops.deterministic = true;
    CU(cudaMemsetAsync(count.d, 0, 8, test_stream.s));
    b.prepare();
    b.bwd();
    CU(cudaMemcpyAsync(dq.d, b.dq.d, dq.n * 4, cudaMemcpyDefault, test_stream.s));
    CU(cudaMemcpyAsync(dkv.d, b.dkv.d, dkv.n * 4, cudaMemcpyDefault, test_stream.s));
    CU(cudaMemcpyAsync(o.d, b.o.d, o.n * 2, cudaMemcpyDefault, test_stream.s));
    auto compare = [&](const void *first, const void *now, size_t words) {
        count_differences<<<1024, 256, 0, test_stream.s>>>(count.d, (uint32_t *)first,
                                                           (uint32_t *)now, words);
    };
    unsigned long long differ = 0;
    int runs = 1;
    for (double end = time_now() + seconds; differ == 0 && (runs == 1 || time_now() < end);) {
        for (int i = 0; i < 99; i++, runs++) {
            b.fwd();
            b.bwd();
            compare(dq.d, b.dq.d, dq.n);
            compare(dkv.d, b.dkv.d, dkv.n);
            compare(o.d, b.o.d, o.n / 2);
        }
        differ = count.get()[0];
    }
    CU(cudaGetLastError());
    printf("  %s %s D=%d S=%d: %llu words differ in %d runs\n", differ ? "FAIL" : "ok  ", mask, D,
           S, differ, runs);
    b.destroy();
    dq.destroy();
    dkv.destroy();
    o.destroy();
    count.destroy();
    return differ == 0;
}

static bool run_repeat(int D) {
    bool ok = repeat("causal", 2048, D, 0);
    ok &= repeat("causal", 8192, D, 0);
    ok &= repeat("full", 4096, D, 0);
    ok &= repeat("docs", 8192, D, 0);
    return repeat("window", 8192, D, 0) && ok;
}

/* Many items a CTA: the rings wrap many times. */
static bool run_long(AttnKernels kernels, int D) {
    Case causal = {{2048, 2048, 16, 4, D}, one_band(2048, 2048, BAND_NO_LO, 0), kernels, 1, false};
    Case documents = {
        {2000, 2000, 24, 8, D}, documents_bands({300, 650, 17, 400, 129, 504}), kernels, 1, false};
    bool ok = run_case("long causal", causal);
    return run_case("long documents", documents) && ok;
}

/* The first GPU as the program opens it (work lists go up through its page-locked memory). */
static void open_gpu() {
    const Ops *ops;
    gpu_open(&ops);
    CU(cudaStreamCreateWithFlags(&test_stream.s, cudaStreamNonBlocking));
}

static bool run_group(const char *group) {
    int D = 0, n = 0;
    open_gpu();
    if (sscanf(group, "portable-named-%d", &D) == 1) return run_named(ATTN_PORTABLE, D, false);
    if (sscanf(group, "sm90-small-%d", &D) == 1) { /* for compute-sanitizer */
        Case c = {{200, 200, 4, 2, D}, documents_bands({130, 70}), ATTN_BEST, 1, false};
        Case rows = {
            {200, 2200, 2, 1, D}, one_band(200, 2200, BAND_NO_LO, 2100), ATTN_BEST, 1, false};
        return run_case("documents", c) & run_case("long rows", rows);
    }
    if (sscanf(group, "sm90-named-%d", &D) == 1) return run_named(ATTN_BEST, D, false);
    if (sscanf(group, "sm90-hard-%d", &D) == 1) return run_hard(ATTN_BEST, D);
    if (sscanf(group, "portable-hard-%d", &D) == 1) return run_hard(ATTN_PORTABLE, D);
    if (sscanf(group, "sm90-any-%d", &D) == 1) return run_named(ATTN_BEST, D, true);
    if (sscanf(group, "sm90-repeat-%d", &D) == 1) return run_repeat(D);
    if (sscanf(group, "portable-random-%d-%d", &D, &n) == 2)
        return run_random(ATTN_PORTABLE, D, n, (uint64_t)D);
    if (sscanf(group, "sm90-random-%d-%d", &D, &n) == 2)
        return run_random(ATTN_BEST, D, n, 1000 + (uint64_t)D);
    if (sscanf(group, "sm90-remote-%d", &D) == 1) return run_remote(ATTN_BEST, D);
    if (sscanf(group, "portable-remote-%d", &D) == 1) return run_remote(ATTN_PORTABLE, D);
    if (sscanf(group, "sm90-long-%d", &D) == 1) return run_long(ATTN_BEST, D);
    if (sscanf(group, "portable-long-%d", &D) == 1) return run_long(ATTN_PORTABLE, D);
    printf("unknown group %s\n", group);
    return false;
}

/* ---- children -------------------------------------------------------------------------------- */

static char *own_path;

static pid_t start_child(const char *mode, const char *what) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl(own_path, own_path, mode, what, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Whether there is a GPU, which a process that forks must not ask itself; 0, or the exit status. */
static int no_gpu() {
    int status = 0;
    waitpid(start_child("open", NULL), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static bool in_child(const char *mode, const char *what, int seconds) {
    pid_t pid = start_child(mode, what);
    int status = 0;
    double limit = time_now() + seconds;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (time_now() > limit) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            printf("FAIL %s: no end after %d s\n", what, seconds);
            return false;
        }
        usleep(5000);
    }
    if (WIFSIGNALED(status))
        printf("FAIL %s: signal %d\n", what, WTERMSIG(status));
    else if (WEXITSTATUS(status))
        printf("FAIL %s: exit %d\n", what, WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    own_path = (char *)"/proc/self/exe";
    const char *mode = argc > 1 ? argv[1] : "test";
    if (!strcmp(mode, "group") && argc > 2) return run_group(argv[2]) ? 0 : 1;
    if (!strcmp(mode, "open")) {
        open_gpu();
        return 0;
    }
    if (!strcmp(mode, "soak") && argc > 3) {
        open_gpu();
        bool ok = repeat("causal", 8192, atoi(argv[3]), atof(argv[2]));
        printf("%d passed, %d failed\n", ok, !ok);
        return !ok;
    }
    if (!strcmp(mode, "once") && argc > 4) {
        open_gpu();
        int D = atoi(argv[3]), S = atoi(argv[4]);
        Shape x = {S, S, D == 64 ? 32 : 24, 8, D};
        Inputs b;
        b.create(x, named_bands("causal", S), ATTN_BEST);
        b.prepare();
        if (!strcmp(argv[2], "bwd")) b.bwd();
        CU(cudaStreamSynchronize(test_stream.s));
        return 0;
    }
    int failed = 0, total = 0;
    if (!strcmp(mode, "test")) {
        if (int status = no_gpu()) return status;
        static const char *const groups[] = {
            "portable-named-64",     "portable-named-128",    "sm90-named-64",
            "sm90-named-128",        "sm90-hard-64",          "sm90-hard-128",
            "portable-hard-64",      "sm90-any-64",           "sm90-any-128",
            "sm90-random-64-80",     "sm90-random-128-40",    "sm90-repeat-64",
            "sm90-repeat-128",       "sm90-long-64",          "sm90-long-128",
            "portable-random-48-8",  "portable-random-64-12", "portable-random-128-12",
            "portable-random-112-8", "portable-random-96-6",  "portable-random-16-4",
            "portable-long-64",      "portable-long-128",     "sm90-remote-64",
            "sm90-remote-128",       "portable-remote-64"};
        for (const char *g : groups) {
            if (argc > 2 && !strstr(g, argv[2])) continue;
            double t0 = time_now();
            bool ok = in_child("group", g, 20);
            printf("%s %s (%.1f s)\n", ok ? "PASS" : "FAIL", g, time_now() - t0);
            failed += !ok;
            total++;
        }
    }
    if (total == 0) {
        printf("usage: gpu_attention test [filter] | soak SECONDS D | once fwd|bwd D S\n");
        return 2;
    }
    printf("%d passed, %d failed\n", total - failed, failed);
    return failed != 0;
}
