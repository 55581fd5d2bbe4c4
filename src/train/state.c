#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "version.h"

#define STEPS_MAX 1000000000000 /* of run.steps, too */

static const char *const state_prefix[OPTIM_STATES] = {"", "optim.m.", "optim.v."};

static char *tensor_name(int which, const Param *p) {
    return mem_printf("%s%s", state_prefix[which], p->name);
}

/* Weights under their Hugging Face names first, then both moments. */
static SafeTensor *list_tensors(const ParamTable *t) {
    SafeTensor *list = NEW(SafeTensor, (int64_t)t->n_params * OPTIM_STATES);
    for (int which = 0; which < OPTIM_STATES; which++)
        for (int i = 0; i < t->n_params; i++) {
            const Param *p = &t->params[i];
            list[which * t->n_params + i] = (SafeTensor){.name = tensor_name(which, p),
                                                         .dtype = DT_F32,
                                                         .ndim = p->ndim,
                                                         .shape = {p->rows, p->cols}};
        }
    return list;
}

CkptPiece *state_pieces(Session *s, int64_t most, int *n) {
    ParamPiece *own;
    CkptPiece *pieces = NULL;
    int n_own = param_table_pieces(s->table, s->rank, &own);
    int64_t cap = *n = 0;
    for (int which = 0; which < OPTIM_STATES; which++)
        for (int i = 0; i < n_own; i++) {
            const float *data = optimizer_state(s->optimizer, which, &own[i]);
            for (int64_t at = 0; at < own[i].count; at += most) {
                if (*n == cap) pieces = mem_grow(pieces, cap = 2 * cap + 64, sizeof *pieces);
                pieces[(*n)++] = (CkptPiece){.tensor = which * s->table->n_params + own[i].param,
                                             .begin = own[i].begin + at,
                                             .count = i64_min(most, own[i].count - at),
                                             .data = data + at};
            }
        }
    free(own);
    return pieces;
}

Status state_begin_save(Session *s, const TrainState *state, CkptSave **file, char **path) {
    int n_tensors = s->table->n_params * OPTIM_STATES;
    SafeTensor *tensors = list_tensors(s->table);
    StrBuf config = {0}, data = {0};
    config_print(s->config, &config);
    dataset_describe(s->train_data, &data);
    char *step = mem_printf("%lld", (long long)state->step);
    char *tokens = mem_printf("%.0f", state->tokens);
    char *hash = mem_printf("%08x", config_hash(s->config));
    StrBuf guard = {0};
    guard_print(&state->guard, &guard);
    const CkptEntry entries[] = {{"cria.version", cria_version}, {"cria.step", step},
                                 {"cria.tokens", tokens},        {"cria.weights_crc", NULL},
                                 {"cria.dataset", data.text},    {"cria.config_hash", hash},
                                 {"cria.guard", guard.text},
                                 {"cria.config", strbuf_text(&config)}};
    *path = checkpoint_path(s->config->run.dir, state->step);
    Status st = checkpoint_begin(file, *path, tensors, n_tensors, entries,
                                 (int)(sizeof entries / sizeof *entries), s->comm.host);
    if (st != OK) {
        free(*path);
        *path = NULL;
    }
    char *texts[] = {step, tokens, data.text, hash, guard.text, config.text};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
    for (int i = 0; i < n_tensors; i++) free(tensors[i].name);
    free(tensors);
    return st;
}

static Status find_alone(const Config *c, const char *resume, char **path) {
    if (strcmp(resume, "auto") == 0) {
        StrBuf skipped = {0};
        Status st = checkpoint_latest(c->run.dir, path, &skipped);
        if (skipped.len > 0) skipped.text[--skipped.len] = '\0'; /* the last line's end */
        if (st == OK && skipped.len > 0 && *path == NULL) /* starting again would be no resume */
            st = status_fail(ERR_USER, "no checkpoint in %s can be used (move them away to start at "
                                       "step 0): %s", c->run.dir, strbuf_text(&skipped));
        else if (skipped.len > 0)
            log_warn("passed over: %s", strbuf_text(&skipped));
        strbuf_free(&skipped);
        return st;
    }
    Checkpoint *ck;
    CHECK(checkpoint_open(&ck, resume));
    Status st = checkpoint_verify(ck);
    checkpoint_close(ck);
    if (st == OK) *path = mem_strdup(resume);
    return st;
}

Status state_find(const Config *c, Comm *host, const char *resume, char **path) {
    *path = NULL;
    char *found = NULL;
    Status st = host->rank == 0 ? find_alone(c, resume, &found) : OK;
    CHECK(comm_agree(host, st));
    int64_t len = found != NULL ? (int64_t)strlen(found) + 1 : 0;
    CHECK(comm_broadcast(host, &len, 1, DT_I64, 0, NULL));
    if (len == 0) return OK;
    if (host->rank != 0) found = NEW(char, len);
    st = comm_broadcast(host, found, len, DT_U8, 0, NULL);
    *path = found;
    return st;
}

