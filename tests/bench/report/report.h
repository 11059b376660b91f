/* report.h - what every benchmark prints and writes: rows beside their peer and physical limit.
 *
 * bench_row prints a line of the table; bench_close writes build/bench/NAME.json:
 *   {bench, machine, commit, rows: [{case, value, unit, peer, peer_value, ratio, limit, limit_of,
 *    fraction, runs}]}
 * `ratio` above 1 means ahead of the peer, whatever the unit.
 *
 * Units: each row names its own.  Owner: bench_open to bench_close.  Memory: the rows.
 * Errors: a message and exit(1): these are programs.  Threads: one. */
#ifndef PENSTOCK_TESTS_BENCH_REPORT_H
#define PENSTOCK_TESTS_BENCH_REPORT_H

#include <stdbool.h>

struct bench;
struct bench_row {
    const char *name, *unit;
    double value;
    const char *peer;  /* NULL: none */
    double peer_value; /* 0: it is not installed */
    const char *limit_of;
    double limit; /* 0: none */
    bool less_is_better;
    int runs;
};

struct bench *bench_open(const char *name, int runs); /* prints the head of the table */
void bench_row(struct bench *b, const struct bench_row *row);
void bench_close(struct bench *b);
double bench_median(const double *v, int n); /* at most 64 */

#endif
