/* lineage.h: where a checkpoint comes from. Two entries of its metadata, each a JSON list of
 * objects with path, step and weights_crc (null: not known):
 *
 *   cria.lineage  the checkpoint that the run branched off, then the one that that one's run
 *                 branched off, and so on; absent in a run that began at step 0
 *   cria.merged   those of which this one is the average, each with its share as `weight`
 *
 * An object whose checkpoint is itself an average repeats its list as `merged`. */
#ifndef CRIA_CKPT_LINEAGE_H
#define CRIA_CKPT_LINEAGE_H

#include "ckpt/checkpoint.h"

#define LINEAGE_ENTRY "cria.lineage"
#define MERGED_ENTRY  "cria.merged"

/* One object of such a list: this checkpoint. The path becomes absolute. weight 0: without it. */
void lineage_print_object(const Checkpoint *ck, const char *path, double weight, StrBuf *out);
/* cria.lineage of a run that begins with this checkpoint of another run; free it. */
char *lineage_of_branch(const Checkpoint *parent, const char *path);

/* For people, a line for each object; nothing of a list that is NULL or cannot be read. */
void lineage_describe(const char *lineage, const char *merged, StrBuf *out);

#endif
