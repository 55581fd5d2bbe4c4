/* safetensors.h: the container format: u64 little-endian header length, JSON header, then the bytes
 * of all tensors without holes. Header reading is strict and never allocates more than the header
 * itself warrants; writing pads the header so that tensor data starts 64-byte aligned. */
#ifndef CRIA_CKPT_SAFETENSORS_H
#define CRIA_CKPT_SAFETENSORS_H

#include "base/base.h"

#define SAFE_MAX_DIMS 8
#define SAFE_TYPE_MAX                                                                              \
    16 /* bytes of a type's name and its end; the longest known has 11 characters */
/* What no header has reason to exceed (that of LLaMA-3B has 0.2 MB, its moments included), so that
 * reading the worst takes less than 64 MB. */
#define SAFE_MAX_HEADER (16LL << 20)
#define SAFE_MAX_LIST   100000 /* tensors, and metadata keys */

typedef struct {
    char *name;
    Dtype dtype; /* DT_OTHER: a type that cria does not read, such as F8_E4M3 or BOOL */
    char type[SAFE_TYPE_MAX]; /* read from a file: the name of the type; writing takes it from dtype
                               */
    int ndim;
    int64_t shape[SAFE_MAX_DIMS];
    int64_t begin, end; /* bytes from the start of the data section */
} SafeTensor;

typedef struct {
    char *key, *value;
} SafeEntry;

typedef struct {
    SafeTensor *tensors; /* in the order of their data */
    int n_tensors;
    SafeTensor **by_name; /* the same, sorted */
    SafeEntry *entries;   /* __metadata__, sorted by key */
    int n_entries;
    int64_t data_start;  /* file offset of the data section */
    uint32_t header_crc; /* CRC-32 of the JSON that safetensors_read() has parsed */
} SafeFile;

/* Parses a header of `len` JSON bytes that a file of file_size bytes starts with (after the 8-byte
 * length). ERR_USER with one message naming `name` and what is wrong: not JSON, duplicate names,
 * shape and range disagree, overlap, hole, past the end, more than anyone needs. A type that the
 * format does not have yet is accepted, as the tensor may be one that nobody reads; shape and range
 * are then not compared. */
Status safetensors_parse(SafeFile *f, const char *name, const char *json, int64_t len,
                         int64_t file_size);
/* Reads and parses the header of an open file. */
Status safetensors_read(SafeFile *f, const char *path, int fd);
void safetensors_free(SafeFile *f);
/* NULL when absent. */
const SafeTensor *safetensors_find(const SafeFile *f, const char *name);
const char *safetensors_entry(const SafeFile *f, const char *key);

int64_t safetensors_count(const SafeTensor *t); /* elements */
const char *safetensors_dtype_name(Dtype t);    /* "F32", ...; of DT_OTHER "other" */

/* Assigns begin and end to tensors in list order and appends the 8-byte length and the padded
 * header to out. Offsets do not depend on the values of entries of equal lengths. */
void safetensors_layout(SafeTensor *tensors, int n_tensors);
void safetensors_header(StrBuf *out, const SafeTensor *tensors, int n_tensors,
                        const SafeEntry *entries, int n_entries);

#endif
