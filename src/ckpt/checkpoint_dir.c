/* checkpoint_dir.c: the checkpoints of a run directory: naming, choosing, deleting. */
#include "ckpt/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

char *checkpoint_path(const char *dir, int64_t step) {
    return mem_printf("%s/step_%08" PRId64 ".safetensors", dir, step);
}

typedef struct {
    int64_t step;
    bool tmp; /* the .tmp of an unfinished save */
} Found;

/* True for the names that checkpoint_path() gives, and those with .tmp behind them. */
static bool parse_name(const char *name, Found *found) {
    if (strncmp(name, "step_", 5) != 0 || name[5] < '0' || name[5] > '9') return false;
    errno = 0;
    found->step = strtoll(name + 5, NULL, 10);
    if (errno != 0) return false;
    char *canonical = checkpoint_path("", found->step); /* with a leading slash */
    size_t n = strlen(canonical + 1);
    bool same = strncmp(name, canonical + 1, n) == 0;
    free(canonical);
    found->tmp = same && strcmp(name + n, ".tmp") == 0;
    return same && (name[n] == '\0' || found->tmp);
}

bool checkpoint_path_step(const char *path, int64_t *step) {
    Found f;
    if (!parse_name(file_name(path), &f) || f.tmp) return false;
    *step = f.step;
    return true;
}

static int newest_first(const void *a, const void *b) {
    const Found *x = a, *y = b;
    return (x->step < y->step) - (x->step > y->step);
}

/* A directory that does not exist holds nothing. */
static Status list(const char *dir, Found **found, int64_t *n) {
    int64_t cap = 0;
    *found = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (d == NULL && errno == ENOENT) return OK;
    if (d == NULL)
        return status_fail(file_open_status(errno), "cannot list %s: %s", dir, strerror(errno));
    struct dirent *e;
    while (errno = 0, (e = readdir(d)) != NULL) { /* errno tells the end from a failure */
        Found f;
        if (!parse_name(e->d_name, &f)) continue;
        GROW(*found, *n, cap);
        (*found)[(*n)++] = f;
    }
    int error = errno;
    closedir(d);
    if (error != 0) {
        free(*found);
        *found = NULL;
        return status_fail(ERR_ENV, "cannot list %s: %s", dir, strerror(error));
    }
    if (*n > 1) qsort(*found, (size_t)*n, sizeof **found, newest_first);
    return OK;
}

/* ---- abandoned checkpoints ------------------------------------------------------------------- */

/* While this file is there, the checkpoints of later steps than it says are abandoned, whether they
 * have been renamed yet or not: renaming several files is not atomic, making this one is. */
static char *marker_path(const char *dir) {
    return mem_printf("%s/abandon_after", dir);
}

/* *step INT64_MAX: there is no marker. */
static Status read_marker(const char *dir, int64_t *step) {
    char *path = marker_path(dir), text[32] = "", *end;
    Status st = OK;
    *step = INT64_MAX;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno != ENOENT) {
        st = status_fail(file_open_status(errno), "cannot open %s: %s", path, strerror(errno));
    } else if (fd >= 0) {
        ssize_t n = read(fd, text, sizeof text - 1);
        if (n < 0) st = status_fail(ERR_ENV, "cannot read %s: %s", path, strerror(errno));
        close(fd);
        *step = strtoll(text, &end, 10);
        if (st == OK && (end == text || *end != '\n'))
            st = status_fail(ERR_USER,
                             "%s does not hold the number of a step, after which checkpoints are "
                             "abandoned; rename those yourself and delete it",
                             path);
    }
    free(path);
    return st;
}

static Status write_marker(const char *dir, int64_t step) {
    char *path = marker_path(dir), text[32];
    int n = snprintf(text, sizeof text, "%" PRId64 "\n", step);
    int error = file_write_atomic(path, text, n);
    Status st =
        error == 0 ? OK : status_fail(ERR_ENV, "cannot write %s: %s", path, strerror(error));
    free(path);
    return st;
}

/* When the renames are on disk. */
static Status delete_marker(const char *dir) {
    char *path = marker_path(dir);
    int error = file_sync_parent(path);
    if (error == 0 && unlink(path) != 0) error = errno;
    if (error == 0) error = file_sync_parent(path);
    Status st =
        error == 0 ? OK : status_fail(ERR_ENV, "cannot delete %s: %s", path, strerror(error));
    free(path);
    return st;
}

/* To NAME.abandoned or, where that is taken, NAME.abandoned.2 and so on. */
static Status abandon(const char *path, StrBuf *names) {
    struct stat info;
    char *to = mem_printf("%s.abandoned", path);
    for (int i = 2; lstat(to, &info) == 0; i++) {
        free(to);
        to = mem_printf("%s.abandoned.%d", path, i);
    }
    Status st = OK;
    if (rename(path, to) != 0)
        st = status_fail(ERR_ENV, "cannot rename %s to %s: %s", path, file_name(to),
                         strerror(errno));
    else
        strbuf_printf(names, "%s\n", file_name(to));
    free(to);
    return st;
}

