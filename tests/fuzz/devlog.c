/* devlog.c - fuzzes the log parser: whatever the bytes and the format, events come in order, texts
 * are UTF-8, every index is in its table and every reading lies between its bounds. The first byte
 * chooses the format. */
#include <stdlib.h>

#include "base/limits.h"
#include "workers/encode/devlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds) {
    if (!holds) abort();
}

static bool is_text(struct bytes b) {
    return utf8_check(b.data, b.len) == b.len;
}

static void check(const struct devlog *d) {
    for (uint32_t i = 0; i < d->n_events; i++) {
        const struct devlog_event *e = &d->events[i];
        must(is_text(e->text) && e->text.len <= LIMIT_DEVLOG_LINE_BYTES);
        must(e->template_i == DEVLOG_NO_TEMPLATE || e->template_i < d->n_templates);
        must(e->line >= 1 && e->line <= d->lines && (i == 0 || e->line > d->events[i - 1].line));
    }
    for (uint32_t i = 0; i < d->n_templates; i++) {
        const struct devlog_template *t = &d->templates[i];
        must(is_text(t->text) && t->count > 0 && t->last_event < d->n_events);
        must(t->first_event <= t->last_event);
    }
    for (uint32_t i = 0; i < d->n_features; i++) {
        const struct devlog_feature *f = &d->features[i];
        must(is_text(f->name) && f->count > 0 && f->min <= f->last && f->last <= f->max);
        must(f->min_event < d->n_events && f->max_event < d->n_events);
        must(f->last_event < d->n_events && devlog_feature(d, f->name) == f);
    }
    must(d->malformed <= d->n_events + d->events_left_out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct devlog d;
    struct arena a;
    char err[256];
    if (bytes < 1) return 0;
    enum devlog_format format = (enum devlog_format)(data[0] % 4);
    arena_init(&a, 256u << 20);
    if (devlog_parse(bytes_of(data + 1, bytes - 1), format, &a, &d, err, sizeof err) == 0)
        check(&d);
    arena_fini(&a);
    return 0;
}
