/* quant.c - weights of W8 and W4 at every level: the bits that ops.h defines, and their quality. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "tests/kernels/lab.h"

TestSuite(quant, .init = lab_start, .fini = lab_free);

static const struct {
    uint32_t rows, n, k, group;
} SHAPES[] = {{1, 1, 1, 32},     {1, 101, 48, 32},  {2, 33, 31, 128}, {3, 100, 33, 32},
              {4, 17, 255, 64},  {5, 16, 1100, 64}, {6, 64, 257, 32}, {7, 130, 512, 128},
              {8, 70, 96, 32},   {9, 40, 130, 64},  {10, 5, 64, 64},  {11, 48, 129, 128},
              {12, 81, 300, 32}, {13, 65, 77, 64},  {250, 49, 99, 32}};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

/* Any bytes are a matrix; scales as they would be for weights of about 1. */
static struct quant *random_quant(uint32_t n, uint32_t k, uint32_t group, enum dtype dtype,
                                  bool zeros) {
    size_t groups = (size_t)n * ((k + group - 1) / group);
    size_t bytes = (size_t)n * (dtype == DTYPE_W8 ? k : (k + 1) / 2);
    struct quant *s = lab_bytes(sizeof *s);
    uint8_t *q = lab_bytes(bytes), *zero = lab_bytes(groups);
    uint16_t *scale = lab_bytes(groups * sizeof *scale);
    for (size_t i = 0; i < bytes; i++) q[i] = (uint8_t)lab_below(256);
    for (size_t i = 0; i < groups; i++) {
        zero[i] = (uint8_t)lab_below(256);
        scale[i] = bf16_of_float(((float)lab_below(1000) - 100) * 1e-5f);
    }
    *s = (struct quant){group, q, scale, zeros ? zero : NULL};
    return s;
}

static struct weight pack(struct ops *o, const struct quant *s, uint32_t n, uint32_t k,
                          enum dtype dtype) {
    struct weight w;
    char err[256] = "";
    cr_assert_eq(o->weight_pack(o, &w, n, k, s, dtype, dtype, err, sizeof err), 0, "%s", err);
    cr_assert(w.n == n && w.k == k && w.dtype == dtype && w.bytes > 0);
    return w;
}

Test(quant, a_product_is_the_sum_that_the_header_defines) {
    enum { K = 33 };
    uint8_t q[K] = {0}, nibbles[(K + 1) / 2] = {0}, zero[2] = {8, 200};
    uint16_t scale[2] = {bf16_of_float(0.5f), bf16_of_float(-0.25f)};
    float x[K] = {0}, y;
    q[0] = 10, q[1] = 255, q[2] = 9, q[32] = 100;
    nibbles[0] = 0x30 | 0xf, nibbles[1] = 0x1, nibbles[16] = 0x5;
    x[0] = 1, x[1] = -0.5f, x[2] = 0.012f, x[32] = -2;
    /* In units of 1/127 the first group of x is 127, -63.5, 1.524 and so 127, -64, 2. */
    int dot8 = 127 * (10 - 8) - 64 * (255 - 8) + 2 * (9 - 8);
    int dot4 = 127 * (240 - 8) - 64 * (48 - 8) + 2 * (16 - 8);
    float unit = 1.0f / 127, last = 2.0f / 127;
    float y8 = fmaf((float)(-127 * (100 - 200)), -0.25f * last, (float)dot8 * (0.5f * unit));
    float y4 = fmaf((float)(-127 * (80 - 200)), -0.25f * last, (float)dot4 * (0.5f * unit));
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight w = pack(o, &(struct quant){32, q, scale, zero}, 1, K, DTYPE_W8);
        o->linear(o, &(struct linear_args){.rows = 1, .x = x, .w = &w, .y = &y});
        cr_assert_eq(y, y8, "%s: %.9g, not %.9g", lab_level[l], (double)y, (double)y8);
        o->weight_free(o, &w);
        w = pack(o, &(struct quant){32, nibbles, scale, zero}, 1, K, DTYPE_W4);
        o->linear(o, &(struct linear_args){.rows = 1, .x = x, .w = &w, .y = &y});
        cr_assert_eq(y, y4, "%s: %.9g, not %.9g", lab_level[l], (double)y, (double)y4);
        o->weight_free(o, &w);
        ops_close(o);
    }
}

