/* comm.h: seam 2, communication between ranks. Rows: self (a world of one), mpi (host memory), nccl
 * (device memory). Communicators world and cp are made once at start (comm_open), none later.
 *
 * Every operation is ordered after the earlier work of the stream it is given. Collectives are done
 * for that stream when they return (the stream waits for them, not necessarily the host). Grouped
 * transfers run beside the stream: comm_wait() makes a stream wait for them, so what is queued
 * between comm_group_end() and comm_wait() overlaps with them.
 * Counts are elements of the given type. Buffers are memory of the communicator's side. A group's
 * messages from one rank to another match in the order they were added; a rank may send to itself.
 * A communicator serves one calling thread at a time. */
#ifndef CRIA_COMM_COMM_H
#define CRIA_COMM_COMM_H

#include "base/base.h"
#include "ops/ops.h"

typedef enum { COMM_SUM, COMM_MAX, COMM_MIN } CommOp;

/* What bytes were sent for; counted apart, reported in the log. */
typedef enum {
    COMM_KIND_PARAM,
    COMM_KIND_GRAD,
    COMM_KIND_KV,
    COMM_KIND_DKV,
    COMM_KIND_OTHER,
    COMM_KINDS
} CommKind;
extern const char *const comm_kind_names[COMM_KINDS];

typedef struct Comm Comm;
typedef struct {
    int64_t id;
} CommTicket; /* names one group of transfers; 0 = nothing to wait for */

typedef struct FIELDS_BY_NAME {
    /* n >= 1 and size >= 2 in the collectives, n >= 1 in send and recv: comm.c answers the rest.
     * Reductions are of f32, f64, i64 or i32. */
    Status (*all_reduce)(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream);
    /* buf holds size * n elements; element block `rank` ends up reduced (sum), in place */
    Status (*reduce_scatter)(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream);
    /* buf holds size * n elements; block `rank` is this rank's contribution, in place */
    Status (*all_gather)(Comm *c, void *buf, int64_t n, Dtype t, Stream *stream);
    Status (*broadcast)(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream);
    Status (*barrier)(Comm *c);
    Status (*group_begin)(Comm *c);
    Status (*send)(Comm *c, const void *buf, int64_t n, Dtype t, int peer);
    Status (*recv)(Comm *c, void *buf, int64_t n, Dtype t, int peer);
    Status (*group_end)(Comm *c, Stream *stream, CommTicket *ticket);
    Status (*wait)(Comm *c, CommTicket ticket, Stream *stream);
    Status (*expose)(Comm *c, void *base, int64_t bytes); /* NULL: no use for it */
    Status (*group_signal)(Comm *c, uint32_t *flag);      /* NULL: never `signals` */
    Status (*group_after)(Comm *c, const uint32_t *flag, uint32_t value); /* likewise */
    void (*free)(Comm *c);
    /* For measuring: the next group that is not empty records these events where its transfers run,
     * before and behind them. NULL: this row runs them nowhere that an event can be recorded. */
    void (*trace)(Comm *c, Event *begin, Event *end);
} CommTable;

struct Comm {
    int rank, size;
    bool signals; /* comm_group_signal() and _after() work; the same on all ranks */
    const CommTable *table;
    void *impl;
    int64_t bytes_sent[COMM_KINDS]; /* by this rank, since the start */
};

/* The communicators of a run. ranks are cp-fastest: world rank = dp_rank * cp + cp_rank, so that
 * the ranks of one context-parallel group are neighbours. `host` always works on host memory
 * (agreement, checkpoints, configuration); the others work on the backend's memory. (Gradients are
 * reduced over the world, so the data-parallel ranks need no communicator of their own.) */
typedef struct {
    Comm *host, *world, *cp;
    int local_rank; /* this rank's place among the ranks of its host */
} CommSet;

/* Finds out who has started this process and starts MPI (MPI_THREAD_MULTIPLE). Without mpirun or
 * srun the world has one rank, and there is no MPI. Call once. When MPI cannot start, or does not
 * see the ranks that its launcher has started, this ends the job with a message and ERR_ENV's
 * status. */
