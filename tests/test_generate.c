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

static void take(void *taken, int32_t id) {
    Taken *t = taken;
    t->ids[t->n++] = id;
}

static Taken run(Generator *g, const int32_t *prompt, SampleOptions sample, int64_t end) {
    Taken taken = {0};
    GenerateOptions o = {.sample = sample,
                         .tokens = TOKENS - PROMPT,
                         .ends = &end,
                         .n_ends = 1,
                         .take = take,
                         .ctx = &taken};
    assert_status_ok(generate(g->decoder, prompt, PROMPT, &o, g->stream));
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

static void tokens_one_by_one_have_the_logits_of_all_at_once(void **state) {
    (void)state;
    int32_t text[TOKENS];
    read_greedy("tests/golden/hf_untied", text);
    Generator g = open_model("tests/golden/hf_untied");
    int V = decoder_vocab(g.decoder);
    float *at_once = NEW(float, V), *last = NEW(float, V);
    for (int first = 1; first < TOKENS; first += 6) {
        decoder_reset(g.decoder);
        assert_status_ok(decoder_run(g.decoder, text, TOKENS, at_once, g.stream));
        decoder_reset(g.decoder);
        assert_status_ok(decoder_run(g.decoder, text, first, last, g.stream));
        for (int t = first; t < TOKENS; t++)
            assert_status_ok(decoder_run(g.decoder, text + t, 1, last, g.stream));
        for (int v = 0; v < V; v++) assert_true(fabsf(at_once[v] - last[v]) <= 1e-5f);
    }
    free(at_once);
    free(last);
    generator_close(&g);
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
        cmocka_unit_test(samples_follow_their_probabilities),
        cmocka_unit_test(a_seed_is_a_text),
        cmocka_unit_test(what_cannot_generate_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
