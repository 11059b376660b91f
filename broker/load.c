#include "broker/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/broker.h"
#include "broker/submit.h"

void load_fini(struct load *l) {
    caps_fini(&l->caps);
    settings_free(l->settings);
    *l = (struct load){0};
}

struct recount {
    struct caps *caps;
    int64_t now_ms;
};

static void count_anew(void *arg, struct job *j) {
    struct recount *r = arg;
    j->counts_from = j->counts_to = 0;
    caps_follow(r->caps, j, r->now_ms);
}

int load_settle(struct broker *b, struct settings *s) {
    struct load *l = &b->load;
    int e = caps_set(&l->caps, s);
    if (e) return e;
    struct recount r = {&l->caps, b->now_ms};
    job_table_each(&b->jobs, count_anew, &r);
    tenants_settle(&b->tenants, s);
    settings_free(l->settings);
    l->settings = s;
    return 0;
}

static struct gauge *pipeline_gauge(struct broker *b, const struct job *j) {
    for (uint32_t i = 0; i < b->n_loaded; i++)
        if (b->pipelines.items[i] == j->pipeline) return &b->load.pipeline[i];
    return NULL;
}

void load_take(struct broker *b, struct job *j) {
    if (j->counted) return;
    struct gauge *p = pipeline_gauge(b, j);
    j->counted = true;
    gauge_take(&b->load.all, j->body.bytes);
    gauge_take(&b->load.level[j->priority], j->body.bytes);
    if (p) gauge_take(p, j->body.bytes);
    caps_follow(&b->load.caps, j, b->now_ms);
}

void load_give(struct broker *b, struct job *j) {
    if (!j->counted) return;
    struct gauge *p = pipeline_gauge(b, j);
    j->counted = false;
    gauge_give(&b->load.all, j->body.bytes, b->now_ms);
    gauge_give(&b->load.level[j->priority], j->body.bytes, b->now_ms);
    if (p) gauge_give(p, j->body.bytes, b->now_ms);
    caps_leave(&b->load.caps, j, b->now_ms);
}

/* ---- is there room? ---- */

struct bar { /* what one more job has to pass */
    const struct gauge *gauge;
    struct settings_bounds bounds;
    const char *field, *who, *fix; /* who has the limit; what raises it */
};

static bool stops(const struct bar *bar, uint64_t bytes, int64_t now_ms, struct refusal *why) {
    const struct gauge *g = bar->gauge;
    uint64_t most = bar->bounds.bytes_max;
    enum gauge_full full = gauge_full(g, &bar->bounds, bytes);
    char limit[64];
    if (full == GAUGE_ROOM) return false;
    if (full == GAUGE_JOBS) {
        snprintf(limit, sizeof limit, "at most %u jobs", bar->bounds.jobs_max);
        refusal_set(why, "full", bar->field, limit, bar->fix, "%s has %u live jobs", bar->who,
                    g->jobs);
        why->retry_after_ms =
            gauge_retry_ms(g, (double)g->jobs + 1 - bar->bounds.jobs_max, 0, now_ms);
        return true;
    }
    snprintf(limit, sizeof limit, "at most %" PRIu64 " bytes", most);
    refusal_set(why, bytes > most ? "limit" : "full", bar->field, limit, bar->fix,
                "%s has %" PRIu64 " bytes in live jobs, and this job has %" PRIu64, bar->who,
                g->bytes, bytes);
    if (bytes <= most)
        why->retry_after_ms = gauge_retry_ms(g, 0, (double)(g->bytes + bytes - most), now_ms);
    return true;
}

static bool stage_stops(struct broker *b, const struct draft *d, uint64_t bytes,
                        struct refusal *why) {
    enum gauge_full what;
    char who[LIMIT_NAME_BYTES + 16];
    const struct cap *cap = caps_entry_full(&b->load.caps, d->pipeline, bytes, &what);
    if (!cap) return false;
    snprintf(who, sizeof who, "stage %s", cap->stage->run);
    struct bar bar = {&cap->at[0], cap->stage->bounds, "pipeline", who,
                      "submit again later, or raise the stage's caps in the settings"};
    /* Once it is empty it takes a job of any size. */
    if (bytes > bar.bounds.bytes_max) bytes = bar.bounds.bytes_max;
    return stops(&bar, bytes, b->now_ms, why);
}

bool load_refuses(struct broker *b, const struct draft *d, uint64_t bytes, struct refusal *why) {
    const struct load *l = &b->load;
    uint32_t priority = (uint32_t)d->m->priority;
    char level[16];
    snprintf(level, sizeof level, "level %u", priority);
    const struct bar bars[] = {
        {&l->all,
         {.jobs_max = b->config.queue_max},
         "pipeline",
         "the broker",
         "submit again later, or raise --queue-max"},
        {&l->pipeline[d->index],
         {.jobs_max = d->pipeline->queue_max},
         "pipeline",
         d->pipeline->name,
         "submit again later, or raise the pipeline's queue_max"},
        {&l->level[priority], l->settings->levels[priority].bounds, "priority", level,
         "submit again later, with another priority, or raise the level's limits in the settings"}};
    for (size_t i = 0; i < sizeof bars / sizeof *bars; i++)
        if (stops(&bars[i], bytes, b->now_ms, why)) return true;
    return stage_stops(b, d, bytes, why);
}
