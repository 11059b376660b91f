/* quality.c - what W8 and W4 cost in exactness, beside the formats of llama.cpp.
 *
 * The error of a layer is |y - exact| / |exact| over all outputs, for Gaussian weights, and
 * activations that are Gaussian or have outlier channels. Beside it stand Q8_0 and Q4_0 by their
 * rounding rules: blocks of 32; Q8_0 has d = max |x| / 127 and q = round(x / d), Q4_0 has d = the
 * value of largest size / -8 and q = floor(x / d + 8.5), at most 15; d is kept as f16, and
 * activations are Q8_0 for both. */
#include <criterion/criterion.h>
#include <math.h>

#include "kernels/half.h"
#include "tests/kernels/lab.h"

TestSuite(quality, .init = lab_start, .fini = lab_free);

enum { ROWS = 24, N = 256, K = 896, BLOCK = 32 };

/* Eleven significant bits: the numbers here are far from the ends of f16. */
static float as_f16(float x) {
    int exponent;
    double fraction = frexp((double)x, &exponent);
    return (float)ldexp(rint(fraction * 2048) / 2048, exponent);
}

/* The values that a row of blocks stands for. */
static void as_q8_0(float *to, const float *x, size_t n) {
    for (size_t b = 0; b < n; b += BLOCK) {
        float most = 0;
        for (size_t i = b; i < b + BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
        float d = most / 127;
        for (size_t i = b; i < b + BLOCK; i++)
            to[i] = d > 0 ? roundf(x[i] * (1 / d)) * as_f16(d) : 0;
    }
}

static void as_q4_0(float *to, const float *x, size_t n) {
    for (size_t b = 0; b < n; b += BLOCK) {
        float most = 0;
        for (size_t i = b; i < b + BLOCK; i++)
            if (fabsf(x[i]) > fabsf(most)) most = x[i];
        float d = most / -8;
        for (size_t i = b; i < b + BLOCK; i++)
            to[i] = (fminf(15, floorf(x[i] * (1 / d) + 8.5f)) - 8) * as_f16(d);
    }
}

/* Squared error of a group with this scale and zero point; leaves Q's upper bits in q if wanted. */
static double try_group(uint8_t *q, const float *x, uint32_t n, enum dtype dtype, float scale,
                        int zero) {
    float step = dtype == DTYPE_W8 ? 1 : 16, most = dtype == DTYPE_W8 ? 255 : 15;
    double error = 0;
    for (uint32_t i = 0; i < n; i++) {
        float nearest = fminf(most, fmaxf(0, rintf((x[i] / scale + (float)zero) / step)));
        double off = (double)(scale * (nearest * step - (float)zero)) - (double)x[i];
        error += off * off;
        if (q) q[i] = (uint8_t)nearest;
    }
    return error;
}

/* The best of some ranges a little narrower than that of the group. */
static void choose_group(uint8_t *q, uint16_t *scale, uint8_t *zero, const float *x, uint32_t n,
                         enum dtype dtype) {
    float low = 0, high = 0, levels = dtype == DTYPE_W8 ? 255 : 240;
    double least = INFINITY;
    for (uint32_t i = 0; i < n; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            float from = low * (1.02f - 0.04f * (float)i), to = high * (1.02f - 0.04f * (float)j);
            uint16_t unit = bf16_of_float((to - from) / levels);
            int at = (int)fminf(255, fmaxf(0, rintf(-from / float_of_bf16(unit))));
            double error = try_group(NULL, x, n, dtype, float_of_bf16(unit), at);
            if (error < least) least = error, *scale = unit, *zero = (uint8_t)at;
        }
    try_group(q, x, n, dtype, float_of_bf16(*scale), *zero);
}

static void product(double *y, const float *x, const float *w) {
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < N; n++) {
            y[r * N + n] = 0;
            for (int k = 0; k < K; k++) y[r * N + n] += (double)x[r * K + k] * (double)w[n * K + k];
        }
}

static double relative(const double *y, const double *exact) {
    double off = 0, all = 0;
    for (int i = 0; i < ROWS * N; i++) {
        off += (y[i] - exact[i]) * (y[i] - exact[i]);
        all += exact[i] * exact[i];
    }
    return sqrt(off / all);
}

static double our_error(const float *x, const float *w, const double *exact, enum dtype dtype,
                        uint32_t group) {
    enum { GROUPS_MAX = N * K / 32 };
    static uint8_t q[N * K], zero[GROUPS_MAX];
    static uint16_t scale[GROUPS_MAX];
    static float y[ROWS * N];
    static double wide[ROWS * N];
    for (uint32_t g = 0; g < N * K / group; g++)
        choose_group(q + g * group, scale + g, zero + g, w + g * group, group, dtype);
    for (uint32_t i = 0; dtype == DTYPE_W4 && i < N * K / 2; i++)
        q[i] = (uint8_t)(q[2 * i] | q[2 * i + 1] << 4);
    struct ops *o = lab_open(lab_level[1], 1);
    struct quant s = {group, q, scale, zero};
    struct weight packed;
    cr_assert_eq(o->weight_pack(o, &packed, N, K, &s, dtype, dtype, NULL, 0), 0);
    o->linear(o, &(struct linear_args){.rows = ROWS, .x = x, .w = &packed, .y = y});
    o->weight_free(o, &packed);
    ops_close(o);
    for (int i = 0; i < ROWS * N; i++) wide[i] = (double)y[i];
    return relative(wide, exact);
}

/* One channel in `every` is twenty times as large; 0: none. */
static void no_worse(int every) {
    static double exact[ROWS * N], theirs[ROWS * N];
    float *x = lab_random(ROWS * K, 1), *w = lab_random(N * K, 0.02f);
    float *x8 = lab_floats(ROWS * K), *w8 = lab_floats(N * K), *w4 = lab_floats(N * K);
    for (int i = 0; every && i < ROWS * K; i++)
        if (i % K % every == 7) x[i] *= 20;
    product(exact, x, w);
    as_q8_0(x8, x, ROWS * K);
    as_q8_0(w8, w, N * K);
    as_q4_0(w4, w, N * K);
    product(theirs, x8, w8);
    double q8_0 = relative(theirs, exact);
    product(theirs, x8, w4);
    double q4_0 = relative(theirs, exact);
    double ours8 = our_error(x, w, exact, DTYPE_W8, 32);
    double ours4 = our_error(x, w, exact, DTYPE_W4, 64),
           fine4 = our_error(x, w, exact, DTYPE_W4, 32);
    cr_log_info("outliers one in %d: Q8_0 %.5f, W8 %.5f; Q4_0 %.5f, W4 in 64 %.5f, in 32 %.5f",
                every, q8_0, ours8, q4_0, ours4, fine4);
    cr_assert_leq(ours8, q8_0, "W8 in groups of 32: %g, Q8_0: %g", ours8, q8_0);
    cr_assert_leq(ours4, q4_0, "W4 in groups of 64: %g, Q4_0: %g", ours4, q4_0);
    cr_assert_leq(fine4, ours4, "W4 in groups of 32: %g, of 64: %g", fine4, ours4);
}

Test(quality, a_layer_in_w8_is_no_worse_than_in_q8_0_and_w4_no_worse_than_q4_0) {
    no_worse(0);
}

Test(quality, nor_are_they_worse_where_some_channels_are_outliers) {
    no_worse(100);
    no_worse(29);
}
