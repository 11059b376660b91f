/* weights.h - the tensors of a model, checked and packed for a backend.
 *
 * Every tensor that the architecture names is looked up, its shape compared with config.json, its
 * values scanned (a NaN or an infinity refuses the model, naming the tensor), and packed. Gains,
 * biases and embedding tables are uploaded; matrices go through ops->weight_pack, those of fp8
 * widened before.
 *
 * Units: elements.  Owner: weights_load fills what weights_fini frees, partly loaded too; matrices
 * may borrow from the safetensors until then.  Memory: the packed weights.
 * Errors: ERR_FIELD, ERR_CORRUPT, -ENOTSUP, -ENOMEM with err.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_WEIGHTS_H
#define PENSTOCK_WORKERS_INFER_WEIGHTS_H

#include "kernels/ops.h"
#include "workers/infer/config.h"

struct safetensors;

struct weights_norm {
    float *gamma, *beta; /* [dim]; beta NULL for RMSNorm */
};
struct weights_layer {
    struct weight qkv;                              /* [(heads + 2 kv_heads) * head_dim][dim] */
    struct weight o;                                /* [dim][heads * head_dim] */
    struct weight up;                               /* [inner][dim]; gated: gate and up as a pair */
    struct weight down;                             /* [dim][inner] */
    float *qkv_bias, *o_bias, *up_bias, *down_bias; /* NULL: none */
    float *q_gamma, *k_gamma;                       /* [head_dim], or NULL */
    struct weights_norm attn_in, attn_out, mlp_in, mlp_out; /* gamma NULL: none */
};
struct weights {
    struct ops *ops;
    void *embed, *positions,
        *types;             /* [vocab][dim], [context][dim], [types][dim]; the last two or NULL */
    enum dtype embed_dtype; /* of all three */
    struct weights_norm embed_norm, final_norm; /* gamma NULL: none */
    struct weight head;                         /* [vocab][dim]; n 0: none */
    struct weight pooler, classes;              /* [dim][dim], [labels][dim]; n 0: none */
    float *pooler_bias, *classes_bias;
    struct weights_layer *layer; /* [layers] */
    uint32_t layers;
    float **kept; /* [n_kept] matrices widened from fp8, which packed ones borrow */
    uint32_t n_kept;
    uint64_t parameters; /* elements of the tensors that were taken */
};

int weights_load(struct weights *w, struct ops *ops, const struct safetensors *st,
                 const struct config *c, enum dtype want, char *err, size_t err_bytes);
void weights_fini(struct weights *w); /* accepts zeroed memory */

#endif
