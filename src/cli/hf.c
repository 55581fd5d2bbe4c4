/* hf.c: `cria export` and `cria import`. */
#include <stdlib.h>

#include "ckpt/checkpoint.h"
#include "cli/commands.h"
#include "hf/hf.h"

typedef struct {
    int dtype; /* index into dtype_names */
    const char *tokenizer;
    int64_t shard_bytes;
} ExportOptions;

static const char *const dtype_names[] = {"bf16", "fp32", NULL};

static Status export(const Args *a) {
    const ExportOptions *o = a->options;
    const HfExportOptions options = {.dtype = o->dtype == 0 ? DT_BF16 : DT_F32,
                                     .tokenizer = o->tokenizer,
                                     .shard_bytes =
                                         o->shard_bytes > 0 ? o->shard_bytes : HF_SHARD_BYTES};
    char *checkpoint;
    CHECK(checkpoint_find(a->paths[0], &checkpoint));
    Status st = hf_export(checkpoint, a->paths[1], &options);
    free(checkpoint);
    return st;
}

static Status import(const Args *a) {
    return hf_import(a->paths[0], a->paths[1]);
}

static const ArgOption options[] = {
    ARG_OPTION("dtype", NAME, ExportOptions, dtype, "bf16|fp32", "Type of the weights. [bf16]",
               .names = dtype_names),
    ARG_OPTION(
        "tokenizer", TEXT, ExportOptions, tokenizer, "PATH",
        "A tokenizer's file, or a directory that holds one; it is copied, with its settings. "
        "[data.tokenizer of the run]"),
    ARG_OPTION("shard-bytes", INTEGER, ExportOptions, shard_bytes, "N",
               "Most bytes of a weight file. [5000000000]", .min = 1, .max = INT64_MAX),
    {.name = NULL}};
const Command command_export = {
    .name = "export",
    .summary = "Write a checkpoint's weights as a Hugging Face directory.",
    .arguments = "CHECKPOINT|DIR NEW_DIR",
    .details = "Writes the weights of a checkpoint, or of the newest one of a folder, as a "
               "directory that transformers' from_pretrained() reads.",
    COMMAND_OPTIONS(options, ExportOptions),
    COMMAND_PATHS(2, 2),
    .run = export};
const Command command_import = {
    .name = "import",
    .summary = "Make a checkpoint of a Hugging Face directory.",
    .arguments = "DIR CHECKPOINT",
    .details = "Makes a checkpoint to start from (cria train CONFIG --resume CHECKPOINT) of a "
               "Hugging Face directory with a Llama model, and prints the model section to paste "
               "into a configuration.",
    COMMAND_PATHS(2, 2),
    .run = import};
