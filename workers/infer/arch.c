#include "workers/infer/arch.h"

#include <stdio.h>
#include <string.h>

/* What decoders call the same since Llama; a family adds its norms. */
#define DECODER_NAMES                                                                              \
    .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head",                  \
    .q = "model.layers.%u.self_attn.q_proj", .k = "model.layers.%u.self_attn.k_proj",              \
    .v = "model.layers.%u.self_attn.v_proj", .o = "model.layers.%u.self_attn.o_proj",              \
    .attn_in = "model.layers.%u.input_layernorm", .gate = "model.layers.%u.mlp.gate_proj",         \
    .up = "model.layers.%u.mlp.up_proj", .down = "model.layers.%u.mlp.down_proj"
#define HEAD_NORM_NAMES                                                                            \
    .q_norm = "model.layers.%u.self_attn.q_norm", .k_norm = "model.layers.%u.self_attn.k_norm"
#define DECODER                                                                                    \
    .kind = MODEL_DECODER, .norm = OPS_RMSNORM, .eps_key = "rms_norm_eps", .eps = 1e-6,            \
    .gated = true, .rope = true, .prefix = {""}

#define ENCODER_NAMES                                                                              \
    .embed = "embeddings.word_embeddings", .positions = "embeddings.position_embeddings",          \
    .types = "embeddings.token_type_embeddings", .embed_norm = "embeddings.LayerNorm",             \
    .q = "encoder.layer.%u.attention.self.query", .k = "encoder.layer.%u.attention.self.key",      \
    .v = "encoder.layer.%u.attention.self.value", .o = "encoder.layer.%u.attention.output.dense",  \
    .attn_out = "encoder.layer.%u.attention.output.LayerNorm",                                     \
    .up = "encoder.layer.%u.intermediate.dense", .down = "encoder.layer.%u.output.dense",          \
    .mlp_out = "encoder.layer.%u.output.LayerNorm"
#define ENCODER                                                                                    \
    .kind = MODEL_ENCODER, .norm = OPS_LAYERNORM, .eps_key = "layer_norm_eps", .eps = 1e-12,       \
    .post_norm = true, .qkv_bias = ARCH_BIAS_ALWAYS, .o_bias = ARCH_BIAS_ALWAYS,                   \
    .mlp_bias = ARCH_BIAS_ALWAYS

static const struct arch rows[] = {
    {.name = "BertModel", ENCODER, .prefix = {"", "bert."}, .names = {ENCODER_NAMES}},
    {
        .name = "BertForTokenClassification",
        ENCODER,
        .prefix = {"bert."},
        .of_tokens = true,
        .names = {ENCODER_NAMES, .classes = "/classifier"},
    },
    {
        .name = "BertForSequenceClassification",
        ENCODER,
        .prefix = {"bert."},
        .names = {ENCODER_NAMES, .pooler = "pooler.dense", .classes = "/classifier"},
    },
    {
        .name = "RobertaModel",
        ENCODER,
        .after_padding = true,
        .prefix = {"", "roberta."},
        .names = {ENCODER_NAMES},
    },
    {
        .name = "RobertaForTokenClassification",
        ENCODER,
        .after_padding = true,
        .prefix = {"roberta."},
        .of_tokens = true,
        .names = {ENCODER_NAMES, .classes = "/classifier"},
    },
    {
        .name = "RobertaForSequenceClassification",
        ENCODER,
        .after_padding = true,
        .prefix = {"roberta."},
        .names = {ENCODER_NAMES, .pooler = "/classifier.dense", .classes = "/classifier.out_proj"},
    },
    {
        .name = "XLMRobertaModel",
        ENCODER,
        .after_padding = true,
        .prefix = {"", "roberta."},
        .names = {ENCODER_NAMES},
    },
    {
        .name = "XLMRobertaForTokenClassification",
        ENCODER,
        .after_padding = true,
        .prefix = {"roberta."},
        .of_tokens = true,
        .names = {ENCODER_NAMES, .classes = "/classifier"},
    },
    {
        .name = "XLMRobertaForSequenceClassification",
        ENCODER,
        .after_padding = true,
        .prefix = {"roberta."},
        .names = {ENCODER_NAMES, .pooler = "/classifier.dense", .classes = "/classifier.out_proj"},
    },
    {
        .name = "LlamaForCausalLM",
        DECODER,
        .qkv_bias = ARCH_BIAS_ATTENTION,
        .o_bias = ARCH_BIAS_ATTENTION,
        .names = {DECODER_NAMES, .mlp_in = "model.layers.%u.post_attention_layernorm"},
    },
    {
        .name = "MistralForCausalLM",
        DECODER,
        .window = ARCH_WINDOW_ALL,
        .names = {DECODER_NAMES, .mlp_in = "model.layers.%u.post_attention_layernorm"},
    },
    {
        .name = "Qwen2ForCausalLM",
        DECODER,
        .window = ARCH_WINDOW_LATE,
        .qkv_bias = ARCH_BIAS_ALWAYS,
        .names = {DECODER_NAMES, .mlp_in = "model.layers.%u.post_attention_layernorm"},
    },
    {
        .name = "Qwen3ForCausalLM",
        DECODER,
        .window = ARCH_WINDOW_LATE,
        .head_dim = 128,
        .qkv_bias = ARCH_BIAS_ATTENTION,
        .o_bias = ARCH_BIAS_ATTENTION,
        .names = {DECODER_NAMES, HEAD_NORM_NAMES,
                  .mlp_in = "model.layers.%u.post_attention_layernorm"},
    },
    {
        .name = "Gemma3ForCausalLM",
        DECODER,
        .gain_plus = 1,
        .act_key = "hidden_activation",
        .rope_theta = 1000000,
        .local_theta_key = "rope_local_base_freq",
        .window = ARCH_WINDOW_PATTERN,
        .head_dim = 256,
        .tied = true,
        .embed_scaled = true,
        .query_key = "query_pre_attn_scalar",
        .qkv_bias = ARCH_BIAS_ATTENTION,
        .o_bias = ARCH_BIAS_ATTENTION,
        .names = {DECODER_NAMES, HEAD_NORM_NAMES,
                  .attn_out = "model.layers.%u.post_attention_layernorm",
                  .mlp_in = "model.layers.%u.pre_feedforward_layernorm",
                  .mlp_out = "model.layers.%u.post_feedforward_layernorm"},
    },
};

const struct arch *arch_at(uint32_t i) {
    return i < sizeof rows / sizeof *rows ? &rows[i] : NULL;
}

const struct arch *arch_find(const char *name) {
    const struct arch *a;
    for (uint32_t i = 0; (a = arch_at(i)); i++)
        if (strcmp(a->name, name) == 0) return a;
    return NULL;
}

bool arch_tensor_name(char *out, size_t out_bytes, const char *prefix, const char *pattern,
                      uint32_t layer, const char *suffix) {
    const char *hole = strstr(pattern, "%u");
    if (*pattern == '/') {
        prefix = "";
        pattern++;
    }
    int n;
    if (hole)
        n = snprintf(out, out_bytes, "%s%.*s%u%s%s", prefix, (int)(hole - pattern), pattern, layer,
                     hole + 2, suffix);
    else
        n = snprintf(out, out_bytes, "%s%s%s", prefix, pattern, suffix);
    return n >= 0 && (size_t)n < out_bytes;
}
