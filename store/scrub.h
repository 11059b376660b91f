/* scrub.h - the thread that reads the store over and over, so that damage is known before a job
 * needs what is damaged.
 *
 * It checks the CRC of every record and every payload chunk, a slice at a time and no faster than
 * its rate, in read transactions of a slice: no commit waits for one. It also frees the readers of
 * processes that are gone (a backup that was killed), which keep pages from being used again.
 * A round begins at the start, and SCRUB_REST_MS after the last.
 *
 * Units: bytes, milliseconds.  Owner: the opener; the store stays open until scrub_stop.
 * Memory: one slice's records.  Errors: -errno; what is found damaged is logged and counted.
 * Threads: its own; scrub_stats any. */
#ifndef PENSTOCK_STORE_SCRUB_H
#define PENSTOCK_STORE_SCRUB_H

#include <stdint.h>

#define SCRUB_SLICE_BYTES (128u * 1024u)
#define SCRUB_REST_MS 3600000
#define SCRUB_READERS_MS 5000

struct scrub;
struct store;
/* bytes_a_second 0: only the readers are looked after. */
int scrub_start(struct scrub **out, struct store *s, uint64_t bytes_a_second);
void scrub_stop(struct scrub *s); /* NULL is fine */

struct scrub_stats {
    uint64_t bytes, rounds; /* read since the start; rounds that are complete */
    uint64_t damaged;       /* found by the last complete round, or by this one so far if more */
    uint64_t stale_readers; /* freed */
};
struct scrub_stats scrub_stats(const struct scrub *s); /* zeroes for NULL */

#endif