Status checkpoint_abandon_after(const char *dir, int64_t step, StrBuf *names) {
    Found *found;
    int64_t n, newer = 0, marked;
    CHECK(read_marker(dir, &marked));
    CHECK(list(dir, &found, &n));
    while (newer < n && found[newer].step > step) newer++;
    Status st = OK;
    if (newer > 0 || marked != INT64_MAX) st = write_marker(dir, step);
    for (int64_t i = 0; i < newer && st == OK; i++) {
        if (found[i].tmp) continue;
        char *path = checkpoint_path(dir, found[i].step);
        st = abandon(path, names);
        free(path);
    }
    if (st == OK && (newer > 0 || marked != INT64_MAX)) st = delete_marker(dir);
    free(found);
    return st;
}

/* ---- choosing -------------------------------------------------------------------------------- */

Status checkpoint_list(const char *dir, int64_t **steps, int64_t *n) {
    Found *found = NULL;
    int64_t n_found = 0, last;
    *steps = NULL;
    *n = 0;
    CHECK(read_marker(dir, &last));
    CHECK(list(dir, &found, &n_found));
    *steps = NEW(int64_t, n_found);
    for (int64_t i = 0; i < n_found; i++)
        if (!found[i].tmp && found[i].step <= last) (*steps)[(*n)++] = found[i].step;
    free(found);
    return OK;
}

/* The failure that is recorded is of a file that is passed over. */
static Status pass_over(Status failure, StrBuf *skipped) {
    strbuf_printf(skipped, "%s\n", status_message());
    return status_ignore(failure);
}

static Status open_verified(Checkpoint **ck, const char *path) {
    Checkpoint *opened;
    Status st = checkpoint_open(&opened, path);
    if (st == OK) st = checkpoint_verify_header(opened);
    if (st == OK)
        *ck = opened;
    else
        checkpoint_close(opened);
    return st;
}

Status checkpoint_find(const char *given, char **path) {
    struct stat info;
    int64_t *steps, n;
    if (stat(given, &info) != 0 || !S_ISDIR(info.st_mode)) {
        *path = mem_strdup(given); /* what is wrong with it is said by who opens it */
        return OK;
    }
    CHECK(checkpoint_list(given, &steps, &n));
    if (n > 0) *path = checkpoint_path(given, steps[0]);
    free(steps);
    return n > 0 ? OK : status_fail(ERR_USER, "there is no checkpoint in %s", given);
}

Status checkpoint_open_valid(Checkpoint **ck, const char *path, StrBuf *skipped) {
    *ck = NULL;
    if (access(path, R_OK) != 0 && errno == EACCES)
        return status_fail(
            ERR_USER, "cannot read %s: Permission denied; make it readable, or move it away", path);
    Status st = open_verified(ck, path);
    if (st == ERR_USER) { /* was it this one read that was wrong? */
        status_ignore(st);
        st = open_verified(ck, path);
    }
    return st == ERR_USER ? pass_over(st, skipped) : st;
}

/* ---- deleting -------------------------------------------------------------------------------- */

static bool looks_valid(const char *path) {
    Checkpoint *ck;
    Status st = checkpoint_open(&ck, path);
    status_ignore(st);
    checkpoint_close(ck);
    return st == OK;
}

/* A file that is already gone is as good as deleted. */
static Status delete_file(const char *path) {
    if (unlink(path) == 0 || errno == ENOENT) return OK;
    return status_fail(ERR_ENV, "cannot delete %s: %s", path, strerror(errno));
}

static bool is_among(int64_t step, const int64_t *steps, int n) {
    for (int i = 0; i < n; i++)
        if (steps[i] == step) return true;
    return false;
}

Status checkpoint_prune(const char *dir, int64_t keep, const int64_t *in_use, int n) {
    Found *found;
    int64_t n_found, kept = 0;
    CHECK(list(dir, &found, &n_found));
    Status st = OK;
    for (int64_t i = 0; i < n_found; i++) {
        char *path = checkpoint_path(dir, found[i].step);
        Status deleted = OK;
        if (found[i].tmp) {
            char *tmp = mem_printf("%s.tmp", path);
            deleted = delete_file(tmp);
            free(tmp);
        } else if (keep > 0 && kept < keep) {
            kept += looks_valid(path);
        } else if (keep > 0 && !is_among(found[i].step, in_use, n)) {
            deleted = delete_file(path);
        }
        if (st == OK) st = deleted;
        free(path);
    }
    free(found);
    return st;
}
