/* linear.c - linear and gated at every level: against the oracle, and bit for bit. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tests/kernels/lab.h"

TestSuite(linear, .init = lab_start, .fini = lab_free);

static const struct {
    uint32_t rows, n, k;
} SHAPES[] = {{1, 1, 1},     {1, 101, 48},  {3, 100, 33},   {17, 96, 100},
              {33, 384, 96}, {5, 16, 1100}, {250, 101, 48}, {7, 130, 1536}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

static struct weight pack(struct ops *o, const float *source, uint32_t n, uint32_t k,
                          enum dtype want) {
    struct weight w;
    char err[256] = "";
    cr_assert_eq(o->weight_pack(o, &w, n, k, source, DTYPE_F32, want, err, sizeof err), 0, "%s",
                 err);
    return w;
}

/* Sum of |x| |w|: what the rounding of a dot product is measured against. */
static float *magnitude(const float *x, const float *w, uint32_t rows, uint32_t n, uint32_t k) {
    float *m = lab_floats((size_t)rows * n);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < k; j++)
                m[(size_t)r * n + i] += fabsf(x[(size_t)r * k + j] * w[(size_t)i * k + j]);
    return m;
}

/* float32: a chain of k roundings, which wander like a random walk. bf16 dots: each activation is
 * off by 2^-9 at most, so each product is, so their sum is. */
static double tolerance(const char *level, enum dtype want) {
    return want == DTYPE_BF16 && strcmp(level, "avx512bf16") == 0 ? 0x1p-9 + 1e-5 : 1e-6;
}

static void linear_agrees(enum dtype want) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (uint32_t i = 0; i < SHAPE_COUNT; i++) {
            uint32_t rows = SHAPES[i].rows, n = SHAPES[i].n, k = SHAPES[i].k;
            float *x = lab_random((size_t)rows * k, 1), *source = lab_random((size_t)n * k, 0.5f);
            float *bias = lab_random(n, 1), *residual = lab_random((size_t)rows * n, 1);
            float *y = lab_floats((size_t)rows * n), *expected = lab_floats((size_t)rows * n);
            uint32_t add_from = rows / 3;
            float *add = lab_random((size_t)(rows - add_from) * n, 1);
            struct weight w = pack(o, source, n, k, want), exact = pack(ref, source, n, k, want);
            struct linear_args a = {.rows = rows,
                                    .x = x,
                                    .bias = i % 3 ? bias : NULL,
                                    .add = i % 4 > 1 ? add : NULL,
                                    .add_from = add_from,
                                    .act = (enum ops_act)(i % 6),
                                    .residual = i % 2 ? residual : NULL};
            a.w = &exact, a.y = expected;
            ref->linear(ref, &a);
            a.w = &w, a.y = y;
            o->linear(o, &a);
            lab_near(lab_level[l], y, expected, magnitude(x, source, rows, n, k), (size_t)rows * n,
                     tolerance(lab_level[l], want));
            if (i % 2) { /* in place over the residual, and as logits */
                float *again = lab_floats((size_t)rows * n);
                memcpy(again, residual, (size_t)rows * n * sizeof *again);
                a.residual = again, a.y = NULL, a.y_f32 = again;
                o->linear(o, &a);
                cr_assert(lab_same_bits(again, y, (size_t)rows * n));
            }
            o->weight_free(o, &w);
            ref->weight_free(ref, &exact);
        }
        ops_close(o);
    }
    ops_close(ref);
}

Test(linear, agrees_with_the_oracle_in_float32) {
    linear_agrees(DTYPE_F32);
}

Test(linear, agrees_with_the_oracle_in_bf16) {
    linear_agrees(DTYPE_BF16);
}

