/* checkpoint.h: ONE file per step that is also a valid safetensors file. Tensors are addressed by
 * (name, element range), so any number of ranks reads what any other number wrote. Every rank writes
 * its own byte ranges; the file appears under its final name only when it is complete and on disk.
 * `__metadata__` holds "format":"pt", the caller's entries, and a CRC-32 per tensor ("crc.NAME"). */
#ifndef CRIA_CKPT_CHECKPOINT_H
#define CRIA_CKPT_CHECKPOINT_H

#include "../comm/comm.h"
#include "safetensors.h"

/* A range of one tensor that this rank holds, in host memory. */
typedef struct {
    int tensor;            /* index into the tensor list */
    int64_t begin, count;  /* elements */
    const void *data;
} CkptPiece;

typedef struct {
    const char *key, *value;
} CkptEntry;

/* Collective over `host`. tensors and entries (names, shapes, metadata) are equal on every rank;
 * pieces differ and together cover every tensor exactly once. Writes PATH.tmp, fsyncs, renames,
 * fsyncs the directory. ERR_ENV (on every rank) when it cannot be written: PATH is then untouched and
 * the .tmp is removed. *bytes is the file's size. */
Status checkpoint_save(const char *path, const SafeTensor *tensors, int n_tensors,
                       const CkptEntry *entries, int n_entries, const CkptPiece *pieces,
                       int n_pieces, Comm *host, int64_t *bytes);

typedef struct Checkpoint Checkpoint;

/* Opens and checks structure (sizes, ranges, completeness), not the tensors' bytes. Not collective. */
Status checkpoint_open(Checkpoint **ck, const char *path);
void checkpoint_close(Checkpoint *ck);
const SafeFile *checkpoint_file(const Checkpoint *ck);
/* NULL when absent. */
const char *checkpoint_entry(const Checkpoint *ck, const char *key);
/* Elements [begin, begin + count) of a tensor into dst (its own dtype). ERR_USER names the file and
 * the tensor when it is missing or its shape differs from (rows, cols). */
Status checkpoint_read(Checkpoint *ck, const char *name, int64_t begin, int64_t count, void *dst);
/* Reads everything and compares every CRC; ERR_USER names the first bad tensor and its byte range. */
Status checkpoint_verify(Checkpoint *ck);

/* DIR/step_%08d.safetensors */
char *checkpoint_path(const char *dir, int64_t step);
/* The newest checkpoint in dir that passes checkpoint_verify, by step number in its name; *path NULL
 * when there is none. `skipped` gets one line per newer file that was passed over, saying why. */
Status checkpoint_latest(const char *dir, char **path, StrBuf *skipped);
/* Deletes all but the newest `keep` valid-looking checkpoints and stale .tmp files. Never deletes
 * `current`. keep <= 0 keeps all. */
Status checkpoint_prune(const char *dir, int64_t keep, const char *current);
/* `cria check`: what is inside, for people. */
void checkpoint_describe(const Checkpoint *ck, StrBuf *out);

#endif
