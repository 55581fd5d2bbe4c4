/* data_pack.h: cria data pack: token files of any format into one format, in shards, compressed,
 * with a part of the documents held out. */
#ifndef CRIA_CLI_DATA_PACK_H
#define CRIA_CLI_DATA_PACK_H

#include "base/base.h"

/* --to FORMAT --out PREFIX [--format F] [--eod ID] [--vocab N] [--ids TYPE] [--val SHARE [--seed
 * N]]
 * [--shard TOKENS] [--gzip] [--force] PATH...
 * Documents keep their order. With --eod a document is what lies between two such ids, and the id
 * is put where the output format has it; with --eod none, or without it where input and output have
 * it in the same place, ids are copied as they are. --val sends each document to PREFIX_val with
 * this probability, by a draw of (seed, number of the document); the rest goes to PREFIX_train.
 * Where the draw leaves one of the two empty, the last tokens are held out instead. Nothing has its
 * final name before all is written. */
Status pack_command(int argc, char **argv);

#endif
