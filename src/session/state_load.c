/* state_load.c: reads weights and moments of a checkpoint. Every rank reads its own part once and
 * computes CRC-32s of it, which combined must be those in the file. */
#include "session/train_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "ckpt/checkpoint_parts.h"
#include "hf/hf.h"
#include "base/progress.h"
#include "comm/work.h"

enum { BLOCK_BYTES = 64 << 20 }; /* read at a time */
static const double ROUND_SECONDS = 1;

static const char PHASE[] = "loading the checkpoint";

typedef struct {
    Session *s;
    Checkpoint *ck;
    CkptPiece *pieces; /* of this rank, and where they go */
    CkptPart *parts;   /* [n] what was read of them */
    int n;
    /* for device memory: what was read, and what the device holds after the copy */
    void *block, *back;
} Load;

static void load_start(Load *l, Session *s, Checkpoint *ck) {
    const Ops *ops = s->ops;
    *l = (Load){.s = s, .ck = ck};
    l->pieces = state_pieces(s, BLOCK_BYTES / (int64_t)sizeof(float), &l->n);
    l->parts = NEW(CkptPart, l->n);
    if (!ops->host_memory) {
        l->block = mem_new(BLOCK_BYTES, 1);
        l->back = mem_new(BLOCK_BYTES, 1);
    }
    ops->mem_zero(llama_weights(s->llama), s->table->total * ops->act_bytes, s->stream);
}

static void load_end(Load *l) {
    free(l->pieces);
    free(l->parts);
    free(l->block);
    free(l->back);
}

/* ---- reading --------------------------------------------------------------------------------- */

static Status copy_to_device(Load *l, void *state, int64_t bytes, const char *name) {
    const Ops *ops = l->s->ops;
    ops->mem_copy(state, l->block, bytes, l->s->stream);
    ops->mem_copy(l->back, state, bytes, l->s->stream);
    CHECK(ops->stream_sync(l->s->stream));
    if (memcmp(l->block, l->back, (size_t)bytes) == 0) return OK;
    return status_fail(ERR_ENV,
                       "the device does not hold what was copied to it of tensor '%s': its memory "
                       "or its connection is faulty",
                       name);
}

static Status read_piece(Load *l, int i) {
    const CkptPiece *p = &l->pieces[i];
    const RunLayout layout = state_layout(l->s);
    const SafeFile *f = checkpoint_file(l->ck);
    char *name = run_layout_name(&layout, p->tensor);
    const SafeTensor *in_file = safetensors_find(f, name);
    REQUIRE(in_file != NULL);
    void *state = (void *)(uintptr_t)p->data, *to = l->block != NULL ? l->block : state;
    uint32_t crc = 0;
    Status st = checkpoint_read_crc(l->ck, name, p->begin, p->count, to, &crc);
    if (st == OK && to != state)
        st = copy_to_device(l, state, p->count * (int64_t)sizeof(float), name);
    l->parts[i] = (CkptPart){
        .tensor = in_file - f->tensors, .begin = p->begin, .count = p->count, .crc = crc};
    free(name);
    return st;
}

/* In rounds of a second, after which ranks report progress to their watchdogs, however slow storage
 * is. */
static Status read_all(Load *l) {
    Comm *host = l->s->comm.host;
    int next = 0;
    for (int64_t left = 1; left > 0;) {
        Status st = OK;
        double begin = time_now();
        while (st == OK && next < l->n && time_now() - begin < ROUND_SECONDS)
            st = read_piece(l, next++);
        CHECK(comm_agree(host, st));
        left = l->n - next;
        CHECK(comm_all_reduce(host, &left, 1, DT_I64, COMM_SUM, COMM_KIND_OTHER, NULL));
        progress_beat(0, PHASE);
    }
    return OK;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* A tensor to be read again, in the parts that the ranks had read. */
typedef struct {
    Checkpoint *ck;
    const SafeTensor *tensor;
    const CkptPart *parts;
    int64_t n;
    int64_t *crcs; /* [n] */
} Again;

static Status read_again(void *arg) {
    Again *a = arg;
    for (int64_t i = 0; i < a->n; i++) {
        uint32_t crc;
        CHECK(checkpoint_read_crc(a->ck, a->tensor->name, a->parts[i].begin, a->parts[i].count,
                                  NULL, &crc));
        a->crcs[i] = crc;
    }
    return OK;
}

/* Finds out why the CRC-32 of a tensor, combined from the ranks' parts, is wrong: the file is
 * damaged, or a rank misread it. The same failure on every rank. */
static Status explain(Session *s, Checkpoint *ck, const SafeTensor *t, const CkptPart *parts,
                      int64_t n) {
    Comm *host = s->comm.host;
    int64_t *crcs = NEW(int64_t, n), i = 0;
    uint32_t crc = 0;
    /* Rank 0 reads, the others wait. */
    Again again = {.ck = ck, .tensor = t, .parts = parts, .n = s->rank == 0 ? n : 0, .crcs = crcs};
    Status st = comm_agree_on_work(host, PHASE, read_again, &again);
    if (st == OK) st = comm_broadcast(host, crcs, n, DT_I64, 0, NULL);
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
    CHECK(parts_gather(l->s->comm.host, l->parts, l->n, &all, &n));
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

/* Checks the weights as they are in memory. */
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
