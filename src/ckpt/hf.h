/* hf.h: Hugging Face directories. `cria export` writes one that transformers' LlamaForCausalLM
 * loads, `cria import` makes a checkpoint of one.
 *
 * The weight files are, byte for byte, those that save_pretrained of transformers 4 writes for the
 * same weights, shards and index included (5 differs in the order in which it fills several files).
 * In config.json and generation_config.json that holds between exports: export, import and export
 * again gives equal directories. What training knows no key for is not kept by an import:
 * bos_token_id, and the other ends when eos_token_id is a list.
 *
 * No more than a few MiB of weights are in memory at a time, whatever the size of the model. */
#ifndef CRIA_CKPT_HF_H
#define CRIA_CKPT_HF_H

#include "ckpt/safetensors.h"
#include "config.h"

#define HF_SHARD_BYTES 5000000000LL /* transformers' "5GB" */

typedef struct {
    Dtype dtype;           /* DT_BF16 (rounded to nearest even) or DT_F32 */
    const char *tokenizer; /* a file, or a directory with some, to copy; NULL = none */
    int64_t shard_bytes;   /* weights of one file at most, unless one tensor is larger */
} HfExportOptions;

/* Verifies the checkpoint, writes DIR.tmp, renames it to DIR, which must not exist or be empty: an
 * interrupted export leaves no DIR, and the next one deletes its DIR.tmp. ERR_USER when the
 * checkpoint is damaged or not cria's, or DIR is in use; ERR_ENV when it cannot be written. */
Status hf_export(const char *checkpoint, const char *dir, const HfExportOptions *o);

/* Writes the checkpoint of a run at step 0, its moments zero. ERR_USER when the directory holds
 * something else than a LLaMA that cria computes exactly, when config.json and the weights
 * disagree, and when `checkpoint` exists. Needs 4 bytes a weight of scratch space beside it while
 * it works. */
Status hf_import(const char *dir, const char *checkpoint);

/* config.json as a configuration: `model` and data.eod are its, data.train names no file, the
 * rest has defaults. Takes the forms of transformers 4 and 5. ERR_USER names the field that is
 * missing, out of bounds, or asks for what cria does not compute. *out must be freed in either
 * case. */
Status hf_config_parse(Config *out, const char *name, const char *text, int64_t len);
/* config.json in the form that transformers 4 and 5 read; dtype is that of the weight files. */
void hf_config_print(const Config *c, Dtype dtype, StrBuf *out);
void hf_generation_print(const Config *c, StrBuf *out); /* generation_config.json */

/* model.safetensors.index.json: which file (value) of the same directory holds which tensor (key),
 * sorted by key. ERR_USER when it is not that. */
typedef struct {
    SafeEntry *places;
    int n_places;
} HfIndex;
Status hf_index_parse(HfIndex *index, const char *name, const char *text, int64_t len);
/* Of entries sorted by key. */
void hf_index_print(const HfIndex *index, int64_t n_weights, int64_t bytes, StrBuf *out);
void hf_index_free(HfIndex *index);

#endif
