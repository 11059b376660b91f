/* ops.h - the fused, model-level operations that every backend provides.
 *
 * Not a tensor framework: no graph, no shape inference, no model names, no allocation inside an
 * operation. A model is a list of calls to these operations; a backend (ref, cpu, cuda) is a table
 * of them. ref/ is the scalar oracle that the others are compared with.
 *
 * Layout: row-major, rows are tokens. M rows are a ragged batch of sequences (struct ops_batch).
 * Activations have the backend's own element type (ops->act: float32 on ref and cpu); callers move
 * through them with ops->act_bytes and see floats only where a signature says float. Buffers come
 * from ops->alloc and are opaque: on a GPU they are device addresses.
 *
 * Determinism (design, promise 3): the result of a row depends on that row, the weights and the
 * sequence it belongs to, never on M, on the batch around it, or on the number of threads. K is
 * summed in one fixed order; threads split rows and N only; attention walks keys in blocks at
 * absolute positions and reads K and V as stored, for the current chunk too.
 *
 * Units: elements unless a name says bytes.  Owner: the caller owns every buffer; a weight is freed
 * with weight_free and, where `borrows` is said, keeps using the source memory.  Memory: workspace
 * is passed in where an operation needs it.  Errors: opening, allocating and packing return
 * -ENOMEM, -ENOTSUP, -EINVAL with err; operations cannot fail (misuse asserts).
 * Threads: one caller at a time an ops; the backend has its own pool inside. */
#ifndef PENSTOCK_KERNELS_OPS_H
#define PENSTOCK_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* W8 and W4 are weights in groups of 8- or 4-bit numbers (struct quant). */
enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8, DTYPE_F8E4M3, DTYPE_W8, DTYPE_W4 };
static inline bool dtype_quantized(enum dtype t) {
    return t == DTYPE_W8 || t == DTYPE_W4;
}
/* Of one element; of W8 and W4, which have no such size, of a byte of theirs. */
static inline size_t dtype_bytes(enum dtype t) {
    return t == DTYPE_F32 ? 4 : t == DTYPE_F16 || t == DTYPE_BF16 ? 2 : 1;
}

/* Largest head of an attention; scratch of the backends is sized by it. Models beyond it are
 * refused. */
#define OPS_HEAD_DIM_MAX 256u
/* What sample() answers for a row whose mask leaves no token with a logit above -infinity. */
#define OPS_NO_TOKEN UINT32_MAX

enum ops_norm { OPS_RMSNORM, OPS_LAYERNORM };
enum ops_act {
    OPS_ACT_NONE,
    OPS_ACT_GELU,
    OPS_ACT_GELU_TANH,
    OPS_ACT_RELU,
    OPS_ACT_SILU,
    OPS_ACT_TANH
};
enum ops_pool { OPS_POOL_MEAN, OPS_POOL_FIRST, OPS_POOL_LAST, OPS_POOL_MAX };

/* Sequences laid end to end. The rows of sequence s are begin[s] .. begin[s + 1] - 1. */
struct ops_batch {
    uint32_t n_seq, rows;  /* rows == begin[n_seq] */
    const uint32_t *begin; /* [n_seq + 1] */
    const uint32_t *pos;   /* [rows] absolute position of each row in its sequence */
    /* Only with a cache: */
    /* [n_seq] tokens cached once this batch is written (its own included) */
    const uint32_t *kv_len;
    const uint32_t *pages; /* [n_seq][pages_max] block table: page numbers in the pool */
    uint32_t pages_max;
};

/* One layer of a paged KV pool. A page is [K|V][kv_head][token][head_dim] for each layer, with a
 * scale a row behind it where it is int8 (kv.h); page p of this layer starts at
 * pool + p * page_bytes + layer_bytes. */
struct ops_kv {
    void *pool;
    size_t page_bytes, layer_bytes;
    uint32_t page_tokens, kv_heads, head_dim;
    enum dtype dtype; /* F32, BF16 or I8 (kv.h): as stored, so as read */
};

