#include "workers/encode/part_facts.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* ---- making ---- */

static struct part_line line_at(const struct devlog *d, uint32_t event) {
    const struct devlog_event *e = &d->events[event];
    struct bytes text = e->text;
    if (text.len > PART_EVIDENCE_BYTES) text.len = utf8_cut(text, PART_EVIDENCE_BYTES);
    return (struct part_line){e->line, e->time_ms, text};
}

static void make_image(struct part_image *out, const struct inspection *in) {
    double scale = in->facts.shrink, cx = in->width / 2.0 / scale, cy = in->height / 2.0 / scale;
    const struct image_map *m = &in->map;
    *out = (struct part_image){.format = bytes_str(image_format_name(in->facts.format)),
                               .width = in->width,
                               .height = in->height,
                               .shrink = in->facts.shrink,
                               .orientation = in->facts.orientation,
                               .compared = in->compared};
    if (!in->compared) return;
    out->refined = in->refined;
    out->shift_x = (m->x0 + m->xx * cx + m->xy * cy - cx) * scale;
    out->shift_y = (m->y0 + m->yx * cx + m->yy * cy - cy) * scale;
    out->residual = in->shift.residual_256 / 256.0;
    out->gain = in->levels.gain_256 / 256.0;
    out->offset = in->levels.offset;
    out->regions = in->regions;
    out->n = in->n;
    out->n_all = in->n_all;
}

/* Errors before warnings before the rest, rare before frequent, early before late. */
static int by_interest(const void *a, const void *b) {
    const struct devlog_template *s = a, *t = b;
    if (s->severity != t->severity) return s->severity > t->severity ? -1 : 1;
    if (s->count != t->count) return s->count < t->count ? -1 : 1;
    return s->first_event < t->first_event ? -1 : s->first_event > t->first_event;
}

static int make_events(struct part_log *out, const struct devlog *d, struct arena *a) {
    uint32_t n = d->n_templates < PART_EVENTS_MAX ? d->n_templates : PART_EVENTS_MAX;
    struct devlog_template *sorted =
        arena_copy(a, d->templates, ((size_t)d->n_templates + 1) * sizeof *sorted);
    struct part_event *events = arena_calloc(a, (size_t)n + 1, sizeof *events);
    if (!sorted || !events) return -ENOMEM;
    for (uint32_t i = 0; i < d->n_templates; i++) {
        if (d->templates[i].severity == DEVLOG_ERROR) out->errors += d->templates[i].count;
        if (d->templates[i].severity == DEVLOG_WARNING) out->warnings += d->templates[i].count;
    }
    qsort(sorted, d->n_templates, sizeof *sorted, by_interest);
    for (uint32_t i = 0; i < n; i++)
        events[i] = (struct part_event){sorted[i].id,
                                        sorted[i].text,
                                        sorted[i].severity,
                                        sorted[i].count,
                                        line_at(d, sorted[i].first_event),
                                        line_at(d, sorted[i].last_event)};
    out->chosen = events;
    out->n_chosen = n;
    return 0;
}

static bool rules_name(const struct recipe_rule *rules, uint32_t n, struct bytes reading) {
    for (uint32_t i = 0; i < n; i++)
        if (rules[i].source == RECIPE_READING && bytes_eq(rules[i].name, reading)) return true;
    return false;
}

static bool recipe_names(const struct recipe *r, struct bytes reading) {
    if (rules_name(r->ng, r->n_ng, reading)) return true;
    for (uint32_t i = 0; i < r->n_causes; i++)
        if (rules_name(r->causes[i].rules, r->causes[i].n_rules, reading)) return true;
    return false;
}

static int make_readings(struct part_log *out, const struct devlog *d, const struct recipe *r,
                         struct arena *a) {
    struct part_reading *all = arena_calloc(a, (size_t)d->n_features + 1, sizeof *all);
    if (!all) return -ENOMEM;
    for (uint32_t i = 0; i < d->n_features; i++) {
        const struct devlog_feature *f = &d->features[i];
        all[i] = (struct part_reading){.name = f->name,
                                       .count = f->count,
                                       .min = f->min,
                                       .mean = f->sum / f->count,
                                       .max = f->max,
                                       .last = f->last};
        if (!recipe_names(r, f->name)) continue;
        all[i].at_min = line_at(d, f->min_event);
        all[i].at_max = line_at(d, f->max_event);
        all[i].at_last = line_at(d, f->last_event);
    }
    out->readings = all;
    out->n_readings = d->n_features;
    return 0;
}

