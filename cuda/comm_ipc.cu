/* comm_ipc.cu: the receiver pulls. Every rank's memory is mapped into its peers through CUDA IPC;
 * a group's messages are copied by the copy engines from the sender's buffer to the receiver's,
 * without packing, without a kernel that takes multiprocessors from the attention, and without
 * NCCL.
 *
 * What a rank sends in a group it posts on a board in shared host memory: where each message lies.
 * GPUs order themselves by interprocess events, two of each rank for each of the last RING groups:
 *   ready   what this rank sends is there (recorded after the work of the caller's stream)
 *   pulled  this rank has received everything
 * A wait for such an event means its latest record at the time of the call, so hosts follow each
 * other through the board: a receiver enqueues its wait after the sender's post, a sender its own
 * after the receiver has enqueued its copies. Later records of an event come later in the same
 * stream, which makes them safe to wait for too. Hosts run ahead of their GPUs by much more than
 * they wait here for each other. */
#include "comm_ipc.h"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "comm/shared.h"
#include "base/log.h"
}

enum { RING = 16, POSTS = 8192, PROBE_BYTES = 16 << 10 };
/* Of another rank's memory. DAMAGED: copies from it arrive as other bytes. */
typedef enum : uint8_t { UNREACHED, REACHED, DAMAGED } Reach;

typedef struct {
    int64_t offset, bytes;
    int64_t to;
} Post;

typedef struct {                /* written by its rank, read by the others */
    alignas(64) int64_t posted; /* groups whose posts can be read */
    alignas(64) int64_t pulled; /* groups whose copies and `pulled` events are enqueued */
    alignas(64) int64_t closed;
    int64_t n[RING];
    Post posts[RING][POSTS];
} Board;

typedef struct { /* of another rank, as seen from here */
    bool reached;
    char *base; /* its memory */
    cudaEvent_t ready[RING], pulled[RING];
    cudaStream_t copies;
    cudaEvent_t copied;
    bool sent[RING]; /* did this rank send to it? */
} Peer;

struct Peers {
    int rank, size;
    Board *boards; /* [size] */
    int64_t board_bytes;
    char *base;
    int64_t bytes, latest; /* group */
    Peer *peers;           /* [size] */
    bool all;              /* every rank reaches every rank */
    cudaStream_t posts;
    cudaEvent_t handed; /* the caller's stream has come this far */
    /* of the batch of copies from one peer */
    void **to;
    const void **from;
    size_t *sizes;
    int64_t room;
};

typedef struct { /* what ranks tell each other to begin with */
    cudaIpcMemHandle_t memory;
    cudaIpcEventHandle_t ready[RING], pulled[RING];
    int64_t sound;
} Handles;

/* ---- hosts ---------------------------------------------------------------------------------- */

static void publish(int64_t *counter, int64_t value) {
    __atomic_store_n(counter, value, __ATOMIC_RELEASE);
}

/* A rank that is gone is the watchdog's business. */
static void wait_for(const int64_t *counter, int64_t value) {
    for (int64_t spins = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) < value; spins++)
        if (spins > 1000) sched_yield();
}

/* ---- groups --------------------------------------------------------------------------------- */

bool peers_reach(const Peers *p, int rank) {
    return p->peers[rank].reached;
}

bool peers_reach_all(const Peers *p) {
    return p->all;
}

/* Until the others have read what this rank posted RING groups ago. */
static void wait_for_slot(Peers *p, int64_t number) {
    for (int r = 0; r < p->size; r++)
        if (p->peers[r].reached) wait_for(&p->boards[r].pulled, number - RING);
}

static Status post(Peers *p, int64_t number, const Group *group) {
    int slot = (int)(number % RING);
    Board *mine = &p->boards[p->rank];
    int64_t used = 0;
    for (int r = 0; r < p->size; r++) p->peers[r].sent[slot] = false;
    for (int64_t i = 0; i < group->n; i++) {
        const Transfer *t = &group->transfers[i];
        if (!t->send || !p->peers[t->peer].reached) continue;
        int64_t offset = (char *)t->buf - p->base, bytes = t->n * dtype_bytes(t->type);
        REQUIRE(offset >= 0 && offset + bytes <= p->bytes);
        if (used == POSTS)
            return status_fail(ERR_USER,
                               "parallel.chunk_size: a rank sends more than %d pieces at once, "
                               "which needs larger chunks or parallel.transport: nccl",
                               (int)POSTS);
        mine->posts[slot][used++] = Post{offset, bytes, t->peer};
        p->peers[t->peer].sent[slot] = true;
    }
    mine->n[slot] = used;
    publish(&mine->posted, number);
    return OK;
}

