/* risk.h - the rules of a policy applied to typed clauses and the entities in them.
 *
 * Units: durations in days, percentages in per cent.  Owner: policy and taxonomy are borrowed until
 * risks_close; findings live in the arena.  Memory: the compiled patterns; 16 bytes a finding.
 * Errors: ERR_FIELD for a pattern that does not compile, -ENOMEM.  Threads: immutable once open. */
#ifndef PENSTOCK_WORKERS_POST_RISK_H
#define PENSTOCK_WORKERS_POST_RISK_H

#include "base/arena.h"
#include "pipelines/policy.h"
#include "workers/post/entities.h"

/* What the rules look at. */
struct typed_clause {
    const struct clause *clause;
    struct bytes seen;        /* as clause_seen gives it */
    uint32_t type;            /* index in the taxonomy; UINT32_MAX: Other */
    uint32_t also[3], n_also; /* further types that hold for it */
};
struct finding {
    uint32_t rule;   /* index in the policy */
    uint32_t clause; /* UINT32_MAX: the contract as a whole */
};
struct findings {
    struct finding *at;
    uint32_t n;
};

struct risks;
int risks_open(struct risks **out, const struct policy *p, const struct taxonomy *t, char *err,
               size_t err_bytes);
void risks_close(struct risks *r); /* NULL is fine */
/* In the order of the clauses, each clause's gravest first; what concerns the contract last. */
int risks_find(const struct risks *r, const struct typed_clause *clauses, uint32_t n,
               const struct entities *entities, struct arena *a, struct findings *out);

#endif
