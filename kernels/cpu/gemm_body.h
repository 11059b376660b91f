/* gemm_body.h - rows of activations times panels of packed weights; compiled once per level.
 *
 * A tile is as many rows and panels as the registers hold sums of: few rows beside four panels,
 * many beside one, so that a batch of some sequences reads and widens each weight once. Each sum is
 * one chain over k in order; between cache blocks of k it waits in memory as the float32 that it
 * is, so neither the tile nor the block it was computed in can change it.
 *
 * Units: elements; a step is what a tile takes from a row of x at a time: one k, or a pair of bf16.
 * Owner: level_*.c include this once.  Memory: struct scratch.  Errors: none.
 * Threads: any, each with its scratch. */
#ifndef PENSTOCK_KERNELS_CPU_GEMM_BODY_H
#define PENSTOCK_KERNELS_CPU_GEMM_BODY_H

#include "kernels/cpu/level.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/v16.h"

/* sums[row][panel * 16 ..] (+)= x[row] . w[panel]; strides in units of four bytes. */
struct tile {
    const void *x; /* [step][rows] */
    const void *w;
    size_t w_stride, sums_stride;
    /* Bytes from the end of these panels to where the next ones begin that this thread reads: the
     * weights are fetched ahead of the multiply-adds, across that gap too. */
    ptrdiff_t gap;
    uint32_t k;
    bool fresh; /* starts at zero instead of at sums */
    float *sums;
};

/* Lines of 64 bytes that a panel is fetched ahead: 2 KiB hide the latency of memory (97 % of the
 * bandwidth that plain reading reaches, against 80 % without, on a Sapphire Rapids). */
enum { AHEAD = 32, LINE = 64 };

/* Under a sanitizer a compiler takes minutes for all shapes; their sums are the same in any. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TILES_FEW
#endif

/* How many rows, and beside so many rows how many panels, fill the registers; float32 weights are
 * not widened, so they gain nothing from more rows than TILE_ROWS_F32. */
#if defined(__AVX512F__) && defined(TILES_FEW)
enum { TILE_ROWS = 7, TILE_ROWS_F32 = 7 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    return rows <= 6 ? 4 : 2;
}
#elif defined(__AVX512F__)
enum { TILE_ROWS = 28, TILE_ROWS_F32 = 14 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    return rows <= 6 ? 4 : rows <= 14 ? 2 : 1;
}
#elif defined(__AVX2__)
enum { TILE_ROWS = 6, TILE_ROWS_F32 = 6 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}
#else
enum { TILE_ROWS = 2, TILE_ROWS_F32 = 2 };
V_INLINE uint32_t tile_panels(uint32_t rows) {
    (void)rows;
    return 1;
}
#endif

/* Opens a tile function: `rows` and `panels` are constants where it is inlined, so the sums live in
 * registers. A tile of one panel has up to TILE_ROWS sums, one of four up to six. */
#define TILE_OPEN(t)                                                                               \
    v16 sum[TILE_ROWS][GROUP_PANELS];                                                              \
    V_UNROLL for (uint32_t r = 0; r < rows; r++) V_UNROLL for (uint32_t p = 0; p < panels; p++)    \
        sum[r][p] = (t)->fresh ? v_zero() : v_load((t)->sums + r * (t)->sums_stride + p * PANEL)
#define TILE_CLOSE(t)                                                                              \
    V_UNROLL for (uint32_t r = 0; r < rows; r++) V_UNROLL for (uint32_t p = 0; p < panels; p++)    \
        v_store((t)->sums + r * (t)->sums_stride + p * PANEL, sum[r][p])
/* Line `i` of `lines` of the panels at w, w_stride floats apart: fetches the one AHEAD of it. */
#define TILE_FETCH(t, w, i, lines, far)                                                            \
    if ((i) + AHEAD == (lines) || ((i) == 0 && (lines) < AHEAD)) (far) += (t)->gap;                \
    V_UNROLL for (uint32_t p = 0; p < panels; p++)                                                 \
        __builtin_prefetch((const char *)(w) + p * (t)->w_stride * 4 + (far))

