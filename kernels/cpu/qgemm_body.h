/* qgemm_body.h - rows of quantized activations times panels of W8 or W4; compiled once per level.
 *
 * As gemm_body.h, whose epilogue it shares, but a tile sums a group of k in integers, exactly, and
 * then adds that to a float32 sum with one fused multiply-add (ops.h, struct quant). Groups come in
 * order and each sum waits in memory between them, so no tile, block, thread or level changes it.
 *
 * Units: elements.  Owner: level_*.c include this once.  Memory: struct scratch.  Errors: none.
 * Threads: any, each with its scratch. */
#ifndef PENSTOCK_KERNELS_CPU_QGEMM_BODY_H
#define PENSTOCK_KERNELS_CPU_QGEMM_BODY_H

#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/level.h"
#include "kernels/cpu/q16.h"

/* A block of k: sums[row][panel * 16 ..] (+)= x[row] . w[panel]. */
struct quant_tile {
    const uint8_t *x; /* [row][x_stride] quads of the block */
    size_t x_stride;
    const float *scale; /* [row][groups] of the activations, and what their sums start from */
    const int32_t *start;
    const uint8_t *head, *data; /* of the first panel's block; the others' at these strides */
    size_t head_stride, data_stride;
    uint32_t groups, group_quads, quads; /* of the block; the last group may have fewer quads */
    uint32_t zeros;                      /* where in the head zero points begin; 0: none */
    bool fresh;
    float *sums; /* rows at a stride of SPAN_PANELS * PANEL */
};

#if defined(__AVX512VNNI__)
enum { QUANT_ROWS = 6, NIBBLE_ROWS = 4 };
V_INLINE uint32_t quant_tile_panels(uint32_t rows) {
    (void)rows;
    return 4;
}
#else
enum { QUANT_ROWS = 2, NIBBLE_ROWS = 2 };
V_INLINE uint32_t quant_tile_panels(uint32_t rows) {
    return rows == 1 ? 2 : 1;
}
#endif

/* One group of a tile in integers: quads `at` .. `end` - 1 of the block. */
V_INLINE void quant_group(const uint32_t rows, const uint32_t panels, const bool nibbles,
                          const struct quant_tile *t, uint32_t g, uint32_t at, uint32_t end,
                          q16 dot[QUANT_ROWS][GROUP_PANELS]) {
    const uint8_t *x = t->x + (size_t)at * QUAD_BYTES;
    const uint8_t *w = t->data + (size_t)at * (nibbles ? 32 : 64);
    V_UNROLL for (uint32_t p = 0; p < panels; p++) V_UNROLL for (uint32_t r = 0; r < rows; r++) {
        int32_t start = t->start[r * t->groups + g];
        if (t->zeros)
            dot[r][p] = q_zeros(t->head + p * t->head_stride + t->zeros + g * PANEL, start);
        else
            dot[r][p] = q_all(start);
    }
    if (nibbles)
        for (; at < end; at += 2, x += 2 * QUAD_BYTES, w += 64) {
            q16_weights even[GROUP_PANELS], odd[GROUP_PANELS];
            V_UNROLL for (uint32_t p = 0; p < panels; p++)
                q_load_nibbles(w + p * t->data_stride, &even[p], &odd[p]);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                q16_row first = q_row(x + r * t->x_stride);
                q16_row second = q_row(x + r * t->x_stride + QUAD_BYTES);
                V_UNROLL for (uint32_t p = 0; p < panels; p++) dot[r][p] =
                    q_dot(q_dot(dot[r][p], even[p], first), odd[p], second);
            }
        }
    else
        for (; at < end; at++, x += QUAD_BYTES, w += 64) {
            q16_weights panel[GROUP_PANELS];
            V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] =
                q_load(w + p * t->data_stride);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                q16_row quad = q_row(x + r * t->x_stride);
                V_UNROLL for (uint32_t p = 0; p < panels; p++) dot[r][p] =
                    q_dot(dot[r][p], panel[p], quad);
            }
        }
}

V_INLINE void quant_tile(const uint32_t rows, const uint32_t panels, const bool nibbles,
                         const struct quant_tile *t) {
    for (uint32_t g = 0; g < t->groups; g++) {
        q16 dot[QUANT_ROWS][GROUP_PANELS];
        uint32_t at = g * t->group_quads, end = at + t->group_quads;
        quant_group(rows, panels, nibbles, t, g, at, end < t->quads ? end : t->quads, dot);
        V_UNROLL for (uint32_t p = 0; p < panels; p++) {
            const uint8_t *head = t->head + p * t->head_stride + g * PANEL * 2;
            v16 scale = v_load_bf16((const uint16_t *)(const void *)head);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                float *sum = t->sums + r * SPAN_PANELS * PANEL + p * PANEL;
                v16 both = v_mul(scale, v_all(t->scale[r * t->groups + g]));
                v16 before = t->fresh && g == 0 ? v_zero() : v_load(sum);
                v_store(sum, q_fma(q_float(dot[r][p]), both, before));
            }
        }
    }
}

