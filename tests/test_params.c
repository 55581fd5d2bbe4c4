#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "model/flops.h"
#include "model/params.h"
#include "model/rope.h"

static const ModelConfig example_1b = {.layers = 16,
                                       .hidden = 2048,
                                       .heads = 32,
                                       .kv_heads = 8,
                                       .head_dim = 64,
                                       .ffn = 5440,
                                       .vocab = 128256,
                                       .seq_len = 8192,
                                       .init_std = 0.006,
                                       .rope_theta = 500000,
                                       .rope_scaling = {8, 1, 4, 8192}};

static const ModelConfig odd = {.layers = 3,
                                .hidden = 36,
                                .heads = 6,
                                .kv_heads = 2,
                                .head_dim = 6,
                                .ffn = 50,
                                .vocab = 131,
                                .seq_len = 8,
                                .init_std = 0.02};

static void the_published_shapes_have_the_published_sizes(void **state) {
    (void)state;
    ParamTable *t = param_table_create(&example_1b, 8);
    assert_int_equal(t->n_weights, 1227950080);
    /* Megatron-LM counts 7.40 GFLOP a token at 8192 tokens, causal */
    double area = 0.5 * 8192.0 * 8193.0;
    assert_true(fabs(flops_train(&example_1b, t, 1, area / 8192) / 1e9 - 7.40) < 0.01);
    param_table_free(t);
    ModelConfig hf = example_1b;
    hf.ffn = 8192;
    hf.tie_embeddings = true;
    t = param_table_create(&hf, 1);
    assert_int_equal(t->n_weights, 1235814400);
    param_table_free(t);
    hf.layers = 28, hf.hidden = 3072, hf.heads = 24, hf.head_dim = 128;
    t = param_table_create(&hf, 4);
    assert_int_equal(t->n_weights, 3212749824);
    param_table_free(t);
}

static void pieces_of_all_ranks_cover_every_weight_once(void **state) {
    (void)state;
    for (int world = 1; world <= 9; world++)
        for (int tied = 0; tied < 2; tied++) {
            ModelConfig m = odd;
            m.tie_embeddings = tied;
            ParamTable *t = param_table_create(&m, world);
            unsigned char *seen = mem_new(t->total, 1);
            int64_t shard = t->total / world, covered = 0;
            assert_int_equal(t->total % world, 0);
            for (int r = 0; r < world; r++) {
                ParamPiece *pieces;
                int n = param_table_pieces(t, r, &pieces);
                int64_t shard_end = 0;
                for (int i = 0; i < n; i++) {
                    const Param *p = &t->params[pieces[i].param];
                    assert_int_equal(pieces[i].flat, p->offset + pieces[i].begin);
                    assert_true(pieces[i].begin + pieces[i].count <= p->rows * p->cols);
                    assert_true(pieces[i].shard >= shard_end); /* no two share a place */
                    shard_end = pieces[i].shard + pieces[i].count;
                    for (int64_t k = 0; k < pieces[i].count; k++)
                        assert_int_equal(seen[pieces[i].flat + k]++, 0);
                    covered += pieces[i].count;
                }
                assert_true(shard_end <= shard);
                free(pieces);
            }
            assert_int_equal(covered, t->n_weights);
            free(seen);
            param_table_free(t);
        }
}

static void tensors_used_as_one_matrix_touch(void **state) {
    (void)state;
    ParamTable *t = param_table_create(&odd, 4);
    for (int l = 0; l < odd.layers; l++) {
        const Param *p = &t->params[t->layer_first + l * t->layer_stride];
        assert_int_equal(p[PARAM_Q].offset + p[PARAM_Q].count, p[PARAM_K].offset);
        assert_int_equal(p[PARAM_K].offset + p[PARAM_K].count, p[PARAM_V].offset);
        assert_int_equal(p[PARAM_GATE].offset + p[PARAM_GATE].count, p[PARAM_UP].offset);
        assert_int_equal(p[PARAM_INPUT_NORM].offset % PARAM_ALIGN, 0);
        assert_int_equal(p[PARAM_Q].offset % PARAM_ALIGN, 0);
        assert_int_equal(p[PARAM_DOWN].offset % PARAM_ALIGN, 0);
    }
    assert_int_equal(t->vocab_padded, 256);
    assert_int_equal(t->params[t->head].count, 256 * 36);
    param_table_free(t);
}

static void initial_weights_have_the_asked_spread_in_any_world(void **state) {
    (void)state;
    ModelConfig m = odd;
    m.ffn = 700;
    ParamTable *one = param_table_create(&m, 1), *eight = param_table_create(&m, 8);
    int embed = one->embed, down = one->layer_first + PARAM_DOWN;
    double squares[2] = {0, 0};
    int64_t n = one->params[down].rows * one->params[down].cols;
    for (int64_t i = 0; i < n; i++) {
        float x = param_init_value(one, down, i, 5);
        assert_true(x == param_init_value(eight, down, i, 5));
        squares[0] += (double)x * (double)x / (double)n;
    }
    n = one->params[embed].rows * one->params[embed].cols;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)param_init_value(one, embed, i, 5);
        squares[1] += x * x / (double)n;
    }
    assert_true(fabs(sqrt(squares[0]) / (0.02 / sqrt(6)) - 1) < 0.03); /* 25,200 draws */
    assert_true(fabs(sqrt(squares[1]) / 0.02 - 1) < 0.05);             /* 4,716 draws */
    assert_true(param_init_value(one, embed, 3, 5) != param_init_value(one, embed, 3, 6));
    assert_true(param_init_value(one, one->final_norm, 3, 5) == 1.0f);
    param_table_free(one);
    param_table_free(eight);
}

/* published values, which agree with Hugging Face's own arithmetic */
static void rope_frequencies_are_those_of_llama_3(void **state) {
    (void)state;
    static const struct {
        int dim;
        double factor;
        struct {
            int at;
            double value;
        } expected[5];
        double sum;
    } cases[] = {
        {64,
         8,
         {{1, 6.636012377e-01},
          {15, 1.371893568e-03},
          {16, 5.248461610e-04},
          {17, 1.785078128e-04},
          {31, 3.767322690e-07}},
         2.968633359},
        {64,
         32,
         {{0, 1},
          {15, 1.290547928e-03},
          {16, 4.295567966e-04},
          {17, 9.708287803e-05},
          {31, 9.418306725e-08}},
         2.968202298},
        {128,
         32,
         {{0, 1}, {29, 2.118406997e-03}, {34, 9.708287803e-05}, {63, 7.672314972e-08}, {0, 1}},
         5.385182234},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        ModelConfig m = example_1b;
        m.head_dim = cases[c].dim;
        m.rope_scaling.factor = cases[c].factor;
        float inv[64];
        rope_inv_freq(inv, &m);
        double sum = 0;
        for (int i = 0; i < m.head_dim / 2; i++) sum += (double)inv[i];
        assert_true(fabs(sum / cases[c].sum - 1) < 1e-6);
        for (int i = 0; i < 5; i++) {
            double value = cases[c].expected[i].value;
            assert_true(fabs((double)inv[cases[c].expected[i].at] / value - 1) < 1e-6);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_shapes_have_the_published_sizes),
        cmocka_unit_test(pieces_of_all_ranks_cover_every_weight_once),
        cmocka_unit_test(tensors_used_as_one_matrix_touch),
        cmocka_unit_test(initial_weights_have_the_asked_spread_in_any_world),
        cmocka_unit_test(rope_frequencies_are_those_of_llama_3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
