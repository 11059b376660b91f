/* attend_body.h - flash-style attention in blocks of keys; compiled once per level.
 *
 * A query walks its keys in blocks of 64 at absolute positions and keeps a running maximum, total
 * and weighted sum. Inside a block the score of a key is one chain over the head's components, and
 * the sum one chain over the keys that the query may see. Every ATTEND_SPLIT keys, at absolute
 * positions too, it starts anew, and the splits are merged in order: several threads may share
 * one long cache. All of it is the same whichever queries share the work, so how a prompt was cut
 * into chunks, and what else is in the batch, changes no bit. Keys and values are read as stored,
 * those of the current rows too.
 *
 * Units: elements.  Owner: level_*.c include this once, after gemm_body.h.  Memory: struct scratch.
 * Errors: none.  Threads: any, each with its scratch. */
#ifndef PENSTOCK_KERNELS_CPU_ATTEND_BODY_H
#define PENSTOCK_KERNELS_CPU_ATTEND_BODY_H

#include <assert.h>

#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/level.h"
#include "kernels/cpu/v16.h"
#include "kernels/kv.h"

/* The queries of one call: up to ATTEND_QUERIES, sharing one sequence and one kv head. */
struct queries {
    const struct attend_args *a;
    uint32_t seq, kv_head, begin, count;
    struct scratch *scratch;
};

V_INLINE uint32_t group_of(const struct attend_args *a) {
    return a->heads / a->kv_heads;
}

/* Where keys of this sequence and head are stored, and their values. */
struct places {
    const void *key[ATTEND_KEYS], *value[ATTEND_KEYS];
    float key_scale[ATTEND_KEYS], value_scale[ATTEND_KEYS]; /* of int8 only */
    uint32_t count;
};

/* The keys begin .. begin+count-1, none beyond the last one. */
static void find_keys(const struct queries *s, uint32_t begin, uint32_t count, struct places *to) {
    const struct attend_args *a = s->a;
    const struct ops_kv *kv = &a->kv;
    to->count = count;
    if (!kv->pool) {
        size_t row = (size_t)(a->heads + 2 * a->kv_heads) * a->head_dim;
        const float *key = (const float *)a->qkv + (a->batch->begin[s->seq] + (size_t)begin) * row +
                           (size_t)(a->heads + s->kv_head) * a->head_dim;
        for (uint32_t j = 0; j < count; j++, key += row) {
            to->key[j] = key;
            to->value[j] = key + (size_t)a->kv_heads * a->head_dim;
        }
        return;
    }
    size_t token_bytes = kv->head_dim * dtype_bytes(kv->dtype);
    for (uint32_t j = 0; j < count; j++) {
        char *page = kv_page(kv, a->batch, s->seq, begin + j);
        size_t key = kv_row(kv, begin + j, false, s->kv_head),
               value = kv_row(kv, begin + j, true, s->kv_head);
        to->key[j] = page + key * token_bytes;
        to->value[j] = page + value * token_bytes;
        if (kv->dtype != DTYPE_I8) continue;
        to->key_scale[j] = kv_scale(kv, page, key);
        to->value_scale[j] = kv_scale(kv, page, value);
    }
}

V_INLINE v16 load_stored(const void *from, enum dtype dtype, float scale, uint32_t at, uint32_t n) {
    if (dtype == DTYPE_F32) return v_load_part((const float *)from + at, n);
    if (dtype == DTYPE_I8) return v_mul(v_load_i8_part((const int8_t *)from + at, n), v_all(scale));
    if (n == 16) return v_load_bf16((const uint16_t *)from + at);
    return v_load_bf16_part((const uint16_t *)from + at, n);
}

/* Row j of the places after these, a line of each at a time: it is on its way while we compute. */
V_INLINE void fetch_row(const void *const *row, uint32_t j, uint32_t count, size_t bytes) {
    if (j < count)
        for (size_t at = 0; at < bytes; at += LINE) __builtin_prefetch((const char *)row[j] + at);
}

/* Keys as panels of 16 of them; bf16 stays so, in pairs of components, as tile_wide reads it. What
 * is beyond the last key is zero. */
