/* plan_check.h: judges a plan from outside, pair by pair and row by row, knowing nothing of how it
 * was made: what each buffer row holds is followed through the segments alone. */
#ifndef CRIA_TESTS_PLAN_CHECK_H
#define CRIA_TESTS_PLAN_CHECK_H

#include "attn/plan.h"

#include <inttypes.h>
#include <stdlib.h>

#define MAX_TOKENS 4096

typedef struct {
    const AttnPlan *p;
    RankPlan *ranks; /* [P] */
    int64_t n;       /* padded tokens */
    uint8_t *count;  /* [n, n] how often a (q, k) pair was computed */
    int32_t *token;  /* [P * rows] stream position of each row of a KV buffer; -1: never filled */
    bool *used;      /* [P * rows] does some pair touch that row? */
} Checker;

static Status violation(int rank, int stage, const char *what, int64_t found, int64_t expected) {
    return status_fail(ERR_USER, "plan: rank %d, stage %d: %s is %" PRId64 ", expected %" PRId64,
                       rank, stage, what, found, expected);
}

static void fill_shard(Checker *c, int32_t row, int rank) {
    for (int32_t i = 0; i < c->p->dispatch.rows; i++)
        c->token[row + i] = (int32_t)dispatch_token_of(&c->p->dispatch, rank, i);
}

/* token[] of a stage's KV buffer. Every row must be filled, none twice. */
static Status fill_buffer(Checker *c, int r, int i) {
    const PlanStage *s = &c->ranks[r].stages[i];
    const Dispatch *d = &c->p->dispatch;
    for (int32_t row = 0; row < s->kv_rows; row++) c->token[row] = -1;
    int64_t filled = 0, received = 0;
    if (s->own_row >= 0) {
        fill_shard(c, s->own_row, r);
        filled += d->rows;
    }
    for (int k = 0; k < s->n_recv; k++) {
        const PlanSegment *seg = &s->recv[k];
        if (seg->packed != received) return violation(r, i, "packed", seg->packed, received);
        received += seg->rows;
        for (int32_t j = 0; j < seg->rows; j++) {
            int32_t *token = &c->token[seg->row + j];
            if (*token != -1) return violation(r, i, "token of a row received twice", *token, -1);
            int owner = s->source >= 0 ? s->source : seg->peer;
            *token = (int32_t)dispatch_token_of(d, owner, seg->peer_row + j);
        }
    }
    if (received != s->recv_rows) return violation(r, i, "recv_rows", s->recv_rows, received);
    if (filled + received != s->kv_rows)
        return violation(r, i, "rows filled", filled + received, s->kv_rows);
    return OK;
}

static Status count_pairs(Checker *c, int r, int i) {
    const RankPlan *rp = &c->ranks[r];
    const PlanStage *s = &rp->stages[i];
    const Dispatch *d = &c->p->dispatch;
    for (int32_t row = 0; row < s->kv_rows; row++) c->used[row] = false;
    for (int b = 0; b < s->n_bands; b++) {
        Band band = s->bands[b];
        if (band.q_begin < 0 || band.q_end > rp->q_rows || band.k_begin < 0 ||
            band.k_end > s->kv_rows)
            return violation(r, i, "end of a band's keys", band.k_end, s->kv_rows);
        for (int32_t q = band.q_begin; q < band.q_end; q++) {
            int64_t row_token =
                dispatch_token_of(d, rp->q_rows > rp->rows ? q / rp->rows : r, q % rp->rows);
            Range keys = band_row(band, q);
            for (int32_t k = keys.begin; k < keys.end; k++) {
                c->count[row_token * c->n + c->token[k]]++;
                c->used[k] = true;
            }
        }
    }
    if (!cp_backend_is(c->p->backend, BACKEND_NEEDED_ROWS))
        return OK; /* the others move whole shards */
    for (int k = 0; k < s->n_recv; k++)
        for (int32_t j = 0; j < s->recv[k].rows; j++)
            if (!c->used[s->recv[k].row + j])
                return violation(r, i, "use of a received row", s->recv[k].row + j, -1);
    return OK;
}

