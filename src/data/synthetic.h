/* synthetic.h: lengths of packed documents for measurements and plans that have no data. */
#ifndef CRIA_DATA_SYNTHETIC_H
#define CRIA_DATA_SYNTHETIC_H

#include <stdint.h>

/* Both say where documents begin in a stream of tokens (`begin` holds as many) and return their
 * number. */

/* As MagiAttention's benchmarks draw them: bin mid-points of a table of document lengths, by count,
 * each at most a quarter of a sequence of T tokens, the last of a sequence cut. `stream`: of
 * base/rng.h. */
int64_t synthetic_pack(uint64_t seed, uint64_t stream, int64_t S, int64_t T, int32_t *begin);

/* Log-uniform in [100, 4000], the last one cut: int(exp(log 100 + u (log 4000 - log 100))), u drawn
 * as PyTorch's CPU generator of this seed draws torch.rand(1), so that a script in PyTorch can use
 * the same documents. */
int64_t synthetic_documents(uint32_t seed, int64_t S, int32_t *begin);

#endif
