/* sample.c - the sampler of every backend: masks, ranks, cuts, and the distribution it draws. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/kernels/lab.h"

TestSuite(sample, .init = lab_start, .fini = lab_free);

static uint32_t draw(struct ops *o, const float *logits, uint32_t vocab, struct sample_row row,
                     float *logprob) {
    uint32_t token = 0;
    void *workspace = o->alloc(o, o->sample_bytes(o, vocab));
    cr_assert_not_null(workspace);
    o->sample(o, &(struct sample_args){1, vocab, logits, &row, workspace, &token, logprob, NULL, 0,
                                       NULL});
    o->free(o, workspace);
    return token;
}

Test(sample, greedy_takes_the_lowest_id_among_equals) {
    float logits[101];
    for (int i = 0; i < 101; i++) logits[i] = (float)(i % 7);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        float logprob;
        double sum = 0;
        for (int i = 0; i < 101; i++) sum += exp((double)logits[i] - 6);
        cr_assert_eq(draw(o, logits, 101, (struct sample_row){.top_p = 1}, &logprob), 6);
        cr_assert(fabs((double)logprob + log(sum)) < 1e-6);
        ops_close(o);
    }
}

Test(sample, the_mask_is_law_and_an_empty_one_has_no_token) {
    enum { VOCAB = 101 };
    float *logits = lab_random(VOCAB, 3), logprob = 1;
    uint32_t mask[4] = {0};
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        for (uint64_t i = 0; i < 300; i++) {
            memset(mask, 0, sizeof mask);
            for (uint32_t legal = 1 + lab_below(5); legal; legal--) {
                uint32_t id = lab_below(VOCAB);
                mask[id / 32] |= 1u << id % 32;
            }
            struct sample_row row = {.temperature = (float)(i % 3),
                                     .top_p = i % 2 ? 1 : 0.7f,
                                     .top_k = i % 5 ? 0 : 3,
                                     .seed = 1,
                                     .position = i,
                                     .mask = mask};
            uint32_t token = draw(o, logits, VOCAB, row, NULL);
            cr_assert(token < VOCAB && mask[token / 32] >> token % 32 & 1);
        }
        memset(mask, 0, sizeof mask);
        cr_assert_eq(draw(o, logits, VOCAB,
                          (struct sample_row){.temperature = 1, .top_p = 1, .mask = mask},
                          &logprob),
                     OPS_NO_TOKEN);
        cr_assert_eq(logprob, 0);
        ops_close(o);
    }
}

Test(sample, nan_and_minus_infinity_are_never_drawn_and_infinity_always) {
    float logits[6] = {NAN, -INFINITY, 1, NAN, 2, -INFINITY};
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        for (uint64_t i = 0; i < 100; i++) {
            uint32_t token =
                draw(o, logits, 6,
                     (struct sample_row){.temperature = (float)(i % 2), .top_p = 1, .position = i},
                     NULL);
            cr_assert(token == 2 || token == 4);
            if (i % 2 == 0) cr_assert_eq(token, 4);
        }
        logits[2] = INFINITY;
        cr_assert_eq(draw(o, logits, 6, (struct sample_row){.temperature = 1, .top_p = 1}, NULL),
                     2);
        logits[2] = 1;
        for (int i = 0; i < 6; i++) logits[i] = -INFINITY;
        cr_assert_eq(draw(o, logits, 6, (struct sample_row){.temperature = 1, .top_p = 1}, NULL),
                     OPS_NO_TOKEN);
        logits[2] = 1, logits[4] = 2;
        ops_close(o);
    }
}

Test(sample, every_backend_draws_the_same_token) {
    struct ops *ref = lab_open("ref", 1);
    const uint32_t vocabs[4] = {1, 101, 512, 5000};
    for (uint32_t v = 0; v < 4; v++) {
        float *logits = lab_random(vocabs[v], v % 2 ? 4 : 0.3f);
        for (uint32_t i = 0; i < vocabs[v]; i += 3) logits[i] = logits[i / 2]; /* with equals */
        for (uint64_t i = 0; i < 60; i++) {
            struct sample_row row = {.temperature = 0.3f + (float)(i % 4) * 0.5f,
                                     .top_p = i % 3 ? 1 : 0.9f,
                                     .top_k = i % 5 ? 0 : 40,
                                     .seed = 7,
                                     .stream = i,
                                     .position = 3};
            float expected_logprob, logprob;
            uint32_t expected = draw(ref, logits, vocabs[v], row, &expected_logprob);
            for (uint32_t l = 1; l < lab_levels; l++) {
                struct ops *o = lab_open(lab_level[l], 1);
                cr_assert_eq(draw(o, logits, vocabs[v], row, &logprob), expected);
                cr_assert(fabsf(logprob - expected_logprob) < 1e-5f);
                ops_close(o);
            }
        }
    }
    ops_close(ref);
}

