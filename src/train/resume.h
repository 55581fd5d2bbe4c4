/* resume.h: --resume: which checkpoint a run goes on from, and what becomes of later ones in
 * run.dir. */
#ifndef CRIA_TRAIN_RESUME_H
#define CRIA_TRAIN_RESUME_H

#include "session/train_state.h"

/* How a run begins; zero: at step 0. */
typedef struct {
    char *path;     /* of the checkpoint that it goes on from; NULL: none */
    bool elsewhere; /* which is not one of run.dir's */
    char *changes;  /* what the configuration changes on the way, lines of text; NULL: nothing */
} Resume;

void resume_free(Resume *r);

/* Before run.dir is made, for a checkpoint that --resume names (resume is not "auto"): ERR_USER
 * when it cannot be one; *done when it is of the last step of the run or of a later one, which is
 * said. Collective. */
Status resume_check_named(const Config *c, Comm *host, const char *resume, bool *done);

/* Loads the checkpoint that `resume` names, a file, a folder for the newest good one in it, or
 * "auto" for that of run.dir, and takes the position in the data from it. r->path NULL: run.dir has
 * none yet. Damaged files of a folder are passed over, which is said. Nothing is written.
 * Collective. */
Status resume_load(Session *s, const char *resume, TrainState *state, Resume *r);

/* On rank 0, before anything is saved: abandons later checkpoints in run.dir, so that --resume auto
 * follows the branch taken here. names gets a line with each new name. */
Status resume_take_branch(const Config *c, const Resume *r, int64_t step, StrBuf *names);

/* Are all steps done? Then says so. */
bool resume_is_done(const Config *c, const char *path, int64_t step);

#endif
