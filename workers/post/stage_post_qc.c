/* stage_post_qc.c - post.qc: facts and vectors to the result of qc.inspect.
 *
 * { PartId, RecipeId, ResultId, MeasId, ResultState, IsPartial, IsSimulated   (OPC 40100-1 names)
 *   state: OK | NG, score, threshold, version, method,
 *   defects: [{class, score, box: [x, y, width, height], size: {width, height, area}, contrast}],
 *   defects_total, rules: [{feature, op, value, measured, holds}],
 *   causes: [{cause, score, evidence: [{line, text, time_ms?, score?, rule?}]}],
 *   image: {...}, log: {...} | nil } */
#include <stdio.h>

#include "base/err.h"
#include "schemas/kinds.h"
#include "workers/post/qc.h"
#include "workers/post/stages.h"

#define METHOD "zero-shot"
#define RESULT_COMPLETED 1 /* ResultState of OPC 40100-1: 1 completed */

static void pack_kv_strn(struct packer *p, const char *key, struct bytes text) {
    pack_str(p, key);
    pack_strn(p, text);
}

/* Times that the log did not have are nil. */
static void pack_time(struct packer *p, const char *key, int64_t ms) {
    pack_str(p, key);
    if (ms == DEVLOG_NO_TIME)
        pack_nil(p);
    else
        pack_i64(p, ms);
}

static void pack_defect(struct packer *p, const struct qc_defect *d) {
    pack_map(p, 5);
    pack_kv_str(p, "class", d->class);
    pack_kv_f64(p, "score", d->score);
    pack_str(p, "box");
    pack_array(p, 4);
    pack_u64(p, d->box.x);
    pack_u64(p, d->box.y);
    pack_u64(p, d->box.width);
    pack_u64(p, d->box.height);
    pack_str(p, "size");
    pack_map(p, 3);
    pack_kv_u64(p, "width", d->box.width);
    pack_kv_u64(p, "height", d->box.height);
    pack_kv_u64(p, "area", d->area_px);
    pack_kv_u64(p, "contrast", d->contrast);
}

static void pack_rule(struct packer *p, const struct qc_rule *d) {
    pack_map(p, 5);
    pack_kv_str(p, "feature", d->rule->feature);
    pack_kv_str(p, "op", recipe_op_text(d->rule->op));
    pack_kv_f64(p, "value", d->rule->value);
    pack_str(p, "measured");
    if (d->measured)
        pack_f64(p, d->value);
    else
        pack_nil(p);
    pack_kv_bool(p, "holds", d->holds);
}

static void pack_evidence(struct packer *p, const struct qc_evidence *e) {
    char rule[256];
    pack_map(p, 4);
    pack_kv_u64(p, "line", e->line.line);
    pack_kv_strn(p, "text", e->line.text);
    pack_time(p, "time_ms", e->line.time_ms);
    if (e->rule) {
        snprintf(rule, sizeof rule, "%s %s %g", e->rule->feature, recipe_op_text(e->rule->op),
                 e->rule->value);
        pack_kv_str(p, "rule", rule);
    } else {
        pack_kv_f64(p, "score", e->score);
    }
}

static void pack_causes(struct packer *p, const struct qc_verdict *v) {
    pack_array(p, v->n_causes);
    for (uint32_t i = 0; i < v->n_causes; i++) {
        const struct qc_cause *c = &v->causes[i];
        pack_map(p, 3);
        pack_kv_str(p, "cause", c->cause);
        pack_kv_f64(p, "score", c->score);
        pack_str(p, "evidence");
        pack_array(p, c->n_evidence);
        for (uint32_t k = 0; k < c->n_evidence; k++) pack_evidence(p, &c->evidence[k]);
    }
}

static void pack_image(struct packer *p, const struct part_image *im) {
    pack_map(p, im->compared ? 7 : 6);
    pack_kv_strn(p, "format", im->format);
    pack_kv_u64(p, "width", im->width);
    pack_kv_u64(p, "height", im->height);
    pack_kv_u64(p, "orientation", im->orientation);
    pack_kv_u64(p, "shrink", im->shrink);
    pack_kv_bool(p, "compared", im->compared);
    if (!im->compared) return;
    pack_str(p, "registration");
    pack_map(p, 6);
    pack_kv_f64(p, "dx", im->shift_x);
    pack_kv_f64(p, "dy", im->shift_y);
    pack_kv_str(p, "map", im->refined ? "affine" : "shift");
    pack_kv_f64(p, "residual", im->residual);
    pack_kv_f64(p, "gain", im->gain);
    pack_kv_f64(p, "offset", im->offset);
}

