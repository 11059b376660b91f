/* rows.c - norm, embedding, pooling, gather and qkv at every level against the oracle. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/kv.h"
#include "tests/kernels/lab.h"

TestSuite(rows, .init = lab_start, .fini = lab_free);

static const uint32_t ROWS[] = {1, 3, 17, 33, 130}, DIMS[] = {1, 48, 96, 100, 384};

Test(rows, norm_agrees_with_the_oracle_with_and_without_residual) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (uint32_t i = 0; i < 40; i++) {
            uint32_t rows = ROWS[i % 5], dim = DIMS[i / 5 % 5];
            size_t n = (size_t)rows * dim;
            float *out = lab_floats(n), *expected = lab_floats(n), *sum = lab_floats(n),
                  *expected_sum = lab_floats(n);
            struct norm_args a = {.rows = rows,
                                  .dim = dim,
                                  .kind = i % 2 ? OPS_RMSNORM : OPS_LAYERNORM,
                                  .eps = 1e-5f,
                                  .x = lab_random(n, 2),
                                  .delta = i % 4 ? lab_random(n, 1) : NULL,
                                  .gamma = lab_random(dim, 1),
                                  .beta = i % 3 ? lab_random(dim, 1) : NULL};
            a.sum = i % 8 < 6 ? expected_sum : NULL, a.out = expected;
            ref->norm(ref, &a);
            a.sum = i % 8 < 6 ? sum : NULL, a.out = out;
            o->norm(o, &a);
            lab_near(lab_level[l], out, expected, NULL, n, 3e-6);
            cr_assert(lab_same_bits(sum, expected_sum, n), "one addition has one answer");
        }
        ops_close(o);
    }
    ops_close(ref);
}

Test(rows, norm_may_write_over_its_input) {
    enum { R = 5, D = 100 };
    float *gamma = lab_random(D, 1), *x = lab_random(R * D, 1), *delta = lab_random(R * D, 1);
    float *sum = lab_floats(R * D), *out = lab_floats(R * D), *over = lab_floats(R * D);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct norm_args a = {.rows = R,
                              .dim = D,
                              .kind = OPS_RMSNORM,
                              .eps = 1e-6f,
                              .x = x,
                              .delta = delta,
                              .sum = sum,
                              .out = out,
                              .gamma = gamma};
        o->norm(o, &a);
        memcpy(over, x, R * D * sizeof *over);
        a.x = a.out = over, a.sum = NULL;
        o->norm(o, &a);
        cr_assert(lab_same_bits(over, out, R * D));
        memcpy(over, x, R * D * sizeof *over);
        float *elsewhere = lab_floats(R * D);
        a.x = a.sum = over, a.out = elsewhere;
        o->norm(o, &a);
        cr_assert(lab_same_bits(over, sum, R * D) && lab_same_bits(elsewhere, out, R * D));
        ops_close(o);
    }
}

Test(rows, norm_of_a_row_keeps_its_bits_in_any_batch) {
    enum { R = 129, D = 100 };
    float *gamma = lab_random(D, 1), *x = lab_random(R * D, 3), *all = lab_floats(R * D),
          *one = lab_floats(D);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct ops *o = lab_open(lab_level[l], threads);
            struct norm_args a = {.rows = R,
                                  .dim = D,
                                  .kind = OPS_LAYERNORM,
                                  .eps = 1e-6f,
                                  .x = x,
                                  .out = all,
                                  .gamma = gamma};
            o->norm(o, &a);
            a.rows = 1, a.out = one;
            for (uint32_t r = 0; r < R; r++) {
                a.x = x + r * D;
                o->norm(o, &a);
                cr_assert(lab_same_bits(one, all + r * D, D));
            }
            ops_close(o);
        }
}

Test(rows, embedding_gather_and_pooling_agree_with_the_oracle) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (uint32_t i = 0; i < 25; i++) {
            uint32_t rows = ROWS[i % 5], dim = DIMS[i / 5], vocab = 101;
            size_t n = (size_t)rows * dim;
            float *table = lab_random((size_t)vocab * dim, 1),
                  *positions = lab_random((size_t)200 * dim, 1);
            float *type0 = lab_random(dim, 1), *out = lab_floats(n), *expected = lab_floats(n);
            bool half = i % 2;
            struct embed_args e = {.rows = rows,
                                   .dim = dim,
                                   .id = lab_ids(rows, vocab),
                                   .pos = lab_ids(rows, 200),
                                   .dtype = half ? DTYPE_BF16 : DTYPE_F32,
                                   .scale = i % 3 ? 1 : 3.5f,
                                   .out = expected};
            e.table = half ? (void *)lab_bf16(table, (size_t)vocab * dim) : table;
            e.positions = i % 4 == 0 ? NULL
                          : half     ? (void *)lab_bf16(positions, (size_t)200 * dim)
                                     : positions;
            e.type0 = i % 4 < 2 ? NULL : half ? (void *)lab_bf16(type0, dim) : type0;
            ref->embed(ref, &e);
            e.out = out;
            o->embed(o, &e);
            cr_assert(lab_same_bits(out, expected, n));

            struct gather_args g = {
                .rows = rows, .dim = dim, .row = lab_ids(rows, rows), .x = out, .out = expected};
            ref->gather(ref, &g);
            g.out = lab_floats(n);
            o->gather(o, &g);
            cr_assert(lab_same_bits(g.out, expected, n));

            uint32_t fresh[3] = {rows, 1, 7}, all = rows + 8;
            struct lab_batch b = lab_batch(3, fresh, NULL, 16, 16);
            float *x = lab_random((size_t)all * dim, 1), *pooled = lab_floats((size_t)3 * dim);
            struct pool_args p = {.batch = &b.b,
                                  .dim = dim,
                                  .kind = (enum ops_pool)(i % 4),
                                  .normalize = i % 3 == 0,
                                  .x = x};
            p.out = expected = lab_floats((size_t)3 * dim);
            ref->pool(ref, &p);
            p.out = pooled;
            o->pool(o, &p);
            lab_near(lab_level[l], pooled, expected, NULL, (size_t)3 * dim, 1e-6);
        }
        ops_close(o);
    }
    ops_close(ref);
}

/* RoPE tables [context][half] of the usual angles. */
static struct rope tables(uint32_t context, uint32_t half) {
    float *cosines = lab_floats((size_t)context * half),
          *sines = lab_floats((size_t)context * half);
    for (uint32_t p = 0; p < context; p++)
        for (uint32_t i = 0; i < half; i++) {
            double angle = p / pow(10000, (double)i / half);
            cosines[p * half + i] = (float)cos(angle);
            sines[p * half + i] = (float)sin(angle);
        }
    return (struct rope){cosines, sines};
}

