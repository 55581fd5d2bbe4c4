/* loader.c: a ring of micro-batches between one thread that fills it and one caller that takes. The
 * caller holds the slot it was given until it asks for the next, hence one slot more than `depth`.
 */
#include "data/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct Loader {
    Dataset *data;
    LoaderOptions options;
    int64_t first_step;
    MicroBatch *ring;
    int slots;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;   /* guards everything below */
    pthread_cond_t changed; /* only one side can be waiting: a ring is not both full and empty */
    int64_t made, taken;    /* micro-batches filled; returned (the last of them is in use) */
    bool stop;
    Status failure; /* why micro-batch number `made` could not be made */
    char *message;
};

/* ---- one micro-batch ------------------------------------------------------------------------- */

static void check_options(const Dataset *data, const LoaderOptions *o) {
    REQUIRE(o->micro >= 1 && o->dp_size >= 1 && o->dp_rank >= 0 && o->dp_rank < o->dp_size);
    REQUIRE(o->global >= 1 && o->global % (o->micro * o->dp_size) == 0);
    REQUIRE(o->seq_len == dataset_seq_len(data) && o->depth >= 0);
}

/* Stream positions are int32. */
static Status check_size(const LoaderOptions *o) {
    int64_t n;
    if (checked_mul(o->micro, o->seq_len, &n) && n < INT32_MAX) return OK;
    return status_fail(ERR_USER,
                       "batch.micro %lld x model.seq_len %lld is 2^31 tokens or more in one "
                       "micro-batch; lower batch.micro",
                       (long long)o->micro, (long long)o->seq_len);
}

static void batch_create(MicroBatch *mb, const LoaderOptions *o) {
    int64_t n = o->micro * o->seq_len;
    *mb = (MicroBatch){.B = o->micro,
                       .T = o->seq_len,
                       .tokens = NEW(int32_t, n + 1), /* + 1: see batch_fill */
                       .labels = NEW(int32_t, n),
                       .positions = NEW(int32_t, n),
                       .weights = NEW(float, n),
                       .samples = NEW(int64_t, o->micro),
                       .doc_begin = NEW(int32_t, n),
                       .begins = NEW(int32_t, o->seq_len)};
}

static void batch_release(MicroBatch *mb, const LoaderOptions *o) {
    if (mb->cp_batch != NULL) o->release(mb->cp_batch);
    mb->cp_batch = NULL;
}

/* begins [n]: where documents begin in sequence b. Plain loops over documents vectorize. */
static void describe_sequence(MicroBatch *mb, const LoaderOptions *o, int64_t b,
                              const int32_t *begins, int32_t n) {
    int32_t *positions = mb->positions + b * mb->T;
    float *weights = mb->weights + b * mb->T;
    const int32_t *tokens = mb->tokens + b * mb->T, T = (int32_t)mb->T;
    const int32_t masked = o->eod_mask_loss ? (int32_t)o->eod : -1;
    const float counts = o->samples_end > 0 && mb->samples[b] >= o->samples_end ? 0.0f : 1.0f;
    for (int32_t d = 0; d < n; d++) {
        int32_t begin = begins[d], end = d + 1 < n ? begins[d + 1] : T;
        if (d == 0 || o->documents) mb->doc_begin[mb->n_docs++] = (int32_t)(b * mb->T) + begin;
        int32_t zero = o->reset_positions ? begin : 0;
        for (int32_t s = begin; s < end; s++) positions[s] = s - zero;
    }
    for (int32_t s = 0; s < T; s++) weights[s] = tokens[s] == masked ? 0.0f : counts;
}

static Status batch_fill(MicroBatch *mb, Dataset *data, const LoaderOptions *o, int64_t step,
                         int64_t micro) {
    batch_release(mb, o);
    mb->step = step;
    mb->micro = micro;
    mb->n_docs = 0;
    /* ranks side by side within a micro-batch: a step is the same samples for any dp_size */
    int64_t first =
        o->sample_shift + step * o->global + (micro * o->dp_size + o->dp_rank) * o->micro;
    for (int64_t b = 0; b < mb->B; b++) {
        int32_t *tokens = mb->tokens + b * mb->T; /* T + 1 ids; the next sequence covers the last */
        int32_t n = 1;
        mb->begins[0] = 0;
        mb->samples[b] = first + b;
        if (o->documents || o->reset_positions)
            CHECK(dataset_sample_documents(data, first + b, o->eod, tokens, mb->begins, &n));
        else
            CHECK(dataset_sample(data, first + b, tokens));
        memcpy(mb->labels + b * mb->T, tokens + 1, (size_t)mb->T * sizeof *tokens);
        describe_sequence(mb, o, b, mb->begins, n);
    }
    if (o->prepare != NULL) mb->cp_batch = o->prepare(o->ctx, mb);
    return OK;
}

