#include "session/train_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/lineage.h"
#include "hf/hf.h"
#include "base/version.h"

#define STEPS_MAX 1000000000000 /* of run.steps, too */

RunLayout state_layout(const Session *s) {
    return (RunLayout){s->table, optimizer_desc(s->optimizer)};
}

CkptPiece *state_pieces(Session *s, int64_t most, int *n) {
    ParamPiece *own;
    CkptPiece *pieces = NULL;
    int n_own = param_table_pieces(s->table, s->rank, &own);
    int n_states = optimizer_desc(s->optimizer)->n_states;
    int64_t cap = *n = 0;
    for (int which = 0; which < n_states; which++)
        for (int i = 0; i < n_own; i++) {
            const float *data = optimizer_state(s->optimizer, which, &own[i]);
            for (int64_t at = 0; at < own[i].count; at += most) {
                GROW(pieces, *n, cap);
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
    const RunLayout layout = state_layout(s);
    SafeTensor *tensors = run_layout_tensors(&layout);
    const Config *c = s->run_config;
    StrBuf config = {0}, data = {0}, stages = {0};
    config_print(c, &config);
    run_data_describe(&s->data, config_stage_at(c, state->step), &data);
    config_print_stages(c, 0, state->step, &stages);
    char *step = mem_printf("%lld", (long long)state->step);
    char *tokens = mem_printf("%.0f", state->tokens);
    char *samples = mem_printf("%lld", (long long)state->samples);
    char *hash = mem_printf("%08x", config_hash(c));
    StrBuf guard = {0};
    guard_print(&state->guard, &guard);
    CkptEntry entries[] = {{"cria.version", cria_version},
                           {"cria.step", step},
                           {"cria.tokens", tokens},
                           {"cria.samples", samples},
                           {"cria.weights_crc", NULL},
                           {"cria.dataset", data.text},
                           {"cria.config_hash", hash},
                           {"cria.guard", guard.text},
                           {"cria.config", strbuf_text(&config)},
                           {NULL}, /* room for those that there may be */
                           {NULL},
                           {NULL}};
    int n_entries = (int)(sizeof entries / sizeof *entries) - 3;
    if (config_stage_at(c, state->step) > 0)
        entries[n_entries++] = (CkptEntry){"cria.stages", strbuf_text(&stages)};
    if (s->hf != NULL) entries[n_entries++] = (CkptEntry){HF_ENTRY, s->hf};
    if (s->lineage != NULL) entries[n_entries++] = (CkptEntry){LINEAGE_ENTRY, s->lineage};
    *path = checkpoint_path(s->config->run.dir, state->step);
    Status st = checkpoint_begin(file, *path, tensors, run_layout_count(&layout), entries,
                                 n_entries, s->comm.host);
    if (st != OK) {
        free(*path);
        *path = NULL;
    }
    char *texts[] = {step, tokens, samples, data.text, hash, guard.text, config.text, stages.text};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
    run_layout_free(&layout, tensors);
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
