/* footprint.h - what a process takes that answers one prompt: memory at its peak, time to start.
 *
 * Ours is this program again (`engine --job`); the peer is transformers (job.py). Both open the
 * model, read a prompt of random tokens, write some greedily and say when the first was there.
 *
 * Units: MiB, seconds.  Owner, memory: none.  Errors: zeros for a peer that does not run; else a
 * message and exit(1): this is a benchmark.  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_FOOTPRINT_H
#define PENSTOCK_TESTS_BENCH_ENGINE_FOOTPRINT_H

#include <stdint.h>

#include "kernels/ops.h"

struct footprint {
    double peak_mib, first_token_s;
};
struct job {
    const char *dir;
    uint32_t threads, prompt_tokens, tokens;
    const char *weights; /* what engine calls them: "bf16" */
};
/* The process itself: does the job and prints a line that footprint_of reads. */
void footprint_work(const struct job *j, enum dtype weights);
struct footprint footprint_ours(const struct job *j);
struct footprint footprint_theirs(const struct job *j); /* in bf16 */

#endif
