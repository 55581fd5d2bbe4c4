#include "bench/meter_private.h"

#include <math.h>
#include <stdlib.h>

#include "ops/fp8.h"

const char *const meter_class_names[METER_CLASSES] = {
#define X(name, text) [METER_##name] = text,
    METER_CLASS_LIST(X)
#undef X
};

/* ---- marks --------------------------------------------------------------------------------- */

static Status grow(Meter *m) {
    int64_t capacity = i64_max(64, 2 * m->capacity);
    m->marks = mem_grow(m->marks, capacity, sizeof *m->marks);
    for (; m->capacity < capacity; m->capacity++) {
        MeterMark *mark = &m->marks[m->capacity];
        *mark = (MeterMark){0};
        CHECK(m->ops->event_create(&mark->begin));
        CHECK(m->ops->event_create(&mark->end));
    }
    return OK;
}

MeterMark *meter_mark(Meter *m, MeterClass class, const char *op) {
    if (m->stream == NULL || m->failed != OK) return NULL;
    if (m->n == m->capacity) m->failed = grow(m);
    if (m->failed != OK) return NULL;
    MeterMark *mark = &m->marks[m->n++];
    mark->class = class;
    mark->op = op;
    mark->cost = (MeterCost){0};
    mark->closed = false;
    return mark;
}

int64_t meter_open(Meter *m, MeterClass class, const char *op, Stream *stream) {
    MeterMark *mark = meter_mark(m, class, op);
    if (mark == NULL) return -1;
    m->ops->event_record(mark->begin, stream);
    return mark - m->marks;
}

void meter_close(Meter *m, int64_t mark, Stream *stream) {
    if (mark < 0 || mark >= m->n) return;
    m->ops->event_record(m->marks[mark].end, stream);
    m->marks[mark].closed = true;
}

/* ---- the table ----------------------------------------------------------------------------- */

#define BYTES(n)  ((MeterCost){.bytes = (double)(n)})
#define MATMUL(p) matmul_cost(p)
#define BY_MASK   ((MeterCost){0})

static MeterCost matmul_cost(const Matmul *p) {
    double m = (double)p->m, n = (double)p->n, k = (double)p->k;
    double d = dtype_bytes(p->d_type) * m * n;
    return (MeterCost){.bytes = dtype_bytes(p->a.type) * m * k + dtype_bytes(p->b.type) * k * n +
                                (p->c != NULL ? 2 * d : d),
                       .flops = 2 * m * n * k,
                       .fp8 = dtype_is_fp8(p->a.type)};
}

/* Distinct rows of a table of V that S random tokens touch, on average. */
static int64_t rows_drawn(int64_t S, int V) {
    return (int64_t)(V * -expm1((double)S * log1p(-1.0 / V)));
}

/* Calls on the measured stream are recorded. */
#define KEEP_void
#define KEEP_Status Status st =
#define GIVE_void
#define GIVE_Status return st;
#define OP(result, name, class, parameters, arguments, op_cost)                                    \
    static result metered_##name parameters {                                                      \
        Meter *meter = stream->ops->meter;                                                         \
        REQUIRE(meter != NULL);                                                                    \
        bool record = stream == meter->stream;                                                     \
        int64_t mark = record ? meter_open(meter, METER_##class, #name, stream) : -1;              \
        int64_t act = meter->ops->act_bytes;                                                       \
        (void)act;                                                                                 \
        if (mark >= 0) meter->marks[mark].cost = op_cost;                                          \
        KEEP_##result meter->ops->name arguments;                                                  \
        meter_close(meter, mark, stream);                                                          \
        GIVE_##result                                                                              \
    }
#define HOST_OP(result, name, parameters)
#include "ops/ops.def"

Meter *meter_create(const Ops *ops) {
    Meter *m = NEW(Meter, 1);
    m->ops = ops;
    m->table = *ops;
    m->table.meter = m;
#define OP(result, name, class, parameters, arguments, cost) m->table.name = metered_##name;
#define HOST_OP(result, name, parameters)
#include "ops/ops.def"
    return m;
}

void meter_free(Meter *m) {
    if (m == NULL) return;
    for (int64_t i = 0; i < m->capacity; i++) {
        m->ops->event_free(m->marks[i].begin);
        m->ops->event_free(m->marks[i].end);
    }
    m->ops->event_free(m->origin);
    m->ops->event_free(m->last);
    free(m->marks);
    free(m->spans);
    free(m);
}

const Ops *meter_ops(Meter *m) {
    return &m->table;
}

/* ---- measuring ----------------------------------------------------------------------------- */

Status meter_start(Meter *m, Stream *stream) {
    if (m->origin == NULL) CHECK(m->ops->event_create(&m->origin));
    if (m->last == NULL) CHECK(m->ops->event_create(&m->last));
    m->n = 0;
    m->stream = stream;
    m->ops->event_record(m->origin, stream);
    return OK;
}

Status meter_stop(Meter *m) {
    Stream *stream = m->stream;
    m->stream = NULL;
    m->ops->event_record(m->last, stream);
    CHECK(m->ops->stream_sync(stream));
    CHECK(m->failed);
    m->ms = m->ops->event_ms(m->origin, m->last);
    m->spans = mem_grow(m->spans, m->n, sizeof *m->spans);
    m->n_spans = 0;
    for (int64_t i = 0; i < m->n; i++) {
        const MeterMark *mark = &m->marks[i];
        if (mark->closed)
            m->spans[m->n_spans++] =
                (MeterSpan){mark->class, mark->op, m->ops->event_ms(m->origin, mark->begin),
                            m->ops->event_ms(m->origin, mark->end), mark->cost};
    }
    return OK;
}

int64_t meter_spans(const Meter *m, const MeterSpan **spans) {
    *spans = m->spans;
    return m->n_spans;
}

double meter_ms(const Meter *m) {
    return m->ms;
}

double meter_class_ms(const Meter *m, MeterClass class) {
    double sum = 0;
    for (int64_t i = 0; i < m->n_spans; i++)
        if (m->spans[i].class == class) sum += m->spans[i].end - m->spans[i].begin;
    return sum;
}
