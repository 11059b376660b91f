#include "broker/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/job.h"
#include "broker/tenant.h"

static bool idle(const struct source *s) {
    return !s->oldest && !s->live.jobs && !s->dropped && !s->sampled;
}

/* Another name may take the place of one that nothing is known of. */
static struct source *place_for_new(struct tenant *t) {
    struct source *s = NULL;
    if (t->n_sources < LIMIT_TENANT_SOURCES) {
        if (!(s = calloc(1, sizeof *s))) return NULL;
        s->next = t->sources;
        t->sources = s;
        t->n_sources++;
        return s;
    }
    for (s = t->sources; s && !idle(s);) s = s->next;
    if (s) *s = (struct source){.next = s->next};
    return s;
}

struct source *source_get(struct tenant *t, struct bytes name, const struct settings *s) {
    char text[LIMIT_NAME_BYTES + 1];
    for (struct source *x = t->sources; x; x = x->next)
        if (bytes_is(name, x->name)) return x;
    if (name.len == 0 || bytes_to_cstr(name, text, sizeof text) != 0) return NULL;
    struct source *x = place_for_new(t);
    if (!x) return NULL;
    strcpy(x->name, text);
    x->tenant = t;
    x->settings = settings_source(s, x->name);
    return x;
}

void sources_free(struct tenant *t) {
    for (struct source *s = t->sources, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    t->sources = NULL;
    t->n_sources = 0;
}

void sources_settle(struct tenant *t, const struct settings *s) {
    for (struct source *x = t->sources; x; x = x->next) x->settings = settings_source(s, x->name);
}

int source_join(struct source *s, struct job *j) {
    struct seat *seat = malloc(sizeof *seat);
    if (!seat) return -ENOMEM;
    *seat = (struct seat){.source = s, .job = j, .older = s->newest};
    *(seat->older ? &seat->older->newer : &s->oldest) = seat;
    s->newest = j->seat = seat;
    return 0;
}

void source_leave(struct job *j) {
    struct seat *seat = j->seat;
    if (!seat) return;
    *(seat->older ? &seat->older->newer : &seat->source->oldest) = seat->newer;
    *(seat->newer ? &seat->newer->older : &seat->source->newest) = seat->older;
    free(seat);
    j->seat = NULL;
}

struct job *source_oldest(const struct source *s) {
    for (struct seat *seat = s->oldest; seat; seat = seat->newer)
        if (job_waits(seat->job)) return seat->job;
    return NULL;
}

bool source_samples_out(struct source *s, int64_t now_ms) {
    const struct settings_source *p = s->settings;
    if (!p->depth || p->policy != SOURCE_SAMPLE) return false;
    if (s->live.jobs < p->above) {
        s->offered = 0;
        return false;
    }
    if (s->live.jobs >= p->depth) return true;
    bool keep = p->keep_one_of ? s->offered++ % p->keep_one_of == 0
                               : !s->kept_ms || now_ms - s->kept_ms >= p->interval_ms;
    if (keep) s->kept_ms = now_ms;
    return !keep;
}
