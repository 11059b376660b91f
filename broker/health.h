/* health.h - what the HTTP thread answers: health checks, metrics, a page for people.
 *
 *   /startupz  200 once every job of the store is loaded and the sockets are bound; until then 503
 *              and how many jobs are loaded
 *   /readyz    200 while new jobs are accepted: not while starting, draining or full, nor while the
 *              disk fails
 *   /livez     200 while the loop turns; 503 when it has not for HEALTH_STUCK_MS
 *   /metrics   the Prometheus text format (metrics.c)
 *   /status    one HTML page
 *
 * Units: none.  Owner: none.  Memory: the answer.  Errors: in the answer.
 * Threads: health_serve in the HTTP thread; health_ready in the loop's. */
#ifndef PENSTOCK_BROKER_HEALTH_H
#define PENSTOCK_BROKER_HEALTH_H

#include "base/http.h"
#include "broker/glance.h"

#define HEALTH_STUCK_MS 10000

void health_serve(void *box, const char *path, struct http_answer *out);
void health_ready(struct glance_box *box); /* recovery is over, the loop begins */

/* The text format of g; `alive` and `ready` as /livez and /readyz would say now. */
void metrics_text(const struct glance *g, bool ready, bool alive, struct buf *out);

#endif
