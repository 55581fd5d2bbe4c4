#include "train/resume.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ckpt/lineage.h"
#include "train/branch.h"
#include "train/candidates.h"
#include "train/changes.h"

void resume_free(Resume *r) {
    free(r->path);
    free(r->changes);
    *r = (Resume){0};
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

/* ---- loading --------------------------------------------------------------------------------- */

/* Refuses a renamed file: its name would stand for another step than its own. */
static Status check_name(const Config *c, const char *path, int64_t step) {
    int64_t named;
    if (!checkpoint_path_step(path, &named) || named == step || !branch_has(c, path)) return OK;
    char *right = checkpoint_path(c->run.dir, step);
    Status st =
        status_fail(ERR_USER, "%s is of step %lld: rename it to %s", path, (long long)step, right);
    free(right);
    return st;
}

/* run.steps of a branch counts from the first step of its oldest ancestor. */
static Status check_branch_steps(const Config *c, const TrainOptions *o, const char *path,
                                 int64_t step) {
    if (o->from == NULL || branch_has(c, path) || step < c->run.steps) return OK;
    return status_fail(
        ERR_USER,
        "--from %s: it has done %lld steps, which run.steps %lld counts, too: expected "
        "more, such as run.steps=%lld for a branch of a tenth of them",
        path, (long long)step, (long long)c->run.steps,
        (long long)(step + ceil_div(i64_max(step, 10), 10)));
}

/* Of rank 0, as other hosts may have the folder under another path. */
static Status set_lineage(Session *s, const Checkpoint *ck, const char *path) {
    Comm *host = s->comm.host;
    const char *own = checkpoint_entry(ck, LINEAGE_ENTRY);
    char *text = NULL;
    if (host->rank == 0 && branch_has(s->config, path) &&
        checkpoint_entry(ck, MERGED_ENTRY) == NULL)
        text = own != NULL ? mem_strdup(own) : NULL;
    else if (host->rank == 0)
        text = lineage_of_branch(ck, path);
    int64_t size = text != NULL ? (int64_t)strlen(text) + 1 : 0;
    Status st = comm_broadcast(host, &size, 1, DT_I64, 0, NULL);
    if (st == OK && size > 0 && host->rank != 0) text = NEW(char, size);
    if (st == OK && size > 0) st = comm_broadcast(host, text, size, DT_U8, 0, NULL);
    free(s->lineage);
    s->lineage = text;
    return st;
}

static void say_lines(void (*say)(const char *fmt, ...), const StrBuf *lines) {
    for (const char *at = strbuf_text(lines); *at != '\0'; at += strcspn(at, "\n") + 1)
        say("%.*s", (int)strcspn(at, "\n"), at);
}

/* *damaged: the bytes of the file are not those that were saved. */
static Status load(Session *s, Checkpoint *ck, const char *path, const TrainOptions *o,
                   TrainState *state, Resume *r, bool *damaged) {
    Comm *host = s->comm.host;
    StrBuf warnings = {0}, notes = {0};
    uint32_t crc;
    Status st = changes_check(s, ck, path, state, &warnings, &notes);
    if (st == OK) st = check_name(s->config, path, state->step);
    if (st == OK) st = check_branch_steps(s->config, o, path, state->step);
    st = comm_agree(host, st);
    if (st == OK) {
        st = state_load(s, ck, &crc);
        *damaged = st == ERR_USER;
    }
    if (st == OK) st = set_lineage(s, ck, path);
    if (st == OK && state->step < s->config->run.steps) {
        if (s->rank == 0) say_lines(log_warn, &warnings);
        say_lines(log_info, &notes);
        strbuf_printf(&warnings, "%s", strbuf_text(&notes));
        if (warnings.len > 0) r->changes = mem_strdup(warnings.text);
    }
    if (st == OK)
        log_info("resumed %s: step %lld, weights %08x", path, (long long)state->step, crc);
    notes.len = 0;
    if (st == OK) lineage_describe(s->lineage, NULL, &notes);
    if (notes.len > 0) say_lines(log_info, &notes);
    strbuf_free(&warnings);
    strbuf_free(&notes);
    return st;
}

/* Loads the named checkpoint, or the newest undamaged one of a folder. */
static Status load_candidates(Session *s, Candidates *a, const TrainOptions *o, TrainState *state,
                              Resume *r) {
    for (;;) {
        char *path;
        Checkpoint *ck;
        bool damaged = false, more;
        Status st = candidates_open_next(s->comm.host, a, &path, &ck, &more);
        if (st == OK && path != NULL) st = load(s, ck, path, o, state, r, &damaged);
        checkpoint_close(ck);
        if (st == OK) r->path = path;
        if (st == OK) return OK;
        free(path);
        if (!damaged || !more) return st;
        strbuf_printf(&a->skipped, "%s\n", status_message());
        status_ignore(st);
    }
}

Status resume_load(Session *s, const TrainOptions *o, TrainState *state, Resume *r) {
    const Config *c = s->config;
    Comm *host = s->comm.host;
    Candidates a = {0};
    Status st = comm_agree(host, s->rank == 0 ? candidates_list(&a, c, o) : OK);
    if (st == OK) st = load_candidates(s, &a, o, state, r);
    if (st == OK && a.skipped.len > 0) {
        a.skipped.text[--a.skipped.len] = '\0';
        if (s->rank == 0) log_warn("passed over: %s", a.skipped.text);
    }
    candidates_free(&a);
    CHECK(st);
    if (r->path == NULL) log_info("no checkpoint in %s yet: starting at step 0", c->run.dir);
    return OK;
}

/* ---- before run.dir is made ------------------------------------------------------------------ */

static Status read_step(const Config *c, const TrainOptions *o, char **path, int64_t *step) {
    Candidates a = {0};
    Checkpoint *ck = NULL;
    TrainState state = {0};
    Status st = candidates_list(&a, c, o);
    if (st == OK) st = candidates_next(&a, path, &ck);
    if (st == OK) st = changes_read_state(ck, *path, &state);
    *step = state.step;
    checkpoint_close(ck);
    candidates_free(&a);
    return st;
}

Status resume_check_named(const Config *c, Comm *host, const TrainOptions *o, bool *done) {
    *done = false;
    if (o->from == NULL && candidates_is_auto(o->resume)) return OK;
    char *path = NULL;
    int64_t step = 0;
    Status st = host->rank == 0 ? read_step(c, o, &path, &step) : OK;
    /* If the newest of a folder is damaged, an older one is loaded. */
    bool final = host->rank == 0 && !candidates_is_dir(o->from != NULL ? o->from : o->resume);
    if (final && st == OK && o->from != NULL) st = check_branch_steps(c, o, path, step);
    if (final && st == OK && o->from == NULL) *done = resume_is_done(c, path, step);
    free(path);
    CHECK(comm_agree(host, st));
    int32_t ends = *done;
    CHECK(comm_broadcast(host, &ends, 1, DT_I32, 0, NULL));
    *done = ends != 0;
    return OK;
}
