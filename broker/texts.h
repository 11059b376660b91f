/* texts.h - what the workers write: texts now, and steps and tokens since the start.
 *
 * A worker tells it with each beat. Counters are its own since its process began; the broker adds
 * up what they grew by since the beat before, so that a sum never falls when a worker leaves.
 *
 * Units: in the names.  Owner: each worker's, and the broker's sum.  Memory, errors: none.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_TEXTS_H
#define PENSTOCK_BROKER_TEXTS_H

#include <stdbool.h>

#include "schemas/msg.h"

struct texts {
    uint64_t running, waiting, kv_pages, kv_pages_max; /* now */
    uint64_t steps, steps_us, tokens, pauses;          /* since the start */
    bool heard;                                        /* of this worker */
};

/* A worker's beat: what is new in its counters goes to `sum`, unless it is the first: what a worker
 * had done before it came was counted then. */
void texts_heard(struct texts *of_worker, struct texts *sum, const struct msg_heartbeat *m);
/* Adds what a worker does now. */
void texts_add_now(struct texts *sum, const struct texts *of_worker);

#endif
