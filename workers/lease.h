/* lease.h - a job that the broker leased to this worker, and what became of it.
 *
 * A lease is made by the link thread from a LEASE message, travels to the compute thread, and comes
 * back with the outcome that ends it; the link thread frees it. An outcome carries copies, so that
 * it can wait for its acknowledgement after the lease is gone.
 *
 * Units: monotonic milliseconds, microseconds.  Owner: as above.  Memory: the message's frames, an
 * arena (LIMIT_ARENA_BYTES), an output.  Errors: ERR_FIELD, ERR_LIMIT, -ENOMEM with a refusal.
 * Threads: the atomics are shared, the rest belongs to whoever holds the lease. */
#ifndef PENSTOCK_WORKERS_LEASE_H
#define PENSTOCK_WORKERS_LEASE_H

#include "base/sock.h"
#include "schemas/msg.h"
#include "workers/flight.h"
#include "workers/stage.h"

struct worker;

struct lease_stage {
    char name[LIMIT_NAME_BYTES + 1], run[LIMIT_NAME_BYTES + 1];
    char model[LIMIT_NAME_BYTES + 1], adapter[LIMIT_NAME_BYTES + 1];
    uint32_t timeout_ms, batch_max, batch_delay_ms, batch_slo_ms;
    bool checkpoint;
};

struct lease {
    struct worker *worker;
    uint64_t job, attempt, seed;
    uint32_t priority;        /* 0 is served first */
    uint32_t first, n_stages; /* indexes first .. first + n_stages - 1 of the pipeline */
    struct lease_stage stages[LIMIT_STAGES];
    struct bytes kind, body, input; /* in the message's frames or the arena */
    bool alone;
    int64_t arrived_ms;
    struct sock_msg message; /* owns the frames */
    struct arena arena;
    struct flight_slot *slot;

    atomic_bool cancelled;     /* stages look at it */
    atomic_llong running_ms;   /* since when a stage of it runs; 0: none does */
    atomic_uint running_stage; /* offset in stages[] */

    /* The link thread's: */
    bool gone; /* no longer ours to report: cancelled, given to others, timed out */
};

/* Takes the message's frames, also when it fails. */
int lease_new(struct lease **out, struct sock_msg *m, const struct msg_lease *header,
              int64_t now_ms, struct refusal *why);
void lease_free(struct lease *l); /* NULL is fine; leaves the slot */
/* Whether both run the same stages with the same models, so that they can be one batch. */
bool lease_matches(const struct lease *a, const struct lease *b);

enum outcome_type {
    OUTCOME_DONE,
    OUTCOME_FAILED,
    OUTCOME_RETURNED,
    OUTCOME_DROPPED, /* was cancelled: nothing to report */
    OUTCOME_OPENED,  /* no lease: the compute thread has opened its stages */
    OUTCOME_UNOPENED /* no lease: it could not, see reason */
};
struct outcome {
    enum outcome_type type;
    struct lease *lease; /* ended by it when `ends`: the link thread frees it */
    bool ends, more;
    uint64_t job, attempt;
    uint32_t stage;
    uint64_t run_us, wait_us;
    char numerics_id[128];
    enum job_error error;
    char reason[LIMIT_REASON_BYTES];
    struct buf output;

    /* The link thread's: */
    struct outcome *next;
    struct flight_slot *slot; /* freed with the acknowledgement */
    int64_t sent_ms;          /* 0: not sent yet */
    bool packed;              /* is being gathered with others */
};
struct outcome *outcome_new(enum outcome_type type, struct lease *l, uint32_t stage);
void outcome_free(struct outcome *o); /* NULL is fine */

/* What a stage streams; best effort. */
struct note {
    uint64_t job, attempt;
    uint32_t stage;
    char type[33];
    struct buf data;
};
void note_free(struct note *n); /* NULL is fine */

#endif
