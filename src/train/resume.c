#include "train/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "train/changes.h"
#include "base/progress.h"

void resume_free(Resume *r) {
    free(r->path);
    free(r->changes);
    *r = (Resume){0};
}

static bool is_auto(const char *resume) {
    return strcmp(resume, "auto") == 0;
}

static bool is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool resume_is_done(const Config *c, const char *path, int64_t step) {
    if (step < c->run.steps) return false;
    if (step == c->run.steps)
        log_info("all %lld steps are done, as %s has them; run.steps=%lld goes on", (long long)step,
                 path, (long long)(2 * step));
    else
        log_info("%s is of step %lld, run.steps is %lld: nothing to do; run.steps=%lld goes on",
                 path, (long long)step, (long long)c->run.steps, (long long)(2 * step));
    return true;
}

/* ---- run.dir --------------------------------------------------------------------------------- */

/* Does the path name a checkpoint of run.dir, under the name that saves give it? */
static bool is_of_run(const Config *c, const char *path) {
    struct stat a, b;
    int64_t step;
    if (!checkpoint_path_step(path, &step)) return false;
    char *dir = file_parent(path);
    bool same = stat(dir, &a) == 0 && stat(c->run.dir, &b) == 0 && a.st_dev == b.st_dev &&
                a.st_ino == b.st_ino;
    free(dir);
    return same;
}

/* A run that begins with a checkpoint from elsewhere has none of its own until its first save. What
 * it began with is in this file, for --resume auto after a crash before that. */
static char *origin_path(const Config *c) {
    return mem_printf("%s/started_from", c->run.dir);
}

static Status write_origin(const Config *c, const char *path) {
    char *absolute = realpath(path, NULL), *file = origin_path(c);
    int error =
        absolute == NULL ? errno : file_write_atomic(file, absolute, (int64_t)strlen(absolute));
    Status st =
        error == 0 ? OK : status_fail(ERR_ENV, "cannot write %s: %s", file, strerror(error));
    free(absolute);
    free(file);
    return st;
}

/* *path NULL: the run began at step 0, or not yet. */
static Status read_origin(const Config *c, char **path) {
    char *file = origin_path(c), text[PATH_MAX + 1] = "";
    Status st = OK;
    *path = NULL;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        if (read(fd, text, PATH_MAX) > 0) *path = mem_strdup(text);
        close(fd);
    }
    if (*path == NULL && (fd >= 0 || errno != ENOENT))
        st = status_fail(ERR_ENV, "cannot read %s: %s", file, strerror(errno));
    free(file);
    return st;
}

/* run.dir lists no checkpoint; what an earlier run left must not be taken for this one's. */
static Status begin_anew(const Config *c, StrBuf *names) {
    char *file = origin_path(c);
    Status st = OK;
    if (unlink(file) != 0 && errno != ENOENT)
        st = status_fail(ERR_ENV, "cannot delete %s: %s", file, strerror(errno));
    free(file);
    return st == OK ? checkpoint_abandon_after(c->run.dir, -1, names) : st;
}

