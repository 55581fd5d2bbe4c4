#include "train/candidates.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/progress.h"
#include "train/branch.h"

bool candidates_is_auto(const char *resume) {
    return strcmp(resume, "auto") == 0;
}

bool candidates_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

void candidates_free(Candidates *a) {
    free(a->dir);
    free(a->steps);
    free(a->named);
    strbuf_free(&a->skipped);
}

/* Checkpoints of two runs in one folder would be taken for those of one. */
static Status refuse_mixture(const Config *c, const char *path) {
    int64_t *steps, n;
    if (branch_has(c, path)) return OK;
    CHECK(checkpoint_list(c->run.dir, &steps, &n));
    Status st =
        n == 0 ? OK
               : status_fail(
                     ERR_USER,
                     "run.dir %s holds checkpoints, the newest of step %lld, and %s is none of "
                     "them: choose another run.dir, or --resume auto to go on with what is there",
                     c->run.dir, (long long)steps[0], path);
    free(steps);
    return st;
}

static Status list_folder(Candidates *a, const Config *c, const char *resume) {
    a->dir = mem_strdup(resume);
    CHECK(checkpoint_list(a->dir, &a->steps, &a->n));
    if (a->n == 0)
        return status_fail(ERR_USER, "--resume %s: there is no checkpoint in this folder", resume);
    char *newest = checkpoint_path(a->dir, a->steps[0]);
    Status st = refuse_mixture(c, newest);
    free(newest);
    return st;
}

Status candidates_list(Candidates *a, const Config *c, const char *resume) {
    if (!candidates_is_auto(resume) && candidates_is_dir(resume)) return list_folder(a, c, resume);
    if (!candidates_is_auto(resume)) {
        a->named = mem_strdup(resume);
        return refuse_mixture(c, resume);
    }
    CHECK(checkpoint_list(c->run.dir, &a->steps, &a->n));
    if (a->n == 0) return branch_read_origin(c, &a->named);
    a->dir = mem_strdup(c->run.dir);
    return OK;
}

Status candidates_next(Candidates *a, char **path, Checkpoint **ck) {
    *ck = NULL;
    *path = NULL;
    if (a->named != NULL) {
        CHECK(checkpoint_open(ck, a->named));
        *path = mem_strdup(a->named);
        return checkpoint_verify_header(*ck);
    }
    while (a->next < a->n && *ck == NULL) {
        free(*path);
        *path = checkpoint_path(a->dir, a->steps[a->next++]);
        CHECK(checkpoint_open_valid(ck, *path, &a->skipped));
    }
    if (*ck != NULL) return OK;
    free(*path);
    *path = NULL;
    if (a->n == 0) return OK;
    a->skipped.text[--a->skipped.len] = '\0'; /* the last line's end */
    return status_fail(ERR_USER,
                       "no checkpoint in %s can be used (move them away to start at step 0): %s",
                       a->dir, strbuf_text(&a->skipped));
}

/* Of a file whose header rank 0 has found right. */
static Status open_again(const char *path, Checkpoint **ck) {
    REQUIRE(path != NULL);
    Status st = checkpoint_open(ck, path);
    if (st == OK) st = checkpoint_verify_header(*ck);
    if (st != ERR_USER) return st;
    if (access(path, R_OK) != 0) {
        status_suffix("; do all ranks see its folder?");
        return st;
    }
    char *what = mem_strdup(status_message());
    status_ignore(st);
    st = status_fail(ERR_ENV,
                     "%s; rank 0 found it right, so memory, storage or the network is faulty here",
                     what);
    free(what);
    return st;
}

Status candidates_open_next(Comm *host, Candidates *a, char **path, Checkpoint **ck, bool *more) {
    *path = NULL;
    *ck = NULL;
    progress_beat(0, "finding the checkpoint");
    CHECK(comm_agree(host, host->rank == 0 ? candidates_next(a, path, ck) : OK));
    int64_t chosen[] = {*path != NULL ? (int64_t)strlen(*path) + 1 : 0, a->named == NULL};
    CHECK(comm_broadcast(host, chosen, 2, DT_I64, 0, NULL));
    *more = chosen[1] != 0;
    if (chosen[0] == 0) return OK;
    if (host->rank != 0) *path = NEW(char, chosen[0]);
    CHECK(comm_broadcast(host, *path, chosen[0], DT_U8, 0, NULL));
    CHECK(comm_agree(host, host->rank != 0 ? open_again(*path, ck) : OK));
    uint64_t header = strtoul(checkpoint_entry(*ck, "header_crc"), NULL, 16);
    return comm_agree_equal(host, header, "the checkpoint's header");
}
