/* hardware.h: before a run every rank's device multiplies two matrices whose product is known, so
 * that a device that computes wrongly or slowly is named before it spoils hours. */
#ifndef CRIA_SESSION_HARDWARE_H
#define CRIA_SESSION_HARDWARE_H

#include "comm/comm.h"
#include "ops/ops.h"

enum { HARDWARE_NODE_MAX = 64 };

/* Of one rank. */
typedef struct {
    double ms;     /* of the product, the best of several */
    int64_t right; /* every bit of it is as expected */
    char node[HARDWARE_NODE_MAX];
} HardwareResult;

/* A device is slow below this share of the ranks' median speed. */
#define HARDWARE_SLOW 0.8

/* Judges results[world], the same everywhere. ERR_ENV names the ranks whose product is wrong.
 * Otherwise *slow (one sentence, or empty) names those that are slow; with `timed` false none is.
 */
Status hardware_judge(const HardwareResult *results, int world, bool timed, StrBuf *slow);

/* Multiplies on every rank, and judges: times only where the devices are not the host's, whose
 * ranks share its cores. Rank 0 warns of slow ranks. A fraction of a second. Collective. */
Status hardware_check(const Ops *ops, Comm *host);

#endif
