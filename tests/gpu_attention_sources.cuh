/* gpu_attention_sources.cuh: calls whose keys arrive, and whose gradients leave, while they run. */
#ifndef CRIA_TESTS_GPU_ATTENTION_SOURCES_CUH
#define CRIA_TESTS_GPU_ATTENTION_SOURCES_CUH

#include "gpu_attention_case.cuh"

struct Arrivals {
    Shape x;
    AttnSources sources;
    Bands bands;
    Buffer<bf16> kv;
    Buffer<uint32_t> flags;
    bf16 *kv_host; /* page-locked, so that copies need no kernel */
    float *dkv_host;
    uint32_t *word;
    cudaStream_t side;
    size_t width; /* of a row of kv */

    /* late: sources say that they take so long that tiles are cut before each */
    void create(int Sq, int H, int D, const std::vector<int> &rows, bool causal, bool late) {
        sources = {};
        int row = rows[0];
        auto cut = [&](int begin, int end) {
            if (causal && begin < end) add_band(bands, 0, Sq, begin, end, BAND_NO_LO, end - Sq);
            if (!causal && begin < end) random_bands(bands, 0, Sq, begin, end, 3);
        };
        cut(0, row);
        for (size_t i = 1; i < rows.size(); i++) {
            row += ATTN_GAP;
            sources.arrival_us[sources.n] = late ? 1e6f : 0;
            sources.rows[sources.n++] = Range{row, row + rows[i]};
            cut(row, row + rows[i]);
            row += rows[i];
        }
        x = Shape{Sq, row, H, H / 4, D};
        width = (size_t)2 * x.K * D;
        kv.create(width * x.Sk);
        flags.create(2 * ATTN_SOURCES);
        flags.put(std::vector<uint32_t>(flags.n, 1)); /* all there, each has left once */
        sources.arrived = flags.d;
        sources.departed = flags.d + ATTN_SOURCES;
        CU(cudaMallocHost((void **)&kv_host, kv.n * sizeof(bf16)));
        CU(cudaMallocHost((void **)&dkv_host, kv.n * sizeof(float)));
        CU(cudaMallocHost((void **)&word, sizeof *word));
        CU(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
        std::vector<bf16> values = random_bf16(kv.n, 11, 1.0);
        sources.kv = kv.d + sources.rows[0].begin * width;
        for (int i = 0; i < sources.n; i++)
            std::fill_n(values.begin() + (ptrdiff_t)((sources.rows[i].begin - ATTN_GAP) * width),
                        ATTN_GAP * width, __float2bfloat16(0));
        memcpy(kv_host, values.data(), kv.n * sizeof(bf16));
        kv.put(values);
    }
    /* Only own keys and gaps are there. */
    void hide() {
        CU(cudaMemsetAsync(sources.arrived, 0, 4 * ATTN_SOURCES, test_stream.s));
        for (int i = 0; i < sources.n; i++)
            CU(cudaMemsetAsync(kv.d + sources.rows[i].begin * width, 0xff,
                               (sources.rows[i].end - sources.rows[i].begin) * width * sizeof(bf16),
                               test_stream.s));
        CU(cudaStreamSynchronize(test_stream.s));
    }
    void arrive() {
        *word = 1;
        for (int i = 0; i < sources.n; i++) {
            size_t at = sources.rows[i].begin * width;
            usleep(1000);
            CU(cudaMemcpyAsync(kv.d + at, kv_host + at,
                               (sources.rows[i].end * width - at) * sizeof(bf16),
                               cudaMemcpyHostToDevice, side));
            CU(cudaMemcpyAsync(&sources.arrived[i], word, 4, cudaMemcpyHostToDevice, side));
        }
        CU(cudaStreamSynchronize(side));
    }
    /* What leaves, as soon as it may; false when it does not within seconds. */
    bool depart(const float *dkv, uint32_t times) {
        for (int i = 0; i < sources.n; i++) {
            double limit = time_now() + 5;
            for (*word = 0; *word < times;) {
                CU(cudaMemcpyAsync(word, &sources.departed[i], 4, cudaMemcpyDeviceToHost, side));
                CU(cudaStreamSynchronize(side));
                if (time_now() > limit) return false;
            }
            size_t at = sources.rows[i].begin * width;
            CU(cudaMemcpyAsync(dkv_host + at, dkv + at,
                               (sources.rows[i].end * width - at) * sizeof(float),
                               cudaMemcpyDeviceToHost, side));
        }
        CU(cudaStreamSynchronize(side));
        return true;
    }
    void destroy() {
        kv.destroy();
        flags.destroy();
        CU(cudaFreeHost(kv_host));
        CU(cudaFreeHost(dkv_host));
        CU(cudaFreeHost(word));
        CU(cudaStreamDestroy(side));
    }
};

static bool run_arrivals(AttnKernels kernels, int Sq, int H, int D, const std::vector<int> &rows,
                         bool causal, bool late) {
    Arrivals a;
    a.create(Sq, H, D, rows, causal, late);
    const Shape x = a.x;
    Buffer<bf16> q, d_o, o;
    Buffer<float> o_acc, lse, delta, dq, dkv;
    q.create((size_t)x.Sq * x.H * D);
    d_o.create(q.n);
    o.create(q.n);
    o_acc.create(q.n);
    lse.create((size_t)x.H * x.Sq);
    delta.create(lse.n);
    dq.create(q.n);
    dkv.create(a.kv.n);
    q.put(random_bf16(q.n, 10, 2.0));
    d_o.put(random_bf16(q.n, 12, 1.0));
    const float scale = (float)(1 / sqrt((double)D));
    Reference ref = reference(a.bands, x, (double)scale, q.d, a.kv.d, d_o.d);
    /* the first gap is in neither of the two buffers, to calls */
    CU(cudaMemset(a.kv.d + (a.sources.rows[0].begin - ATTN_GAP) * a.width, 0xff,
                  ATTN_GAP * a.width * sizeof(bf16)));
    AttnWork *work = NULL;
    AttnShape shape = {x.Sq, x.Sk, x.H, x.K, D, scale};
    REQUIRE(cuda_attn_work_create_as(kernels, &work, a.bands.data(), (int64_t)a.bands.size(), shape,
                                     &a.sources, &test_stream) == OK);
    Worst worst = {};
    bool ok = true;
    for (uint32_t repeat = 1; repeat <= 4 && ok; repeat++) {
        cuda_attention_deterministic(repeat == 2);
        o.poison();
        o_acc.poison();
        lse.poison();
        dq.poison();
        dkv.poison();
        /* everything is there at first: a kernel's first launch may wait for those that run */
        if (repeat > 1) a.hide();
        cuda_attention_fwd(o.d, o_acc.d, lse.d, q.d, a.kv.d, work, false, &test_stream);
        a.arrive();
        cuda_attention_delta(delta.d, d_o.d, o.d, x.Sq, x.H, D, &test_stream);
        if (repeat > 1) a.hide();
        cuda_attention_bwd(dq.d, dkv.d, d_o.d, q.d, a.kv.d, lse.d, delta.d, work, false, false,
                           &test_stream);
        a.arrive();
        ok = a.depart(dkv.d, 1 + repeat);
        if (!ok) printf("    a source's gradients never left\n");
        std::vector<float> end = dkv.get();
        for (int i = 0; i < a.sources.n; i++) {
            size_t at = a.sources.rows[i].begin * a.width;
            size_t n = a.sources.rows[i].end * a.width - at;
            if (n && memcmp(a.dkv_host + at, &end[at], n * sizeof(float)) != 0) {
                printf("    source %d left before it was complete\n", i);
                ok = false;
            }
            for (size_t g = at - ATTN_GAP * a.width; g < at; g++) end[g] = 0; /* not written */
        }
        ok &= agrees("o", o.get(), ref.exact.o, &ref.rounded.o, x.H, D, 6e-3, 0.01, &worst);
        ok &= agrees("dq", dq.get(), ref.exact.dq, &ref.rounded.dq, x.H, D, 1e-2, 0.3, &worst);
        ok &= agrees("dkv", end, ref.exact.dkv, &ref.rounded.dkv, 2 * x.K, D, 1e-2, 0.3, &worst);
    }
    bool guards = o.guards_whole() && o_acc.guards_whole() && lse.guards_whole() &&
                  dq.guards_whole() && dkv.guards_whole() && a.flags.guards_whole();
    if (!guards) printf("    a buffer's sentinels were overwritten\n");
    printf("  %s D=%d keys %d", ok && guards ? "ok  " : "FAIL", D, rows[0]);
    for (size_t i = 1; i < rows.size(); i++) printf(" + %d", rows[i]);
    printf(", %zu bands%s: error %.1e (%.2f of bf16's)\n", a.bands.size(), late ? ", late" : "",
           worst.error, worst.ratio);
    fflush(stdout);
    cuda_attn_work_free(work);
    a.destroy();
    q.destroy();
    d_o.destroy();
    o.destroy();
    o_acc.destroy();
    lse.destroy();
    delta.destroy();
    dq.destroy();
    dkv.destroy();
    return ok && guards;
}

static bool run_sources(AttnKernels kernels, int D) {
    static const std::vector<int> keys[] = {
        {300, 300},     {300, 300, 300, 300}, {1000, 77, 0, 1, 640, 128, 0, 300},
        {300, 0, 0, 0}, {64, 700, 2000},      {600, 600, 600, 600}};
    bool ok = true;
    for (int mode = 0; mode < 4; mode++)
        for (const std::vector<int> &rows : keys)
            ok &= run_arrivals(kernels, 300, 8, D, rows, mode & 1, mode & 2);
    /* more items than CTAs: parts pass from one to another */
    return run_arrivals(kernels, 2000, 16, D, {1024, 1000, 512}, true, true) && ok;
}

#endif
