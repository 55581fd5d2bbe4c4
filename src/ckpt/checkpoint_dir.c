/* checkpoint_dir.c: the checkpoints of a run directory: naming, choosing, deleting. */
#include "ckpt/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckpt/file.h"

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
    if (d == NULL) return status_fail(ERR_ENV, "cannot list %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        Found f;
        if (!parse_name(e->d_name, &f)) continue;
        if (*n == cap) *found = mem_grow(*found, cap = 2 * cap + 16, sizeof **found);
        (*found)[(*n)++] = f;
    }
    closedir(d);
    if (*n > 1) qsort(*found, (size_t)*n, sizeof **found, newest_first);
    return OK;
}

Status checkpoint_latest(const char *dir, char **path, StrBuf *skipped) {
    Found *found;
    int64_t n;
    *path = NULL;
    CHECK(list(dir, &found, &n));
    for (int64_t i = 0; i < n && *path == NULL; i++) {
        if (found[i].tmp) continue;
        Checkpoint *ck;
        char *candidate = checkpoint_path(dir, found[i].step);
        Status st = checkpoint_open(&ck, candidate);
        if (st == OK) st = checkpoint_verify(ck);
        checkpoint_close(ck);
        if (st == OK) {
            *path = candidate;
        } else {
            strbuf_printf(skipped, "%s\n", status_message());
            status_ignore(st);
            free(candidate);
        }
    }
    free(found);
    return OK;
}

static bool looks_valid(const char *path) {
    Checkpoint *ck;
    Status st = checkpoint_open(&ck, path);
    status_ignore(st);
    checkpoint_close(ck);
    return st == OK;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* A file that is already gone is as good as deleted. */
static Status delete_file(const char *path) {
    if (unlink(path) == 0 || errno == ENOENT) return OK;
    return status_fail(ERR_ENV, "cannot delete %s: %s", path, strerror(errno));
}

Status checkpoint_prune(const char *dir, int64_t keep, const char *current) {
    Found *found;
    int64_t n, kept = 0;
    CHECK(list(dir, &found, &n));
    Status st = OK;
    for (int64_t i = 0; i < n && st == OK; i++) {
        char *path = checkpoint_path(dir, found[i].step);
        if (found[i].tmp) {
            char *tmp = mem_printf("%s.tmp", path);
            st = delete_file(tmp);
            free(tmp);
        } else if (keep > 0 && kept < keep) {
            kept += looks_valid(path);
        } else if (keep > 0 &&
                   (current == NULL || strcmp(base_name(path), base_name(current)) != 0)) {
            st = delete_file(path);
        }
        free(path);
    }
    free(found);
    return st;
}
