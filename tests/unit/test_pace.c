/* Batches under a latency objective: what a batch costs is learnt, and waiting pays or is not
 * done. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "workers/pace.h"

enum { JOBS = 20000, MOST = 32, BYTES = 100 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct outcome {
    double p50_ms, p99_ms, batch, busy; /* busy: part of the time that something ran */
};

/* One server that takes fixed + each * n ms for a batch of n; Poisson arrivals. */
static struct outcome simulate(double fixed_ms, double each_ms, double rate_ms, uint32_t slo_ms) {
    struct pace p = {0};
    static double at[JOBS], latency[JOBS];
    static size_t bytes[JOBS];
    uint64_t seed = 99;
    double now = 1000, busy = 0;
    uint32_t arrived = 0, done = 0, batches = 0;
    at[0] = now;
    for (uint32_t i = 0; i < JOBS; i++) {
        double u = (double)(rng_next(&seed) % 1000000 + 1) / 1000001;
        if (i) at[i] = at[i - 1] - log(u) / rate_ms;
        bytes[i] = BYTES / 2 + rng_next(&seed) % BYTES;
    }
    while (done < JOBS) {
        while (arrived < JOBS && at[arrived] <= now) pace_arrived(&p, (int64_t)at[arrived++]);
        if (arrived == done) {
            now = at[arrived];
            continue;
        }
        struct pace_wish w = {bytes + done, arrived - done, MOST, (int64_t)(now - at[done]),
                              slo_ms};
        int64_t wait_ms;
        uint32_t n = pace_take(&p, &w, (int64_t)now, &wait_ms);
        if (n == 0) {
            cr_assert_geq(wait_ms, 1);
            double until = now + (double)wait_ms;
            now = arrived < JOBS && at[arrived] < until ? at[arrived] : until;
            continue;
        }
        cr_assert(n <= MOST && n <= arrived - done);
        size_t total = 0;
        for (uint32_t i = 0; i < n; i++) total += bytes[done + i];
        double ms = fixed_ms + each_ms * (double)total / BYTES;
        now += ms;
        busy += ms;
        for (uint32_t i = 0; i < n; i++) latency[done + i] = now - at[done + i];
        pace_ran(&p, total, ms);
        done += n;
        batches++;
    }
    qsort(latency, JOBS, sizeof *latency, by_value);
    return (struct outcome){latency[JOBS / 2], latency[JOBS - JOBS / 100], (double)JOBS / batches,
                            busy / (now - 1000)};
}

Test(pace, what_a_batch_costs_is_learnt_in_its_fixed_part_and_by_size) {
    struct pace p = {0};
    uint64_t seed = 1;
    cr_assert_float_eq(pace_ms(&p, 100), 0, 1e-9);
    for (int i = 0; i < 100; i++) {
        size_t bytes = 100 + rng_next(&seed) % 900;
        pace_ran(&p, bytes, 7 + 0.05 * (double)bytes + (double)(rng_next(&seed) % 100) / 100);
    }
    cr_assert_float_eq(pace_ms(&p, 0), 7.5, 1, "%g", pace_ms(&p, 0));
    cr_assert_float_eq(pace_ms(&p, 1000), 57.5, 2, "%g", pace_ms(&p, 1000));
}

Test(pace, at_nine_tenths_of_the_peak_99_of_100_end_within_the_objective) {
    double peak = MOST / (5 + 4.0 * MOST); /* jobs a ms in full batches */
    struct outcome o = simulate(5, 4, 0.9 * peak, 400);
    cr_assert_lt(o.p99_ms, 400, "p99 %g ms, batches of %g", o.p99_ms, o.batch);
    struct outcome heavy = simulate(40, 1, 0.9 * MOST / (40 + 1.0 * MOST), 400);
    cr_assert_lt(heavy.p99_ms, 400, "p99 %g ms, batches of %g", heavy.p99_ms, heavy.batch);
    cr_assert_gt(heavy.batch, o.batch, "what costs more to begin is done for more at once");
}

Test(pace, batches_grow_with_the_rate_and_who_is_alone_does_not_wait) {
    double batch = 0;
    for (double rate = 0.001; rate < 0.25; rate *= 3) {
        struct outcome o = simulate(20, 2, rate, 500);
        cr_assert_gt(o.batch, batch, "%g at %g a ms, %g before", o.batch, rate, batch);
        cr_assert_lt(o.p99_ms, 500, "p99 %g ms at %g a ms", o.p99_ms, rate);
        if (batch == 0) cr_assert_lt(o.p50_ms, 30, "p50 %g ms, of 22 that it takes", o.p50_ms);
        batch = o.batch;
    }
}

Test(pace, an_objective_that_is_lost_still_gets_full_batches) {
    struct outcome o = simulate(20, 2, 3, 100); /* four times what it can do */
    cr_assert_gt(o.batch, MOST * 0.9, "batches of %g", o.batch);
    cr_assert_gt(o.busy, 0.99);
}
