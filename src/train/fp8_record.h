/* fp8_record.h: how the operands of FP8 products fared on all ranks, for the log. */
#ifndef CRIA_TRAIN_FP8_RECORD_H
#define CRIA_TRAIN_FP8_RECORD_H

#include "metrics/sink.h"
#include "session/session.h"

/* Since the last call. Only with precision fp8. Collective; waits for the stream. */
Status fp8_record_fill(Session *s, Fp8Record *out);

#endif