void comm_start(void);
bool comm_has_mpi(void);
int comm_world_rank(void);
int comm_world_size(void);
int comm_local_rank(void);
int comm_local_size(void);  /* ranks of this host */
int comm_local_cores(void); /* this rank's share of the cores of its host, at least 1 */
void comm_finish(void);
/* Behind comm_finish(), where all ranks are about to end with the same status, which is not 0:
 * makes sure that mpirun returns it. */
void comm_keep_status(void);
/* mpirun, or its process on this host, is dead, so that nobody would end this rank any more. */
bool comm_launcher_is_gone(void);

/* Ends every rank of the job at once with this exit code; for a failure on one rank only. Should
 * MPI block, this process ends without it after 10 seconds. */
_Noreturn void comm_abort(int exit_code);
/* Before that: a message to stderr, which does not block. Where all ranks call it and then end the
 * job, only rank 0's is seen: the others wait a moment. */
void comm_last_words(const char *message);
/* Both, without MPI: for signal handlers and while MPI starts. */
_Noreturn void comm_end_now(int exit_code, const char *message);

/* world % cp == 0 is the caller's duty. On the cpu backend world and cp are MPI as well. */
Status comm_open(CommSet *set, const Ops *ops, int cp);
void comm_close(CommSet *set);

/* The rows, free with comm_free: one rank in host memory; MPI's world; the ranks of MPI's world
 * that pass the same color, in world order. The last two are collective over MPI's world; without
 * MPI they are the first. */
Comm *comm_self_create(void);
Status comm_mpi_create(Comm **c);
Status comm_mpi_split(Comm **c, int color);
/* Over the ranks of `host`, which it takes over (also when it fails), on this rank's current GPU
 * (cuda/comm_nccl.cu). */
Status comm_nccl_create(Comm **c, Comm *host, const Ops *ops);
void comm_free(Comm *c);

/* ---- the calls: thin, typed, counted wrappers over the table --------------------------------- */
Status comm_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, CommKind kind,
                       Stream *stream);
Status comm_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream);
Status comm_all_gather(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream);
Status comm_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream);
Status comm_barrier(Comm *c);
Status comm_group_begin(Comm *c);
Status comm_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer, CommKind kind);
Status comm_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer);
/* Between begin and end, when c->signals, at most COMM_SIGNALS times: once all has arrived that the
 * group receives by what was added to it so far, *flag (device memory) becomes 1. No kernel is
 * needed for that or for the transfers: a kernel that fills the device may wait for it. */
enum { COMM_SIGNALS = 8 };
Status comm_group_signal(Comm *c, uint32_t *flag);
/* Likewise: the group begins once *flag (device memory) has been counted up to `value`, by a kernel
 * that was queued before, and not after the earlier work of its stream. */
Status comm_group_after(Comm *c, const uint32_t *flag, uint32_t value);
Status comm_group_end(Comm *c, Stream *stream, CommTicket *ticket);
Status comm_wait(Comm *c, CommTicket ticket, Stream *stream);
/* Collective, with no group under way: an allocation that everything lies in that groups will send,
 * in place of the one named before; NULL when that is to be freed. Ranks that can then read each
 * other's memory do so, and from here on groups are collective: every rank opens the same ones,
 * empty where it has nothing to move. */
Status comm_expose(Comm *c, void *base, int64_t bytes);

/* Host-side agreement: every rank passes its own Status; all get the worst (ERR_ENV, ERR_USER,
 * ERR_STOPPED, OK) and, as their status_message, the message of the lowest rank that has it, with
 * "rank N: " before it when others have not failed. */
Status comm_agree(Comm *host, Status mine);
/* Is the failure that this thread has recorded one that comm_agree or comm_agree_equal gave to
 * every rank? */
bool comm_agreed(void);

/* ERR_ENV on every rank, naming the first rank whose value is not rank 0's. */
Status comm_agree_equal(Comm *host, uint64_t value, const char *what);

#endif
