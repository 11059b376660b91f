/* arch.h - what sets one family of transformers apart, as a row of data.
 *
 * A row says which fused operations a layer is made of (kind and places of the norms, gated or
 * plain MLP, learned or rotary positions, windows, biases) and what its tensors are called.
 * config.c reads config.json for it, weights.c loads what it names, forward.c runs it; none of them
 * knows a model's name. A new family of these shapes is one more row.
 *
 * Units, owner, memory, errors: none; the rows are constants.  Threads: any. */
#ifndef PENSTOCK_WORKERS_INFER_ARCH_H
#define PENSTOCK_WORKERS_INFER_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "workers/infer/model.h"

enum arch_bias {
    ARCH_BIAS_NONE,
    ARCH_BIAS_ALWAYS,
    ARCH_BIAS_ATTENTION /* when config.json's attention_bias is true */
};

/* Which layers see a window of keys only, where config.json has a sliding_window but no
 * layer_types to say so itself. */
enum arch_window {
    ARCH_WINDOW_NEVER,
    ARCH_WINDOW_ALL,
    ARCH_WINDOW_LATE,   /* with use_sliding_window: those from max_window_layers on */
    ARCH_WINDOW_PATTERN /* all but each sliding_window_pattern-th */
};

/* Names without ".weight" and ".bias"; %u stands for the layer, a leading slash for "without the
 * prefix". NULL: the family has none. attn_in and mlp_in norm what goes into a block, attn_out and
 * mlp_out what comes out of it (or, with post_norm, its sum with the residual stream). */
struct arch_names {
    const char *embed, *positions, *types, *embed_norm, *final_norm, *head;
    const char *q, *k, *v, *o, *q_norm, *k_norm, *attn_in, *attn_out;
    const char *gate, *up, *down, *mlp_in, *mlp_out;
    const char *pooler, *classes; /* heads of encoders: dense with tanh, then the classes */
};

struct arch {
    const char *name; /* architectures[0] of config.json */
    enum model_kind kind;
    enum ops_norm norm;
    const char *eps_key; /* of config.json */
    double eps;          /* without that key */
    float gain_plus;     /* added to the gains of all norms: 1 where they are stored around 0 */
    bool post_norm;      /* each norm follows its residual sum; else it belongs to its block */
    const char *act_key; /* of config.json; NULL: hidden_act */
    bool gated;          /* MLP: down(act(gate x) * up x); else down(act(up x)) */
    bool rope;           /* else learned positions, */
    bool after_padding;  /* whose first row is the one after pad_token_id */
    bool of_tokens;      /* the classes are those of each token; else of the text's first */
    double rope_theta;   /* without that key; 0: 10000 */
    const char *local_theta_key; /* layers with a window rotate by a base of their own; NULL: not */
    enum arch_window window;
    uint32_t head_dim;     /* without that key; 0: hidden_size / num_attention_heads */
    bool tied;             /* without tie_word_embeddings */
    bool embed_scaled;     /* by the root of hidden_size */
    const char *query_key; /* scores are divided by the root of this key; NULL: of head_dim */
    enum arch_bias qkv_bias, o_bias, mlp_bias;
    const char *prefix[3]; /* tried in turn in front of every name; ends with NULL */
    struct arch_names names;
};

const struct arch *arch_at(uint32_t i);         /* NULL past the end */
const struct arch *arch_find(const char *name); /* NULL: unknown */

/* prefix, pattern with its %u replaced by layer, suffix; false when it does not fit. */
bool arch_tensor_name(char *out, size_t out_bytes, const char *prefix, const char *pattern,
                      uint32_t layer, const char *suffix);

#endif