void loader_batch_free(MicroBatch *mb, const LoaderOptions *o) {
    batch_release(mb, o);
    free(mb->tokens);
    free(mb->labels);
    free(mb->positions);
    free(mb->weights);
    free(mb->samples);
    free(mb->doc_begin);
    free(mb->begins);
    *mb = (MicroBatch){0};
}

Status loader_batch(MicroBatch *mb, Dataset *data, const LoaderOptions *o, int64_t step,
                    int64_t micro) {
    check_options(data, o);
    *mb = (MicroBatch){0};
    CHECK(check_size(o));
    batch_create(mb, o);
    Status st = batch_fill(mb, data, o, step, micro);
    if (st != OK) loader_batch_free(mb, o);
    return st;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void *fill_ring(void *arg) {
    Loader *l = arg;
    int64_t micros = l->options.global / (l->options.micro * l->options.dp_size);
    enum { LOOK_SECONDS = 10 }; /* between looks at the files, a microsecond each */
    double looked = time_now();
    Status st = OK;
    pthread_mutex_lock(&l->lock);
    while (st == OK) {
        /* the slot of micro-batch taken - 1 is still being read */
        while (!l->stop && l->made - i64_max(0, l->taken - 1) == l->slots)
            pthread_cond_wait(&l->changed, &l->lock);
        if (l->stop) break;
        int64_t n = l->made;
        pthread_mutex_unlock(&l->lock);
        if (time_now() - looked >= LOOK_SECONDS) {
            dataset_warn_of_changes(l->data);
            looked = time_now();
        }
        st = batch_fill(&l->ring[n % l->slots], l->data, &l->options, l->first_step + n / micros,
                        n % micros);
        pthread_mutex_lock(&l->lock);
        if (st == OK) {
            l->made++;
        } else {
            l->failure = st;
            l->message = mem_strdup(status_message()); /* the message is this thread's own */
        }
        pthread_cond_signal(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

Status loader_create(Loader **out, Dataset *data, const LoaderOptions *options,
                     int64_t first_step) {
    check_options(data, options);
    *out = NULL;
    CHECK(check_size(options));
    Loader *l = NEW(Loader, 1);
    l->data = data;
    l->options = *options;
    l->first_step = first_step;
    l->slots = (options->depth > 0 ? options->depth : 4) + 1;
    l->ring = NEW(MicroBatch, l->slots);
    for (int i = 0; i < l->slots; i++) batch_create(&l->ring[i], options);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    /* signals are for the main thread: the new one inherits a full mask */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&l->thread, NULL, fill_ring, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    l->running = error == 0;
    if (error != 0) {
        loader_free(l);
        return status_fail(ERR_ENV, "cannot start the data loader's thread: %s", strerror(error));
    }
    *out = l;
    return OK;
}

Status loader_next(Loader *l, const MicroBatch **mb, double *waited) {
    Status st = OK;
    pthread_mutex_lock(&l->lock);
    if (l->made == l->taken && l->failure == OK) {
        double start = time_now();
        while (l->made == l->taken && l->failure == OK) pthread_cond_wait(&l->changed, &l->lock);
        if (waited != NULL) *waited += time_now() - start;
    }
    if (l->made > l->taken) {
        *mb = &l->ring[l->taken++ % l->slots];
        pthread_cond_signal(&l->changed);
    } else { /* all micro-batches before the failure have been returned */
        st = status_fail(l->failure, "%s", l->message);
    }
    pthread_mutex_unlock(&l->lock);
    return st;
}

void loader_free(Loader *l) {
    if (l == NULL) return;
    if (l->running) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_signal(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (int i = 0; i < l->slots; i++) loader_batch_free(&l->ring[i], &l->options);
    free(l->ring);
    free(l->message);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}
