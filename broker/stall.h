/* stall.h - the alarm for a queue that should move and does not.
 *
 * Jobs are ready, a worker that can run one of them holds nothing, and yet nothing has been handed
 * out for a while: whatever the reason (a disk that fails, a worker that beats but does not read, a
 * fault of ours), somebody should look. A worker that is busy, or cannot run what waits, is no
 * reason.
 *
 * Units: monotonic milliseconds, passed in.  Owner: the broker embeds one; zeroed is quiet.
 * Memory: none.  Errors: none.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_STALL_H
#define PENSTOCK_BROKER_STALL_H

#include <stdbool.h>
#include <stdint.h>

#define STALL_AFTER_MS 10000

struct stall {
    uint64_t dispatched; /* when last looked */
    int64_t
        still_since_ms; /* as long as work and a free worker have been there and nothing moved */
    int64_t since_ms;   /* of the alarm; 0: quiet */
    uint64_t stalls;    /* alarms so far */
};
enum stall_news { STALL_NOTHING, STALL_BEGINS, STALL_ENDS };
/* could: some ready job has a free worker that can run it; dispatched: leases given so far. */
enum stall_news stall_look(struct stall *s, bool could, uint64_t dispatched, int64_t now_ms);

struct ready;
struct caps;
struct workers;
/* Whether some ready job has room at the stage behind it and a worker that can run it, holds
 * nothing and is not leaving. */
bool stall_could_move(struct ready *r, const struct caps *caps, const struct workers *w);

#endif
