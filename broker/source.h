/* source.h - where jobs come from, such as cameras: one struct each, beside its tenant.
 *
 * A source is the name that a submit gives, within its tenant. Its jobs that live sit on seats in
 * the order in which they were admitted, so that the oldest that still waits can be dropped for a
 * newer one. What was dropped or sampled out is counted here as it is on disk (store/sources.h) or
 * on its way there.
 *
 * Units: jobs, monotonic milliseconds.  Owner: the tenant owns its sources, a job its seat.
 * Memory: at most LIMIT_TENANT_SOURCES a tenant; one that has nothing and counts nothing makes room
 * for another; a seat a job that has a source.  Errors: NULL, -ENOMEM.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_SOURCE_H
#define PENSTOCK_BROKER_SOURCE_H

#include "base/bytes.h"
#include "broker/gauge.h"

struct job;
struct tenant;
struct source {
    char name[LIMIT_NAME_BYTES + 1];
    struct tenant *tenant;
    const struct settings_source *settings;
    struct gauge live;
    uint32_t leaving; /* of these, are being dropped for a newer one */
    struct seat *oldest, *newest;
    uint64_t dropped, sampled;
    uint64_t offered; /* since there were as many as sampling begins with */
    int64_t kept_ms;  /* when sampling let one in */
    struct source *next;
};
struct seat {
    struct source *source;
    struct job *job;
    struct seat *older, *newer;
};

/* The source of this name, made when it is new. NULL: no memory, too many, or not a name. */
struct source *source_get(struct tenant *t, struct bytes name, const struct settings *s);
void sources_free(struct tenant *t);
void sources_settle(struct tenant *t, const struct settings *s);

int source_join(struct source *s, struct job *j); /* -ENOMEM */
void source_leave(struct job *j);                 /* fine without a source */
/* The oldest job of the source that waits and counts (load.h); NULL: none. */
struct job *source_oldest(const struct source *s);
/* Whether sampling leaves out the job that is offered now. */
bool source_samples_out(struct source *s, int64_t now_ms);

#endif