/* One step of k: every sum gets x[r * x_stride] times its panel. */
#define TILE_STEP(x, x_stride, panel)                                                              \
    V_UNROLL for (uint32_t r = 0; r < rows; r++) {                                                 \
        v16 one = v_all((x)[r * (x_stride)]);                                                      \
        V_UNROLL for (uint32_t p = 0; p < panels; p++) sum[r][p] =                                 \
            v_fma(one, (panel)[p], sum[r][p]);                                                     \
    }

V_INLINE void tile_f32(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const float *x = t->x, *w = t->w;
    ptrdiff_t far = AHEAD * LINE;
    TILE_OPEN(t);
    for (uint32_t k = 0; k < t->k; k++, x += rows, w += PANEL) {
        v16 panel[GROUP_PANELS];
        TILE_FETCH(t, w, k, t->k, far);
        V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] = v_load(w + p * t->w_stride);
        TILE_STEP(x, 1, panel)
    }
    TILE_CLOSE(t);
}

/* The same with x [rows][step], rows ATTEND_KEYS apart: attention's weights times values, which
 * lie in the cache. */
V_INLINE void tile_near(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const float *x = t->x, *w = t->w;
    TILE_OPEN(t);
    for (uint32_t k = 0; k < t->k; k++, x++, w += PANEL) {
        v16 panel[GROUP_PANELS];
        V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] = v_load(w + p * t->w_stride);
        TILE_STEP(x, ATTEND_KEYS, panel)
    }
    TILE_CLOSE(t);
}

/* bf16 weights against float32 activations: widened exactly, two steps of k a pair. */
V_INLINE void tile_wide(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const float *x = t->x;
    const uint16_t *w = t->w;
    ptrdiff_t far = AHEAD * LINE;
    uint32_t lines = (t->k + 1) / 2;
    TILE_OPEN(t);
    for (uint32_t i = 0; i < lines; i++, x += 2 * rows, w += 2 * PANEL) {
        v16 even[GROUP_PANELS], odd[GROUP_PANELS];
        TILE_FETCH(t, w, i, lines, far);
        V_UNROLL for (uint32_t p = 0; p < panels; p++)
            v_load_pairs(w + p * 2 * t->w_stride, &even[p], &odd[p]);
        TILE_STEP(x, 1, even)
        if (2 * i + 1 == t->k) break;
        TILE_STEP(x + rows, 1, odd)
    }
    TILE_CLOSE(t);
}

