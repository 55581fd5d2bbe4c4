/* files.h: reading a Hugging Face directory: its small text files, and all its weight files as
 * one list of tensors. */
#ifndef CRIA_HF_FILES_H
#define CRIA_HF_FILES_H

#include "ckpt/checkpoint.h"
#include "hf/hf.h"

enum { HF_FILES_MAX = 512 }; /* weight files, all open at once */

typedef struct {
    const SafeTensor *tensor;
    int file; /* the one that holds it */
    bool used;
} HfTensor;

typedef struct {
    const char *dir; /* borrowed */
    HfIndex index;   /* empty when there is one file */
    Checkpoint *files[HF_FILES_MAX];
    char *names[HF_FILES_MAX];
    int n_files;
    HfTensor *tensors; /* of all files, sorted by name */
    int n_tensors;
} HfFiles;

/* Opens model.safetensors, or the files that the index lists. ERR_USER when there is neither, when
 * index and files disagree, and when two files hold a tensor of the same name. Must be closed in
 * either case. */
Status hf_files_open(HfFiles *f, const char *dir);
void hf_files_close(HfFiles *f);
/* NULL when absent. */
HfTensor *hf_files_find(const HfFiles *f, const char *name);
/* Elements [begin, begin + n) of a tensor as fp32, exactly. ERR_USER when it is neither of type F32
 * nor BF16 nor F16. */
Status hf_files_read(const HfFiles *f, const HfTensor *t, int64_t begin, int64_t n, float *out);

/* file_read_all, but a Git LFS pointer is ERR_USER. */
Status hf_text_read(StrBuf *text, const char *path, const char *what, int64_t limit);

#endif
