#include "session/peers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/median.h"

enum {
    DEVICE_BYTES = 32 << 20, /* 0.1 ms over NVLink, 2 ms over PCIe */
    HOST_BYTES = 64 << 10,
    LEAST_TIMED = 1 << 20, /* smaller copies measure how they are begun */
    TIMES = 4,             /* the first is not timed */
    NAMED_MAX = 8
};

/* ---- what is copied -------------------------------------------------------------------------- */

typedef struct {
    const Ops *ops;
    Comm *group;
    Stream *stream;
    char *out, *in;     /* two halves of the buffer */
    int64_t bytes;      /* of each */
    uint64_t *found;    /* device memory: checksum of what has arrived */
    uint64_t *expected; /* [ranks of the group] */
    bool *direct;       /* [ranks of the group] whose copies are checked */
    Event *begin, *end;
    bool timed;
} Copies;

/* The pattern of this rank, in device memory; returns its checksum (ops.def). */
static Status write_pattern(const Copies *c, uint64_t *checksum) {
    int64_t n = c->bytes / (int64_t)sizeof(uint64_t);
    uint64_t *words = NEW(uint64_t, n);
    *checksum = 0;
    for (int64_t i = 0; i < n; i++) {
        words[i] = checksum_mix((uint64_t)c->group->rank + 1, i);
        *checksum += checksum_mix(words[i], i);
    }
    c->ops->mem_copy(c->out, words, c->bytes, c->stream);
    Status st = c->ops->stream_sync(c->stream);
    free(words);
    return st;
}

static Status open_copies(Copies *c) {
    CHECK(c->ops->event_create(&c->begin));
    CHECK(c->ops->event_create(&c->end));
    CHECK(c->ops->mem_alloc((void **)&c->found, sizeof *c->found, "the check of copies"));
    c->expected = NEW(uint64_t, c->group->size);
    c->direct = NEW(bool, c->group->size);
    for (int r = 0; r < c->group->size; r++) c->direct[r] = comm_is_direct(c->group, r);
    return write_pattern(c, &c->expected[c->group->rank]);
}

static void close_copies(Copies *c) {
    c->ops->event_free(c->begin);
    c->ops->event_free(c->end);
    c->ops->mem_free(c->found);
    free(c->expected);
    free(c->direct);
}

/* A copy to this rank (from >= 0), from it (to >= 0), or of others only: every rank opens every
 * group. */
static Status copy(Copies *c, int from, int to, double *ms) {
    CommTicket ticket;
    double begin = time_now();
    if (from >= 0) c->ops->mem_zero(c->in, c->bytes, c->stream);
    if (from >= 0 && c->group->table->trace != NULL)
        c->group->table->trace(c->group, c->begin, c->end);
    CHECK(comm_group_begin(c->group));
    if (from >= 0) CHECK(comm_recv(c->group, c->in, c->bytes, DT_U8, from));
    if (to >= 0) CHECK(comm_send(c->group, c->out, c->bytes, DT_U8, to, COMM_KIND_OTHER));
    CHECK(comm_group_end(c->group, c->stream, &ticket));
    CHECK(comm_wait(c->group, ticket, c->stream));
    CHECK(c->ops->stream_sync(c->stream));
    *ms = 1e3 * (time_now() - begin);
    if (from >= 0 && c->group->table->trace != NULL) *ms = c->ops->event_ms(c->begin, c->end);
    return OK;
}

static Status check_arrived(Copies *c, int from, PeerCopy *p) {
    uint64_t sum;
    c->ops->mem_zero(c->found, sizeof *c->found, c->stream);
    c->ops->checksum(c->found, c->in, c->bytes, c->stream);
    c->ops->mem_copy(&sum, c->found, sizeof sum, c->stream);
    CHECK(c->ops->stream_sync(c->stream));
    p->right &= sum == c->expected[from];
    return OK;
}

/* Between this rank and `peer`, one way; both call with the same number of times. */
static Status copy_pair(Copies *c, int peer, bool receives, int first, PeerResult *r) {
    PeerCopy p = {.from = first + peer, .right = 1};
    for (int i = 0; i < (c->timed ? TIMES : 1); i++) {
        double ms;
        CHECK(copy(c, receives ? peer : -1, peer >= 0 && !receives ? peer : -1, &ms));
        if (peer < 0 || !receives) continue;
        if (i > 0 || !c->timed) p.gb_s = fmax(p.gb_s, 1e-6 * (double)c->bytes / ms);
        CHECK(check_arrived(c, peer, &p));
    }
    if (peer >= 0 && receives) r->copies[r->n++] = p;
    return OK;
}

/* Whom a rank meets in a round, as in a tournament of n players, n even: in rounds 0 to n - 2 each
 * meets every other one once. */
static int opponent(int rank, int n, int round) {
    if (rank == n - 1) return (int)((int64_t)round * (n / 2) % (n - 1));
    int other = (round - rank + n - 1) % (n - 1);
    return other == rank ? n - 1 : other;
}

static Status copy_all(Copies *c, int first, PeerResult *r) {
    int n = (int)round_up(c->group->size, 2), rank = c->group->rank;
    for (int round = 0; round < n - 1 && round < PEERS_MAX; round++) {
        int peer = opponent(rank, n, round);
        if (peer >= c->group->size || !c->direct[peer]) peer = -1;
        CHECK(copy_pair(c, peer, rank < peer, first, r));
        CHECK(copy_pair(c, peer, peer >= 0 && rank > peer, first, r));
    }
    return OK;
}

/* ---- what is said of it ---------------------------------------------------------------------- */

static void add_pair(StrBuf *b, int *n, const PeerResult *r, int rank, const PeerCopy *p) {
    if (++*n > NAMED_MAX) return;
    strbuf_printf(b, "%srank %d from rank %d on node %s", *n > 1 ? ", " : "", rank, p->from,
                  r->node);
}