/* Without an epilogue every level has the bits of the oracle; with one, its activation rounds. */
static void agrees(enum dtype dtype, bool zeros, bool plainly) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (uint32_t i = 0; i < SHAPE_COUNT; i++) {
            uint32_t mark = lab_mark(), rows = SHAPES[i].rows, n = SHAPES[i].n, k = SHAPES[i].k;
            size_t all = (size_t)rows * n;
            float *x = lab_random((size_t)rows * k, 1), *bias = lab_random(n, 1);
            float *residual = lab_random(all, 1), *add = lab_random(all, 1);
            float *y = lab_floats(all), *expected = lab_floats(all);
            struct quant *s = random_quant(n, k, SHAPES[i].group, dtype, zeros);
            struct weight w = pack(o, s, n, k, dtype), exact = pack(ref, s, n, k, dtype);
            struct linear_args a = {.rows = rows, .x = x};
            if (!plainly)
                a = (struct linear_args){.rows = rows,
                                         .x = x,
                                         .bias = i % 3 ? bias : NULL,
                                         .add = i % 4 > 1 ? add : NULL,
                                         .add_from = rows / 3,
                                         .act = (enum ops_act)(i % 6),
                                         .residual = i % 2 ? residual : NULL};
            a.w = &exact, a.y = expected;
            ref->linear(ref, &a);
            a.w = &w, a.y = y;
            o->linear(o, &a);
            if (plainly)
                cr_assert(lab_same_bits(y, expected, all), "%s: shape %u", lab_level[l], i);
            else
                lab_near(lab_level[l], y, expected, NULL, all, 1e-6);
            o->weight_free(o, &w);
            ref->weight_free(ref, &exact);
            lab_release(mark);
        }
        ops_close(o);
    }
    ops_close(ref);
}

Test(quant, every_level_has_the_bits_of_the_oracle) {
    for (int i = 0; i < 4; i++) agrees(i & 1 ? DTYPE_W8 : DTYPE_W4, i & 2, true);
}

Test(quant, bias_added_rows_activation_and_residual_agree_with_the_oracle) {
    for (int i = 0; i < 4; i++) agrees(i & 1 ? DTYPE_W8 : DTYPE_W4, i & 2, false);
}

Test(quant, gated_agrees_with_the_oracle) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t i = 0; i < 2 * SHAPE_COUNT; i++) {
            uint32_t mark = lab_mark(), shape = i / 2, rows = SHAPES[shape].rows;
            uint32_t n = SHAPES[shape].n, k = SHAPES[shape].k, add_from = rows / 2;
            enum dtype dtype = i % 2 ? DTYPE_W8 : DTYPE_W4;
            struct ops *o = lab_open(lab_level[l], 2);
            float *x = lab_random((size_t)rows * k, 1);
            float *add = lab_random((size_t)(rows - add_from) * 2 * n, 1);
            float *y = lab_floats((size_t)rows * n), *expected = lab_floats((size_t)rows * n);
            /* One has zero points and the other has not: that is 128. */
            struct quant *gate = random_quant(n, k, SHAPES[shape].group, dtype, false);
            struct quant *up = random_quant(n, k, SHAPES[shape].group, dtype, i % 3 == 0);
            struct weight w, exact;
            cr_assert_eq(o->weight_pack_pair(o, &w, n, k, gate, up, dtype, dtype, NULL, 0), 0);
            cr_assert_eq(ref->weight_pack_pair(ref, &exact, n, k, gate, up, dtype, dtype, NULL, 0),
                         0);
            cr_assert(w.n == n && w.pair && w.zeros == (i % 3 == 0));
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
            lab_near(lab_level[l], y, expected, NULL, (size_t)rows * n, 1e-5);
            o->weight_free(o, &w);
            ref->weight_free(ref, &exact);
            ops_close(o);
            lab_release(mark);
        }
    ops_close(ref);
}

