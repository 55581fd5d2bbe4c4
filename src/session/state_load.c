/* state_load.c: weights and moments from a checkpoint to their owners. A file is read once: every
 * rank reads its own part and computes CRC-32s of what it gets, which together must be those of the
 * file. */
#include "session/train_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "ckpt/checkpoint_parts.h"
#include "hf/hf.h"
#include "base/progress.h"

enum { BLOCK_BYTES = 64 << 20 }; /* read at a time */
static const double ROUND_SECONDS = 1;

static const char PHASE[] = "loading the checkpoint";

typedef struct {
    Session *s;
    Checkpoint *ck;
    ParamPiece *own; /* this rank's part of every tensor */
    int n_own;
    CkptPart *parts; /* [OPTIM_STATES * n_own] what has been read of each piece */
    int64_t next;    /* the part that is being read */
    float *block,
        *back; /* where the device has memory of its own: what was read, and what it then holds */
} Load;

/* Collective, after every rank has worked for a while: have all nothing left? However slow storage
 * is, each rank's watchdog sees that all of them move. */
static Status end_round(Session *s, Status mine, int64_t left, bool *done) {
    CHECK(comm_agree(s->comm.host, mine));
    CHECK(comm_all_reduce(s->comm.host, &left, 1, DT_I64, COMM_SUM, COMM_KIND_OTHER, NULL));
    progress_beat(0, PHASE);
    *done = left == 0;
    return OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static Status copy_to_device(Load *l, float *state, int64_t count, const char *name) {
    const Ops *ops = l->s->ops;
    int64_t bytes = count * (int64_t)sizeof(float);
    ops->mem_copy(state, l->block, bytes, l->s->stream);
    ops->mem_copy(l->back, state, bytes, l->s->stream);
    CHECK(ops->stream_sync(l->s->stream));
    if (memcmp(l->block, l->back, (size_t)bytes) == 0) return OK;
    return status_fail(
        ERR_ENV,
        "the device does not hold what was copied to it of tensor '%s': its memory or its "
        "connection is faulty",
        name);
}

static Status read_block(Load *l) {
    const ParamPiece *p = &l->own[l->next % l->n_own];
    int which = (int)(l->next / l->n_own);
    CkptPart *part = &l->parts[l->next];
    int64_t most = BLOCK_BYTES / (int64_t)sizeof(float);
    int64_t count = i64_min(most, p->count - part->count);
    float *state = optimizer_state(l->s->optimizer, which, p) + part->count;
    bool direct = l->s->ops->host_memory;
    char *name = state_tensor_name(which, &l->s->table->params[p->param]);
    uint32_t crc;
    Status st = checkpoint_read_crc(l->ck, name, p->begin + part->count, count,
                                    direct ? state : l->block, &crc);
    if (st == OK && !direct) st = copy_to_device(l, state, count, name);
    free(name);
    CHECK(st);
    part->crc = (int64_t)crc32_combine((uLong)part->crc, crc, count * (int64_t)sizeof(float));
    part->count += count;
    if (part->count == p->count) l->next++;
    return OK;
}

static int64_t tensor_index(const Checkpoint *ck, const char *name) {
    const SafeFile *f = checkpoint_file(ck);
    const SafeTensor *t = safetensors_find(f, name);
    REQUIRE(t != NULL);
    return t - f->tensors;
}

static void load_start(Load *l, Session *s, Checkpoint *ck) {
    const Ops *ops = s->ops;
    *l = (Load){.s = s, .ck = ck};
    l->n_own = param_table_pieces(s->table, s->rank, &l->own);
    l->parts = NEW(CkptPart, (int64_t)OPTIM_STATES * l->n_own);
    for (int k = 0; k < OPTIM_STATES * l->n_own; k++) {
        const ParamPiece *p = &l->own[k % l->n_own];
        char *name = state_tensor_name(k / l->n_own, &s->table->params[p->param]);
        l->parts[k] = (CkptPart){.tensor = tensor_index(ck, name), .begin = p->begin};
        free(name);
    }
    if (!ops->host_memory) {
        l->block = mem_new(BLOCK_BYTES, 1);
        l->back = mem_new(BLOCK_BYTES, 1);
    }
    ops->mem_zero(llama_weights(s->llama), s->table->total * ops->act_bytes, s->stream);
}

static void load_end(Load *l) {
    free(l->own);
    free(l->parts);
    free(l->block);
    free(l->back);
}

static Status read_all(Load *l) {
    const int64_t n = (int64_t)OPTIM_STATES * l->n_own;
    for (bool done = false; !done;) {
        Status st = OK;
        double begin = time_now();
        while (st == OK && l->next < n && time_now() - begin < ROUND_SECONDS) st = read_block(l);
        CHECK(end_round(l->s, st, n - l->next, &done));
    }
    return OK;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Rank 0 reads a tensor again, in the parts that the ranks have; other ranks wait. crcs [n] on
 * every rank. */
static Status read_again(Session *s, Checkpoint *ck, const SafeTensor *t, const CkptPart *parts,
                         int64_t n, int64_t *crcs) {
    const int64_t most = BLOCK_BYTES / dtype_bytes(t->dtype);
    int64_t i = s->rank == 0 ? 0 : n, at = 0; /* the next part, and how much of it has been read */
    memset(crcs, 0, (size_t)n * sizeof *crcs);
    for (bool done = false; !done;) {
        Status st = OK;
        double begin = time_now();
        while (st == OK && i < n && time_now() - begin < ROUND_SECONDS) {
            int64_t count = i64_min(most, parts[i].count - at);
            uint32_t crc;
            st = checkpoint_read_crc(ck, t->name, parts[i].begin + at, count, NULL, &crc);
            crcs[i] = (int64_t)crc32_combine((uLong)crcs[i], crc, count * dtype_bytes(t->dtype));
            at += count;
            if (at == parts[i].count) i++, at = 0;
        }
        CHECK(end_round(s, st, n - i, &done));
    }
    return comm_broadcast(s->comm.host, crcs, n, DT_I64, 0, NULL);
}

/* A tensor of which the ranks do not have what the header says (parts: theirs): is it the file, or
 * is it a rank? The same failure on every rank. */
static Status explain(Session *s, Checkpoint *ck, const SafeTensor *t, const CkptPart *parts,
                      int64_t n) {
    int64_t *crcs = NEW(int64_t, n), i = 0;
    uint32_t crc = 0;
    Status st = read_again(s, ck, t, parts, n, crcs);
    for (int64_t k = 0; k < n; k++)
        crc = (uint32_t)crc32_combine(crc, (uLong)crcs[k], parts[k].count * dtype_bytes(t->dtype));
    if (st == OK) st = checkpoint_check_crc(ck, t, crc);
    while (st == OK && i < n && crcs[i] == parts[i].crc) i++;
    if (st == OK)
        st = status_fail(ERR_ENV,
                         "rank %" PRId64
                         " has read other bytes of tensor '%.200s' than the checkpoint holds: "
                         "elements [%" PRId64 ", %" PRId64 ") have CRC-32 %08" PRIx64
                         ", expected %08" PRIx64 "; memory, storage or the network is faulty there",
                         parts[i].rank, t->name, parts[i].begin, parts[i].begin + parts[i].count,
                         parts[i].crc, crcs[i]);
    free(crcs);
    return st;
}

static Status compare(Load *l, uint32_t *weights_crc) {
    const SafeFile *f = checkpoint_file(l->ck);
    CkptPart *all;
    int64_t n, at = 0;
    CHECK(parts_gather(l->s->comm.host, l->parts, (int64_t)OPTIM_STATES * l->n_own, &all, &n));
    uint32_t *crcs = NEW(uint32_t, f->n_tensors);
    parts_combine(all, n, f->tensors, f->n_tensors, crcs);
    Status st = OK;
    for (int i = 0; i < f->n_tensors && st == OK; i++) { /* the same on every rank */
        int64_t first = at;
        while (at < n && all[at].tensor == i) at++;
        st = checkpoint_check_crc(l->ck, &f->tensors[i], crcs[i]);
        if (st == OK) continue;
        status_ignore(st);
        st = explain(l->s, l->ck, &f->tensors[i], all + first, at - first);
    }
    *weights_crc = parts_weights_crc(f->tensors, f->n_tensors, crcs);
    free(crcs);
    free(all);
    return comm_agree(l->s->comm.host, st);
}

/* Once more from the memory that training goes on with. */
static Status compare_weights(Session *s, const Checkpoint *ck, uint32_t read, uint32_t memory) {
    const char *saved = checkpoint_entry(ck, "cria.weights_crc"); /* old checkpoints have none */
    char hex[9];
    snprintf(hex, sizeof hex, "%08" PRIx32, memory);
    if (memory == read && (saved == NULL || strcmp(hex, saved) == 0)) return OK;
    return status_fail(
        ERR_ENV,
        "the weights in the memory of the %d ranks have CRC-32 %s, those that were read "
        "%08" PRIx32 ", those that were saved %.20s; the memory of a rank is faulty",
        s->world, hex, read, saved != NULL ? saved : "an unknown one");
}

Status state_load(Session *s, Checkpoint *ck, uint32_t *weights_crc) {
    Load l;
    uint32_t read = 0;
    progress_beat(0, PHASE);
    load_start(&l, s, ck);
    Status st = read_all(&l);
    if (st == OK) st = compare(&l, &read);
    load_end(&l);
    CHECK(st);
    progress_beat(0, PHASE);
    CHECK(comm_agree(s->comm.host, optimizer_publish(s->optimizer, s->stream)));
    CHECK(optimizer_weights_crc(s->optimizer, s->comm.host, s->stream, weights_crc));
    progress_beat(0, PHASE);
    CHECK(comm_agree(s->comm.host, compare_weights(s, ck, read, *weights_crc)));
    const char *hf = checkpoint_entry(ck, HF_ENTRY);
    free(s->hf);
    s->hf = hf != NULL ? mem_strdup(hf) : NULL;
    return OK;
}
