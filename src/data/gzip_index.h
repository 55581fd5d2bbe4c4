/* gzip_index.h: the places in a gzip file where inflating can start; see gzip.h and, for the bytes
 * of its file, data/README.md. */
#ifndef CRIA_DATA_GZIP_INDEX_H
#define CRIA_DATA_GZIP_INDEX_H

#include "data/share.h"

/* As in the file, little-endian. */
typedef struct {
    int64_t out, in; /* content and file offset */
    int64_t window;  /* offset among the windows; 0 bytes of it: a gzip member starts here */
    uint32_t window_bytes;
    uint32_t bits; /* of byte in - 1 that belong to the block */
} GzipPoint;

typedef struct {
    int64_t size; /* of the content */
    int64_t n_points, window_bytes;
    const GzipPoint *points;      /* [n_points], out ascending, the first 0 */
    const unsigned char *windows; /* [window_bytes]: zlib streams of up to 32 KiB each */
    void *memory;                 /* what the pointers point into, where it is not `share` */
    Share *share;
} GzipIndex;

enum { GZIP_WINDOW = 32768 };

/* Reads the whole gzip file. */
Status gzip_index_build(GzipIndex *index, int fd, const char *path, int64_t bytes);
/* Reads the saved index, once for all processes of the node; false when there is none, or none of
 * these contents. */
bool gzip_index_load(GzipIndex *index, const char *index_path, int64_t bytes, uint32_t fingerprint);
/* 0 or an errno value. Written under another name first, so that it is never seen half. */
int gzip_index_save(const GzipIndex *index, const char *index_path, int64_t bytes,
                    uint32_t fingerprint);
void gzip_index_free(GzipIndex *index);

#endif
