/* settings_file.h - a settings file as libcyaml reads it, before it is checked.
 *
 * Units: as in the file.  Owner: settings_file_load gives it to settings_file_free.  Memory:
 * libcyaml's.  Errors: ERR_FIELD, -ENOMEM with err naming line and field.  Threads: any. */
#ifndef PENSTOCK_PIPELINES_SETTINGS_FILE_H
#define PENSTOCK_PIPELINES_SETTINGS_FILE_H

#include <stddef.h>
#include <stdint.h>

struct file_tenant {
    const char *name;
    const int64_t *weight; /* NULL: absent, as everywhere below */
    const int64_t *jobs_max, *bytes_max, *burst;
    const double *rate_per_s;
};
struct file_level {
    const int64_t *level, *jobs_max, *bytes_max;
    const char *full;
};
struct file_cap {
    const char *run;
    const int64_t *jobs_max, *bytes_max;
};
struct file_source {
    const char *name, *policy;
    const int64_t *depth, *above, *keep_one_of, *interval_ms;
};
struct settings_file {
    const int64_t *dedupe_window_s;
    struct file_tenant *tenants;
    struct file_level *levels;
    struct file_cap *stages;
    struct file_source *sources;
    uint32_t n_tenants, n_levels, n_stages, n_sources;
};

/* yaml ends with a NUL behind its bytes. */
int settings_file_load(struct settings_file **out, const char *yaml, size_t bytes,
                       const char *where, char *err, size_t err_bytes);
void settings_file_free(struct settings_file *f); /* NULL is fine */

#endif