static void grow(Peers *p, int64_t n) {
    if (n <= p->room) return;
    p->room = i64_max(64, 2 * n);
    p->to = (void **)mem_grow(p->to, p->room, sizeof *p->to);
    p->from = (const void **)mem_grow(p->from, p->room, sizeof *p->from);
    p->sizes = (size_t *)mem_grow(p->sizes, p->room, sizeof *p->sizes);
}

/* Collects what transfers [begin, end) receive from r, whose i-th message to this rank is the i-th
 * here; *at: how far its posts have been read. */
static int64_t match(Peers *p, int64_t number, int r, const Group *group, int64_t begin,
                     int64_t end, int64_t *at) {
    int slot = (int)(number % RING);
    const Board *board = &p->boards[r];
    int64_t found = 0;
    for (int64_t i = begin; i < end; i++) {
        const Transfer *t = &group->transfers[i];
        if (t->send || t->peer != r) continue;
        while (*at < board->n[slot] && board->posts[slot][*at].to != p->rank) ++*at;
        REQUIRE(*at < board->n[slot] &&
                board->posts[slot][*at].bytes == t->n * dtype_bytes(t->type));
        grow(p, found + 1);
        p->to[found] = t->buf;
        p->from[found] = p->peers[r].base + board->posts[slot][*at].offset;
        p->sizes[found++] = (size_t)board->posts[slot][(*at)++].bytes;
    }
    return found;
}

/* By copy engines, also where ranks share a GPU. */
static void copy(Peers *p, int64_t n, cudaStream_t stream) {
    cudaMemcpyAttributes how = {};
    size_t first = 0;
    if (n == 0) return;
    how.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    how.flags = cudaMemcpyFlagPreferOverlapWithCompute;
    CUDA_CHECK_DEFERRED(
        cudaMemcpyBatchAsync(p->to, p->from, p->sizes, (size_t)n, &how, &first, 1, stream));
}

/* Waits for flags, and raises them, by the stream itself: a kernel might find no room beside the
 * one that counts or waits. */
static Status pass_gate(Gate gate, cudaStream_t stream) {
    static const auto wait =
        (PFN_cuStreamWaitValue32_v11070)cuda_driver_entry("cuStreamWaitValue32", 11070);
    if (wait != NULL &&
        wait(stream, (CUdeviceptr)gate.flag, gate.value, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS)
        return OK;
    return status_fail(ERR_ENV, "the driver cannot wait for a flag in a stream: set "
                                "parallel.transport: nccl");
}

static Status raise(uint32_t *flag, cudaStream_t stream) {
    static const auto write =
        (PFN_cuStreamWriteValue32_v11070)cuda_driver_entry("cuStreamWriteValue32", 11070);
    if (write != NULL && write(stream, (CUdeviceptr)flag, 1, 0) == CUDA_SUCCESS) return OK;
    return status_fail(ERR_ENV, "the driver cannot write a flag from a stream: set "
                                "parallel.transport: nccl");
}

Status peers_begin(Peers *p, int64_t number, const Group *group, cudaStream_t after,
                   cudaStream_t joined) {
    cudaEvent_t ready = p->peers[p->rank].ready[number % RING];
    p->latest = number;
    wait_for_slot(p, number);
    if (group->gate.flag != NULL) {
        CHECK(pass_gate(group->gate, p->posts));
    } else {
        CUDA_CHECK_DEFERRED(cudaEventRecord(p->handed, after));
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(p->posts, p->handed, 0));
    }
    CUDA_CHECK_DEFERRED(cudaEventRecord(ready, p->posts));
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(joined, ready, 0)); /* destinations are free, too */
    return post(p, number, group);
}

static bool receives_from(const Group *group, int r) {
    for (int64_t i = 0; i < group->n; i++)
        if (!group->transfers[i].send && group->transfers[i].peer == r) return true;
    return false;
}

