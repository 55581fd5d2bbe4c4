#include "data/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/mt19937.h"
#include "data/share.h"

/* ---- one file ------------------------------------------------------------------------------ */

/* A sample is found by bisecting the marks, the tokens before every MARK-th position, and walking.
 */
enum { MARK = 32 };

struct Order {
    OrderOptions o;
    int64_t epoch_tokens, epochs;
    bool last_apart; /* the last epoch is shuffled on its own */
    int64_t positions, samples;
    Share *share;
    const uint32_t *sequences; /* [positions]; Megatron's document_index */
    const int64_t *marks;      /* [ceil(positions / MARK)] */
    const uint32_t *shuffle;   /* [samples] */
};

int64_t order_samples(const Order *x) {
    return x->samples;
}
int64_t order_sequence(const Order *x, int64_t position) {
    return x->sequences[position];
}

static int64_t length(const Order *x, int64_t sequence) {
    return megatron_start(x->o.index, sequence + 1) - megatron_start(x->o.index, sequence);
}

static Status count(Order *x) {
    const OrderOptions *o = &x->o;
    x->epoch_tokens = megatron_start(o->index, o->end) - megatron_start(o->index, o->first);
    int64_t asked = i64_max(1, o->samples), needed, tokens;
    if (x->epoch_tokens <= o->seq_len)
        return status_fail(ERR_USER,
                           "sequences %lld to %lld of %s have %lld tokens, but one sample of "
                           "model.seq_len %lld needs %lld; use more data, another data.split or a "
                           "shorter seq_len",
                           (long long)o->first, (long long)o->end, o->name,
                           (long long)x->epoch_tokens, (long long)o->seq_len,
                           (long long)o->seq_len + 1);
    REQUIRE(x->epoch_tokens > 0);
    bool fits = checked_mul(asked, o->seq_len, &needed) && needed < INT64_MAX - x->epoch_tokens;
    x->epochs = !fits ? INT64_MAX : o->samples < 0 ? 1 : ceil_div(needed + 1, x->epoch_tokens);
    fits = fits && checked_mul(x->epochs, o->end - o->first, &x->positions) &&
           checked_mul(x->epochs, x->epoch_tokens, &tokens);
    if (!fits || x->positions >= UINT32_MAX || (tokens - 1) / o->seq_len >= UINT32_MAX - 1)
        return status_fail(
            ERR_USER,
            "data.order megatron: %lld epochs of %s are more sequences or samples than "
            "its tables hold (2^32); lower run.steps or use data.order cria",
            (long long)x->epochs, o->name);
    x->samples = (tokens - 1) / o->seq_len;
    if (x->epochs > 1) {
        int64_t before_last = ((x->epochs - 1) * x->epoch_tokens - 1) / o->seq_len;
        int64_t per_epoch = (x->epoch_tokens - 1) / o->seq_len;
        x->last_apart = o->samples - before_last < (int64_t)(0.80 * (double)per_epoch);
    }
    return OK;
}

/* Bytes of the three tables, and where the second and third start. */
static int64_t layout(const Order *x, int64_t *marks, int64_t *shuffle) {
    *marks = round_up(x->positions * 4, 8);
    *shuffle = *marks + ceil_div(x->positions, MARK) * 8;
    return *shuffle + x->samples * 4;
}

static void shuffle_numbers(Mt *mt, uint32_t *a, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) a[i] = (uint32_t)i;
    mt_shuffle(mt, a + begin, end - begin);
}

static Status fill(void *ctx, void *data) {
    const Order *x = ctx;
    const OrderOptions *o = &x->o;
    int64_t at_marks, at_shuffle, n = o->end - o->first;
    layout(x, &at_marks, &at_shuffle);
    uint32_t *sequences = data, *shuffle = (uint32_t *)(void *)((char *)data + at_shuffle);
    int64_t *marks = (int64_t *)(void *)((char *)data + at_marks);
    Mt mt;
    mt_seed(&mt, o->seed);
    for (int64_t e = 0; e < x->epochs; e++)
        for (int64_t i = 0; i < n; i++) sequences[e * n + i] = (uint32_t)(o->first + i);
    int64_t together = x->last_apart ? x->positions - n : x->positions;
    mt_shuffle(&mt, sequences, together);
    mt_shuffle(&mt, sequences + together, x->positions - together);
    int64_t tokens = 0;
    for (int64_t p = 0; p < x->positions; p++) {
        if (p % MARK == 0) marks[p / MARK] = tokens;
        if (p + 16 < x->positions) __builtin_prefetch(o->index->starts + sequences[p + 16]);
        tokens += length(x, sequences[p]);
    }
    REQUIRE(tokens == x->epochs * x->epoch_tokens);
    int64_t first = x->samples;
    if (x->last_apart) first = ((x->epochs - 1) * x->epoch_tokens - 1) / o->seq_len;
    shuffle_numbers(&mt, shuffle, 0, first);
    shuffle_numbers(&mt, shuffle, first, x->samples);
    return OK;
}

