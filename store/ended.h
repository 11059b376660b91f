/* ended.h - the order in which jobs ended: a number for each, given once and never again.
 *
 * The number (offset) is given in the transaction that makes the job's end durable, by the one
 * thread that writes, so that ends become visible in the order of their numbers: who has seen
 * offset N and asks for what came after misses nothing and gets nothing twice. Numbers of jobs that
 * were deleted are gone.
 *
 * Units: none.  Owner: as the transaction.  Memory: none.  Errors: ERR_CORRUPT, store errors.
 * Threads: as the transaction. */
#ifndef PENSTOCK_STORE_ENDED_H
#define PENSTOCK_STORE_ENDED_H

#include <stdint.h>

struct store_read;
struct store_write;

struct ended {
    uint64_t offset, job;
};
/* Up to max of those behind `after`, in order. */
int ended_after(struct store_read *t, uint64_t after, struct ended *out, uint32_t max, uint32_t *n);
/* The oldest that is kept (newest + 1 when none is), and the newest that was ever given. */
int ended_bounds(struct store_read *t, uint64_t *oldest, uint64_t *newest);

/* For jobs.c: the job has ended, or its record goes. */
int ended_add(struct store_write *w, uint64_t job, uint64_t *offset);
int ended_del(struct store_write *w, uint64_t offset);

#endif
