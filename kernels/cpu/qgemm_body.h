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
    const float *scale;         /* [group][row] of the activations, */
    const int32_t *start;       /* [group][row] and what their integer sums start from */
    const uint8_t *head, *data; /* of the first panel's block; the others' at these strides */
    size_t head_stride, data_stride;
    uint32_t group_quads, quads; /* of a group, and of the block, whose last group may have fewer */
    uint32_t zeros;              /* where in the head zero points begin; 0: none */
    bool fresh;                  /* starts at zero instead of at sums */
    float *sums;                 /* rows at a stride of SPAN_PANELS * PANEL */
    /* Lines of the block that comes next which this tile fetches, of each panel. */
    const uint8_t *next;
    uint32_t line, line_end;
};

#if defined(__AVX512VNNI__)
enum { QUANT_ROWS = 6, NIBBLE_ROWS = 4 };
V_INLINE uint32_t quant_tile_panels(uint32_t rows) {
    (void)rows;
    return 4;
}
#elif defined(__AVX2__)
enum { QUANT_ROWS = 4, NIBBLE_ROWS = 2 };
V_INLINE uint32_t quant_tile_panels(uint32_t rows) {
    return rows == 1 ? 2 : 1;
}
#else
enum { QUANT_ROWS = 2, NIBBLE_ROWS = 2 };
V_INLINE uint32_t quant_tile_panels(uint32_t rows) {
    (void)rows;
    return 1;
}
#endif

/* dot[row][panel] += x[row] . w[panel] over `quads` quads. */
V_INLINE void quant_dots(const uint32_t rows, const uint32_t panels, const bool nibbles,
                         q16 dot[QUANT_ROWS][GROUP_PANELS], const uint8_t *x, size_t x_stride,
                         const uint8_t *w, size_t w_stride, uint32_t quads) {
    if (nibbles)
        for (; quads; quads -= 2, x += 2 * QUAD_BYTES, w += 64) {
            q16_weights even[GROUP_PANELS], odd[GROUP_PANELS];
            V_UNROLL for (uint32_t p = 0; p < panels; p++)
                q_load_nibbles(w + p * w_stride, &even[p], &odd[p]);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                q16_row first = q_row(x + r * x_stride);
                q16_row second = q_row(x + r * x_stride + QUAD_BYTES);
                V_UNROLL for (uint32_t p = 0; p < panels; p++) dot[r][p] =
                    q_dot(q_dot(dot[r][p], even[p], first), odd[p], second);
            }
        }
    else
        for (; quads; quads--, x += QUAD_BYTES, w += 64) {
            q16_weights panel[GROUP_PANELS];
            V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] = q_load(w + p * w_stride);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                q16_row quad = q_row(x + r * x_stride);
                V_UNROLL for (uint32_t p = 0; p < panels; p++) dot[r][p] =
                    q_dot(dot[r][p], panel[p], quad);
            }
        }
}

/* Everything that the loops need is copied from t first: sums could be anywhere, so the compiler
 * would read it again after each store. */
V_INLINE void quant_tile(const uint32_t rows, const uint32_t panels, const bool nibbles,
                         const bool zeros, const struct quant_tile *t) {
    const uint8_t *x = t->x, *head = t->head, *w = t->data;
    const float *scale = t->scale;
    const int32_t *start = t->start;
    const size_t x_stride = t->x_stride, head_stride = t->head_stride, w_stride = t->data_stride;
    const uint32_t group = t->group_quads, zero = t->zeros;
    const uint32_t groups = (t->quads + group - 1) / group, lines = t->line_end - t->line;
    const uint8_t *next = t->next + (size_t)t->line * LINE;
    float *const sums = t->sums;
    if (t->fresh)
        V_UNROLL for (uint32_t r = 0; r < rows; r++) V_UNROLL for (uint32_t p = 0; p < panels; p++)
            v_store(sums + r * SPAN_PANELS * PANEL + p * PANEL, v_zero());
    for (uint32_t left = t->quads, g = 0, quads; left; left -= quads, g++) {
        q16 dot[QUANT_ROWS][GROUP_PANELS];
        quads = left < group ? left : group;
        for (uint32_t i = lines * g / groups; i < lines * (g + 1) / groups; i++)
            V_UNROLL for (uint32_t p = 0; p < panels; p++)
                __builtin_prefetch(next + p * head_stride + (size_t)i * LINE);
        V_UNROLL for (uint32_t p = 0; p < panels; p++) V_UNROLL for (uint32_t r = 0; r < rows; r++)
            dot[r][p] = zeros ? q_zeros(head + p * head_stride + zero + g * PANEL, start[r])
                              : q_all(start[r]);
        quant_dots(rows, panels, nibbles, dot, x, x_stride, w, w_stride, quads);
        /* The registers are full of dots: the sums stay in memory, and are not read before this. */
        __asm__ volatile("" ::: "memory");
        V_UNROLL for (uint32_t p = 0; p < panels; p++) {
            const uint8_t *at = head + p * head_stride + g * PANEL * 2;
            v16 unit = v_load_bf16((const uint16_t *)(const void *)at);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                float *sum = sums + r * SPAN_PANELS * PANEL + p * PANEL;
                v16 both = v_mul(unit, v_all(scale[r]));
                v_store(sum, q_fma(q_float(dot[r][p]), both, v_load(sum)));
            }
        }
        x += (size_t)quads * QUAD_BYTES;
        w += (size_t)quads * (nibbles ? 32 : 64);
        scale += rows;
        start += rows;
    }
}

