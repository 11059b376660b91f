/* The loop that texts join while others run: the same bits whoever comes and goes, whoever has to
 * pause, and everybody's turn. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/infer/help.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"

#define TINY "examples/models/tiny-llama"
#define PROMPT_MAX 150u
#define NEW_MAX 60u

static struct ops *ops;
static struct model *model;
static struct tokenizer *tokenizer;
static const struct adapter *adapters[3];

static void open_with(uint32_t kv_tokens) {
    static const char *const dirs[] = {"tests/golden/lora/tiny-loud",
                                       "tests/golden/lora/tiny-quiet"};
    char err[512] = "";
    model_close(model);
    model = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = kv_tokens});
    for (int i = 0; i < 2; i++)
        cr_assert_eq(model_adapter(model, dirs[i], &adapters[i + 1], err, sizeof err), 0, "%s",
                     err);
}

static void begin(void) {
    char err[512] = "";
    ops = help_open_best(0);
    cr_assert_eq(tokenizer_open(&tokenizer, TINY, err, sizeof err), 0, "%s", err);
}

static void end(void) {
    tokenizer_close(tokenizer);
    model_close(model);
    ops_close(ops);
}

TestSuite(loop, .init = begin, .fini = end);

struct text {
    struct gen gen;
    uint32_t prompt[PROMPT_MAX], ids[NEW_MAX];
    float logprob[NEW_MAX];
    atomic_bool cancelled;
    bool ended;
    uint32_t end; /* how many had ended before it */
};
static uint32_t ends;

static void on_end(struct gen *g) {
    struct text *t = g->user;
    cr_assert(!t->ended, "reported twice");
    t->ended = true;
    t->end = ends++;
}

static void text_set(struct text *t, uint64_t *state, uint32_t prompt, uint32_t tokens_max) {
    *t = (struct text){0};
    for (uint32_t i = 0; i < prompt; i++) t->prompt[i] = 300 + (uint32_t)(rng_next(state) % 700);
    t->gen = (struct gen){.prompt = t->prompt,
                          .prompt_tokens = prompt,
                          .tokens_max = tokens_max,
                          .top_p = 1,
                          .cancelled = &t->cancelled,
                          .on_end = on_end,
                          .user = t,
                          .ids = t->ids,
                          .logprob = t->logprob};
}

static void text_draw(struct text *t, uint64_t *state) {
    text_set(t, state, 1 + (uint32_t)(rng_next(state) % PROMPT_MAX),
             1 + (uint32_t)(rng_next(state) % NEW_MAX));
    t->gen.temperature = rng_next(state) % 3 ? 1.1f : 0;
    t->gen.top_k = rng_next(state) % 2 ? 40 : 0;
    t->gen.repetition = rng_next(state) % 4 ? 0 : 1.3f;
    t->gen.seed = rng_next(state);
    t->gen.priority = (uint32_t)(rng_next(state) % 3);
    t->gen.adapter = adapters[rng_next(state) % 3];
}

/* The same text, written alone from an empty loop. */
static void is_as_alone(const struct text *t, uint64_t seed, uint32_t i) {
    struct text *alone = calloc(1, sizeof *alone);
    struct gen *list[] = {&alone->gen};
    alone->gen = t->gen;
    alone->gen.ids = alone->ids;
    alone->gen.logprob = alone->logprob;
    alone->gen.text = (struct buf){0};
    alone->gen.same_prompt = NULL;
    alone->gen.on_end = NULL;
    alone->gen.cancelled = NULL;
    generate(model, tokenizer, list, 1);
    cr_assert_eq(alone->gen.finish, t->gen.finish, "seed %lu text %u: %s", (unsigned long)seed, i,
                 t->gen.err);
    cr_assert_eq(alone->gen.tokens, t->gen.tokens, "seed %lu text %u", (unsigned long)seed, i);
    cr_assert_arr_eq(alone->ids, t->ids, t->gen.tokens * sizeof *t->ids, "seed %lu text %u",
                     (unsigned long)seed, i);
    cr_assert_arr_eq(alone->logprob, t->logprob, t->gen.tokens * sizeof *t->logprob,
                     "seed %lu text %u: other bits", (unsigned long)seed, i);
    gen_fini(&alone->gen);
    free(alone);
}

