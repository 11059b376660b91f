/* weights.h - the tensors of a model, checked and packed for a backend.
 *
 * Every tensor that the architecture names is looked up, its shape compared with config.json, its
 * values scanned (a NaN or an infinity refuses the model, naming the tensor), and packed. Gains and
 * biases are uploaded; embedding tables too, unless the backend computes in plain memory: then they
 * are borrowed from the file, of which a lookup touches a row. Matrices go through
 * ops->weight_pack, those of fp8 widened, those to be quantized quantized before, and quantized
 * ones as they are. With packed weights of an earlier load neither the matrices nor the tables are
 * read.
 *
 * Units: elements.  Owner: weights_load fills what weights_fini frees, partly loaded too; matrices
 * and tables may borrow from the safetensors and from the packed weights until then.
 * Memory: the packed weights; what was read of the files is given back as soon as it is packed.
 * Errors: ERR_FIELD, ERR_CORRUPT, -ENOTSUP, -ENOMEM with err.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_WEIGHTS_H
#define PENSTOCK_WORKERS_INFER_WEIGHTS_H

#include "kernels/ops.h"
#include "workers/infer/config.h"

struct packed; /* workers/infer/packed.h */
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
    bool borrows_tables;
    float **kept; /* [n_kept] matrices made float32, which packed ones borrow */
    uint32_t n_kept;
    uint64_t parameters; /* elements of the tensors that were taken */
};

/* What stands in front of all names of a family in these files. */
const char *weights_prefix(const struct arch *a, const struct safetensors *st);
/* Where weights come from and what they become. */
struct weights_source {
    const struct safetensors *tensors;
    enum dtype want;       /* F32, BF16, W8, W4 */
    enum dtype stored;     /* of a quantized model: W8 or W4, as its files say */
    bool widen;            /* quantized matrices become `want` too, else they stay as they are */
    struct packed *packed; /* what an earlier load of the same made; NULL: none */
};
int weights_load(struct weights *w, struct ops *ops, const struct weights_source *from,
                 const struct config *c, char *err, size_t err_bytes);
void weights_fini(struct weights *w); /* accepts zeroed memory */
/* The packed matrices in the order in which they are loaded; out holds weights_most of them. */
static inline uint32_t weights_most(const struct weights *w) {
    return 4 * w->layers + 3;
}
uint32_t weights_list(const struct weights *w, const struct weight **out);

#endif
