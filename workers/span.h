/* span.h - runs a batch of leases through their stages.
 *
 * All leases of a batch have the same stages. Each stage runs over them in chunks of its own
 * batch_max; what it gives is reported and becomes the input of the next. A lease that fails or is
 * cancelled leaves the batch; the others go on.
 *
 * A stage that is stepped (stage.h) is joined: the leases of a batch part there, and each goes on
 * with its later stages when it has ended.
 *
 * Units: none.  Owner: takes the leases; each comes back in the outcome that ends it.
 * Memory: outputs are copied out of the arenas.  Errors: in the outcomes.
 * Threads: the compute thread. */
#ifndef PENSTOCK_WORKERS_SPAN_H
#define PENSTOCK_WORKERS_SPAN_H

#include "workers/worker.h"

void span_run(struct worker *w, struct lease **batch, uint32_t n);
/* One step of every stage that leases have joined. */
void span_step(struct worker *w);
/* Hands a lease back without running it. */
void span_return(struct worker *w, struct lease *l, enum outcome_type type);

#endif
