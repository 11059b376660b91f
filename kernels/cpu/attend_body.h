/* attend_body.h - flash-style attention in blocks of keys; compiled once per level.
 *
 * A query walks its keys in blocks of 64 at absolute positions and keeps a running maximum, total
 * and weighted sum. Inside a block the score of a key is one chain over the head's components, and
 * the sum one chain over the keys that the query may see. Both are the same whichever queries share
 * the work, so how a prompt was cut into chunks, and what else is in the batch, changes no bit.
 * Keys and values are read as stored, those of the current rows too.
 *
 * Units: elements.  Owner: level_*.c include this once, after gemm_body.h.  Memory: struct scratch.
 * Errors: none.  Threads: any, each with its scratch. */
#ifndef PENSTOCK_KERNELS_CPU_ATTEND_BODY_H
#define PENSTOCK_KERNELS_CPU_ATTEND_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/level.h"
#include "kernels/cpu/v16.h"

/* The queries of one call: up to 64, sharing one sequence and one kv head. */
struct queries {
    const struct attend_args *a;
    uint32_t seq, kv_head, begin, count;
    struct scratch *scratch;
};

V_INLINE uint32_t group_of(const struct attend_args *a) {
    return a->heads / a->kv_heads;
}

/* Position of query q in its sequence, and the keys begin .. end-1 that it may see. */
V_INLINE uint32_t query_position(const struct queries *s, uint32_t q) {
    uint32_t row = (s->begin + q) / group_of(s->a);
    return s->a->kv.pool ? s->a->batch->pos[s->a->batch->begin[s->seq] + row] : row;
}
V_INLINE uint32_t keys_begin(const struct queries *s, uint32_t q) {
    uint32_t at = query_position(s, q);
    return s->a->window && at + 1 > s->a->window ? at + 1 - s->a->window : 0;
}
V_INLINE uint32_t keys_end(const struct queries *s, uint32_t q) {
    const struct ops_batch *b = s->a->batch;
    if (s->a->causal) return query_position(s, q) + 1;
    return s->a->kv.pool ? b->kv_len[s->seq] : b->begin[s->seq + 1] - b->begin[s->seq];
}

/* Where key j (or its value) of this sequence and head is stored. */
V_INLINE const void *key_address(const struct queries *s, uint32_t j, bool value) {
    const struct attend_args *a = s->a;
    const struct ops_kv *kv = &a->kv;
    const struct ops_batch *b = a->batch;
    if (!kv->pool) {
        size_t head = a->heads + s->kv_head + (value ? a->kv_heads : 0);
        size_t row = b->begin[s->seq] + (size_t)j;
        return (const float *)a->qkv +
               (row * (a->heads + 2 * (size_t)a->kv_heads) + head) * a->head_dim;
    }
    uint32_t page = b->pages[(size_t)s->seq * b->pages_max + j / kv->page_tokens];
    size_t token =
        ((value ? kv->kv_heads : 0) + (size_t)s->kv_head) * kv->page_tokens + j % kv->page_tokens;
    return (const char *)kv->pool + page * kv->page_bytes + kv->layer_bytes +
           token * kv->head_dim * dtype_bytes(kv->dtype);
}

V_INLINE v16 load_stored(const void *from, enum dtype dtype, uint32_t at, uint32_t n) {
    if (dtype == DTYPE_F32) return v_load_part((const float *)from + at, n);
    if (n == 16) return v_load_bf16((const uint16_t *)from + at);
    return v_load_bf16_part((const uint16_t *)from + at, n);
}

/* Keys begin .. begin+count-1 as panels of 16 keys, their values as panels of 16 components. What
 * is beyond count is zero. */
