/* x[n,n] and dy[n,n] hold small integers that repeat with period P in both directions. All sums are
 * integers below 2^24, which fp32 and products of bf16 hold exactly in any order of summation:
 * dy^T x has one right answer to the last bit, whatever the device and its algorithm, and a host
 * knows it from P^3 products. P is prime, so that no tile of a kernel looks like its neighbour. */
#include "session/hardware.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/median.h"
#include "ops/linear.h"

enum {
    P = 61,
    DEVICE_N = 4096, /* 137 GFLOP: 0.2 ms on an H100 */
    HOST_N = 96,
    TIMES = 32 /* a GPU that idled takes some milliseconds to its clock */
};

/* -3 to 3 */
static float value(int which, int64_t row, int64_t col) {
    uint64_t i = (uint64_t)(row % P * P + col % P);
    return (float)(int)(checksum_mix((uint64_t)which, (int64_t)i) % 7) - 3;
}

/* In the activation type: fp32, or bf16, which is its upper half. */
static void fill(const Ops *ops, void *to, int which, int64_t n) {
    int64_t row_bytes = n * ops->act_bytes;
    for (int64_t r = 0; r < n; r++) {
        char *row = (char *)to + r * row_bytes;
        if (r >= P) {
            memcpy(row, row - P * row_bytes, (size_t)row_bytes);
            continue;
        }
        for (int64_t c = 0; c < n; c++) {
            float x = value(which, r, c);
            memcpy(row + c * ops->act_bytes, (char *)&x + sizeof x - (size_t)ops->act_bytes,
                   (size_t)ops->act_bytes);
        }
    }
}

/* The checksum (ops.def) of a right product. */
static uint64_t expected_checksum(int64_t n) {
    static float product[P][P];
    for (int i = 0; i < P; i++)
        for (int j = 0; j < P; j++) {
            double sum = 0;
            for (int k = 0; k < P; k++)
                sum += (double)((n - k + P - 1) / P) * value(0, k, i) * value(1, k, j);
            product[i][j] = (float)sum;
        }
    uint64_t sum = 0;
    for (int64_t at = 0; at < n * n; at += 2) { /* n is even */
        float pair[2] = {product[at / n % P][at % n % P], product[at / n % P][(at % n + 1) % P]};
        uint64_t word;
        memcpy(&word, pair, sizeof word);
        sum += checksum_mix(word, at / 2);
    }
    return sum;
}

typedef struct {
    void *dy, *x;
    float *product;
    uint64_t *sum;
    Event *begin, *end;
    Stream *stream;
} Work;

static Status allocate(Work *w, const Ops *ops, int64_t n) {
    const char *what = "the check of the hardware";
    CHECK(ops->stream_create(ops, &w->stream));
    CHECK(ops->event_create(&w->begin));
    CHECK(ops->event_create(&w->end));
    CHECK(ops->mem_alloc(&w->dy, n * n * ops->act_bytes, what));
    CHECK(ops->mem_alloc(&w->x, n * n * ops->act_bytes, what));
    CHECK(ops->mem_alloc((void **)&w->product, n * n * (int64_t)sizeof(float), what));
    return ops->mem_alloc((void **)&w->sum, sizeof *w->sum, what);
}

static void release(Work *w, const Ops *ops) {
    ops->event_free(w->begin);
    ops->event_free(w->end);
    ops->mem_free(w->dy);
    ops->mem_free(w->x);
    ops->mem_free(w->product);
    ops->mem_free(w->sum);
    if (w->stream != NULL) ops->stream_free(w->stream);
}

