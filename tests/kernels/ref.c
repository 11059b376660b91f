/* ref.c - the oracle itself, against numbers worked out by hand. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/ops.h"

static struct ops *ops;

static void open_ref(void) {
    char err[256] = "";
    cr_assert_eq(ops_open(&ops, &(struct ops_config){.backend = "ref"}, err, sizeof err), 0, "%s",
                 err);
}

static void close_ref(void) {
    ops_close(ops);
}

TestSuite(ref, .init = open_ref, .fini = close_ref);

#define near(got, want, tolerance)                                                                 \
    cr_assert(fabs((double)(got) - (double)(want)) <= (double)(tolerance), "%.9g, expected %.9g",  \
              (double)(got), (double)(want))

Test(ref, halves_widen_exactly_and_bf16_rounds_to_even) {
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = float_of_bf16((uint16_t)h);
        if (f == f)
            cr_assert_eq(bf16_of_float(f), h);
        else
            cr_assert(float_of_bf16(bf16_of_float(f)) != float_of_bf16(bf16_of_float(f)));
    }
    cr_assert_eq(bf16_of_float(float_of_bits(0x3f808000u)), 0x3f80u, "a tie goes to the even one");
    cr_assert_eq(bf16_of_float(float_of_bits(0x3f818000u)), 0x3f82u);
    cr_assert_eq(bf16_of_float(float_of_bits(0x3f808001u)), 0x3f81u);
    cr_assert_eq(bf16_of_float(float_of_bits(0x7f7fffffu)), 0x7f80u,
                 "beyond the largest is infinity");
    cr_assert_eq(float_of_f16(0x3c00), 1.0f);
    cr_assert_eq(float_of_f16(0xc200), -3.0f);
    cr_assert_eq(float_of_f16(0x7bff), 65504.0f);
    cr_assert_eq(float_of_f16(0x0001), 0x1p-24f);
    cr_assert_eq(float_of_f16(0x83ff), -0x1.ff8p-15f);
    cr_assert(isinf(float_of_f16(0xfc00)) && isnan(float_of_f16(0x7e00)));
}

Test(ref, linear_adds_bias_then_activates_then_adds_the_residual) {
    const float source[2][3] = {{1, 2, 3}, {-1, 0, 2}};
    const float x[2][3] = {{1, 1, 1}, {2, -1, 0.5f}}, bias[2] = {0.5f, -4},
                residual[2][2] = {{10, 20}, {30, 40}};
    struct weight w;
    float y[2][2];
    cr_assert_eq(ops->weight_pack(ops, &w, 2, 3, source, DTYPE_F32, DTYPE_F32, NULL, 0), 0);
    cr_assert(w.data == source && !w.owned, "a source of the wanted type is borrowed");
    ops->linear(ops, &(struct linear_args){.rows = 2,
                                           .x = x,
                                           .w = &w,
                                           .bias = bias,
                                           .act = OPS_ACT_RELU,
                                           .residual = residual,
                                           .y = y});
    near(y[0][0], 16.5, 0);
    near(y[0][1], 20, 0);
    near(y[1][0], 32, 0);
    near(y[1][1], 40, 0);
    ops->weight_free(ops, &w);
}

Test(ref, activations_have_their_known_values) {
    const float one = 1, x[3] = {-1, 0, 2};
    const struct {
        enum ops_act act;
        double y[3];
    } known[] = {
        {OPS_ACT_NONE, {-1, 0, 2}},
        {OPS_ACT_GELU, {-0.15865525393145707, 0, 1.9544997361036416}},
        {OPS_ACT_GELU_TANH, {-0.15880800939172324, 0, 1.9545976940877752}},
        {OPS_ACT_RELU, {0, 0, 2}},
        {OPS_ACT_SILU, {-0.2689414213699951, 0, 1.7615941559557649}},
        {OPS_ACT_TANH, {-0.7615941559557649, 0, 0.9640275800758169}},
    };
    struct weight w;
    cr_assert_eq(ops->weight_pack(ops, &w, 1, 1, &one, DTYPE_F32, DTYPE_F32, NULL, 0), 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float y[3];
        ops->linear(ops,
                    &(struct linear_args){.rows = 3, .x = x, .w = &w, .act = known[i].act, .y = y});
        for (int j = 0; j < 3; j++) near(y[j], known[i].y[j], 1e-7);
    }
    ops->weight_free(ops, &w);
}

Test(ref, stacks_and_pairs_keep_their_parts_and_round_what_is_asked) {
    const float a[1][2] = {{1, 2}}, b[2][2] = {{3, 4}, {1.00390625f, 5}}, x[2] = {1, 10};
    const uint16_t half[2] = {0x3c00, 0x4000};
    struct weight w;
    float y[3];
    cr_assert_eq(ops->weight_pack_stack(ops, &w, 2, (uint32_t[]){1, 2}, 2, (const void *[]){a, b},
                                        DTYPE_F32, DTYPE_BF16, NULL, 0),
                 0);
    cr_assert_eq(w.n, 3);
    ops->linear(ops, &(struct linear_args){.rows = 1, .x = x, .w = &w, .y_f32 = y});
    near(y[0], 21, 0);
    near(y[1], 43, 0);
    near(y[2], 51, 0); /* 1 + 2^-8 lies between two bf16: the even one is 1 */
    ops->weight_free(ops, &w);
    cr_assert_eq(ops->weight_pack_pair(ops, &w, 1, 2, a, a, DTYPE_F32, DTYPE_F32, NULL, 0), 0);
    cr_assert_eq(w.n, 1);
    ops->gated(ops,
               &(struct gated_args){.rows = 1, .x = x, .gate_up = &w, .act = OPS_ACT_NONE, .y = y});
    near(y[0], 441, 0);
    ops->weight_free(ops, &w);
    cr_assert_eq(ops->weight_pack(ops, &w, 1, 2, half, DTYPE_F16, DTYPE_F32, NULL, 0), 0);
    ops->linear(ops, &(struct linear_args){.rows = 1, .x = x, .w = &w, .y = y});
    near(y[0], 21, 0);
    ops->weight_free(ops, &w);
}