#define QUANT_TILE(kind, r, p)                                                                     \
    static void kind##_##r##x##p(const struct quant_tile *t) {                                     \
        quant_tile(r, p, kind##_nibbles, t);                                                       \
    }
enum { quant_w8_nibbles = 0, quant_w4_nibbles = 1 };
#if defined(__AVX512VNNI__)
#define QUANT_SHAPES_W4(X)                                                                         \
    TILE_SHAPES_4(X, quant_w4, 1)                                                                  \
    TILE_SHAPES_4(X, quant_w4, 2)                                                                  \
    TILE_SHAPES_4(X, quant_w4, 3)                                                                  \
    TILE_SHAPES_4(X, quant_w4, 4)
#define QUANT_SHAPES_W8(X)                                                                         \
    TILE_SHAPES_4(X, quant_w8, 1)                                                                  \
    TILE_SHAPES_4(X, quant_w8, 2)                                                                  \
    TILE_SHAPES_4(X, quant_w8, 3)                                                                  \
    TILE_SHAPES_4(X, quant_w8, 4)                                                                  \
    TILE_SHAPES_4(X, quant_w8, 5)                                                                  \
    TILE_SHAPES_4(X, quant_w8, 6)
#else
#define QUANT_SHAPES_W4(X)                                                                         \
    TILE_SHAPES_2(X, quant_w4, 1)                                                                  \
    TILE_SHAPES_1(X, quant_w4, 2)
#define QUANT_SHAPES_W8(X)                                                                         \
    TILE_SHAPES_2(X, quant_w8, 1)                                                                  \
    TILE_SHAPES_1(X, quant_w8, 2)
#endif
QUANT_SHAPES_W8(QUANT_TILE)
QUANT_SHAPES_W4(QUANT_TILE)

typedef void (*const quant_table[QUANT_ROWS + 1][GROUP_PANELS + 1])(const struct quant_tile *);
static quant_table quant_w8_of = {QUANT_SHAPES_W8(TILE_ENTRY)};
static quant_table quant_w4_of = {QUANT_SHAPES_W4(TILE_ENTRY)};

/* A tile of any number of panels, in steps that fit the registers. */
static void quant_tile_run(quant_table table, uint32_t rows, uint32_t panels, struct quant_tile t) {
    for (uint32_t step; panels; panels -= step) {
        step = quant_tile_panels(rows) < panels ? quant_tile_panels(rows) : panels;
        table[rows][step](&t);
        t.head += step * t.head_stride;
        t.data += step * t.data_stride;
        t.sums += step * PANEL;
    }
}

/* Nibbles of a block of some panels to bytes: what many tiles will read is split only once. */
static void widen_nibbles(uint8_t *to, const uint8_t *from, size_t stride, uint32_t panels,
                          uint32_t quads) {
    for (uint32_t p = 0; p < panels; p++, from += stride)
        for (uint32_t i = 0; i < QUANT_K / 4; i += 2, to += 128) {
            q16_weights even, odd;
            if (i >= quads) continue;
            q_load_nibbles(from + i * 32, &even, &odd);
            q_store(to, even);
            q_store(to + 64, odd);
        }
}

/* The rows of x that lie in a thread's scratch. */
struct quant_rows {
    uint32_t row, rows; /* of y: begins at, how many */
    struct quant_operand *o;
};

