/* flight.h - the leases of a worker process, in a page that its keeper can still read when it died.
 *
 * The keeper maps it before it forks the worker. The worker writes a slot when a lease arrives,
 * when a stage of it runs and when its outcome is acknowledged; after a crash the keeper reads what
 * was running, to report it as dead, and what was not, to give it back.
 *
 *   free -> queued -> running <-> queued -> reporting -> free
 *
 * Units: none.  Owner: flight_new gives the pages to flight_free, in each process for itself.
 * Memory: one anonymous shared mapping.  Errors: -errno; a full table gives no slot.
 * Threads: queued, reporting and free are set by the link thread, running by the compute thread
 * that holds the lease. */
#ifndef PENSTOCK_WORKERS_FLIGHT_H
#define PENSTOCK_WORKERS_FLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

/* Leases that the broker took back may still run beside as many new ones. */
#define FLIGHT_SLOTS (2u * LIMIT_SPAN_JOBS)
#define FLIGHT_SESSION_BYTES 33

enum flight_state { FLIGHT_FREE, FLIGHT_QUEUED, FLIGHT_RUNNING, FLIGHT_REPORTING };

struct flight_slot {
    atomic_uint state;
    atomic_uint stage; /* index in the pipeline: running now, or next */
    atomic_bool gone;  /* the broker has it back: nothing to report */
    uint64_t job, attempt;
    char run[LIMIT_NAME_BYTES + 1]; /* of the stage that runs */
};
struct flight {
    char session[FLIGHT_SESSION_BYTES]; /* as registered; "" before */
    _Atomic uint64_t epoch;             /* it is registered in */
    atomic_bool started;                /* its stages are open: a failure from now on is a crash */
    char last_words[256];               /* why it ended itself */
    struct flight_slot slot[FLIGHT_SLOTS];
};

int flight_new(struct flight **out);
void flight_free(struct flight *f); /* NULL is fine */
void flight_clear(struct flight *f);
/* NULL: none is free. */
struct flight_slot *flight_take(struct flight *f, uint64_t job, uint64_t attempt, uint32_t stage);
void flight_run(struct flight_slot *s, uint32_t stage, const char *run);
void flight_rest(struct flight_slot *s, uint32_t next_stage); /* queued again */

#endif