/* Makes `stream` wait until what r sends is there. */
static void wait_for_peer(Peers *p, int64_t number, int r, cudaStream_t stream) {
    wait_for(&p->boards[r].posted, number);
    CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream, p->peers[r].ready[number % RING], 0));
}

/* All that this rank receives comes from r (-1: nothing does): on one stream, signals in between.
 */
static Status pull_one(Peers *p, int64_t number, const Group *group, int r, cudaStream_t joined) {
    int64_t begin = 0, at = 0;
    if (r >= 0) wait_for_peer(p, number, r, joined);
    for (int i = 0; i <= group->n_signals; i++) {
        int64_t end = i < group->n_signals ? group->signals[i].after : group->n;
        if (r >= 0) copy(p, match(p, number, r, group, begin, end, &at), joined);
        if (i < group->n_signals) CHECK(raise(group->signals[i].flag, joined));
        begin = end;
    }
    return OK;
}

static Status pull_all(Peers *p, int64_t number, const Group *group, cudaStream_t joined) {
    for (int step = 1; step <= p->size; step++) { /* each rank begins with another one */
        int r = (p->rank + step) % p->size;
        Peer *peer = &p->peers[r];
        int64_t at = 0;
        if (!peer->reached || !receives_from(group, r)) continue;
        CUDA_CHECK_DEFERRED(
            cudaStreamWaitEvent(peer->copies, p->peers[p->rank].ready[number % RING], 0));
        wait_for_peer(p, number, r, peer->copies);
        copy(p, match(p, number, r, group, 0, group->n, &at), peer->copies);
        CUDA_CHECK_DEFERRED(cudaEventRecord(peer->copied, peer->copies));
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(joined, peer->copied, 0));
    }
    for (int i = 0; i < group->n_signals; i++) CHECK(raise(group->signals[i].flag, joined));
    return OK;
}

Status peers_pull(Peers *p, int64_t number, const Group *group, cudaStream_t joined) {
    int sources = 0, source = -1;
    for (int r = 0; r < p->size; r++) {
        if (!p->peers[r].reached || !receives_from(group, r)) continue;
        source = r;
        sources++;
    }
    CHECK(sources <= 1 ? pull_one(p, number, group, source, joined)
                       : pull_all(p, number, group, joined));
    CUDA_CHECK_DEFERRED(cudaEventRecord(p->peers[p->rank].pulled[number % RING], joined));
    publish(&p->boards[p->rank].pulled, number);
    return cuda_deferred_error();
}

void peers_wait(Peers *p, int64_t number, cudaStream_t stream) {
    int slot = (int)(number % RING);
    bool known = number + RING > p->latest; /* else the slot speaks of a later group */
    for (int r = 0; r < p->size; r++) {
        const Peer *peer = &p->peers[r];
        if (r == p->rank || !(known ? peer->sent[slot] : peer->reached)) continue;
        wait_for(&p->boards[r].pulled, number);
        CUDA_CHECK_DEFERRED(cudaStreamWaitEvent(stream, peer->pulled[slot], 0));
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool make_own(Peers *p, Handles *h) {
    Peer *own = &p->peers[p->rank];
    bool ok = CUDA_CHECK_DEFERRED(cudaStreamCreateWithFlags(&p->posts, cudaStreamNonBlocking)) &&
              CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&p->handed, cudaEventDisableTiming)) &&
              cudaIpcGetMemHandle(&h->memory, p->base) == cudaSuccess;
    for (int i = 0; i < RING && ok; i++) {
        const unsigned flags = cudaEventDisableTiming | cudaEventInterprocess;
        ok = cudaEventCreateWithFlags(&own->ready[i], flags) == cudaSuccess &&
             cudaEventCreateWithFlags(&own->pulled[i], flags) == cudaSuccess &&
             cudaIpcGetEventHandle(&h->ready[i], own->ready[i]) == cudaSuccess &&
             cudaIpcGetEventHandle(&h->pulled[i], own->pulled[i]) == cudaSuccess;
    }
    cudaGetLastError(); /* such GPUs use NCCL */
    return ok;
}

