#include "cp/batch.h"

#include <stdlib.h>

static PlanOptions plan_options(const CpOptions *o) {
    return (PlanOptions){.backend = o->size > 1 ? o->backend : BACKEND_NONE,
                         .dispatch = {.P = o->size,
                                      .T = o->seq_len,
                                      .chunk = o->chunk_size,
                                      .ranks_per_node = o->ranks_per_node},
                         .degree = o->overlap_degree};
}

Status cp_mask(Mask *mask, const CpOptions *o, const int32_t *doc_begin, int64_t n_docs) {
    return mask_build(mask, &o->mask, o->tokens, o->seq_len, doc_begin, n_docs);
}

Status cp_plan(AttnPlan *plan, const CpOptions *o, const Mask *mask) {
    PlanOptions options = plan_options(o);
    CostModel cost = cost_default(o->H, o->K, o->D);
    options.cost = &cost;
    return plan_build(plan, mask, &options);
}

Status cp_tokens(const CpOptions *o, int64_t *S) {
    if (o->size > 1 && o->backend == BACKEND_ULYSSES && o->K % o->size != 0)
        return status_fail(ERR_USER,
                           "parallel.backend ulysses splits heads: parallel.cp = %d must "
                           "divide model.kv_heads = %d; take another backend or cp",
                           o->size, o->K);
    int32_t *begin = NEW(int32_t, o->tokens / o->seq_len);
    for (int64_t b = 0; b < o->tokens / o->seq_len; b++) begin[b] = (int32_t)(b * o->seq_len);
    Mask mask;
    AttnPlan plan;
    Status st = cp_mask(&mask, o, begin, o->tokens / o->seq_len);
    free(begin);
    CHECK(st);
    st = cp_plan(&plan, o, &mask);
    mask_free(&mask);
    CHECK(st);
    *S = plan.dispatch.rows;
    plan_free(&plan);
    return OK;
}

CpBatch *cp_batch_create(const CpOptions *o, const MicroBatch *mb) {
    Mask mask;
    REQUIRE(cp_mask(&mask, o, mb->doc_begin, mb->n_docs) == OK);
    CpBatch *b = cp_batch_from_mask(o, &mask, mb);
    mask_free(&mask);
    return b;
}

/* The target of a token within the prefix is a token that it sees: not in the loss. */
static bool sees_target(const CpOptions *o, int64_t token) {
    return o->mask.kind == MASK_PREFIX_LM && token % o->seq_len + 1 < o->mask.prefix;
}

/* This rank's tokens in the order of its rows. Padding is token 0 of weight 0. */
static void take_tokens(CpBatch *b, const CpOptions *o, const MicroBatch *mb) {
    b->tokens = NEW(int32_t, b->S);
    b->labels = NEW(int32_t, b->S);
    b->positions = NEW(int32_t, b->S);
    b->weights = NEW(float, b->S);
    for (int32_t row = 0; row < b->S; row++) {
        int64_t token = dispatch_token_of(&b->plan.dispatch, o->rank, row);
        if (token >= o->tokens) continue;
        b->tokens[row] = mb->tokens[token];
        b->labels[row] = mb->labels[token];
        b->positions[row] = mb->positions[token];
        b->weights[row] = sees_target(o, token) ? 0 : mb->weights[token];
        b->weight_sum += (double)b->weights[row];
    }
}

CpBatch *cp_batch_from_mask(const CpOptions *o, const Mask *mask, const MicroBatch *mb) {
    CpBatch *b = NEW(CpBatch, 1);
    /* Sizes were accepted by cp_tokens, and the grid depends on sizes alone. */
    REQUIRE(cp_plan(&b->plan, o, mask) == OK);
    plan_rank(&b->plan, o->rank, &b->mine);
    b->hash = plan_hash(&b->plan);
    b->S = b->mine.rows;
    b->area = (double)mask_area(&b->plan.mask);
    take_tokens(b, o, mb);
    return b;
}

void cp_batch_free(CpBatch *b) {
    if (b == NULL) return;
    rank_plan_free(&b->mine);
    plan_free(&b->plan);
    free(b->tokens);
    free(b->labels);
    free(b->positions);
    free(b->weights);
    free(b);
}
