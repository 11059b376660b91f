/* Texts written with guesses are, to the bit, those that are written without: whatever guesses, how
 * many, in which company. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/infer/help.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"
#include "workers/infer/guides.h"
#include "workers/infer/models.h"

#define TINY "examples/models/tiny-llama"
#define PROMPT_MAX 90u
#define NEW_MAX 48u
#define TEXTS 12u
#define TOP 3u
#define SCHEMA                                                                                     \
    "{\"type\":\"array\",\"maxItems\":6,\"items\":{\"enum\":[\"scratch\",\"void\",\"scar\"]}}"

static struct ops *ops;
static struct model *model, *other; /* of the same weights: the one that drafts */
static struct tokenizer *tokenizer;
static struct guides *guides;
static const struct adapter *adapters[3];

static void begin(void) {
    static const char *const dirs[] = {"tests/golden/lora/tiny-loud",
                                       "tests/golden/lora/tiny-quiet"};
    char err[512] = "";
    ops = help_open_best(0);
    model = model_must_open(TINY, ops, NULL);
    other = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = 1600});
    cr_assert_eq(tokenizer_open(&tokenizer, TINY, err, sizeof err), 0, "%s", err);
    cr_assert_eq(guides_open(&guides, tokenizer, model_info(model), err, sizeof err), 0, "%s", err);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(model_adapter(model, dirs[i], &adapters[i + 1], err, sizeof err), 0, "%s",
                     err);
}

static void end(void) {
    guides_close(guides);
    tokenizer_close(tokenizer);
    model_close(other);
    model_close(model);
    ops_close(ops);
}

TestSuite(speculate, .init = begin, .fini = end);

struct text {
    struct gen gen;
    uint32_t prompt[PROMPT_MAX], ids[NEW_MAX];
    float logprob[NEW_MAX];
    struct sample_top top[NEW_MAX * TOP];
    struct guide *guide;
    struct buf pieces;
};

static void hear(struct gen *g, struct bytes piece) {
    struct text *t = g->user;
    cr_assert_eq(buf_append(&t->pieces, piece.data, piece.len), 0);
}

/* Text i of a seed, the same each time: prompts that repeat a phrase, and all kinds of settings.
 * Every fourth is another sample of the one before it. */
static void text_make(struct text *t, uint64_t seed, uint32_t i) {
    bool again = i % 4 == 1;
    uint64_t state = seed * 1000 + i - again;
    struct gen *g = &t->gen;
    char err[256] = "";
    *t = (struct text){0};
    *g = (struct gen){.prompt = t->prompt,
                      .prompt_tokens = 1 + (uint32_t)(rng_next(&state) % PROMPT_MAX),
                      .tokens_max = 1 + (uint32_t)(rng_next(&state) % NEW_MAX),
                      .top_p = 1,
                      .seed = seed,
                      .ids = t->ids,
                      .logprob = t->logprob,
                      .on_text = hear,
                      .user = t};
    uint32_t period = 3 + (uint32_t)(rng_next(&state) % 20), first = 300 + 7 * period;
    for (uint32_t k = 0; k < PROMPT_MAX; k++) t->prompt[k] = first + (k % period) * 5;
    if (rng_next(&state) % 2) g->temperature = rng_next(&state) % 2 ? 0.4f : 1.2f;
    if (rng_next(&state) % 3 == 0) g->top_k = 30;
    if (rng_next(&state) % 3 == 0) g->top_p = 0.9f;
    if (rng_next(&state) % 4 == 0) g->repetition = 1.2f;
    if (rng_next(&state) % 4 == 0) g->frequency = 0.3f;
    if (rng_next(&state) % 2) g->top = t->top;
    g->top_n = g->top ? TOP : 0;
    g->adapter = adapters[rng_next(&state) % 3];
    g->stream = again;
    g->same_prompt = again ? &(t - 1)->gen : NULL;
    if (i % 4 == 3) {
        g->tokens_max = NEW_MAX;
        cr_assert_eq(guide_new(guides, bytes_str(SCHEMA), NEW_MAX, &t->guide, err, sizeof err), 0,
                     "%s", err);
        g->guide = guide_of(t->guide);
    } else if (rng_next(&state) % 3 == 0) {
        g->stop[g->n_stop++] = bytes_str("the");
        g->stop[g->n_stop++] = bytes_str("a ");
    }
}

static void text_end(struct text *t) {
    guide_free(t->guide);
    buf_fini(&t->pieces);
    gen_fini(&t->gen);
}

static struct gen_loop_stats write_all(struct text *t, uint32_t n,
                                       const struct gen_loop_config *c) {
    struct gen_loop *l;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, c), 0);
    for (uint32_t i = 0; i < n; i++) { /* those that come later are served first */
        t[i].gen.priority = (n - i) / 3;
        cr_assert_eq(gen_loop_add(l, &t[i].gen), 0);
        gen_loop_step(l);
    }
    while (gen_loop_step(l)) continue;
    struct gen_loop_stats s = gen_loop_stats(l);
    gen_loop_close(l);
    cr_assert_eq(s.kv_pages, 0, "%u pages did not come back", s.kv_pages);
    return s;
}