Test(ref, weights_that_cannot_be_packed_are_refused_with_a_reason) {
    const float a[4] = {0};
    struct weight w;
    char err[256] = "";
    cr_assert_eq(ops->weight_pack(ops, &w, 2, 2, a, DTYPE_I8, DTYPE_F32, err, sizeof err),
                 -ENOTSUP);
    cr_assert(strstr(err, "float32"), "%s", err);
    cr_assert_eq(ops->weight_pack(ops, &w, 2, 2, a, DTYPE_F32, DTYPE_F8E4M3, err, sizeof err),
                 -ENOTSUP);
    cr_assert_eq(ops->weight_pack(ops, &w, 0, 2, a, DTYPE_F32, DTYPE_F32, err, sizeof err),
                 -EINVAL);
    cr_assert_eq(ops->weight_pack(ops, &w, 2, 0, a, DTYPE_F32, DTYPE_F32, err, sizeof err),
                 -EINVAL);
    cr_assert(err[0] != 0);
}

Test(ref, norms_have_their_known_values) {
    const float x[4] = {1, 2, 3, 4}, delta[4] = {0, 0, 0, 0}, gamma[4] = {1, 1, 2, 2},
                beta[4] = {0, 1, 0, 1};
    float sum[4], out[4];
    ops->norm(ops, &(struct norm_args){.rows = 1,
                                       .dim = 4,
                                       .kind = OPS_LAYERNORM,
                                       .x = x,
                                       .delta = delta,
                                       .sum = sum,
                                       .out = out,
                                       .gamma = gamma,
                                       .beta = beta});
    double scale = 1 / sqrt(1.25);
    near(out[0], -1.5 * scale, 1e-7);
    near(out[1], -0.5 * scale + 1, 1e-7);
    near(out[2], 1 * scale, 1e-7);
    near(out[3], 3 * scale + 1, 3e-7);
    near(sum[3], 4, 0);
    ops->norm(ops, &(struct norm_args){.rows = 1,
                                       .dim = 4,
                                       .kind = OPS_RMSNORM,
                                       .eps = 0.5f,
                                       .x = x,
                                       .delta = x,
                                       .out = out,
                                       .gamma = gamma});
    near(out[3], 8 * 2 / sqrt(30.5), 4e-7);
    near(out[0], 2 * 1 / sqrt(30.5), 4e-7);
}

