/* meter_comm.c: a communicator that records its transfers, and the time that the stream stands
 * still for them. With CommTable.trace a group's transfer is timed on its own stream; without, from
 * comm_group_end() to the end of comm_wait(). */
#include <stdlib.h>

#include "bench/meter_private.h"

typedef struct {
    Meter *meter;
    Comm *inner;
    int64_t
        pending[METER_PENDING]; /* by ticket id: the mark whose end is recorded after the wait */
} Metered;

static Metered *of(const Comm *c) {
    return c->impl;
}

/* A collective: nothing goes on beside it on the measured stream, nor, in host memory, on any. */
#define COLLECTIVE(name, parameters, arguments)                                                    \
    static Status metered_##name parameters {                                                      \
        Meter *m = of(c)->meter;                                                                   \
        int64_t exposed = -1, mark = meter_open(m, METER_TRANSFER, #name, stream);                 \
        if (stream == m->stream || m->ops->host_memory)                                            \
            exposed = meter_open(m, METER_EXPOSED, #name, stream);                                 \
        Status st = of(c)->inner->table->name arguments;                                           \
        meter_close(m, exposed, stream);                                                           \
        meter_close(m, mark, stream);                                                              \
        return st;                                                                                 \
    }
COLLECTIVE(all_reduce, (Comm * c, void *buf, int64_t n, Dtype t, CommOp op, Stream *stream),
           (of(c)->inner, buf, n, t, op, stream))
COLLECTIVE(reduce_scatter, (Comm * c, void *buf, int64_t n, Dtype t, Stream *stream),
           (of(c)->inner, buf, n, t, stream))
COLLECTIVE(all_gather, (Comm * c, void *buf, int64_t n, Dtype t, Stream *stream),
           (of(c)->inner, buf, n, t, stream))
COLLECTIVE(broadcast, (Comm * c, void *buf, int64_t n, Dtype t, int root, Stream *stream),
           (of(c)->inner, buf, n, t, root, stream))

static Status metered_barrier(Comm *c) {
    return of(c)->inner->table->barrier(of(c)->inner);
}

static Status metered_group_begin(Comm *c) {
    return of(c)->inner->table->group_begin(of(c)->inner);
}

static Status metered_send(Comm *c, const void *buf, int64_t n, Dtype t, int peer) {
    return of(c)->inner->table->send(of(c)->inner, buf, n, t, peer);
}

static Status metered_recv(Comm *c, void *buf, int64_t n, Dtype t, int peer) {
    return of(c)->inner->table->recv(of(c)->inner, buf, n, t, peer);
}

static Status metered_group_end(Comm *c, Stream *stream, CommTicket *ticket) {
    Metered *x = of(c);
    Comm *inner = x->inner;
    MeterMark *mark = meter_mark(x->meter, METER_TRANSFER, "group");
    if (mark != NULL && inner->table->trace != NULL)
        inner->table->trace(inner, mark->begin, mark->end);
    else if (mark != NULL)
        x->meter->ops->event_record(mark->begin, stream);
    CHECK(inner->table->group_end(inner, stream, ticket));
    if (ticket->id == 0 || mark == NULL) return OK;
    if (inner->table->trace != NULL)
        mark->closed = true;
    else
        x->pending[ticket->id % METER_PENDING] = mark - x->meter->marks;
    return OK;
}

static Status metered_wait(Comm *c, CommTicket ticket, Stream *stream) {
    Metered *x = of(c);
    int64_t *pending = &x->pending[ticket.id % METER_PENDING];
    bool record = stream == x->meter->stream;
    int64_t exposed = record ? meter_open(x->meter, METER_EXPOSED, "wait", stream) : -1;
    Status st = x->inner->table->wait(x->inner, ticket, stream);
    meter_close(x->meter, exposed, stream);
    if (x->meter->stream != NULL) meter_close(x->meter, *pending, stream);
    *pending = -1;
    return st;
}

static Status metered_register_buffer(Comm *c, void *base, int64_t bytes) {
    Comm *inner = of(c)->inner;
    CHECK(comm_register_buffer(inner, base, bytes));
    c->has_flags = inner->has_flags;
    return OK;
}

static Status metered_group_set_flag_on_recv(Comm *c, uint32_t *flag) {
    return comm_group_set_flag_on_recv(of(c)->inner, flag);
}

static Status metered_group_wait_value(Comm *c, const uint32_t *flag, uint32_t value) {
    return comm_group_wait_value(of(c)->inner, flag, value);
}

static void metered_free(Comm *c) {
    comm_free(of(c)->inner);
    free(c->impl);
    free(c);
}

Comm *meter_comm(Meter *m, Comm *inner) {
    static const CommTable table = {.all_reduce = metered_all_reduce,
                                    .reduce_scatter = metered_reduce_scatter,
                                    .all_gather = metered_all_gather,
                                    .broadcast = metered_broadcast,
                                    .barrier = metered_barrier,
                                    .group_begin = metered_group_begin,
                                    .send = metered_send,
                                    .recv = metered_recv,
                                    .group_end = metered_group_end,
                                    .wait = metered_wait,
                                    .register_buffer = metered_register_buffer,
                                    .group_set_flag_on_recv = metered_group_set_flag_on_recv,
                                    .group_wait_value = metered_group_wait_value,
                                    .free = metered_free};
    Comm *c = NEW(Comm, 1);
    Metered *x = NEW(Metered, 1);
    *x = (Metered){.meter = m, .inner = inner};
    for (int i = 0; i < METER_PENDING; i++) x->pending[i] = -1;
    c->rank = inner->rank;
    c->size = inner->size;
    c->table = &table;
    c->impl = x;
    return c;
}
