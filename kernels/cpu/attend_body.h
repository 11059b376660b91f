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

/* The queries of one call: up to ATTEND_QUERIES, sharing one sequence and one kv head. */
struct queries {
    const struct attend_args *a;
    uint32_t seq, kv_head, begin, count;
    struct scratch *scratch;
};

V_INLINE uint32_t group_of(const struct attend_args *a) {
    return a->heads / a->kv_heads;
}

/* The keys begin .. end-1 that a row of the sequence may see. */
static void visible(const struct attend_args *a, uint32_t seq, uint32_t row, uint32_t *begin,
                    uint32_t *end) {
    const struct ops_batch *b = a->batch;
    uint32_t first = b->begin[seq], at = a->kv.pool ? b->pos[first + row] : row;
    *begin = a->window && at + 1 > a->window ? at + 1 - a->window : 0;
    *end = a->causal ? at + 1 : a->kv.pool ? b->kv_len[seq] : b->begin[seq + 1] - first;
}

/* Where the keys begin .. begin+count-1 of this sequence and head are stored, and their values. */
static void find_keys(const struct queries *s, uint32_t begin, uint32_t count, const void **keys,
                      const void **values) {
    const struct attend_args *a = s->a;
    const struct ops_kv *kv = &a->kv;
    const struct ops_batch *b = a->batch;
    if (!kv->pool) {
        size_t row = (size_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
        const float *key = (const float *)a->qkv + (b->begin[s->seq] + (size_t)begin) * row +
                           (size_t)(a->heads + s->kv_head) * a->head_dim;
        for (uint32_t j = 0; j < count; j++, key += row) {
            keys[j] = key;
            values[j] = key + (size_t)a->kv_heads * a->head_dim;
        }
        return;
    }
    size_t token_bytes = kv->head_dim * dtype_bytes(kv->dtype),
           head_bytes = kv->page_tokens * token_bytes;
    const uint32_t *page = b->pages + (size_t)s->seq * b->pages_max + begin / kv->page_tokens;
    uint32_t token = begin % kv->page_tokens;
    for (uint32_t j = 0; j < count; j++) {
        const char *key = (const char *)kv->pool + *page * kv->page_bytes + kv->layer_bytes +
                          s->kv_head * head_bytes + token * token_bytes;
        keys[j] = key;
        values[j] = key + kv->kv_heads * head_bytes;
        if (++token == kv->page_tokens) token = 0, page++;
    }
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
    float *to_keys = s->scratch->attend.keys, *to_values = s->scratch->attend.values;
    const void *key[ATTEND_KEYS], *value[ATTEND_KEYS];
    find_keys(s, begin, count, key, value);
    for (uint32_t panel = 0; panel < ATTEND_KEYS / PANEL; panel++)
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            v16 block[16];
            for (uint32_t j = 0; j < PANEL; j++) {
                uint32_t k = panel * PANEL + j;
                block[j] = k < count ? load_stored(key[k], dtype, i, n) : v_zero();
            }
            v_transpose(block);
            float *to = to_keys + ((size_t)panel * dim + i) * PANEL;
            for (uint32_t j = 0; j < n; j++) v_store(to + j * PANEL, block[j]);
        }
    for (uint32_t j = 0; j < count; j++)
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            float *to = to_values + ((size_t)i / PANEL * ATTEND_KEYS + j) * PANEL;
            v_store(to, load_stored(value[j], dtype, i, n));
        }
}

/* The queries as tiles: tile i are those from tile_begin(s, i) on. */
V_INLINE uint32_t tiles_of(const struct queries *s) {
    return (s->count + TILE_ROWS_F32 - 1) / TILE_ROWS_F32;
}
V_INLINE uint32_t tile_begin(const struct queries *s, uint32_t i) {
    return s->count * i / tiles_of(s);
}

/* score[query][key] = scaled query . key, for all keys of the block. */
static void score_block(const struct queries *s) {
    uint32_t dim = s->a->head_dim;
    for (uint32_t i = 0; i < tiles_of(s); i++) {
        uint32_t q = tile_begin(s, i);
        struct tile t = {.x = s->scratch->attend.query + q * dim,
                         .w = s->scratch->attend.keys,
                         .w_stride = (size_t)dim * PANEL,
                         .sums_stride = ATTEND_KEYS,
                         .k = dim,
                         .fresh = true,
                         .sums = s->scratch->attend.score + q * ATTEND_KEYS};
        tile_run(tile_f32_of, tile_begin(s, i + 1) - q, ATTEND_KEYS / PANEL, t);
    }
}

/* Scores of query q to weights exp(score - most), zero outside begin .. end-1; the query's sum and
 * total are brought to the new maximum. */
static void weigh(const struct queries *s, uint32_t q, uint32_t begin, uint32_t end,
                  uint32_t sum_stride) {
    float *score = s->scratch->attend.score + q * ATTEND_KEYS;
    float *most = &s->scratch->attend.most[q], *total = &s->scratch->attend.total[q];
    v16 p[ATTEND_KEYS / PANEL];
    V_UNROLL for (uint32_t i = 0; i < ATTEND_KEYS / PANEL; i++) {
        p[i] = v_load(score + i * PANEL);
        if (s->a->softcap > 0)
            p[i] = v_mul(v_all(s->a->softcap), v_tanh(v_div(p[i], v_all(s->a->softcap))));
        if (end - begin == ATTEND_KEYS) continue;
        uint32_t from = begin > i * PANEL ? begin - i * PANEL : 0;
        uint32_t to = end > i * PANEL ? end - i * PANEL : 0;
        p[i] =
            v_between(p[i], v_all(-INFINITY), from < PANEL ? from : PANEL, to < PANEL ? to : PANEL);
    }
    float high = v_most(v_max(v_max(p[0], p[1]), v_max(p[2], p[3])));
    if (high > *most) { /* else the sum stays as it is, which is times one */
        v16 keep = v_exp(v_all(*most - high));
        float *sum = s->scratch->attend.sum + q * sum_stride;
        for (uint32_t i = 0; i < sum_stride; i += PANEL)
            v_store(sum + i, v_mul(v_load(sum + i), keep));
        *total *= v_most(keep);
        *most = high;
    }
    V_UNROLL for (uint32_t i = 0; i < ATTEND_KEYS / PANEL; i++) {
        p[i] = v_exp(v_sub(p[i], v_all(*most)));
        v_store(score + i * PANEL, p[i]);
    }
    *total += v_sum(v_add(v_add(p[0], p[1]), v_add(p[2], p[3])));
}