/* Every product is checked; the first, which chooses the algorithm, is not timed. */
static Status multiply(Work *w, const Ops *ops, int64_t n, HardwareResult *r) {
    const Linear square = {.S = n, .N = n, .M = n};
    int64_t bytes = n * n * ops->act_bytes, product_bytes = n * n * (int64_t)sizeof(float);
    char *host = mem_new(2 * bytes, 1);
    fill(ops, host, 0, n);
    fill(ops, host + bytes, 1, n);
    ops->mem_copy(w->dy, host, bytes, w->stream);
    ops->mem_copy(w->x, host + bytes, bytes, w->stream);
    Status st = ops->stream_sync(w->stream);
    free(host);
    ops->mem_zero(w->sum, sizeof *w->sum, w->stream);
    for (int i = 0; i < TIMES && st == OK; i++) {
        ops->mem_zero(w->product, product_bytes, w->stream);
        ops->event_record(w->begin, w->stream);
        linear_wgrad(ops, square, w->product, w->dy, w->x, w->stream);
        ops->event_record(w->end, w->stream);
        ops->checksum(w->sum, w->product, product_bytes, w->stream); /* adds */
        st = ops->stream_sync(w->stream);
        double ms = st == OK ? ops->event_ms(w->begin, w->end) : 0;
        if (i == 1 || (i > 1 && ms < r->ms)) r->ms = ms;
    }
    CHECK(st);
    uint64_t sum = 0;
    ops->mem_copy(&sum, w->sum, sizeof sum, w->stream);
    CHECK(ops->stream_sync(w->stream));
    r->right = sum == TIMES * expected_checksum(n);
    return OK;
}

static Status measure(const Ops *ops, HardwareResult *r) {
    Work w = {0};
    int64_t n = ops->host_memory ? HOST_N : DEVICE_N;
    snprintf(r->node, sizeof r->node, "%s", comm_host_name(comm_world_rank()));
    Status st = allocate(&w, ops, n);
    if (st == OK) st = multiply(&w, ops, n, r);
    release(&w, ops);
    return st;
}

static void add_rank(StrBuf *b, int rank, const HardwareResult *r) {
    strbuf_printf(b, "%srank %d on node %s", b->len > 0 ? ", " : "", rank, r->node);
}

static double median_ms(const HardwareResult *results, int world) {
    double *ms = NEW(double, world);
    for (int r = 0; r < world; r++) ms[r] = results[r].ms;
    median(ms, world);                   /* sorts */
    double middle = ms[(world - 1) / 2]; /* of two ranks one can be slow */
    free(ms);
    return middle;
}

Status hardware_judge(const HardwareResult *results, int world, bool timed, StrBuf *slow) {
    StrBuf wrong = {0}, names = {0};
    double middle = median_ms(results, world);
    for (int r = 0; r < world; r++) {
        const HardwareResult *x = &results[r];
        if (!x->right) add_rank(&wrong, r, x);
        if (!timed || x->ms * HARDWARE_SLOW <= middle) continue;
        add_rank(&names, r, x);
        strbuf_printf(&names, " (%.3g ms)", x->ms);
    }
    Status st = OK;
    if (wrong.len > 0)
        st = status_fail(ERR_ENV,
                         "%s: a product of matrices with a known result came out wrong; the device "
                         "or its memory is faulty: leave it out (run.check_hardware=false skips "
                         "this check)",
                         strbuf_text(&wrong));
    else if (names.len > 0)
        strbuf_printf(
            slow,
            "%s: a product of matrices takes longer than the ranks' median, %.3g ms; look "
            "at clocks, temperature and what else runs there, or leave it out: all ranks "
            "will wait for it",
            strbuf_text(&names), middle);
    strbuf_free(&wrong);
    strbuf_free(&names);
    return st;
}

Status hardware_check(const Ops *ops, Comm *host) {
    HardwareResult *all = NEW(HardwareResult, host->size);
    StrBuf slow = {0};
    Status st;
    CHECK_GOTO(comm_agree(host, measure(ops, &all[host->rank])), done);
    CHECK_GOTO(comm_all_gather(host, all, sizeof *all, DT_U8, COMM_KIND_OTHER, NULL), done);
    CHECK_GOTO(comm_agree(host, hardware_judge(all, host->size, !ops->host_memory, &slow)), done);
    if (host->rank == 0 && slow.len > 0) log_warn("%s", strbuf_text(&slow));
done:
    strbuf_free(&slow);
    free(all);
    return st;
}
