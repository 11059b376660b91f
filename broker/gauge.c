#include "broker/gauge.h"

#include <assert.h>
#include <math.h>

/* The pace is that of about so long. */
#define PACE_MS 10000.0
/* What has been measured for less says little: as if it had been so long. */
#define MEASURED_MIN_MS 1000.0

static double decay(const struct gauge *g, int64_t now_ms) {
    return now_ms > g->at_ms ? exp(-(double)(now_ms - g->at_ms) / PACE_MS) : 1.0;
}

void gauge_take(struct gauge *g, uint64_t bytes) {
    g->jobs++;
    g->bytes += bytes;
}

void gauge_untake(struct gauge *g, uint64_t bytes) {
    assert(g->jobs > 0 && g->bytes >= bytes);
    g->jobs--;
    g->bytes -= bytes;
}

void gauge_give(struct gauge *g, uint64_t bytes, int64_t now_ms) {
    double keep = decay(g, now_ms);
    if (g->left_jobs == 0) g->since_ms = now_ms;
    gauge_untake(g, bytes);
    g->left_jobs = g->left_jobs * keep + 1;
    g->left_bytes = g->left_bytes * keep + (double)bytes;
    g->at_ms = now_ms;
}

enum gauge_full gauge_full(const struct gauge *g, const struct settings_bounds *b, uint64_t bytes) {
    if (b->jobs_max && g->jobs >= b->jobs_max) return GAUGE_JOBS;
    if (b->bytes_max && g->bytes + bytes > b->bytes_max) return GAUGE_BYTES;
    return GAUGE_ROOM;
}

/* A sum of things that left, decayed over the time that is measured, is a rate times that time. */
uint64_t gauge_retry_ms(const struct gauge *g, double jobs, double bytes, int64_t now_ms) {
    if (g->left_jobs == 0) return GAUGE_RETRY_UNKNOWN_MS;
    double keep = decay(g, now_ms);
    double measured_ms = fmax((double)(now_ms - g->since_ms), MEASURED_MIN_MS);
    double span_ms = PACE_MS * (1 - exp(-measured_ms / PACE_MS));
    double ms = jobs > 0 ? jobs * span_ms / (g->left_jobs * keep) : 0;
    double bytes_ms = bytes > 0 ? bytes * span_ms / (g->left_bytes * keep + 1e-9) : 0;
    if (bytes_ms > ms) ms = bytes_ms;
    if (ms >= GAUGE_RETRY_MAX_MS) return GAUGE_RETRY_MAX_MS;
    return ms > GAUGE_RETRY_MIN_MS ? (uint64_t)ceil(ms) : GAUGE_RETRY_MIN_MS;
}
