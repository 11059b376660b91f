/* gemm_body.h - rows of activations times panels of packed weights; compiled once per level.
 *
 * A tile is up to 6 rows by up to 4 panels, its sums in registers. Each sum is one chain over k in
 * order; between cache blocks of k it waits in memory as the float32 that it is, so neither the
 * tile nor the block it was computed in can change it.
 *
 * Units: elements.  Owner: level_*.c include this once.  Memory: struct scratch.  Errors: none.
 * Threads: any, each with its scratch. */
#ifndef PENSTOCK_KERNELS_CPU_GEMM_BODY_H
#define PENSTOCK_KERNELS_CPU_GEMM_BODY_H

#include "kernels/cpu/level.h"
#include "kernels/cpu/v16.h"

/* sums[row][panel * 16 ..] (+)= x[row] . w[panel]; strides in units of four bytes. */
struct tile {
    const void *x, *w;
    size_t x_stride, w_stride, sums_stride;
    uint32_t k;
    bool fresh; /* starts at zero instead of at sums */
    float *sums;
};

/* How many rows, and beside so many rows how many panels, fill the registers. */
#if defined(__AVX512F__)
enum { TILE_ROWS = 6 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    (void)rows;
    return 4;
}
#elif defined(__AVX2__)
enum { TILE_ROWS = 6 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}
#else
enum { TILE_ROWS = 2 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    (void)rows;
    return 1;
}
#endif

/* Opens a tile function: `rows` and `panels` are constants where it is inlined, so the sums live in
 * registers. */
#define TILE_OPEN(t)                                                                               \
    v16 sum[TILE_ROWS][GROUP_PANELS];                                                              \
    V_UNROLL for (uint32_t r = 0; r < rows; r++) V_UNROLL for (uint32_t p = 0; p < panels; p++)    \
        sum[r][p] = (t)->fresh ? v_zero() : v_load((t)->sums + r * (t)->sums_stride + p * PANEL)
#define TILE_CLOSE(t)                                                                              \
    V_UNROLL for (uint32_t r = 0; r < rows; r++) V_UNROLL for (uint32_t p = 0; p < panels; p++)    \
        v_store((t)->sums + r * (t)->sums_stride + p * PANEL, sum[r][p])

V_INLINE void tile_f32(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const float *x = t->x, *w = t->w;
    size_t x_stride = t->x_stride, w_stride = t->w_stride;
    TILE_OPEN(t);
    for (uint32_t k = 0; k < t->k; k++, x++, w += PANEL) {
        v16 panel[GROUP_PANELS];
        V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] = v_load(w + p * w_stride);
        V_UNROLL for (uint32_t r = 0; r < rows; r++) {
            v16 one = v_all(x[r * x_stride]);
            V_UNROLL for (uint32_t p = 0; p < panels; p++) sum[r][p] =
                v_fma(one, panel[p], sum[r][p]);
        }
    }
    TILE_CLOSE(t);
}

/* bf16 weights against float32 activations: widened exactly, two steps of k a pair. */
V_INLINE void tile_wide(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const float *x = t->x;
    const uint16_t *w = t->w;
    size_t x_stride = t->x_stride, w_stride = 2 * t->w_stride;
    TILE_OPEN(t);
    for (uint32_t k = 0; k + 1 < t->k; k += 2, x += 2, w += 2 * PANEL)
        V_UNROLL for (uint32_t p = 0; p < panels; p++) {
            v16 even, odd;
            v_load_pairs(w + p * w_stride, &even, &odd);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) {
                sum[r][p] = v_fma(v_all(x[r * x_stride]), even, sum[r][p]);
                sum[r][p] = v_fma(v_all(x[r * x_stride + 1]), odd, sum[r][p]);
            }
        }
    if (t->k % 2) V_UNROLL for (uint32_t p = 0; p < panels; p++) {
            v16 even, none;
            v_load_pairs(w + p * w_stride, &even, &none);
            V_UNROLL for (uint32_t r = 0; r < rows; r++) sum[r][p] =
                v_fma(v_all(x[r * x_stride]), even, sum[r][p]);
        }
    TILE_CLOSE(t);
}

