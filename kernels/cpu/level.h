/* level.h - what an instruction set provides: the inner loops of every operation.
 *
 * The same bodies (*_body.h, over v16.h) are compiled once per level in level_*.c; the operations
 * themselves (linear.c, attend.c, ...) only cut the work into parts and hand them to threads. A
 * part is a range of rows, of panels or of queries, and how the work was cut never changes a bit:
 * the sum of an output runs over k in order, in one chain, whatever tile it was computed in.
 *
 * Packed weights: panels of 16 outputs. f32 is [panel][k][16]; bf16 is [panel][k / 2][16][2], pairs
 * along k; what is beyond n or k is zero. A pair (gate, up) alternates their panels.
 *
 * Units: elements.  Owner: each thread has a scratch.  Memory: as struct scratch says, none else.
 * Errors: none.  Threads: any number of calls at once, each with its own scratch. */
#ifndef PENSTOCK_KERNELS_CPU_LEVEL_H
#define PENSTOCK_KERNELS_CPU_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/quant.h"
#include "kernels/ops.h"

enum {
    PANEL = 16,                    /* outputs of a panel */
    GROUP_PANELS = 4,              /* panels that a tile of rows is multiplied with in one go */
    SPAN_PANELS = 8,               /* panels whose sums wait together; even, for pairs */
    GEMM_ROWS = 256,               /* rows that stay in cache while the panels pass by */
    GEMM_K = 256,                  /* inputs of one cache block; partial sums wait as float32 */
    GEMM_K_MAX = 1 << 19,          /* inputs of a weight */
    GEMM_CACHED = 1 << 18,         /* activations that leave half of a second-level cache free */
    GEMM_OPERAND = GEMM_K_MAX,     /* activations laid out for the tiles, of as many rows as fit */
    QUANT_OPERAND = 1 << 21,       /* bytes of quantized activations */
    ATTEND_KEYS = 64,              /* keys of a block, at absolute positions */
    ATTEND_QUERIES = 112,          /* queries (rows x heads of one kv head) that share a block */
    ATTEND_SPLIT = 512,            /* keys, at absolute positions, that one thread sums in one go */
    ATTEND_DIM = OPS_HEAD_DIM_MAX, /* largest head */
    PARTIAL_HEAD = 2,              /* floats in front of a query's sum over a split */
    PARTIAL_FLOATS = 1 << 18       /* of all splits that threads share at a time */
};

/* Both dimensions of [n][k], as they lie packed. */
static inline uint32_t panels_of(uint32_t n) {
    return (n + PANEL - 1) / PANEL;
}
static inline size_t panel_bytes(uint32_t k, enum dtype dtype) {
    return dtype == DTYPE_F32 ? (size_t)k * PANEL * 4 : ((size_t)k + 1) / 2 * PANEL * 4;
}

/* Rows of activations quantized for the tiles, as qgemm_body.h lays them out. */
struct quant_operand {
    uint8_t x[QUANT_OPERAND];
    float scale[QUANT_OPERAND / 32 + GEMM_ROWS];
    /* What integer sums start from: minus the sum of a group, times 128 without zero points. */
    int32_t start[QUANT_OPERAND / 32 + GEMM_ROWS];
    uint8_t wide[GROUP_PANELS * QUANT_K * PANEL]; /* a block of W4 panels, as bytes */
};

struct scratch {
    float sums[GEMM_ROWS * SPAN_PANELS * PANEL];
    uint32_t operand[GEMM_OPERAND];
    struct {
        float query[ATTEND_QUERIES * ATTEND_DIM]; /* tiles [i][query of it] */
        float keys[ATTEND_KEYS * ATTEND_DIM];     /* panels [key / 16][i][16] */
        float values[ATTEND_KEYS * ATTEND_DIM];   /* panels [i / 16][key][16] */
        float score[ATTEND_QUERIES * ATTEND_KEYS];
        float sum[ATTEND_QUERIES * ATTEND_DIM];
        float most[ATTEND_QUERIES], total[ATTEND_QUERIES];
        uint32_t begin[ATTEND_QUERIES], end[ATTEND_QUERIES]; /* keys that each query sees */
        float partial[2][ATTEND_QUERIES * (ATTEND_DIM + PARTIAL_HEAD)];
    } attend;
    struct quant_operand quant;
} __attribute__((aligned(64)));

/* y = act(x w^T + bias + add) + residual, or act(x gate^T + add) * (x up^T + add) when gated. */
struct gemm {
    uint32_t rows, n, k;
    const float *x;
    const void *w;
    enum dtype dtype;
    uint32_t group; /* W8, W4 */
    bool zeros;
    bool gated;
    enum ops_act act;
    const float *bias, *residual, *add; /* add: [rows - add_from][n], gated: [..][2 n] */
    uint32_t add_from;
    float *y;
};

/* The keys begin .. end-1 that a row of a sequence may see. */
static inline void attend_visible(const struct attend_args *a, uint32_t seq, uint32_t row,
                                  uint32_t *begin, uint32_t *end) {
    const struct ops_batch *b = a->batch;
    uint32_t first = b->begin[seq], at = a->kv.pool ? b->pos[first + row] : row;
    *begin = a->window && at + 1 > a->window ? at + 1 - a->window : 0;
    *end = a->causal ? at + 1 : a->kv.pool ? b->kv_len[seq] : b->begin[seq + 1] - first;
}

struct level {
    const char *name, *numerics_id;
    bool (*supported)(void);
    bool (*preferred)(void); /* what auto asks, beyond supported; NULL: always */
    /* Rows row_begin .. row_end-1 and the columns of y in panels panel_begin .. panel_end-1. */
    void (*gemm)(const struct gemm *g, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                 uint32_t panel_end, struct scratch *scratch);
    /* The same for weights of W8 and W4. */
    void (*gemm_quant)(const struct gemm *g, uint32_t row_begin, uint32_t row_end,
                       uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch);
    /* Queries of sequence seq and one kv head, counted row by row: query = row * group + head.
     * With `partial`: only their keys in split number `split`, and what they add up to goes there,
     * [query][PARTIAL_HEAD + head_dim rounded up to panels]; attend_merge takes all splits that
     * any of the queries sees, laid behind each other in order. */
    void (*attend)(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                   uint32_t query_begin, uint32_t query_end, uint32_t split, float *partial,
                   struct scratch *scratch);
    void (*attend_merge)(const struct attend_args *a, uint32_t seq, uint32_t kv_head,
                         uint32_t query_begin, uint32_t query_end, float *partial, uint32_t splits);
    void (*qkv)(const struct qkv_args *a, uint32_t seq, uint32_t row_begin, uint32_t row_end);
    void (*norm)(const struct norm_args *a, uint32_t row_begin, uint32_t row_end);
    void (*embed)(const struct embed_args *a, uint32_t row_begin, uint32_t row_end);
    void (*pool)(const struct pool_args *a, uint32_t seq);
    /* The largest of x, NaN passed over; weight[i] = exp((x[i] - most) / temperature). */
    float (*most)(const float *x, uint32_t n);
    void (*weights)(const float *x, uint32_t n, float most, float temperature, float *weight);
};

extern const struct level LEVEL_PLAIN, LEVEL_AVX2, LEVEL_AVX512, LEVEL_AVX512BF16;

#endif
