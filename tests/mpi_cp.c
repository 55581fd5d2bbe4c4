/* ranks: 1 2 3 4 5 7 8
 * Every runtime over MPI against dense attention in fp64: MagiAttention's mask cases (scaled down)
 * and random band lists, forward and backward. `mpi_cp N` draws N lists (default 300). Then magi in
 * one call, as GPUs run it that read each other's memory: here a group is over when its keys have
 * to be there, and may begin when the call is over. */
#include "cp_dense.h"

/* ---- GPUs that read each other's memory, acted ------------------------------------------------
 */

static struct {
    Comm *inner;
    const Ops *ops;
    uint32_t *flags[COMM_GROUP_FLAGS_MAX]; /* that the open group sets */
    int n_flags;
    int64_t received;     /* elements since the last flag */
    const AttnWork *work; /* the last with remote KV, and its ranges */
    RemoteKv remote;
    int64_t width; /* of a row of keys */
    float *keys;
} act;

static Status act_begin(Comm *c) {
    (void)c;
    act.n_flags = 0;
    act.received = 0;
    return comm_group_begin(act.inner);
}
static Status act_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    (void)c;
    return comm_send(act.inner, buf, n, t, peer, COMM_KIND_KV);
}
static Status act_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    (void)c;
    act.received += n;
    return comm_recv(act.inner, buf, n, t, peer);
}
static Status act_set_flag(Comm *c, uint32_t *flag) {
    (void)c;
    int64_t range = flag - act.remote.kv_ready;
    EXPECT(range >= 0 && range < act.remote.n, "range %lld", (long long)range);
    Range rows = act.remote.rows[range];
    EXPECT(act.received == (rows.end - rows.begin) * act.width, "%lld elements of range %lld",
           (long long)act.received, (long long)range);
    act.received = 0;
    act.flags[act.n_flags++] = flag;
    return OK;
}
static Status act_wait_value(Comm *c, const uint32_t *flag, uint32_t value) {
    (void)c;
    EXPECT(*flag == value, "a group begins at count %u, not %u", *flag, value);
    return OK;
}
static Status act_end(Comm *c, Stream *stream, CommTicket *ticket) {
    (void)c;
    CHECK(comm_group_end(act.inner, stream, ticket));
    if (act.n_flags == 0) return OK;
    EXPECT(act.received == 0, "%lld elements without a flag", (long long)act.received);
    CHECK(comm_wait(act.inner, *ticket, stream));
    ticket->id = 0;
    for (int i = 0; i < act.n_flags; i++) *act.flags[i] = 1;
    return OK;
}
static Status act_wait(Comm *c, CommTicket ticket, Stream *stream) {
    (void)c;
    return comm_wait(act.inner, ticket, stream);
}

static Status act_work_create(AttnWork **work, const Band *bands, int64_t n, AttnShape shape,
                              const RemoteKv *remote, Stream *stream) {
    CHECK(act.ops->attn_work_create(work, bands, n, shape, NULL, stream));
    if (remote == NULL) return OK;
    act.work = *work, act.remote = *remote, act.width = 2 * shape.K * shape.D;
    int32_t end = -1;
    for (int i = 0; i < remote->n; i++) { /* as RemoteKv promises */
        Range rows = remote->rows[i];
        EXPECT(rows.begin >= end + ATTN_PAD_ROWS && rows.end >= rows.begin, "range %d", i);
        EXPECT(remote->est_ready_us[i] > 0, "range %d is ready after %g us", i,
               (double)remote->est_ready_us[i]);
        end = rows.end;
        for (int64_t b = 0; b < n; b++) {
            bool inside = bands[b].k_begin >= rows.begin && bands[b].k_end <= rows.end;
            bool outside =
                bands[b].k_end <= rows.begin - ATTN_PAD_ROWS || bands[b].k_begin >= rows.end;
            EXPECT(inside || outside, "band %lld has keys of two ranges", (long long)b);
        }
    }
    EXPECT(end == shape.Sk, "the buffer ends behind the last range");
    return OK;
}
static void expect_arrived(const AttnWork *work) {
    for (int i = 0; work == act.work && i < act.remote.n; i++)
        EXPECT(act.remote.kv_ready[i] == 1, "range %d is not ready", i);
}
/* Local keys, padding of zeros, remote keys. */
static const void *act_keys(const AttnWork *work, const void *kv) {
    if (work != act.work) return kv;
    int64_t begin = act.remote.rows[0].begin, end = act.remote.rows[act.remote.n - 1].end;
    act.keys = mem_grow(act.keys, end * act.width, sizeof *act.keys);
    memcpy(act.keys, kv, (size_t)((begin - ATTN_PAD_ROWS) * act.width) * sizeof *act.keys);
    memset(act.keys + (begin - ATTN_PAD_ROWS) * act.width, 0,
           ATTN_PAD_ROWS * act.width * sizeof *act.keys);
    memcpy(act.keys + begin * act.width, act.remote.kv,
           (size_t)((end - begin) * act.width) * sizeof *act.keys);
    return act.keys;
}
static void act_fwd(const AttnFwd *a, Stream *stream) {
    AttnFwd mine = *a;
    expect_arrived(a->work);
    mine.kv = act_keys(a->work, a->kv);
    act.ops->attention_fwd(&mine, stream);
}
static void act_bwd(const AttnBwd *a, Stream *stream) {
    AttnBwd mine = *a;
    expect_arrived(a->work);
    mine.kv = act_keys(a->work, a->kv);
    act.ops->attention_bwd(&mine, stream);
    for (int i = 0; a->work == act.work && i < act.remote.n; i++) act.remote.dkv_done[i]++;
}

static void run_acted(Side *side, uint64_t lists) {
    static const CommTable table = {.group_begin = act_begin,
                                    .send = act_send,
                                    .recv = act_recv,
                                    .group_end = act_end,
                                    .wait = act_wait,
                                    .group_set_flag_on_recv = act_set_flag,
                                    .group_wait_value = act_wait_value};
    Comm comm = {
        .rank = side->comm->rank, .size = side->comm->size, .has_flags = true, .table = &table};
    Ops ops = *side->ops;
    ops.attn_work_create = act_work_create;
    ops.attention_fwd = act_fwd;
    ops.attention_bwd = act_bwd;
    act.inner = side->comm, act.ops = side->ops;
    Side acted = {
        .ops = &ops, .comm = &comm, .D = side->D, .fused = true, .tolerance = side->tolerance};
    dense_run_cases(&acted, lists);
    if (comm.size <= 4) dense_run_large(&acted);
    EXPECT(comm.size == 1 || act.work != NULL, "magi never made one call");
    side->runs += acted.runs;
    side->worst = fmax(side->worst, acted.worst);
}

int main(int argc, char **argv) {
    comm_start();
    uint64_t lists = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
    Side side = {.ops = cpu_ops(), .D = 4, .tolerance = 1e-5};
    EXPECT_OK(comm_mpi_create(&side.comm));
    dense_run_cases(&side, lists);
    if (side.comm->size <= 4) dense_run_long(&side);
    run_acted(&side, lists);
    if (side.comm->rank == 0)
        printf("%lld runs on %d ranks agree with dense attention within %.1e\n",
               (long long)side.runs, side.comm->size, side.worst);
    comm_free(side.comm);
    comm_finish(0);
    return 0;
}
