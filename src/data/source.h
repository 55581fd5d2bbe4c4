/* source.h: one entry of data.train or data.val: a token file, or the files that a pattern matches,
 * or the part of each that data.split chooses. Its samples are numbered through all files. */
#ifndef CRIA_DATA_SOURCE_H
#define CRIA_DATA_SOURCE_H

#include "data/tokens.h"

typedef struct {
    TokenFile *tokens;
    int64_t begin, end;                   /* its tokens that take part */
    int64_t first_sequence, end_sequence; /* the same as sequences, when there is an index */
    int64_t samples;
    int64_t samples_before; /* of the files in front of it */
    bool warned;            /* that it was modified */
} SourceFile;

typedef struct {
    char *path; /* as the user wrote it */
    SourceFile *files;
    int n_files;
    int64_t samples;
} Source;

typedef struct {
    const char *path; /* *, ? and [...] match file names (glob(7)), in the order of their bytes */
    DataFormat format;
    const char *split; /* "" or shares; see split_range */
    int part;
    int64_t eod, seq_len;
} SourceOptions;

/* The files that a path or pattern stands for; ERR_USER: none. The array and its strings are the
 * caller's to free. */
Status source_expand(const char *path, char ***paths, int *n);

/* The elements [*begin, *end) of n that part `part` (SPLIT_TRAIN, ...) gets under the shares
 * "train,val,test" (missing ones are 0); "" = all of them whatever the part. Cuts where Megatron
 * cuts: shares are normalized and summed up as doubles, borders rounded half to even. The text has
 * passed config's check. */
void split_range(const char *split, int part, int64_t n, int64_t *begin, int64_t *end);

/* Sample k of a file starts at token begin + k * seq_len and has seq_len + 1 tokens. A split
 * without an index cuts at the first document that begins at or behind the share of the tokens.
 * ERR_USER: no such file, too short for a sample, a split without documents. */
Status source_open(Source *source, const SourceOptions *options);
void source_close(Source *source);
/* The file that sample *k is of; *k becomes its number there. */
const SourceFile *source_find(const Source *source, int64_t *k);

#endif
