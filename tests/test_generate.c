/* Generation with a KV cache: the greedy continuation that transformers gives (tests/golden/hf_*),
 * the same logits token by token as at once, and sampling. */
#include <math.h>

#include "hf_dir.h"
#include "session/generator.h"

enum { TOKENS = 32, PROMPT = 16 };

static Generator open_model(const char *path) {
    Generator g;
    assert_status_ok(generator_open(&g, path));
    assert_status_ok(generator_start(&g, DEVICE_CPU, TOKENS));
    return g;
}

/* Prompt and continuation. */
static void read_greedy(const char *golden, int32_t text[TOKENS]) {
    Checkpoint *ck;
    char *path = mem_printf("%s/expected.safetensors", golden);
    assert_status_ok(checkpoint_open(&ck, path));
    assert_status_ok(checkpoint_read(ck, "greedy", 0, TOKENS, text));
    checkpoint_close(ck);
    free(path);
}

typedef struct {
    int32_t ids[TOKENS];
    int n;
} Taken;

static Taken run(Generator *g, const int32_t *prompt, SampleOptions sample, int64_t end) {
    Taken taken = {0};
    Generation text = {
        .decoder = g->decoder, .stream = g->stream, .sample = sample, .ends = &end, .n_ends = 1};
    generation_begin(&text, prompt, PROMPT);
    for (int32_t id; taken.n < TOKENS - PROMPT; taken.ids[taken.n++] = id) {
        assert_status_ok(generation_next(&text, &id));
        if (id < 0) break;
    }
    generation_end(&text);
    return taken;
}

static void greedy_tokens_are_those_of_transformers(void **state) {
    (void)state;
    static const char *const golden[] = {"tests/golden/hf_untied", "tests/golden/hf_tied"};
    for (int i = 0; i < 2; i++) {
        int32_t text[TOKENS];
        read_greedy(golden[i], text);
        Generator g = open_model(golden[i]);
        for (int again = 0; again < 2; again++) {
            Taken found = run(&g, text, (SampleOptions){0}, -1);
            assert_int_equal(found.n, TOKENS - PROMPT);
            assert_memory_equal(found.ids, text + PROMPT, sizeof *text * (TOKENS - PROMPT));
        }
        /* an end of texts is not given out, and nothing behind it */
        int before = 0;
        while (text[PROMPT + before] != text[TOKENS - 1]) before++;
        assert_int_equal(run(&g, text, (SampleOptions){0}, text[TOKENS - 1]).n, before);
        generator_close(&g);
    }
}

/* Of the token behind text: its first `first` tokens at once, the others one by one. */
static void logits_of(Generator *g, const int32_t text[TOKENS], int first, float *logits) {
    decoder_reset(g->decoder);
    assert_status_ok(decoder_run(g->decoder, text, first, logits, g->stream));
    for (int t = first; t < TOKENS; t++)
        assert_status_ok(decoder_run(g->decoder, text + t, 1, logits, g->stream));
}

static float largest_difference(const float *a, const float *b, int n) {
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fmaxf(largest, fabsf(a[i] - b[i]));
    return largest;
}

static void tokens_one_by_one_have_the_logits_of_all_at_once(void **state) {
    (void)state;
    int32_t text[TOKENS];
    read_greedy("tests/golden/hf_untied", text);
    Generator g = open_model("tests/golden/hf_untied");
    int V = decoder_vocab(g.decoder);
    float *at_once = NEW(float, V), *last = NEW(float, V);
    logits_of(&g, text, TOKENS, at_once);
    for (int first = 1; first < TOKENS; first += 6) {
        logits_of(&g, text, first, last);
        assert_true(largest_difference(at_once, last, V) <= 1e-5f);
    }
    free(at_once);
    free(last);
    generator_close(&g);
}