int part_facts_make(struct part_facts *out, const struct recipe *r, const struct inspection *in,
                    const struct devlog *d, struct arena *a) {
    *out = (struct part_facts){.recipe = r->yaml, .has_log = d != NULL};
    make_image(&out->image, in);
    if (!d) return 0;
    struct part_log *log = &out->log;
    *log = (struct part_log){.format = bytes_str(devlog_format_name(d->format)),
                             .lines = d->lines,
                             .events = d->n_events,
                             .malformed = d->malformed,
                             .cut = d->lines_cut,
                             .left_out = d->events_left_out,
                             .templates = d->n_templates,
                             .time_first_ms = d->time_first_ms,
                             .time_last_ms = d->time_last_ms};
    int code = make_events(log, d, a);
    return code == 0 ? make_readings(log, d, r, a) : code;
}

/* ---- packing: rows are arrays, in the order that the readers below take them ---- */

static void pack_line(struct packer *p, const struct part_line *l) {
    if (l->line == 0) {
        pack_nil(p);
        return;
    }
    pack_array(p, 3);
    pack_u64(p, l->line);
    pack_i64(p, l->time_ms);
    pack_strn(p, l->text);
}

static void pack_image(struct packer *p, const struct part_image *im) {
    pack_array(p, 13);
    pack_strn(p, im->format);
    pack_u64(p, im->width);
    pack_u64(p, im->height);
    pack_u64(p, im->shrink);
    pack_u64(p, im->orientation);
    pack_bool(p, im->compared);
    pack_bool(p, im->refined);
    pack_f64(p, im->shift_x);
    pack_f64(p, im->shift_y);
    pack_f64(p, im->residual);
    pack_f64(p, im->gain);
    pack_f64(p, im->offset);
    pack_array(p, im->n + 1);
    pack_u64(p, im->n_all);
    for (uint32_t i = 0; i < im->n; i++) {
        const struct image_region *g = &im->regions[i];
        pack_array(p, 7);
        pack_u64(p, g->box.x);
        pack_u64(p, g->box.y);
        pack_u64(p, g->box.width);
        pack_u64(p, g->box.height);
        pack_u64(p, g->area_px);
        pack_u64(p, g->contrast);
        pack_bool(p, g->brighter);
    }
}

static void pack_log(struct packer *p, const struct part_log *l) {
    pack_array(p, 13);
    pack_strn(p, l->format);
    const uint32_t counts[] = {l->lines,    l->events, l->malformed, l->errors,
                               l->warnings, l->cut,    l->left_out,  l->templates};
    for (int i = 0; i < 8; i++) pack_u64(p, counts[i]);
    pack_i64(p, l->time_first_ms);
    pack_i64(p, l->time_last_ms);
    pack_array(p, l->n_readings);
    for (uint32_t i = 0; i < l->n_readings; i++) {
        const struct part_reading *r = &l->readings[i];
        pack_array(p, 9);
        pack_strn(p, r->name);
        pack_u64(p, r->count);
        pack_f64(p, r->min);
        pack_f64(p, r->mean);
        pack_f64(p, r->max);
        pack_f64(p, r->last);
        pack_line(p, &r->at_min);
        pack_line(p, &r->at_max);
        pack_line(p, &r->at_last);
    }
    pack_array(p, l->n_chosen);
    for (uint32_t i = 0; i < l->n_chosen; i++) {
        const struct part_event *e = &l->chosen[i];
        pack_array(p, 6);
        pack_u64(p, e->id);
        pack_strn(p, e->text);
        pack_u64(p, e->severity);
        pack_u64(p, e->count);
        pack_line(p, &e->first);
        pack_line(p, &e->last);
    }
}

void part_facts_pack(struct packer *p, const struct part_facts *f) {
    pack_map(p, 3);
    pack_str(p, "recipe");
    pack_strn(p, f->recipe);
    pack_str(p, "image");
    pack_image(p, &f->image);
    pack_str(p, "log");
    if (f->has_log)
        pack_log(p, &f->log);
    else
        pack_nil(p);
}

/* ---- reading ---- */

