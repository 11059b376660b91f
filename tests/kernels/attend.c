/* attend.c - attention at every level: against the oracle, and bit for bit however it is cut. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/kv.h"
#include "tests/kernels/lab.h"

TestSuite(attend, .init = lab_start, .fini = lab_free);

static const struct shape {
    uint32_t heads, kv_heads, dim, page_tokens, window;
    float softcap;
    bool causal;
    enum dtype kv;
} SHAPES[] = {
    {12, 12, 32, 0, 0, 0, false, DTYPE_F32}, {2, 2, 100, 0, 0, 0, false, DTYPE_F32},
    {4, 1, 8, 0, 5, 0, true, DTYPE_F32},     {8, 4, 8, 16, 0, 0, true, DTYPE_F32},
    {14, 2, 64, 16, 0, 0, true, DTYPE_BF16}, {4, 2, 128, 5, 70, 0, true, DTYPE_F32},
    {2, 1, 256, 3, 7, 20, true, DTYPE_BF16}, {3, 3, 48, 64, 0, 30, false, DTYPE_F32},
    {1, 1, 1, 1, 0, 0, true, DTYPE_F32},     {6, 2, 20, 16, 33, 50, true, DTYPE_BF16},
    {5, 5, 24, 7, 1, 0, true, DTYPE_F32},    {2, 1, 40, 64, 1000, 0.5f, true, DTYPE_F32},
    {3, 1, 12, 0, 131, 7, true, DTYPE_F32},  {10, 5, 36, 13, 64, 1e-3f, true, DTYPE_BF16},
    {14, 2, 64, 16, 0, 0, true, DTYPE_I8},   {2, 1, 7, 3, 50, 0, true, DTYPE_I8},
    {1, 1, 33, 5, 0, 0, true, DTYPE_BF16},   {3, 1, 80, 1, 0, 9, false, DTYPE_I8},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

/* Pages of a cache with something in every row; int8 rows have scales about 1/64. */
static struct ops_kv pool_of(const struct shape *s, uint32_t pages, float scale) {
    struct ops_kv kv = {.page_bytes = s->page_tokens * kv_token_bytes(s->kv_heads, s->dim, s->kv),
                        .page_tokens = s->page_tokens,
                        .kv_heads = s->kv_heads,
                        .head_dim = s->dim,
                        .dtype = s->kv};
    size_t rows = 2 * (size_t)s->kv_heads * s->page_tokens, all = pages * rows * s->dim;
    if (s->kv != DTYPE_I8) {
        float *wide = lab_random(all, scale);
        kv.pool = s->kv == DTYPE_BF16 ? (void *)lab_bf16(wide, all) : wide;
        return kv;
    }
    char *page = kv.pool = lab_bytes(pages * kv.page_bytes);
    for (uint32_t p = 0; p < pages; p++, page += kv.page_bytes) {
        for (size_t i = 0; i < rows * s->dim; i++) page[i] = (char)((int)lab_below(255) - 127);
        for (size_t row = 0; row < rows; row++) {
            float one = scale / (float)(50 + lab_below(30));
            memcpy(kv_scale_at(&kv, page, row), &one, sizeof one);
        }
    }
    return kv;
}

/* A cache of K and V for every sequence of the batch, and a query for each of its rows. */
struct scene {
    struct lab_batch b;
    struct attend_args a;
    size_t out;
};

static struct scene scene(const struct shape *s, uint32_t n_seq, const uint32_t *fresh,
                          const uint32_t *cached) {
    struct scene c;
    uint32_t tokens = s->page_tokens ? s->page_tokens : 1, pages_max = 320 / tokens + 1;
    c.b = lab_batch(n_seq, fresh, s->page_tokens ? cached : NULL, tokens,
                    s->page_tokens ? pages_max : 320);
    size_t row = (size_t)(s->heads + 2 * s->kv_heads) * s->dim;
    c.a = (struct attend_args){.heads = s->heads,
                               .kv_heads = s->kv_heads,
                               .head_dim = s->dim,
                               .qkv = lab_random(c.b.b.rows * row, 1),
                               .causal = s->causal,
                               .window = s->window,
                               .scale = 1 / sqrtf((float)s->dim),
                               .softcap = s->softcap};
    if (s->page_tokens) c.a.kv = pool_of(s, c.b.pool_pages, 1);
    c.out = (size_t)c.b.b.rows * s->heads * s->dim;
    return c;
}

Test(attend, agrees_with_the_oracle_in_every_shape) {
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 2);
        for (uint32_t i = 0; i < SHAPE_COUNT; i++) {
            struct scene c =
                scene(&SHAPES[i], 4, (uint32_t[]){1, 33, 130, 1}, (uint32_t[]){0, 17, 64, 200});
            float *y = lab_floats(c.out), *expected = lab_floats(c.out);
            c.a.batch = &c.b.b;
            c.a.out = expected;
            ref->attend(ref, &c.a);
            c.a.out = y;
            o->attend(o, &c.a);
            lab_near(lab_level[l], y, expected, NULL, c.out, 5e-6);
        }
        ops_close(o);
    }
    ops_close(ref);
}

