/* writer.h: documents into token files of any of the formats, in shards if asked. Nothing has its
 * name before writer_commit, so that an interrupted run leaves only NAME.tmp files, which the next
 * one overwrites. */
#ifndef CRIA_DATA_WRITER_H
#define CRIA_DATA_WRITER_H

#include "base/base.h"
#include "config/config.h"
#include "data/megatron.h"

typedef struct {
    const char
        *prefix; /* copied; files are PREFIX.bin (and PREFIX.idx), shards PREFIX_000000.bin ... */
    DataFormat format;
    IdType type;          /* nanogpt: ID_U16; llmc: ID_U16 or ID_U32; megatron: all but ID_U32 */
    int64_t eod;          /* put behind every document, in llmc in front; -1: nothing is */
    int64_t shard_tokens; /* a shard ends with the document that reaches this; 0: one file */
    bool gzip, replace;
} WriterOptions;

typedef struct Writer Writer;

Status writer_open(Writer **writer, const WriterOptions *options);
/* A document is any number of appends, then writer_end_document. ERR_USER: an id that the type does
 * not hold. */
Status writer_append(Writer *writer, const int32_t *ids, int64_t n);
Status writer_end_document(Writer *writer);
/* Completes the files on disk; then all of them get their names, indices last. */
Status writer_finish(Writer *writer);
Status writer_commit(Writer *writer);
void writer_free(Writer *writer); /* without writer_commit: deletes what was written */
int64_t writer_tokens(const Writer *writer);
void writer_describe(const Writer *writer, StrBuf *out); /* a line for each file */

#endif
