/* checkpoint_parts.h: the CRC-32s of parts of tensors, which the ranks computed as they wrote or
 * read them, combined into the CRC-32 of each tensor. */
#ifndef CRIA_CKPT_CHECKPOINT_PARTS_H
#define CRIA_CKPT_CHECKPOINT_PARTS_H

#include "comm/comm.h"
#include "safetensors.h"

typedef struct {
    int64_t tensor;       /* index into a list of tensors */
    int64_t begin, count; /* elements; count 0: an empty part, which is dropped */
    int64_t crc;          /* zlib's CRC-32 of its bytes */
    int64_t rank;         /* that has it; parts_gather() fills it in */
} CkptPart;

/* Collective: the parts of all ranks, in the order of their places, on every rank. Free *all. */
Status parts_gather(Comm *host, const CkptPart *mine, int64_t n, CkptPart **all, int64_t *n_all);
/* crcs[i] becomes the CRC-32 of tensor i. The parts must cover every tensor exactly once. */
void parts_combine(const CkptPart *all, int64_t n, const SafeTensor *tensors, int n_tensors,
                   uint32_t *crcs);
/* CRC-32 of the tensors that are not "optim.*", one behind the other, from those of each. */
uint32_t parts_weights_crc(const SafeTensor *tensors, int n_tensors, const uint32_t *crcs);

#endif