#ifdef __AVX512BF16__
/* bf16 weights against activations rounded to bf16: a pair of k a step, both in 32 bits. */
V_INLINE void tile_dots(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const int32_t *x = t->x;
    const float *w = t->w;
    size_t x_stride = t->x_stride, w_stride = t->w_stride;
    TILE_OPEN(t);
    for (uint32_t k = 0; k < t->k; k++, x++, w += PANEL) {
        __m512bh panel[GROUP_PANELS];
        V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] =
            (__m512bh)_mm512_loadu_si512((const void *)(w + p * w_stride));
        V_UNROLL for (uint32_t r = 0; r < rows; r++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32(x[r * x_stride]);
            V_UNROLL for (uint32_t p = 0; p < panels; p++) sum[r][p] =
                _mm512_dpbf16_ps(sum[r][p], panel[p], pair);
        }
    }
    TILE_CLOSE(t);
}
#endif

/* A function for each shape of a tile that the level uses, found by [rows][panels]. */
#define TILE(kind, r, p)                                                                           \
    static void kind##_##r##x##p(const struct tile *t) {                                           \
        kind(r, p, t);                                                                             \
    }
#define TILE_SHAPES_1(X, kind, r) X(kind, r, 1)
#define TILE_SHAPES_2(X, kind, r) TILE_SHAPES_1(X, kind, r) X(kind, r, 2)
#define TILE_SHAPES_4(X, kind, r) TILE_SHAPES_2(X, kind, r) X(kind, r, 3) X(kind, r, 4)
#if defined(__AVX512F__)
#define TILE_SHAPES(X, kind)                                                                       \
    TILE_SHAPES_4(X, kind, 1)                                                                      \
    TILE_SHAPES_4(X, kind, 2)                                                                      \
    TILE_SHAPES_4(X, kind, 3)                                                                      \
    TILE_SHAPES_4(X, kind, 4)                                                                      \
    TILE_SHAPES_4(X, kind, 5)                                                                      \
    TILE_SHAPES_4(X, kind, 6)
#elif defined(__AVX2__)
#define TILE_SHAPES(X, kind)                                                                       \
    TILE_SHAPES_4(X, kind, 1)                                                                      \
    TILE_SHAPES_2(X, kind, 2)                                                                      \
    TILE_SHAPES_2(X, kind, 3)                                                                      \
    TILE_SHAPES_1(X, kind, 4)                                                                      \
    TILE_SHAPES_1(X, kind, 5)                                                                      \
    TILE_SHAPES_1(X, kind, 6)
#else
#define TILE_SHAPES(X, kind)                                                                       \
    TILE_SHAPES_1(X, kind, 1)                                                                      \
    TILE_SHAPES_1(X, kind, 2)
#endif
#define TILE_ENTRY(kind, r, p) [r][p] = kind##_##r##x##p,
#define TILE_TABLE(kind)                                                                           \
    TILE_SHAPES(TILE, kind)                                                                        \
    static void (*const kind##_of[TILE_ROWS + 1][GROUP_PANELS + 1])(const struct tile *) = {       \
        TILE_SHAPES(TILE_ENTRY, kind)};

typedef void (*const tile_table[TILE_ROWS + 1][GROUP_PANELS + 1])(const struct tile *);

TILE_TABLE(tile_f32)
TILE_TABLE(tile_wide)
#ifdef __AVX512BF16__
TILE_TABLE(tile_dots)
#endif

/* A tile of any number of panels, in steps that fit the registers. */
static void tile_run(tile_table table, uint32_t rows, uint32_t panels, struct tile t) {
    const char *w = t.w;
    for (uint32_t step; panels; panels -= step) {
        step = tile_panels(rows) < panels ? tile_panels(rows) : panels;
        t.w = w;
        table[rows][step](&t);
        w += step * t.w_stride * 4;
        t.sums += step * PANEL;
    }
}

/* Where 1 + erf or 1 + tanh has cancelled to a rounding error, x must not enlarge it: GELU is zero
 * from there on (its true value is above -1.1e-7), and before that on the right side of zero. */
