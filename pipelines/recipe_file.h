/* recipe_file.h - a recipe as libcyaml reads it, before it is checked.
 *
 * Units: as in the file.  Owner: recipe_file_load gives it to recipe_file_free.  Memory:
 * libcyaml's.  Errors: ERR_FIELD, -ENOMEM with err naming line and field.  Threads: any. */
#ifndef PENSTOCK_PIPELINES_RECIPE_FILE_H
#define PENSTOCK_PIPELINES_RECIPE_FILE_H

#include "pipelines/recipe.h"

struct file_rule {
    const char *feature;
    enum recipe_op op;
    double value;
};
struct file_cause {
    const char *cause, *describe;
    struct file_rule *rules;
    uint32_t n_rules;
};
struct file_registration {
    const int64_t *max_shift_px; /* NULL: absent, as everywhere below */
    const char *map, *levels;
};
struct file_compare {
    const char *color;
    const int64_t *side_px, *tolerance_px, *contrast_min, *merge_px, *margin_px;
    struct recipe_box *ignore;
    uint32_t n_ignore;
};
struct file_thresholds {
    const int64_t *area_min_px, *defects_max;
    const double *score_min;
    struct file_rule *ng;
    uint32_t n_ng;
};
struct file_classes {
    const char *brighter, *darker;
};
struct recipe_file {
    const char *name, *reference;
    int64_t version;
    struct file_registration *registration;
    struct file_compare *compare;
    struct file_thresholds *thresholds;
    struct file_classes *classes;
    struct file_cause *causes;
    uint32_t n_causes;
};

/* yaml ends with a NUL behind its bytes. */
int recipe_file_load(struct recipe_file **out, const char *yaml, size_t bytes, const char *where,
                     char *err, size_t err_bytes);
void recipe_file_free(struct recipe_file *f); /* NULL is fine */

#endif
