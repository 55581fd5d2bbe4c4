/* checkpoint.h: ONE file per step that is also a valid safetensors file. Tensors are addressed by
 * (name, element range), so any number of ranks reads what any other number wrote. Every rank
 * writes its own byte ranges; the file appears under its final name only when it is complete and on
 * disk.
 *
 * `__metadata__` holds, in this order: "header_crc", "format":"pt", the caller's entries, and
 * "crc.NAME" per tensor. CRCs are zlib's CRC-32, 8 lower-case hex digits; the header's is taken
 * over the JSON text, padding included, with its own digits as zeros. Files without them (not
 * written by cria) can be opened and read but not verified. */
#ifndef CRIA_CKPT_CHECKPOINT_H
#define CRIA_CKPT_CHECKPOINT_H

#include "comm/comm.h"
#include "safetensors.h"

/* How every header begins; the 8 digits follow. */
#define CKPT_HEADER_START "{\"__metadata__\":{\"header_crc\":\""

/* A range of one tensor that this rank holds, in host memory. */
typedef struct {
    int tensor;           /* index into the tensor list */
    int64_t begin, count; /* elements */
    const void *data;
} CkptPiece;

typedef struct {
    const char *key;
    const char *value; /* NULL, at one of them: the digits of checkpoint_weights_crc() */
} CkptEntry;

/* Collective over `host`. tensors and entries (names, shapes, metadata) are equal on every rank;
 * pieces differ and together cover every tensor exactly once. Writes PATH.tmp, fsyncs, renames,
 * fsyncs the directory, which must exist. ERR_ENV (on every rank) when it cannot be written: PATH
 * is then untouched and the .tmp is removed. ERR_USER when the header would not be one that can be
 * read back, such as with a key twice. *bytes is the file's size. */
Status checkpoint_save(const char *path, const SafeTensor *tensors, int n_tensors,
                       const CkptEntry *entries, int n_entries, const CkptPiece *pieces,
                       int n_pieces, Comm *host, int64_t *bytes);

/* ---- asynchronous save -----------------------------------------------------------------------
 * begin, any number of writes, flush, gather, publish on rank 0, end. write, flush and publish are
 * local and may run on another thread than the others, one at a time. */
typedef struct CkptSave CkptSave;

/* Collective: lays the file out, sees that there is space for it, makes PATH.tmp. Copies what it is
 * given. */
Status checkpoint_begin(CkptSave **save, const char *path, const SafeTensor *tensors, int n_tensors,
                        const CkptEntry *entries, int n_entries, Comm *host);
Status checkpoint_write(CkptSave *s, const CkptPiece *piece);
/* This rank's pieces are on disk when it returns. */
Status checkpoint_flush(CkptSave *s);
/* Collective, when every rank's flush has succeeded. */
Status checkpoint_gather(CkptSave *s, Comm *host);
/* Rank 0, after the gather: header, rename, all on disk when it returns. */
Status checkpoint_publish(CkptSave *s);
/* Frees; on rank 0 removes the .tmp of a file that was not published. s may be NULL. */
void checkpoint_end(CkptSave *s);

int64_t checkpoint_size(const CkptSave *s); /* bytes of the file */
/* On rank 0, after the gather: CRC-32 of all tensors that are not "optim.*", one behind the other.
 */
uint32_t checkpoint_weights_crc(const CkptSave *s);

typedef struct Checkpoint Checkpoint;

/* Opens and checks structure: sizes, ranges, completeness; not the tensors' bytes. Local. */
Status checkpoint_open(Checkpoint **ck, const char *path);
void checkpoint_close(Checkpoint *ck);
const SafeFile *checkpoint_file(const Checkpoint *ck);
/* NULL when absent. */
const char *checkpoint_entry(const Checkpoint *ck, const char *key);
/* What cria.step says; 0 when it is absent or no number. */
int64_t checkpoint_step(const Checkpoint *ck);
/* Elements [begin, begin + count) of a tensor into dst (its own dtype). ERR_USER names the file and
 * the tensor when it is missing or shorter. */
Status checkpoint_read(Checkpoint *ck, const char *name, int64_t begin, int64_t count, void *dst);
/* The same with zlib's CRC-32 of these bytes, by several OpenMP threads. */
Status checkpoint_read_crc(Checkpoint *ck, const char *name, int64_t begin, int64_t count,
                           void *dst, uint32_t *crc);
/* ERR_USER when the header is damaged, or has no CRC, as in a file that cria did not write. */
Status checkpoint_verify_header(Checkpoint *ck);
/* Is this the CRC that the header has for a tensor of this file? ERR_USER names the tensor and its
 * byte range: the file is damaged if `crc` is of what it holds. */
Status checkpoint_check_crc(const Checkpoint *ck, const SafeTensor *t, uint32_t crc);
/* Reads all and compares every CRC; ERR_USER names the first bad tensor and its byte range. */
Status checkpoint_verify(Checkpoint *ck);

/* ---- the checkpoints of a folder ------------------------------------------------------------ */

/* DIR/step_%08d.safetensors */
char *checkpoint_path(const char *dir, int64_t step);
/* The step in a path of that form; false: it has another. */
bool checkpoint_path_step(const char *path, int64_t *step);
/* The steps of the checkpoints in dir, newest first, without abandoned ones. Free *steps. */
Status checkpoint_list(const char *dir, int64_t **steps, int64_t *n);
/* *path (free) becomes the checkpoint that a user means: what was given, or the newest one of a
 * folder; ERR_USER when that has none. */
Status checkpoint_find(const char *given, char **path);
/* Opens one of several checkpoints. *ck NULL with OK: it is damaged or is no checkpoint, as a line
 * that is added to `skipped` says. A failure says nothing about the file: ERR_ENV the machine
 * failed, ERR_USER this user may not read it. Looks at the header, not at the tensors' bytes. */
Status checkpoint_open_valid(Checkpoint **ck, const char *path, StrBuf *skipped);
/* Renames the checkpoints of later steps than `step` to NAME.abandoned (.abandoned.2, ...), which
 * nothing here reads, counts or deletes; `names` gets a line with each new name. A crash on the way
 * leaves them abandoned: once the file DIR/abandon_after is there, they are not listed. */
Status checkpoint_abandon_after(const char *dir, int64_t step, StrBuf *names);
/* Deletes .tmp files, and what is older than the newest `keep` checkpoints that open, but none of
 * the n steps of `in_use`. keep <= 0 keeps all checkpoints. Goes on after a file that cannot be
 * deleted, and returns ERR_ENV with the first. */
Status checkpoint_prune(const char *dir, int64_t keep, const int64_t *in_use, int n);

/* `cria check`: what is inside, for people. */
void checkpoint_describe(const Checkpoint *ck, StrBuf *out);

#endif
