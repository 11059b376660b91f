/* report.h - what every benchmark prints and writes: rows beside their peer and physical limit.
 *
 * report_add prints a line of the table; report_close writes build/bench/NAME.json:
 *   {bench, machine, commit, rows: [{case, value, unit, peer, peer_value, ratio, limit, limit_of,
 *    fraction, runs}]}
 * `ratio` above 1 means ahead of the peer, whatever the unit.
 *
 * Units: each row names its own.  Owner: report_open to report_close.  Memory: the rows.
 * Errors: a message and exit(1): these are programs.  Threads: one. */
#ifndef PENSTOCK_TESTS_BENCH_REPORT_H
#define PENSTOCK_TESTS_BENCH_REPORT_H

#include <stdbool.h>

struct report;
struct report_row {
    const char *name, *unit;
    double value;
    const char *peer;  /* NULL: none */
    double peer_value; /* 0: it is not installed */
    const char *limit_of;
    double limit;           /* 0: none */
    double ratio, fraction; /* 0: of the values above; else medians over the runs */
    bool less_is_better;
    int runs;
};

struct report *report_open(const char *name, int runs); /* prints the head of the table */
void report_add(struct report *b, const struct report_row *row);
void report_close(struct report *b);
double report_median(const double *v, int n);      /* at most 1024 */
int report_by_value(const void *a, const void *b); /* of doubles, as qsort wants it */

#endif
