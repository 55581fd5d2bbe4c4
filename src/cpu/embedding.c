#include "cpu/cpu.h"

enum { COLUMNS = 64 }; /* of the table that one thread adds to at a time: 4 cache lines */

void cpu_embedding_fwd(void *x, const int32_t *tokens, const void *table, int64_t S, int C,
                       Stream *stream) {
    cpu_gather_rows(x, table, tokens, S, (int64_t)C * (int64_t)sizeof(float), stream);
}

/* Tokens repeat, so threads split the columns, and each walks all rows in order. */
void cpu_embedding_bwd(float *dtable, const void *dx, const int32_t *tokens, int64_t S, int C,
                       int V, Stream *stream) {
    (void)stream;
    const float *d = dx;
#pragma omp parallel for schedule(static)
    for (int begin = 0; begin < C; begin += COLUMNS) {
        int end = (int)i64_min(begin + COLUMNS, C);
        for (int64_t s = 0; s < S; s++) {
            REQUIRE(tokens[s] >= 0 && tokens[s] < V);
            float *to = dtable + (int64_t)tokens[s] * C;
            for (int c = begin; c < end; c++) to[c] += d[s * C + c];
        }
    }
}
