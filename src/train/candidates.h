/* candidates.h: which checkpoints --resume and --from may mean, best first. */
#ifndef CRIA_TRAIN_CANDIDATES_H
#define CRIA_TRAIN_CANDIDATES_H

#include "ckpt/checkpoint.h"
#include "config/config.h"
#include "train/train.h"

/* On rank 0; zero on others. */
typedef struct {
    char *dir; /* whose checkpoints they are, of these steps */
    int64_t *steps, n, next;
    char *named;    /* NULL: it is of a folder, or there is none */
    StrBuf skipped; /* a line for each that was passed over */
} Candidates;

/* --resume is "auto" for those of run.dir, a folder, or a checkpoint's path. --from is a folder or
 * a path, and counts while run.dir has none. ERR_USER when a folder has none, or run.dir those of
 * another run. Also on failure candidates_free() is due. */
Status candidates_list(Candidates *a, const Config *c, const TrainOptions *o);
void candidates_free(Candidates *a);
/* The next one that opens and has a valid header. *path NULL: there is none. */
Status candidates_next(Candidates *a, char **path, Checkpoint **ck);
/* Rank 0's next one, opened on every rank. *path NULL: there is none. *more: if it is damaged,
 * another one may do. Collective. */
Status candidates_open_next(Comm *host, Candidates *a, char **path, Checkpoint **ck, bool *more);

bool candidates_is_auto(const char *resume);
bool candidates_is_dir(const char *path);

#endif
