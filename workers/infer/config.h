/* config.h - what a Hugging Face directory says about its model, read and checked.
 *
 * From config.json: the architecture and its sizes; generation_config.json: the ids that end a
 * text; modules.json with its pooling module and sentence_bert_config.json: how an encoder makes
 * one vector of a text. A feature that the engine lacks (a rope_scaling, an activation, a Dense
 * module) is refused by name, never ignored.
 *
 * Units: tokens, elements.  Owner: a plain struct; arch is a constant.  Memory: none.
 * Errors: -errno, ERR_FIELD, ERR_LIMIT, -ENOTSUP, -ENOMEM with file and field in err.  Threads:
 * any. */
#ifndef PENSTOCK_WORKERS_INFER_CONFIG_H
#define PENSTOCK_WORKERS_INFER_CONFIG_H

#include "workers/infer/arch.h"
#include "workers/infer/rope.h"

#define CONFIG_EOS_MAX 8u
#define CONFIG_LAYERS_MAX 1024u

struct config {
    const struct arch *arch;
    uint32_t vocab, dim, layers, heads, kv_heads, head_dim, inner, context, types;
    double eps;
    enum ops_act act;
    bool tied;                               /* the head is the embedding */
    float embed_scale, score_scale, softcap; /* softcap 0: none */
    struct rope_plan rope[2];                /* of the layers that see all, and of the others */
    uint32_t window;                         /* keys that the others see; 0: every layer sees all */
    bool windowed[CONFIG_LAYERS_MAX];
    bool qkv_bias, o_bias, mlp_bias;
    uint32_t fp8_block[2]; /* rows and columns that share a scale */
    bool quantized;        /* matrices may be stored as stored.h says */
    /* Encoders. */
    uint32_t positions;    /* rows of the table; the first `padding + 1` are no token's */
    int64_t padding;       /* the id that has no position and takes that row; -1: none has */
    uint32_t labels;       /* classes of the head; 0: no head */
    uint32_t text_context; /* at most context */
    enum ops_pool pool;    /* mean, when the directory has no modules.json */
    bool normalize;        /* true, when it has none */
    /* Decoders. */
    uint32_t eos[CONFIG_EOS_MAX], n_eos;
    int64_t bos; /* -1: none */
};

int config_load(struct config *out, const char *dir, char *err, size_t err_bytes);

#endif
