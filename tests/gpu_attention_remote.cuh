/* gpu_attention_remote.cuh: calls whose remote KV arrives, and whose remote dKV leaves, while they
 * run. */
#ifndef CRIA_TESTS_GPU_ATTENTION_REMOTE_CUH
#define CRIA_TESTS_GPU_ATTENTION_REMOTE_CUH

#include "gpu_attention_case.cuh"

struct Remote {
    Shape x;
    RemoteKv remote;
    Bands bands;
    Buffer<bf16> kv;
    Buffer<uint32_t> flags;
    bf16 *kv_host; /* page-locked, so that copies need no kernel */
    float *dkv_host;
    uint32_t *word;
    cudaStream_t side;
    size_t width; /* of a row of kv */

    /* late: est_ready_us is so large that tiles are split before each range */
    void create(int Sq, int H, int D, const std::vector<int> &rows, bool causal, bool late) {
        remote = {};
        int row = rows[0];
        auto cut = [&](int begin, int end) {
            if (causal && begin < end) add_band(bands, 0, Sq, begin, end, BAND_NO_LO, end - Sq);
            if (!causal && begin < end) random_bands(bands, 0, Sq, begin, end, 3);
        };
        cut(0, row);
        for (size_t i = 1; i < rows.size(); i++) {
            row += ATTN_PAD_ROWS;
            remote.est_ready_us[remote.n] = late ? 1e6f : 0;
            remote.rows[remote.n++] = Range{row, row + rows[i]};
            cut(row, row + rows[i]);
            row += rows[i];
        }
        x = Shape{Sq, row, H, H / 4, D};
        width = (size_t)2 * x.K * D;
        kv.create(width * x.Sk);
        flags.create(2 * ATTN_REMOTE_RANGES);
        flags.put(std::vector<uint32_t>(flags.n, 1)); /* all ready, each dKV done once */
        remote.kv_ready = flags.d;
        remote.dkv_done = flags.d + ATTN_REMOTE_RANGES;
        CU(cudaMallocHost((void **)&kv_host, kv.n * sizeof(bf16)));
        CU(cudaMallocHost((void **)&dkv_host, kv.n * sizeof(float)));
        CU(cudaMallocHost((void **)&word, sizeof *word));
        CU(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
        std::vector<bf16> values = random_bf16(kv.n, 11, 1.0);
        remote.kv = kv.d + remote.rows[0].begin * width;
        for (int i = 0; i < remote.n; i++)
            std::fill_n(values.begin() +
                            (ptrdiff_t)((remote.rows[i].begin - ATTN_PAD_ROWS) * width),
                        ATTN_PAD_ROWS * width, __float2bfloat16(0));
        memcpy(kv_host, values.data(), kv.n * sizeof(bf16));
        kv.put(values);
    }
    /* Leaves only local keys and padding. */
    void hide() {
        CU(cudaMemsetAsync(remote.kv_ready, 0, 4 * ATTN_REMOTE_RANGES, test_stream.s));
        for (int i = 0; i < remote.n; i++)
            CU(cudaMemsetAsync(kv.d + remote.rows[i].begin * width, 0xff,
                               (remote.rows[i].end - remote.rows[i].begin) * width * sizeof(bf16),
                               test_stream.s));
        CU(cudaStreamSynchronize(test_stream.s));
    }
    void arrive() {
        *word = 1;
        for (int i = 0; i < remote.n; i++) {
            size_t at = remote.rows[i].begin * width;
            usleep(1000);
            CU(cudaMemcpyAsync(kv.d + at, kv_host + at,
                               (remote.rows[i].end * width - at) * sizeof(bf16),
                               cudaMemcpyHostToDevice, side));
            CU(cudaMemcpyAsync(&remote.kv_ready[i], word, 4, cudaMemcpyHostToDevice, side));
        }
        CU(cudaStreamSynchronize(side));
    }
    /* Fetches the dKV of each range when it is done; false when it is not within 5 s. */
    bool fetch_dkv(const float *dkv, uint32_t times) {
        for (int i = 0; i < remote.n; i++) {
            double limit = time_now() + 5;
            for (*word = 0; *word < times;) {
                CU(cudaMemcpyAsync(word, &remote.dkv_done[i], 4, cudaMemcpyDeviceToHost, side));
                CU(cudaStreamSynchronize(side));
                if (time_now() > limit) return false;
            }
            size_t at = remote.rows[i].begin * width;
            CU(cudaMemcpyAsync(dkv_host + at, dkv + at,
                               (remote.rows[i].end * width - at) * sizeof(float),
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

static bool run_remote_case(AttnKernels kernels, int Sq, int H, int D, const std::vector<int> &rows,
                            bool causal, bool late) {
    Remote a;
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
    /* a call reads the first padding from neither of the two buffers */
    CU(cudaMemset(a.kv.d + (a.remote.rows[0].begin - ATTN_PAD_ROWS) * a.width, 0xff,
                  ATTN_PAD_ROWS * a.width * sizeof(bf16)));
    AttnWork *work = NULL;
    AttnShape shape = {x.Sq, x.Sk, x.H, x.K, D, scale};
    REQUIRE(cuda_attn_work_create_as(kernels, &work, a.bands.data(), (int64_t)a.bands.size(), shape,
                                     &a.remote, &test_stream) == OK);
    AttnFwd fwd = {};
    fwd.o = o.d, fwd.o_acc = o_acc.d, fwd.lse = lse.d, fwd.q = q.d, fwd.kv = a.kv.d;
    fwd.work = work;
    AttnBwd bwd = {};
    bwd.dq = dq.d, bwd.dkv = dkv.d, bwd.d_o = d_o.d, bwd.q = q.d, bwd.kv = a.kv.d;
    bwd.lse = lse.d, bwd.delta = delta.d, bwd.work = work;
    Worst worst = {};
    bool ok = true;
    for (uint32_t repeat = 1; repeat <= 4 && ok; repeat++) {
        test_ops.deterministic = repeat == 2;
        o.poison();
        o_acc.poison();
        lse.poison();
        dq.poison();
        dkv.poison();
        /* the first time all ranges are ready: a kernel's first launch may wait for running kernels
         */
        if (repeat > 1) a.hide();
        cuda_attention_fwd(&fwd, &test_stream);
        a.arrive();
        cuda_attention_delta(delta.d, d_o.d, o.d, x.Sq, x.H, D, &test_stream);
        if (repeat > 1) a.hide();
        cuda_attention_bwd(&bwd, &test_stream);
        a.arrive();
        ok = a.fetch_dkv(dkv.d, 1 + repeat);
        if (!ok) printf("    the dKV of a range was never done\n");
        std::vector<float> end = dkv.get();
        for (int i = 0; i < a.remote.n; i++) {
            size_t at = a.remote.rows[i].begin * a.width;
            size_t n = a.remote.rows[i].end * a.width - at;
            if (n && memcmp(a.dkv_host + at, &end[at], n * sizeof(float)) != 0) {
                printf("    range %d was done before its dKV was complete\n", i);
                ok = false;
            }
            for (size_t g = at - ATTN_PAD_ROWS * a.width; g < at; g++) end[g] = 0; /* not written */
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

static bool run_remote(AttnKernels kernels, int D) {
    static const std::vector<int> keys[] = {
        {300, 300},     {300, 300, 300, 300}, {1000, 77, 0, 1, 640, 128, 0, 300},
        {300, 0, 0, 0}, {64, 700, 2000},      {600, 600, 600, 600}};
    bool ok = true;
    for (int mode = 0; mode < 4; mode++)
        for (const std::vector<int> &rows : keys)
            ok &= run_remote_case(kernels, 300, 8, D, rows, mode & 1, mode & 2);
    /* more items than CTAs: splits pass from one to another */
    return run_remote_case(kernels, 2000, 16, D, {1024, 1000, 512}, true, true) && ok;
}

#endif