#define QUANT_TILE(kind, r, p)                                                                     \
    static void kind##_##r##x##p(const struct quant_tile *t) {                                     \
        if (t->zeros)                                                                              \
            quant_tile(r, p, kind##_nibbles, true, t);                                             \
        else                                                                                       \
            quant_tile(r, p, kind##_nibbles, false, t);                                            \
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
#elif defined(__AVX2__)
#define QUANT_SHAPES_W4(X)                                                                         \
    TILE_SHAPES_2(X, quant_w4, 1)                                                                  \
    TILE_SHAPES_1(X, quant_w4, 2)
#define QUANT_SHAPES_W8(X)                                                                         \
    TILE_SHAPES_2(X, quant_w8, 1)                                                                  \
    TILE_SHAPES_1(X, quant_w8, 2)                                                                  \
    TILE_SHAPES_1(X, quant_w8, 3)                                                                  \
    TILE_SHAPES_1(X, quant_w8, 4)
#else
#define QUANT_SHAPES_W4(X)                                                                         \
    TILE_SHAPES_1(X, quant_w4, 1)                                                                  \
    TILE_SHAPES_1(X, quant_w4, 2)
#define QUANT_SHAPES_W8(X)                                                                         \
    TILE_SHAPES_1(X, quant_w8, 1)                                                                  \
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
        t.next += step * t.head_stride;
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

/* The rows of x that lie in a thread's scratch, cut into tiles: [block][row] their bytes, and
 * [block][tile][group][row] their scales and starts. */
struct quant_rows {
    uint32_t row, rows, tiles; /* of y: begins at, how many */
    struct quant_operand *o;
};
V_INLINE uint32_t quant_tile_begin(const struct quant_rows *x, uint32_t tile) {
    return x->rows * tile / x->tiles;
}

/* A group of panels against those rows: `panel` is its number in the weight. */
static void quant_panels(const struct gemm *g, const struct quant_rows *x, uint32_t panel,
                         uint32_t panels, float *sums) {
    struct quant_panel layout = quant_panel(g->k, g->dtype, g->group, g->zeros);
    const uint8_t *first = (const uint8_t *)g->w + panel * layout.bytes, *w = first;
    bool nibbles = g->dtype == DTYPE_W4 && x->rows <= NIBBLE_ROWS;
    size_t quads_done = 0, groups_done = 0;
    for (uint32_t k = 0; k < g->k; k += QUANT_K, w += layout.block) {
        uint32_t count = g->k - k < QUANT_K ? g->k - k : QUANT_K;
        uint32_t groups = (count + g->group - 1) / g->group;
        struct quant_tile t = {
            .head = w,
            .data = w + layout.data,
            .head_stride = layout.bytes,
            .data_stride = layout.bytes,
            .group_quads = g->group / 4,
            .quads = (count + 7) / 8 * 2,
            .zeros = g->zeros ? (uint32_t)layout.zeros : 0,
            .fresh = k == 0,
            /* The block after this one, or the first one of the next panels. */
            .next = k + QUANT_K < g->k ? w + layout.block : first + panels * layout.bytes,
        };
        uint32_t lines =
            (uint32_t)(layout.block < layout.bytes ? layout.block : layout.bytes) / LINE;
        t.x_stride = (size_t)t.quads * QUAD_BYTES;
        if (g->dtype == DTYPE_W4 && !nibbles) {
            widen_nibbles(x->o->wide, t.data, t.data_stride, panels, t.quads);
            t.data = x->o->wide;
            t.data_stride = QUANT_K * PANEL;
        }
        for (uint32_t i = 0; i < x->tiles; i++) {
            uint32_t r = quant_tile_begin(x, i), rows = quant_tile_begin(x, i + 1) - r;
            t.x = x->o->x + quads_done * QUAD_BYTES + r * t.x_stride;
            t.scale = x->o->scale + groups_done + r * groups;
            t.start = x->o->start + groups_done + r * groups;
            t.sums = sums + (size_t)r * SPAN_PANELS * PANEL;
            t.line = lines * i / x->tiles;
            t.line_end = lines * (i + 1) / x->tiles;
            quant_tile_run(nibbles ? quant_w4_of : quant_w8_of, rows, panels, t);
            if (k + QUANT_K >= g->k) finish(g, x->row + r, rows, panel, panels, t.sums);
        }
        quads_done += (size_t)x->rows * t.quads;
        groups_done += (size_t)x->rows * groups;
    }
}

/* One group of one row: its bytes, up to a multiple of 8 of them, its scale and its start. */
V_INLINE void quantize_group(uint8_t *to, float *scale, int32_t *start, const float *x,
                             uint32_t count, bool zeros) {
    v16 part[QUANT_K / 2 / PANEL];
    uint32_t parts = (count + PANEL - 1) / PANEL;
    for (uint32_t i = 0; i < parts; i++)
        part[i] = count - i * PANEL < PANEL ? v_load_part(x + i * PANEL, count - i * PANEL)
                                            : v_load(x + i * PANEL);
    float most = q_most(part, parts), unit = most > 0x1p-100f ? 127 / most : 0;
    *scale = most <= 0x1p-100f ? 0 : most / 127; /* of a NaN a NaN */
    uint32_t sum = q_round(to, part, count, unit);
    *start = (int32_t)(zeros ? 0u - sum : 0u - 128 * sum);
}

static void quantize_rows(const struct gemm *g, const struct quant_rows *x) {
    uint8_t *to = x->o->x;
    float *scale = x->o->scale;
    int32_t *start = x->o->start;
    for (uint32_t k = 0; k < g->k; k += QUANT_K) {
        uint32_t all = g->k - k < QUANT_K ? g->k - k : QUANT_K;
        uint32_t groups = (all + g->group - 1) / g->group;
        for (uint32_t tile = 0; tile < x->tiles; tile++) {
            uint32_t begin = quant_tile_begin(x, tile);
            uint32_t rows = quant_tile_begin(x, tile + 1) - begin;
            for (uint32_t r = 0; r < rows; r++) {
                const float *from = g->x + (size_t)(x->row + begin + r) * g->k + k;
                for (uint32_t i = 0; i < groups; i++) {
                    uint32_t at = i * g->group, count = all - at < g->group ? all - at : g->group;
                    quantize_group(to, scale + i * rows + r, start + i * rows + r, from + at, count,
                                   g->zeros);
                    to += (count + 7) / 8 * 2 * QUAD_BYTES;
                }
            }
            scale += (size_t)groups * rows;
            start += (size_t)groups * rows;
        }
    }
}

static void gemm_quant(const struct gemm *g, uint32_t row_begin, uint32_t row_end,
                       uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch) {
    struct quant_rows x = {.o = &scratch->quant};
    uint32_t row_bytes = (g->k + 7) / 8 * 2 * QUAD_BYTES, at_once = QUANT_OPERAND / row_bytes;
    uint32_t each = g->gated ? 2 : 1, all = row_end - row_begin;
    if (at_once > GEMM_ROWS) at_once = GEMM_ROWS;
    uint32_t parts = (all + at_once - 1) / at_once;
    for (uint32_t part = 0; part < parts; part++) {
        x.row = row_begin + (uint32_t)((uint64_t)all * part / parts);
        x.rows = row_begin + (uint32_t)((uint64_t)all * (part + 1) / parts) - x.row;
        x.tiles = (x.rows + QUANT_ROWS - 1) / QUANT_ROWS;
        quantize_rows(g, &x);
        for (uint32_t p = panel_begin * each; p < panel_end * each; p += GROUP_PANELS) {
            uint32_t left = panel_end * each - p;
            quant_panels(g, &x, p, left < GROUP_PANELS ? left : GROUP_PANELS, scratch->sums);
        }
    }
}

#endif
