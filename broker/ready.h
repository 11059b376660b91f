/* ready.h - the jobs that wait for a worker, in the order in which they are served.
 *
 * One queue for each (stage program, model, stage index, next stage program): what a worker either
 * can run or cannot, and what waits for the same room behind it (caps.h) or does not.
 * Inside a queue: strict priority levels; in a level the tenants take turns (deficit round robin),
 * each turn worth a number of bytes that grows with the tenant's weight, however many jobs it has
 * waiting; of one tenant the oldest job. Between queues that a worker can serve: the lower priority
 * number first, then the later stage (what is nearly finished drains first), then the older job.
 *
 * Deficit round robin: M. Shreedhar, G. Varghese, Efficient Fair Queuing Using Deficit Round-Robin,
 * SIGCOMM 1995. A tenant that has nothing waiting saves nothing for later.
 *
 * Units: jobs; costs are bytes.  Owner: a job embeds its links; the queue borrows it from ready_add
 * to ready_drop.  Memory: a fixed array of queues, a flow for each tenant with jobs in a level.
 * Errors: ERR_LIMIT when there are too many kinds of queue, -ENOMEM.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_READY_H
#define PENSTOCK_BROKER_READY_H

#include "broker/job.h"

#define READY_QUEUES 256
#define READY_LEVELS 10

struct ready_flow { /* the jobs of one tenant in one level of a queue; there while it has some */
    struct ready_queue *queue;
    struct tenant *tenant;
    uint32_t level;
    int64_t deficit; /* bytes that it may still have served in its turn */
    struct job *head, *tail;
    struct ready_flow *prev, *next; /* the ring of the level, in the order of the turns */
    struct ready_flow *also;        /* of the same tenant; in the list of spare ones: the next */
};
struct ready_queue {
    char run[LIMIT_NAME_BYTES + 1]; /* model and next: empty without */
    char model[LIMIT_NAME_BYTES + 1], next[LIMIT_NAME_BYTES + 1];
    uint32_t stage, jobs;
    uint16_t levels;                       /* bit p is set while level p has jobs */
    struct ready_flow *turn[READY_LEVELS]; /* whose turn it is */
};
struct ready {
    struct ready_queue queue[READY_QUEUES];
    uint32_t n, jobs;
    struct ready_flow *spare;
};
void ready_fini(struct ready *r); /* forgets the flows; accepts zeroed memory */

int ready_add(struct ready *r, struct job *j);   /* by its stage, priority and tenant; to the end */
void ready_drop(struct ready *r, struct job *j); /* fine when it is in none */
/* The job that this queue serves next, the same until something is added, dropped or served; NULL
 * when it is empty. */
struct job *ready_head(struct ready_queue *q);
/* j, a head, is served: its tenant pays for it. ready_drop follows. */
void ready_serve(struct job *j);
/* True when a should be served before b (heads of two queues). */
bool ready_before(const struct job *a, const struct job *b);

#endif