/* A quantized matrix [n][k], row-major: the source of a weight of DTYPE_W8 or DTYPE_W4. Each row
 * has a scale and a zero point for every `group` of k (the last group may be shorter):
 *   value = scale[n][k / group] * (Q - zero[n][k / group])
 * where Q is the byte of W8, and 16 times the nibble of W4: a zero point of W4 counts in sixteenths
 * of its step. Scales are bf16 and taken as they are, so whoever chose q must have done so with the
 * rounded scale; bf16 has the range of float32, so that no weight is too small for it (f16 would be
 * subnormal below 6e-5, the steps of weights of 0.008).
 *
 * Activations meet such weights as signed bytes X, each row of x quantized by these same groups:
 *   scale_x = max |x| / 127,  X = round to even(x * (127 / max |x|)),
 * or both zero where max |x| is at most 2^-100. The sum of an output runs over the groups in order:
 *   y = fma(float(sum X * (Q - zero)), scale * scale_x, y), from y = 0, in float32.
 * The sum inside is an exact integer below 2^22, so y has the same bits at every level of every
 * backend. A row with a NaN or an infinity in it gives no finite y where that group is. */
struct quant {
    uint32_t group;        /* 32, 64 or 128 */
    const uint8_t *q;      /* W8: [n][k]; W4: [n][(k + 1) / 2], even k in the low nibble */
    const uint16_t *scale; /* [n][groups], groups = (k + group - 1) / group; bf16 */
    const uint8_t *zero;   /* [n][groups], or NULL: all 128 */
};

/* A matrix [n][k] packed for the backend's GEMM, with y[n] = sum_k x[k] * w[n][k]. */
struct weight {
    uint32_t n, k; /* of a pair: n rows of gate and n of up */
    enum dtype dtype;
    bool pair;
    bool zeros;       /* W8, W4: it has zero points */
    uint32_t group;   /* W8, W4; else 0 */
    size_t bytes;     /* of data */
    const void *data; /* in the layout that ops->layout names, 64-byte aligned on cpu */
    void *owned;      /* what weight_free releases; NULL: borrows the source */
};

