#include "broker/load.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* An older version counts with the loaded one of its name. */
static struct gauge *pipeline_gauge(struct broker *b, const struct job *j) {
    for (uint32_t i = 0; i < b->n_loaded; i++)
        if (b->pipelines.items[i] == j->pipeline) return &b->load.pipeline[i];
    for (uint32_t i = 0; i < b->n_loaded; i++)
        if (strcmp(b->pipelines.items[i]->name, j->pipeline->name) == 0)
            return &b->load.pipeline[i];
    return NULL;
}

static void count_pipeline(void *arg, struct job *j) {
    struct broker *b = arg;
    struct gauge *g = j->counted ? pipeline_gauge(b, j) : NULL;
    if (g) gauge_take(g, j->body.bytes);
}

void load_recount(struct broker *b) {
    memset(b->load.pipeline, 0, sizeof b->load.pipeline);
    job_table_each(&b->jobs, count_pipeline, b);
}

void load_take(struct broker *b, struct job *j) {
    if (j->counted) return;
    struct gauge *p = pipeline_gauge(b, j);
    j->counted = true;
    gauge_take(&b->load.all, j->body.bytes);
    gauge_take(&j->tenant->live, j->body.bytes);
    if (j->seat) gauge_take(&j->seat->source->live, j->body.bytes);
    if (!j->parent) gauge_take(&b->load.level[j->priority], j->body.bytes);
    if (p) gauge_take(p, j->body.bytes);
    caps_follow(&b->load.caps, j, b->now_ms);
}

void load_untake(struct broker *b, struct job *j) {
    struct gauge *p = pipeline_gauge(b, j);
    j->counted = false;
    gauge_untake(&b->load.all, j->body.bytes);
    gauge_untake(&j->tenant->live, j->body.bytes);
    if (j->seat) gauge_untake(&j->seat->source->live, j->body.bytes);
    if (!j->parent) gauge_untake(&b->load.level[j->priority], j->body.bytes);
    if (p) gauge_untake(p, j->body.bytes);
    caps_leave(&b->load.caps, j, b->now_ms);
}

void load_give(struct broker *b, struct job *j) {
    if (!j->counted) return;
    struct gauge *p = pipeline_gauge(b, j);
    j->counted = false;
    gauge_give(&b->load.all, j->body.bytes, b->now_ms);
    gauge_give(&j->tenant->live, j->body.bytes, b->now_ms);
    if (j->seat) gauge_give(&j->seat->source->live, j->body.bytes, b->now_ms);
    if (!j->parent) gauge_give(&b->load.level[j->priority], j->body.bytes, b->now_ms);
    if (p) gauge_give(p, j->body.bytes, b->now_ms);
    caps_leave(&b->load.caps, j, b->now_ms);
}

/* ---- is there room? ---- */

struct bar { /* what one more job has to pass */
    const struct gauge *gauge;
    struct settings_bounds bounds;
    const char *field, *what, *name; /* of the request; what has the limit, and its name */
    const char *fix;                 /* what raises it */
    uint32_t leaving;                /* of its jobs, are being dropped to make room in it */
};

static bool stops(const struct bar *bar, uint64_t bytes, int64_t now_ms, struct refusal *why) {
    struct gauge now = *bar->gauge, *g = &now;
    g->jobs -= bar->leaving;
    uint64_t most = bar->bounds.bytes_max;
    enum gauge_full full = gauge_full(g, &bar->bounds, bytes);
    char limit[64];
    if (full == GAUGE_ROOM) return false;
    if (full == GAUGE_JOBS) {
        snprintf(limit, sizeof limit, "at most %u jobs", bar->bounds.jobs_max);
        refusal_set(why, "full", bar->field, limit, bar->fix, "%s%s has %u live jobs", bar->what,
                    bar->name, g->jobs);
        why->retry_after_ms =
            gauge_retry_ms(g, (double)g->jobs + 1 - bar->bounds.jobs_max, 0, now_ms);
        return true;
    }
    snprintf(limit, sizeof limit, "at most %" PRIu64 " bytes", most);
    refusal_set(why, bytes > most ? "limit" : "full", bar->field, limit, bar->fix,
                "%s%s has %" PRIu64 " bytes in live jobs and uploads, and this has %" PRIu64,
                bar->what, bar->name, g->bytes, bytes);
    if (bytes <= most)
        why->retry_after_ms = gauge_retry_ms(g, 0, (double)(g->bytes + bytes - most), now_ms);
    return true;
}

