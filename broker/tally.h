/* tally.h - how many jobs stand at each stage of each pipeline, and how fast they come and go.
 *
 * A job is counted at one row, by the name of its pipeline and of the stage that it waits for or
 * runs in; tally_place follows it after each change, so that nobody ever has to walk the jobs. A
 * row stays when its jobs have gone; beyond TALLY_ROWS all further ones share the last.
 *
 * Units: jobs, bytes of bodies, jobs a second.  Owner: the broker.  Memory: fixed.  Errors: none.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_TALLY_H
#define PENSTOCK_BROKER_TALLY_H

#include "base/histogram.h"
#include "broker/job.h"

#define TALLY_ROWS 256u
#define TALLY_RUNS 64u
#define TALLY_CACHE 64u

struct tally_row {
    char pipeline[LIMIT_NAME_BYTES + 1], stage[LIMIT_NAME_BYTES + 1], run[LIMIT_NAME_BYTES + 1];
    uint32_t index;                  /* of the stage */
    uint64_t ready, leased, delayed; /* now */
    uint64_t bytes;                  /* of the bodies of these */
    uint64_t in, out;                /* came to the stage and left it, since the start */
    uint64_t seen_in, seen_out;      /* at the last sample */
    double in_rate, out_rate;        /* a second, over about the last half minute */
    int64_t oldest_ms;               /* how long the oldest ready one waits, at the last sample */
};
struct tally_times { /* of one stage program */
    char run[LIMIT_NAME_BYTES + 1];
    struct histogram wait, duration; /* in the queue; in the stage */
};
struct tally {
    struct tally_row row[TALLY_ROWS];
    uint32_t n;
    struct tally_times times[TALLY_RUNS];
    uint32_t n_times;
    uint64_t dispatched; /* leases given */
    int64_t sampled_ms;
    struct {
        const struct pipeline *pipeline;
        uint16_t row[LIMIT_STAGES]; /* + 1 */
    } cache[TALLY_CACHE];
};

/* Counts j where it stands now, and no longer where it stood. */
void tally_place(struct tally *t, struct job *j);
void tally_remove(struct tally *t, struct job *j); /* fine when it is not counted */
/* Some pipelines have been freed: another may come to lie where one of them lay. */
void tally_forget_pipelines(struct tally *t);
/* The histograms of a stage program; the last for all that find no room. */
struct tally_times *tally_times_of(struct tally *t, const char *run);

struct ready;
/* About every second: rates, and how long the oldest job of each row waits, as far as it is near
 * the head of its queue. */
void tally_sample(struct tally *t, const struct ready *r, int64_t now_ms, int64_t now_wall_ms);

#endif