static uint32_t u32_at(const struct pack_val *row, uint32_t i) {
    uint64_t v = pack_as_u64(pack_at(row, i), 0);
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static struct part_line read_line(const struct pack_val *v) {
    return (struct part_line){u32_at(v, 0), pack_as_i64(pack_at(v, 1), DEVLOG_NO_TIME),
                              pack_as_bytes(pack_at(v, 2))};
}

static int read_image(struct part_image *out, const struct pack_val *v, struct arena *a) {
    const struct pack_val *rows = pack_at(v, 12);
    if (pack_len(v) != 13 || pack_len(rows) == 0) return ERR_CORRUPT;
    *out = (struct part_image){.format = pack_as_bytes(pack_at(v, 0)),
                               .width = u32_at(v, 1),
                               .height = u32_at(v, 2),
                               .shrink = u32_at(v, 3),
                               .orientation = u32_at(v, 4),
                               .compared = pack_as_bool(pack_at(v, 5), false),
                               .refined = pack_as_bool(pack_at(v, 6), false),
                               .shift_x = pack_as_f64(pack_at(v, 7), 0),
                               .shift_y = pack_as_f64(pack_at(v, 8), 0),
                               .residual = pack_as_f64(pack_at(v, 9), 0),
                               .gain = pack_as_f64(pack_at(v, 10), 1),
                               .offset = pack_as_f64(pack_at(v, 11), 0),
                               .n = pack_len(rows) - 1,
                               .n_all = u32_at(rows, 0)};
    struct image_region *regions = arena_calloc(a, (size_t)out->n + 1, sizeof *regions);
    if (!regions) return -ENOMEM;
    for (uint32_t i = 0; i < out->n; i++) {
        const struct pack_val *row = pack_at(rows, i + 1);
        regions[i] =
            (struct image_region){{u32_at(row, 0), u32_at(row, 1), u32_at(row, 2), u32_at(row, 3)},
                                  u32_at(row, 4),
                                  u32_at(row, 5),
                                  pack_as_bool(pack_at(row, 6), false)};
    }
    out->regions = regions;
    return 0;
}

static int read_log(struct part_log *out, const struct pack_val *v, struct arena *a) {
    const struct pack_val *readings = pack_at(v, 11), *events = pack_at(v, 12);
    if (pack_len(v) != 13) return ERR_CORRUPT;
    *out = (struct part_log){.format = pack_as_bytes(pack_at(v, 0)),
                             .time_first_ms = pack_as_i64(pack_at(v, 9), DEVLOG_NO_TIME),
                             .time_last_ms = pack_as_i64(pack_at(v, 10), DEVLOG_NO_TIME),
                             .n_readings = pack_len(readings),
                             .n_chosen = pack_len(events)};
    uint32_t *const counts[] = {&out->lines,    &out->events, &out->malformed, &out->errors,
                                &out->warnings, &out->cut,    &out->left_out,  &out->templates};
    for (uint32_t i = 0; i < 8; i++) *counts[i] = u32_at(v, i + 1);
    struct part_reading *r = arena_calloc(a, (size_t)out->n_readings + 1, sizeof *r);
    struct part_event *e = arena_calloc(a, (size_t)out->n_chosen + 1, sizeof *e);
    if (!r || !e) return -ENOMEM;
    for (uint32_t i = 0; i < out->n_readings; i++) {
        const struct pack_val *row = pack_at(readings, i);
        r[i] = (struct part_reading){
            pack_as_bytes(pack_at(row, 0)),    u32_at(row, 1),
            pack_as_f64(pack_at(row, 2), NAN), pack_as_f64(pack_at(row, 3), NAN),
            pack_as_f64(pack_at(row, 4), NAN), pack_as_f64(pack_at(row, 5), NAN),
            read_line(pack_at(row, 6)),        read_line(pack_at(row, 7)),
            read_line(pack_at(row, 8))};
    }
    for (uint32_t i = 0; i < out->n_chosen; i++) {
        const struct pack_val *row = pack_at(events, i);
        uint32_t severity = u32_at(row, 2);
        e[i] = (struct part_event){pack_as_u64(pack_at(row, 0), 0),
                                   pack_as_bytes(pack_at(row, 1)),
                                   severity > DEVLOG_ERROR ? DEVLOG_ERROR : severity,
                                   u32_at(row, 3),
                                   read_line(pack_at(row, 4)),
                                   read_line(pack_at(row, 5))};
    }
    out->readings = r;
    out->chosen = e;
    return 0;
}

int part_facts_read(struct part_facts *out, const struct pack_val *keep, struct arena *a) {
    const struct pack_val *log = pack_get(keep, "log");
    *out = (struct part_facts){.recipe = pack_as_bytes(pack_get(keep, "recipe")),
                               .has_log = pack_kind(log) == PACK_ARRAY};
    if (out->recipe.len == 0) return ERR_CORRUPT;
    int code = read_image(&out->image, pack_get(keep, "image"), a);
    if (code == 0 && out->has_log) code = read_log(&out->log, log, a);
    return code;
}
