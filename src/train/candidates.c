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

/* A branch has a run.dir of its own. `path` is of a checkpoint or a folder. */
static Status refuse_own(const Config *c, const char *path) {
    char *newest = candidates_is_dir(path) ? checkpoint_path(path, 0) : mem_strdup(path);
    bool own = branch_has(c, newest);
    free(newest);
    if (!own) return OK;
    return status_fail(ERR_USER,
                       "--from %s is of run.dir %s itself: choose another run.dir for "
                       "the branch, or --resume %s to go back to it",
                       path, c->run.dir, path);
}

/* What `option` names. `check` is of the file, or of the newest one of the folder. */
static Status list_named(Candidates *a, const Config *c, const char *option, const char *path,
                         Status (*check)(const Config *c, const char *path)) {
    if (!candidates_is_dir(path)) {
        a->named = mem_strdup(path);
        return check(c, path);
    }
    a->dir = mem_strdup(path);
    CHECK(checkpoint_list(a->dir, &a->steps, &a->n));
    if (a->n == 0)
        return status_fail(ERR_USER, "%s %s: there is no checkpoint in this folder", option, path);
    char *newest = checkpoint_path(a->dir, a->steps[0]);
    Status st = check(c, newest);
    free(newest);
    return st;
}

/* run.dir has checkpoints: have they begun there? */
static Status check_origin(const Config *c, const char *from) {
    char *origin;
    CHECK(branch_read_origin(c, &origin));
    Status st = OK;
    if (!branch_is_of(origin, from))
        st = status_fail(
            ERR_USER,
            "run.dir %s holds a run that began %s%s, not from %s: choose another run.dir "
            "for the branch, or leave out --from to go on with that run",
            c->run.dir, origin != NULL ? "from " : "at step 0", origin != NULL ? origin : "", from);
    free(origin);
    return st;
}

/* The run's own, or, while it has none, the one that it begins with: also after a crash, when a
 * folder's newest is another one by now. */
static Status list_own(Candidates *a, const Config *c, const char *from) {
    char *origin;
    CHECK(checkpoint_list(c->run.dir, &a->steps, &a->n));
    if (a->n > 0) {
        a->dir = mem_strdup(c->run.dir);
        if (from != NULL) CHECK(refuse_own(c, from));
        return from != NULL ? check_origin(c, from) : OK;
    }
    CHECK(branch_read_origin(c, &origin));
    if (from == NULL || branch_is_of(origin, from)) {
        a->named = origin;
        return OK;
    }
    free(origin);
    return list_named(a, c, "--from", from, refuse_own);
}

Status candidates_list(Candidates *a, const Config *c, const TrainOptions *o) {
    if (o->from != NULL || candidates_is_auto(o->resume)) return list_own(a, c, o->from);
    return list_named(a, c, "--resume", o->resume, refuse_mixture);
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
