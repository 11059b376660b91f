/* clock.h - the two clocks, read only at the edges (loops, logs, benchmarks).
 *
 * Logic takes `now_ms` as a parameter so that a simulator can replay it (STYLE rule 12).
 *
 * Units: milliseconds or nanoseconds, in the names.  Owner, memory: none.  Errors: none, the
 * calls cannot fail on Linux.  Threads: any. */
#ifndef PENSTOCK_BASE_CLOCK_H
#define PENSTOCK_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_mono_ms(void); /* CLOCK_MONOTONIC: timers, leases, durations */
int64_t clock_mono_ns(void);
int64_t clock_wall_ms(void); /* CLOCK_REALTIME, milliseconds since 1970: ids, records, logs */

#endif
