/* retain.h - ended jobs stay for a while, then they are deleted, the longest ended first.
 *
 * Two things end a stay: time (retain_ms; retain_failed_ms for dead letters) and need, when the
 * store is fuller than its owner wants (retain_bytes, or RETAIN_PERCENT of either cap, which lies
 * below the 80 % where submits are refused). Need takes dead letters last, and nobody within
 * RETAIN_GRACE_MS of its end. Nothing takes anybody within the settings' dedupe window of its end:
 * an idempotency key is known as long as its job is. A job that has just ended and was not
 * announced yet, or whose result is owed to a client, stays. What goes, goes whole: record, key,
 * history, payloads.
 *
 * The index of ended jobs is walked in passes. A slice of at most RETAIN_SLICE jobs is one
 * operation of the store thread and shares the transaction of whatever else is to be written; the
 * next one follows when it is on disk.
 *
 * Units: milliseconds of the wall clock where a record has them.  Owner: the broker.
 * Memory: none of its own.  Errors: a slice that fails is taken job by job.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_RETAIN_H
#define PENSTOCK_BROKER_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

#define RETAIN_SLICE 128u
#define RETAIN_PERCENT 70u
#define RETAIN_GRACE_MS 10000

struct retain {
    int64_t at_ms;    /* where the pass stands in the index: this end... */
    uint64_t at_id;   /* ...and this job are behind it */
    int64_t next_ms;  /* no look before */
    uint64_t deleted; /* jobs, since the start */
    uint64_t pass;    /* jobs that this pass deleted */
    uint32_t careful; /* so many jobs are taken one by one */
    bool busy;        /* a slice is on its way to the disk */
    bool sweep;       /* the next one frees the payloads of the last */
    bool failed_too;  /* need: the other jobs were not enough */
};

struct broker;
struct commit_op;
void retain(struct broker *b); /* each turn of the loop */
/* A slice came back. */
void retain_done(struct broker *b, const struct commit_op *op);

#endif
