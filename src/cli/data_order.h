/* data_order.h: `cria data order`: which samples a step of a configuration trains on, and where
 * their tokens are. Needs the token files, no MPI and no device. */
#ifndef CRIA_CLI_DATA_ORDER_H
#define CRIA_CLI_DATA_ORDER_H

#include "config/config.h"

typedef struct {
    const char *step; /* "N" or "N:M", both included, as log.jsonl counts them; NULL: 1 */
    bool eval;        /* the samples of the evaluation after each step instead */
    bool json;
} OrderCommandOptions;

/* Prints a line for each piece of each sample: step, number of the sample, file, its first token of
 * the file, tokens; where the file has an index, also the document and how far in it the piece
 * begins. As JSON an object a line for each sample:
 *   {"step","sample","pieces":[{"file","begin","tokens","document","offset"}]}
 * ERR_USER: not steps of the run, no evaluation there, files that cannot be read. */
Status order_command_run(const Config *config, const OrderCommandOptions *options);

#endif
