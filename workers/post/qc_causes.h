/* qc_causes.h - the recipe's causes ranked by what the log says; qc.h tells how they are scored.
 *
 * Units, owner, memory, threads: as qc.h.  Errors: ERR_CORRUPT when the vectors are not as many as
 * the described causes and the chosen events. */
#ifndef PENSTOCK_WORKERS_POST_QC_CAUSES_H
#define PENSTOCK_WORKERS_POST_QC_CAUSES_H

#include "workers/post/qc.h"

/* Fills v->causes, best first; causes with a score of 0 are left out. */
int qc_rank(const struct recipe *r, const struct part_facts *f, const float *vectors, uint32_t n,
            uint32_t dim, struct qc_verdict *v, char *err, size_t err_bytes);

#endif
