#include "train/branch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "ckpt/checkpoint.h"
#include "train/rundir.h"

static const char ORIGIN[] = "started_from"; /* a file of run.dir that holds a path */

bool branch_has(const Config *c, const char *path) {
    struct stat a, b;
    int64_t step;
    if (!checkpoint_path_step(path, &step)) return false;
    char *dir = file_parent(path);
    bool same = stat(dir, &a) == 0 && stat(c->run.dir, &b) == 0 && a.st_dev == b.st_dev &&
                a.st_ino == b.st_ino;
    free(dir);
    return same;
}

static Status write_origin(const Config *c, const char *path) {
    char *absolute = realpath(path, NULL);
    if (absolute == NULL) return status_fail(ERR_ENV, "cannot find %s: %s", path, strerror(errno));
    Status st = rundir_write(c, ORIGIN, absolute);
    free(absolute);
    return st;
}

Status branch_read_origin(const Config *c, char **path) {
    char *file = mem_printf("%s/%s", c->run.dir, ORIGIN);
    StrBuf text = {0};
    Status st = OK;
    if (access(file, F_OK) == 0 || errno != ENOENT) {
        st = file_read_all(&text, file, "the path of a checkpoint", PATH_MAX);
        if (st == OK && text.len == 0) st = status_fail(ERR_ENV, "%s is empty", file);
    }
    *path = text.text;
    free(file);
    return st;
}

/* Also of a file that is gone, if its folder is there. NULL: neither is. */
static char *absolute_path(const char *path) {
    char *found = realpath(path, NULL);
    if (found != NULL) return found;
    char *parent = file_parent(path), *dir = realpath(parent, NULL);
    if (dir != NULL) found = mem_printf("%s/%s", dir, file_name(path));
    free(parent);
    free(dir);
    return found;
}

bool branch_is_of(const char *origin, const char *from) {
    if (origin == NULL) return false;
    char *named = absolute_path(from), *dir = file_parent(origin);
    bool same = named != NULL && (strcmp(named, origin) == 0 || strcmp(named, dir) == 0);
    free(named);
    free(dir);
    return same;
}

Status branch_begins_again(const Config *c, const char *from, bool *again) {
    int64_t *steps, n;
    char *origin;
    *again = false;
    CHECK(checkpoint_list(c->run.dir, &steps, &n));
    free(steps);
    if (n > 0) return OK;
    Status st = branch_read_origin(c, &origin);
    if (st == OK) *again = branch_is_of(origin, from);
    free(origin);
    return st;
}

/* run.dir lists no checkpoint; what an earlier run left must not be taken for this one's. */
static Status begin_anew(const Config *c, StrBuf *names) {
    char *file = mem_printf("%s/%s", c->run.dir, ORIGIN);
    Status st = OK;
    if (unlink(file) != 0 && errno != ENOENT)
        st = status_fail(ERR_ENV, "cannot delete %s: %s", file, strerror(errno));
    free(file);
    return st == OK ? checkpoint_abandon_after(c->run.dir, -1, names) : st;
}

Status branch_take(const Config *c, const char *path, int64_t step, StrBuf *names) {
    if (path == NULL) return begin_anew(c, names);
    CHECK(checkpoint_abandon_after(c->run.dir, step, names));
    return branch_has(c, path) ? OK : write_origin(c, path);
}
