/* contest.h - one row of engine.c: the limit, ours and every peer in turn, as often as asked.
 *
 * The ratio is to the best of the peers. Ratio and fraction are medians of what the runs gave one
 * by one, between neighbours in time, because a shared machine is never the same for long.
 *
 * Units: as `unit` says.  Owner: everything is borrowed for the call.  Memory: none.
 * Errors: none of its own.  Threads: one caller. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_CONTEST_H
#define PENSTOCK_TESTS_BENCH_ENGINE_CONTEST_H

#include <stdint.h>

#include "tests/bench/report/report.h"

enum { CONTEST_PEERS_MAX = 8, CONTEST_RUNS_MAX = 50 };

struct contest {
    const char *name, *unit;
    void *arg;
    double (*ours)(void *arg);
    const char *peer[CONTEST_PEERS_MAX]; /* their names */
    uint32_t n_peers;
    double (*theirs)(void *arg, uint32_t peer); /* 0: it cannot */
    const char *limit_of;
    double (*limit)(void *arg); /* NULL: none */
    bool less_is_better;
    bool warm; /* ours runs once before it counts */
};
/* Returns which peer was the best; n_peers: none has run. */
uint32_t contest_run(const struct contest *c, struct report *report, int runs);

#endif
