#include "tests/bench/engine/guesses.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"

enum { FIRST = 20000, TEXT = 192, RUN = 20, GAP = 4, PROMPT = 256, KV_TOKENS = 1024 };

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

void guesses_open(struct guesses_bench *g, const struct random_shape *s, const char *dir,
                  enum dtype weights, uint32_t threads) {
    char err[512];
    *g = (struct guesses_bench){.shape = s};
    if (!ours_open(&g->ours, dir, weights, threads, KV_TOKENS)) exit(1);
    if (tokenizer_open(&g->tokenizer, dir, err, sizeof err) != 0) die(err);
}

void guesses_close(struct guesses_bench *g) {
    tokenizer_close(g->tokenizer);
    ours_close(&g->ours);
}

/* The runs of the text, the last one first, in a prompt that ends with the token before it. */
static uint32_t prompt_that_repeats(uint32_t *prompt) {
    uint32_t n = 0;
    for (uint32_t run = TEXT / (RUN + GAP); run-- > 0;)
        for (uint32_t i = 0; i < RUN; i++) prompt[n++] = FIRST + 1 + run * (RUN + GAP) + i;
    prompt[n++] = FIRST;
    return n;
}

/* Pairs of the text with a token behind them that is not what it goes on with. */
static uint32_t prompt_of_others(uint32_t *prompt) {
    uint64_t state = 3;
    uint32_t n = 0;
    for (uint32_t at = 0; at < TEXT && n + 8 < PROMPT; at += 8) {
        prompt[n++] = FIRST + at;
        prompt[n++] = FIRST + at + 1;
        for (uint32_t i = 0; i < 6; i++) prompt[n++] = (uint32_t)(rng_next(&state) % FIRST);
    }
    prompt[n++] = FIRST;
    return n;
}

double guesses_rate(struct guesses_bench *g, bool repeats, bool guess) {
    uint32_t prompt[PROMPT], ids[TEXT];
    uint32_t n = repeats ? prompt_that_repeats(prompt) : prompt_of_others(prompt);
    struct gen text = {.prompt = prompt,
                       .prompt_tokens = n,
                       .tokens_max = TEXT,
                       .top_p = 1,
                       .repetition = 1,
                       .ids = ids};
    struct gen_loop_config c = {.speculate = guess ? SPECULATE_LOOKUP : SPECULATE_OFF};
    struct gen_loop *loop;
    int64_t began = 0;
    if (gen_loop_open(&loop, g->ours.model, g->tokenizer, &c) != 0 ||
        gen_loop_add(loop, &text) != 0)
        die("no memory for a text");
    /* The time begins when the prompt is read. */
    while (gen_loop_step(loop))
        if (began == 0 && text.tokens > 0) began = clock_mono_ns();
    double seconds = (double)(clock_mono_ns() - began) * 1e-9;
    if (text.error || text.tokens != TEXT) die("the text ended early");
    for (uint32_t i = 0, t = FIRST; i < TEXT; i++)
        if (ids[i] != (t = random_model_next(g->shape, t))) die("the text is not the known one");
    gen_loop_close(loop);
    gen_fini(&text);
    return (TEXT - 1) / seconds;
}
