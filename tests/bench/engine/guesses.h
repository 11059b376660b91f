/* guesses.h - how much faster a text is written when its next tokens are guessed.
 *
 * The model writes a text that is known beforehand (random_model.h), so the prompt decides what
 * guessing by lookup is worth:
 *   repeat   runs of 20 tokens of the text that is to come stand in the prompt, in another order,
 *            with 4 tokens of it missing between two runs: three of four tokens can be looked up,
 *            as where a contract's clauses are copied out;
 *   fresh    none of the text's pairs of tokens stands in the prompt with its own continuation,
 *            but every eighth stands there with another: what is looked up is wrong.
 *
 * Units: tokens a second.  Owner: guesses_open gives what guesses_close ends.  Memory: the model's.
 * Errors: a message and exit(1): this is a benchmark.  Threads: one; the model has its own. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_GUESSES_H
#define PENSTOCK_TESTS_BENCH_ENGINE_GUESSES_H

#include <stdbool.h>

#include "tests/bench/engine/ours.h"
#include "tests/bench/engine/random_model.h"

struct tokenizer;
struct guesses_bench {
    struct ours ours;
    const struct random_shape *shape;
    struct tokenizer *tokenizer;
};
void guesses_open(struct guesses_bench *g, const struct random_shape *s, const char *dir,
                  enum dtype weights, uint32_t threads);
void guesses_close(struct guesses_bench *g);

/* Writes the text after one prompt; the tokens are compared with those that are known. */
double guesses_rate(struct guesses_bench *g, bool repeats, bool guess);

#endif