/* Draws from logits 0, -1/4, -2/4, ... and counts; chi-square against exp of them over `kept`. */
static double chi_square(struct ops *o, uint32_t vocab, uint32_t kept, struct sample_row row) {
    enum { DRAWS = 20000 };
    float logits[64];
    uint32_t count[64] = {0};
    double mass = 0, sum = 0;
    for (uint32_t i = 0; i < vocab; i++) logits[i] = -(float)i * 0.25f;
    for (uint32_t i = 0; i < kept; i++) mass += exp((double)logits[i] / (double)row.temperature);
    void *workspace = o->alloc(o, o->sample_bytes(o, vocab));
    for (uint64_t i = 0; i < DRAWS; i++) {
        uint32_t token;
        row.position = i;
        o->sample(o, &(struct sample_args){1, vocab, logits, &row, workspace, &token, NULL, NULL, 0,
                                           NULL});
        cr_assert(token < kept, "token %u is outside the %u kept", token, kept);
        count[token]++;
    }
    o->free(o, workspace);
    for (uint32_t i = 0; i < kept; i++) {
        double expected = DRAWS * exp((double)logits[i] / (double)row.temperature) / mass;
        sum += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    }
    return sum;
}

Test(sample, draws_follow_the_distribution_that_temperature_top_k_and_top_p_leave) {
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        /* 99.9 % of chi-square: 43.8 with 19 degrees of freedom, 20.5 with 5, 22.5 with 6. */
        cr_assert_lt(
            chi_square(o, 20, 20, (struct sample_row){.temperature = 1, .top_p = 1, .seed = 11}),
            43.8);
        cr_assert_lt(
            chi_square(o, 20, 20, (struct sample_row){.temperature = 2.5f, .top_p = 1, .seed = 12}),
            43.8);
        cr_assert_lt(
            chi_square(o, 20, 6,
                       (struct sample_row){.temperature = 1, .top_p = 1, .top_k = 6, .seed = 13}),
            20.5);
        /* The first seven of twenty hold 0.831 of the mass, the first six 0.782. */
        cr_assert_lt(
            chi_square(o, 20, 7, (struct sample_row){.temperature = 1, .top_p = 0.82f, .seed = 14}),
            22.5);
        /* Of the first six, the first five hold 0.918, the first four 0.814. */
        cr_assert_lt(chi_square(o, 20, 5,
                                (struct sample_row){
                                    .temperature = 1, .top_p = 0.9f, .top_k = 6, .seed = 15}),
                     18.5);
        ops_close(o);
    }
}

Test(sample, a_tiny_top_p_is_greedy_and_top_k_beyond_the_vocabulary_is_all) {
    float *logits = lab_random(300, 2);
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        uint32_t greedy = draw(o, logits, 300, (struct sample_row){.top_p = 1}, NULL);
        for (uint64_t i = 0; i < 50; i++) {
            struct sample_row row = {.temperature = 1.5f, .top_p = 0, .seed = i};
            cr_assert_eq(draw(o, logits, 300, row, NULL), greedy);
            row.top_p = 1, row.top_k = 1;
            cr_assert_eq(draw(o, logits, 300, row, NULL), greedy);
            row.top_k = 0;
            uint32_t all = draw(o, logits, 300, row, NULL);
            row.top_k = 5000;
            cr_assert_eq(draw(o, logits, 300, row, NULL), all);
        }
        ops_close(o);
    }
}

