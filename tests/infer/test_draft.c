/* Guesses, and how many of them pay. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "workers/infer/draft.h"
#include "workers/infer/lookup.h"

static struct lookup *look(const char *text) {
    struct lookup *l;
    cr_assert_eq(lookup_open(&l, 200), 0);
    for (const char *c = text; *c; c++) lookup_add(l, (uint32_t)(unsigned char)*c);
    return l;
}

static void guesses(const char *text, uint32_t match, const char *next) {
    struct lookup *l = look(text);
    uint32_t ids[40], n = (uint32_t)strlen(next);
    cr_assert_eq(lookup_match(l), match, "\"%s\": %u are alike", text, lookup_match(l));
    cr_assert_eq(lookup_guess(l, n, ids), n);
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(ids[i], (uint32_t)(unsigned char)next[i], "\"%s\": guess %u is %c", text, i,
                     (int)ids[i]);
    lookup_close(l);
}

Test(lookup, a_guess_is_what_followed_the_longest_place_that_is_alike) {
    guesses("the cat sat. the dog ran. the c", 5, "at sat. the d");
    guesses("abcx abcy abc", 4, "y abc");
    guesses("1abcx 2abcy 1abc", 4, "x 2abcy");
    guesses("abx..aby..ab", 4, "y..ab");
}

Test(lookup, a_text_that_repeats_itself_is_guessed_to_go_on_so) {
    guesses("xyxyx", 3, "yxyxyxyxy");
    guesses("aaaa", 3, "aaaaaaa");
    guesses("start 123123", 3, "123123123");
}

Test(lookup, where_nothing_is_alike_there_is_no_guess) {
    static const char *const texts[] = {"", "a", "ab", "abc", "abcdefa", "aab"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct lookup *l = look(texts[i]);
        uint32_t id;
        cr_assert_eq(lookup_match(l), 0, "%s", texts[i]);
        cr_assert_eq(lookup_guess(l, 1, &id), 0);
        cr_assert_eq(lookup_len(l), strlen(texts[i]));
        lookup_close(l);
    }
}

/* Whether the guess stood behind the last `match` tokens before, as far as the text goes. */
static bool stood_there(const uint32_t *ids, uint32_t n, uint32_t match, const uint32_t *guess,
                        uint32_t guessed) {
    for (uint32_t place = match; place < n; place++) {
        uint32_t left = n - place < guessed ? n - place : guessed;
        if (memcmp(ids + place - match, ids + n - match, match * sizeof *ids) == 0 &&
            memcmp(ids + place, guess, left * sizeof *ids) == 0)
            return true;
    }
    return false;
}

Test(lookup, every_guess_is_true_of_some_place_and_one_is_found_where_there_is_one) {
    enum { N = 400, GUESS = 9 };
    for (uint64_t seed = 1; seed <= 30; seed++) {
        uint64_t state = seed;
        uint32_t ids[N], kinds = 2 + (uint32_t)(rng_next(&state) % 40), copied = 0, from = 0;
        uint32_t guess[GUESS];
        struct lookup *l;
        cr_assert_eq(lookup_open(&l, N), 0);
        for (uint32_t n = 0; n < N; n++) {
            if (copied == 0 && n > 20 && rng_next(&state) % 20 == 0) {
                from = (uint32_t)(rng_next(&state) % (n - 15));
                copied = 15;
            }
            ids[n] = copied ? ids[from++] : (uint32_t)(rng_next(&state) % kinds) << 20;
            copied -= copied > 0;
            lookup_add(l, ids[n]);
            if (rng_next(&state) % 3 == 0) continue; /* not asked each time */
            uint32_t match = lookup_match(l);
            bool pair = false;
            for (uint32_t k = 2; k <= n && !pair; k++)
                pair = ids[k - 2] == ids[n - 1] && ids[k - 1] == ids[n];
            if (kinds > 20) cr_assert_eq(match > 0, pair && n > 1, "seed %lu", (unsigned long)seed);
            if (match == 0) continue;
            cr_assert_eq(lookup_guess(l, GUESS, guess), GUESS);
            cr_assert(stood_there(ids, n + 1, match, guess, GUESS), "seed %lu, %u tokens",
                      (unsigned long)seed, n);
        }
        lookup_close(l);
    }
}

/* ---- the plan ---- */

static struct draft_text text_of(float odds, uint32_t most) {
    struct draft_text t = {.most = most};
    for (uint32_t i = 0; i < DRAFT_MAX; i++) t.odds[i] = odds;
    return t;
}

/* Steps that took first_ns and row_ns for each further row. */
static void pace_set(struct draft_pace *p, int64_t first_ns, int64_t row_ns) {
    *p = (struct draft_pace){0};
    for (uint32_t rows = 1; rows <= DRAFT_ROWS_MAX; rows++)
        draft_pace_note(p, rows, first_ns + row_ns * (rows - 1));
}

Test(draft, rows_that_cost_little_are_taken_when_their_guesses_are_likely) {
    struct draft_pace p;
    struct draft_text t = text_of(0.95f, DRAFT_MAX);
    pace_set(&p, 1000000, 20000);
    draft_plan(&p, 1, 60, 0, &t, 1);
    cr_assert_gt(t.n, 8);
    t = text_of(0.95f, 3);
    draft_plan(&p, 1, 60, 0, &t, 1);
    cr_assert_eq(t.n, 3, "not more than it may have");
    t = text_of(0.95f, DRAFT_MAX);
    draft_plan(&p, 1, 2, 0, &t, 1);
    cr_assert_eq(t.n, 2, "nor than there is room for");
    t = text_of(0.3f, DRAFT_MAX);
    draft_plan(&p, 1, 60, 0, &t, 1);
    cr_assert(t.n > 0 && t.n < 5, "%u", t.n);
    t = text_of(0.01f, DRAFT_MAX);
    draft_plan(&p, 1, 60, 0, &t, 1);
    cr_assert_eq(t.n, 0, "a gain too small to be sure of");
}