Test(quant, stacked_sources_are_the_rows_of_one_weight) {
    enum { K = 70, ROWS = 3 };
    const uint32_t n[3] = {40, 7, 9};
    for (int dtype = DTYPE_W8; dtype <= DTYPE_W4; dtype++)
        for (uint32_t l = 0; l < lab_levels; l++) {
            struct ops *o = lab_open(lab_level[l], 1);
            float *x = lab_random(ROWS * K, 1), y[ROWS * 56], one[ROWS * 40];
            const void *source[3];
            struct weight all, w;
            for (uint32_t i = 0; i < 3; i++)
                source[i] = random_quant(n[i], K, 32, (enum dtype)dtype, i == 1);
            cr_assert_eq(o->weight_pack_stack(o, &all, 3, n, K, source, (enum dtype)dtype,
                                              (enum dtype)dtype, NULL, 0),
                         0);
            o->linear(o, &(struct linear_args){.rows = ROWS, .x = x, .w = &all, .y = y});
            for (uint32_t i = 0, at = 0; i < 3; at += n[i++]) {
                w = pack(o, source[i], n[i], K, (enum dtype)dtype);
                o->linear(o, &(struct linear_args){.rows = ROWS, .x = x, .w = &w, .y = one});
                for (uint32_t r = 0; r < ROWS; r++)
                    cr_assert(lab_same_bits(y + r * 56 + at, one + r * n[i], n[i]));
                o->weight_free(o, &w);
            }
            o->weight_free(o, &all);
            ops_close(o);
        }
}

Test(quant, a_row_keeps_its_bits_in_any_batch_on_any_number_of_threads) {
    enum { ROWS = 250, N = 101, K = 420 };
    float *x = lab_random(ROWS * K, 1), *alone = lab_floats(ROWS * N), *y = lab_floats(ROWS * N);
    for (int kind = 0; kind < 4; kind++) {
        enum dtype dtype = kind & 1 ? DTYPE_W8 : DTYPE_W4;
        struct quant *s = random_quant(N, K, kind & 2 ? 32 : 64, dtype, kind & 2);
        struct quant *up = random_quant(N, K, kind & 2 ? 32 : 64, dtype, kind & 2);
        for (uint32_t l = 1; l < lab_levels; l++)
            for (uint32_t threads = 1; threads <= 4; threads++) {
                struct ops *o = lab_open(lab_level[l], threads);
                struct weight w;
                cr_assert_eq(o->weight_pack_pair(o, &w, N, K, s, up, dtype, dtype, NULL, 0), 0);
                struct gated_args a = {.gate_up = &w, .act = OPS_ACT_SILU};
                for (uint32_t r = 0; threads == 1 && r < ROWS; r++) {
                    a.rows = 1, a.x = x + r * K, a.y = alone + r * N;
                    o->gated(o, &a);
                }
                for (uint32_t i = 0; i < 16; i++) {
                    a.rows = i == 0 ? ROWS : i < 14 ? i : 14 + lab_below(ROWS - 14);
                    uint32_t from = lab_below(ROWS - a.rows + 1);
                    a.x = x + from * K, a.y = y;
                    o->gated(o, &a);
                    cr_assert(lab_same_bits(y, alone + from * N, (size_t)a.rows * N),
                              "%s: rows %u to %u of a batch differ from the rows alone, %u threads",
                              lab_level[l], from, from + a.rows, threads);
                }
                o->weight_free(o, &w);
                ops_close(o);
            }
    }
}

