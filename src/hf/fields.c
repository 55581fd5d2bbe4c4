#include "hf/fields.h"

#define FIELD(name_, key_, field, otherwise_)                                                      \
    {                                                                                              \
        .name = name_, .key = key_, .otherwise = otherwise_,                                       \
        .type = _Generic(((ModelConfig *)0)->field, int                                            \
                         : HF_INT, int64_t                                                         \
                         : HF_INT64, double                                                        \
                         : HF_DOUBLE, bool                                                         \
                         : HF_BOOL),                                                               \
        .offset = offsetof(ModelConfig, field)                                                     \
    }
const HfField hf_fields[HF_FIELDS] = {
    FIELD("num_hidden_layers", "layers", layers, NULL),
    FIELD("hidden_size", "hidden", hidden, NULL),
    [HF_HEADS] = FIELD("num_attention_heads", "heads", heads, NULL),
    FIELD("num_key_value_heads", "kv_heads", kv_heads, ""),
    FIELD("head_dim", "head_dim", head_dim, "0"),
    FIELD("intermediate_size", "ffn", ffn, NULL),
    FIELD("vocab_size", "vocab", vocab, NULL),
    FIELD("max_position_embeddings", "seq_len", seq_len, "2048"),
    FIELD("tie_word_embeddings", "tie_embeddings", tie_embeddings, "false"),
    FIELD("rms_norm_eps", "norm_eps", norm_eps, "1e-6"),
    FIELD("initializer_range", "init_std", init_std, "0.02"),
    [HF_ROPE_THETA] = FIELD("rope_theta", "rope_theta", rope_theta, "10000"),
    [HF_SCALING] = FIELD("factor", "factor", rope_scaling.factor, NULL),
    FIELD("low_freq_factor", "low", rope_scaling.low, NULL),
    FIELD("high_freq_factor", "high", rope_scaling.high, NULL),
    FIELD("original_max_position_embeddings", "original", rope_scaling.original, NULL)};

const HfFact hf_facts[HF_FACTS] = {
    [HF_MODEL_TYPE] = {"model_type", "\"llama\"", NULL, true},
    [HF_PARTIAL_ROTARY] = {"partial_rotary_factor", "1.0", NULL, false},
    {"hidden_act", "\"silu\"", "\"swish\"", true},
    {"attention_bias", "false", NULL, true},
    {"mlp_bias", "false", NULL, true},
    {"quantization_config", "null", NULL, false}};