Test(draft, rows_that_cost_as_much_as_a_step_are_never_taken) {
    struct draft_pace p;
    struct draft_text t = text_of(0.9f, DRAFT_MAX);
    pace_set(&p, 1000000, 1000000);
    draft_plan(&p, 1, 60, 0, &t, 1);
    cr_assert_eq(t.n, 0);
    pace_set(&p, 1000000, 20000);
    draft_plan(&p, 1, 60, 1000000, &t, 1);
    cr_assert_eq(t.n, 0, "nor guesses that take so long to make");
}

Test(draft, the_likelier_of_two_texts_gets_the_rows) {
    struct draft_pace p;
    struct draft_text t[2] = {text_of(0.2f, DRAFT_MAX), text_of(0.9f, DRAFT_MAX)};
    pace_set(&p, 1000000, 20000);
    draft_plan(&p, 2, 4, 0, t, 2);
    cr_assert(t[0].n == 0 && t[1].n == 4, "%u and %u", t[0].n, t[1].n);
    draft_plan(&p, 2, 60, 0, t, 2);
    cr_assert_gt(t[1].n, t[0].n);
}

Test(draft, rows_beside_a_prompt_pay_by_what_they_add) {
    struct draft_pace p;
    struct draft_text t = text_of(0.9f, DRAFT_MAX);
    pace_set(&p, 1000000, 50000);
    draft_pace_note(&p, 300, 300 * 60000);
    draft_plan(&p, 300, 60, 0, &t, 1);
    cr_assert_gt(t.n, 3);
    t = text_of(0.02f, DRAFT_MAX);
    draft_plan(&p, 300, 60, 0, &t, 1);
    cr_assert_eq(t.n, 0);
}

Test(draft, one_disturbed_step_does_not_end_it_and_an_old_time_is_forgotten) {
    struct draft_pace p = {0};
    for (int i = 0; i < 8; i++) {
        draft_pace_note(&p, 1, 1000000);
        draft_pace_note(&p, 5, 1100000);
    }
    draft_pace_note(&p, 5, 90000000);
    cr_assert_lt(draft_pace_of(&p, 5), 1.2 * 1100000 * 1.1);
    for (int i = 0; i < 20; i++) draft_pace_note(&p, 5, 90000000);
    cr_assert_gt(draft_pace_of(&p, 5), 9000000);
    for (int i = 0; i < 600; i++) draft_pace_note(&p, 1, 1000000);
    cr_assert_lt(draft_pace_of(&p, 5), 2000000, "it is as if it was not seen");
}

Test(draft, odds_follow_what_comes) {
    struct draft_odds o = {0};
    for (uint32_t match = 2; match < 40; match++) {
        cr_assert(draft_class(match) > 0 && draft_class(match) < DRAFT_CLASSES);
        cr_assert_geq(draft_odds_of(&o, draft_class(match + 1)),
                      draft_odds_of(&o, draft_class(match)), "longer is likelier at first");
    }
    for (int i = 0; i < 60; i++) draft_odds_note(&o, 3, i % 4 == 0);
    cr_assert_float_eq(draft_odds_of(&o, 3), 0.25f, 0.12f);
    for (int i = 0; i < 60; i++) draft_odds_note(&o, 3, true);
    cr_assert_gt(draft_odds_of(&o, 3), 0.9f);
}

/* Plain time over the time with guesses, for a text whose guesses are right with a chance of
 * `right`, on a machine whose further rows cost `cost` of the first. */
static double gain(double right, double cost, uint64_t seed) {
    struct draft_pace p = {0};
    struct draft_odds o = {0};
    uint64_t state = seed;
    double time = 0, tokens = 0, first = 1e7;
    while (tokens < 1500) {
        struct draft_text t = {.most = DRAFT_MAX};
        for (uint32_t i = 0; i < DRAFT_MAX; i++)
            t.odds[i] = draft_odds_of(&o, draft_class(2 + i < 32 ? 2 + i : 32));
        draft_plan(&p, 1, 60, 0, &t, 1);
        double noise = 0.97 + 0.06 * (double)(rng_next(&state) % 1000) / 1000;
        if (rng_next(&state) % 50 == 0) noise *= 3;
        double step = first * (1 + cost * t.n);
        draft_pace_note(&p, 1 + t.n, (int64_t)(step * noise));
        time += step;
        for (uint32_t i = 0;; i++) {
            bool hit = (double)(rng_next(&state) % 100000) < right * 1e5;
            draft_odds_note(&o, draft_class(2 + i), hit);
            tokens++;
            if (!hit || i == t.n) break;
        }
    }
    return tokens * first / time;
}

Test(draft, it_never_costs_three_in_a_hundred_and_pays_where_texts_repeat) {
    static const double rights[] = {0, 0.05, 0.2, 0.4, 0.7, 0.9, 0.98},
                        costs[] = {0.01, 0.05, 0.15, 0.4, 1};
    for (size_t r = 0; r < sizeof rights / sizeof *rights; r++)
        for (size_t c = 0; c < sizeof costs / sizeof *costs; c++) {
            double least = 0.97, got = 0;
            for (uint64_t seed = 1; seed <= 5; seed++) got += gain(rights[r], costs[c], seed) / 5;
            if (rights[r] > 0.85 && costs[c] < 0.1) least = 2.5;
            if (rights[r] > 0.95 && costs[c] < 0.03) least = 6;
            cr_assert_geq(got, least, "right %g, cost %g: %g", rights[r], costs[c], got);
        }
}