Test(linear, activations_agree_with_the_oracle_over_their_whole_range) {
    enum { N = 4001 };
    float *x = lab_floats(N), *y = lab_floats(N), *expected = lab_floats(N), one = 1;
    for (int i = 0; i < N; i++) x[i] = ((float)i - 2000) * (i % 2 ? 0.005f : 0.05f);
    struct ops *ref = lab_open("ref", 1);
    struct weight exact = pack(ref, &one, 1, 1, DTYPE_F32);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight w = pack(o, &one, 1, 1, DTYPE_F32);
        for (int act = OPS_ACT_NONE; act <= OPS_ACT_TANH; act++) {
            struct linear_args a = {
                .rows = N, .x = x, .w = &exact, .act = (enum ops_act)act, .y = expected};
            ref->linear(ref, &a);
            a.w = &w, a.y = y;
            o->linear(o, &a);
            /* erf near 1 is right to four roundings, and GELU multiplies it by up to 2.75. */
            lab_near(lab_level[l], y, expected, NULL, N, 8e-7);
        }
        o->weight_free(o, &w);
        ops_close(o);
    }
    ref->weight_free(ref, &exact);
    ops_close(ref);
}

Test(linear, gated_agrees_with_the_oracle) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct ops *o = lab_open(lab_level[l], 2);
            enum dtype want = bf16 ? DTYPE_BF16 : DTYPE_F32;
            for (uint32_t i = 0; i < SHAPE_COUNT; i++) {
                uint32_t rows = SHAPES[i].rows, n = SHAPES[i].n, k = SHAPES[i].k;
                float unit = 1 / sqrtf((float)k);
                float *x = lab_random((size_t)rows * k, 1), *gate = lab_random((size_t)n * k, unit);
                float *up = lab_random((size_t)n * k, unit);
                float *y = lab_floats((size_t)rows * n), *expected = lab_floats((size_t)rows * n);
                uint32_t add_from = rows / 2;
                float *add = lab_random((size_t)(rows - add_from) * 2 * n, 1);
                struct weight w, exact;
                cr_assert_eq(o->weight_pack_pair(o, &w, n, k, gate, up, DTYPE_F32, want, NULL, 0),
                             0);
                cr_assert_eq(
                    ref->weight_pack_pair(ref, &exact, n, k, gate, up, DTYPE_F32, want, NULL, 0),
                    0);
                struct gated_args a = {.rows = rows,
                                       .x = x,
                                       .gate_up = &exact,
                                       .add = i % 3 ? add : NULL,
                                       .add_from = add_from,
                                       .act = i % 2 ? OPS_ACT_SILU : OPS_ACT_GELU_TANH,
                                       .y = expected};
                ref->gated(ref, &a);
                a.gate_up = &w, a.y = y;
                o->gated(o, &a);
                /* Both factors are about 1 and carry the error of their sums, of size sqrt(k). */
                double relative = tolerance(lab_level[l], want) * 4 * sqrt((double)k);
                lab_near(lab_level[l], y, expected, NULL, (size_t)rows * n, relative);
                o->weight_free(o, &w);
                ref->weight_free(ref, &exact);
            }
            ops_close(o);
        }
    ops_close(ref);
}

Test(linear, stacked_sources_are_the_rows_of_one_weight) {
    const uint32_t n[3] = {40, 7, 9}, k = 50;
    float *all = lab_random((size_t)56 * k, 1), *x = lab_random((size_t)3 * k, 1);
    float *whole = lab_floats(3 * 56), *stacked = lab_floats(3 * 56);
    const void *parts[3] = {all, all + 40 * k, all + 47 * k};
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight one = pack(o, all, 56, k, DTYPE_F32), three;
        cr_assert_eq(o->weight_pack_stack(o, &three, 3, n, k, parts, DTYPE_F32, DTYPE_F32, NULL, 0),
                     0);
        cr_assert_eq(three.n, 56);
        o->linear(o, &(struct linear_args){.rows = 3, .x = x, .w = &one, .y = whole});
        o->linear(o, &(struct linear_args){.rows = 3, .x = x, .w = &three, .y = stacked});
        cr_assert(lab_same_bits(whole, stacked, 3 * 56));
        o->weight_free(o, &one);
        o->weight_free(o, &three);
        ops_close(o);
    }
}

