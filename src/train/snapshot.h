/* snapshot.h: a copy of this rank's weights and moments in page-locked host memory, from which a
 * checkpoint is written while training changes the originals. Where the host lacks memory for all
 * of them it holds a part at a time. */
#ifndef CRIA_TRAIN_SNAPSHOT_H
#define CRIA_TRAIN_SNAPSHOT_H

#include <stdatomic.h>

#include "session/train_state.h"

typedef struct {
    Session *s;
    CkptPiece *pieces; /* this rank's, where the optimizer has them */
    int n_pieces;
    int64_t bytes;  /* of all pieces */
    Stream *stream; /* of the copies */
    Event *updated; /* the state is that of the step */
    char *copy;
    int64_t capacity;
    bool all_ranks_copied;  /* every rank has room for all of its pieces */
    bool copy_alloc_failed; /* some rank has no memory for that, and is not asked again */
    int first, next;        /* the copy holds pieces [first, next) */
} Snapshot;

/* Local, without the copy. */
Status snapshot_create(Snapshot *snap, Session *s);
void snapshot_free(Snapshot *snap);

/* Allocates the copy: of everything if `full` and if all hosts have the memory, else a small one.
 * Collective. */
Status snapshot_reserve(Snapshot *snap, bool full);
/* Queues copies of the first pieces as they are after all work of the session's stream, as many as
 * there is room for; snapshot_next queues those that follow. */
void snapshot_begin(Snapshot *snap);
void snapshot_next(Snapshot *snap);
bool snapshot_is_last(const Snapshot *snap);
/* Writes what the copy holds; *written counts the bytes as they are. Any thread. */
Status snapshot_write(const Snapshot *snap, CkptSave *file, atomic_llong *written);

#endif