Test(quant, activations_that_are_not_finite_are_not_hidden_and_tiny_ones_are_zero) {
    enum { K = 96, N = 20, ROWS = 5 };
    const float odd[4] = {NAN, INFINITY, -INFINITY, 0x1p-101f};
    for (uint32_t l = 0; l < lab_levels; l++)
        for (int i = 0; i < 4; i++) {
            struct ops *o = lab_open(lab_level[l], 1);
            float *x = lab_floats(ROWS * K), y[ROWS * N];
            struct weight w = pack(o, random_quant(N, K, 32, DTYPE_W8, true), N, K, DTYPE_W8);
            x[2 * K + 40 + 7 * i] = odd[i];
            o->linear(o, &(struct linear_args){.rows = ROWS, .x = x, .w = &w, .y = y});
            for (int j = 0; j < ROWS * N; j++)
                cr_assert(i < 3 && j / N == 2 ? !isfinite(y[j]) : y[j] == 0, "%s: %g for %g",
                          lab_level[l], (double)y[j], (double)odd[i]);
            o->weight_free(o, &w);
            ops_close(o);
        }
}

Test(quant, a_packed_image_can_be_borrowed_where_the_layout_is_the_same) {
    enum { K = 300, N = 33 };
    float *x = lab_random(2 * K, 1), y[2 * N], expected[2 * N], *source = lab_random(N * K, 1);
    char err[256];
    for (uint32_t l = 0; l < lab_levels; l++)
        for (int kind = 0; kind < 4; kind++) {
            struct ops *o = lab_open(lab_level[l], 1);
            const enum dtype dtypes[4] = {DTYPE_F32, DTYPE_BF16, DTYPE_W8, DTYPE_W4};
            struct weight w, again;
            if (kind < 2)
                cr_assert_eq(o->weight_pack_pair(o, &w, N, K, source, source, DTYPE_F32,
                                                 dtypes[kind], NULL, 0),
                             0);
            else {
                struct quant *s = random_quant(N, K, 64, dtypes[kind], kind == 2);
                cr_assert_eq(
                    o->weight_pack_pair(o, &w, N, K, s, s, dtypes[kind], dtypes[kind], NULL, 0), 0);
            }
            struct gated_args a = {.rows = 2, .x = x, .gate_up = &w, .y = expected};
            o->gated(o, &a);
            void *image = o->alloc(o, w.bytes);
            memcpy(image, w.data, w.bytes);
            again = (struct weight){
                .n = N, .k = K, .dtype = w.dtype, .pair = true, .zeros = w.zeros, .group = w.group};
            cr_assert_eq(o->weight_borrow(o, &again, image, w.bytes - 1, err, sizeof err), -EINVAL);
            cr_assert(strstr(err, "bytes"), "%s", err);
            cr_assert_eq(o->weight_borrow(o, &again, image, w.bytes, err, sizeof err), 0, "%s",
                         err);
            o->weight_free(o, &w);
            a.gate_up = &again, a.y = y;
            o->gated(o, &a);
            cr_assert(lab_same_bits(y, expected, 2 * N));
            o->weight_free(o, &again);
            o->free(o, image);
            ops_close(o);
        }
}

Test(quant, sources_that_do_not_fit_are_refused_with_the_reason) {
    struct quant *a = random_quant(4, 64, 32, DTYPE_W8, false);
    struct quant *b = random_quant(4, 64, 64, DTYPE_W8, false);
    char err[256];
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct weight w;
        cr_assert_eq(o->weight_pack_pair(o, &w, 4, 64, a, b, DTYPE_W8, DTYPE_W8, err, sizeof err),
                     -EINVAL);
        cr_assert(strstr(err, "32") && strstr(err, "64"), "%s", err);
        cr_assert_eq(o->weight_pack(o, &w, 4, 64, a, DTYPE_W8, DTYPE_BF16, err, sizeof err),
                     -ENOTSUP);
        struct quant odd = {48, a->q, a->scale, NULL};
        cr_assert_eq(o->weight_pack(o, &w, 4, 64, &odd, DTYPE_W8, DTYPE_W8, err, sizeof err),
                     -ENOTSUP);
        cr_assert(strstr(err, "48"), "%s", err);
        w = (struct weight){.n = 4, .k = 64, .dtype = DTYPE_W8, .group = 31};
        cr_assert_eq(o->weight_borrow(o, &w, a->q, 1, err, sizeof err), -ENOTSUP, "%s", err);
        ops_close(o);
    }
}