static bool open_peer(Peers *p, int r, const Handles *h) {
    Peer *peer = &p->peers[r];
    void *base = p->base;
    bool ok =
        CUDA_CHECK_DEFERRED(cudaStreamCreateWithFlags(&peer->copies, cudaStreamNonBlocking)) &&
        CUDA_CHECK_DEFERRED(cudaEventCreateWithFlags(&peer->copied, cudaEventDisableTiming));
    if (r != p->rank) {
        ok = ok &&
             cudaIpcOpenMemHandle(&base, h->memory, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess;
        for (int i = 0; i < RING && ok; i++)
            ok = cudaIpcOpenEventHandle(&peer->ready[i], h->ready[i]) == cudaSuccess &&
                 cudaIpcOpenEventHandle(&peer->pulled[i], h->pulled[i]) == cudaSuccess;
    }
    cudaGetLastError();
    peer->base = ok ? (char *)base : NULL;
    return ok;
}

/* ---- whether copies arrive as they were sent --------------------------------------------------
 */

int peers_test_damaged = -1;

static void make_pattern(uint64_t *words, int64_t n, int rank) {
    for (int64_t i = 0; i < n; i++) words[i] = checksum_mix((uint64_t)rank, i);
}

/* Copies r's pattern as groups do, into device memory at `to`. */
static bool arrives(Peers *p, int r, char *to, int64_t n) {
    int64_t bytes = n * (int64_t)sizeof(uint64_t);
    uint64_t *expected = NEW(uint64_t, n), *found = NEW(uint64_t, n);
    make_pattern(expected, n, r);
    CUDA_CHECK_DEFERRED(cudaMemsetAsync(to, 0, (size_t)bytes, p->posts));
    grow(p, 1);
    p->to[0] = to;
    p->from[0] = p->peers[r].base;
    p->sizes[0] = (size_t)bytes;
    copy(p, 1, p->posts);
    CUDA_CHECK_DEFERRED(cudaMemcpyAsync(found, to, (size_t)bytes, cudaMemcpyDefault, p->posts));
    CUDA_CHECK_DEFERRED(cudaStreamSynchronize(p->posts));
    if (r == peers_test_damaged) found[n / 2] ^= 1;
    bool same = memcmp(found, expected, (size_t)bytes) == 0;
    free(expected);
    free(found);
    return same;
}

/* A driver may allow copies between two GPUs that then move other bytes (PCIe behind an IOMMU). So
 * every rank writes a pattern to the beginning of its memory for the others to copy and compare,
 * and puts back what was there. Collective. */
static Status probe(Peers *p, Reach *reach, Comm *host) {
    int64_t bytes = i64_min(PROBE_BYTES, p->bytes / 8 * 8);
    CHECK(comm_all_reduce(host, &bytes, 1, DT_I64, COMM_MIN, COMM_KIND_OTHER, NULL));
    int64_t n = bytes / 8;
    if (n == 0) return OK;
    uint64_t *pattern = NEW(uint64_t, n);
    make_pattern(pattern, n, p->rank);
    CUDA_CHECK_DEFERRED(cudaDeviceSynchronize()); /* whatever still writes there */
    char *kept = (char *)cuda_scratch_new(2 * bytes, "copies between GPUs", p->posts);
    auto move = [&](void *to, const void *from) {
        if (kept == NULL) return;
        CUDA_CHECK_DEFERRED(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, p->posts));
        CUDA_CHECK_DEFERRED(cudaStreamSynchronize(p->posts));
    };
    move(kept, p->base);
    move(p->base, pattern);
    Status st = comm_barrier(host);
    for (int r = 0; r < p->size && st == OK && kept != NULL; r++)
        if (r != p->rank && reach[r] == REACHED && !arrives(p, r, kept + bytes, n))
            reach[r] = DAMAGED;
    if (st == OK) st = comm_barrier(host);
    move(p->base, kept);
    if (kept != NULL) cuda_scratch_free(kept, p->posts);
    free(pattern);
    return st;
}