Test(attend, scores_of_hundreds_neither_overflow_nor_lose_the_winner) {
    const struct shape s = {2, 1, 16, 16, 0, 0, true, DTYPE_F32};
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct scene c = scene(&s, 1, (uint32_t[]){150}, (uint32_t[]){30});
        float *y = lab_floats(c.out), *expected = lab_floats(c.out);
        c.a.batch = &c.b.b;
        c.a.scale = 60;
        c.a.out = expected;
        ref->attend(ref, &c.a);
        c.a.out = y;
        o->attend(o, &c.a);
        lab_near(lab_level[l], y, expected, NULL, c.out,
                 1e-3); /* scores near 1000: half an ulp is 3e-5 */
        ops_close(o);
    }
    ops_close(ref);
}

/* What a decoder does to a sequence: rows of [q|k|v] are cached as they are, then attended.
 * Tokens 0 .. n-1 are fed in chunks; other sequences ride along. */
static void feed(struct ops *o, const struct shape *s, const float *rows, uint32_t n,
                 const uint32_t *chunk, uint32_t chunks, uint32_t company, float *out) {
    uint32_t outer = lab_mark();
    size_t row = (size_t)(s->heads + 2 * s->kv_heads) * s->dim, width = (size_t)s->heads * s->dim;
    uint32_t pages_max = (n + s->page_tokens - 1) / s->page_tokens, all = pages_max * (company + 1);
    struct ops_kv kv = pool_of(s, all, 100); /* what an unwritten page holds must not matter */
    struct lab_batch table =
        lab_batch(company + 1, (uint32_t[]){1, 1, 1}, NULL, s->page_tokens, pages_max);
    for (uint32_t done = 0, i = 0; i < chunks; done += chunk[i++]) {
        uint32_t mark = lab_mark();
        uint32_t fresh[3] = {chunk[i], 1 + lab_below(3), chunk[i]}, cached[3] = {done, 0, 0};
        uint32_t mine = company == 2 ? 1 : 0; /* our place in the batch */
        if (mine) cached[0] = 0, cached[1] = done, fresh[0] = 2, fresh[1] = chunk[i];
        struct lab_batch b = lab_batch(company + 1, fresh, cached, s->page_tokens, pages_max);
        b.b.pages = table.b.pages;
        float *qkv = lab_random(b.b.rows * row, 1), *y = lab_floats(b.b.rows * width);
        memcpy(qkv + b.b.begin[mine] * row, rows + done * row, chunk[i] * row * sizeof *rows);
        o->qkv(o, &(struct qkv_args){.batch = &b.b,
                                     .heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_dim = s->dim,
                                     .qkv = qkv,
                                     .kv = kv});
        o->attend(o, &(struct attend_args){.batch = &b.b,
                                           .heads = s->heads,
                                           .kv_heads = s->kv_heads,
                                           .head_dim = s->dim,
                                           .qkv = qkv,
                                           .kv = kv,
                                           .causal = true,
                                           .window = s->window,
                                           .scale = 1 / sqrtf((float)s->dim),
                                           .softcap = s->softcap,
                                           .out = y});
        memcpy(out + done * width, y + b.b.begin[mine] * width, chunk[i] * width * sizeof *out);
        lab_release(mark);
    }
    lab_release(outer);
}

static uint32_t cut(uint32_t n, uint32_t most, uint32_t *chunk) {
    uint32_t chunks = 0;
    for (uint32_t left = n; left; left -= chunk[chunks++]) {
        uint32_t size = 1 + lab_below(most);
        chunk[chunks] = size < left ? size : left;
    }
    return chunks;
}

/* Tokens 0 .. n-1 of a sequence at every level on one to four threads, whole and in chunks of up to
 * each of `most`. */
static void keeps_its_bits(const struct shape *s, uint32_t n, uint32_t rounds,
                           const uint32_t *most) {
    size_t row = (size_t)(s->heads + 2 * s->kv_heads) * s->dim, all = (size_t)n * s->heads * s->dim;
    float *rows = lab_random(n * row, 1), *whole = lab_floats(all), *parts = lab_floats(all);
    uint32_t *chunk = lab_ids(n, 1);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct ops *o = lab_open(lab_level[l], threads);
            if (threads == 1) feed(o, s, rows, n, (uint32_t[]){n}, 1, 0, whole);
            for (uint32_t round = 0; round < rounds; round++) {
                feed(o, s, rows, n, chunk, cut(n, most[round], chunk), round % 3, parts);
                cr_assert(lab_same_bits(whole, parts, all),
                          "%s: other bits in chunks of up to %u, %u threads", lab_level[l],
                          most[round], threads);
            }
            ops_close(o);
        }
}

