/* rows_body.h - what is done row by row: norm, embedding, q/k norm and rotation, pooling, and the
 * two sums of the sampler; compiled once per level.
 *
 * A sum over a row goes through sixteen lanes (sixty-four where it is long), each in order, and the
 * lanes are folded in a fixed tree.
 *
 * Units: elements.  Owner: level_*.c include this once.  Memory, errors: none.  Threads: any. */
#ifndef PENSTOCK_KERNELS_CPU_ROWS_BODY_H
#define PENSTOCK_KERNELS_CPU_ROWS_BODY_H

#include "kernels/cpu/level.h"
#include "kernels/cpu/v16.h"
#include "kernels/kv.h"
#include "kernels/source.h"

#define FOR_PANELS(i, n, count)                                                                    \
    for (uint32_t i = 0, n; n = (count)-i < PANEL ? (count)-i : PANEL, i < (count); i += PANEL)

/* Sum of x, or of (x - mean)^2. Lanes beyond count must not count: they are read as the mean. */
V_INLINE float row_sum(const float *x, uint32_t count, bool square, float mean) {
    v16 lanes[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    FOR_PANELS(i, n, count) {
        v16 v = v_load_part(x + i, n), *to = &lanes[i / PANEL % 4];
        if (square) {
            v = v_between(v_sub(v, v_all(mean)), v_zero(), 0, n);
            *to = v_fma(v, v, *to);
        } else {
            *to = v_add(*to, v);
        }
    }
    return v_sum(v_add(v_add(lanes[0], lanes[1]), v_add(lanes[2], lanes[3])));
}

static void norm_row(const struct norm_args *a, const float *s, float *out) {
    float count = (float)a->dim;
    float mean = a->kind == OPS_LAYERNORM ? row_sum(s, a->dim, false, 0) / count : 0;
    float scale = 1 / sqrtf(row_sum(s, a->dim, true, mean) / count + a->eps);
    FOR_PANELS(i, n, a->dim) {
        v16 gain = v_load_part(a->gamma + i, n);
        v16 y = v_mul(v_mul(v_sub(v_load_part(s + i, n), v_all(mean)), v_all(scale)), gain);
        if (a->beta) y = v_add(y, v_load_part(a->beta + i, n));
        v_store_part(out + i, y, n);
    }
}

static void norm(const struct norm_args *a, uint32_t row_begin, uint32_t row_end) {
    for (size_t r = row_begin; r < row_end; r++) {
        const float *x = (const float *)a->x + r * a->dim, *s = x;
        float *out = (float *)a->out + r * a->dim;
        float *sum = a->sum ? (float *)a->sum + r * a->dim : a->delta ? out : NULL;
        if (sum) {
            const float *delta = a->delta ? (const float *)a->delta + r * a->dim : NULL;
            FOR_PANELS(i, n, a->dim) {
                v16 v = v_load_part(x + i, n);
                v_store_part(sum + i, delta ? v_add(v, v_load_part(delta + i, n)) : v, n);
            }
            s = sum;
        }
        norm_row(a, s, out);
    }
}

V_INLINE v16 load_table(const void *table, enum dtype dtype, size_t at, uint32_t n) {
    if (dtype == DTYPE_F32) return v_load_part((const float *)table + at, n);
    if (dtype == DTYPE_BF16) return v_load_bf16_part((const uint16_t *)table + at, n);
    float wide[PANEL] = {0};
    for (uint32_t i = 0; i < n; i++) wide[i] = source_element(table, dtype, at + i);
    return v_load(wide);
}

static void embed(const struct embed_args *a, uint32_t row_begin, uint32_t row_end) {
    for (uint32_t r = row_begin; r < row_end; r++) FOR_PANELS(i, n, a->dim) {
            v16 x = v_mul(load_table(a->table, a->dtype, (size_t)a->id[r] * a->dim + i, n),
                          v_all(a->scale));
            if (a->positions)
                x = v_add(x, load_table(a->positions, a->dtype, (size_t)a->pos[r] * a->dim + i, n));
            if (a->type0) x = v_add(x, load_table(a->type0, a->dtype, i, n));
            v_store_part((float *)a->out + (size_t)r * a->dim + i, x, n);
        }
}

/* Normalizes (where gamma is given) and rotates one head in place. */
static void turn_head(const struct qkv_args *a, float *x, const float *gamma, uint32_t pos) {
    uint32_t dim = a->head_dim, half = dim / 2;
    if (gamma) {
        v16 scale = v_all(1 / sqrtf(row_sum(x, dim, true, 0) / (float)dim + a->eps));
        FOR_PANELS(i, n, dim)
        v_store_part(x + i, v_mul(v_mul(v_load_part(x + i, n), scale), v_load_part(gamma + i, n)),
                     n);
    }
    if (!a->rope.cos) return;
    const float *cosines = a->rope.cos + (size_t)pos * half,
                *sines = a->rope.sin + (size_t)pos * half;
    FOR_PANELS(i, n, half) {
        v16 c = v_load_part(cosines + i, n), s = v_load_part(sines + i, n);
        v16 left = v_load_part(x + i, n), right = v_load_part(x + half + i, n);
        v_store_part(x + i, v_sub(v_mul(left, c), v_mul(right, s)), n);
        v_store_part(x + half + i, v_add(v_mul(right, c), v_mul(left, s)), n);
    }
}

/* kv_write where it pays to be fast; the bits are the same. */
V_INLINE void cache_head(const struct qkv_args *a, uint32_t seq, uint32_t pos, bool value,
                         uint32_t head, const float *x) {
    const struct ops_kv *kv = &a->kv;
    if (kv->dtype != DTYPE_BF16) {
        kv_write(kv, a->batch, seq, pos, value, head, x);
        return;
    }
    uint16_t *to = (uint16_t *)(void *)kv_page(kv, a->batch, seq, pos) +
                   kv_row(kv, pos, value, head) * kv->head_dim;
    FOR_PANELS(i, n, kv->head_dim) v_store_bf16_part(to + i, v_load_part(x + i, n), n);
}

static void qkv(const struct qkv_args *a, uint32_t seq, uint32_t row_begin, uint32_t row_end) {
    uint32_t dim = a->head_dim;
    for (uint32_t r = row_begin; r < row_end; r++) {
        float *q = (float *)a->qkv + (size_t)r * (a->heads + 2 * a->kv_heads) * dim;
        float *k = q + (size_t)a->heads * dim, *v = k + (size_t)a->kv_heads * dim;
        uint32_t pos = a->batch->pos[r];
        for (uint32_t h = 0; h < a->heads; h++) turn_head(a, q + (size_t)h * dim, a->q_gamma, pos);
        for (uint32_t h = 0; h < a->kv_heads; h++) {
            turn_head(a, k + (size_t)h * dim, a->k_gamma, pos);
            if (!a->kv.pool) continue;
            cache_head(a, seq, pos, false, h, k + (size_t)h * dim);
            cache_head(a, seq, pos, true, h, v + (size_t)h * dim);
        }
    }
}

static void pool(const struct pool_args *a, uint32_t seq) {
    uint32_t begin = a->batch->begin[seq], rows = a->batch->begin[seq + 1] - begin;
    const float *x = (const float *)a->x + (size_t)begin * a->dim;
    float *out = a->out + (size_t)seq * a->dim;
    if (a->kind == OPS_POOL_LAST) x += (size_t)(rows - 1) * a->dim;
    FOR_PANELS(i, n, a->dim) {
        v16 v = v_load_part(x + i, n);
        if (a->kind == OPS_POOL_MEAN) {
            for (size_t r = 1; r < rows; r++) v = v_add(v, v_load_part(x + r * a->dim + i, n));
            v = v_div(v, v_all((float)rows));
        } else if (a->kind == OPS_POOL_MAX) {
            for (size_t r = 1; r < rows; r++) v = v_max(v, v_load_part(x + r * a->dim + i, n));
        }
        v_store_part(out + i, v, n);
    }
    float length = a->normalize ? sqrtf(row_sum(out, a->dim, true, 0)) : 0;
    if (length > 0) FOR_PANELS(i, n, a->dim)
    v_store_part(out + i, v_div(v_load_part(out + i, n), v_all(length)), n);
}

static float most(const float *x, uint32_t count) {
    v16 high = v_all(-INFINITY);
    FOR_PANELS(i, n, count)
    high = v_max(v_between(v_load_part(x + i, n), v_all(-INFINITY), 0, n), high);
    return v_most(high);
}

static void weights(const float *x, uint32_t count, float high, float temperature, float *weight) {
    FOR_PANELS(i, n, count) {
        v16 v = v_div(v_sub(v_load_part(x + i, n), v_all(high)), v_all(temperature));
        v_store_part(weight + i, v_exp(v), n);
    }
}

#endif
