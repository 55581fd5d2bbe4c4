#include "train/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "base/file.h"
#include "base/log.h"

static Status dir_fail(const char *what, const char *dir, int error) {
    return status_fail(file_create_status(error), "cannot %s run.dir %s: %s", what, dir,
                       strerror(error));
}

/* Shells do not expand "~" in key=value, and nothing expands the YAML file: without this check a
 * run would be written to a new folder called "~" or "$SCRATCH". */
static Status check_expanded(const char *path) {
    if (path[0] != '~' && path[0] != '$') return OK;
    char *first = mem_printf("%.*s", (int)strcspn(path, "/"), path);
    struct stat info;
    Status st = OK;
    if (stat(first, &info) != 0 && errno == ENOENT)
        st = status_fail(ERR_USER,
                         "run.dir %s: found no folder %s here, and cria replaces neither ~ nor "
                         "variables; write the path in full (\"$HOME/...\" on the command line), "
                         "or ./%s for a new folder of that name",
                         path, first, path);
    free(first);
    return st;
}

static Status make_dirs(const char *path) {
    CHECK(check_expanded(path));
    char *p = mem_strdup(path);
    Status st = OK;
    for (char *at = p + 1; st == OK; at++) {
        char c = *at;
        if (c != '/' && c != '\0') continue;
        *at = '\0';
        if (mkdir(p, 0777) == 0)
            file_sync_parent(p);
        else if (errno != EEXIST)
            st = dir_fail("make", path, errno);
        *at = c;
        if (c == '\0') break;
    }
    free(p);
    return st;
}

/* ---- the lock -------------------------------------------------------------------------------- */

enum { HOLDER_SIZE = 160 };

/* "HOST PID START PARENT\n" of a process of this host, as the holder of the lock writes it into the
 * file; "" if it does not exist. START is in clock ticks since boot: pids are reused. */
static void format_holder(long pid, char line[HOLDER_SIZE]) {
    enum { FIELDS_BETWEEN = 17 }; /* from pgrp to itrealvalue: proc(5) */
    char path[64], text[1024];
    struct utsname host;
    line[0] = '\0';
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) return;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strrchr(text, ')'); /* the name may contain anything */
    if (at == NULL || strlen(at) < 4 || at[2] == 'Z' || at[2] == 'X') return;
    long parent = strtol(at + 3, &at, 10); /* behind ") S" */
    for (int i = 0; i < FIELDS_BETWEEN; i++) strtoll(at, &at, 10);
    snprintf(line, HOLDER_SIZE, "%s %ld %lld %ld\n", uname(&host) == 0 ? host.nodename : "?", pid,
             strtoll(at, &at, 10), parent);
}

/* Describes who holds the lock in `who`. Returns whether it is a process of this host that still
 * has the parent that started it: an orphan is what a killed job left behind. */
static bool find_holder(int fd, char who[HOLDER_SIZE]) {
    char line[HOLDER_SIZE] = "", own[HOLDER_SIZE], now[HOLDER_SIZE];
    ssize_t n = pread(fd, line, sizeof line - 1, 0);
    const char *pid = n > 0 ? strchr(line, ' ') : NULL, *parent = n > 0 ? strrchr(line, ' ') : NULL;
    snprintf(who, HOLDER_SIZE, "an unknown process");
    if (pid == NULL || pid == parent) return false;
    format_holder((long)getpid(), own);
    format_holder(strtol(pid, NULL, 10), now);
    bool here = strncmp(line, own, (size_t)(pid + 1 - line)) == 0;
    if (here && strncmp(line, now, (size_t)(parent - line)) != 0) return false; /* it has ended */
    snprintf(who, HOLDER_SIZE, "process %ld of %.*s", strtol(pid, NULL, 10), (int)(pid - line),
             line);
    return here && strcmp(line, now) == 0;
}

/* 0, or errno. */
static int try_lock(int fd) {
    char line[HOLDER_SIZE];
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return errno;
    format_holder((long)getpid(), line);
    if (ftruncate(fd, 0) == 0) /* on failure the holder is unknown */
        file_write_at(fd, line, (int64_t)strlen(line), 0);
    return 0;
}

/* While another process holds the lock. OK: *error is any other result of try_lock(). */
static Status wait_for_lock(int fd, const char *dir, double seconds, int *error) {
    enum { POLL_NS = 100 * 1000 * 1000 };
    bool warned = false;
    char who[HOLDER_SIZE];
    for (double begin = time_now();;) {
        /* the holder may be about to write itself into the file */
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        *error = try_lock(fd);
        if (*error != EWOULDBLOCK) return OK;
        double waited = time_now() - begin;
        if (find_holder(fd, who))
            return status_fail(
                ERR_USER,
                "run.dir %s is in use by another job (%s); stop it or choose another run.dir", dir,
                who);
        if (waited >= seconds)
            return status_fail(ERR_ENV,
                               "run.dir %s is still locked after %.0f s (by %s); start again when "
                               "that has ended, or choose another run.dir",
                               dir, waited, who);
        if (!warned && waited >= 1)
            log_warn("run.dir %s is locked: waiting up to %.0f s", dir, seconds);
        warned |= waited >= 1;
    }
}

static Status lock(RunDir *d, const char *dir, double seconds) {
    char *path = mem_printf("%s/.lock", dir);
    d->lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    Status st = d->lock < 0 ? dir_fail("write in", dir, errno) : OK;
    free(path);
    CHECK(st);
    int error = try_lock(d->lock);
    if (error == EWOULDBLOCK) CHECK(wait_for_lock(d->lock, dir, seconds, &error));
    if (error != 0)
        log_warn("cannot lock run.dir %s: %s; a second job in it would not be noticed", dir,
                 strerror(error));
    return OK;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static Status holds_run(const char *dir, bool *holds) {
    char *config = mem_printf("%s/config.yaml", dir);
    int64_t *steps, n;
    *holds = access(config, F_OK) == 0;
    free(config);
    CHECK(checkpoint_list(dir, &steps, &n));
    free(steps);
    *holds |= n > 0;
    return OK;
}

Status rundir_open(RunDir *d, const Config *config, bool continues) {
    const char *dir = config->run.dir;
    double seconds = config->run.watchdog_seconds > 0 ? config->run.watchdog_seconds / 10 : 60;
    bool used = false;
    d->lock = -1;
    CHECK(make_dirs(dir));
    CHECK(lock(d, dir, seconds));
    if (!continues) CHECK(holds_run(dir, &used));
    if (used)
        return status_fail(ERR_USER,
                           "%s already holds a run; --resume auto continues it, another "
                           "run.dir starts a new one",
                           dir);
    return OK;
}

Status rundir_write(const Config *config, const char *name, const char *text) {
    char *path = mem_printf("%s/%s", config->run.dir, name);
    int error = file_write_atomic(path, text, (int64_t)strlen(text));
    Status st =
        error == 0 ? OK : status_fail(ERR_ENV, "cannot write %s: %s", path, strerror(error));
    free(path);
    return st;
}

Status rundir_write_config(const Config *config) {
    StrBuf text = {0};
    config_print(config, &text);
    Status st = rundir_write(config, "config.yaml", strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

void rundir_close(RunDir *d) {
    if (d->lock >= 0) close(d->lock); /* which also unlocks */
    d->lock = -1;
}