struct embed_args { /* out[r] = table[id[r]] * scale (+ positions[pos[r]]) (+ types[0]) */
    uint32_t rows, dim;
    const uint32_t *id;  /* [rows], each below the table's rows (checked by the caller) */
    const uint32_t *pos; /* [rows], or NULL without positions */
    const void *table, *positions, *type0; /* [vocab][dim], [context][dim] or NULL, [dim] or NULL */
    enum dtype dtype;                      /* of the three tables */
    float scale;
    void *out; /* act [rows][dim] */
};
struct norm_args { /* s = x (+ delta); sum = s; out = norm(s) * gamma (+ beta) */
    uint32_t rows, dim;
    enum ops_norm kind;
    float eps;
    const void *x, *delta;     /* act [rows][dim]; delta may be NULL */
    void *sum, *out;           /* act [rows][dim]; sum may be NULL or x; out may be x */
    const float *gamma, *beta; /* [dim]; beta may be NULL */
};
struct linear_args { /* y = act(x w^T + bias (+ add)) (+ residual) */
    uint32_t rows;
    const void *x; /* act [rows][w->k]; never y */
    const struct weight *w;
    const float *bias; /* [w->n] or NULL */
    const void *add;   /* act [rows - add_from][w->n], of the rows from add_from on; or NULL */
    uint32_t add_from;
    enum ops_act act;
    const void *residual; /* act [rows][w->n] or NULL; may be y */
    void *y;              /* act [rows][w->n]; y_f32 instead when that is set */
    float *y_f32;         /* logits: [rows][w->n] in float on every backend, or NULL */
};
struct gated_args { /* y = act(x gate^T (+ add)) * (x up^T (+ add)) */
    uint32_t rows;
    const void *x;                /* act [rows][k] */
    const struct weight *gate_up; /* from weight_pack_pair: n is the width of y */
    const void *add; /* act [rows - add_from][2 n], gate before up; or NULL, as in linear_args */
    uint32_t add_from;
    enum ops_act act;
    void *y; /* act [rows][n] */
};
struct rope { /* rotates halves: (i, i + head_dim/2), as Hugging Face lays weights out */
    const float *cos, *sin; /* [context][head_dim / 2]; NULL: no rotation */
};
/* From rows of [q heads | k heads | v heads]: norm and rotate q and k, write k and v. */
struct qkv_args {
    const struct ops_batch *batch;
    uint32_t heads, kv_heads, head_dim;
    void *qkv; /* act [rows][(heads + 2 kv_heads) * head_dim]; q is updated in place */
    struct rope rope;
    const float *q_gamma, *k_gamma; /* [head_dim] RMSNorm of each head, or NULL */
    float eps;
    /* written at pos[]; pool NULL (encoders): k and v are updated in place instead */
    struct ops_kv kv;
};
struct attend_args { /* softmax(q k^T * scale) v for each head */
    const struct ops_batch *batch;
    uint32_t heads, kv_heads, head_dim;
    const void *qkv;  /* act [rows][(heads + 2 kv_heads) * head_dim]; q is read here, */
    struct ops_kv kv; /* k and v from the pages; pool NULL: from the rows of the sequence, beside */
                      /* its q, where a row's place in its sequence counts instead of pos[] */
    bool causal;      /* false: every row of a sequence sees all of it */
    uint32_t window;  /* keys with pos_q - pos_k < window; 0: all */
    float scale, softcap; /* softcap 0: none */
    void *out;            /* act [rows][heads * head_dim] */
};
struct pool_args { /* one vector for each sequence */
    const struct ops_batch *batch;
    uint32_t dim;
    enum ops_pool kind;
    bool normalize; /* to unit length */
    const void *x;  /* act [rows][dim] */
    float *out;     /* [n_seq][dim], host-visible after ops->sync */
};
struct gather_args { /* out[i] = x[row[i]]: the rows that need logits */
    uint32_t rows, dim;
    const uint32_t *row; /* [rows] */
    const void *x;
    void *out; /* act [rows][dim] */
};
/* A token that the text has already: in its prompt, or `count` times in what was written. */
struct sample_seen {
    uint32_t id, count;
};
struct sample_top {
    uint32_t id;
    float logprob;
};
/* The logit of a token under the penalties: divided by `repetition` where it is positive and
 * multiplied where it is negative, then less `presence` and `frequency` for each time it was
 * written. */
static inline float sample_penalized(float logit, struct sample_seen s, float repetition,
                                     float presence, float frequency) {
    if (repetition > 0) logit = logit < 0 ? logit * repetition : logit / repetition;
    return s.count ? logit - presence - frequency * (float)s.count : logit;
}
/* Mask, penalties, temperature, top_k, top_p of what top_k left, min_p, in this order (that of
 * Hugging Face transformers). Candidates are ranked by logit, equals by lowest id, and the draw
 * walks down that rank; NaN and -infinity are never drawn. */
struct sample_row {
    float temperature;               /* 0: greedy, the lowest id among equals */
    float top_p;                     /* 1: all */
    float min_p;                     /* of the best one's probability; 0: all */
    uint32_t top_k;                  /* 0: all */
    uint64_t seed, stream, position; /* base/rng.h draws number (seed, stream, position) */
    const uint32_t *mask;            /* one bit a token, 1 legal; NULL: all legal */
    /* Tokens under penalties, ids ascending and below the vocabulary; none: no penalties. */
    const struct sample_seen *seen;
    uint32_t n_seen;
    float repetition, presence, frequency; /* repetition 0 or 1: none */
    uint32_t top_n;                        /* how many of the most likely go into sample_args.top */
};
struct sample_args {
    uint32_t rows, vocab;
    const float *logits;          /* [rows][vocab]; with `at`: of any number of rows */
    const struct sample_row *row; /* [rows] */
    void *workspace;              /* ops->sample_bytes(vocab) */
    uint32_t *token;              /* [rows], host-visible after ops->sync */
    /* Under temperature 1, no mask and no penalties: of the chosen token, [rows] or NULL, and of
     * each row's top_n most likely, [rows][top_stride] or NULL; places beyond the vocabulary have
     * the id OPS_NO_TOKEN. */
    float *logprob;
    struct sample_top *top;
    uint32_t top_stride;
    const uint32_t *at; /* [rows] which row of logits each draws from; NULL: its own */
};

