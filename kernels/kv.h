/* kv.h - where a token's keys and values lie in a page of a KV pool, and as what.
 *
 * A page of one layer is [K|V][kv_head][token][head_dim] in float32, bf16 or int8. With int8 a
 * float scale for each of those rows follows, [K|V][kv_head][token]: an element is its integer
 * times the scale of its row, which is the largest magnitude of the row over 127. Every backend on
 * a host writes through kv_write, so that the same numbers give the same page.
 *
 * Units: elements, bytes where a name says so.  Owner: the pool is the caller's.  Memory, errors:
 * none.  Threads: any, each with its own tokens. */
#ifndef PENSTOCK_KERNELS_KV_H
#define PENSTOCK_KERNELS_KV_H

#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/ops.h"

/* Bytes that a token takes in a layer: its row of keys and of values for each head, and scales. */
static inline size_t kv_token_bytes(uint32_t kv_heads, uint32_t head_dim, enum dtype dtype) {
    size_t scale = dtype == DTYPE_I8 ? sizeof(float) : 0;
    return 2 * (size_t)kv_heads * (head_dim * dtype_bytes(dtype) + scale);
}

/* Row number of a token inside of its page: of its keys, or of its values. */
static inline size_t kv_row(const struct ops_kv *kv, uint32_t pos, bool value, uint32_t head) {
    return ((value ? kv->kv_heads : 0) + (size_t)head) * kv->page_tokens + pos % kv->page_tokens;
}
/* The layer's part of the page that holds token pos of sequence s. */
static inline char *kv_page(const struct ops_kv *kv, const struct ops_batch *b, uint32_t s,
                            uint32_t pos) {
    uint32_t page = b->pages[(size_t)s * b->pages_max + pos / kv->page_tokens];
    return (char *)kv->pool + page * kv->page_bytes + kv->layer_bytes;
}
static inline char *kv_scale_at(const struct ops_kv *kv, char *page, size_t row) {
    size_t rows = 2 * (size_t)kv->kv_heads * kv->page_tokens;
    return page + rows * kv->head_dim + row * sizeof(float);
}
static inline float kv_scale(const struct ops_kv *kv, char *page, size_t row) {
    float scale = 1;
    if (kv->dtype == DTYPE_I8) memcpy(&scale, kv_scale_at(kv, page, row), sizeof scale);
    return scale;
}

/* x [head_dim] as int8; a row with something that is not finite becomes NaN. */
static inline void kv_write_i8(int8_t *to, char *scale_at, const float *x, uint32_t n) {
    float most = 0, poison = 0;
    for (uint32_t i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
        poison += size * 0;
    }
    float scale = most / 127 + poison, inverse = most > 0 && poison == 0 ? 127 / most : 0;
    if (!(inverse <= 3e38f)) scale = inverse = 0; /* a subnormal row has no inverse: it is zero */
    memcpy(scale_at, &scale, sizeof scale);
    for (uint32_t i = 0; i < n; i++) /* to the nearest integer, ties to even; 1 carries a NaN */
        to[i] = poison == 0 ? (int8_t)(x[i] * inverse + 0x1.8p23f - 0x1.8p23f) : 1;
}

/* Writes k or v of one head of a token, x [head_dim]. */
static inline void kv_write(const struct ops_kv *kv, const struct ops_batch *b, uint32_t s,
                            uint32_t pos, bool value, uint32_t head, const float *x) {
    char *page = kv_page(kv, b, s, pos);
    size_t row = kv_row(kv, pos, value, head);
    char *to = page + row * kv->head_dim * dtype_bytes(kv->dtype);
    if (kv->dtype == DTYPE_F32)
        memcpy(to, x, kv->head_dim * sizeof *x);
    else if (kv->dtype == DTYPE_I8)
        kv_write_i8((int8_t *)to, kv_scale_at(kv, page, row), x, kv->head_dim);
    else
        for (uint32_t i = 0; i < kv->head_dim; i++)
            ((uint16_t *)(void *)to)[i] = bf16_of_float(x[i]);
}

static inline bool kv_dtype_known(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_I8;
}

#endif
