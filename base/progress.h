/* progress.h - how far a long run is, on stderr: a bar on a terminal, else a line now and then.
 *
 * The bar is drawn over itself; progress_clear takes it away before other words are said.
 *
 * Units: milliseconds of clock_mono_ms, passed in; items, or bytes, which are shown in MB.
 * Owner, memory, errors: none.  Threads: one. */
#ifndef PENSTOCK_BASE_PROGRESS_H
#define PENSTOCK_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    uint64_t total, done, failed; /* done: of them all that need no more work, failed ones too */
    uint64_t free;                /* of done: what took no time and so says nothing of the rate */
    enum { PROGRESS_QUIET, PROGRESS_LINES, PROGRESS_BAR } how;
    bool bytes; /* what is counted */
    bool drawn;
    int64_t began_ms, said_ms;
};
void progress_init(struct progress *p, uint64_t total, bool quiet, int64_t now_ms);
/* Draws when it is time to. */
void progress_show(struct progress *p, int64_t now_ms);
void progress_clear(struct progress *p);
/* Items a second since the start; 0 while nothing is known. */
double progress_rate(const struct progress *p, int64_t now_ms);

#endif
