/* plan.h - a pipeline as one msgpack document, and back: what a job keeps of it.
 *
 *   { name, kind, tries_max, timeouts_max?, deaths_max, backoff_ms, backoff_max_ms, queue_max,
 *     stages: [
 *     { name, run, model?, adapter?, timeout_ms, batch_max, batch_delay_ms, batch_slo_ms?,
 *       checkpoint,
 *       fan_out?, partial? }] }
 *
 * Always written in this order, so that equal pipelines have equal bytes and one version.
 *
 * Units: milliseconds.  Owner: plan_copy and plan_decode give a pipeline to plan_free.  Memory: one
 * arena each.  Errors: ERR_CORRUPT, ERR_FIELD, -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_PIPELINES_PLAN_H
#define PENSTOCK_PIPELINES_PLAN_H

#include "pipelines/pipeline.h"

#define PIPELINE_TIMEOUT_MAX_MS (24u * 3600u * 1000u)
#define PIPELINE_BATCH_DELAY_MAX_MS 10000u
#define PIPELINE_SLO_MAX_MS 60000u
#define PIPELINE_BACKOFF_MAX_MS (3600u * 1000u)

/* Copies with everything inside and makes plan and version. */
int plan_copy(struct pipeline **out, const struct pipeline *p);
int plan_decode(struct bytes plan, struct pipeline **out, char *err, size_t err_bytes);
void plan_free(struct pipeline *p); /* NULL is fine */

#endif