struct ops {
    const char *backend;     /* "ref", "cpu" */
    const char *numerics_id; /* "cpu-avx512-f32-1": what must be equal for bits to be equal */
    const char *layout;      /* of packed weights: equal names, equal bytes */
    enum dtype act;
    size_t act_bytes;
    uint32_t threads;
    bool host; /* its buffers are plain memory: constants may be borrowed instead of uploaded */

    /* 64-byte aligned, zeroed; NULL without memory. */
    void *(*alloc)(struct ops *o, size_t bytes);
    void (*free)(struct ops *o, void *buffer);
    void (*upload)(struct ops *o, void *to, const void *from, size_t bytes);
    void (*download)(struct ops *o, void *to, const void *from, size_t bytes);
    void (*sync)(struct ops *o);

    /* source: row-major [n][k] of dtype, which ref and cpu may borrow until weight_free. Packing
     * decides the stored type: `want` is DTYPE_F32 or DTYPE_BF16 (others: -ENOTSUP). With a dtype
     * of DTYPE_W8 or DTYPE_W4 each source is a struct quant, read here only, `want` is the dtype
     * itself, and all sources have the same group. */
    int (*weight_pack)(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *source,
                       enum dtype dtype, enum dtype want, char *err, size_t err_bytes);
    /* Several sources stacked along n: q, k and v as one. */
    int (*weight_pack_stack)(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n,
                             uint32_t k, const void *const *source, enum dtype dtype,
                             enum dtype want, char *err, size_t err_bytes);
    /* gate and up, interleaved as gated() wants them. */
    int (*weight_pack_pair)(struct ops *o, struct weight *w, uint32_t n, uint32_t k,
                            const void *gate, const void *up, enum dtype dtype, enum dtype want,
                            char *err, size_t err_bytes);
    void (*weight_free)(struct ops *o, struct weight *w);
    /* A weight that was packed before, from its bytes as they were at w->data. The caller fills in
     * n, k, dtype, pair, zeros, group; image, aligned to 64 bytes, stays until weight_free.
     * -EINVAL unless `bytes` is what such a weight has; the layout is the caller's to compare. */
    int (*weight_borrow)(struct ops *o, struct weight *w, const void *image, size_t bytes,
                         char *err, size_t err_bytes);

    void (*embed)(struct ops *o, const struct embed_args *a);
    void (*norm)(struct ops *o, const struct norm_args *a);
    void (*linear)(struct ops *o, const struct linear_args *a);
    void (*gated)(struct ops *o, const struct gated_args *a);
    void (*qkv)(struct ops *o, const struct qkv_args *a);
    void (*attend)(struct ops *o, const struct attend_args *a);
    void (*pool)(struct ops *o, const struct pool_args *a);
    void (*gather)(struct ops *o, const struct gather_args *a);
    size_t (*sample_bytes)(struct ops *o, uint32_t vocab);
    void (*sample)(struct ops *o, const struct sample_args *a);
    void (*close)(struct ops *o);
};

struct ops_config {
    const char *backend; /* "auto" (the best here), "ref", "cpu" */
    /* cpu: "auto", "avx512bf16", "avx512" (with VNNI), "avx2", "plain"; refused where lacking */
    const char *level;
    uint32_t threads; /* 0: one a core */
};
int ops_open(struct ops **out, const struct ops_config *c, char *err, size_t err_bytes);
void ops_close(struct ops *o); /* NULL is fine */

#endif
