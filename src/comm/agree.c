#include "comm/agree.h"

#include <stdlib.h>
#include <string.h>

static const char *const START_ALIKE = "start every rank with the same binary, files and arguments";

/* A failure is worse than a request to stop: a state saved by some ranks only is not saved. */
static int severity(Status s) {
    static const int severities[] = {[OK] = 0, [ERR_STOPPED] = 1, [ERR_USER] = 2, [ERR_ENV] = 3};
    return severities[s];
}

Status comm_agree(Comm *host, Status mine) {
    typedef struct {
        int32_t status, length;
    } Report;
    Report *reports = NEW(Report, host->size);
    char *message = NULL;
    status_set_agreed(false); /* until every rank has the failure */
    reports[host->rank] = (Report){(int32_t)mine, (int32_t)strlen(status_message())};
    Status st = comm_all_gather(host, reports, 2, DT_I32, COMM_KIND_OTHER, NULL);
    if (st != OK) goto done;

    int failed = 0, worst = 0;
    for (int r = 0; r < host->size; r++) {
        Status s = (Status)reports[r].status;
        failed += s != OK;
        if (severity(s) > severity((Status)reports[worst].status)) worst = r;
    }
    if (failed == 0) goto done;

    message = NEW(char, reports[worst].length + 1);
    if (worst == host->rank) memcpy(message, status_message(), (size_t)reports[worst].length);
    CHECK_GOTO(comm_broadcast(host, message, reports[worst].length, DT_U8, worst, NULL), done);
    status_clear();
    st = status_fail((Status)reports[worst].status, "%s", message);
    if (failed < host->size) status_prefix("rank %d", worst);
    status_set_agreed(true);
done:
    free(reports);
    free(message);
    return st;
}

Status comm_agree_equal(Comm *host, uint64_t value, const char *what) {
    uint64_t *values = NEW(uint64_t, host->size);
    values[host->rank] = value;
    Status st = comm_all_gather(host, values, 1, DT_I64, COMM_KIND_OTHER, NULL);
    for (int r = 1; r < host->size && st == OK; r++) {
        if (values[r] == values[0]) continue;
        st = status_fail(
            ERR_ENV, "%s differs between ranks: %016llx on rank 0, %016llx on rank %d; %s", what,
            (unsigned long long)values[0], (unsigned long long)values[r], r, START_ALIKE);
        status_set_agreed(true);
    }
    free(values);
    return st;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static Status compare_text(const char *what, const char *mine, const char *first,
                           const char *remedy) {
    if (strcmp(mine, first) == 0) return OK;
    for (; *mine != '\0' && strncmp(mine, first, strcspn(mine, "\n") + 1) == 0;) {
        first += strcspn(mine, "\n") + 1;
        mine += strcspn(mine, "\n") + 1;
    }
    int here = (int)strcspn(mine, "\n"), there = (int)strcspn(first, "\n");
    return status_fail(ERR_USER, "%s differs from that of rank 0: found %.*s, expected %.*s; %s",
                       what, here > 0 ? here : 7, here > 0 ? mine : "nothing",
                       there > 0 ? there : 7, there > 0 ? first : "nothing", remedy);
}

static Status agree_or(Comm *host, const char *what, const char *mine, const char *remedy) {
    int64_t len = (int64_t)strlen(mine);
    CHECK(comm_broadcast(host, &len, 1, DT_I64, 0, NULL));
    char *first = NEW(char, len + 1);
    if (host->rank == 0) memcpy(first, mine, (size_t)len);
    Status st = comm_broadcast(host, first, len, DT_U8, 0, NULL);
    if (st == OK) st = comm_agree(host, compare_text(what, mine, first, remedy));
    free(first);
    return st;
}

Status agree_text(Comm *host, const char *what, const char *mine) {
    return agree_or(host, what, mine, START_ALIKE);
}

Status agree_device(Comm *host, const Ops *ops) {
    char *mine = ops->gpu == NULL
                     ? mem_strdup(ops->name)
                     : mem_printf("%s (%s, compute capability %d.%d)", ops->name, ops->device_name,
                                  ops->gpu->capability / 10, ops->gpu->capability % 10);
    Status st = agree_or(host, "the device", mine, "choose hosts with the same GPUs");
    free(mine);
    return st;
}

Status agree_first(Comm *host, char **text) {
    int32_t first = *text != NULL ? host->rank : host->size;
    CHECK(comm_all_reduce(host, &first, 1, DT_I32, COMM_MIN, COMM_KIND_OTHER, NULL));
    if (first == host->size || host->size == 1) return OK;
    char *shared = first == host->rank ? mem_printf("rank %d: %s", first, *text) : NULL;
    free(*text);
    *text = NULL;
    int64_t len = shared != NULL ? (int64_t)strlen(shared) + 1 : 0;
    Status st = comm_broadcast(host, &len, 1, DT_I64, first, NULL);
    if (shared == NULL) shared = NEW(char, len);
    if (st == OK) st = comm_broadcast(host, shared, len, DT_U8, first, NULL);
    *text = shared;
    return st;
}
