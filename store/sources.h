/* sources.h - what was left out of each source of jobs, counted on disk.
 *
 * A source (a camera) is known by tenant and name. Its record counts the jobs that were accepted
 * and dropped for a newer one, and those that sampling did not let in. It is there from the first
 * of them on and never goes.
 *
 * Units: jobs.  Owner: a record that is walked is borrowed from the transaction.  Memory: none.
 * Errors: ERR_CORRUPT, ERR_VERSION, ERR_LIMIT, store errors.  Threads: as the transaction. */
#ifndef PENSTOCK_STORE_SOURCES_H
#define PENSTOCK_STORE_SOURCES_H

#include "base/bytes.h"

struct store_read;
struct store_write;

struct source_record {
    struct bytes tenant, name;
    uint64_t dropped, sampled;
};
/* Adds r's counts to those that are there. */
int sources_add(struct store_write *w, const struct source_record *r);
/* fn returns nonzero to stop, which is returned. */
int sources_walk(struct store_read *t, int (*fn)(void *arg, const struct source_record *r),
                 void *arg);

#endif