/* The k-th segment that r sends to a peer in a stage is the k-th that the peer receives from r. */
static Status match_segments(const Checker *c, int r, int i) {
    const PlanStage *s = &c->ranks[r].stages[i];
    int64_t packed = 0;
    for (int k = 0, peer = -1, place = 0; k < s->n_send; k++) {
        const PlanSegment *seg = &s->send[k];
        if (seg->peer < peer || seg->peer == r) return violation(r, i, "peer", seg->peer, peer);
        if (seg->peer != peer) place = 0;
        peer = seg->peer;
        if (seg->packed != packed) return violation(r, i, "packed", seg->packed, packed);
        packed += seg->rows;
        const PlanStage *other = &c->ranks[peer].stages[i];
        while (place < other->n_recv && other->recv[place].peer != r) place++;
        if (place == other->n_recv) return violation(r, i, "peer without a receive", peer, r);
        const PlanSegment *match = &other->recv[place++];
        if (match->rows != seg->rows) return violation(r, i, "rows", seg->rows, match->rows);
        if (match->row != seg->peer_row || match->peer_row != seg->row)
            return violation(r, i, "peer_row", seg->peer_row, match->row);
    }
    return packed == s->send_rows ? OK : violation(r, i, "send_rows", s->send_rows, packed);
}

static Status check_rank(Checker *c, int r) {
    bool split_heads = cp_backend_is(c->p->backend, BACKEND_SPLITS_HEADS);
    const RankSummary *summary = &c->p->ranks[r];
    const RankPlan *rp = &c->ranks[r];
    int64_t recv = 0, send = 0, area = 0;
    for (int i = 0; i < rp->n_stages; i++) {
        const PlanStage *s = &rp->stages[i];
        if (s->kv_rows > rp->max_kv_rows)
            return violation(r, i, "kv_rows", s->kv_rows, rp->max_kv_rows);
        CHECK(fill_buffer(c, r, i));
        /* all ranks do the same pairs, each for its own heads */
        if (!split_heads || r == 0) CHECK(count_pairs(c, r, i));
        CHECK(match_segments(c, r, i));
        recv += s->recv_rows;
        send += s->send_rows;
        for (int b = 0; b < s->n_bands; b++) area += band_area(s->bands[b]);
    }
    if (recv != summary->recv_rows)
        return violation(r, 0, "rows received", recv, summary->recv_rows);
    if (send != summary->send_rows) return violation(r, 0, "rows sent", send, summary->send_rows);
    if (split_heads) {
        int64_t all = mask_area(&c->p->mask);
        return area == all ? OK : violation(r, 0, "area", area, all);
    }
    return area == summary->area ? OK : violation(r, 0, "area", area, summary->area);
}

static Status check_pairs(Checker *c) {
    const Mask *m = &c->p->mask;
    for (int64_t b = 0; b < m->n; b++)
        for (int32_t q = m->bands[b].q_begin; q < m->bands[b].q_end; q++) {
            Range keys = band_row(m->bands[b], q);
            for (int32_t k = keys.begin; k < keys.end; k++) c->count[q * c->n + k]--;
        }
    for (int64_t i = 0; i < c->n * c->n; i++) {
        if (c->count[i] == 0) continue;
        return status_fail(ERR_USER,
                           "plan: the pair of query %" PRId64 " and key %" PRId64
                           " is computed %d times too often (mod 256)",
                           i / c->n, i % c->n, c->count[i]);
    }
    return OK;
}

/* Verifies against a dense mask that every allowed pair is computed exactly once, sends match
 * receives, magi receives the rows that its bands touch and no others, own rows are equal. O(S^2)
 * bytes and time; ERR_USER above 4,096 tokens; a violation is ERR_USER with a message. */
static Status plan_check(const AttnPlan *p) {
    const Dispatch *d = &p->dispatch;
    if (d->padded > MAX_TOKENS)
        return status_fail(ERR_USER,
                           "plan: checking needs a stream of at most %d tokens, not %" PRId64,
                           MAX_TOKENS, d->padded);
    Checker c = {.p = p,
                 .ranks = NEW(RankPlan, p->P),
                 .n = d->padded,
                 .count = NEW(uint8_t, d->padded * d->padded),
                 .token = NEW(int32_t, d->padded),
                 .used = NEW(bool, d->padded)};
    Status st = OK;
    int64_t sent = 0;
    for (int r = 0; r < p->P; r++) {
        plan_rank(p, r, &c.ranks[r]);
        sent += p->ranks[r].send_rows - p->ranks[r].recv_rows;
    }
    if (sent != 0) st = violation(0, 0, "rows sent but not received", sent, 0);
    for (int r = 0; r < p->P && st == OK; r++) st = check_rank(&c, r);
    if (st == OK) st = check_pairs(&c);
    for (int r = 0; r < p->P; r++) rank_plan_free(&c.ranks[r]);
    free(c.ranks);
    free(c.count);
    free(c.token);
    free(c.used);
    return st;
}

#endif