Test(ref, embedding_scales_then_adds_position_and_type) {
    const float table[2][2] = {{1, 2}, {3, 4}}, positions[3][2] = {{0, 0}, {10, 20}, {30, 40}},
                type0[2] = {100, 200};
    const uint32_t id[2] = {1, 0}, pos[2] = {2, 1};
    float out[2][2];
    ops->embed(ops, &(struct embed_args){.rows = 2,
                                         .dim = 2,
                                         .id = id,
                                         .pos = pos,
                                         .table = table,
                                         .positions = positions,
                                         .type0 = type0,
                                         .scale = 2,
                                         .out = out});
    near(out[0][0], 136, 0);
    near(out[0][1], 248, 0);
    near(out[1][0], 112, 0);
    near(out[1][1], 224, 0);
}

Test(ref, pooling_takes_mean_first_last_and_max_of_each_sequence) {
    const float x[3][2] = {{3, 0}, {1, 2}, {5, -6}};
    const uint32_t begin[3] = {0, 1, 3}, pos[3] = {0, 0, 1};
    struct ops_batch b = {.n_seq = 2, .rows = 3, .begin = begin, .pos = pos};
    const double second[4][2] = {{3, -2}, {1, 2}, {5, -6}, {5, 2}};
    for (int kind = OPS_POOL_MEAN; kind <= OPS_POOL_MAX; kind++) {
        float out[2][2];
        ops->pool(ops,
                  &(struct pool_args){
                      .batch = &b, .dim = 2, .kind = (enum ops_pool)kind, .x = x, .out = out[0]});
        near(out[0][0], 3, 0);
        near(out[1][0], second[kind][0], 0);
        near(out[1][1], second[kind][1], 0);
        ops->pool(ops, &(struct pool_args){.batch = &b,
                                           .dim = 2,
                                           .kind = (enum ops_pool)kind,
                                           .normalize = true,
                                           .x = x,
                                           .out = out[0]});
        near(out[0][0], 1, 0);
        near(out[1][0] * out[1][0] + out[1][1] * out[1][1], 1, 2e-7);
    }
}

Test(ref, rope_turns_halves_by_the_angle_of_the_position_and_writes_the_page) {
    const float cosines[3][1] = {{1}, {0}, {-1}}, sines[3][1] = {{0}, {1}, {0}};
    float qkv[1][6] = {{1, 2, 3, 4, 5, 6}}; /* one q head, one kv head of two */
    float pool[2][2][2][2] = {{{{0}}}};     /* [page][K|V][token][head_dim] */
    const uint32_t begin[2] = {0, 1}, pos[1] = {1}, kv_len[1] = {2}, pages[1] = {1};
    struct ops_batch b = {1, 1, begin, pos, kv_len, pages, 1};
    struct ops_kv kv = {pool, sizeof pool[0], 0, 2, 1, 2, DTYPE_F32};
    ops->qkv(ops, &(struct qkv_args){.batch = &b,
                                     .heads = 1,
                                     .kv_heads = 1,
                                     .head_dim = 2,
                                     .qkv = qkv,
                                     .rope = {cosines[0], sines[0]},
                                     .kv = kv});
    near(qkv[0][0], -2, 0);
    near(qkv[0][1], 1, 0);
    near(pool[1][0][1][0], -4, 0);
    near(pool[1][0][1][1], 3, 0);
    near(pool[1][1][1][0], 5, 0);
    near(pool[1][1][1][1], 6, 0);
    near(pool[0][0][1][0], 0, 0);
}

