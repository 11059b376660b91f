/* status.h - the broker's documents: one job, pages of jobs, workers, and its own counts.
 *
 * Their fields are those that msg.def lists for JOB, JOBS, WORKER_LIST and STATS.
 *
 * Units: wall-clock milliseconds where a record has them, ages otherwise.  Owner: the caller's buf.
 * Memory: bounded by the buf.  Errors: stick in the buf.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_STATUS_H
#define PENSTOCK_BROKER_STATUS_H

#include "broker/broker.h"

/* live: the job in memory when there is one (lease, worker), else NULL. */
void status_job(const struct job_record *r, const struct job *live, struct buf *out);
/* What follows is of one tenant alone; of all with NULL. */
/* Newest first; *next is where the next page begins, 0 at the end. state JOB_STATES: any. *damaged:
 * jobs on the way whose records cannot be read. */
int status_jobs(struct broker *b, const struct msg_list *m, const struct tenant *only,
                enum job_state state, struct buf *out, uint64_t *next, uint64_t *damaged);
void status_worker(const struct broker *b, const struct worker *w, struct buf *out); /* a list */
void status_workers(const struct broker *b, const struct tenant *only, struct buf *out);
void status_queues(const struct broker *b, struct buf *out); /* of all tenants together */
/* For one tenant: uptime_ms, accepting, epoch and its own live jobs. */
void status_broker(struct broker *b, const struct tenant *only, struct buf *out);

#endif
