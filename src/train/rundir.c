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
        st =
            status_fail(ERR_USER,
                        "run.dir %s: found no folder %s here, and cria replaces neither ~ nor "
                        "variables; write the path in full (\"$HOME/...\" on the command line), or "
                        "./%s for a new folder of that name",
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

/* The process that holds the lock, as it writes itself into the file. */
typedef struct {
    char host[65];
    long pid, parent;
    long long start; /* in clock ticks since boot: pids are reused */
} Holder;

/* Reads a number and moves behind it. */
static long long next_number(char **at) {
    return strtoll(*at, at, 10);
}

/* Of a process of this host; false: it does not exist. */
static bool read_process(long pid, Holder *h) {
    enum { FIELDS_BETWEEN = 17 }; /* from pgrp to itrealvalue: proc(5) */
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strrchr(text, ')'); /* the name may contain anything */
    if (at == NULL || strlen(at) < 4 || at[2] == 'Z' || at[2] == 'X') return false;
    at += 3; /* ") S" */
    h->pid = pid;
    h->parent = (long)next_number(&at);
    for (int i = 0; i < FIELDS_BETWEEN; i++) next_number(&at);
    h->start = next_number(&at);
    return h->start > 0;
}

static void own_host(Holder *h) {
    struct utsname name;
    snprintf(h->host, sizeof h->host, "%s", uname(&name) == 0 ? name.nodename : "?");
}

static void write_holder(int fd) {
    Holder h;
    own_host(&h);
    if (!read_process((long)getpid(), &h) || ftruncate(fd, 0) != 0) return;
    char text[160];
    int n = snprintf(text, sizeof text, "%s %ld %ld %lld\n", h.host, h.pid, h.parent, h.start);
    file_write_at(fd, text, n, 0); /* on failure the holder is unknown */
}

/* False: the file names no process, or one of this host that has ended. */
static bool read_holder(int fd, Holder *h, bool *runs) {
    Holder here, now;
    char text[160] = "";
    *runs = false;
    if (pread(fd, text, sizeof text - 1, 0) <= 0) return false;
    size_t n = strcspn(text, " ");
    if (n == 0 || n >= sizeof h->host) return false;
    memcpy(h->host, text, n);
    h->host[n] = '\0';
    char *at = text + n;
    h->pid = (long)next_number(&at);
    h->parent = (long)next_number(&at);
    h->start = next_number(&at);
    if (h->pid <= 0 || h->start <= 0) return false;
    own_host(&here);
    if (strcmp(h->host, here.host) != 0) return true;
    if (!read_process(h->pid, &now) || now.start != h->start) return false;
    *runs = now.parent == h->parent; /* an orphan is what a killed job left behind */
    return true;
}

static Status lock_fail(Status code, const char *dir, double waited, const Holder *h, bool known) {
    char who[128] = "an unknown process";
    if (known) snprintf(who, sizeof who, "process %ld of %s", h->pid, h->host);
    if (code == ERR_USER)
        return status_fail(code,
                           "run.dir %s is in use by another job (%s); stop it or choose another "
                           "run.dir",
                           dir, who);
    return status_fail(code,
                       "run.dir %s is still locked after %.0f s (by %s); start again when that has "
                       "ended, or choose another run.dir",
                       dir, waited, who);
}

/* 0, or errno. */
static int try_lock(int fd) {
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return errno;
    write_holder(fd);
    return 0;
}

/* While another process holds the lock. OK: *error is any other result of try_lock(). */
static Status wait_for_lock(int fd, const char *dir, double seconds, int *error) {
    enum { POLL_NS = 100 * 1000 * 1000 };
    bool warned = false, runs;
    Holder h = {0};
    for (double begin = time_now();;) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS},
                  NULL); /* the holder may be about to write itself */
        *error = try_lock(fd);
        if (*error != EWOULDBLOCK) return OK;
        bool known = read_holder(fd, &h, &runs);
        double waited = time_now() - begin;
        if (runs) return lock_fail(ERR_USER, dir, waited, &h, true);
        if (waited >= seconds) return lock_fail(ERR_ENV, dir, waited, &h, known);
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

Status rundir_open(RunDir *d, const Config *config, const char *resume) {
    const char *dir = config->run.dir;
    double seconds = config->run.watchdog_seconds > 0 ? config->run.watchdog_seconds / 10 : 60;
    bool used = false;
    d->lock = -1;
    CHECK(make_dirs(dir));
    CHECK(lock(d, dir, seconds));
    if (resume == NULL) CHECK(holds_run(dir, &used));
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
