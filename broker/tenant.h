/* tenant.h - the tenants that this broker knows: one struct each, for as long as the broker lives.
 *
 * A tenant is a name in the certificates of those who connect (auth.h) and in the records of jobs.
 * Jobs and requests point to the tenant, so that tenants are compared by address, and what is
 * counted or scheduled for each tenant finds its place here. Without CURVE everybody is "default".
 *
 * Units: none.  Owner: the table owns its tenants.  Memory: at most LIMIT_TENANTS, never freed
 * before the broker ends.  Errors: NULL without memory or beyond the limit.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_TENANT_H
#define PENSTOCK_BROKER_TENANT_H

#include "base/bytes.h"
#include "base/limits.h"
#include "broker/source.h"
#include "schemas/job.h"

#define TENANT_DEFAULT "default"

struct ready_flow;
struct tenant {
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t finished[JOB_STATES];          /* its jobs that have ended since the start */
    struct ready_flow *flows;               /* ready.h: where jobs of it wait */
    const struct settings_tenant *settings; /* NULL: none are known */
    struct gauge live;                      /* its jobs */
    uint64_t upload_bytes;                  /* of its uploads that are no jobs yet */
    struct source *sources;                 /* source.h */
    uint32_t n_sources;
    double tokens; /* jobs that it may have accepted at tokens_ms */
    int64_t tokens_ms;
    bool metered; /* tokens were counted before */
    struct tenant *next;
};
struct tenants {
    struct tenant *first;
    uint32_t n;
    const struct settings *settings; /* borrowed; of those who are new, too */
};

void tenants_fini(struct tenants *t); /* accepts zeroed memory */
/* The tenant of this name, made when it is new. NULL: no memory, too many, or not a name. */
struct tenant *tenant_get(struct tenants *t, struct bytes name);
/* From now on these settings hold. */
void tenants_settle(struct tenants *t, const struct settings *s);
static inline uint32_t tenant_weight(const struct tenant *t) {
    return t->settings ? t->settings->weight : 1;
}

#endif