/* Two layers with a window of 8 tokens carry nothing further than 16. */
static void a_window_hides_what_is_far(void **state) {
    (void)state;
    int32_t text[TOKENS];
    read_greedy("tests/golden/hf_untied", text);
    for (int64_t window = 0; window <= 8; window += 8) {
        Generator g;
        assert_status_ok(generator_open(&g, "tests/golden/hf_untied"));
        assert_int_equal(g.source.config.model.layers, 2);
        g.source.config.data.window = window;
        assert_status_ok(generator_start(&g, DEVICE_CPU, TOKENS));
        int V = decoder_vocab(g.decoder), far = TOKENS - 1 - 17, near = TOKENS - 1 - 16;
        float *a = NEW(float, V), *b = NEW(float, V);
        logits_of(&g, text, TOKENS, a);
        logits_of(&g, text, TOKENS - 12, b);
        assert_true(largest_difference(a, b, V) <= 1e-5f);
        text[far] ^= 1;
        logits_of(&g, text, TOKENS - 12, b);
        assert_true((largest_difference(a, b, V) > 1e-4f) == (window == 0));
        text[near] ^= 1;
        logits_of(&g, text, TOKENS - 12, b);
        assert_true(largest_difference(a, b, V) > 1e-4f);
        free(a);
        free(b);
        generator_close(&g);
    }
}

static void samples_follow_their_probabilities(void **state) {
    (void)state;
    enum { V = 4, N = 20000 };
    const float logits[V] = {logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f)};
    static const struct {
        double temperature, top_p, expected[V];
    } cases[] = {
        {0, 1, {0, 1, 0, 0}},
        {1, 1, {0.1, 0.4, 0.2, 0.3}},
        {0.5, 1, {0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3}},
        {1, 0.85, {0, 0.4 / 0.9, 0.2 / 0.9, 0.3 / 0.9}},
        {1, 0.65, {0, 0.4 / 0.7, 0, 0.3 / 0.7}},
        {1, 0.01, {0, 1, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SampleOptions o = {cases[i].temperature, cases[i].top_p, 7, 3};
        int counts[V] = {0};
        for (int t = 0; t < N; t++) counts[sample_token(logits, V, t, &o)]++;
        for (int v = 0; v < V; v++)
            assert_true(fabs((double)counts[v] / N - cases[i].expected[v]) < 0.015);
    }
}

static void a_seed_is_a_text(void **state) {
    (void)state;
    int32_t text[TOKENS];
    read_greedy("tests/golden/hf_untied", text);
    Generator g = open_model("tests/golden/hf_untied");
    Taken one = run(&g, text, (SampleOptions){1, 0.95, 1, 0}, -1);
    Taken same = run(&g, text, (SampleOptions){1, 0.95, 1, 0}, -1);
    Taken other = run(&g, text, (SampleOptions){1, 0.95, 2, 0}, -1);
    assert_memory_equal(one.ids, same.ids, sizeof one.ids);
    assert_memory_not_equal(one.ids, other.ids, sizeof one.ids);
    generator_close(&g);
}

static void what_cannot_generate_is_refused(void **state) {
    (void)state;
    Generator g;
    assert_status_fails(generator_open(&g, dir), ERR_USER, "there is no checkpoint in");
    generator_close(&g);
    assert_status_fails(generator_open(&g, "tests/golden/case1.safetensors"), ERR_USER,
                        "is not a checkpoint that cria wrote");
    generator_close(&g);
    copy_golden("hf_untied");
    StrBuf weights = read_file(hf, "model.safetensors");
    memset(weights.text + weights.len - 4, 0xff, 4);
    write_file(hf, "model.safetensors", weights.text, weights.len);
    strbuf_free(&weights);
    assert_status_ok(generator_open(&g, hf));
    assert_status_fails(generator_start(&g, DEVICE_CPU, TOKENS), ERR_USER,
                        "holds NaN or infinity at element");
    generator_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_tokens_are_those_of_transformers),
        cmocka_unit_test(tokens_one_by_one_have_the_logits_of_all_at_once),
        cmocka_unit_test(a_window_hides_what_is_far),
        cmocka_unit_test(samples_follow_their_probabilities),
        cmocka_unit_test(a_seed_is_a_text),
        cmocka_unit_test(what_cannot_generate_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