static Status check_shapes(const Session *s, const Checkpoint *ck, const char *path) {
    const ParamTable *t = s->table;
    const SafeFile *f = checkpoint_file(ck);
    for (int which = 0; which < OPTIM_STATES; which++)
        for (int i = 0; i < t->n_params; i++) {
            const Param *p = &t->params[i];
            char *name = tensor_name(which, p);
            const SafeTensor *x = safetensors_find(f, name);
            Status st = OK;
            if (x == NULL)
                st = status_fail(ERR_USER, "%s has no tensor %s: it is of another model or not a "
                                           "training checkpoint", path, name);
            else if (x->dtype != DT_F32 || x->ndim != p->ndim || x->shape[0] != p->rows ||
                     (p->ndim == 2 && x->shape[1] != p->cols))
                st = status_fail(ERR_USER,
                                 "%s holds %s as %s [%lld, %lld], the config asks for F32 [%lld, "
                                 "%lld]", path, name, safetensors_dtype_name(x->dtype),
                                 (long long)x->shape[0], (long long)(x->ndim > 1 ? x->shape[1] : 1),
                                 (long long)p->rows, (long long)p->cols);
            free(name);
            CHECK(st);
        }
    if (f->n_tensors != t->n_params * OPTIM_STATES)
        return status_fail(ERR_USER, "%s holds %d tensors, this model has %d: it is of another model",
                           path, f->n_tensors, t->n_params * OPTIM_STATES);
    return OK;
}

static Status load_alone(Session *s, Checkpoint *ck, const char *path) {
    CHECK(check_shapes(s, ck, path));
    const Ops *ops = s->ops;
    ops->mem_zero(llama_weights(s->llama), s->table->total * ops->act_bytes, s->stream);
    ParamPiece *own;
    int n_own = param_table_pieces(s->table, s->rank, &own);
    int64_t largest = 0;
    for (int i = 0; i < n_own; i++) largest = i64_max(largest, own[i].count);
    float *staging = NEW(float, largest);
    Status st = OK;
    for (int which = 0; which < OPTIM_STATES; which++)
        for (int i = 0; i < n_own; i++) {
            const ParamPiece *p = &own[i];
            char *name = tensor_name(which, &s->table->params[p->param]);
            st = checkpoint_read(ck, name, p->begin, p->count, staging);
            free(name);
            if (st != OK) goto done;
            ops->mem_copy(optimizer_state(s->optimizer, which, p), staging,
                          p->count * (int64_t)sizeof *staging, s->stream);
            CHECK_GOTO(ops->stream_sync(s->stream), done);
        }
done:
    free(staging);
    free(own);
    return st;
}

Status state_parse(TrainState *state, const char *step, const char *tokens, const char *guard) {
    char *step_end, *tokens_end;
    *state =
        (TrainState){.step = strtoll(step, &step_end, 10), .tokens = strtod(tokens, &tokens_end)};
    const GuardState *g = &state->guard;
    if (step_end == step || *step_end != '\0' || state->step < 0 || state->step > STEPS_MAX)
        return status_fail(ERR_USER, "cria.step is '%.60s', expected a number of steps", step);
    if (tokens_end == tokens || *tokens_end != '\0' || !(state->tokens >= 0) ||
        isinf(state->tokens))
        return status_fail(ERR_USER, "cria.tokens is '%.60s', expected a number of tokens", tokens);
    if (guard == NULL) return OK; /* imported weights have none */
    CHECK(guard_parse(&state->guard, guard));
    if (g->in_a_row > g->skipped || g->skipped > state->step || g->seen > state->step - g->skipped)
        return status_fail(ERR_USER,
                           "cria.guard counts %lld losses and %lld skipped steps, %lld of them the "
                           "last, but cria.step is %lld",
                           (long long)g->seen, (long long)g->skipped, (long long)g->in_a_row,
                           (long long)state->step);
    return OK;
}

static Status read_state(const Checkpoint *ck, const char *path, TrainState *state) {
    const char *step = checkpoint_entry(ck, "cria.step");
    const char *tokens = checkpoint_entry(ck, "cria.tokens");
    if (step == NULL || tokens == NULL)
        return status_fail(ERR_USER, "%s does not say which step it is of: it is not a checkpoint "
                                     "that cria wrote", path);
    Status st = state_parse(state, step, tokens, checkpoint_entry(ck, "cria.guard"));
    if (st != OK) status_prefix("%s", path);
    return st;
}

/* With other data, be they the same files with more in them, every later batch is another one. */
static Status check_data(const Session *s, const Checkpoint *ck, const char *path) {
    const char *data = checkpoint_entry(ck, "cria.dataset"); /* imported weights have none */
    Status st = data != NULL ? dataset_compare(s->train_data, data) : OK;
    if (st == OK) return OK;
    if (!s->config->run.allow_data_change) {
        status_prefix("%s", path);
        status_suffix(", or set run.allow_data_change=true to go on with what is there now");
        return st;
    }
    log_warn("%s: %s: the run goes on with the new ones", path, status_message());
    return status_ignore(st);
}

static void warn_of_changes(const Session *s, const Checkpoint *ck, const char *path) {
    const char *hash = checkpoint_entry(ck, "cria.config_hash");
    if (hash == NULL || strtoul(hash, NULL, 16) != config_hash(s->config))
        log_warn("the configuration is not that of %s: the run goes on with the new one", path);
}

Status state_load(Session *s, const char *path, TrainState *state) {
    Checkpoint *ck = NULL;
    Status st = checkpoint_open(&ck, path);
    if (st == OK) st = read_state(ck, path, state);
    if (st == OK && s->rank == 0) st = check_data(s, ck, path);
    if (st == OK) st = load_alone(s, ck, path);
    if (st == OK && s->rank == 0) warn_of_changes(s, ck, path);
    checkpoint_close(ck);
    CHECK(comm_agree(s->comm.host, st));
    CHECK(comm_agree(s->comm.host, optimizer_publish(s->optimizer, s->stream)));
    /* The weights in memory are those that were saved, on however many ranks. */
    uint32_t crc;
    CHECK(optimizer_weights_crc(s->optimizer, s->comm.host, s->stream, &crc));
    log_info("resumed %s: step %lld, weights %08x", path, (long long)state->step, crc);
    return OK;
}