static void load_keys(const struct queries *s, const struct places *from, const struct places *next,
                      enum dtype dtype) {
    uint32_t dim = s->a->head_dim, each = dtype == DTYPE_BF16 ? 2 : 1;
    size_t steps = (dim + each - 1) / each;
    for (uint32_t panel = 0; panel < ATTEND_KEYS / PANEL; panel++)
        for (uint32_t i = 0; i < dim; i += PANEL * each) {
            uint32_t n = dim - i < PANEL * each ? dim - i : PANEL * each;
            v16 block[PANEL];
            for (uint32_t j = 0; j < PANEL; j++) {
                uint32_t k = panel * PANEL + j;
                if (i == 0) fetch_row(next->key, k, next->count, dim * dtype_bytes(dtype));
                if (k >= from->count)
                    block[j] = v_zero();
                else if (dtype == DTYPE_BF16)
                    block[j] = v_load_bytes((const uint16_t *)from->key[k] + i, 2 * n);
                else
                    block[j] = load_stored(from->key[k], dtype, from->key_scale[k], i, n);
            }
            v_transpose(block);
            float *to = s->scratch->attend.keys + (panel * steps + i / each) * PANEL;
            for (uint32_t j = 0; j < (n + each - 1) / each; j++) v_store(to + j * PANEL, block[j]);
        }
}

