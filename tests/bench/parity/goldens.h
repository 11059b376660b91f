/* goldens.h - one folder of tests/golden/models or tests/golden/lora, or MiniLM's, as the parity
 * program reads it.
 *
 * Units: elements.  Owner: golden_load and golden_minilm fill what golden_free frees.
 * Memory: malloc.  Errors: a message and exit(1): this is for a program.  Threads: one. */
#ifndef PENSTOCK_TESTS_BENCH_PARITY_GOLDENS_H
#define PENSTOCK_TESTS_BENCH_PARITY_GOLDENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct golden {
    char dir[512], script[128], sha256[65]; /* as golden.json says; sha256 "": it says nothing */
    char base[64];                          /* dir is an adapter of that model; "": a model */
    uint32_t cases, *begin, *ids;           /* ids of case c: begin[c] .. begin[c + 1] - 1 */
    float *expected;
    size_t expected_n;
    uint32_t *prompt, prompt_n, *new_ids, new_n; /* new_n 0: an encoder's */
};

/* False when the folder has no cases. */
bool golden_load(struct golden *g, const char *dir);
/* False when MiniLM is not in the user's cache; else model_dir is where it is. */
bool golden_minilm(struct golden *g, char *model_dir, size_t model_dir_bytes);
void golden_free(struct golden *g);
/* SHA-256 in hexadecimal of config, weights and expected values, in the order of their names;
 * MiniLM: of the expected values. */
void golden_digest(const struct golden *g, char out[65]);
_Noreturn void golden_die(const char *what);

#endif