Test(sample, a_row_draws_the_same_in_any_batch_on_any_threads) {
    enum { ROWS = 40, VOCAB = 3001 };
    float *logits = lab_random(ROWS * VOCAB, 2), *logprob = lab_floats(ROWS), one;
    struct sample_row row[ROWS];
    uint32_t *token = lab_bytes(ROWS * sizeof *token);
    for (uint64_t r = 0; r < ROWS; r++)
        row[r] = (struct sample_row){.temperature = (float)(r % 4) * 0.6f,
                                     .top_p = r % 3 ? 1 : 0.95f,
                                     .top_k = r % 5 ? 0 : 20,
                                     .seed = 5,
                                     .stream = r,
                                     .position = r * r};
    for (uint32_t l = 0; l < lab_levels; l++)
        for (uint32_t threads = 1; threads <= 4; threads++) {
            struct ops *o = lab_open(lab_level[l], threads);
            void *workspace = o->alloc(o, o->sample_bytes(o, VOCAB));
            o->sample(o, &(struct sample_args){ROWS, VOCAB, logits, row, workspace, token, logprob,
                                               NULL, 0, NULL});
            for (uint32_t r = 0; r < ROWS; r++) {
                cr_assert_eq(draw(o, logits + r * VOCAB, VOCAB, row[r], &one), token[r]);
                cr_assert(lab_same_bits(&one, logprob + r, 1));
            }
            struct sample_row two[] = {row[ROWS - 1], row[1]};
            const uint32_t at[] = {ROWS - 1, 1};
            uint32_t some[2];
            o->sample(o, &(struct sample_args){.rows = 2,
                                               .vocab = VOCAB,
                                               .logits = logits,
                                               .row = two,
                                               .workspace = workspace,
                                               .token = some,
                                               .at = at});
            cr_assert(some[0] == token[ROWS - 1] && some[1] == token[1], "rows by their number");
            o->free(o, workspace);
            ops_close(o);
        }
}

enum { GOLDEN_VOCAB = 97 };

/* What a case of the golden has, as a row of the sampler. */
struct left {
    float logits[GOLDEN_VOCAB];
    struct sample_seen seen[GOLDEN_VOCAB];
    struct sample_row row;
    uint32_t id[GOLDEN_VOCAB], n;
    double share[GOLDEN_VOCAB];
};

static float setting(const struct json *j, const char *name) {
    return (float)json_num(json_get(json_get(j, "settings"), name), NAN);
}

static void read_left(struct left *c, const struct json *j) {
    int count[GOLDEN_VOCAB];
    const struct json *written = json_get(j, "written"), *prompt = json_get(j, "prompt");
    *c = (struct left){.row = {.temperature = setting(j, "temperature"),
                               .top_p = setting(j, "top_p"),
                               .min_p = setting(j, "min_p"),
                               .top_k = (uint32_t)setting(j, "top_k"),
                               .repetition = setting(j, "repetition_penalty"),
                               .presence = setting(j, "presence_penalty"),
                               .frequency = setting(j, "frequency_penalty"),
                               .seed = 3}};
    for (uint32_t i = 0; i < GOLDEN_VOCAB; i++) {
        c->logits[i] = (float)json_int(json_at(json_get(j, "logits"), i), 0) / 1024;
        count[i] = -1;
    }
    for (size_t i = 0; i < json_len(prompt); i++) count[json_int(json_at(prompt, i), 0)] = 0;
    for (size_t i = 0; i < json_len(written); i++) {
        int *n = &count[json_int(json_at(written, i), 0)];
        *n = *n < 0 ? 1 : *n + 1;
    }
    for (uint32_t i = 0; i < GOLDEN_VOCAB; i++)
        if (count[i] >= 0) c->seen[c->row.n_seen++] = (struct sample_seen){i, (uint32_t)count[i]};
    c->row.seen = c->seen;
    for (; c->n < json_len(json_get(j, "kept")); c->n++) {
        const struct json *pair = json_at(json_get(j, "kept"), c->n);
        c->id[c->n] = (uint32_t)json_int(json_at(pair, 0), 0);
        c->share[c->n] = json_num(json_at(pair, 1), 0);
    }
}

