/* arch.h - what sets one family of transformers apart, as a row of data.
 *
 * A row says which fused operations a layer is made of (kind and place of the norms, gated or plain
 * MLP, learned or rotary positions, biases) and what its tensors are called. config.c reads
 * config.json for it, weights.c loads what it names, forward.c runs it; none of them knows a
 * model's name. A new family of these shapes is one more row.
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

/* Names without ".weight" and ".bias"; %u stands for the layer. NULL: the family has none. */
struct arch_names {
    const char *embed, *positions, *types, *embed_norm, *final_norm, *head;
    const char *q, *k, *v, *o, *attn_norm;
    const char *gate, *up, *down, *mlp_norm;
};

struct arch {
    const char *name; /* architectures[0] of config.json */
    enum model_kind kind;
    enum ops_norm norm;
    const char *eps_key; /* of config.json */
    double eps;          /* without that key */
    bool post_norm;      /* each norm follows its residual sum; else it precedes its block */
    bool gated;          /* MLP: down(act(gate x) * up x); else down(act(up x)) */
    bool rope;           /* else learned positions */
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
