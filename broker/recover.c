#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/glance.h"

struct recovery {
    struct broker *b;
    uint32_t jobs;
    char err[256];
};

static const struct pipeline *pipeline_of(struct broker *b, const struct job_record *r, char *err,
                                          size_t n) {
    const struct pipeline *p = NULL;
    return pipeline_from_plan(&b->pipelines, r->plan, &p, err, n) == 0 ? p : NULL;
}

static int revive(void *arg, const struct job_record *r) {
    struct recovery *v = arg;
    struct broker *b = v->b;
    struct job *j = NULL;
    char id[JOB_ID_CHARS + 1];
    job_id_text(r->id, id);
    const struct kind_desc *kind = kind_find(r->kind);
    const struct pipeline *p = pipeline_of(b, r, v->err, sizeof v->err);
    if (!kind || !p)
        return err_set(v->err, sizeof v->err, ERR_VERSION,
                       "job %s: this build does not know its %s", id, kind ? "pipeline" : "kind");
    struct tenant *tenant = tenant_get(&b->tenants, r->tenant);
    int e = tenant ? job_from_record(r, kind, p, &j) : ERR_FULL;
    if (!e) j->tenant = tenant;
    struct source *source =
        e || !r->source.len ? NULL : source_get(tenant, r->source, b->load.settings);
    if (source) e = source_join(source, j);
    if (!e) e = job_table_insert(&b->jobs, j);
    if (e) {
        job_free(j);
        return err_set(v->err, sizeof v->err, e, "job %s cannot be reloaded: %s", id, err_text(e));
    }
    b->bodies_bytes += j->body.inlined.len;
    effects_body_leave(b, j);
    load_take(b, j);
    if (j->expires_ms)
        due_set(&b->expiries, &j->expiry_due, b->now_ms + (j->expires_ms - b->now_wall_ms));
    if (j->state == JOB_DELAYED)
        due_set(&b->delays, &j->delay_due, b->now_ms + (j->ready_ms - b->now_wall_ms));
    else if (j->state == JOB_READY && (e = ready_add(&b->ready, j)) != 0)
        return err_set(v->err, sizeof v->err, e, "job %s: too many kinds of queue", id);
    tally_place(&b->tally, j);
    v->jobs++;
    if (b->box) atomic_store_explicit(&b->box->recovered, v->jobs, memory_order_relaxed);
    return 0;
}

/* Before the jobs, so that they find their sources. */
static int revive_source(void *arg, const struct source_record *r) {
    struct recovery *v = arg;
    struct tenant *t = tenant_get(&v->b->tenants, r->tenant);
    struct source *s = t ? source_get(t, r->name, v->b->load.settings) : NULL;
    if (!s) return ERR_FULL;
    s->dropped = r->dropped;
    s->sampled = r->sampled;
    return 0;
}

int recover(struct broker *b, char *err, size_t err_bytes) {
    struct recovery v = {.b = b};
    struct arena a;
    struct store_read *t;
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    int e = store_read_begin(b->store, &t);
    if (e == 0) {
        e = jobs_last_id(t, &b->last_id);
        if (e == 0) e = sources_walk(t, revive_source, &v);
        if (e == 0) e = jobs_walk(t, 0, false, true, &a, revive, &v);
        if (e == 0) e = upload_recover(b, t);
        b->set_aside = store_read_damaged(t);
        store_read_end(t);
    }
    arena_fini(&a);
    b->load.quiet_ms =
        b->last_id ? b->now_ms - (b->now_wall_ms - job_id_ms(b->last_id)) : INT64_MIN;
    if (b->last_id && b->load.quiet_ms > b->now_ms) b->load.quiet_ms = b->now_ms;
    b->next_attempt = store_epoch(b->store) << 32;
    if (e == 0) family_recover(b);
    if (e)
        return err_set(err, err_bytes, e, "%s; run `penstock store check --dir %s`",
                       v.err[0] ? v.err : err_text(e), b->config.dir);
    if (b->set_aside)
        log_error("set_aside",
                  "records=%llu error=\"they cannot be read\" next=\"penstock store check\"",
                  (unsigned long long)b->set_aside);
    log_info("recovered", "jobs=%u epoch=%llu", v.jobs, (unsigned long long)store_epoch(b->store));
    return 0;
}
