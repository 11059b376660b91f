/* pace.h - how large a batch may grow, and whether to wait for company, under a latency objective.
 *
 * What a batch costs is learnt as it runs: a part that any batch costs, and one by its bytes (least
 * squares over the last batches). Waiting is worth it while the next job is expected sooner than
 * the part that a batch of its own would cost anew: a machine that is hardly used answers at once,
 * one under load gathers. A batch may take PACE_SHARE of the objective, waiting included: who comes
 * when it has begun waits for its end, and then for another of its kind.
 *
 * Units: milliseconds (monotonic, passed in), bytes of bodies and inputs.  Owner: the worker.
 * Memory: none.  Errors: none, the calls cannot fail.  Threads: one. */
#ifndef PENSTOCK_WORKERS_PACE_H
#define PENSTOCK_WORKERS_PACE_H

#include <stddef.h>
#include <stdint.h>

#define PACE_SHARE 0.4

/* Zero-fill it. */
struct pace {
    double weight, bytes, ms, bytes2, bytes_ms; /* decayed sums over batches */
    double gap_ms;                              /* between arrivals, smoothed */
    int64_t last_ms;                            /* the last of these; 0: none */
};

void pace_arrived(struct pace *p, int64_t now_ms);
void pace_ran(struct pace *p, size_t bytes, double ms);
/* What a batch of so many bytes takes; 0 while nothing is known. */
double pace_ms(const struct pace *p, size_t bytes);

/* Jobs that wait for the same stages, the first to be served first. */
struct pace_wish {
    const size_t *bytes; /* [n] */
    uint32_t n, most;    /* most: of a batch */
    int64_t age_ms;      /* of the oldest */
    uint32_t slo_ms;     /* from its arrival to its end */
};
/* How many of them to run now; 0: none, look again when one has come, or after *wait_ms (at least
 * 1). */
uint32_t pace_take(const struct pace *p, const struct pace_wish *w, int64_t now_ms,
                   int64_t *wait_ms);

#endif
