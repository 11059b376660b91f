/* recipe.h - how parts of one kind are inspected: a reference, thresholds, and what goes wrong.
 *
 *   name: board-a
 *   version: 3                         # of the thresholds; travels with every result
 *   reference: board-a.png             # beside the recipe; a job may bring its own instead
 *   registration: {max_shift_px: 24, map: affine, levels: match}
 *   compare: {color: rgb, side_px: 2048, tolerance_px: 2, contrast_min: 40, merge_px: 4,
 *             margin_px: 4, ignore: [{x: 0, y: 0, width: 90, height: 20}]}
 *   thresholds:
 *     area_min_px: 20
 *     score_min: 0
 *     defects_max: 64
 *     ng:
 *       - {feature: image.defects, op: ">=", value: 1}
 *       - {feature: temperature.max, op: gt, value: 90}
 *   classes: {brighter: missing copper, darker: spurious copper}
 *   causes:
 *     - cause: stencil worn
 *       describe: solder paste release is poor, prints are thin, the stencil needs cleaning
 *       rules: [{feature: print_pressure.mean, op: "<", value: 4.5}]
 *
 * A rule's feature is image.NAME, log.NAME (lists in recipe.c; a wrong one is refused with them),
 * or a reading of the device log with .min, .mean, .max, .last or .count behind its name. Every
 * field but name, version and a cause's name has a default.
 *
 * Units: lengths are pixels of the compared images (a side is shrunk by 2, 4 or 8 while it stays at
 * or above side_px), thresholds' areas pixels of the whole part; gray levels 0 to 255.
 * Owner: recipe_parse and recipe_load give a recipe to recipe_free; everything inside is borrowed
 * from it.  Memory: a few times the text.  Errors: ERR_FIELD, ERR_LIMIT, ERR_UNKNOWN, -errno with
 * err naming the recipe and the field.  Threads: immutable once made. */
#ifndef PENSTOCK_PIPELINES_RECIPE_H
#define PENSTOCK_PIPELINES_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define RECIPE_CAUSES_MAX 64u
#define RECIPE_RULES_MAX 16u
#define RECIPE_IGNORE_MAX 64u
#define RECIPE_DESCRIBE_BYTES 1024u
#define RECIPE_DEFECTS_MAX 1000u

enum recipe_op { RECIPE_GT, RECIPE_GE, RECIPE_LT, RECIPE_LE, RECIPE_EQ, RECIPE_NE };
const char *recipe_op_text(enum recipe_op op); /* ">" */
bool recipe_op_holds(enum recipe_op op, double a, double b);

enum recipe_source {
    RECIPE_IMAGE, /* name is defects, area_px, ... */
    RECIPE_LOG,   /* name is errors, malformed, ... */
    RECIPE_READING
};
enum recipe_stat { RECIPE_MIN, RECIPE_MEAN, RECIPE_MAX, RECIPE_LAST, RECIPE_COUNT };
struct recipe_rule {
    const char *feature; /* as written */
    enum recipe_source source;
    struct bytes name;     /* without image. or log., without .max */
    enum recipe_stat stat; /* of a reading */
    enum recipe_op op;
    double value;
};
struct recipe_cause {
    const char *cause;
    const char *describe; /* NULL: only its rules count */
    const struct recipe_rule *rules;
    uint32_t n_rules;
};
struct recipe_box {
    uint32_t x, y, width, height;
};

struct recipe {
    const char *name;
    uint32_t version;
    const char *reference; /* a file's path; NULL: none */
    uint32_t max_shift_px;
    bool affine, match_levels;
    bool color; /* compare red, green and blue where both images have them; else gray */
    uint32_t side_px, tolerance_px, contrast_min, merge_px, margin_px;
    const struct recipe_box *ignore;
    uint32_t n_ignore;
    uint32_t area_min_px, defects_max;
    double score_min;
    const struct recipe_rule *ng; /* a part is NG when any holds */
    uint32_t n_ng;
    const char *brighter, *darker; /* classes of defects */
    const struct recipe_cause *causes;
    uint32_t n_causes;
    struct bytes yaml; /* the text it was made from */
};

/* From a text; dir is where a reference lies (NULL: a reference is refused), where names it in
 * err. */
int recipe_parse(struct recipe **out, struct bytes yaml, const char *dir, const char *where,
                 char *err, size_t err_bytes);
/* dir/NAME.yaml; ERR_UNKNOWN lists the recipes that are there. */
int recipe_load(struct recipe **out, const char *dir, struct bytes name, char *err,
                size_t err_bytes);
void recipe_free(struct recipe *r); /* NULL is fine */
/* Where recipes are: given (NULL: not), else $PENSTOCK_RECIPES, else beside the program: the
 * repository's examples/qc, or share/penstock/recipes of an installation. -ENOENT with err. */
int recipes_dir(const char *given, char *out, size_t out_bytes, char *err, size_t err_bytes);
/* A text of several lines is a recipe; else it names one. */
bool recipe_is_inline(struct bytes text);

#endif
