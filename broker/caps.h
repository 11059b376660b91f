/* caps.h - how much may be at a stage, so that what is upstream of a full one waits.
 *
 * A stage of the settings (a stage program) has its caps at each place that it has in pipelines: as
 * first stage, second and so on, each counted for itself. A job counts where it waits or runs; a
 * leased one also at every further stage of its span and at the one behind it, so that it finds
 * room there whenever it arrives. No count ever passes its cap but by a restart (jobs go back to
 * their checkpoints) or when the caps are lowered: then nothing more comes until it is below.
 *
 * A job waits for a later place only, and the last place waits for none: nothing can wait in a
 * circle, whatever the pipelines are.
 *
 * Units: jobs, bytes of bodies.  Owner: caps_set allocates; a job remembers where it counts.
 * Memory: an entry a stage of the settings.  Errors: -ENOMEM.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_CAPS_H
#define PENSTOCK_BROKER_CAPS_H

#include "broker/gauge.h"
#include "broker/job.h"

struct cap {
    const struct settings_stage *stage; /* borrowed from the settings */
    struct gauge at[LIMIT_STAGES];      /* by the index in the pipeline */
};
struct caps {
    struct cap *cap; /* [n] */
    uint32_t n;
};

/* Nothing counts anywhere yet; the caller lets every job follow. -ENOMEM leaves them as they were.
 */
int caps_set(struct caps *c, const struct settings *s);
void caps_fini(struct caps *c); /* accepts zeroed memory */

/* The job counts where its state says, no matter where it did before; caps_leave: nowhere. */
void caps_follow(struct caps *c, struct job *j, int64_t now_ms);
void caps_leave(struct caps *c, struct job *j, int64_t now_ms);

/* How many of the `span` stages that a lease of j may begin with have room behind them; 0: it must
 * wait where it is. */
uint32_t caps_span(const struct caps *c, const struct job *j, uint32_t span);
/* What a new job of this pipeline and so many bytes finds full, NULL when there is room. */
const struct cap *caps_entry_full(const struct caps *c, const struct pipeline *p, uint64_t bytes,
                                  enum gauge_full *what);

#endif