/* The token that a draw ends at; OPS_NO_TOKEN when it is too near to a border to tell. */
static uint32_t expected(const struct left *c) {
    double unit = (double)rng_unit(c->row.seed, c->row.stream, c->row.position), sum = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        sum += c->share[i];
        if (fabs(sum - unit) < 1e-5) return OPS_NO_TOKEN;
        if (sum > unit) return c->id[i];
    }
    return OPS_NO_TOKEN;
}

Test(sample, draws_are_those_that_the_references_processors_and_warpers_leave) {
    char err[256] = "", *text, *rest;
    size_t bytes;
    uint32_t cases = 0, told = 0;
    cr_assert_eq(file_read("tests/golden/sampling/cases.jsonl", 1 << 20, (void **)&text, &bytes,
                           err, sizeof err),
                 0, "%s", err);
    struct ops *o[LAB_LEVELS_MAX];
    for (uint32_t l = 0; l < lab_levels; l++) o[l] = lab_open(lab_level[l], 1);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct left c;
        struct json *j;
        cr_assert_eq(json_parse(&j, line, strlen(line), err, sizeof err), 0, "%s", err);
        read_left(&c, j);
        json_free(j);
        cases++;
        for (c.row.position = 0; c.row.position < 50; c.row.position++) {
            uint32_t want = expected(&c);
            told += want != OPS_NO_TOKEN;
            for (uint32_t l = 0; l < lab_levels && want != OPS_NO_TOKEN; l++)
                cr_assert_eq(draw(o[l], c.logits, GOLDEN_VOCAB, c.row, NULL), want,
                             "case %u, draw %u on %s", cases, (uint32_t)c.row.position,
                             lab_level[l]);
        }
    }
    cr_assert(cases == 120 && told > 5900, "%u draws of %u cases", told, cases);
    for (uint32_t l = 0; l < lab_levels; l++) ops_close(o[l]);
    free(text);
}

Test(sample, the_most_likely_are_told_without_mask_and_penalties) {
    enum { VOCAB = 5000, TOP = 20 };
    float *logits = lab_random(VOCAB, 3), logprob;
    uint32_t mask[VOCAB / 32 + 1] = {2}, token;
    struct sample_seen seen = {1, 3};
    struct sample_top ref[TOP], top[TOP];
    struct sample_row row = {
        .top_p = 1, .mask = mask, .seen = &seen, .n_seen = 1, .presence = 2, .top_n = TOP};
    for (uint32_t l = 0; l < lab_levels; l++) {
        struct ops *o = lab_open(lab_level[l], 1);
        void *workspace = o->alloc(o, o->sample_bytes(o, VOCAB));
        o->sample(o, &(struct sample_args){1, VOCAB, logits, &row, workspace, &token, &logprob,
                                           l ? top : ref, TOP, NULL});
        cr_assert_eq(token, 1, "the only one that is legal");
        for (uint32_t i = 0; i < TOP; i++) {
            const struct sample_top *t = &(l ? top : ref)[i];
            cr_assert_eq(t->id, ref[i].id);
            cr_assert(fabsf(t->logprob - ref[i].logprob) < 1e-5f);
            cr_assert(fabsf((logits[1] - logits[t->id]) - (logprob - t->logprob)) < 1e-5f);
            if (i) cr_assert(logits[t->id] <= logits[ref[i - 1].id]);
        }
        o->free(o, workspace);
        ops_close(o);
    }
}