static void load_block(const struct queries *s, uint32_t begin, uint32_t count) {
    uint32_t dim = s->a->head_dim;
    enum dtype dtype = s->a->kv.pool ? s->a->kv.dtype : DTYPE_F32;
    float *keys = s->scratch->attend.keys, *values = s->scratch->attend.values;
    for (uint32_t panel = 0; panel < ATTEND_KEYS / PANEL; panel++)
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            v16 block[16];
            for (uint32_t j = 0; j < PANEL; j++) {
                uint32_t key = panel * PANEL + j;
                block[j] = key < count
                               ? load_stored(key_address(s, begin + key, false), dtype, i, n)
                               : v_zero();
            }
            v_transpose(block);
            for (uint32_t j = 0; j < n; j++)
                v_store(keys + ((size_t)panel * dim + i + j) * PANEL, block[j]);
        }
    for (uint32_t j = 0; j < count; j++) {
        const void *value = key_address(s, begin + j, true);
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            v_store(values + ((size_t)(i / PANEL) * ATTEND_KEYS + j) * PANEL,
                    load_stored(value, dtype, i, n));
        }
    }
}

/* score[query][key] = scaled query . key, for all keys of the block. */
static void score_block(const struct queries *s) {
    uint32_t dim = s->a->head_dim;
    for (uint32_t q = 0; q < s->count; q += TILE_ROWS) {
        struct tile t = {.x = s->scratch->attend.query + q * dim,
                         .w = s->scratch->attend.keys,
                         .x_stride = dim,
                         .w_stride = (size_t)dim * PANEL,
                         .sums_stride = ATTEND_KEYS,
                         .k = dim,
                         .fresh = true,
                         .sums = s->scratch->attend.score + q * ATTEND_KEYS};
        tile_run(tile_f32_of, s->count - q < TILE_ROWS ? s->count - q : TILE_ROWS,
                 ATTEND_KEYS / PANEL, t);
    }
}

/* Scores of query q to weights exp(score - most), zero outside begin .. end-1; the query's sum and
 * total are brought to the new maximum. */
static void weigh(const struct queries *s, uint32_t q, uint32_t begin, uint32_t end,
                  uint32_t sum_stride) {
    float *score = s->scratch->attend.score + q * ATTEND_KEYS,
          *sum = s->scratch->attend.sum + q * sum_stride;
    float *most = &s->scratch->attend.most[q], *total = &s->scratch->attend.total[q];
    const uint32_t n = ATTEND_KEYS / PANEL;
    v16 p[ATTEND_KEYS / PANEL], high = v_all(-INFINITY), all;
    V_UNROLL for (uint32_t i = 0; i < n; i++) {
        uint32_t from = begin > i * PANEL ? begin - i * PANEL : 0,
                 to = end > i * PANEL ? end - i * PANEL : 0;
        p[i] = v_load(score + i * PANEL);
        if (s->a->softcap > 0)
            p[i] = v_mul(v_all(s->a->softcap), v_tanh(v_div(p[i], v_all(s->a->softcap))));
        p[i] =
            v_between(p[i], v_all(-INFINITY), from < PANEL ? from : PANEL, to < PANEL ? to : PANEL);
        high = v_max(high, p[i]);
    }
    float now = v_most(high);
    now = now > *most ? now : *most;
    float keep;
    {
        v16 ratio = v_exp(v_all(*most - now));
        float lanes[PANEL];
        v_store(lanes, ratio);
        keep = lanes[0];
    }
    V_UNROLL for (uint32_t i = 0; i < n; i++) {
        p[i] = v_exp(v_sub(p[i], v_all(now)));
        v_store(score + i * PANEL, p[i]);
    }
    all = v_add(v_add(p[0], p[1]), v_add(p[2], p[3]));
    *total = *total * keep + v_sum(all);
    *most = now;
    for (uint32_t i = 0; i < sum_stride; i += PANEL)
        v_store(sum + i, v_mul(v_load(sum + i), v_all(keep)));
}

