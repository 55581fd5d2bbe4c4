/* Packed documents and sliding windows through the whole model: a stream of documents trains as
 * each document would alone, and a window shows a token exactly what it says. */
#include "test.h"

#include <math.h>

#include "model_rig.h"

enum { T = 24, MAX_DOCUMENTS = T };

typedef struct {
    const char *name;
    int B;
    int32_t length[MAX_DOCUMENTS]; /* of documents in order, 0 ends; none crosses a sequence */
} Layout;

static const Layout layouts[] = {
    {"one document", 1, {24}},
    {"several documents", 1, {5, 9, 2, 8}},
    {"documents of one token between others", 1, {1, 7, 1, 1, 13, 1}},
    {"two sequences", 2, {11, 13, 24}},
    {"documents of one token only", 1, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
};
enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

static void open_stream(Rig *r, const Layout *layout, MaskKind mask, int64_t window, bool reset) {
    *r = (Rig){.model = rig_model(T)};
    rig_open(r, layout->B, T, RECOMPUTE_NONE, 0);
    r->cp_options.mask.kind = mask;
    r->cp_options.mask.window = window;
    free(r->mb.doc_begin);
    r->mb.doc_begin = NEW(int32_t, MAX_DOCUMENTS);
    int32_t begin = 0, n = 0;
    for (; n < MAX_DOCUMENTS && layout->length[n] > 0; n++) {
        r->mb.doc_begin[n] = begin;
        for (int32_t i = 0; i < layout->length[n]; i++)
            r->mb.positions[begin + i] = reset ? i : (begin + i) % T;
        begin += layout->length[n];
    }
    r->mb.n_docs = n;
    assert_int_equal(begin, layout->B * T);
}

/* Tokens [begin, begin + n) of the stream as a sequence of their own. */
static void open_alone(Rig *r, const Rig *stream, int32_t begin, int32_t n) {
    *r = (Rig){.model = rig_model(T)};
    rig_open(r, 1, n, RECOMPUTE_NONE, 0);
    r->cp_options.mask.window = stream->cp_options.mask.window;
    memcpy(r->mb.tokens, stream->mb.tokens + begin, (size_t)n * sizeof(int32_t));
    memcpy(r->mb.labels, stream->mb.labels + begin, (size_t)n * sizeof(int32_t));
    memcpy(r->mb.weights, stream->mb.weights + begin, (size_t)n * sizeof(float));
}

static void assert_close(const char *what, double found, double expected, double scale) {
    if (!(fabs(found - expected) <= 1e-5 * scale))
        fail_msg("%s: found %.9g, expected %.9g", what, found, expected);
}

/* Each tensor on its own scale. */
static void assert_same_gradients(const Rig *r, const double *expected) {
    for (int i = 0; i < r->table->n_params; i++) {
        const Param *p = &r->table->params[i];
        double largest = 0;
        for (int64_t k = 0; k < p->count; k++)
            largest = fmax(largest, fabs(expected[p->offset + k]));
        for (int64_t k = 0; k < p->count; k++)
            assert_close(p->name, (double)r->grads[p->offset + k], expected[p->offset + k],
                         fmax(largest, 0.5)); /* one token alone has no gradient in q */
    }
}

static void stream_equals_documents(const Layout *layout, int64_t window, bool reset) {
    print_message("%s, window %d\n", layout->name, (int)window);
    Rig stream;
    open_stream(&stream, layout, MASK_DOCUMENT, window, reset);
    double *grads = NEW(double, stream.table->total), loss = 0;
    for (int32_t i = 0; i < stream.mb.n_docs; i++) {
        Rig alone;
        open_alone(&alone, &stream, stream.mb.doc_begin[i], layout->length[i]);
        loss += rig_run(&alone, true);
        for (int64_t k = 0; k < stream.table->total; k++) grads[k] += (double)alone.grads[k];
        rig_close(&alone);
    }
    assert_close("loss", rig_run(&stream, true), loss, loss);
    assert_same_gradients(&stream, grads);
    free(grads);
    rig_close(&stream);
}

static void documents_train_as_if_each_were_alone(void **state) {
    (void)state;
    for (int i = 0; i < N_LAYOUTS; i++) stream_equals_documents(&layouts[i], 0, true);
}

static void positions_that_go_on_change_rounding_only(void **state) {
    (void)state; /* rotary attention sees differences of positions */
    for (int i = 0; i < N_LAYOUTS; i++) stream_equals_documents(&layouts[i], 0, false);
}

static void documents_with_a_window_train_as_if_each_were_alone(void **state) {
    (void)state;
    for (int i = 0; i < N_LAYOUTS; i++) stream_equals_documents(&layouts[i], 3, i % 2 == 0);
}

static void without_a_document_mask_documents_see_each_other(void **state) {
    (void)state;
    double loss[2];
    for (int i = 0; i < 2; i++) {
        Rig r;
        open_stream(&r, &layouts[1], i == 0 ? MASK_CAUSAL : MASK_DOCUMENT, 0, true);
        loss[i] = rig_run(&r, false);
        rig_close(&r);
    }
    assert_true(fabs(loss[0] - loss[1]) > 1e-3 * loss[0]);
}

/* Every row a band of its own, straight from the definition of a mask. */
static double run_row_by_row(Rig *r) {
    int64_t S = r->cp_options.tokens;
    Band *rows = NEW(Band, S);
    int32_t begin = 0;
    for (int32_t s = 0, doc = 0; s < S; s++) {
        if (r->cp_options.mask.kind == MASK_CAUSAL && s % T == 0) begin = s;
        if (r->cp_options.mask.kind == MASK_DOCUMENT && doc < r->mb.n_docs &&
            r->mb.doc_begin[doc] == s)
            begin = r->mb.doc_begin[doc++];
        int32_t window = (int32_t)r->cp_options.mask.window;
        int32_t first = window > 0 && s - window > begin ? s - window : begin;
        rows[s] = (Band){s, s + 1, first, s + 1, BAND_NO_LO, BAND_NO_HI};
    }
    Mask mask;
    assert_status_ok(mask_bands(&mask, S, rows, S));
    CpBatch *batch = cp_batch_from_mask(&r->cp_options, &mask, &r->mb);
    r->losses[LLAMA_CE] = 0;
    llama_zero_gradients(r->llama, NULL);
    assert_status_ok(cp_begin(r->cp, batch, NULL));
    assert_status_ok(llama_run(r->llama, batch, true, r->losses, NULL, NULL, NULL));
    cp_batch_free(batch);
    mask_free(&mask);
    free(rows);
    return r->losses[LLAMA_CE];
}

static void every_mask_equals_its_pairs_listed_row_by_row(void **state) {
    (void)state;
    static const int64_t windows[] = {0, 1, 4, 23, 100};
    for (int i = 0; i < N_LAYOUTS; i++)
        for (int w = 0; w < 5; w++)
            for (int m = 0; m < 2; m++) {
                Rig r;
                MaskKind kind = m == 0 ? MASK_CAUSAL : MASK_DOCUMENT;
                open_stream(&r, &layouts[i], kind, windows[w], true);
                double loss = run_row_by_row(&r);
                double *grads = NEW(double, r.table->total);
                for (int64_t k = 0; k < r.table->total; k++) grads[k] = (double)r.grads[k];
                assert_close(layouts[i].name, rig_run(&r, true), loss, loss);
                assert_same_gradients(&r, grads);
                free(grads);
                rig_close(&r);
            }
}

/* With a window W a layer carries a token W places on, so the loss at token s depends on the tokens
 * from s - layers * W to s, on all of them and on no other. */
static void a_window_reaches_as_far_as_it_says(void **state) {
    (void)state;
    enum { W = 4, CHANGED = 6 };
    for (int32_t s = CHANGED; s < T; s++) {
        Rig r;
        open_stream(&r, &layouts[0], MASK_CAUSAL, W, true);
        for (int32_t i = 0; i < T; i++) r.mb.weights[i] = i == s ? 1.0f : 0.0f;
        double before = rig_run(&r, false);
        r.mb.tokens[CHANGED] = (r.mb.tokens[CHANGED] + 1) % r.model.vocab;
        double after = rig_run(&r, false);
        assert_int_equal(before != after, s <= CHANGED + W * r.model.layers);
        rig_close(&r);
    }
}

/* The target of token i of a sequence is token i + 1, which token i sees where it lies in the
 * prefix. */
static void targets_within_the_prefix_are_not_in_the_loss(void **state) {
    (void)state;
    for (int64_t prefix = 1; prefix <= T; prefix++) {
        Rig r;
        open_stream(&r, &layouts[3], MASK_PREFIX_LM, 0, false);
        r.cp_options.mask.prefix = prefix;
        for (int32_t s = 0; s < 2 * T; s++) r.mb.weights[s] = 1;
        CpBatch *batch = cp_batch_create(&r.cp_options, &r.mb);
        for (int32_t s = 0; s < 2 * T; s++)
            assert_true(batch->weights[s] == (s % T + 1 < prefix ? 0 : 1));
        assert_true(batch->weight_sum == (double)(2 * (T + 1 - prefix)));
        cp_batch_free(batch);
        rig_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_train_as_if_each_were_alone),
        cmocka_unit_test(positions_that_go_on_change_rounding_only),
        cmocka_unit_test(documents_with_a_window_train_as_if_each_were_alone),
        cmocka_unit_test(without_a_document_mask_documents_see_each_other),
        cmocka_unit_test(every_mask_equals_its_pairs_listed_row_by_row),
        cmocka_unit_test(a_window_reaches_as_far_as_it_says),
        cmocka_unit_test(targets_within_the_prefix_are_not_in_the_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