/* Values as panels of 16 components. */
static void load_values(const struct queries *s, const struct places *from,
                        const struct places *next, enum dtype dtype) {
    uint32_t dim = s->a->head_dim;
    for (uint32_t j = 0; j < ATTEND_KEYS; j++) {
        fetch_row(next->value, j, next->count, dim * dtype_bytes(dtype));
        for (uint32_t i = 0; j < from->count && i < dim; i += PANEL) {
            uint32_t n = dim - i < PANEL ? dim - i : PANEL;
            float *to = s->scratch->attend.values + ((size_t)i / PANEL * ATTEND_KEYS + j) * PANEL;
            v_store(to, load_stored(from->value[j], dtype, from->value_scale[j], i, n));
        }
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
static void score_block(const struct queries *s, enum dtype dtype) {
    uint32_t dim = s->a->head_dim;
    bool half = dtype == DTYPE_BF16;
    for (uint32_t i = 0; i < tiles_of(s); i++) {
        uint32_t q = tile_begin(s, i);
        struct tile t = {.x = s->scratch->attend.query + q * dim,
                         .w = s->scratch->attend.keys,
                         .w_stride = (half ? (dim + 1) / 2 : dim) * (size_t)PANEL,
                         .sums_stride = ATTEND_KEYS,
                         .k = dim,
                         .fresh = true,
                         .sums = s->scratch->attend.score + q * ATTEND_KEYS};
        tile_run(half ? tile_wide_of : tile_f32_of, tile_begin(s, i + 1) - q, ATTEND_KEYS / PANEL,
                 t);
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

static void attend_block(const struct queries *s, uint32_t block, uint32_t sum_stride,
                         enum dtype dtype) {
    score_block(s, dtype);
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

/* The queries scaled and laid out in tiles (the place of their sums holds them first); returns the
 * keys that any of them sees. */
static void load_queries(const struct queries *s, uint32_t *begin, uint32_t *end) {
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
        attend_visible(a, s->seq, row, from, to);
        *begin = q == 0 || *from < *begin ? *from : *begin;
        *end = q == 0 || *to > *end ? *to : *end;
        if (++head == group) head = 0, row++;
    }
    for (uint32_t i = 0; i < tiles_of(s); i++) {
        uint32_t q = tile_begin(s, i), rows = tile_begin(s, i + 1) - q;
        pack_tile(s->scratch->attend.query + q * dim, s->scratch->attend.sum + q * dim, dim, rows,
                  dim, false);
    }
}

/* The keys of one split, begin .. end-1, from empty sums on. */
static void attend_split(const struct queries *s, uint32_t begin, uint32_t end,
                         uint32_t sum_stride) {
    enum dtype dtype = s->a->kv.pool ? s->a->kv.dtype : DTYPE_F32;
    struct places places[2], *here = &places[0], *next = &places[1];
    memset(s->scratch->attend.sum, 0, (size_t)s->count * sum_stride * sizeof(float));
    for (uint32_t q = 0; q < s->count; q++) {
        s->scratch->attend.most[q] = -INFINITY;
        s->scratch->attend.total[q] = 0;
    }
    uint32_t block = begin / ATTEND_KEYS * ATTEND_KEYS;
    find_keys(s, block, end - block < ATTEND_KEYS ? end - block : ATTEND_KEYS, here);
    for (uint32_t after; block < end; block = after) {
        after = block + ATTEND_KEYS;
        next->count = 0;
        if (after < end)
            find_keys(s, after, end - after < ATTEND_KEYS ? end - after : ATTEND_KEYS, next);
        load_keys(s, here, next, dtype);
        load_values(s, here, next, dtype);
        attend_block(s, block, sum_stride, dtype);
        struct places *kept = here;
        here = next;
        next = kept;
    }
}

/* What a split left of each query: maximum and total, and the sum [sum_stride]. */
static void save_split(const struct queries *s, uint32_t sum_stride, float *to) {
    for (uint32_t q = 0; q < s->count; q++, to += sum_stride + PARTIAL_HEAD) {
        to[0] = s->scratch->attend.most[q];
        to[1] = s->scratch->attend.total[q];
        memcpy(to + PARTIAL_HEAD, s->scratch->attend.sum + q * sum_stride, sum_stride * sizeof *to);
    }
}

/* Brings a later split of the same queries into what earlier ones left. A query that sees no key of
 * one of the two has the other as it is. */
static void merge_split(uint32_t queries, uint32_t sum_stride, float *all, const float *later) {
    uint32_t stride = sum_stride + PARTIAL_HEAD;
    for (uint32_t q = 0; q < queries; q++, all += stride, later += stride) {
        if (later[1] == 0) continue;
        if (all[1] == 0) {
            memcpy(all, later, stride * sizeof *all);
            continue;
        }
        float high = all[0] > later[0] ? all[0] : later[0];
        v16 left = v_exp(v_all(all[0] - high)), right = v_exp(v_all(later[0] - high));
        all[0] = high;
        all[1] = all[1] * v_most(left) + later[1] * v_most(right);
        for (uint32_t i = PARTIAL_HEAD; i < stride; i += PANEL)
            v_store(all + i, v_fma(v_load(later + i), right, v_mul(v_load(all + i), left)));
    }
}

/* Merges `splits` of them, which lie behind each other, into the first and stores the result. */
static void attend_merge(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                         uint32_t query_begin, uint32_t query_end, float *partial,
                         uint32_t splits) {
    uint32_t sum_stride = panels_of(a->head_dim) * PANEL, stride = sum_stride + PARTIAL_HEAD;
    uint32_t count = query_end - query_begin, group = group_of(a), dim = a->head_dim;
    uint32_t row = query_begin / group, head = query_begin % group;
    for (uint32_t i = 1; i < splits; i++)
        merge_split(count, sum_stride, partial, partial + (size_t)i * count * stride);
    for (uint32_t q = 0; q < count; q++, partial += stride) {
        float *out =
            (float *)a->out +
            ((a->batch->begin[seq] + (size_t)row) * a->heads + kv_head * group + head) * dim;
        v16 share = v_all(1 / partial[1]);
        for (uint32_t i = 0; i < dim; i += PANEL)
            v_store_part(out + i, v_mul(v_load(partial + PARTIAL_HEAD + i), share),
                         dim - i < PANEL ? dim - i : PANEL);
        if (++head == group) head = 0, row++;
    }
}

static void attend(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                   uint32_t query_begin, uint32_t query_end, uint32_t split, float *partial,
                   struct scratch *scratch) {
    struct queries s = {a, seq, kv_head, query_begin, query_end - query_begin, scratch};
    uint32_t sum_stride = panels_of(a->head_dim) * PANEL, begin = 0, end = 0;
    float *all = scratch->attend.partial[0], *later = scratch->attend.partial[1];
    assert(s.count <= ATTEND_QUERIES && a->head_dim <= ATTEND_DIM);
    load_queries(&s, &begin, &end);
    for (uint32_t at = begin, next; at < end; at = next) {
        next = (at / ATTEND_SPLIT + 1) * ATTEND_SPLIT;
        if (partial && at / ATTEND_SPLIT != split) continue;
        attend_split(&s, at, next < end ? next : end, sum_stride);
        save_split(&s, sum_stride, partial ? partial : at == begin ? all : later);
        if (!partial && at != begin) merge_split(s.count, sum_stride, all, later);
    }
    if (!partial) attend_merge(a, seq, kv_head, query_begin, query_end, all, 1);
}

#endif