Test(rows, qkv_normalizes_rotates_and_writes_only_its_tokens_of_the_cache) {
    const struct {
        uint32_t heads, kv_heads, dim, page_tokens;
        bool norm, rotate, half;
    } cases[] = {{4, 2, 8, 16, false, true, false},
                 {3, 1, 64, 3, true, true, true},
                 {2, 2, 100, 5, true, false, false},
                 {7, 7, 6, 64, false, true, true},
                 {1, 1, 256, 1, true, true, false}};
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            uint32_t heads = cases[i].heads, kv_heads = cases[i].kv_heads, dim = cases[i].dim;
            struct lab_batch b = lab_batch(3, (uint32_t[]){9, 1, 33}, (uint32_t[]){0, 17, 5},
                                           cases[i].page_tokens, 40);
            size_t row = (size_t)(heads + 2 * kv_heads) * dim, n = b.b.rows * row;
            size_t layer =
                2 * (size_t)kv_heads * cases[i].page_tokens * dim * (cases[i].half ? 2 : 4);
            size_t bytes = b.pool_pages * 2 * layer; /* two layers; ours is the second */
            float *x = lab_random(n, 1), *y = lab_floats(n), *expected = lab_floats(n);
            unsigned char *pool = lab_bytes(bytes), *expected_pool = lab_bytes(bytes);
            struct qkv_args a = {
                .batch = &b.b, .heads = heads, .kv_heads = kv_heads, .head_dim = dim, .eps = 1e-6f};
            if (cases[i].norm) a.q_gamma = lab_random(dim, 1), a.k_gamma = lab_random(dim, 1);
            if (cases[i].rotate) a.rope = tables(64, dim / 2);
            a.kv = (struct ops_kv){NULL,
                                   2 * layer,
                                   layer,
                                   cases[i].page_tokens,
                                   kv_heads,
                                   dim,
                                   cases[i].half ? DTYPE_BF16 : DTYPE_F32};
            for (int cached = 0; cached < 2; cached++) {
                memcpy(expected, x, n * sizeof *x);
                memcpy(y, x, n * sizeof *x);
                a.qkv = expected, a.kv.pool = cached ? expected_pool : NULL;
                ref->qkv(ref, &a);
                a.qkv = y, a.kv.pool = cached ? pool : NULL;
                o->qkv(o, &a);
                lab_near(lab_level[l], y, expected, NULL, n, 2e-6);
            }
            for (size_t at = 0; at < bytes; at += cases[i].half ? 2 : 4) {
                float got, want;
                uint16_t half[2];
                if (cases[i].half) {
                    memcpy(&half[0], pool + at, 2);
                    memcpy(&half[1], expected_pool + at, 2);
                    got = float_of_bf16(half[0]), want = float_of_bf16(half[1]);
                } else {
                    memcpy(&got, pool + at, 4);
                    memcpy(&want, expected_pool + at, 4);
                }
                double step = cases[i].half ? 0x1p-7 : 2e-6; /* a tie may round to the other side */
                cr_assert(fabs((double)got - (double)want) <=
                          step * (fabs((double)want) + (cases[i].half ? 1e-6 : 1)));
                if (at % (2 * layer) < layer) cr_assert(got == 0, "the other layer was written to");
            }
        }
        ops_close(o);
    }
    ops_close(ref);
}