Test(linear, half_precision_sources_pack_to_the_same_weight_as_their_wide_values) {
    enum { N = 20, K = 31 };
    float *source = lab_random(N * K, 1), *x = lab_random(K, 1), *y = lab_floats(N),
          *expected = lab_floats(N);
    uint16_t *bf16 = lab_bf16(source, N * K);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight narrow, w = pack(o, source, N, K, DTYPE_BF16);
        cr_assert_eq(o->weight_pack(o, &narrow, N, K, bf16, DTYPE_BF16, DTYPE_BF16, NULL, 0), 0);
        o->linear(o, &(struct linear_args){.rows = 1, .x = x, .w = &narrow, .y = y});
        o->linear(o, &(struct linear_args){.rows = 1, .x = x, .w = &w, .y = expected});
        cr_assert(lab_same_bits(y, expected, N));
        o->weight_free(o, &narrow);
        o->weight_free(o, &w);
        ops_close(o);
    }
}

/* A row alone, with one thread: the bits that every batch and thread count must repeat. */
static void row_alone(struct ops *one, const struct weight *w, bool gated, const float *x,
                      uint32_t rows, float *y) {
    for (uint32_t r = 0; r < rows; r++) {
        struct linear_args a = {.rows = 1,
                                .x = x + (size_t)r * w->k,
                                .w = w,
                                .act = OPS_ACT_GELU,
                                .y = y + (size_t)r * w->n};
        struct gated_args g = {.rows = 1, .x = a.x, .gate_up = w, .act = OPS_ACT_SILU, .y = a.y};
        if (gated)
            one->gated(one, &g);
        else
            one->linear(one, &a);
    }
}

static void rows_keep_their_bits(enum dtype want, bool gated) {
    enum { ROWS = 250, N = 101, K = 1100 };
    float *x = lab_random(ROWS * K, 1), *source = lab_random(N * K, 0.05f),
          *up = lab_random(N * K, 0.05f);
    float *alone = lab_floats(ROWS * N), *y = lab_floats(ROWS * N);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct ops *o = lab_open(lab_level[l], threads);
            struct weight w;
            if (gated)
                cr_assert_eq(o->weight_pack_pair(o, &w, N, K, source, up, DTYPE_F32, want, NULL, 0),
                             0);
            else
                w = pack(o, source, N, K, want);
            if (threads == 1) row_alone(o, &w, gated, x, ROWS, alone);
            /* Every height that a tile can have, then more rows than one holds. */
            for (uint32_t i = 0; i < 33; i++) {
                uint32_t rows = i == 0   ? ROWS
                                : i < 30 ? i
                                         : 30 + lab_below(ROWS - 30),
                         from = lab_below(ROWS - rows + 1);
                struct linear_args a = {
                    .rows = rows, .x = x + from * K, .w = &w, .act = OPS_ACT_GELU, .y = y};
                struct gated_args g = {
                    .rows = rows, .x = a.x, .gate_up = &w, .act = OPS_ACT_SILU, .y = y};
                if (gated)
                    o->gated(o, &g);
                else
                    o->linear(o, &a);
                cr_assert(lab_same_bits(y, alone + from * N, (size_t)rows * N),
                          "%s: rows %u to %u of a batch differ from the rows alone, %u threads",
                          lab_level[l], from, from + rows, threads);
            }
            o->weight_free(o, &w);
            ops_close(o);
        }
}

Test(linear, a_row_keeps_its_bits_in_any_batch_on_any_number_of_threads) {
    rows_keep_their_bits(DTYPE_F32, false);
}

Test(linear, a_row_keeps_its_bits_with_bf16_weights) {
    rows_keep_their_bits(DTYPE_BF16, false);
}

Test(linear, a_gated_row_keeps_its_bits) {
    rows_keep_their_bits(DTYPE_F32, true);
    rows_keep_their_bits(DTYPE_BF16, true);
}

