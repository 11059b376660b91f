#include "workers/post/qc.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/post/qc_causes.h"

/* ---- defects ---- */

static int worst_first(const void *a, const void *b) {
    const struct qc_defect *d = a, *e = b;
    if (d->score != e->score) return d->score > e->score ? -1 : 1;
    if (d->box.y != e->box.y) return d->box.y < e->box.y ? -1 : 1;
    return d->box.x < e->box.x ? -1 : d->box.x > e->box.x;
}

static int find_defects(const struct recipe *r, const struct part_image *im, struct arena *a,
                        struct qc_verdict *v) {
    struct qc_defect *out = arena_calloc(a, (size_t)im->n + 1, sizeof *out);
    if (!out) return -ENOMEM;
    for (uint32_t i = 0; im->compared && i < im->n; i++) {
        const struct image_region *g = &im->regions[i];
        double area = g->area_px, score = g->contrast / 255.0 * area / (area + r->area_min_px);
        if (score > v->score) v->score = score;
        if (g->area_px < r->area_min_px || score < r->score_min) continue;
        out[v->n_defects_all++] = (struct qc_defect){g->brighter ? r->brighter : r->darker, score,
                                                     g->box, g->area_px, g->contrast};
    }
    qsort(out, v->n_defects_all, sizeof *out, worst_first);
    v->defects = out;
    v->n_defects = v->n_defects_all < r->defects_max ? v->n_defects_all : r->defects_max;
    return 0;
}

/* ---- rules ---- */

static bool image_feature(struct bytes name, const struct part_image *im,
                          const struct qc_verdict *v, double *out) {
    double sum = 0, largest = 0, contrast = 0;
    if (!im->compared) return false;
    for (uint32_t i = 0; i < v->n_defects_all; i++) {
        const struct qc_defect *d = &v->defects[i];
        sum += d->area_px;
        if (d->area_px > largest) largest = d->area_px;
        if (d->contrast > contrast) contrast = d->contrast;
    }
    if (bytes_is(name, "defects"))
        *out = v->n_defects_all;
    else if (bytes_is(name, "area_px"))
        *out = sum;
    else if (bytes_is(name, "largest_px"))
        *out = largest;
    else if (bytes_is(name, "contrast"))
        *out = contrast;
    else if (bytes_is(name, "score"))
        *out = v->score;
    else if (bytes_is(name, "shift_px"))
        *out = hypot(im->shift_x, im->shift_y);
    else
        *out = im->residual;
    return true;
}

static bool log_feature(struct bytes name, const struct part_facts *f, double *out) {
    if (!f->has_log) return false;
    if (bytes_is(name, "events"))
        *out = f->log.events;
    else if (bytes_is(name, "errors"))
        *out = f->log.errors;
    else if (bytes_is(name, "warnings"))
        *out = f->log.warnings;
    else
        *out = f->log.malformed;
    return true;
}

static bool reading(const struct recipe_rule *rule, const struct part_facts *f,
                    struct qc_rule *out) {
    for (uint32_t i = 0; f->has_log && i < f->log.n_readings; i++) {
        const struct part_reading *g = &f->log.readings[i];
        if (!bytes_eq(g->name, rule->name)) continue;
        switch (rule->stat) {
        case RECIPE_MIN: out->value = g->min, out->at = g->at_min; break;
        case RECIPE_MEAN: out->value = g->mean; break;
        case RECIPE_MAX: out->value = g->max, out->at = g->at_max; break;
        case RECIPE_LAST: out->value = g->last, out->at = g->at_last; break;
        case RECIPE_COUNT: out->value = g->count, out->at = g->at_last; break;
        }
        /* A mean has no line of its own: the one furthest the rule's way stands in. */
        if (rule->stat == RECIPE_MEAN)
            out->at = rule->op == RECIPE_LT || rule->op == RECIPE_LE ? g->at_min : g->at_max;
        return true;
    }
    return false;
}

struct qc_rule qc_decide(const struct recipe_rule *rule, const struct part_facts *f,
                         const struct qc_verdict *v) {
    struct qc_rule out = {.rule = rule};
    switch (rule->source) {
    case RECIPE_IMAGE: out.measured = image_feature(rule->name, &f->image, v, &out.value); break;
    case RECIPE_LOG: out.measured = log_feature(rule->name, f, &out.value); break;
    case RECIPE_READING: out.measured = reading(rule, f, &out); break;
    }
    out.holds = out.measured && recipe_op_holds(rule->op, out.value, rule->value);
    return out;
}

static int decide_all(const struct recipe *r, const struct part_facts *f, struct arena *a,
                      struct qc_verdict *v, char *err, size_t err_bytes) {
    struct qc_rule *rules = arena_calloc(a, (size_t)r->n_ng + 1, sizeof *rules);
    uint32_t measured = 0;
    if (!rules) return err_set(err, err_bytes, -ENOMEM, "no memory for the recipe's rules");
    for (uint32_t i = 0; i < r->n_ng; i++) {
        rules[i] = qc_decide(&r->ng[i], f, v);
        measured += rules[i].measured;
        v->ng = v->ng || rules[i].holds;
    }
    v->rules = rules;
    if (measured > 0) return 0;
    return err_set(err, err_bytes, ERR_FIELD,
                   "recipe %s: none of its ng rules can be decided: %s; give a reference image, or "
                   "a log that has what the rules name (first: %s)",
                   r->name,
                   f->image.compared ? "the log lacks their readings" : "there is no reference",
                   r->ng[0].feature);
}

int qc_judge(const struct recipe *r, const struct part_facts *f, const float *vectors, uint32_t n,
             uint32_t dim, struct arena *a, struct qc_verdict *out, char *err, size_t err_bytes) {
    *out = (struct qc_verdict){.ng = false};
    int code = find_defects(r, &f->image, a, out);
    if (code != 0) return err_set(err, err_bytes, code, "no memory for the defects");
    code = decide_all(r, f, a, out, err, err_bytes);
    if (code == 0 && out->ng) code = qc_rank(r, f, vectors, n, dim, out, err, err_bytes);
    return code;
}
