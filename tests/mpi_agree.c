/* What all ranks must hold alike: mpirun -n {1,2,3,4} mpi_agree
 * ranks: 1 2 4
 * Weights, moments or state that differ by one bit on one rank are found and named, on every rank.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/agree.h"

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "rank %d: %s:%d: %s: \"%s\"\n", comm_world_rank(), __FILE__, __LINE__, \
                    #cond, status_message());                                                      \
            comm_abort(1);                                                                         \
        }                                                                                          \
    } while (0)
#define EXPECT_OK(call) EXPECT((call) == OK)

static void expect_fails(Status st, Status code, const char *text) {
    EXPECT(st == code && comm_agreed());
    EXPECT(strstr(status_message(), text) != NULL);
    status_clear();
}

/* On rank `bad` alone, one bit of the state. */
static void flip(Session *s, int bad, void *at) {
    if (s->rank == bad) *(unsigned char *)at ^= 0x10;
}

static void expect_named(Session *s, const TrainState *state, int bad, void *at, const char *name) {
    if (s->world == 1) return;
    char text[160], rank[80];
    flip(s, bad, at);
    snprintf(text, sizeof text, "step 7: the ranks no longer agree: the checksum of %s is ", name);
    /* Of two, nobody knows which one is wrong: rank 0's is as common, and comes first. */
    snprintf(rank, sizeof rank, "on rank %d, ", s->world == 2 ? 1 : bad);
    Status st = agree_weights(s, state);
    EXPECT(strstr(status_message(), rank) != NULL);
    expect_fails(st, ERR_ENV, text);
    flip(s, bad, at);
    EXPECT_OK(agree_weights(s, state));
}

static void weights_are_compared(const char *zero) {
    Config config = {0};
    Session s;
    char *overrides[] = {(char *)(uintptr_t)zero};
    EXPECT_OK(config_load(&config, "tests/e2e/micro.yaml", 1, overrides));
    EXPECT_OK(session_open(&s, &config, NULL));
    EXPECT_OK(session_start(&s));
    EXPECT_OK(optimizer_init(s.optimizer, 1, s.stream));
    TrainState state = {.step = 7, .tokens = 1792, .guard = {.seen = 7}};
    EXPECT_OK(agree_weights(&s, &state));
    char *weights = llama_weights(s.llama);
    for (int i = 0; i < s.table->n_params; i += 3) {
        const Param *p = &s.table->params[i];
        int64_t last = p->offset + p->rows * p->cols - 1;
        expect_named(&s, &state, i % s.world, weights + p->offset * s.ops->act_bytes, p->name);
        expect_named(&s, &state, (i + 1) % s.world, weights + last * s.ops->act_bytes + 3, p->name);
    }
    expect_named(&s, &state, s.world - 1, &state.guard.losses[6], "the state of the run");
    if (!config.parallel.zero) {
        ParamPiece *own; /* every rank holds the moments of all */
        int n = param_table_pieces(s.table, 0, &own);
        expect_named(&s, &state, 0, optimizer_state(s.optimizer, OPTIM_V, &own[n - 1]),
                     "the second moments of model.norm.weight");
        free(own);
    }
    session_close(&s);
    config_free(&config);
}

static void texts_are_compared(void) {
    Comm *host;
    EXPECT_OK(comm_mpi_create(&host));
    bool last = host->rank == host->size - 1 && host->size > 1;
    EXPECT_OK(agree_text(host, "it", "a=1\nb=2\n"));
    EXPECT_OK(agree_text(host, "it", ""));
    char sentence[120];
    snprintf(sentence, sizeof sentence,
             "rank %d: it differs from that of rank 0: found b=3, "
             "expected b=2; start",
             host->size - 1);
    if (host->size > 1) {
        expect_fails(agree_text(host, "it", last ? "a=1\nb=3\n" : "a=1\nb=2\n"), ERR_USER,
                     sentence);
        expect_fails(agree_text(host, "it", last ? "a=1\n" : "a=1\nb=2\n"), ERR_USER,
                     "found nothing, expected b=2;");
        expect_fails(agree_text(host, "it", last ? "a=1\nb=2\nc" : "a=1\nb=2\n"), ERR_USER,
                     "found c, expected nothing;");
    }
    comm_free(host);
}

int main(int argc, char **argv) {
    EXPECT_OK(comm_start(&argc, &argv));
    texts_are_compared();
    weights_are_compared("parallel.zero=1");
    weights_are_compared("parallel.zero=0");
    if (comm_world_rank() == 0) printf("mpi_agree: %d ranks passed\n", comm_world_size());
    comm_finish();
    return 0;
}