V_INLINE v16 gelu(v16 x, v16 erf_or_tanh, float least) {
    v16 y = v_mul(v_mul(v_all(0.5f), x), v_add(v_all(1), erf_or_tanh));
    return v_keep_from(v_min(v_max(v_zero(), x), y), x, v_all(least));
}

V_INLINE v16 activate(enum ops_act act, v16 x) {
    switch (act) {
    case OPS_ACT_GELU: return gelu(x, v_erf(v_mul(x, v_all(0.70710678f))), -5.5f);
    case OPS_ACT_GELU_TANH: {
        v16 cube = v_mul(v_mul(x, x), v_mul(x, v_all(0.044715f)));
        return gelu(x, v_tanh(v_mul(v_all(0.79788456f), v_add(x, cube))), -5.2f);
    }
    case OPS_ACT_RELU: return v_max(v_zero(), x);
    case OPS_ACT_SILU: return v_div(x, v_add(v_all(1), v_exp(v_sub(v_zero(), x))));
    case OPS_ACT_TANH: return v_tanh(x);
    case OPS_ACT_NONE: break;
    }
    return x;
}

/* The sums of one row and one panel of y (two panels of sums when gated) to their place in y. */
V_INLINE void finish_panel(const struct gemm *g, uint32_t row, uint32_t panel, const float *sums) {
    uint32_t column = panel * PANEL, count = g->n - column < PANEL ? g->n - column : PANEL;
    size_t at = (size_t)row * g->n + column;
    const float *add = NULL;
    if (g->add && row >= g->add_from)
        add = g->add + (size_t)(row - g->add_from) * g->n * (g->gated ? 2 : 1) + column;
    v16 y = v_load(sums);
    if (g->bias) y = v_add(y, v_load_part(g->bias + column, count));
    if (add) y = v_add(y, v_load_part(add, count));
    y = activate(g->act, y);
    if (g->gated) {
        v16 up = v_load(sums + PANEL);
        y = v_mul(y, add ? v_add(up, v_load_part(add + g->n, count)) : up);
    }
    if (g->residual) y = v_add(y, v_load_part(g->residual + at, count));
    v_store_part(g->y + at, y, count);
}

static void finish(const struct gemm *g, uint32_t row, uint32_t rows, uint32_t panel,
                   uint32_t panels, const float *sums) {
    uint32_t step = g->gated ? 2 : 1;
    for (uint32_t r = 0; r < rows; r++, sums += GROUP_PANELS * PANEL)
        for (uint32_t p = 0; p < panels; p += step)
            finish_panel(g, row + r, panel + p / step, sums + p * PANEL);
}

/* Activations as the tiles of a table read them. A step is 4 bytes of a row of x (one k, or a pair
 * of bf16) and w_step times 4 bytes of a panel. Rows lie x_stride apart; or, where that is 0, as
 * blocks of GEMM_K steps, [block][row][step], so that what a tile reads is in one place. */
struct operand {
    tile_table *table;
    const float *x;
    size_t x_stride;
    uint32_t steps, w_step;
};

/* A group of panels against `rows` rows of x, which are the rows from `row` of y. */
static void gemm_group(const struct gemm *g, const struct operand *x, uint32_t row, uint32_t rows,
                       uint32_t panel, uint32_t panels, float *sums) {
    size_t w_stride = panel_bytes(g->k, g->dtype) / 4, sums_stride = GROUP_PANELS * PANEL;
    const float *w = (const float *)g->w + (g->gated ? 2 * panel : panel) * w_stride;
    uint32_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    uint32_t block = x->x_stride ? x->steps : GEMM_K;
    for (uint32_t k = 0; k < x->steps; k += block)
        for (uint32_t i = 0; i < tiles; i++) {
            uint32_t r = rows * i / tiles, end = rows * (i + 1) / tiles;
            uint32_t steps = x->steps - k < block ? x->steps - k : block;
            size_t x_stride = x->x_stride ? x->x_stride : steps;
            struct tile t = {
                .x = x->x + (size_t)k * rows +
                     r * x_stride, /* k is 0 where rows are not in blocks */
                .w = w + (size_t)k * x->w_step,
                .x_stride = x_stride,
                .w_stride = w_stride,
                .sums_stride = sums_stride,
                .k = steps,
                .fresh = k == 0,
                .sums = sums + r * sums_stride,
            };
            tile_run(*x->table, end - r, panels, t);
            if (k + block >= x->steps) finish(g, row + r, end - r, panel, panels, t.sums);
        }
}

