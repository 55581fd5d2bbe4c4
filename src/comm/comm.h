/* comm.h: seam 2, communication between ranks. Backends: self (one rank), mpi (host memory), nccl
 * (device memory). comm_open() creates the communicators of a run; none is created later.
 *
 * Every operation is ordered after the earlier work of its stream. A collective is complete for
 * that stream when it returns: the stream waits for it, not necessarily the host. Grouped transfers
 * run beside the stream: comm_wait() makes a stream wait for them, so work queued between
 * comm_group_end() and comm_wait() overlaps with them.
 * Counts are elements of the given type. Buffers lie in the memory of the communicator's backend.
 * Messages of a group from one rank to another match in the order they were added; a rank may send
 * to itself. Only one thread at a time may call a communicator. */
#ifndef CRIA_COMM_COMM_H
#define CRIA_COMM_COMM_H

#include "base/base.h"
#include "ops/ops.h"

typedef enum { COMM_SUM, COMM_MAX, COMM_MIN } CommOp;

/* What bytes are sent for: counted separately and reported in the log. */
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
} CommTicket; /* identifies a group of transfers; 0: nothing to wait for */

typedef struct FIELDS_BY_NAME {
    /* comm.c handles n == 0, and size == 1 in collectives; backends never see them. Reductions are
     * of f32, f64, i64 or i32. */
    Status (*all_reduce)(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream);
    /* buf holds size * n elements; block `rank` of n elements becomes the sum, in place */
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
    /* NULL: registration has no effect */
    Status (*register_buffer)(Comm *c, void *base, int64_t bytes);
    /* comm_is_direct(); NULL: never */
    bool (*is_direct)(const Comm *c, int peer);
    /* NULL where has_flags is never true */
    Status (*group_set_flag_on_recv)(Comm *c, uint32_t *flag);
    Status (*group_wait_value)(Comm *c, const uint32_t *flag, uint32_t value);
    void (*free)(Comm *c);
    /* For measurements: the next group that is not empty records these events on the stream of its
     * transfers, before and after them. NULL: transfers do not run on a stream. */
    void (*trace)(Comm *c, Event *begin, Event *end);
} CommTable;

struct Comm {
    int rank, size;
    bool has_flags; /* groups can set and wait for flags; the same on all ranks */
    const CommTable *table;
    void *impl;
    int64_t bytes_sent[COMM_KINDS]; /* by this rank, since the start */
};

/* The communicators of a run. World rank = dp_rank * cp + cp_rank, so that the ranks of a
 * context-parallel group are neighbours. `host` works on host memory (agreement, checkpoints,
 * configuration), the others on the memory of ops. Gradients are reduced over the world, so there
 * is no communicator of data-parallel ranks. */
typedef struct {
    Comm *host, *world, *cp;
} CommSet;

/* Detects the launcher (mpirun, srun) and starts MPI with MPI_THREAD_MULTIPLE; without a launcher
 * the world is one rank without MPI. Call once. Ends the job with a message and ERR_ENV's exit
 * status when MPI cannot start or does not see the ranks that its launcher has started. */
void comm_start(void);
bool comm_has_mpi(void);
int comm_world_rank(void);
int comm_world_size(void);
int comm_local_rank(void);  /* index of this rank among those of its host */
int comm_local_size(void);  /* ranks of this host */
int comm_local_cores(void); /* this rank's share of the cores of its host, at least 1 */
/* Of the host of a rank of the world. */
const char *comm_host_name(int rank);
/* Two lines: MPI's library, level of threads and hosts; the cores and threads of this rank. */
void comm_describe(StrBuf *out);
/* A warning of rank 0 where the ranks of a host, or one rank, have more threads than cores that
 * they may run on. */
void comm_warn_oversubscribed(void);
/* Waits for all ranks, then ends MPI; where that takes more than 20 seconds the process ends with
 * this exit code. Call it on every rank, with nothing left to do. */
void comm_finish(int exit_code);
/* Call after comm_finish() where all ranks exit with the same status other than 0: makes mpirun
 * return it. */
void comm_keep_status(void);
/* The ranks whose messages over MPI this one has waited for since more than a second, with their
 * hosts: "rank 2 on host n2, rank 3 on host n2"; "" where it waits for none. Does not block. */
