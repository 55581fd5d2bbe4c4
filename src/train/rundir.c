#include "train/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static Status make_dirs(const char *path) {
    char *p = mem_strdup(path);
    Status st = OK;
    for (char *at = p + 1; st == OK; at++) {
        char c = *at;
        if (c != '/' && c != '\0') continue;
        *at = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST)
            st = status_fail(ERR_ENV, "cannot make run.dir %s: %s", path, strerror(errno));
        *at = c;
        if (c == '\0') break;
    }
    free(p);
    return st;
}

static Status lock(RunDir *d, const char *dir) {
    char *path = mem_printf("%s/.lock", dir);
    d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    Status st = OK;
    if (d->lock < 0)
        st = status_fail(ERR_ENV, "cannot write in run.dir %s: %s", dir, strerror(errno));
    else if (flock(d->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        st = status_fail(ERR_USER, "run.dir %s is in use by another job; stop it or choose another "
                                   "run.dir", dir);
    free(path);
    return st;
}

Status rundir_open(RunDir *d, const char *dir, const char *resume) {
    d->lock = -1;
    CHECK(make_dirs(dir));
    CHECK(lock(d, dir));
    char *config = mem_printf("%s/config.yaml", dir);
    bool used = access(config, F_OK) == 0;
    free(config);
    if (used && resume == NULL)
        return status_fail(ERR_USER, "%s already holds a run; --resume auto continues it, another "
                                     "run.dir starts a new one", dir);
    return OK;
}

/* Beside the old one first: a full disk must not cost what is there. */
Status rundir_write_config(const Config *config) {
    StrBuf text = {0};
    config_print(config, &text);
    char *path = mem_printf("%s/config.yaml", config->run.dir), *tmp = mem_printf("%s.tmp", path);
    FILE *f = fopen(tmp, "w");
    bool good = f != NULL && fputs(strbuf_text(&text), f) != EOF;
    if (f != NULL && fclose(f) != 0) good = false;
    Status st = OK;
    if (!good || rename(tmp, path) != 0) {
        st = status_fail(ERR_ENV, "cannot write %s: %s", path, strerror(errno));
        unlink(tmp);
    }
    free(path);
    free(tmp);
    strbuf_free(&text);
    return st;
}

void rundir_close(RunDir *d) {
    if (d->lock >= 0) close(d->lock); /* which also unlocks */
    d->lock = -1;
}
