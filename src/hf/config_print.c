/* config_print.c: config.json and generation_config.json of an export. */
#include "hf/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As Python's repr: the shortest text that reads back to v, and never without a point or an
 * exponent, because transformers tells floats from integers. */
static void print_double(double v, const char *key, StrBuf *out) {
    char text[40];
    int digits = 0, exponent;
    do snprintf(text, sizeof text, "%.*e", digits, v);
    while (strtod(text, NULL) != v && ++digits < 17);
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16)
        snprintf(text, sizeof text, "%.*f", exponent < digits ? digits - exponent : 1, v);
    strbuf_printf(out, "\"%s\": %s", key, text);
}

static void print_id(int64_t id, const char *key, StrBuf *out) {
    if (id >= 0)
        strbuf_printf(out, "  \"%s\": %lld,\n", key, (long long)id);
    else
        strbuf_printf(out, "  \"%s\": null,\n", key);
}

/* A list when there are several. */
static void print_eos(const HfExtra *extra, StrBuf *out) {
    if (extra->n_eos < 2) {
        print_id(extra->n_eos > 0 ? extra->eos[0] : -1, "eos_token_id", out);
        return;
    }
    strbuf_printf(out, "  \"eos_token_id\": [");
    for (int i = 0; i < extra->n_eos; i++)
        strbuf_printf(out, "%s\n    %lld", i > 0 ? "," : "", (long long)extra->eos[i]);
    strbuf_printf(out, "\n  ],\n");
}

/* Sorted by name, as transformers does. rope_theta and rope_scaling have the place that
 * transformers 4 knows and 5 still reads. Ids that are not known must be null, not left to
 * LlamaConfig's defaults. The version names the form; without one, or with a later one of
 * transformers 4, it warns of a "wrong regex" in any tokenizer of over 100,000 ids, and its advice
 * would change the ids. */
void hf_config_print(const Config *c, const HfExtra *extra, Dtype dtype, StrBuf *out) {
    const ModelConfig *m = &c->model;
    const char *type = dtype == DT_BF16 ? "bfloat16" : "float32";
    strbuf_printf(out, "{\n  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n"
                       "  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n");
    print_id(extra->bos, "bos_token_id", out);
    strbuf_printf(out, "  \"dtype\": \"%s\",\n", type);
    print_eos(extra, out);
    strbuf_printf(out,
                  "  \"head_dim\": %d,\n  \"hidden_act\": \"silu\",\n  \"hidden_size\": %d,\n  ",
                  m->head_dim, m->hidden);
    print_double(m->init_std, "initializer_range", out);
    strbuf_printf(out,
                  ",\n  \"intermediate_size\": %d,\n  \"max_position_embeddings\": %lld,\n"
                  "  \"mlp_bias\": false,\n  \"model_type\": \"llama\",\n"
                  "  \"num_attention_heads\": %d,\n  \"num_hidden_layers\": %d,\n"
                  "  \"num_key_value_heads\": %d,\n",
                  m->ffn, (long long)extra->max_positions, m->heads, m->layers, m->kv_heads);
    if (extra->pad >= 0) print_id(extra->pad, "pad_token_id", out);
    strbuf_printf(out, "  \"pretraining_tp\": 1,\n  ");
    print_double(m->norm_eps, "rms_norm_eps", out);
    if (m->rope_scaling.factor != 1) {
        strbuf_printf(out, ",\n  \"rope_scaling\": {\n    ");
        print_double(m->rope_scaling.factor, "factor", out);
        strbuf_printf(out, ",\n    ");
        print_double(m->rope_scaling.high, "high_freq_factor", out);
        strbuf_printf(out, ",\n    ");
        print_double(m->rope_scaling.low, "low_freq_factor", out);
        strbuf_printf(out,
                      ",\n    \"original_max_position_embeddings\": %lld,\n"
                      "    \"rope_type\": \"llama3\"\n  },\n  ",
                      (long long)m->rope_scaling.original);
    } else {
        strbuf_printf(out, ",\n  \"rope_scaling\": null,\n  ");
    }
    print_double(m->rope_theta, "rope_theta", out);
    strbuf_printf(out,
                  ",\n  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\",\n"
                  "  \"transformers_version\": \"4.57.1\",\n"
                  "  \"use_cache\": true,\n  \"vocab_size\": %d\n}\n",
                  m->tie_embeddings ? "true" : "false", type, m->vocab);
}

void hf_generation_print(const HfExtra *extra, StrBuf *out) {
    strbuf_printf(out, "{\n  \"_from_model_config\": true,\n");
    if (extra->bos >= 0) print_id(extra->bos, "bos_token_id", out);
    if (extra->n_eos > 0) print_eos(extra, out);
    if (extra->pad >= 0) print_id(extra->pad, "pad_token_id", out);
    out->len -= 2; /* the last entry has no comma */
    strbuf_printf(out, "\n}\n");
}
