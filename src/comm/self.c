/* self.c: the backend for one rank in host memory, without MPI. It has no collectives: comm.c
 * handles them where size is 1. The i-th send of a group matches its i-th receive. */
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

typedef struct {
    const void *from;
    void *to;
    int64_t sent, received; /* bytes */
} Copy;

typedef struct {
    Copy *copies;
    int64_t sends, receives, capacity;
    bool open;
} Self;

static Copy *copy_at(Self *self, int64_t i) {
    REQUIRE(self->open);
    GROW(self->copies, i, self->capacity);
    return &self->copies[i];
}

static Status self_group_begin(Comm *c) {
    Self *self = c->impl;
    REQUIRE(!self->open);
    self->open = true;
    self->sends = self->receives = 0;
    return OK;
}

static Status self_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    (void)peer;
    Self *self = c->impl;
    Copy *copy = copy_at(self, self->sends++);
    copy->from = buf;
    copy->sent = n * dtype_bytes(t);
    return OK;
}

static Status self_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    (void)peer;
    Self *self = c->impl;
    Copy *copy = copy_at(self, self->receives++);
    copy->to = buf;
    copy->received = n * dtype_bytes(t);
    return OK;
}

static Status self_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    (void)stream;
    Self *self = c->impl;
    REQUIRE(self->open && self->sends == self->receives);
    for (int64_t i = 0; i < self->sends; i++) {
        const Copy *copy = &self->copies[i];
        REQUIRE(copy->sent == copy->received);
        memcpy(copy->to, copy->from, (size_t)copy->sent);
    }
    self->open = false;
    *ticket = (CommTicket){0};
    return OK;
}

static void self_free(Comm *c) {
    free(((Self *)c->impl)->copies);
    free(c->impl);
    free(c);
}

Comm *comm_self_create(void) {
    static const CommTable table = {.group_begin = self_group_begin,
                                    .send = self_send,
                                    .recv = self_recv,
                                    .group_end = self_group_end,
                                    .free = self_free};
    Comm *c = NEW(Comm, 1);
    c->size = 1;
    c->table = &table;
    c->impl = NEW(Self, 1);
    return c;
}