static void pack_log(struct packer *p, const struct part_log *l) {
    pack_map(p, 12);
    pack_kv_strn(p, "format", l->format);
    pack_kv_u64(p, "lines", l->lines);
    pack_kv_u64(p, "events", l->events);
    pack_kv_u64(p, "malformed", l->malformed);
    pack_kv_u64(p, "errors", l->errors);
    pack_kv_u64(p, "warnings", l->warnings);
    pack_kv_u64(p, "cut", l->cut);
    pack_kv_u64(p, "left_out", l->left_out);
    pack_kv_u64(p, "templates", l->templates);
    pack_time(p, "first_ms", l->time_first_ms);
    pack_time(p, "last_ms", l->time_last_ms);
    pack_str(p, "readings");
    pack_map(p, l->n_readings);
    for (uint32_t i = 0; i < l->n_readings; i++) {
        const struct part_reading *r = &l->readings[i];
        pack_strn(p, r->name);
        pack_map(p, 5);
        pack_kv_u64(p, "count", r->count);
        pack_kv_f64(p, "min", r->min);
        pack_kv_f64(p, "mean", r->mean);
        pack_kv_f64(p, "max", r->max);
        pack_kv_f64(p, "last", r->last);
    }
}

static void pack_result(struct packer *p, const struct stage_item *i,
                        const struct kind_qc_inspect *body, const struct recipe *r,
                        const struct part_facts *f, const struct qc_verdict *v) {
    char id[JOB_ID_CHARS + 1];
    job_id_text(i->job, id);
    pack_map(p, 18);
    pack_kv_strn(p, "PartId", body->part_id);
    pack_kv_str(p, "RecipeId", r->name);
    pack_kv_str(p, "ResultId", id);
    pack_kv_strn(p, "MeasId", body->meas_id.len ? body->meas_id : bytes_str(id));
    pack_kv_u64(p, "ResultState", RESULT_COMPLETED);
    pack_kv_bool(p, "IsPartial", false);
    pack_kv_bool(p, "IsSimulated", body->simulated);
    pack_kv_str(p, "state", v->ng ? "NG" : "OK");
    pack_kv_f64(p, "score", v->score);
    pack_kv_f64(p, "threshold", r->score_min);
    pack_kv_u64(p, "version", r->version);
    pack_kv_str(p, "method", METHOD);
    pack_str(p, "defects");
    pack_array(p, v->n_defects);
    for (uint32_t k = 0; k < v->n_defects; k++) pack_defect(p, &v->defects[k]);
    pack_kv_u64(p, "defects_total", v->n_defects_all);
    pack_str(p, "rules");
    pack_array(p, r->n_ng);
    for (uint32_t k = 0; k < r->n_ng; k++) pack_rule(p, &v->rules[k]);
    pack_str(p, "causes");
    pack_causes(p, v);
    pack_str(p, "image");
    pack_image(p, &f->image);
    pack_str(p, "log");
    if (f->has_log)
        pack_log(p, &f->log);
    else
        pack_nil(p);
}

static void judge(struct stage_item *i, const struct vectors_in *in, const struct recipe *r,
                  const struct part_facts *f) {
    struct kind_qc_inspect body;
    struct refusal why;
    struct qc_verdict v;
    char err[LIMIT_REASON_BYTES];
    if (kind_decode(kind_find(bytes_str("qc.inspect")), i->body, &body, &why) != 0) {
        item_fail(i, JOB_ERROR_PERMANENT, "body: %s: %s", why.field, why.message);
        return;
    }
    int rc = qc_judge(r, f, in->vectors, in->n, in->dim, i->arena, &v, err, sizeof err);
    if (rc != 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    struct buf out = {.max_bytes = LIMIT_OUTPUT_BYTES};
    struct packer p = packer_of(&out);
    pack_result(&p, i, &body, r, f, &v);
    item_done_buf(i, &out);
    buf_fini(&out);
}

static void run_one(struct stage_item *i) {
    struct pack_doc *doc = NULL;
    struct vectors_in in;
    struct part_facts facts;
    struct recipe *r = NULL;
    char err[LIMIT_REASON_BYTES] = "";
    int rc = pack_parse(&doc, i->input, err, sizeof err);
    if (rc < 0) {
        item_fail_rc(i, rc, err);
        return;
    }
    if (vectors_read(i, pack_root(doc), &in)) {
        rc = part_facts_read(&facts, in.keep, i->arena);
        if (rc == ERR_CORRUPT) err_set(err, sizeof err, rc, "keep: not the facts of encode.part");
        /* What encode.part read from a folder is text here, so its reference is but a name. */
        if (rc == 0) rc = recipe_parse(&r, facts.recipe, ".", "recipe", err, sizeof err);
        if (rc == 0)
            judge(i, &in, r, &facts);
        else
            item_fail_rc(i, rc, err);
        recipe_free(r);
    }
    pack_free(doc);
}

static void run_batch(void *self, struct stage_item **items, uint32_t n) {
    (void)self;
    for (uint32_t i = 0; i < n; i++) run_one(items[i]);
}

const struct stage_program stage_post_qc = {.run = "post.qc", .run_batch = run_batch};
