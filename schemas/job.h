/* job.h - the words that every process uses for a job: its id, its states, its error classes.
 *
 * Ids are 64-bit and grow with time (milliseconds << 20 | sequence), so that the store appends;
 * people and the wire see 13 characters of Crockford's base32 in the same order.
 *
 *            +------- retry, lease lost, next stage -------+
 *            v                                             |
 *  accepted -> ready(k) -> leased(k) -> ready(k+1) ... -> done
 *               ^   |          |
 *      delayed -+   +----------+--> failed | cancelled | expired
 *
 * Units: milliseconds.  Owner, memory: none.  Errors: -EINVAL.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_JOB_H
#define PENSTOCK_SCHEMAS_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define JOB_ID_CHARS 13

enum job_state {
    JOB_ACCEPTED, /* being committed; not yet answered */
    JOB_READY,    /* waits for a worker */
    JOB_DELAYED,  /* backoff or not-before; holds no lease */
    JOB_LEASED,
    JOB_DONE, /* the first terminal one; JOB_EXPIRED is the last */
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_EXPIRED,
    JOB_WAITING, /* for the jobs that it became; not terminal, behind the others for old records */
    JOB_STATES
};
const char *job_state_name(enum job_state s);
int job_state_parse(struct bytes name, enum job_state *out); /* -EINVAL */
static inline bool job_state_terminal(enum job_state s) {
    return s >= JOB_DONE && s <= JOB_EXPIRED;
}

/* Why an attempt failed. */
enum job_error {
    JOB_ERROR_NONE,
    JOB_ERROR_TRANSIENT,   /* retried with backoff */
    JOB_ERROR_PERMANENT,   /* never retried */
    JOB_ERROR_WORKER_DIED, /* retried alone, then quarantined */
    JOB_ERROR_TIMEOUT,     /* the stage ran past its limit; retried */
    JOB_ERROR_CANCELLED,
    JOB_ERRORS
};
const char *job_error_name(enum job_error e);
int job_error_parse(struct bytes name, enum job_error *out);

void job_id_text(uint64_t id, char out[JOB_ID_CHARS + 1]);
int64_t job_id_ms(uint64_t id);                     /* when it was accepted, about; wall clock */
int job_id_parse(struct bytes text, uint64_t *out); /* -EINVAL; lower case is fine */
/* The id after `last` for a job accepted at wall_ms: never repeats, never goes back. */
uint64_t job_id_next(uint64_t last, int64_t wall_ms);

#endif
