/* ours.h - a decoder of ours under the loads of engine.c: prefill, and decode of several texts.
 *
 * Units: seconds.  Owner: ours_open gives what ours_close ends.  Memory: the model's.
 * Errors: a message and exit(1): this is a benchmark.  Threads: one; the model has its own. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_OURS_H
#define PENSTOCK_TESTS_BENCH_ENGINE_OURS_H

#include "workers/infer/model.h"

struct ours {
    struct ops *ops;
    struct model *model;
};
/* False, and a line that says so, where these weights are not supported. */
bool ours_open(struct ours *o, const char *dir, enum dtype weights, uint32_t threads,
               uint32_t kv_tokens);
void ours_close(struct ours *o); /* accepts zeroed memory */

/* From an empty cache to the logits of the last of so many random tokens, in one sequence. */
double ours_prefill(struct ours *o, uint32_t tokens);
/* n texts, each with a prompt of its own that is not timed, each greedily writes so many tokens. */
double ours_decode(struct ours *o, uint32_t n, uint32_t prompt_tokens, uint32_t tokens);

#endif