void comm_describe_wait(char *text, size_t size);
/* Whether mpirun, or its process on this host, is dead: nothing else would end this rank then. */
bool comm_launcher_is_gone(void);
/* Whether an environment variable, "NAME=VALUE", would make a process take itself for a rank. */
bool comm_is_rank_variable(const char *variable);

/* Ends every rank of the job at once with this exit code, after a failure of one rank alone. If
 * MPI_Abort blocks, this process exits after 10 seconds. */
_Noreturn void comm_abort(int exit_code);
/* Before comm_abort(): writes a message to stderr without blocking. Ranks other than 0 wait a
 * moment first, so that where all ranks fail alike only rank 0's message is seen. */
void comm_last_words(const char *message);
/* comm_last_words() and comm_abort() without MPI: for signal handlers and while MPI starts. */
_Noreturn void comm_end_now(int exit_code, const char *message);

/* Needs world size % cp == 0. With ops in host memory all communicators are MPI's. */
Status comm_open(CommSet *set, const Ops *ops, int cp);
void comm_close(CommSet *set);

/* Create a communicator of: one rank in host memory; all ranks, over MPI; the ranks that pass the
 * same color, in world order. The last two are collective over MPI's world, and without MPI the
 * same as the first. Free with comm_free(). */
Comm *comm_self_create(void);
Status comm_mpi_create(Comm **c);
Status comm_mpi_split(Comm **c, int color);
/* Over the ranks of `host`, on this rank's current GPU. Takes ownership of `host`, also when it
 * fails. */
Status comm_nccl_create(Comm **c, Comm *host, const Ops *ops);
void comm_free(Comm *c);

/* ---- operations: they count bytes_sent and call the table ------------------------------------ */
Status comm_all_reduce(Comm *c, void *buf, int64_t n, Dtype t, CommOp op, CommKind kind,
                       Stream *stream);
Status comm_reduce_scatter(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream);
Status comm_all_gather(Comm *c, void *buf, int64_t n, Dtype t, CommKind kind, Stream *stream);
Status comm_broadcast(Comm *c, void *buf, int64_t n, Dtype t, int root, Stream *stream);
Status comm_barrier(Comm *c);
Status comm_group_begin(Comm *c);
Status comm_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer, CommKind kind);
Status comm_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer);
/* Both between group_begin and group_end, only if c->has_flags; flags lie in device memory. Neither
 * they nor the transfers run a kernel, so they make progress beside a kernel that fills the GPU.
 * set_flag_on_recv: *flag becomes 1 once everything has arrived that this rank receives by messages
 * added to the group so far. At most COMM_GROUP_FLAGS_MAX a group.
 * wait_value: the group starts when *flag >= value, where a kernel queued earlier counts the flag
 * up, and does not wait for the earlier work of its stream. */
enum { COMM_GROUP_FLAGS_MAX = 8 };
Status comm_group_set_flag_on_recv(Comm *c, uint32_t *flag);
Status comm_group_wait_value(Comm *c, const uint32_t *flag, uint32_t value);
Status comm_group_end(Comm *c, Stream *stream, CommTicket *ticket);
Status comm_wait(Comm *c, CommTicket ticket, Stream *stream);
/* All buffers passed to comm_send must lie in this allocation from here on; it replaces the one
 * registered before, and NULL unregisters it, which must precede its free. Collective, while no
 * group is open. Ranks whose GPUs can read each other's memory then do so without NCCL. From here
 * on groups are collective: every rank opens the same ones, if necessary empty. */
Status comm_register_buffer(Comm *c, void *base, int64_t bytes);

/* Whether groups copy between this rank's memory and `peer`'s without kernels and connections of
 * their own: in host memory, and after comm_register_buffer() between GPUs that read each other's
 * memory. The same on both sides of a pair. */
bool comm_is_direct(const Comm *c, int peer);

/* Every rank passes its own Status; all get the worst (ERR_ENV, ERR_USER, ERR_STOPPED, OK, in this
 * order) and the message of the lowest rank that has it, with "rank N: " before it when other ranks
 * have not failed. status_is_agreed() then holds on every rank. */
Status comm_agree(Comm *host, Status mine);
/* ERR_ENV on every rank, naming the first rank whose value differs from rank 0's. */
Status comm_agree_equal(Comm *host, uint64_t value, const char *what);

#endif