static void alike(const struct text *got, const struct text *want, const char *what, uint32_t i) {
    const struct gen *g = &got->gen, *w = &want->gen;
    cr_assert_eq(g->finish, w->finish, "%s, text %u: %d, not %d: %s", what, i, (int)g->finish,
                 (int)w->finish, *g->err ? g->err : w->err);
    cr_assert_eq(g->tokens, w->tokens, "%s, text %u: %u tokens, not %u", what, i, g->tokens,
                 w->tokens);
    cr_assert_arr_eq(got->ids, want->ids, g->tokens * sizeof *got->ids, "%s, text %u", what, i);
    cr_assert_arr_eq(got->logprob, want->logprob, g->tokens * sizeof *got->logprob,
                     "%s, text %u: other bits", what, i);
    if (g->top) cr_assert_arr_eq(got->top, want->top, g->tokens * TOP * sizeof *got->top);
    cr_assert_eq(g->text.len, w->text.len);
    if (g->text.len) cr_assert_arr_eq(g->text.data, w->text.data, g->text.len);
    cr_assert_eq(got->pieces.len, g->text.len, "what was streamed is the text");
    if (g->text.len) cr_assert_arr_eq(got->pieces.data, g->text.data, g->text.len);
}

/* The texts of a seed without guesses, each alone; then all of them together in other ways. */
static struct gen_loop_stats same_texts(uint64_t seed, const struct gen_loop_config *c,
                                        const char *what) {
    struct text *plain = calloc(TEXTS, sizeof *plain), *t = calloc(TEXTS, sizeof *t);
    for (uint32_t i = 0; i < TEXTS; i++) {
        text_make(&plain[i], seed, i);
        text_make(&t[i], seed, i);
        struct gen_loop_stats s =
            write_all(&plain[i], 1, &(struct gen_loop_config){.speculate = SPECULATE_OFF});
        cr_assert(s.guesses == 0 && s.guesses_right == 0);
    }
    struct gen_loop_stats s = write_all(t, TEXTS, c);
    for (uint32_t i = 0; i < TEXTS; i++) alike(&t[i], &plain[i], what, i);
    for (uint32_t i = 0; i < TEXTS; i++) {
        text_end(&plain[i]);
        text_end(&t[i]);
    }
    free(plain);
    free(t);
    return s;
}

#define SEEDS (HELP_SLOW ? 1u : 3u)

Test(speculate, guesses_looked_up_change_no_bit_of_any_text) {
    static const uint32_t fixed[] = {0, 1, 4, DRAFT_MAX};
    uint64_t guesses = 0, right = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (size_t f = 0; f < 4; f++) {
            struct gen_loop_stats s =
                same_texts(seed, &(struct gen_loop_config){.guesses = fixed[f]}, "lookup");
            if (f > 0) cr_assert_gt(s.guesses, 0);
            guesses += s.guesses;
            right += s.guesses_right;
        }
    cr_assert(right > 0 && right < guesses, "%lu of %lu were right", (unsigned long)right,
              (unsigned long)guesses);
}

Test(speculate, guesses_of_a_draft_model_change_no_bit_of_any_text) {
    static const uint32_t fixed[] = {0, 3};
    uint64_t guesses = 0, right = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (size_t f = 0; f < 2; f++) {
            struct gen_loop_config c = {
                .speculate = SPECULATE_DRAFT, .draft = other, .guesses = fixed[f]};
            struct gen_loop_stats s = same_texts(seed, &c, "draft");
            if (f > 0) cr_assert_gt(s.guesses, 0);
            guesses += s.guesses;
            right += s.guesses_right;
            cr_assert_eq(model_kv_free(other), 1600, "the draft model's pages came back");
        }
    cr_assert(right > guesses / 10 && right < guesses, "%lu of %lu were right",
              (unsigned long)right, (unsigned long)guesses);
}

Test(speculate, texts_that_pause_in_a_small_pool_change_no_bit) {
    char err[256] = "";
    uint64_t pauses = 0;
    guides_close(guides);
    model_close(model);
    model = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = 160, .rows_max = 23});
    cr_assert_eq(guides_open(&guides, tokenizer, model_info(model), err, sizeof err), 0, "%s", err);
    adapters[1] = adapters[2] = NULL;
    for (uint64_t seed = 7; seed < 7 + SEEDS; seed++) {
        struct gen_loop_stats s =
            same_texts(seed, &(struct gen_loop_config){.guesses = 5}, "a small pool");
        pauses += s.pauses;
        same_texts(
            seed,
            &(struct gen_loop_config){.speculate = SPECULATE_DRAFT, .draft = other, .guesses = 2},
            "a small pool and a draft model");
    }
    cr_assert_gt(pauses, 0);
}

/* One text of 48 tokens that no end token cuts short: how many steps it takes. */
static uint64_t steps_of(const struct gen_loop_config *c, float temperature) {
    struct text t;
    text_make(&t, 5, 0);
    t.gen.prompt_tokens = 60;
    t.gen.tokens_max = NEW_MAX;
    t.gen.temperature = temperature;
    t.gen.repetition = t.gen.frequency = 0;
    t.gen.top_k = 0;
    t.gen.top_p = 1;
    t.gen.n_stop = 0;
    t.gen.adapter = NULL;
    struct gen_loop_stats s = write_all(&t, 1, c);
    uint64_t tokens = s.tokens;
    text_end(&t);
    return tokens == 0 ? 0 : s.steps * NEW_MAX / tokens;
}