Test(rows, int8_keys_are_within_half_a_step_and_the_same_bytes_at_every_level) {
    enum { DIM = 20, KEYS = 6, TOKENS = 4, PAGES = 2 };
    const float special[KEYS] = {1, 1e-30f, 0, NAN, INFINITY, 1e-42f};
    struct ops_kv kv = {.page_bytes = TOKENS * kv_token_bytes(1, DIM, DTYPE_I8),
                        .page_tokens = TOKENS,
                        .kv_heads = 1,
                        .head_dim = DIM,
                        .dtype = DTYPE_I8};
    struct lab_batch b = lab_batch(1, (uint32_t[]){KEYS}, NULL, TOKENS, PAGES);
    float *qkv = lab_random(KEYS * 3 * DIM, 1);
    for (uint32_t r = 0; r < KEYS; r++)
        for (uint32_t i = 0; i < (r == 3 || r == 4 ? 1 : 2 * DIM); i++)
            qkv[(r * 3 + 1) * DIM + i] *= special[r];
    unsigned char *expected = lab_bytes(PAGES * kv.page_bytes);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        kv.pool = l == 0 ? expected : lab_bytes(PAGES * kv.page_bytes);
        o->qkv(
            o,
            &(struct qkv_args){
                .batch = &b.b, .heads = 1, .kv_heads = 1, .head_dim = DIM, .qkv = qkv, .kv = kv});
        cr_assert(memcmp(kv.pool, expected, PAGES * kv.page_bytes) == 0, "%s", lab_level[l]);
        ops_close(o);
    }
    kv.pool = expected;
    for (uint32_t r = 0; r < KEYS; r++) {
        char *page = kv_page(&kv, &b.b, 0, r);
        size_t row = kv_row(&kv, r, false, 0);
        float scale = kv_scale(&kv, page, row), most = 0;
        for (uint32_t i = 0; i < DIM; i++) {
            float x = qkv[(r * 3 + 1) * DIM + i],
                  got = (float)((const int8_t *)page)[row * DIM + i] * scale;
            if (r == 3 || r == 4)
                cr_assert(isnan(got), "what is not finite stays seen");
            else
                cr_assert(fabsf(got - x) <= scale * 0.5001f + 1e-40f, "%g as %g", (double)x,
                          (double)got);
            most = fmaxf(most, fabsf(x));
        }
        if (r < 2) cr_assert_float_eq((double)(scale * 127), (double)most, (double)most * 1e-6);
    }
}
