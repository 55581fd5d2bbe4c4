#include "health/agree.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/version.h"
#include "comm/agree.h"

/* ---- at the start ---------------------------------------------------------------------------- */

/* The version does not distinguish builds from modified files or with other options. */
static void print_binary(StrBuf *out) {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int64_t bytes = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    uint32_t crc = 0;
    if (bytes > 0) file_read_crc(fd, NULL, bytes, 0, &crc);
    if (fd >= 0) close(fd);
    strbuf_printf(out, "cria %s of %lld bytes with CRC-32 %08x\n", cria_version, (long long)bytes,
                  crc);
}

Status agree_start(const Config *c, const char *resume, const char *from, bool dry_run) {
    Comm *host;
    CHECK(comm_mpi_create(&host));
    StrBuf binary = {0}, started = {0};
    print_binary(&binary);
    config_print_lines(c, &started);
    if (resume != NULL) strbuf_printf(&started, "--resume %s\n", resume);
    if (from != NULL) strbuf_printf(&started, "--from %s\n", from);
    if (dry_run) strbuf_printf(&started, "--dry-run\n");
    Status st = agree_text(host, "the binary", strbuf_text(&binary));
    if (st == OK) st = agree_text(host, "the configuration", strbuf_text(&started));
    strbuf_free(&binary);
    strbuf_free(&started);
    comm_free(host);
    return st;
}

/* ---- during the run -------------------------------------------------------------------------- */

/* What ranks have of a tensor: 0 the weights they compute with, then the optimizer's states. */
static char *replica_name(const Session *s, int64_t i) {
    const char *tensor = s->table->params[i % s->table->n_params].name;
    int which = (int)(i / s->table->n_params);
    return which == 0 ? mem_strdup(tensor)
                      : mem_printf("the %s of %s",
                                   optimizer_desc(s->optimizer)->states[which - 1].label, tensor);
}

static void print_ranks(StrBuf *out, const uint64_t *of_rank, int64_t stride, int world,
                        uint64_t value) {
    int shown = 0, last = 0, n = 0;
    for (int r = 0; r < world; r++) {
        if (of_rank[r * stride] != value) continue;
        n++;
        if (shown < 8) {
            strbuf_printf(out, "%s%d", shown++ > 0 ? ", " : "", r);
            last = r;
        }
    }
    if (n > shown) strbuf_printf(out, " and %d more after %d", n - shown, last);
}

/* The value of most ranks; the lowest rank's among equally common ones. */
static uint64_t most_common(const uint64_t *of_rank, int64_t stride, int world) {
    uint64_t best = 0;
    int best_count = 0;
    for (int r = 0; r < world; r++) {
        int count = 0;
        for (int q = 0; q < world; q++) count += of_rank[q * stride] == of_rank[r * stride];
        if (count > best_count) {
            best = of_rank[r * stride];
            best_count = count;
        }
    }
    return best;
}

/* all [world * n]: checksums of each rank, some of which differ. */
static Status describe_difference(const Session *s, const TrainState *state, const uint64_t *all,
                                  int64_t n) {
    int64_t i = 0;
    int r = 1, world = s->world;
    while (all[r * n + i] == all[i])
        if (++r == world) r = 1, i++;
    uint64_t common = most_common(all + i, n, world), other = common;
    for (r = 0; r < world && other == common; r++) other = all[r * n + i];
    char *name = i == n - 1 ? mem_strdup("the state of the run") : replica_name(s, i);
    StrBuf most = {0}, few = {0};
    print_ranks(&most, all + i, n, world, common);
    print_ranks(&few, all + i, n, world, other);
    Status st =
        status_fail(ERR_ENV,
                    "step %lld: the ranks no longer agree: the checksum of %s is %016llx on rank "
                    "%s, %016llx on rank %s; memory, a GPU or the network is faulty there; nothing "
                    "was saved since, --resume auto continues from the last checkpoint",
                    (long long)state->step, name, (unsigned long long)other, strbuf_text(&few),
                    (unsigned long long)common, strbuf_text(&most));
    free(name);
    strbuf_free(&most);
    strbuf_free(&few);
    return st;
}

Status agree_weights(Session *s, const TrainState *state) {
    Comm *host = s->comm.host;
    if (s->world == 1) return OK;
    int64_t n = (int64_t)s->table->n_params * (1 + optimizer_desc(s->optimizer)->n_states) + 1;
    uint64_t *all = NEW(uint64_t, n * s->world), *mine = all + n * s->rank;
    Status st;
    CHECK_GOTO(comm_agree(host, optimizer_checksums(s->optimizer, mine, s->stream)), done);
    mine[n - 1] = crc32(0, (const Bytef *)state, sizeof *state);
    /* Compares one number per rank, and gathers all only if it differs. */
    uint64_t digest = 0;
    cpu_ops()->checksum(&digest, mine, n * (int64_t)sizeof *mine, NULL);
    int64_t extremes[2] = {(int64_t)digest,
                           (int64_t)~digest}; /* the maximum, and not the minimum */
    CHECK_GOTO(comm_all_reduce(host, extremes, 2, DT_I64, COMM_MAX, COMM_KIND_OTHER, NULL), done);
    if (extremes[0] == ~extremes[1]) goto done;
    CHECK_GOTO(comm_all_gather(host, all, n, DT_I64, COMM_KIND_OTHER, NULL), done);
    st = comm_agree(host, describe_difference(s, state, all, n));
done:
    free(all);
    return st;
}