/* sum[query] += weights . values in the order of the keys, for queries that see the same ones. */
static void gather_values(const struct queries *s, uint32_t q, uint32_t count, uint32_t begin,
                          uint32_t end, uint32_t sum_stride) {
    uint32_t tiles = (count + TILE_ROWS_F32 - 1) / TILE_ROWS_F32;
    for (uint32_t i = 0; i < tiles; i++) {
        uint32_t at = q + count * i / tiles, rows = q + count * (i + 1) / tiles - at;
        struct tile t = {.x = s->scratch->attend.score + at * ATTEND_KEYS + begin,
                         .w = s->scratch->attend.values + begin * PANEL,
                         .w_stride = (size_t)ATTEND_KEYS * PANEL,
                         .sums_stride = sum_stride,
                         .k = end - begin,
                         .sums = s->scratch->attend.sum + at * sum_stride};
        tile_run(tile_near_of, rows, sum_stride / PANEL, t);
    }
}

/* The part of the keys of query q that lies in the block at `block`, relative to it. */
V_INLINE void clip(const struct queries *s, uint32_t q, uint32_t block, uint32_t *begin,
                   uint32_t *end) {
    uint32_t from = s->scratch->attend.begin[q], to = s->scratch->attend.end[q];
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

/* The queries scaled and laid out in tiles (the place of their sums holds them first), their sums
 * empty; returns the keys that any of them sees. */
static void load_queries(const struct queries *s, uint32_t sum_stride, uint32_t *begin,
                         uint32_t *end) {
    const struct attend_args *a = s->a;
    uint32_t dim = a->head_dim, group = group_of(a), row = s->begin / group,
             head = s->begin % group;
    size_t row_floats = (size_t)(a->heads + 2 * a->kv_heads) * dim;
    for (uint32_t q = 0; q < s->count; q++) {
        const float *x = (const float *)a->qkv + (a->batch->begin[s->seq] + row) * row_floats +
                         (size_t)(s->kv_head * group + head) * dim;
        for (uint32_t i = 0; i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            v16 v = v_mul(v_load_part(x + i, n), v_all(a->scale));
            v_store_part(s->scratch->attend.sum + q * dim + i, v, n);
        }
        uint32_t *from = &s->scratch->attend.begin[q], *to = &s->scratch->attend.end[q];
        visible(a, s->seq, row, from, to);
        *begin = q == 0 || *from < *begin ? *from : *begin;
        *end = q == 0 || *to > *end ? *to : *end;
        s->scratch->attend.most[q] = -INFINITY;
        s->scratch->attend.total[q] = 0;
        if (++head == group) head = 0, row++;
    }
    for (uint32_t i = 0; i < tiles_of(s); i++) {
        uint32_t q = tile_begin(s, i), rows = tile_begin(s, i + 1) - q;
        pack_tile(s->scratch->attend.query + q * dim, s->scratch->attend.sum + q * dim, dim, rows,
                  dim, false);
    }
    memset(s->scratch->attend.sum, 0, (size_t)s->count * sum_stride * sizeof(float));
}

static void store_queries(const struct queries *s, uint32_t sum_stride) {
    const struct attend_args *a = s->a;
    uint32_t dim = a->head_dim, group = group_of(a), row = s->begin / group,
             head = s->begin % group;
    for (uint32_t q = 0; q < s->count; q++) {
        float *out =
            (float *)a->out +
            ((a->batch->begin[s->seq] + (size_t)row) * a->heads + s->kv_head * group + head) * dim;
        v16 share = v_all(1 / s->scratch->attend.total[q]);
        for (uint32_t i = 0; i < dim; i += PANEL) {
            v16 v = v_mul(v_load(s->scratch->attend.sum + q * sum_stride + i), share);
            v_store_part(out + i, v, dim - i < PANEL ? dim - i : PANEL);
        }
        if (++head == group) head = 0, row++;
    }
}

static void attend(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                   uint32_t query_begin, uint32_t query_end, struct scratch *scratch) {
    struct queries s = {a, seq, kv_head, query_begin, query_end - query_begin, scratch};
    uint32_t sum_stride = panels_of(a->head_dim) * PANEL, begin = 0, end = 0;
    assert(s.count <= ATTEND_QUERIES && a->head_dim <= ATTEND_DIM);
    load_queries(&s, sum_stride, &begin, &end);
    for (uint32_t block = begin / ATTEND_KEYS * ATTEND_KEYS; block < end; block += ATTEND_KEYS) {
        load_block(&s, block, end - block < ATTEND_KEYS ? end - block : ATTEND_KEYS);
        attend_block(&s, block, sum_stride);
    }
    store_queries(&s, sum_stride);
}

#endif
