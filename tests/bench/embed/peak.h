/* peak.h - the multiply-adds of float32 that this machine can do at most, measured.
 *
 * Units: GFLOP/s, two operations a multiply-add.  Owner, memory: none.  Errors: none.
 * Threads: starts its own and joins them. */
#ifndef PENSTOCK_TESTS_BENCH_EMBED_PEAK_H
#define PENSTOCK_TESTS_BENCH_EMBED_PEAK_H

#include <stdint.h>

/* `threads` at once run the widest multiply-add of the processor on registers alone, for a few
 * hundredths of a second. */
double peak_gflops(uint32_t threads);

#endif