/* One of the ranks that found damage says so. all: [rank][from] */
static void warn_of_damage(const Peers *p, const uint8_t *all) {
    int i = 0;
    while (i < p->size * p->size && all[i] != DAMAGED) i++;
    if (i / p->size != p->rank) return;
    log_warn(
        "what is copied from the GPU of rank %d of this context-parallel group arrives damaged "
        "(PCIe peer-to-peer behind an IOMMU does that): such pairs use NCCL; as NCCL may copy "
        "in the same way, set NCCL_P2P_DISABLE=1, or turn off IOMMU and PCIe ACS",
        i % p->size);
}

/* A pair is reached when both sides have opened each other and read each other's pattern. */
static Status agree(Peers *p, const Reach *reach, Comm *host) {
    int size = p->size;
    uint8_t *all = NEW(uint8_t, size * size);
    for (int r = 0; r < size; r++) all[p->rank * size + r] = reach[r];
    Status st = comm_all_gather(host, all, size, DT_U8, COMM_KIND_OTHER, NULL);
    p->all = st == OK;
    for (int i = 0; i < size * size; i++) p->all = p->all && all[i] == REACHED;
    for (int r = 0; r < size && st == OK; r++)
        p->peers[r].reached =
            all[p->rank * size + r] == REACHED && all[r * size + p->rank] == REACHED;
    if (st == OK) warn_of_damage(p, all);
    free(all);
    return st;
}

static bool reaches_any(const Peers *p) {
    for (int r = 0; r < p->size; r++)
        if (r != p->rank && p->peers[r].reached) return true;
    return false;
}

Status peers_open(Peers **out, void *base, int64_t bytes, Comm *host) {
    *out = NULL;
    int size = host->size;
    Peers *p = NEW(Peers, 1);
    bool *here = NEW(bool, size);
    Reach *reach = NEW(Reach, size);
    Handles *handles = NEW(Handles, size);
    p->rank = host->rank;
    p->size = size;
    p->base = (char *)base;
    p->bytes = bytes;
    p->peers = NEW(Peer, size);
    p->board_bytes = (int64_t)sizeof(Board) * size;
    Status st = comm_shared_open((void **)&p->boards, p->board_bytes, here, host);
    if (st == OK) {
        handles[p->rank].sound = make_own(p, &handles[p->rank]);
        st = comm_all_gather(host, handles, sizeof(Handles), DT_U8, COMM_KIND_OTHER, NULL);
    }
    for (int r = 0; r < size && st == OK; r++)
        if (here[r] && handles[r].sound && handles[p->rank].sound && open_peer(p, r, &handles[r]))
            reach[r] = REACHED;
    if (st == OK) st = probe(p, reach, host);
    if (st == OK) st = agree(p, reach, host);
    if (st == OK) st = cuda_deferred_error();
    if (st == OK && reaches_any(p))
        *out = p;
    else
        peers_close(p);
    free(here);
    free(reach);
    free(handles);
    return st;
}

/* Nobody gives memory back while another rank still has it mapped, unless that one is gone. */
static void leave_together(Peers *p) {
    double limit = time_now() + 2;
    publish(&p->boards[p->rank].closed, 1);
    for (int r = 0; r < p->size; r++)
        while (p->peers[r].reached && time_now() < limit &&
               __atomic_load_n(&p->boards[r].closed, __ATOMIC_ACQUIRE) == 0)
            sched_yield();
}

void peers_close(Peers *p) {
    if (p == NULL) return;
    for (int r = 0; r < p->size; r++) {
        Peer *peer = &p->peers[r];
        if (peer->copies != NULL) {
            cudaStreamSynchronize(peer->copies);
            cudaStreamDestroy(peer->copies);
        }
        if (peer->copied != NULL) cudaEventDestroy(peer->copied);
        for (int i = 0; i < RING; i++) {
            if (peer->ready[i] != NULL) cudaEventDestroy(peer->ready[i]);
            if (peer->pulled[i] != NULL) cudaEventDestroy(peer->pulled[i]);
        }
        if (r != p->rank && peer->base != NULL) cudaIpcCloseMemHandle(peer->base);
    }
    if (p->boards != NULL) leave_together(p);
    if (p->posts != NULL) cudaStreamDestroy(p->posts);
    if (p->handed != NULL) cudaEventDestroy(p->handed);
    comm_shared_close(p->boards, p->board_bytes);
    free(p->peers);
    free(p->to);
    free((void *)p->from);
    free(p->sizes);
    free(p);
}