/* Texts that join at random steps, some of them cancelled at random steps. */
static uint64_t come_and_go(uint64_t seed, uint32_t n, const struct gen_loop_config *c) {
    struct text *t = calloc(n, sizeof *t);
    struct gen_loop *l;
    uint64_t state = seed;
    uint32_t joined = 0, free_before = model_kv_free(model);
    bool *cancels = calloc(n, sizeof *cancels);
    ends = 0;
    for (uint32_t i = 0; i < n; i++) text_draw(&t[i], &state);
    for (uint32_t i = 1; i < n; i++) { /* some are another sample of the one before */
        if (rng_next(&state) % 5) continue;
        struct gen *g = &t[i].gen, *first = &t[i - 1].gen;
        if (first->same_prompt) continue;
        memcpy(t[i].prompt, t[i - 1].prompt, sizeof t[i].prompt);
        g->prompt_tokens = first->prompt_tokens;
        g->adapter = first->adapter;
        g->stream = 1;
        g->same_prompt = first;
    }
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, c), 0);
    for (bool more = false; joined < n || more;) {
        for (uint64_t k = rng_next(&state) % 3; k > 0 && joined < n; k--)
            cr_assert_eq(gen_loop_add(l, &t[joined++].gen), 0);
        if (joined > 0 && rng_next(&state) % 23 == 0) {
            uint32_t victim = (uint32_t)(rng_next(&state) % joined);
            cancels[victim] |= !t[victim].ended;
            atomic_store(&t[victim].cancelled, true);
        }
        more = gen_loop_step(l);
    }
    struct gen_loop_stats s = gen_loop_stats(l);
    cr_assert(s.running == 0 && s.waiting == 0);
    gen_loop_close(l);
    cr_assert_eq(ends, n, "seed %lu: %u of %u texts ended", (unsigned long)seed, ends, n);
    cr_assert_eq(model_kv_free(model), free_before, "seed %lu: pages leaked", (unsigned long)seed);
    for (uint32_t i = 0; i < n; i++) {
        struct gen *g = &t[i].gen;
        if (cancels[i])
            cr_assert(g->finish == GEN_FAILED && g->error == ERR_CANCELLED, "%s", g->err);
        else
            is_as_alone(&t[i], seed, i);
        gen_fini(g);
    }
    free(cancels);
    free(t);
    return s.pauses;
}

Test(loop, texts_that_join_at_any_time_are_the_texts_written_alone) {
    open_with(4096);
    for (uint64_t seed = 1; seed <= (HELP_SLOW ? 1 : 4); seed++) {
        struct gen_loop_config c = {.step_rows = seed % 2 ? 7 * (uint32_t)seed : 0};
        cr_assert_eq(come_and_go(seed, HELP_SLOW ? 8 : 30, &c), 0, "there was room for all");
    }
}

Test(loop, texts_that_had_to_pause_are_the_texts_written_alone) {
    uint64_t pauses = 0;
    open_with(448); /* two of the longest */
    for (uint64_t seed = 11; seed <= (HELP_SLOW ? 11 : 16); seed++) {
        struct gen_loop_config c = {.step_rows = 16 + (uint32_t)seed};
        pauses += come_and_go(seed, HELP_SLOW ? 10 : 30, &c);
    }
    cr_assert_gt(pauses, 0, "the pool never came short: the test does not test");
}

Test(loop, with_a_cache_in_int8_texts_keep_their_bits) {
    struct model_config lean = {0};
    struct gen_loop_config c = {.step_rows = 19};
    model_config_lean(&lean);
    model = model_must_open(TINY, ops, &lean);
    cr_assert(strstr(model_numerics_id(model), "+kv-i8"), "%s", model_numerics_id(model));
    adapters[1] = adapters[2] = NULL;
    come_and_go(31, HELP_SLOW ? 8 : 20, &c);
}

Test(loop, a_pool_that_comes_short_makes_the_last_pause_and_the_first_go_on) {
    enum { TEXTS = 6 };
    struct text *t = calloc(TEXTS, sizeof *t);
    struct gen_loop *l;
    uint64_t state = 5;
    open_with(320); /* claims of 16 and 64 more: four are let in, and cannot all end */
    ends = 0;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, NULL), 0);
    for (uint32_t i = 0; i < TEXTS; i++) {
        text_set(&t[i], &state, 16, NEW_MAX);
        t[i].gen.presence = 1; /* else they may end early */
        t[i].gen.seed = i;
        cr_assert_eq(gen_loop_add(l, &t[i].gen), 0);
    }
    while (gen_loop_step(l)) cr_assert_leq(gen_loop_stats(l).kv_pages, 20);
    gen_loop_close(l);
    cr_assert_eq(ends, TEXTS);
    for (uint32_t i = 0; i < TEXTS; i++) {
        is_as_alone(&t[i], 5, i);
        gen_fini(&t[i].gen);
    }
    free(t);
}