Status order_open(Order **out, const OrderOptions *options) {
    REQUIRE(options->seq_len >= 1 && options->first <= options->end);
    Order *x = NEW(Order, 1);
    x->o = *options;
    Status st = count(x);
    if (st == OK) {
        int64_t marks, shuffle, bytes = layout(x, &marks, &shuffle);
        char *name = mem_printf(
            "order of %s sequences %lld %lld T %lld epochs %lld apart %d seed %u", options->name,
            (long long)options->first, (long long)options->end, (long long)options->seq_len,
            (long long)x->epochs, x->last_apart, options->seed);
        st = share_open(&x->share, name, bytes, fill, x);
        free(name);
        if (st == OK) {
            const char *data = share_data(x->share);
            x->sequences = (const void *)data;
            x->marks = (const void *)(data + marks);
            x->shuffle = (const void *)(data + shuffle);
        }
    }
    if (st != OK) {
        order_close(x);
        x = NULL;
    }
    *out = x;
    return st;
}

void order_close(Order *x) {
    if (x == NULL) return;
    share_close(x->share);
    free(x);
}

void order_find(const Order *x, int64_t n, int64_t *position, int64_t *offset) {
    REQUIRE(n >= 0 && n < x->samples);
    int64_t token = x->shuffle[n] * x->o.seq_len;
    int64_t low = 0, high = ceil_div(x->positions, MARK);
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (x->marks[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    int64_t p = low * MARK, left = token - x->marks[low];
    for (int64_t len; (len = length(x, x->sequences[p])) <= left; p++) left -= len;
    *position = p;
    *offset = left;
}

/* ---- several files --------------------------------------------------------------------------- */

struct Blend {
    int n;
    const double *weights;
    int64_t size;
    Share *share;
    const int64_t *samples;  /* [size] */
    const uint16_t *sources; /* [size] */
};

static Status fill_blend(void *ctx, void *data) {
    const Blend *b = ctx;
    int64_t *samples = data, *drawn = NEW(int64_t, b->n);
    uint16_t *sources = (uint16_t *)(samples + b->size);
    for (int64_t i = 0; i < b->size; i++) {
        double now = i > 1 ? (double)i : 1.0, worst = -INFINITY;
        int choice = 0;
        for (int s = 0; s < b->n; s++) {
            double behind = b->weights[s] * now - (double)drawn[s];
            if (behind > worst) {
                worst = behind;
                choice = s;
            }
        }
        sources[i] = (uint16_t)choice;
        samples[i] = drawn[choice]++;
    }
    free(drawn);
    return OK;
}

Status blend_open(Blend **out, int n, const double *weights, int64_t size) {
    Blend *b = NEW(Blend, 1);
    *b = (Blend){.n = n, .weights = weights, .size = size};
    StrBuf name = {0};
    uint64_t h = 0;
    for (int s = 0; s < n; s++) {
        uint64_t bits;
        memcpy(&bits, &weights[s], sizeof bits);
        h = (h ^ bits) * 0x100000001b3u + (h >> 29);
    }
    strbuf_printf(&name, "blend of %d, weights %016llx", n, (unsigned long long)h);
    Status st = share_open(&b->share, strbuf_text(&name), size * 10, fill_blend, b);
    strbuf_free(&name);
    b->weights = NULL;
    if (st == OK) {
        b->samples = share_data(b->share);
        b->sources = (const uint16_t *)(b->samples + size);
    } else {
        free(b);
        b = NULL;
    }
    *out = b;
    return st;
}

void blend_close(Blend *b) {
    if (b == NULL) return;
    share_close(b->share);
    free(b);
}

int blend_find(const Blend *b, int64_t n, int64_t *sample) {
    REQUIRE(n >= 0 && n < b->size);
    *sample = b->samples[n];
    return b->sources[n];
}

static double pairwise_sum(const double *a, int n) {
    if (n < 8) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += a[i];
        return sum;
    }
    if (n > 128) {
        int half = n / 2;
        half -= half % 8;
        return pairwise_sum(a, half) + pairwise_sum(a + half, n - half);
    }
    double r[8];
    int i = 8;
    memcpy(r, a, sizeof r);
    for (; i < n - n % 8; i += 8)
        for (int k = 0; k < 8; k++) r[k] += a[i + k];
    double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++) sum += a[i];
    return sum;
}

void blend_normalize(int n, double *weights) {
    double sum = pairwise_sum(weights, n);
    for (int i = 0; i < n; i++) weights[i] /= sum;
}

int64_t blend_request(int64_t size, double weight, double margin) {
    return (int64_t)ceil(ceil((double)size * weight) * (1 + margin / 100));
}