Test(ref, attention_weighs_values_by_the_softmax_of_scores_inside_mask_and_window) {
    /* Two q heads share one kv head of one component; keys 0, 1, 2 and values 1, 10, 100. */
    const float qkv[3][4] = {{1, 2, 0, 1}, {1, 2, 1, 10}, {1, 2, 2, 100}};
    const uint32_t begin[2] = {0, 3}, pos[3] = {0, 1, 2};
    struct ops_batch b = {.n_seq = 1, .rows = 3, .begin = begin, .pos = pos};
    struct attend_args a = {
        .batch = &b, .heads = 2, .kv_heads = 1, .head_dim = 1, .qkv = qkv, .scale = 1};
    float out[3][2];
    a.out = out;
    double e = M_E, e2 = e * e, e4 = e2 * e2;
    ops->attend(ops, &a);
    for (int r = 0; r < 3; r++) {
        near(out[r][0], (1 + 10 * e + 100 * e2) / (1 + e + e2), 1e-5);
        near(out[r][1], (1 + 10 * e2 + 100 * e4) / (1 + e2 + e4), 1e-5);
    }
    a.causal = true;
    ops->attend(ops, &a);
    near(out[0][0], 1, 0);
    near(out[1][0], (1 + 10 * e) / (1 + e), 1e-6);
    near(out[2][1], (1 + 10 * e2 + 100 * e4) / (1 + e2 + e4), 1e-5);
    a.window = 2;
    ops->attend(ops, &a);
    near(out[1][0], (1 + 10 * e) / (1 + e), 1e-6);
    near(out[2][0], (10 + 100 * e) / (1 + e), 1e-5);
    a.softcap = 0.5f;
    ops->attend(ops, &a);
    double near_key = exp(0.5 * tanh(2)), far_key = exp(0.5 * tanh(4));
    near(out[2][0], (10 * near_key + 100 * far_key) / (near_key + far_key), 1e-5);
}

Test(ref, gather_picks_rows) {
    const float x[3][2] = {{1, 2}, {3, 4}, {5, 6}};
    const uint32_t row[2] = {2, 0};
    float out[2][2];
    ops->gather(ops, &(struct gather_args){.rows = 2, .dim = 2, .row = row, .x = x, .out = out});
    near(out[0][1], 6, 0);
    near(out[1][0], 1, 0);
}

Test(ref, buffers_are_aligned_and_zeroed_and_impossible_ones_are_null) {
    unsigned char *p = ops->alloc(ops, 100);
    cr_assert(p && (uintptr_t)p % 64 == 0);
    for (int i = 0; i < 100; i++) cr_assert_eq(p[i], 0);
    ops->free(ops, p);
    cr_assert_null(ops->alloc(ops, SIZE_MAX - 8));
    cr_assert_null(ops->alloc(ops, SIZE_MAX / 2));
}

Test(ref, an_unknown_backend_is_refused_by_name) {
    struct ops *none;
    char err[256] = "";
    cr_assert_eq(ops_open(&none, &(struct ops_config){.backend = "quantum"}, err, sizeof err),
                 -EINVAL);
    cr_assert(strstr(err, "quantum") && !none, "%s", err);
    ops_close(NULL);
}

Test(ref, every_float8_is_its_sign_exponent_and_fraction) {
    for (uint32_t h = 0; h < 256; h++) {
        int exponent = (int)(h >> 3 & 15), fraction = (int)(h & 7);
        double size = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
        float got = float_of_f8e4m3((uint8_t)h);
        if ((h & 127) == 127)
            cr_assert(isnan(got));
        else
            cr_assert(!(got < 0) == (h < 128 || (h & 127) == 0) && (double)fabsf(got) == size,
                      "%u is %g", h, (double)got);
    }
    cr_assert_eq(float_of_f8e4m3(0x7e), 448.0f);
}
