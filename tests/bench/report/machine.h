/* machine.h - what this machine could do at most: multiply-adds and bytes read, measured.
 *
 * Units: Gop/s (two operations a multiply-add), GB/s (10^9), all threads of the team together;
 * ns of the clock chosen with machine_clock.  Owner: none.  Memory: the caller's.
 * Errors: none, they cannot fail.  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_REPORT_MACHINE_H
#define PENSTOCK_TESTS_BENCH_REPORT_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/team.h"

/* Wall time, or the processor time of this process shared by `threads`: what it would have been had
 * nobody else run (waiting in the kernel goes uncounted, so wall time is the one to believe on a
 * machine of one's own). */
void machine_clock(bool processor, uint32_t threads);
int64_t machine_ns(void);

/* What is multiplied: float32; pairs of bf16 where the level has such an instruction, else float32;
 * bytes, four products to an int32, where the level has that, else float32. */
enum machine_unit { MACHINE_F32, MACHINE_BF16, MACHINE_I8 };
/* Registers only: the widest multiply-add of a level ("avx2", "avx512", "avx512bf16", "plain"). */
double machine_peak(struct team *team, const char *level, enum machine_unit unit);

/* Every thread reads its share of the buffer once. */
double machine_read(struct team *team, const void *buffer, size_t bytes);

#endif
