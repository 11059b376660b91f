/* ready.h - the jobs that wait for a worker, in the order in which they are served.
 *
 * One queue for each (stage program, model, stage index): what a worker either can run or cannot.
 * Inside a queue: strict priority levels, then age. Between queues that a worker can serve: the
 * lower priority number first, then the later stage (what is nearly finished drains first), then
 * the older job.
 *
 * Units: jobs.  Owner: a job embeds its links; the queue borrows it from ready_add to ready_drop.
 * Memory: a fixed array of queues.  Errors: ERR_LIMIT when there are too many kinds of queue.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_READY_H
#define PENSTOCK_BROKER_READY_H

#include "broker/job.h"

#define READY_QUEUES 256
#define READY_LEVELS 10

struct ready_queue {
    const char *run, *model; /* of the pipeline that made it first; model may be NULL */
    uint32_t stage, jobs;
    uint16_t levels; /* bit p is set while level p has jobs */
    struct job *head[READY_LEVELS], *tail[READY_LEVELS];
};
struct ready {
    struct ready_queue queue[READY_QUEUES];
    uint32_t n, jobs;
};

int ready_add(struct ready *r, struct job *j);    /* by its stage and priority; to the end */
void ready_first(struct ready *r, struct job *j); /* back to the front: a lease came back unrun */
void ready_drop(struct ready *r, struct job *j);  /* fine when it is in none */
/* The job that this queue serves next; NULL when it is empty. */
struct job *ready_head(const struct ready_queue *q);
/* True when a should be served before b (heads of two queues). */
bool ready_before(const struct job *a, const struct job *b);

#endif