/* A group of panels against those rows: panel counts panels of y, panels those of the weight. */
static void quant_panels(const struct gemm *g, const struct quant_rows *x, uint32_t panel,
                         uint32_t panels, float *sums) {
    struct quant_panel layout = quant_panel(g->k, g->dtype, g->group, g->zeros);
    uint32_t stored = g->gated ? 2 * panel : panel;
    const uint8_t *w = (const uint8_t *)g->w + stored * layout.bytes;
    bool nibbles = g->dtype == DTYPE_W4 && x->rows <= NIBBLE_ROWS;
    uint32_t tiles = (x->rows + QUANT_ROWS - 1) / QUANT_ROWS;
    size_t quads_done = 0, groups_done = 0;
    for (uint32_t k = 0; k < g->k; k += QUANT_K, w += layout.block) {
        uint32_t count = g->k - k < QUANT_K ? g->k - k : QUANT_K;
        struct quant_tile t = {
            .head = w,
            .data = w + layout.data,
            .head_stride = layout.bytes,
            .data_stride = layout.bytes,
            .groups = (count + g->group - 1) / g->group,
            .group_quads = g->group / 4,
            .quads = (count + 7) / 8 * 2,
            .zeros = g->zeros ? (uint32_t)layout.zeros : 0,
            .fresh = k == 0,
        };
        t.x_stride = (size_t)t.quads * QUAD_BYTES;
        if (g->dtype == DTYPE_W4 && !nibbles) {
            widen_nibbles(x->o->wide, t.data, t.data_stride, panels, t.quads);
            t.data = x->o->wide;
            t.data_stride = QUANT_K * PANEL;
        }
        for (uint32_t i = 0; i < tiles; i++) {
            uint32_t r = x->rows * i / tiles, end = x->rows * (i + 1) / tiles;
            t.x = x->o->x + quads_done * QUAD_BYTES + r * t.x_stride;
            t.scale = x->o->scale + groups_done + r * t.groups;
            t.start = x->o->start + groups_done + r * t.groups;
            t.sums = sums + (size_t)r * SPAN_PANELS * PANEL;
            quant_tile_run(nibbles ? quant_w4_of : quant_w8_of, end - r, panels, t);
            if (k + QUANT_K >= g->k) finish(g, x->row + r, end - r, stored, panels, t.sums);
        }
        quads_done += (size_t)x->rows * t.quads;
        groups_done += (size_t)x->rows * t.groups;
    }
}

/* Signed bytes to the order in which q_row reads them. */
V_INLINE void quant_place(uint8_t *to, const int8_t *bytes, uint32_t count) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    for (uint32_t i = 0; i < count; i += 4, to += 8) {
        int16_t quad[4] = {bytes[i], bytes[i + 2], bytes[i + 1], bytes[i + 3]};
        memcpy(to, quad, sizeof quad);
    }
#else
    memcpy(to, bytes, count);
#endif
}

/* One group of one row: its bytes, up to a multiple of 8 of them, its scale and its start. */
static void quantize_group(uint8_t *to, float *scale, int32_t *start, const float *x,
                           uint32_t count, bool zeros) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < count; i += 16)
        bits = q_most(x + i, count - i < 16 ? count - i : 16, bits);
    float most = float_of_bits(bits), unit = most > 0x1p-100f ? 127 / most : 0;
    int8_t bytes[128];
    uint32_t sum = 0; /* wraps where x is not finite */
    for (uint32_t i = 0; i < count; i += 16)
        sum += (uint32_t)q_round(bytes + i, x + i, count - i < 16 ? count - i : 16, unit);
    quant_place(to, bytes, (count + 7) / 8 * 8);
    *scale = most <= 0x1p-100f ? 0 : most / 127; /* of a NaN a NaN */
    *start = (int32_t)(zeros ? 0u - sum : 0u - 128 * sum);
}

static void quantize_rows(const struct gemm *g, const struct quant_rows *x) {
    uint8_t *to = x->o->x;
    float *scale = x->o->scale;
    int32_t *start = x->o->start;
    for (uint32_t k = 0; k < g->k; k += QUANT_K) {
        uint32_t end = g->k - k < QUANT_K ? g->k : k + QUANT_K;
        for (uint32_t r = 0; r < x->rows; r++)
            for (uint32_t i = k; i < end; i += g->group) {
                uint32_t count = end - i < g->group ? end - i : g->group;
                quantize_group(to, scale++, start++, g->x + (size_t)(x->row + r) * g->k + i, count,
                               g->zeros);
                to += (count + 7) / 8 * 2 * QUAD_BYTES;
            }
    }
}

static void gemm_quant(const struct gemm *g, uint32_t row_begin, uint32_t row_end,
                       uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch) {
    struct quant_rows x = {.o = &scratch->quant};
    uint32_t row_bytes = (g->k + 7) / 8 * 2 * QUAD_BYTES, at_once = QUANT_OPERAND / row_bytes;
    uint32_t each = g->gated ? 2 : 1, group = GROUP_PANELS / each;
    if (at_once > GEMM_ROWS) at_once = GEMM_ROWS;
    for (x.row = row_begin; x.row < row_end; x.row += x.rows) {
        x.rows = row_end - x.row < at_once ? row_end - x.row : at_once;
        quantize_rows(g, &x);
        for (uint32_t p = panel_begin; p < panel_end; p += group) {
            uint32_t panels = (panel_end - p < group ? panel_end - p : group) * each;
            quant_panels(g, &x, p, panels, scratch->sums);
        }
    }
}

#endif
