#include "train/eval_checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/output.h"
#include "ckpt/checkpoint.h"
#include "train/changes.h"
#include "train/eval.h"

void eval_fit_ranks(Config *c, int world) {
    if (c->run.eval_every == 0) c->run.eval_every = c->run.steps;
    int64_t shared = c->batch.micro * i64_max(1, world / c->parallel.cp);
    /* Megatron-LM's samples of a step depend on the batch */
    if (c->data.order != ORDER_MEGATRON) c->batch.global = round_up(c->batch.global, shared);
    for (int k = 0; k < c->n_timeline; k++) eval_fit_ranks(c->timeline[k].config, world);
}

typedef struct {
    Session s;
    Evaluator evaluator;
    char *path;
    Checkpoint *ck;
    TrainState state;
    uint32_t weights_crc;
    EvalRecord record;
} Evaluation;

static Status open_checkpoint(Evaluation *e, const char *given) {
    CHECK(checkpoint_find(given, &e->path));
    CHECK(checkpoint_open(&e->ck, e->path));
    CHECK(checkpoint_verify_header(e->ck));
    return changes_check_model(&e->s, e->ck, e->path, &e->state);
}

static Status evaluate(Evaluation *e, const char *given) {
    Session *s = &e->s;
    Comm *host = s->comm.host;
    if (s->val.n == 0)
        return comm_agree(host,
                          status_fail(ERR_USER, "there is nothing to evaluate on: data.val is "
                                                "empty, and data.split has no second share"));
    CHECK(comm_agree(host, open_checkpoint(e, given)));
    uint64_t header = strtoul(checkpoint_entry(e->ck, "header_crc"), NULL, 16);
    CHECK(comm_agree_equal(host, header, "the checkpoint's header"));
    CHECK(eval_open(&e->evaluator, s));
    CHECK(session_start(s));
    CHECK(state_load(s, e->ck, &e->weights_crc));
    CHECK(session_enter(s, config_stage_at(s->run_config, e->state.step)));
    CHECK(eval_run(&e->evaluator, s, e->state.step, &e->record));
    if (e->record.all.tokens > 0) return OK;
    return comm_agree(host, status_fail(ERR_USER, "the evaluation data have no target: "
                                                  "data.eod_mask_loss leaves all of them out"));
}

/* ---- the result ------------------------------------------------------------------------------ */

static void print_json(const Evaluation *e) {
    StrBuf b = sink_eval_json(&e->record);
    strbuf_printf(&b, ",\"path\":");
    strbuf_json_string(&b, e->path);
    strbuf_printf(&b, ",\"weights_crc\":\"%08x\"", e->weights_crc);
    output_print("%s}\n", strbuf_text(&b));
    strbuf_free(&b);
}

static void print_numbers(const EvalNumbers *n) {
    char bits[40] = "";
    if (!isnan(n->bits_per_byte)) snprintf(bits, sizeof bits, ", %.4f bits/byte", n->bits_per_byte);
    output_print("  %-16s loss %.4f, perplexity %.6g%s, over %.0f tokens\n",
                 n->name != NULL ? n->name : "all", n->loss, exp(n->loss), bits, n->tokens);
}

static void print_text(const Evaluation *e) {
    output_print("%s: step %lld, weights %08x\n", e->path, (long long)e->state.step,
                 e->weights_crc);
    for (int i = 0; i < e->record.n_sets; i++) print_numbers(&e->record.sets[i]);
    if (e->record.n_sets != 1) print_numbers(&e->record.all);
}

Status eval_checkpoint(const Config *c, const char *given, bool json) {
    Evaluation e = {0};
    Status st = session_open(&e.s, c, NULL);
    if (st == OK) st = evaluate(&e, given);
    if (st != OK && !status_is_agreed()) { /* the others wait for this rank */
        log_error("%s", status_message());
        comm_abort(status_exit_code(st));
    }
    if (st == OK && e.s.rank == 0) (json ? print_json : print_text)(&e);
    eval_close(&e.evaluator);
    checkpoint_close(e.ck);
    free(e.path);
    session_close(&e.s);
    return st;
}