/* 33 rows of which the last 14 have something added, against each of them alone. */
static void added_rows_keep_their_bits(bool gated) {
    enum { ROWS = 33, FROM = 19, N = 101, K = 75 };
    uint32_t wide = gated ? 2 * N : N;
    float *x = lab_random(ROWS * K, 1), *source = lab_random(N * K, 0.1f);
    float *up = lab_random(N * K, 0.1f), *add = lab_random((size_t)(ROWS - FROM) * wide, 1);
    float *y = lab_floats(ROWS * N), *alone = lab_floats(ROWS * N);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        struct weight w;
        if (gated)
            cr_assert_eq(
                o->weight_pack_pair(o, &w, N, K, source, up, DTYPE_F32, DTYPE_F32, NULL, 0), 0);
        else
            w = pack(o, source, N, K, DTYPE_F32);
        for (uint32_t r = 0; r <= ROWS; r++) { /* the last time: all of them */
            uint32_t at = r < ROWS ? r : 0, rows = r < ROWS ? 1 : ROWS;
            uint32_t from = r < ROWS ? 0 : FROM;
            const float *more = add;
            if (r < ROWS) more = r < FROM ? NULL : add + (size_t)(r - FROM) * wide;
            float *to = r < ROWS ? alone + (size_t)r * N : y;
            struct linear_args a = {.rows = rows,
                                    .x = x + (size_t)at * K,
                                    .w = &w,
                                    .add = more,
                                    .add_from = from,
                                    .act = OPS_ACT_GELU,
                                    .y = to};
            struct gated_args g = {.rows = rows,
                                   .x = a.x,
                                   .gate_up = &w,
                                   .add = more,
                                   .add_from = from,
                                   .act = OPS_ACT_SILU,
                                   .y = to};
            if (gated)
                o->gated(o, &g);
            else
                o->linear(o, &a);
        }
        cr_assert(lab_same_bits(y, alone, ROWS * N), "%s", lab_level[l]);
        o->weight_free(o, &w);
        ops_close(o);
    }
}

Test(linear, rows_with_something_added_keep_their_bits_beside_rows_without) {
    added_rows_keep_their_bits(false);
    added_rows_keep_their_bits(true);
}

Test(linear, a_sum_split_in_k_is_told_apart) {
    enum { ROWS = 16, N = 96, K = 512 };
    float *x = lab_random(ROWS * K, 1), *source = lab_random(N * K, 1);
    float *left_x = lab_floats(ROWS * K / 2), *right_x = lab_floats(ROWS * K / 2);
    float *left_w = lab_floats(N * K / 2), *right_w = lab_floats(N * K / 2);
    float *y = lab_floats(ROWS * N), *split = lab_floats(ROWS * N);
    for (uint32_t i = 0; i < N * K; i++)
        (i % K < K / 2 ? left_w : right_w)[i / K * (K / 2) + i % (K / 2)] = source[i];
    for (uint32_t i = 0; i < ROWS * K; i++)
        (i % K < K / 2 ? left_x : right_x)[i / K * (K / 2) + i % (K / 2)] = x[i];
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight w = pack(o, source, N, K, DTYPE_F32);
        struct weight left = pack(o, left_w, N, K / 2, DTYPE_F32),
                      right = pack(o, right_w, N, K / 2, DTYPE_F32);
        o->linear(o, &(struct linear_args){.rows = ROWS, .x = x, .w = &w, .y = y});
        o->linear(o, &(struct linear_args){.rows = ROWS, .x = left_x, .w = &left, .y = split});
        o->linear(o, &(struct linear_args){
                         .rows = ROWS, .x = right_x, .w = &right, .residual = split, .y = split});
        lab_near("split", split, y, NULL, ROWS * N, 1e-4);
        uint32_t told = 0;
        for (uint32_t r = 0; r < ROWS; r++) told += !lab_same_bits(y + r * N, split + r * N, N);
        cr_assert_eq(told, ROWS, "%s: only %u of %u rows differ", lab_level[l], told, ROWS);
        o->weight_free(o, &w);
        o->weight_free(o, &left);
        o->weight_free(o, &right);
        ops_close(o);
    }
}
