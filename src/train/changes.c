#include "train/changes.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "optim/schedule.h"

#define SAMPLES_MAX (1LL << 60)

/* ---- reading the header ---------------------------------------------------------------------- */

Status changes_read_state(const Checkpoint *ck, const char *path, TrainState *state) {
    const char *step = checkpoint_entry(ck, "cria.step");
    const char *tokens = checkpoint_entry(ck, "cria.tokens");
    if (step == NULL || tokens == NULL)
        return status_fail(
            ERR_USER, "%s does not say which step it is of: it is not a checkpoint that cria wrote",
            path);
    Status st = state_parse(state, step, tokens, checkpoint_entry(ck, "cria.guard"));
    if (st != OK) status_prefix("%s", path);
    return st;
}

/* The configuration of the run that saved the checkpoint; false: it has none that can be read. */
static bool read_config(const Checkpoint *ck, Config *was) {
    const char *text = checkpoint_entry(ck, "cria.config");
    *was = (Config){0};
    if (text == NULL) return false;
    Status st = config_parse_printed(was, text);
    status_ignore(st);
    return st == OK;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* What holds in the stage of the last step done. */
static const Config *stage_of(const Config *c, const TrainState *state) {
    return config_of_stage(c, config_stage_at(c, state->step));
}

static Status check_model(const Config *was, const Config *is, const char *path,
                          const TrainState *state) {
    StrBuf changes = {0};
    Status st = OK;
    if (config_differences(stage_of(was, state), stage_of(is, state), DIFFERS_MODEL, &changes) > 0)
        st = status_fail(ERR_USER,
                         "%s is a checkpoint of another model than the configuration asks for: %s; "
                         "a run goes on with the model of its checkpoint",
                         path, strbuf_text(&changes));
    strbuf_free(&changes);
    return st;
}

static Status check_shapes(const Session *s, const Checkpoint *ck, const char *path) {
    const RunLayout layout = state_layout(s);
    const SafeFile *f = checkpoint_file(ck);
    for (int i = 0; i < run_layout_count(&layout); i++) {
        const Param *p = run_layout_param(&layout, i);
        char *name = run_layout_name(&layout, i);
        const SafeTensor *x = safetensors_find(f, name);
        Status st = OK;
        if (x == NULL)
            st = status_fail(ERR_USER,
                             "%s has no tensor %s: it is of another model or not a "
                             "training checkpoint",
                             path, name);
        else if (x->dtype != DT_F32 || x->ndim != p->ndim || x->shape[0] != p->rows ||
                 (p->ndim == 2 && x->shape[1] != p->cols))
            st = status_fail(
                ERR_USER, "%s holds %s as %s [%lld, %lld], the config asks for F32 [%lld, %lld]",
                path, name, safetensors_dtype_name(x->dtype), (long long)x->shape[0],
                (long long)(x->ndim > 1 ? x->shape[1] : 1), (long long)p->rows, (long long)p->cols);
        free(name);
        CHECK(st);
    }
    if (f->n_tensors != run_layout_count(&layout))
        return status_fail(ERR_USER,
                           "%s holds %d tensors, this model has %d: it is of another model", path,
                           f->n_tensors, run_layout_count(&layout));
    return OK;
}

Status changes_check_model(const Session *s, const Checkpoint *ck, const char *path,
                           TrainState *state) {
    Config was;
    CHECK(changes_read_state(ck, path, state));
    Status st = read_config(ck, &was) ? check_model(&was, s->run_config, path, state) : OK;
    if (st == OK) st = check_shapes(s, ck, path);
    config_free(&was);
    return st;
}

/* ---- the stages ------------------------------------------------------------------------------ */

/* What was done stays as it was; stages to come may change. */
static Status check_stages(const Config *is, const Checkpoint *ck, const char *path,
                           const TrainState *state) {
    const char *was = checkpoint_entry(ck, "cria.stages");
    StrBuf now = {0};
    Status st = OK;
    if (was == NULL) was = "[]"; /* it took none */
    config_print_stages(is, 0, state->step, &now);
    if (strcmp(was, strbuf_text(&now)) != 0)
        st = status_fail(ERR_USER,
                         "%s: the run took the stages %s in its %lld steps, the configuration has "
                         "%s: stages that were taken stay as they were; put them back, and change "
                         "those from step %lld on",
                         path, was, (long long)state->step, strbuf_text(&now),
                         (long long)state->step);
    strbuf_free(&now);
    return st;
}

/* ---- the data -------------------------------------------------------------------------------- */

/* If the dataset changed, even only by appended tokens, or what is read from it, later batches
 * differ from the original run. */
static Status check_data(const Session *s, const Checkpoint *ck, const Config *was,
                         const char *path, const TrainState *state, StrBuf *warnings) {
    static const char consent[] = "set run.allow_data_change=true to go on with what is there now";
    bool allowed = s->config->run.allow_data_change;
    StrBuf now = {0};
    run_data_describe(&s->data, config_stage_at(s->run_config, state->step), &now);
    Status st = dataset_compare(strbuf_text(&now), checkpoint_entry(ck, "cria.dataset"));
    strbuf_free(&now);
    if (st != OK && !allowed) {
        status_prefix("%s", path);
        status_suffix(", or %s", consent);
        return st;
    }
    if (st != OK)
        strbuf_printf(warnings, "%s: %s: the run goes on with the new ones\n", path,
                      status_message());
    status_ignore(st);
    StrBuf changes = {0};
    bool differ =
        was != NULL && config_differences(was, s->run_config, DIFFERS_BATCHES, &changes) > 0;
    st = OK;
    if (differ && !allowed)
        st = status_fail(
            ERR_USER,
            "%s: %s: later batches would not be those of the run; put back what has changed, or %s",
            path, strbuf_text(&changes), consent);
    else if (differ)
        strbuf_printf(warnings, "%s: later batches are not those of the run: %s\n", path,
                      strbuf_text(&changes));
    strbuf_free(&changes);
    return st;
}

/* Samples seen so far, counted in sequences of this configuration. */
static Status find_position(const Session *s, const Checkpoint *ck, const Config *was,
                            const char *path, TrainState *state) {
    const Config *c = stage_of(s->run_config, state);
    const char *text = checkpoint_entry(ck, "cria.samples");
    char *end;
    if (text != NULL) {
        errno = 0;
        state->samples = strtoll(text, &end, 10);
        if (end == text || *end != '\0' || errno != 0 || state->samples < 0 ||
            state->samples > SAMPLES_MAX)
            return status_fail(
                ERR_USER, "%s: cria.samples is '%.60s', expected a number of samples", path, text);
    } else { /* older checkpoints, of runs with one batch size */
        int64_t global = (was != NULL ? was : c)->batch.global;
        if (!checked_mul(state->step, global, &state->samples) || state->samples > SAMPLES_MAX)
            return status_fail(ERR_USER,
                               "%s: %lld steps of %lld samples are more than a run can have", path,
                               (long long)state->step, (long long)global);
    }
    if (was != NULL && stage_of(was, state)->model.seq_len != c->model.seq_len &&
        state->samples > 0)
        state->samples = (int64_t)ceil(state->tokens / (double)c->model.seq_len);
    int64_t needed = state->samples + (c->run.steps - state->step) * c->batch.global;
    if (c->data.order == ORDER_MEGATRON && needed > c->run.steps * c->batch.global)
        return status_fail(ERR_USER,
                           "%s has seen %lld samples; with those of the steps to come they are "
                           "%lld, but data.order megatron lays out run.steps x batch.global = "
                           "%lld; keep batch.global, or use data.order cria",
                           path, (long long)state->samples, (long long)needed,
                           (long long)(c->run.steps * c->batch.global));
    return OK;
}

/* ---- learning rate and batch size ------------------------------------------------------------ */

static void describe_course(const Config *was, const Config *is, const char *path,
                            const TrainState *state, StrBuf *warnings, StrBuf *notes) {
    StrBuf changes = {0};
    int n = config_differences(was, is, DIFFERS_COURSE, &changes);
    int64_t next = state->step + 1;
    const Config *was_next = config_of_stage(was, config_stage_at(was, next));
    const Config *is_next = config_of_stage(is, config_stage_at(is, next));
    double before = schedule_lr(&was_next->optim, was->run.steps, next);
    double now = schedule_lr(&is_next->optim, is->run.steps, next);
    int of_length =
        (was->run.steps != is->run.steps) + (was->optim.decay_steps != is->optim.decay_steps);
    /* A new length that does not change the next learning rate needs no warning. */
    StrBuf *out = n == of_length && before == now ? notes : warnings;
    if (n > 0) strbuf_printf(out, "changed since %s: %s", path, strbuf_text(&changes));
    if (n > 0 && before != now)
        strbuf_printf(out, "; the learning rate of the next step is %.4g, it would have been %.4g",
                      now, before);
    if (n > 0 && was->batch.global != is->batch.global)
        strbuf_printf(out, "; its batch begins with sample %lld", (long long)state->samples);
    if (n > 0) strbuf_printf(out, "\n");
    strbuf_free(&changes);
}

static Status check(const Session *s, const Checkpoint *ck, const Config *was, const char *path,
                    TrainState *state, StrBuf *warnings, StrBuf *notes) {
    bool imported = checkpoint_entry(ck, "cria.dataset") == NULL; /* weights without a run */
    if (!imported) CHECK(check_stages(s->run_config, ck, path, state));
    if (was != NULL) CHECK(check_model(was, s->run_config, path, state));
    CHECK(check_shapes(s, ck, path));
    if (!imported) CHECK(check_data(s, ck, was, path, state, warnings));
    CHECK(find_position(s, ck, was, path, state));
    if (was == NULL)
        strbuf_printf(warnings,
                      "%s holds no configuration that can be read: that nothing but the shapes of "
                      "its tensors fits could not be checked\n",
                      path);
    else if (!imported)
        describe_course(was, s->run_config, path, state, warnings, notes);
    return OK;
}

Status changes_check(const Session *s, const Checkpoint *ck, const char *path, TrainState *state,
                     StrBuf *warnings, StrBuf *notes) {
    Config was;
    CHECK(changes_read_state(ck, path, state));
    bool known = read_config(ck, &was);
    Status st = check(s, ck, known ? &was : NULL, path, state, warnings, notes);
    config_free(&was);
    return st;
}
