/* resume.h: --resume and --from, a run continues from a checkpoint. */
#ifndef CRIA_TRAIN_RESUME_H
#define CRIA_TRAIN_RESUME_H

#include "session/train_state.h"
#include "train/train.h"

/* Where a run begins; zero: at step 0. */
typedef struct {
    char *path;    /* of the checkpoint; NULL: none */
    char *changes; /* what the configuration changes, lines of text; NULL: nothing */
} Resume;

void resume_free(Resume *r);

/* Before run.dir is made, for a checkpoint or folder that --resume or --from names (not "auto"):
 * ERR_USER when it cannot be loaded; *done, with a message, when the run has no steps left.
 * Collective. */
Status resume_check_named(const Config *c, Comm *host, const TrainOptions *o, bool *done);

/* Loads the checkpoint that the options name: a file, a folder (its newest undamaged one), or
 * "auto" (that of run.dir), and sets s->lineage. r->path NULL: run.dir
 * has none yet. ERR_USER when a branch would have no steps. Warns of damaged files that were passed
 * over. Writes nothing. Collective. */
Status resume_load(Session *s, const TrainOptions *o, TrainState *state, Resume *r);

/* Whether all steps are done; then prints that. */
bool resume_is_done(const Config *c, const char *path, int64_t step);

#endif
