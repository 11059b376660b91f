/* settings.h - the broker's settings file: shares and limits that change while it runs.
 *
 *   tenants:
 *     - {name: acme, weight: 3, jobs_max: 50000, bytes_max: 1073741824, rate_per_s: 50, burst: 99}
 *     - {name: "*", weight: 1}            # everybody who is not named
 *   levels:
 *     - {level: 9, jobs_max: 1000, bytes_max: 268435456, full: drop_oldest}
 *   stages:
 *     - {run: infer.embed, jobs_max: 256, bytes_max: 268435456}
 *   sources:
 *     - {name: camera-1, policy: drop_oldest, depth: 4}
 *     - {name: "*", policy: sample, depth: 20, above: 5, keep_one_of: 10}
 *
 *   dedupe_window_s: 86400
 *
 * Every part may be left out; what is not limited there has the limits that the broker has without
 * a file. Every refusal names file, line, field, limit and fix.
 *
 * Units: jobs, bytes (of bodies), jobs a second.  Owner: settings_load gives them to settings_free.
 * Memory: some KiB.  Errors: ERR_FIELD, ERR_LIMIT, -errno with err.  Threads: immutable after load.
 */
#ifndef PENSTOCK_PIPELINES_SETTINGS_H
#define PENSTOCK_PIPELINES_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define SETTINGS_LEVELS 10 /* priorities 0 to 9 */
#define SETTINGS_STAGES_MAX 64
#define SETTINGS_SOURCES_MAX 1024
#define SETTINGS_DEPTH_MAX 4096
#define SETTINGS_WEIGHT_MAX 1000
#define SETTINGS_BYTES_MAX (INT64_C(1) << 46)
#define SETTINGS_RATE_MAX 1000000
#define SETTINGS_WINDOW_MAX_S (366 * 86400)

struct settings_bounds { /* 0: no bound */
    uint32_t jobs_max;
    uint64_t bytes_max;
};
struct settings_tenant {
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t weight;               /* of its turns within a priority level */
    struct settings_bounds bounds; /* of its live jobs; bytes of its uploads too */
    double rate_per_s;             /* jobs accepted, in the long run; 0: any */
    uint32_t burst;                /* at once, after a while with none */
};
struct settings_level {
    struct settings_bounds bounds; /* of its live jobs */
    bool drops; /* when it is full, the tenant's oldest waiting job in it makes room */
};
struct settings_stage {
    char run[LIMIT_NAME_BYTES + 1];
    struct settings_bounds bounds; /* of the jobs that wait for it or run in it */
};
enum settings_policy { SOURCE_BLOCK, SOURCE_DROP_OLDEST, SOURCE_SAMPLE };
struct settings_source {
    char name[LIMIT_NAME_BYTES + 1];
    enum settings_policy policy;
    uint32_t depth; /* live jobs of the source; 0: any number */
    /* SAMPLE: with so many live jobs, one of keep_one_of, or one an interval (0: not said) */
    uint32_t above, keep_one_of, interval_ms;
};
struct settings {
    struct settings_tenant others, *tenants; /* [n_tenants] */
    struct settings_level levels[SETTINGS_LEVELS];
    struct settings_stage *stages;                  /* [n_stages] */
    struct settings_source other_sources, *sources; /* [n_sources] */
    uint32_t n_tenants, n_stages, n_sources;
    int64_t dedupe_window_ms; /* an ended job, and so its idempotency key, stays so long at least */
};

/* path NULL: those of a broker without a file. */
int settings_load(struct settings **out, const char *path, char *err, size_t err_bytes);
void settings_free(struct settings *s); /* NULL is fine */
/* What holds for the tenant of this name; never NULL. */
const struct settings_tenant *settings_tenant(const struct settings *s, const char *name);
/* The same for a source. */
const struct settings_source *settings_source(const struct settings *s, const char *name);
const char *settings_policy_name(enum settings_policy p);

#endif
