/* gauge.h - how much of something there is, and how fast it goes away.
 *
 * What has a limit (a tenant, a level, a stage, a pipeline) has a gauge of the jobs that count
 * against it. Each job that leaves is also measured: two sums that decay exponentially say how many
 * jobs and bytes leave a second, so that who is refused can be told when there will be room.
 *
 * Units: jobs, bytes, monotonic milliseconds.  Owner: whoever embeds it; all zero is empty.
 * Memory: none.  Errors: none; giving back what was not taken asserts.  Threads: the loop thread.
 */
#ifndef PENSTOCK_BROKER_GAUGE_H
#define PENSTOCK_BROKER_GAUGE_H

#include <stdbool.h>
#include <stdint.h>

#include "pipelines/settings.h"

#define GAUGE_RETRY_MIN_MS 10
#define GAUGE_RETRY_MAX_MS 60000
#define GAUGE_RETRY_UNKNOWN_MS 1000 /* while nothing has left yet */

struct gauge {
    uint32_t jobs;
    uint64_t bytes;
    double left_jobs, left_bytes; /* sums that decay, as of at_ms */
    int64_t since_ms, at_ms;      /* the first that left, and the newest */
};

void gauge_take(struct gauge *g, uint64_t bytes);
void gauge_give(struct gauge *g, uint64_t bytes, int64_t now_ms);
void gauge_untake(struct gauge *g, uint64_t bytes); /* it does not count as one that left */

/* What stands in the way of one more job of so many bytes, or nothing. */
enum gauge_full { GAUGE_ROOM, GAUGE_JOBS, GAUGE_BYTES };
enum gauge_full gauge_full(const struct gauge *g, const struct settings_bounds *b, uint64_t bytes);

/* When, at the pace of late, so many jobs and bytes will have left: between the two bounds. */
uint64_t gauge_retry_ms(const struct gauge *g, double jobs, double bytes, int64_t now_ms);

#endif