Status resume_take_branch(const Config *c, const Resume *r, int64_t step, StrBuf *names) {
    if (r->path == NULL) return begin_anew(c, names);
    CHECK(checkpoint_abandon_after(c->run.dir, step, names));
    return r->elsewhere ? write_origin(c, r->path) : OK;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* On rank 0: what may be loaded, best first. */
typedef struct {
    char *dir; /* whose checkpoints they are, of these steps */
    int64_t *steps, n, next;
    char *named;    /* NULL: it is of a folder, or there is none */
    StrBuf skipped; /* a line for each that was passed over */
} Candidates;

static void candidates_free(Candidates *a) {
    free(a->dir);
    free(a->steps);
    free(a->named);
    strbuf_free(&a->skipped);
}

/* Checkpoints of two runs in one folder would be taken for those of one. */
static Status refuse_mixture(const Config *c, const char *path) {
    int64_t *steps, n;
    if (is_of_run(c, path)) return OK;
    CHECK(checkpoint_list(c->run.dir, &steps, &n));
    Status st =
        n == 0 ? OK
               : status_fail(
                     ERR_USER,
                     "run.dir %s holds checkpoints, the newest of step %lld, and %s is none of "
                     "them: choose another run.dir, or --resume auto to go on with what is "
                     "there",
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

static Status list_candidates(Candidates *a, const Config *c, const char *resume) {
    if (!is_auto(resume) && is_dir(resume)) return list_folder(a, c, resume);
    if (!is_auto(resume)) {
        a->named = mem_strdup(resume);
        return refuse_mixture(c, resume);
    }
    CHECK(checkpoint_list(c->run.dir, &a->steps, &a->n));
    if (a->n == 0) return read_origin(c, &a->named);
    a->dir = mem_strdup(c->run.dir);
    return OK;
}

/* The next one that opens and has a good header. *path NULL: there is none. */
static Status next_candidate(Candidates *a, char **path, Checkpoint **ck) {
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

/* Rank 0's choice, opened on every rank. *path NULL: there is none. *more: if it is damaged,
 * another one may do. Collective. */
static Status open_next(Comm *host, Candidates *a, char **path, Checkpoint **ck, bool *more) {
    *path = NULL;
    *ck = NULL;
    progress_beat(0, "finding the checkpoint");
    CHECK(comm_agree(host, host->rank == 0 ? next_candidate(a, path, ck) : OK));
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

/* ---- loading --------------------------------------------------------------------------------- */

/* A file that was renamed would be taken for a later or an earlier step than it is of. */
static Status check_name(const Config *c, const char *path, int64_t step) {
    int64_t named;
    if (!checkpoint_path_step(path, &named) || named == step || !is_of_run(c, path)) return OK;
    char *right = checkpoint_path(c->run.dir, step);
    Status st =
        status_fail(ERR_USER, "%s is of step %lld: rename it to %s", path, (long long)step, right);
    free(right);
    return st;
}

static void say_lines(void (*say)(const char *fmt, ...), const StrBuf *lines) {
    for (const char *at = strbuf_text(lines); *at != '\0'; at += strcspn(at, "\n") + 1)
        say("%.*s", (int)strcspn(at, "\n"), at);
}

/* *damaged: the file's bytes are not those that were saved. */
static Status load(Session *s, Checkpoint *ck, const char *path, TrainState *state, Resume *r,
                   bool *damaged) {
    Comm *host = s->comm.host;
    StrBuf warnings = {0}, notes = {0};
    uint32_t crc;
    Status st = changes_check(s, ck, path, state, &warnings, &notes);
    if (st == OK) st = check_name(s->config, path, state->step);
    st = comm_agree(host, st);
    if (st == OK) {
        st = state_load(s, ck, &crc);
        *damaged = st == ERR_USER;
    }
    if (st == OK && state->step < s->config->run.steps) {
        if (s->rank == 0) say_lines(log_warn, &warnings);
        say_lines(log_info, &notes);
        strbuf_printf(&warnings, "%s", strbuf_text(&notes));
        if (warnings.len > 0) r->changes = mem_strdup(warnings.text);
    }
    if (st == OK)
        log_info("resumed %s: step %lld, weights %08x", path, (long long)state->step, crc);
    strbuf_free(&warnings);
    strbuf_free(&notes);
    return st;
}

/* Loads what is named, or the first of a folder that is not damaged. */
static Status load_candidates(Session *s, Candidates *a, TrainState *state, Resume *r) {
    for (;;) {
        char *path;
        Checkpoint *ck;
        bool damaged = false, more;
        Status st = open_next(s->comm.host, a, &path, &ck, &more);
        if (st == OK && path != NULL) st = load(s, ck, path, state, r, &damaged);
        checkpoint_close(ck);
        if (st == OK) r->path = path;
        if (st == OK) return OK;
        free(path);
        if (!damaged || !more) return st;
        strbuf_printf(&a->skipped, "%s\n", status_message());
        status_ignore(st);
    }
}

Status resume_load(Session *s, const char *resume, TrainState *state, Resume *r) {
    const Config *c = s->config;
    Comm *host = s->comm.host;
    Candidates a = {0};
    Status st = comm_agree(host, s->rank == 0 ? list_candidates(&a, c, resume) : OK);
    if (st == OK) st = load_candidates(s, &a, state, r);
    if (st == OK && a.skipped.len > 0) {
        a.skipped.text[--a.skipped.len] = '\0';
        if (s->rank == 0) log_warn("passed over: %s", a.skipped.text);
    }
    if (st == OK && r->path != NULL) r->elsewhere = s->rank == 0 && !is_of_run(c, r->path);
    candidates_free(&a);
    CHECK(st);
    s->loader.sample_shift = state->samples - state->step * c->batch.global;
    if (r->path == NULL) log_info("no checkpoint in %s yet: starting at step 0", c->run.dir);
    return OK;
}

/* ---- before anything is made ----------------------------------------------------------------- */

static Status read_step(const Config *c, const char *resume, char **path, int64_t *step) {
    Candidates a = {0};
    Checkpoint *ck = NULL;
    TrainState state = {0};
    Status st = list_candidates(&a, c, resume);
    if (st == OK) st = next_candidate(&a, path, &ck);
    if (st == OK) st = changes_read_state(ck, *path, &state);
    *step = state.step;
    checkpoint_close(ck);
    candidates_free(&a);
    return st;
}

Status resume_check_named(const Config *c, Comm *host, const char *resume, bool *done) {
    *done = false;
    if (is_auto(resume)) return OK;
    char *path = NULL;
    int64_t step = 0;
    Status st = host->rank == 0 ? read_step(c, resume, &path, &step) : OK;
    /* Of a folder another checkpoint is taken when the newest is damaged. */
    if (host->rank == 0 && st == OK && !is_dir(resume)) *done = resume_is_done(c, path, step);
    free(path);
    CHECK(comm_agree(host, st));
    int32_t ends = *done;
    CHECK(comm_broadcast(host, &ends, 1, DT_I32, 0, NULL));
    *done = ends != 0;
    return OK;
}
