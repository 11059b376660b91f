/* team.h - the threads that share one operation.
 *
 * team_run calls part(arg, i, threads) once for every i below threads, part 0 on the caller, and
 * returns when all are done. Between runs a thread spins for some microseconds, because the next
 * operation of a layer is that close, and then sleeps in the kernel: an idle engine costs nothing.
 *
 * Units: none.  Owner: team_new gives a team to team_free.  Memory: one allocation.
 * Errors: -ENOMEM, -EAGAIN.  Threads: one caller at a time; a part must not call team_run. */
#ifndef PENSTOCK_KERNELS_CPU_TEAM_H
#define PENSTOCK_KERNELS_CPU_TEAM_H

#include <stdint.h>

#define TEAM_THREADS_MAX 256u

struct team;
typedef void (*team_part)(void *arg, uint32_t part, uint32_t parts);

int team_new(struct team **out, uint32_t threads); /* 1 .. TEAM_THREADS_MAX, the caller included */
void team_free(struct team *t);                    /* NULL is fine */
uint32_t team_threads(const struct team *t);
void team_run(struct team *t, team_part part, void *arg);

/* Processors that this process may run on. */
uint32_t team_processors(void);

/* Part i of parts of 0 .. count-1: begin .. end-1, all parts within one of each other. */
static inline void team_share(uint32_t count, uint32_t i, uint32_t parts, uint32_t *begin,
                              uint32_t *end) {
    *begin = (uint32_t)((uint64_t)count * i / parts);
    *end = (uint32_t)((uint64_t)count * (i + 1) / parts);
}

#endif
