#include "train/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/host_memory.h"

enum {
    PIECE_BYTES = 32 << 20, /* written between two signs of life; file.c cuts it for its threads */
    SMALL_BYTES = 2 * PIECE_BYTES, /* of the copy, where it is not of everything */
};

static int64_t piece_bytes(const CkptPiece *p) {
    return p->count * (int64_t)sizeof(float);
}

Status snapshot_create(Snapshot *snap, Session *s) {
    *snap = (Snapshot){.s = s};
    snap->pieces = state_pieces(s, PIECE_BYTES / (int64_t)sizeof(float), &snap->n_pieces);
    for (int i = 0; i < snap->n_pieces; i++) snap->bytes += piece_bytes(&snap->pieces[i]);
    CHECK(s->ops->stream_create(s->ops, &snap->stream));
    return s->ops->event_create(&snap->updated);
}

void snapshot_free(Snapshot *snap) {
    const Ops *ops = snap->s->ops;
    if (snap->stream != NULL) ops->stream_free(snap->stream);
    if (snap->updated != NULL) ops->event_free(snap->updated);
    ops->host_free(snap->copy);
    free(snap->pieces);
}

/* Asking for more than the host can give, page-locked at that, would not fail but have the kernel
 * end this job or another. A quarter stays for the page cache that checkpoints are written through.
 */
static Status check_memory(const Snapshot *snap) {
    int64_t wanted = snap->bytes * comm_local_size(), have = host_memory_available("") / 4 * 3;
    if (wanted <= have) return OK;
    return status_fail(ERR_ENV,
                       "a copy of the state takes %.1f GiB of this host's memory, which has "
                       "%.1f GiB to spare",
                       (double)wanted / 0x1p30, (double)have / 0x1p30);
}

static Status alloc_copy(Snapshot *snap, int64_t bytes) {
    const Ops *ops = snap->s->ops;
    ops->host_free(snap->copy);
    snap->copy = NULL;
    snap->capacity = bytes;
    CHECK(ops->host_alloc((void **)&snap->copy, i64_max(bytes, 1),
                          "the copy of the state that checkpoints are written from"));
    /* What is not page-locked comes page by page when it is touched: now, not in the first save. */
    if (ops->host_memory) memset(snap->copy, 0, (size_t)bytes);
    return OK;
}

Status snapshot_reserve(Snapshot *snap, bool full) {
    Comm *host = snap->s->comm.host;
    full = full && !snap->copy_alloc_failed;
    if (snap->all_ranks_copied || (snap->copy != NULL && !full)) return OK;
    if (!full) return comm_agree(host, alloc_copy(snap, i64_min(snap->bytes, SMALL_BYTES)));
    /* No rank takes its share before all have seen what there is. */
    Status st = comm_agree(host, check_memory(snap));
    if (st == OK) st = comm_agree(host, alloc_copy(snap, snap->bytes));
    snap->all_ranks_copied = st == OK;
    snap->copy_alloc_failed = st != OK;
    if (st == OK || !status_is_agreed()) return st;
    if (snap->s->rank == 0)
        log_warn("training will wait while checkpoints are written: %s", status_message());
    status_ignore(st);
    return snapshot_reserve(snap, false);
}

void snapshot_next(Snapshot *snap) {
    int64_t at = 0;
    for (snap->first = snap->next; snap->next < snap->n_pieces; snap->next++) {
        const CkptPiece *p = &snap->pieces[snap->next];
        if (at + piece_bytes(p) > snap->capacity) break;
        snap->s->ops->mem_copy(snap->copy + at, p->data, piece_bytes(p), snap->stream);
        at += piece_bytes(p);
    }
}

void snapshot_begin(Snapshot *snap) {
    const Ops *ops = snap->s->ops;
    ops->event_record(snap->updated, snap->s->stream);
    ops->event_wait(snap->updated, snap->stream);
    snap->next = 0;
    snapshot_next(snap);
}

bool snapshot_is_last(const Snapshot *snap) {
    return snap->next == snap->n_pieces;
}

Status snapshot_write(const Snapshot *snap, CkptSave *file, atomic_llong *written) {
    const char *from = snap->copy;
    for (int i = snap->first; i < snap->next; i++) {
        CkptPiece p = snap->pieces[i];
        p.data = from;
        from += piece_bytes(&p);
        CHECK(checkpoint_write(file, &p));
        atomic_fetch_add(written, piece_bytes(&p));
    }
    return snapshot_is_last(snap) ? checkpoint_flush(file) : OK;
}