/* One block of rows against all the panels from panel_begin on. */
static void gemm_rows(const struct gemm *g, const struct operand *x, uint32_t row, uint32_t rows,
                      uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch) {
    uint32_t each = g->gated ? 2 : 1, group = GROUP_PANELS / each;
    for (uint32_t p = panel_begin; p < panel_end; p += group) {
        uint32_t panels = (panel_end - p < group ? panel_end - p : group) * each;
        gemm_group(g, x, row, rows, p, panels, scratch->sums);
    }
}

/* Rows that fit the scratch as operands of so many steps. */
V_INLINE uint32_t rows_at_once(uint32_t steps) {
    uint32_t fit = GEMM_OPERAND / steps;
    return fit < GEMM_ROWS ? fit : GEMM_ROWS;
}

static void gemm(const struct gemm *g, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                 uint32_t panel_end, struct scratch *scratch) {
    struct operand x = {.table = &tile_f32_of, .steps = g->k, .w_step = PANEL};
    if (g->dtype != DTYPE_F32) x.table = &tile_wide_of, x.w_step = PANEL / 2;
    uint32_t at_once = rows_at_once(g->k), rows;
    for (uint32_t r = row_begin; r < row_end; r += rows) {
        rows = row_end - r < at_once ? row_end - r : at_once;
        x.x = g->x + (size_t)r * g->k;
        x.x_stride = g->k;
        if (rows >
            TILE_ROWS) { /* a single tile reads each row only once a group: leave them there */
            float *to = (float *)(void *)scratch->operand;
            for (uint32_t k = 0; k < g->k; k += GEMM_K) {
                uint32_t steps = g->k - k < GEMM_K ? g->k - k : GEMM_K;
                for (uint32_t i = 0; i < rows; i++, to += steps)
                    memcpy(to, x.x + (size_t)i * g->k + k, steps * sizeof *to);
            }
            x.x = (const float *)(const void *)scratch->operand;
            x.x_stride = 0;
        }
        gemm_rows(g, &x, r, rows, panel_begin, panel_end, scratch);
    }
}

#ifdef __AVX512BF16__
/* k floats as pairs of bf16, rounded to nearest even (subnormals to zero, as the dots take them);
 * the last pair is filled with zero. */
static void round_row(uint32_t *to, const float *x, uint32_t k) {
    for (uint32_t i = 0; i < k; i += 32) {
        uint32_t left = k - i, low = left < 16 ? left : 16, high = left < 32 ? left - low : 16;
        __m512bh pairs =
            _mm512_cvtne2ps_pbh(v_load_part(x + i + low, high), v_load_part(x + i, low));
        uint32_t count = left < 32 ? (left + 1) / 2 : 16;
        _mm512_mask_storeu_epi32(to + i / 2, v_first(count), (__m512i)pairs);
    }
}

static void gemm_dots(const struct gemm *g, uint32_t row_begin, uint32_t row_end,
                      uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch) {
    if (g->dtype == DTYPE_F32) {
        gemm(g, row_begin, row_end, panel_begin, panel_end, scratch);
        return;
    }
    struct operand x = {.table = &tile_dots_of, .steps = (g->k + 1) / 2, .w_step = PANEL};
    uint32_t at_once = rows_at_once(x.steps), rows;
    x.x = (const float *)(const void *)scratch->operand;
    for (uint32_t r = row_begin; r < row_end; r += rows) {
        rows = row_end - r < at_once ? row_end - r : at_once;
        uint32_t *to = scratch->operand;
        for (uint32_t k = 0; k < g->k; k += 2 * GEMM_K) {
            uint32_t count = g->k - k < 2 * GEMM_K ? g->k - k : 2 * GEMM_K;
            for (uint32_t i = 0; i < rows; i++, to += (count + 1) / 2)
                round_row(to, g->x + (size_t)(r + i) * g->k + k, count);
        }
        gemm_rows(g, &x, r, rows, panel_begin, panel_end, scratch);
    }
}
#endif

#endif