Test(loop, a_text_of_a_higher_priority_pushes_the_lower_ones_out_and_ends_first) {
    struct text *t = calloc(4, sizeof *t);
    struct gen_loop *l;
    uint64_t state = 6;
    open_with(256);
    ends = 0;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, NULL), 0);
    for (uint32_t i = 0; i < 4; i++) {
        text_set(&t[i], &state, i == 3 ? 140 : 40, i == 3 ? 5 : NEW_MAX);
        t[i].gen.presence = 1;
        t[i].gen.priority = i == 3 ? 0 : 4;
    }
    for (uint32_t i = 0; i < 3; i++) cr_assert_eq(gen_loop_add(l, &t[i].gen), 0);
    for (int i = 0; i < 5; i++) gen_loop_step(l);
    cr_assert(!t[0].ended && t[0].gen.tokens > 0);
    cr_assert_eq(gen_loop_add(l, &t[3].gen), 0);
    while (gen_loop_step(l)) continue;
    cr_assert_gt(gen_loop_stats(l).pauses, 0);
    gen_loop_close(l);
    cr_assert_eq(t[3].end, 0, "it ended as number %u", t[3].end);
    cr_assert_lt(t[0].end, t[2].end, "of one priority the older goes on");
    for (uint32_t i = 0; i < 4; i++) {
        is_as_alone(&t[i], 6, i);
        gen_fini(&t[i].gen);
    }
    free(t);
}

Test(loop, a_stream_of_short_texts_does_not_keep_a_long_prompt_from_its_turn) {
    enum { SHORT = 400 };
    struct text *t = calloc(SHORT + 1, sizeof *t), *longest = &t[SHORT];
    struct gen_loop *l;
    struct gen_loop_config c = {.step_rows = 8};
    uint64_t state = 7;
    uint32_t came = 0;
    open_with(192);
    ends = 0;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, &c), 0);
    for (uint32_t i = 0; i < SHORT; i++) text_set(&t[i], &state, 12, 2);
    text_set(longest, &state, PROMPT_MAX, 3);
    for (; came < 20; came++) cr_assert_eq(gen_loop_add(l, &t[came].gen), 0);
    cr_assert_eq(gen_loop_add(l, &longest->gen), 0);
    while (!longest->ended && came < SHORT) {
        cr_assert_eq(gen_loop_add(l, &t[came++].gen), 0);
        gen_loop_step(l);
    }
    cr_assert(longest->ended, "%u short texts came, and it had no turn", came);
    while (gen_loop_step(l)) continue;
    gen_loop_close(l);
    is_as_alone(longest, 7, SHORT);
    for (uint32_t i = 0; i <= SHORT; i++) gen_fini(&t[i].gen);
    free(t);
}

Test(loop, a_short_text_that_comes_while_a_long_prompt_is_read_is_written_before_it) {
    struct text *t = calloc(2, sizeof *t);
    struct gen_loop *l;
    struct gen_loop_config c = {.step_rows = 8};
    uint64_t state = 8;
    open_with(1024);
    ends = 0;
    text_set(&t[0], &state, PROMPT_MAX, 4);
    text_set(&t[1], &state, 4, 4);
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, &c), 0);
    cr_assert_eq(gen_loop_add(l, &t[0].gen), 0);
    gen_loop_step(l);
    cr_assert_eq(gen_loop_add(l, &t[1].gen), 0);
    while (gen_loop_step(l)) continue;
    gen_loop_close(l);
    cr_assert_eq(t[1].end, 0);
    for (uint32_t i = 0; i < 2; i++) {
        is_as_alone(&t[i], 8, i);
        gen_fini(&t[i].gen);
    }
    free(t);
}

Test(loop, a_text_that_waits_is_cancelled_too_and_a_bad_one_ends_at_once) {
    struct text *t = calloc(3, sizeof *t);
    struct gen_loop *l;
    uint64_t state = 9;
    open_with(160);
    ends = 0;
    cr_assert_eq(gen_loop_open(&l, model, tokenizer, NULL), 0);
    text_set(&t[0], &state, 90, NEW_MAX);
    text_set(&t[1], &state, 120, NEW_MAX);
    text_set(&t[2], &state, 9, NEW_MAX);
    t[0].gen.presence = 1;
    t[2].prompt[4] = 1u << 30;
    for (uint32_t i = 0; i < 3; i++) cr_assert_eq(gen_loop_add(l, &t[i].gen), 0);
    cr_assert(gen_loop_step(l));
    cr_assert(t[2].ended && t[2].gen.finish == GEN_FAILED && t[2].gen.error == ERR_FIELD);
    cr_assert_eq(gen_loop_stats(l).waiting, 1);
    atomic_store(&t[1].cancelled, true);
    cr_assert(gen_loop_step(l));
    cr_assert(t[1].ended && t[1].gen.error == ERR_CANCELLED && !t[0].ended);
    gen_loop_close(l); /* with a text that still runs: its pages come back */
    cr_assert_eq(model_kv_free(model), model_info(model)->kv_tokens);
    for (uint32_t i = 0; i < 3; i++) gen_fini(&t[i].gen);
    free(t);
}
