#include "broker/caps.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static struct cap *cap_of(const struct caps *c, const struct pipeline *p, uint32_t stage) {
    for (uint32_t i = 0; i < c->n; i++)
        if (strcmp(c->cap[i].stage->run, p->stages[stage].run) == 0) return &c->cap[i];
    return NULL;
}

/* Where nothing is, one job of any size has room: it could never run otherwise. */
static enum gauge_full full_at(const struct cap *cap, uint32_t stage, uint64_t bytes) {
    const struct gauge *g = &cap->at[stage];
    return g->jobs ? gauge_full(g, &cap->stage->bounds, bytes) : GAUGE_ROOM;
}

int caps_set(struct caps *c, const struct settings *s) {
    struct cap *cap = s->n_stages ? calloc(s->n_stages, sizeof *cap) : NULL;
    if (s->n_stages && !cap) return -ENOMEM;
    for (uint32_t i = 0; i < s->n_stages; i++) cap[i].stage = &s->stages[i];
    free(c->cap);
    *c = (struct caps){cap, s->n_stages};
    return 0;
}

void caps_fini(struct caps *c) {
    free(c->cap);
    *c = (struct caps){0};
}

/* j counts at the stages [from, to) from now on. */
static void count(struct caps *c, struct job *j, uint32_t from, uint32_t to, int64_t now_ms) {
    for (uint32_t i = j->counts_from; i < j->counts_to; i++) {
        struct cap *cap = i < from || i >= to ? cap_of(c, j->pipeline, i) : NULL;
        if (cap) gauge_give(&cap->at[i], j->body.bytes, now_ms);
    }
    for (uint32_t i = from; i < to; i++) {
        struct cap *cap =
            i < j->counts_from || i >= j->counts_to ? cap_of(c, j->pipeline, i) : NULL;
        if (cap) gauge_take(&cap->at[i], j->body.bytes);
    }
    j->counts_from = (uint8_t)from;
    j->counts_to = (uint8_t)to;
}

void caps_follow(struct caps *c, struct job *j, int64_t now_ms) {
    if (!c->n) return;
    if (job_state_terminal(j->state) && !j->leaving) { /* else its end may yet be taken back */
        caps_leave(c, j, now_ms);
        return;
    }
    uint32_t to = j->stage + 1 + (j->state == JOB_LEASED ? j->span : 0);
    count(c, j, j->stage, to < j->n_stages ? to : j->n_stages, now_ms);
}

void caps_leave(struct caps *c, struct job *j, int64_t now_ms) {
    if (c->n) count(c, j, 0, 0, now_ms);
}

uint32_t caps_span(const struct caps *c, const struct job *j, uint32_t span) {
    for (uint32_t i = 1; c->n && i <= span && j->stage + i < j->n_stages; i++) {
        const struct cap *cap = cap_of(c, j->pipeline, j->stage + i);
        if (cap && full_at(cap, j->stage + i, j->body.bytes)) return i - 1;
    }
    return span;
}

const struct cap *caps_entry_full(const struct caps *c, const struct pipeline *p, uint64_t bytes,
                                  enum gauge_full *what) {
    const struct cap *cap = cap_of(c, p, 0);
    *what = cap ? full_at(cap, 0, bytes) : GAUGE_ROOM;
    return *what ? cap : NULL;
}
