/* table.h - every live job of the broker, found by its id.
 *
 * A terminal job leaves the table when its outcome is on disk; from then on the store answers.
 *
 * Units: jobs.  Owner: the table owns its jobs.  Memory: chained buckets that double; cap is hard.
 * Errors: -ENOMEM, ERR_FULL.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_TABLE_H
#define PENSTOCK_BROKER_TABLE_H

#include "broker/job.h"

struct job_table {
    struct job **bucket;
    uint32_t buckets, len, cap;
};

int job_table_init(struct job_table *t, uint32_t cap);
void job_table_fini(struct job_table *t); /* frees every job; accepts zeroed memory */
int job_table_insert(struct job_table *t, struct job *j);
struct job *job_table_find(const struct job_table *t, uint64_t id); /* NULL: not live */
void job_table_remove(struct job_table *t, struct job *j);          /* does not free it */
/* Walks all jobs in no order; fn must not insert or remove. */
void job_table_each(const struct job_table *t, void (*fn)(void *arg, struct job *j), void *arg);

#endif