/* sum[query] += weights . values in the order of the keys, for queries that see the same ones. */
static void gather_values(const struct queries *s, uint32_t q, uint32_t count, uint32_t begin,
                          uint32_t end, uint32_t sum_stride) {
    for (uint32_t p = 0; p < sum_stride / PANEL; p += GROUP_PANELS)
        for (uint32_t i = 0; i < count; i += TILE_ROWS) {
            uint32_t left = sum_stride / PANEL - p;
            struct tile t = {.x = s->scratch->attend.score + (q + i) * ATTEND_KEYS + begin,
                             .w = s->scratch->attend.values +
                                  ((size_t)p * ATTEND_KEYS + begin) * PANEL,
                             .x_stride = ATTEND_KEYS,
                             .w_stride = (size_t)ATTEND_KEYS * PANEL,
                             .sums_stride = sum_stride,
                             .k = end - begin,
                             .sums = s->scratch->attend.sum + (q + i) * sum_stride + p * PANEL};
            tile_run(tile_f32_of, count - i < TILE_ROWS ? count - i : TILE_ROWS,
                     left < GROUP_PANELS ? left : GROUP_PANELS, t);
        }
}

/* The part of the keys of query q that lies in the block at `block`, relative to it. */
V_INLINE void clip(const struct queries *s, uint32_t q, uint32_t block, uint32_t *begin,
                   uint32_t *end) {
    uint32_t from = keys_begin(s, q), to = keys_end(s, q);
    *begin = from > block ? from - block : 0;
    *end = to < block + ATTEND_KEYS ? to - (to < block ? to : block) : ATTEND_KEYS;
    if (*begin >= *end) *begin = *end = 0;
}

static void attend_block(const struct queries *s, uint32_t block, uint32_t sum_stride) {
    score_block(s);
    for (uint32_t q = 0, next; q < s->count; q = next) {
        uint32_t begin, end;
        clip(s, q, block, &begin, &end);
        for (next = q + 1; next < s->count; next++) {
            uint32_t other_begin, other_end;
            clip(s, next, block, &other_begin, &other_end);
            if (other_begin != begin || other_end != end) break;
        }
        if (begin == end) continue;
        for (uint32_t i = q; i < next; i++) weigh(s, i, begin, end, sum_stride);
        gather_values(s, q, next - q, begin, end, sum_stride);
    }
}

static void attend(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                   uint32_t query_begin, uint32_t query_end, struct scratch *scratch) {
    struct queries s = {a, seq, kv_head, query_begin, query_end - query_begin, scratch};
    uint32_t dim = a->head_dim, group = group_of(a), sum_stride = panels_of(dim) * PANEL;
    size_t row_floats = (size_t)(a->heads + 2 * a->kv_heads) * dim;
    uint32_t first = UINT32_MAX, last = 0;
    assert(s.count <= ATTEND_QUERIES && dim <= ATTEND_DIM);
    for (uint32_t q = 0; q < s.count; q++) {
        uint32_t row = a->batch->begin[seq] + (query_begin + q) / group;
        uint32_t head = kv_head * group + (query_begin + q) % group;
        const float *x = (const float *)a->qkv + row * row_floats + (size_t)head * dim;
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            v_store_part(scratch->attend.query + q * dim + i,
                         v_mul(v_load_part(x + i, n), v_all(a->scale)), n);
        }
        for (uint32_t i = 0; i < sum_stride; i++) scratch->attend.sum[q * sum_stride + i] = 0;
        scratch->attend.most[q] = -INFINITY;
        scratch->attend.total[q] = 0;
        first = keys_begin(&s, q) < first ? keys_begin(&s, q) : first;
        last = keys_end(&s, q) > last ? keys_end(&s, q) : last;
    }
    for (uint32_t block = first / ATTEND_KEYS * ATTEND_KEYS; block < last; block += ATTEND_KEYS) {
        load_block(&s, block, last - block < ATTEND_KEYS ? last - block : ATTEND_KEYS);
        attend_block(&s, block, sum_stride);
    }
    for (uint32_t q = 0; q < s.count; q++) {
        size_t row = a->batch->begin[seq] + (size_t)(query_begin + q) / group;
        float *out =
            (float *)a->out + (row * a->heads + kv_head * group + (query_begin + q) % group) * dim;
        v16 share = v_all(1 / scratch->attend.total[q]);
        for (uint32_t i = 0; i < dim; i += PANEL)
            v_store_part(out + i, v_mul(v_load(scratch->attend.sum + q * sum_stride + i), share),
                         dim - i < PANEL ? dim - i : PANEL);
    }
}

#endif