#ifdef __AVX512BF16__
/* bf16 weights against activations rounded to bf16: a pair of k a step, both in 32 bits. */
V_INLINE void tile_dots(const uint32_t rows, const uint32_t panels, const struct tile *t) {
    const int32_t *x = t->x;
    const float *w = t->w;
    ptrdiff_t far = AHEAD * LINE;
    TILE_OPEN(t);
    for (uint32_t k = 0; k < t->k; k++, x += rows, w += PANEL) {
        __m512bh panel[GROUP_PANELS];
        TILE_FETCH(t, w, k, t->k, far);
        V_UNROLL for (uint32_t p = 0; p < panels; p++) panel[p] =
            (__m512bh)_mm512_loadu_si512((const void *)(w + p * t->w_stride));
        V_UNROLL for (uint32_t r = 0; r < rows; r++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32(x[r]);
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
#define TILE_SHAPES_F32(X, kind)                                                                   \
    TILE_SHAPES_4(X, kind, 1)                                                                      \
    TILE_SHAPES_4(X, kind, 2)                                                                      \
    TILE_SHAPES_4(X, kind, 3)                                                                      \
    TILE_SHAPES_4(X, kind, 4)                                                                      \
    TILE_SHAPES_4(X, kind, 5)                                                                      \
    TILE_SHAPES_4(X, kind, 6)                                                                      \
    TILE_SHAPES_TALL_F32(X, kind)
#ifdef TILES_FEW
#define TILE_SHAPES_TALL_F32(X, kind) TILE_SHAPES_2(X, kind, 7)
#define TILE_SHAPES TILE_SHAPES_F32
#else
#define TILE_SHAPES_TALL_F32(X, kind)                                                              \
    TILE_SHAPES_2(X, kind, 7)                                                                      \
    TILE_SHAPES_2(X, kind, 8)                                                                      \
    TILE_SHAPES_2(X, kind, 9)                                                                      \
    TILE_SHAPES_2(X, kind, 10)                                                                     \
    TILE_SHAPES_2(X, kind, 11)                                                                     \
    TILE_SHAPES_2(X, kind, 12)                                                                     \
    TILE_SHAPES_2(X, kind, 13)                                                                     \
    TILE_SHAPES_2(X, kind, 14)
#define TILE_SHAPES(X, kind)                                                                       \
    TILE_SHAPES_F32(X, kind)                                                                       \
    X(kind, 15, 1)                                                                                 \
    X(kind, 16, 1)                                                                                 \
    X(kind, 17, 1)                                                                                 \
    X(kind, 18, 1)                                                                                 \
    X(kind, 19, 1)                                                                                 \
    X(kind, 20, 1)                                                                                 \
    X(kind, 21, 1)                                                                                 \
    X(kind, 22, 1)                                                                                 \
    X(kind, 23, 1)                                                                                 \
    X(kind, 24, 1)                                                                                 \
    X(kind, 25, 1)                                                                                 \
    X(kind, 26, 1)                                                                                 \
    X(kind, 27, 1)                                                                                 \
    X(kind, 28, 1)
#endif
#elif defined(__AVX2__)
#define TILE_SHAPES_F32(X, kind)                                                                   \
    TILE_SHAPES_4(X, kind, 1)                                                                      \
    TILE_SHAPES_2(X, kind, 2)                                                                      \
    TILE_SHAPES_2(X, kind, 3)                                                                      \
    TILE_SHAPES_1(X, kind, 4)                                                                      \
    TILE_SHAPES_1(X, kind, 5)                                                                      \
    TILE_SHAPES_1(X, kind, 6)
#define TILE_SHAPES TILE_SHAPES_F32
#else
#define TILE_SHAPES_F32(X, kind)                                                                   \
    TILE_SHAPES_1(X, kind, 1)                                                                      \
    TILE_SHAPES_1(X, kind, 2)
#define TILE_SHAPES TILE_SHAPES_F32
#endif
#define TILE_ENTRY(kind, r, p) [r][p] = kind##_##r##x##p,
#define TILE_TABLE(kind, SHAPES)                                                                   \
    SHAPES(TILE, kind)                                                                             \
    static void (*const kind##_of[TILE_ROWS + 1][GROUP_PANELS + 1])(const struct tile *) = {       \
        SHAPES(TILE_ENTRY, kind)};

typedef void (*const tile_table[TILE_ROWS + 1][GROUP_PANELS + 1])(const struct tile *);

TILE_TABLE(tile_f32, TILE_SHAPES_F32)
TILE_TABLE(tile_near, TILE_SHAPES_F32)
TILE_TABLE(tile_wide, TILE_SHAPES)
#ifdef __AVX512BF16__
TILE_TABLE(tile_dots, TILE_SHAPES)
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

/* `count` floats of a row as sixteen steps: one float each, or a pair rounded to bf16 (to nearest
 * even, subnormals to zero, as the dots take them); what is missing is zero. */
V_INLINE v16 load_steps(const float *x, uint32_t count, const bool pairs) {
#ifdef __AVX512BF16__
    if (pairs) {
        uint32_t low = count < PANEL ? count : PANEL, high = count - low;
        return (v16)_mm512_cvtne2ps_pbh(v_load_part(x + low, high), v_load_part(x, low));
    }
#endif
    (void)pairs;
    return v_load_part(x, count);
}

/* Rows of x [rows][stride], `count` of k, as a tile reads them: [step][rows]. */
V_INLINE void pack_tile(float *to, const float *x, size_t stride, uint32_t rows, uint32_t count,
                        const bool pairs) {
    const uint32_t each = pairs ? 2 : 1;
    for (uint32_t k = 0; k < count; k += PANEL * each)
        for (uint32_t r = 0; r < rows; r += PANEL) {
            uint32_t n = count - k < PANEL * each ? count - k : PANEL * each;
            uint32_t m = rows - r < PANEL ? rows - r : PANEL;
            v16 block[PANEL];
            for (uint32_t i = 0; i < PANEL; i++)
                block[i] = i < m ? load_steps(x + (r + i) * stride + k, n, pairs) : v_zero();
            v_transpose(block);
            for (uint32_t i = 0; i < (n + each - 1) / each; i++)
                v_store_part(to + (size_t)(k / each + i) * rows + r, block[i], m);
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
    uint32_t each = g->gated ? 2 : 1;
    for (uint32_t r = 0; r < rows; r++, sums += SPAN_PANELS * PANEL)
        for (uint32_t p = 0; p < panels; p += each)
            finish_panel(g, row + r, (panel + p) / each, sums + p * PANEL);
}

/* Rows of activations as the tiles of a table read them: [block of k][tile][step][row of it], all
 * blocks but the last of `block` steps. */
struct operand {
    tile_table *table;
    const float *x;
    uint32_t steps, w_step; /* a step is w_step times four bytes of a panel */
    uint32_t row, rows, tiles, block;
};

/* The rows `from` [rows][k] to where the tiles read them. */
V_INLINE void pack_rows(const struct operand *x, const float *from, uint32_t k, const bool pairs,
                        float *to) {
    const uint32_t each = pairs ? 2 : 1;
    for (uint32_t at = 0; at < x->steps; at += x->block) {
        uint32_t steps = x->steps - at < x->block ? x->steps - at : x->block;
        uint32_t count = k - at * each < steps * each ? k - at * each : steps * each;
        for (uint32_t i = 0; i < x->tiles; i++) {
            uint32_t begin = x->rows * i / x->tiles, rows = x->rows * (i + 1) / x->tiles - begin;
            pack_tile(to, from + (size_t)begin * k + at * each, k, rows, count, pairs);
            to += (size_t)rows * steps;
        }
    }
}

/* A block of k of one tile of rows against `panels` stored panels from `panel` on, whose sums are
 * finished when it is the last. */
static void gemm_tile(const struct gemm *g, const struct operand *x, uint32_t k, uint32_t tile,
                      uint32_t panel, uint32_t panels, float *sums) {
    size_t w_stride = panel_bytes(g->k, g->dtype) / 4;
    uint32_t begin = x->rows * tile / x->tiles, rows = x->rows * (tile + 1) / x->tiles - begin;
    uint32_t steps = x->steps - k < x->block ? x->steps - k : x->block;
    struct tile t = {
        .x = x->x + (size_t)k * x->rows + (size_t)begin * steps,
        .w = (const float *)g->w + panel * w_stride + (size_t)k * x->w_step,
        .w_stride = w_stride,
        .sums_stride = SPAN_PANELS * PANEL,
        .gap = (ptrdiff_t)((panels * w_stride - (size_t)steps * x->w_step) * 4),
        .k = steps,
        .fresh = k == 0,
        .sums = sums + (size_t)begin * SPAN_PANELS * PANEL,
    };
    (*x->table)[rows][panels](&t);
    uint32_t before = g->gated ? panel % 2 : 0; /* a gate waits for the panel that it opens */
    if (k + steps == x->steps && !(g->gated && (panel + panels) % 2))
        finish(g, x->row + begin, rows, panel - before, panels + before, t.sums - before * PANEL);
}

/* One block of rows against the panels panel_begin .. panel_end-1, a span of them at a time: the
 * rows pass through the cache once for each block of k of a span. */
static void gemm_rows(const struct gemm *g, const struct operand *x, uint32_t panel_begin,
                      uint32_t panel_end, struct scratch *scratch) {
    uint32_t wide = tile_panels((x->rows + x->tiles - 1) / x->tiles);
    for (uint32_t span = panel_begin; span < panel_end; span += SPAN_PANELS) {
        uint32_t end = panel_end - span < SPAN_PANELS ? panel_end : span + SPAN_PANELS;
        for (uint32_t k = 0; k < x->steps; k += x->block)
            for (uint32_t p = span; p < end; p += wide)
                for (uint32_t i = 0; i < x->tiles; i++)
                    gemm_tile(g, x, k, i, p, end - p < wide ? end - p : wide,
                              scratch->sums + (p - span) * PANEL);
    }
}

/* Rows of so many steps that stay in cache; of long ones two tiles, since the weights pass by once
 * for each block of rows. */
V_INLINE uint32_t rows_at_once(uint32_t steps, uint32_t tile_rows) {
    uint32_t cached = GEMM_CACHED / steps, room = GEMM_OPERAND / steps;
    uint32_t rows = cached < 2 * tile_rows ? 2 * tile_rows : cached;
    if (rows > room) rows = room;
    return rows < GEMM_ROWS ? rows : GEMM_ROWS;
}

V_INLINE void gemm_of(const struct gemm *g, tile_table *table, const bool pairs, uint32_t row_begin,
                      uint32_t row_end, uint32_t panel_begin, uint32_t panel_end,
                      struct scratch *scratch) {
    bool wide = table != &tile_f32_of;
    const uint32_t each = pairs ? 2 : 1, tile_rows = wide ? TILE_ROWS : TILE_ROWS_F32,
                   pair = g->gated ? 2 : 1;
    struct operand x = {.table = table,
                        .steps = (g->k + each - 1) / each,
                        .w_step = wide && !pairs ? PANEL / 2 : PANEL};
    float *operand = (float *)(void *)scratch->operand;
    uint32_t fit = rows_at_once(x.steps, tile_rows);
    uint32_t blocks = (row_end - row_begin + fit - 1) / fit;
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t end;
        team_share(row_end - row_begin, i, blocks, &x.row, &end);
        x.rows = end - x.row;
        x.row += row_begin;
        x.tiles = (x.rows + tile_rows - 1) / tile_rows;
        x.block = x.tiles == 1 ? x.steps : GEMM_K / each;
        const float *from = g->x + (size_t)x.row * g->k;
        x.x = x.rows == 1 && !pairs ? from : operand;
        if (x.x == operand) pack_rows(&x, from, g->k, pairs, operand);
        gemm_rows(g, &x, panel_begin * pair, panel_end * pair, scratch);
    }
}

static void gemm(const struct gemm *g, uint32_t row_begin, uint32_t row_end, uint32_t panel_begin,
                 uint32_t panel_end, struct scratch *scratch) {
    tile_table *table = g->dtype == DTYPE_F32 ? &tile_f32_of : &tile_wide_of;
    gemm_of(g, table, false, row_begin, row_end, panel_begin, panel_end, scratch);
}

#ifdef __AVX512BF16__
static void gemm_dots(const struct gemm *g, uint32_t row_begin, uint32_t row_end,
                      uint32_t panel_begin, uint32_t panel_end, struct scratch *scratch) {
    if (g->dtype == DTYPE_F32)
        gemm(g, row_begin, row_end, panel_begin, panel_end, scratch);
    else
        gemm_of(g, &tile_dots_of, true, row_begin, row_end, panel_begin, panel_end, scratch);
}
#endif

#endif