static bool stage_stops(struct broker *b, const struct draft *d, uint64_t bytes,
                        struct refusal *why) {
    enum gauge_full what;
    const struct cap *cap = caps_entry_full(&b->load.caps, d->pipeline, bytes, &what);
    if (!cap) return false;
    struct bar bar = {&cap->at[0],
                      cap->stage->bounds,
                      "pipeline",
                      "stage ",
                      cap->stage->run,
                      "submit again later, or raise the stage's caps in the settings",
                      0};
    /* Once it is empty it takes a job of any size. */
    if (bytes > bar.bounds.bytes_max) bytes = bar.bounds.bytes_max;
    return stops(&bar, bytes, b->now_ms, why);
}

static bool source_stops(struct broker *b, const struct source *s, struct refusal *why) {
    if (!s) return false;
    struct bar bar = {&s->live,  {.jobs_max = s->settings->depth},
                      "source",  "source ",
                      s->name,   "submit again later, or raise the source's depth in the settings",
                      s->leaving};
    return stops(&bar, 0, b->now_ms, why);
}

/* ---- quotas of a tenant ---- */

static bool quota_stops(struct broker *b, const struct tenant *t, bool job, uint64_t bytes,
                        struct refusal *why) {
    static const char fix[] = "submit again later, or ask the operator for a larger quota";
    struct gauge now = t->live;
    now.bytes += t->upload_bytes;
    struct bar bar = {&now, t->settings->bounds, job ? "" : "bytes", "tenant ", t->name, fix, 0};
    if (!job) bar.bounds.jobs_max = 0;
    return stops(&bar, bytes, b->now_ms, why);
}

/* What its bucket holds now. After a restart it holds what has flowed in since anybody's last job
 * was accepted: no more than it would have held without. */
static double tokens(const struct broker *b, const struct tenant *t) {
    const struct settings_tenant *s = t->settings;
    bool fresh = !t->metered && b->load.quiet_ms == INT64_MIN;
    int64_t since_ms = t->metered ? t->tokens_ms : b->load.quiet_ms;
    double held = t->metered ? t->tokens : 0;
    if (!fresh) held += s->rate_per_s * (double)(b->now_ms - since_ms) / 1000;
    return fresh || held > s->burst ? s->burst : held;
}

void load_spend(struct broker *b, struct tenant *t) {
    if (t->settings->rate_per_s <= 0) {
        t->metered = false; /* whoever is given a rate begins with a full bucket or less */
        return;
    }
    t->tokens = tokens(b, t) - 1;
    t->tokens_ms = b->now_ms;
    t->metered = true;
}

static bool rate_stops(struct broker *b, const struct tenant *t, struct refusal *why) {
    const struct settings_tenant *s = t->settings;
    char limit[64];
    double held = s->rate_per_s > 0 ? tokens(b, t) : 1;
    if (held >= 1) return false;
    snprintf(limit, sizeof limit, "%g jobs a second, %u at once", s->rate_per_s, s->burst);
    refusal_set(why, "full", "", limit,
                "submit again later, or ask the operator for a larger quota",
                "tenant %s submits faster than %g a second with a burst of %u", t->name,
                s->rate_per_s, s->burst);
    why->retry_after_ms = (uint64_t)ceil((1 - held) / s->rate_per_s * 1000);
    return true;
}

bool load_refuses_upload(struct broker *b, const struct tenant *t, uint64_t bytes,
                         struct refusal *why) {
    return quota_stops(b, t, false, bytes, why);
}

bool load_refuses(struct broker *b, const struct draft *d, const struct source *s, uint64_t bytes,
                  struct refusal *why) {
    const struct load *l = &b->load;
    /* An upload's bytes count already. */
    if (quota_stops(b, d->tenant, true, d->upload ? 0 : bytes, why)) return true;
    uint32_t priority = (uint32_t)d->m->priority;
    static const char level[SETTINGS_LEVELS][2] = {"0", "1", "2", "3", "4",
                                                   "5", "6", "7", "8", "9"};
    const struct bar bars[] = {
        {&l->all,
         {.jobs_max = b->config.queue_max},
         "pipeline",
         "the broker",
         "",
         "submit again later, or raise --queue-max",
         0},
        {&l->pipeline[d->index],
         {.jobs_max = d->pipeline->queue_max},
         "pipeline",
         "pipeline ",
         d->pipeline->name,
         "submit again later, or raise the pipeline's queue_max",
         0},
        {&l->level[priority], l->settings->levels[priority].bounds, "priority", "level ",
         level[priority],
         "submit again later, with another priority, or raise the level's limits in the settings",
         l->leaving[priority]}};
    for (size_t i = 0; i < sizeof bars / sizeof *bars; i++)
        if (stops(&bars[i], bytes, b->now_ms, why)) return true;
    return source_stops(b, s, why) || stage_stops(b, d, bytes, why) ||
           rate_stops(b, d->tenant, why);
}
