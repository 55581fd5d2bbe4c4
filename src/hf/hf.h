/* hf.h: Hugging Face directories. `cria export` writes one that transformers' LlamaForCausalLM
 * loads, `cria import` makes a checkpoint of one.
 *
 * The weight files are, byte for byte, those that save_pretrained of transformers 4 writes for the
 * same weights, shards and index included (5 differs in the order in which it fills several files).
 * In config.json and generation_config.json that holds between exports: export, import and export
 * again gives equal directories. What of config.json no key of the configuration holds goes through
 * training as HfExtra; of generation_config.json only what config.json has, too, is kept.
 *
 * No more than a few MiB of weights are in memory at a time, whatever the size of the model. */
#ifndef CRIA_HF_HF_H
#define CRIA_HF_HF_H

#include "ckpt/safetensors.h"
#include "config/config.h"
#include "base/json.h"

#define HF_SHARD_BYTES 5000000000LL /* transformers' "5GB" */

typedef struct {
    Dtype dtype;           /* DT_BF16 (rounded to nearest even) or DT_F32 */
    const char *tokenizer; /* a file, or a directory with some, to copy; NULL = data.tokenizer */
    int64_t shard_bytes;   /* weights of one file at most, unless one tensor is larger */
} HfExportOptions;

/* Verifies the checkpoint, writes DIR.tmp, renames it to DIR, which must not exist or be empty: an
 * interrupted export leaves no DIR, and the next one deletes its DIR.tmp. ERR_USER when the
 * checkpoint is damaged or not cria's, or DIR is in use or cannot exist; ERR_ENV when it cannot be
 * written. */
Status hf_export(const char *checkpoint, const char *dir, const HfExportOptions *o);

/* Writes the checkpoint of a run at step 0, its moments zero, and prints the model it found as a
 * section of a configuration. Weights of type F32, BF16 and F16 become fp32, exactly. ERR_USER when
 * the directory holds something else than a LLaMA that cria computes exactly, when config.json and
 * the weights disagree, and when `checkpoint` exists. Needs 4 bytes a weight of scratch space
 * beside it while it works. */
Status hf_import(const char *dir, const char *checkpoint);

/* What a run cannot tell or train but an export should say. It is the metadata entry HF_ENTRY of an
 * imported checkpoint and of every checkpoint of the runs that go on from it, as JSON with the
 * names of config.json. */
#define HF_ENTRY "cria.hf"
enum { HF_EOS_MAX = 32 };
typedef struct {
    int64_t max_positions;   /* max_position_embeddings; 0: not known */
    int64_t bos, pad;        /* -1: none */
    int64_t eos[HF_EOS_MAX]; /* ids that end a text, the one between documents first */
    int n_eos;
} HfExtra;

/* Takes the value of bos_token_id, pad_token_id or eos_token_id (a number, null, or for the last a
 * list); false for any other key. */
bool hf_extra_read(HfExtra *extra, const char *key, Json *j);
/* Leaves out ids that a vocabulary does not have. */
void hf_extra_limit(HfExtra *extra, int vocab);
void hf_extra_print(const HfExtra *extra, StrBuf *out);
/* ERR_USER when it is not what hf_extra_print writes. text NULL: nothing is known. */
Status hf_extra_parse(HfExtra *out, const char *name, const char *text);
/* What an export says: `kept` with data.eod in front of the other ends and a length that covers
 * model.seq_len. Without one that was kept, a model with RoPE scaling has the length to which RoPE
 * is stretched, factor * original. */
HfExtra hf_extra_resolve(const HfExtra *kept, const Config *c);

/* config.json as a configuration: `model` and data.eod are its, data.train names no file, the
 * rest has defaults. Takes the forms of transformers 4 and 5. Ids of *extra that the vocabulary
 * does not have are left out (LLaMA 1 has a pad_token_id of -1). ERR_USER names the field that is
 * missing, out of bounds, or asks for what cria does not compute. *out must be freed in either
 * case. */
Status hf_config_parse(Config *out, HfExtra *extra, const char *name, const char *text,
                       int64_t len);
/* config.json in the form that transformers 4 and 5 read; dtype is that of the weight files,
 * `extra` is resolved. */
void hf_config_print(const Config *c, const HfExtra *extra, Dtype dtype, StrBuf *out);
void hf_generation_print(const HfExtra *extra, StrBuf *out); /* generation_config.json */

/* tokenizer_config.json for a tokenizer that has none, so that transformers 4 and 5 give the ids of
 * the file, put nothing in front, and know the ends. `path` is tokenizer.json, a vocab.json beside
 * a merges.txt, or Llama 3's tokenizer.model; for what it cannot describe it warns and leaves *out
 * empty. Warns when the ids do not fit data.eod or model.vocab. `extra` is resolved. */
Status hf_tokenizer_config(const char *path, const HfExtra *extra, int vocab, StrBuf *out);

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