static void end_list(StrBuf *b, int n) {
    if (n > NAMED_MAX) strbuf_printf(b, ", %d more pairs", n - NAMED_MAX);
}

static double median_rate(const PeerResult *results, int world) {
    int64_t n = 0;
    for (int r = 0; r < world; r++) n += results[r].n;
    double *rates = NEW(double, n), middle = 0;
    n = 0;
    for (int r = 0; r < world; r++)
        for (int i = 0; i < results[r].n; i++) rates[n++] = results[r].copies[i].gb_s;
    if (n > 0) {
        median(rates, (int)n); /* sorts */
        middle = rates[n / 2]; /* of two pairs one can be slow */
    }
    free(rates);
    return middle;
}

Status peers_judge(const PeerResult *results, int world, bool timed, StrBuf *slow) {
    StrBuf wrong = {0}, names = {0};
    int n_wrong = 0, n_slow = 0;
    double middle = median_rate(results, world);
    for (int r = 0; r < world; r++)
        for (int i = 0; i < results[r].n; i++) {
            const PeerCopy *p = &results[r].copies[i];
            if (!p->right) add_pair(&wrong, &n_wrong, &results[r], r, p);
            if (!timed || p->gb_s >= PEERS_SLOW * middle) continue;
            add_pair(&names, &n_slow, &results[r], r, p);
            if (n_slow <= NAMED_MAX) strbuf_printf(&names, " (%.3g GB/s)", p->gb_s);
        }
    end_list(&wrong, n_wrong);
    end_list(&names, n_slow);
    Status st = OK;
    if (n_wrong > 0)
        st = status_fail(ERR_ENV, "%s: a pattern copied between their memories came out wrong",
                         strbuf_text(&wrong));
    else if (n_slow > 0)
        strbuf_printf(slow,
                      "%s: copies between their memories have less than half the median pair's "
                      "rate, %.3g GB/s; look at NVLink and PCIe (nvidia-smi topo -m) and at what "
                      "else runs there: attention across ranks will wait for them",
                      strbuf_text(&names), middle);
    strbuf_free(&wrong);
    strbuf_free(&names);
    return st;
}

/* ---- the check ------------------------------------------------------------------------------- */

/* What every rank copies, and what must arrive. */
static Status prepare(Copies *c, Comm *host, int first) {
    uint64_t *all = NEW(uint64_t, host->size);
    Status st;
    CHECK_GOTO(comm_agree(host, open_copies(c)), done);
    all[host->rank] = c->expected[c->group->rank];
    CHECK_GOTO(comm_all_gather(host, all, sizeof *all, DT_U8, COMM_KIND_OTHER, NULL), done);
    for (int r = 0; r < c->group->size; r++) c->expected[r] = all[first + r];
done:
    free(all);
    return st;
}

/* all[host->size]: what every rank has received. */
static Status measure(Copies *c, Comm *host, int first, PeerResult *all) {
    PeerResult *own = &all[host->rank];
    memset(own, 0, sizeof *own);
    snprintf(own->node, sizeof own->node, "%s", comm_host_name(comm_world_rank()));
    CHECK(comm_agree(host, copy_all(c, first, own)));
    return comm_all_gather(host, all, sizeof *all, DT_U8, COMM_KIND_OTHER, NULL);
}

/* After wrong copies, on every rank: the same pairs again, now by the transport that needs no
 * registered memory. Copies in host memory have no other one. */
static Status fall_back(Copies *c, Comm *host, int first, PeerResult *all) {
    char *found = mem_strdup(status_message());
    status_clear();
    StrBuf slow = {0};
    Status st;
    if (c->group->table->register_buffer == NULL) {
        st = status_fail(
            ERR_ENV, "%s; leave the node out (run.check_hardware=false skips this check)", found);
        goto done;
    }
    CHECK_GOTO(comm_agree(host, comm_register_buffer(c->group, NULL, 0)), done);
    CHECK_GOTO(measure(c, host, first, all), done);
    st = peers_judge(all, host->size, false, &slow);
    if (st != OK) {
        status_clear();
        st = status_fail(ERR_ENV,
                         "%s, directly and by NCCL; leave the device out (run.check_hardware=false "
                         "skips this check)",
                         found);
        goto done;
    }
    if (host->rank == 0)
        log_warn(
            "%s; NCCL copies them right, and this run goes on as with parallel.transport: nccl",
            found);
done:
    strbuf_free(&slow);
    free(found);
    return comm_agree(host, st);
}

Status peers_check(const Ops *ops, Comm *group, Comm *host, void *buffer, int64_t bytes,
                   Stream *stream) {
    if (group->size == 1) return OK; /* on every rank */
    int first = host->rank - group->rank;
    int64_t half = bytes / 2 / 256 * 256;
    Copies c = {.ops = ops,
                .group = group,
                .stream = stream,
                .out = buffer,
                .in = (char *)buffer + half,
                .bytes = i64_min(half, ops->host_memory ? HOST_BYTES : DEVICE_BYTES)};
    c.timed = !ops->host_memory && c.bytes >= LEAST_TIMED;
    PeerResult *all = NEW(PeerResult, host->size);
    StrBuf slow = {0};
    Status st;
    CHECK_GOTO(prepare(&c, host, first), done);
    CHECK_GOTO(measure(&c, host, first, all), done);
    st = peers_judge(all, host->size, c.timed, &slow); /* the same on every rank */
    if (st != OK) CHECK_GOTO(fall_back(&c, host, first, all), done);
    if (host->rank == 0 && slow.len > 0) log_warn("%s", strbuf_text(&slow));
done:
    close_copies(&c);
    strbuf_free(&slow);
    free(all);
    return st;
}