Test(attend, a_prompt_keeps_its_bits_in_any_chunks_beside_any_company_on_any_threads) {
    const struct shape shapes[] = {{4, 2, 48, 5, 0, 0, true, DTYPE_F32},
                                   {7, 1, 64, 16, 0, 0, true, DTYPE_BF16},
                                   {2, 2, 100, 3, 50, 20, true, DTYPE_F32},
                                   {3, 1, 40, 16, 0, 0, true, DTYPE_I8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        keeps_its_bits(&shapes[i], 150, 4, (uint32_t[]){1, 7, 40, 150});
}

/* Beyond ATTEND_SPLIT keys, where threads share the cache of one sequence. */
Test(attend, a_long_prompt_keeps_its_bits_when_threads_share_its_cache) {
    const struct shape shapes[] = {{7, 1, 16, 16, 0, 0, true, DTYPE_BF16},
                                   {2, 1, 20, 16, 700, 30, true, DTYPE_F32},
                                   {2, 2, 8, 16, 0, 0, true, DTYPE_I8}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        keeps_its_bits(&shapes[i], 1300, 2, (uint32_t[]){40, 600});
}

Test(attend, a_long_cache_agrees_with_the_oracle) {
    const struct shape s = {4, 2, 12, 16, 0, 0, true, DTYPE_BF16};
    struct ops *ref = lab_open("ref", 1);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t window = 0; window <= 800; window += 400) {
            struct ops *o = lab_open(lab_level[l], 3);
            uint32_t fresh[2] = {1, 30}, cached[2] = {1799, 1010};
            struct lab_batch b = lab_batch(2, fresh, cached, s.page_tokens, 1800 / 16 + 1);
            size_t out = (size_t)b.b.rows * s.heads * s.dim;
            float *y = lab_floats(out), *expected = lab_floats(out);
            struct attend_args a = {.batch = &b.b,
                                    .heads = s.heads,
                                    .kv_heads = s.kv_heads,
                                    .head_dim = s.dim,
                                    .qkv = lab_random((size_t)b.b.rows * 8 * s.dim, 1),
                                    .kv = pool_of(&s, b.pool_pages, 1),
                                    .causal = true,
                                    .window = window,
                                    .scale = 0.5f,
                                    .out = expected};
            ref->attend(ref, &a);
            a.out = y;
            o->attend(o, &a);
            lab_near(lab_level[l], y, expected, NULL, out, 5e-6);
            ops_close(o);
        }
    ops_close(ref);
}

Test(attend, encoders_keep_their_bits_beside_other_sequences) {
    const struct shape s = {3, 3, 32, 0, 0, 0, false, DTYPE_F32};
    enum { N = 77 };
    size_t row = (size_t)9 * 32, n = (size_t)N * 3 * 32;
    float *rows = lab_random(N * row, 1), *alone = lab_floats(n);
    for (uint32_t l = 1; l < lab_levels; l++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct ops *o = lab_open(lab_level[l], threads);
            for (uint32_t company = 0; company < 3; company++) {
                uint32_t fresh[3] = {N, 100, 1}, mine = 0;
                if (company == 2) fresh[0] = 50, fresh[1] = N, mine = 1;
                struct scene c = scene(&s, company + 1, fresh, NULL);
                memcpy((float *)c.a.qkv + c.b.b.begin[mine] * row, rows, N * row * sizeof *rows);
                float *y = lab_floats(c.out);
                c.a.batch = &c.b.b;
                c.a.out = y;
                o->attend(o, &c.a);
                if (company == 0 && threads == 1) memcpy(alone, y, n * sizeof *y);
                cr_assert(lab_same_bits(alone, y + (size_t)c.b.b.begin[mine] * 96, n));
            }
            ops_close(o);
        }
}

Test(attend, keys_summed_in_another_order_are_told_apart) {
    const struct shape s = {2, 2, 32, 0, 0, 0, false, DTYPE_F32};
    enum { N = 60 };
    struct scene c = scene(&s, 1, (uint32_t[]){N}, NULL);
    size_t row = (size_t)6 * 32;
    float *turned = lab_floats(N * row), *y = lab_floats(c.out), *other = lab_floats(c.out);
    for (uint32_t r = 0; r < N; r++) { /* the same queries, keys and values last to first */
        memcpy(turned + r * row, (const float *)c.a.qkv + r * row, 64 * sizeof(float));
        memcpy(turned + r * row + 64, (const float *)c.a.qkv + (N - 1 - r) * row + 64,
               128 * sizeof(float));
    }
    c.a.batch = &c.b.b;
    for (uint32_t l = 1; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        struct attend_args a = c.a;
        a.out = y;
        o->attend(o, &a);
        a.qkv = turned, a.out = other;
        o->attend(o, &a);
        lab_near("turned", other, y, NULL, c.out, 1e-5);
        uint32_t told = 0;
        for (uint32_t r = 0; r < N; r++) told += !lab_same_bits(y + r * 64, other + r * 64, 64);
        cr_assert_eq(told, N);
        ops_close(o);
    }
}