Test(speculate, a_draft_that_is_the_model_itself_is_always_right_greedy_or_sampled) {
    struct gen_loop_config c = {.speculate = SPECULATE_DRAFT, .draft = other, .guesses = 7};
    for (int i = 0; i < 2; i++) {
        uint64_t plain =
                     steps_of(&(struct gen_loop_config){.speculate = SPECULATE_OFF}, i ? 0.8f : 0),
                 drafted = steps_of(&c, i ? 0.8f : 0);
        cr_assert_leq(drafted * 4, plain, "%lu steps instead of %lu", (unsigned long)drafted,
                      (unsigned long)plain);
    }
}

Test(speculate, a_text_that_is_cancelled_while_its_guesses_are_confirmed_ends_there) {
    struct text t;
    atomic_bool cancelled = true;
    struct gen_loop *l;
    struct gen_loop_config c = {.speculate = SPECULATE_DRAFT, .draft = other, .guesses = 7};
    text_make(&t, 5, 0);
    t.gen.tokens_max = NEW_MAX;
    t.gen.n_stop = 0;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, &c), 0);
    cr_assert_eq(gen_loop_add(l, &t.gen), 0);
    while (gen_loop_step(l))
        if (t.gen.tokens > 0) t.gen.cancelled = &cancelled;
    cr_assert_eq(t.gen.error, ERR_CANCELLED);
    gen_loop_close(l);
    cr_assert_eq(model_kv_free(other), 1600);
    text_end(&t);
}

Test(speculate, the_names_of_its_ways_are_known_and_no_others) {
    enum speculate_mode mode;
    cr_assert(speculate_mode_of("lookup", &mode) && mode == SPECULATE_LOOKUP);
    cr_assert(speculate_mode_of("off", &mode) && mode == SPECULATE_OFF);
    cr_assert(!speculate_mode_of("on", &mode) && !speculate_mode_of("", &mode));
}

Test(speculate, a_set_of_models_knows_who_guesses_for_whom) {
    static const char *const named[] = {"large=" TINY, "small=" TINY};
    struct models *set;
    struct gen_loop_config c = {0};
    char err[512] = "";
    cr_assert_eq(models_open(&set, ops, NULL, named, 2, err, sizeof err), 0, "%s", err);
    const char *draft = "large=small", *unknown = "large=tiny", *wrong = "small";
    cr_assert_eq(models_speculate(set, SPECULATE_OFF, &unknown, 1, err, sizeof err), ERR_UNKNOWN);
    cr_assert(strstr(err, "--draft large=tiny: model tiny is not here"), "%s", err);
    cr_assert_eq(models_speculate(set, SPECULATE_OFF, &wrong, 1, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "MODEL=DRAFT"), "%s", err);
    cr_assert_eq(models_speculate(set, SPECULATE_OFF, &draft, 1, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_guessing(set, bytes_str("small"), &c, err, sizeof err), 0, "%s", err);
    cr_assert(c.speculate == SPECULATE_OFF && !c.draft);
    cr_assert_eq(models_guessing(set, bytes_str("large"), &c, err, sizeof err), 0, "%s", err);
    cr_assert(c.speculate == SPECULATE_DRAFT && c.draft);
    struct text plain, drafted;
    struct gen *list[] = {&plain.gen}, *other_list[] = {&drafted.gen};
    text_make(&plain, 5, 0);
    text_make(&drafted, 5, 0);
    generate(model, tokenizer, list, 1);
    c.guesses = 3;
    cr_assert_gt(generate_with(model, tokenizer, &c, other_list, 1).guesses, 0);
    alike(&drafted, &plain, "a draft model of the set", 0);
    text_end(&plain);
    text_end(&drafted);
    models_close(set);
}

Test(speculate, a_draft_model_of_another_vocabulary_or_that_writes_nothing_is_refused) {
    struct model *m;
    struct scratch s;
    char err[512] = "";
    cr_assert_eq(speculate_draft_open(&m, TINY, ops, tokenizer, err, sizeof err), 0, "%s", err);
    model_close(m);
    scratch_begin(&s, TINY);
    scratch_copy(&s, TINY, "tokenizer.json");
    scratch_replace(&s, "tokenizer.json", "\"!\": 0,", "\"!\": 2,");
    scratch_replace(&s, "tokenizer.json", "\"#\": 2,", "\"#\": 0,");
    cr_assert_eq(speculate_draft_open(&m, s.dir, ops, tokenizer, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "is another text than the model's") && !m, "%s", err);
    scratch_end(&s);
    cr_assert_eq(
        speculate_draft_open(&m, "tests/golden/models/bert", ops, tokenizer, err, sizeof err),
        ERR_FIELD);
    cr_assert(strstr(err, "does not write text") && !m, "%s", err);
}
