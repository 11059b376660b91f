/* glance.h - what the loop lets the HTTP thread see: a copy of its numbers, about every second.
 *
 * Three copies take turns: one is being written, one was written last, one is being read. They
 * change places by one atomic exchange, so that neither side ever waits for the other. Beside them
 * stand the few numbers that must be true at once, also before the first copy: the phase, how many
 * jobs are loaded, whether new ones are accepted, and when the loop last turned.
 *
 * Units: as the names say; *_ms monotonic unless a name says wall.  Owner: main.c.  Memory: one
 * allocation.  Errors: -ENOMEM.  Threads: the loop thread writes, the HTTP thread reads. */
#ifndef PENSTOCK_BROKER_GLANCE_H
#define PENSTOCK_BROKER_GLANCE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "broker/tally.h"
#include "broker/texts.h"
#include "store/scrub.h"
#include "store/store.h"

struct glance {
    int64_t at_ms, started_ms, started_wall_ms;
    uint64_t epoch, live_jobs, waiting_commit; /* waiting_commit: jobs that are being accepted */
    uint64_t accepted, finished[JOB_STATES], refused, dropped;
    uint64_t commits, commit_ops, commits_outstanding, commit_bytes, handed_bytes;
    uint64_t workers, leases, credit, watches, uploads, upload_bytes_missing, owed, stalls,
        set_aside, crowded;
    struct store_usage usage;
    struct scrub_stats scrub;
    bool draining, store_full, stalled;
    int disk_error;
    struct histogram accept, commit;
    struct texts texts;
    uint32_t n_rows, n_times;
    struct tally_row row[TALLY_ROWS];
    struct tally_times times[TALLY_RUNS];
};

enum glance_phase { GLANCE_OPENING, GLANCE_RECOVERING, GLANCE_READY, GLANCE_STOPPED };
enum glance_condition { GLANCE_ACCEPTING, GLANCE_DRAINING, GLANCE_DISK, GLANCE_FULL };
struct glance_box {
    struct glance copy[3];
    uint32_t writing, reading;  /* each side's own */
    _Atomic uint32_t between;   /* the third, with GLANCE_FRESH when it was not read yet */
    _Atomic int phase;          /* enum glance_phase */
    _Atomic int condition;      /* enum glance_condition, of the last turn */
    _Atomic uint64_t recovered; /* jobs loaded so far */
    _Atomic int64_t turned_ms;  /* when the loop last began to turn */
};

struct glance_box *glance_new(void);
void glance_free(struct glance_box *box);
struct glance *glance_begin(struct glance_box *box); /* the loop fills it completely */
void glance_publish(struct glance_box *box);
const struct glance *
glance_latest(struct glance_box *box); /* until the next call; zeros at first */

struct broker;
/* Every turn: the loop is alive, and this is what it accepts. */
void glance_turn(struct glance_box *box, const struct broker *b);
/* Fills g from the broker. */
void glance_take(struct broker *b, struct glance *g);

#endif
