#include "workers/pace.h"

#include <assert.h>

#define DECAY 0.95      /* of a batch's weight with each that follows */
#define GAP_SHARE 0.1   /* of the newest gap in the smoothed one */
#define PATIENCE 3      /* gaps without an arrival: nobody comes any more */
#define SPREAD_MIN 0.01 /* of sizes, relative to their mean, before a fixed part can be told */

void pace_arrived(struct pace *p, int64_t now_ms) {
    double gap_ms = (double)(now_ms - p->last_ms);
    if (p->last_ms != 0)
        p->gap_ms = p->gap_ms > 0 ? p->gap_ms + GAP_SHARE * (gap_ms - p->gap_ms) : gap_ms;
    p->last_ms = now_ms;
}

void pace_ran(struct pace *p, size_t bytes, double ms) {
    double x = (double)bytes;
    p->weight = DECAY * p->weight + 1;
    p->bytes = DECAY * p->bytes + x;
    p->ms = DECAY * p->ms + ms;
    p->bytes2 = DECAY * p->bytes2 + x * x;
    p->bytes_ms = DECAY * p->bytes_ms + x * ms;
}

/* Milliseconds of any batch, and a byte. */
static void fit(const struct pace *p, double *fixed_ms, double *byte_ms) {
    *fixed_ms = *byte_ms = 0;
    if (p->weight == 0 || p->bytes <= 0) return;
    double mean = p->bytes / p->weight, spread = p->bytes2 / p->weight - mean * mean;
    *byte_ms = p->ms / p->bytes;
    if (spread < SPREAD_MIN * mean * mean) return;
    double slope = (p->bytes_ms / p->weight - mean * p->ms / p->weight) / spread;
    double fixed = (p->ms - slope * p->bytes) / p->weight;
    if (fixed < 0) return;
    *byte_ms = slope > 0 ? slope : 0;
    *fixed_ms = slope > 0 ? fixed : p->ms / p->weight;
}

double pace_ms(const struct pace *p, size_t bytes) {
    double fixed_ms, byte_ms;
    fit(p, &fixed_ms, &byte_ms);
    return fixed_ms + byte_ms * (double)bytes;
}

uint32_t pace_take(const struct pace *p, const struct pace_wish *w, int64_t now_ms,
                   int64_t *wait_ms) {
    double share_ms = PACE_SHARE * w->slo_ms, age_ms = (double)w->age_ms, fixed_ms, byte_ms;
    assert(w->n > 0 && w->most > 0);
    fit(p, &fixed_ms, &byte_ms);
    /* An objective that is lost is not mended by small batches, which take more in all. */
    double most_ms = 2 * age_ms > w->slo_ms ? 1e18 : share_ms;
    double bytes = (double)w->bytes[0];
    uint32_t n = 1;
    while (n < w->n && n < w->most && fixed_ms + byte_ms * (bytes + (double)w->bytes[n]) <= most_ms)
        bytes += (double)w->bytes[n++];
    double left_ms = share_ms - age_ms - fixed_ms - byte_ms * bytes;
    double patience_ms = PATIENCE * p->gap_ms - (double)(now_ms - p->last_ms);
    *wait_ms = 0;
    if (n == w->most || n < w->n || left_ms <= 0) return n;
    if (p->gap_ms >= fixed_ms || patience_ms <= 0) return n;
    double wait = left_ms < patience_ms ? left_ms : patience_ms;
    *wait_ms = wait < 1 ? 1 : (int64_t)wait;
    return 0;
}
