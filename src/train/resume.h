/* resume.h: --resume: a run goes on from a checkpoint. */
#ifndef CRIA_TRAIN_RESUME_H
#define CRIA_TRAIN_RESUME_H

#include "session/train_state.h"

/* How a run begins; zero: at step 0. */
typedef struct {
    char *path;    /* of the checkpoint that it goes on from; NULL: none */
    char *changes; /* what the configuration changes on the way, lines of text; NULL: nothing */
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

/* Are all steps done? Then says so. */
bool resume_is_done(const Config *c, const char *path, int64_t step);

#endif
