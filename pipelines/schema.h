/* schema.h - a pipeline file as libcyaml reads it, before it is checked.
 *
 * Units: as in the file.  Owner: pipeline_file_load gives it to pipeline_file_free.  Memory:
 * libcyaml's, bounded by the file's cap.  Errors: ERR_FIELD, ERR_LIMIT, -errno with err naming
 * file, line and field.  Threads: one at a time. */
#ifndef PENSTOCK_PIPELINES_SCHEMA_H
#define PENSTOCK_PIPELINES_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_batch {
    const int64_t *max, *delay_ms, *slo_ms; /* NULL: absent, as everywhere below */
};
struct file_fan_out {
    const char *pipeline, *partial;
};
struct file_stage {
    const char *name, *run, *model, *adapter;
    struct file_fan_out *fan_out;
    const int64_t *timeout_ms;
    struct file_batch *batch;
    bool checkpoint;
};
struct file_retry {
    const int64_t *max, *backoff_ms, *backoff_max_ms, *timeouts_max, *deaths_max;
};
struct pipeline_file {
    const char *name, *kind;
    struct file_stage *stages; /* [n_stages] */
    uint32_t n_stages;
    struct file_retry *retry;
    const int64_t *timeout_ms, *queue_max;
};

int pipeline_file_load(struct pipeline_file **out, const char *path, char *err, size_t err_bytes);
void pipeline_file_free(struct pipeline_file *f); /* NULL is fine */

#endif
