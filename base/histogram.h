/* histogram.h - how long something took, counted in fixed buckets from 100 us to 30 min.
 *
 * Bounds grow in steps of 2 to 2.5, which tells a quantile within that factor. One thread adds; any
 * other may read meanwhile and sees each number whole, though not all of them at one moment.
 *
 * Units: microseconds.  Owner: embedded by value; zeroed is empty.  Memory: none.  Errors: none.
 * Threads: one writer, any readers. */
#ifndef PENSTOCK_BASE_HISTOGRAM_H
#define PENSTOCK_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BOUNDS 20u

struct histogram {
    _Atomic uint64_t count[HISTOGRAM_BOUNDS + 1]; /* the last: above every bound */
    _Atomic uint64_t sum_us;
};
extern const uint64_t histogram_bound_us[HISTOGRAM_BOUNDS]; /* inclusive, ascending */

void histogram_add(struct histogram *h, uint64_t us);
void histogram_copy(struct histogram *to, const struct histogram *from);
uint64_t histogram_count(const struct histogram *h); /* of all buckets */

#endif
