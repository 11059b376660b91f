#include "broker/status.h"

#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "schemas/pack.h"

static void kv_bytes(struct packer *p, const char *key, struct bytes v) {
    pack_str(p, key);
    pack_strn(p, v);
}

static void kv_i64(struct packer *p, const char *key, int64_t v) {
    pack_str(p, key);
    pack_i64(p, v);
}

static void kv_id(struct packer *p, const char *key, uint64_t id) {
    char text[JOB_ID_CHARS + 1];
    job_id_text(id, text);
    pack_kv_str(p, key, text);
}

/* ---- one job ---- */

static const char *stage_state(const struct job_record *r, const struct job *live, uint32_t i) {
    uint32_t at = live ? live->stage : r->stage;
    enum job_state s = live ? job_seen_state(live) : r->state;
    if (s == JOB_DONE || i < at) return "done";
    if (i > at) return "waiting";
    return job_state_name(s);
}

static void pack_stage(struct packer *p, const struct job_record *r, const struct job *live,
                       const struct pipeline *pl, uint32_t i) {
    const struct job_stage_record *s = &r->stages[i];
    struct bytes worker = s->worker;
    if (live && live->worker && i == live->stage) worker = bytes_str(live->worker->name);
    const char *model = pl ? pl->stages[i].model : NULL;
    pack_map(p, 9u + (pl ? 2u : 0u) + (model ? 1u : 0u));
    kv_bytes(p, "name", s->name);
    if (pl) {
        pack_kv_str(p, "run", pl->stages[i].run);
        pack_kv_bool(p, "checkpoint", pl->stages[i].checkpoint);
    }
    if (model) pack_kv_str(p, "model", model);
    pack_kv_str(p, "state", stage_state(r, live, i));
    kv_bytes(p, "worker", worker);
    pack_kv_u64(p, "attempt", s->attempt);
    kv_i64(p, "queued_ms", s->queued_ms);
    kv_i64(p, "started_ms", s->started_ms);
    kv_i64(p, "done_ms", s->done_ms);
    pack_kv_u64(p, "run_us", s->run_us);
    pack_kv_u64(p, "output_bytes", s->output_bytes);
}

static void pack_try(struct packer *p, const struct job_attempt *t) {
    pack_map(p, 7);
    pack_kv_u64(p, "stage", t->stage);
    pack_kv_u64(p, "attempt", t->attempt);
    kv_bytes(p, "worker", t->worker);
    kv_i64(p, "started_ms", t->started_ms);
    kv_i64(p, "ended_ms", t->ended_ms);
    pack_kv_str(p, "outcome", job_error_name(t->error));
    kv_bytes(p, "reason", t->reason);
}

void status_job(const struct job_record *r, const struct job *live, struct buf *out) {
    struct packer p = packer_of(out);
    struct pipelines kept = {0}; /* a job that has ended: what its plan said */
    const struct pipeline *pl = live ? live->pipeline : NULL;
    char version[9];
    if (!pl) pipeline_from_plan(&kept, r->plan, &pl, NULL, 0);
    if (pl && pl->n_stages != r->n_stages) pl = NULL;
    pack_map(&p, 27);
    kv_id(&p, "job", r->id);
    if (r->origin) /* the dead letter that it was made of */
        kv_id(&p, "origin", r->origin);
    else
        pack_kv_str(&p, "origin", "");
    if (r->heir) /* what was made of this one */
        kv_id(&p, "heir", r->heir);
    else
        pack_kv_str(&p, "heir", "");
    if (r->parent) /* the job whose stage asked for it */
        kv_id(&p, "parent", r->parent);
    else
        pack_kv_str(&p, "parent", "");
    if (r->n_children)
        kv_id(&p, "first_child", r->first_child);
    else
        pack_kv_str(&p, "first_child", "");
    pack_kv_u64(&p, "children", r->n_children);
    kv_bytes(&p, "kind", r->kind);
    kv_bytes(&p, "pipeline", r->pipeline);
    pipeline_version_text(crc32c(0, r->plan.data, r->plan.len), version);
    pack_kv_str(&p, "pipeline_version", version);
    pack_kv_str(&p, "state", job_state_name(live ? job_seen_state(live) : r->state));
    kv_bytes(&p, "tenant", r->tenant);
    kv_bytes(&p, "key", r->key);
    kv_bytes(&p, "source", r->source);
    pack_kv_u64(&p, "priority", r->priority);
    pack_kv_u64(&p, "seed", r->seed);
    kv_i64(&p, "accepted_ms", r->accepted_ms);
    kv_i64(&p, "ready_ms", r->ready_ms);
    kv_i64(&p, "expires_ms", r->expires_ms);
    kv_i64(&p, "finished_ms", r->finished_ms);
    pack_kv_u64(&p, "body_bytes", r->body.bytes);
    pack_kv_u64(&p, "result_bytes", r->result.bytes);
    pack_kv_u64(&p, "stage", live ? live->stage : r->stage);
    pack_kv_u64(&p, "deaths", r->deaths);
    pack_str(&p, "stages");
    pack_array(&p, r->n_stages);
    for (uint32_t i = 0; i < r->n_stages; i++) pack_stage(&p, r, live, pl, i);
    pack_str(&p, "attempts");
    pack_array(&p, r->n_attempts);
    for (uint32_t i = 0; i < r->n_attempts; i++) pack_try(&p, &r->attempts[i]);
    kv_bytes(&p, "reason", r->reason);
    pack_kv_str(&p, "error_class", r->state == JOB_FAILED ? job_error_name(r->error) : "");
    pipelines_free(&kept);
}

/* ---- pages of jobs ---- */

struct page {
    struct broker *b;
    const struct msg_list *want;
    enum job_state state;
    struct buf rows;
    uint32_t n, scanned;
    uint64_t last, next; /* the last record seen; where the next page begins */
};

/* A filter that matches little must not hold the loop: a page may end early, and says where. */
enum { PAGE_END = 1, SCAN_MAX = 10000 };

static int add_row(void *arg, const struct job_record *r) {
    struct page *g = arg;
    const struct job *live = job_table_find(&g->b->jobs, r->id);
    enum job_state state = live ? job_seen_state(live) : r->state;
    bool wanted = (g->state == JOB_STATES || g->state == state) &&
                  (!g->want->kind.len || bytes_eq(g->want->kind, r->kind));
    bool full = g->n == g->want->limit || g->rows.len > LIMIT_FRAME_BYTES - 8192;
    if ((wanted && full) || g->scanned == SCAN_MAX) {
        g->next = g->last;
        return PAGE_END;
    }
    g->scanned++;
    g->last = r->id;
    if (!wanted) return 0;
    struct packer p = packer_of(&g->rows);
    pack_map(&p, 9);
    kv_id(&p, "job", r->id);
    kv_bytes(&p, "kind", r->kind);
    pack_kv_str(&p, "error_class", state == JOB_FAILED ? job_error_name(r->error) : "");
    pack_kv_bool(&p, "requeued", r->heir != 0);
    pack_kv_str(&p, "state", job_state_name(state));
    pack_kv_u64(&p, "stage", live ? live->stage : r->stage);
    kv_i64(&p, "accepted_ms", r->accepted_ms);
    kv_i64(&p, "finished_ms", r->finished_ms);
    kv_bytes(&p, "reason", r->reason);
    g->n++;
    return g->rows.error;
}

int status_jobs(struct broker *b, const struct msg_list *m, const struct tenant *only,
                enum job_state state, struct buf *out, uint64_t *next, uint64_t *damaged) {
    uint64_t from = m->before ? m->before - 1 : UINT64_MAX;
    struct page g = {.b = b, .want = m, .state = state, .rows = {.max_bytes = out->max_bytes}};
    struct arena a;
    struct store_read *t;
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    int e = store_read_begin(b->store, &t);
    if (e == 0) {
        e = only ? jobs_walk_tenant(t, bytes_str(only->name), from, &a, add_row, &g)
                 : jobs_walk(t, from, true, false, &a, add_row, &g);
        *damaged = store_read_damaged(t);
        store_read_end(t);
    }
    if (e == PAGE_END) e = 0;
    if (e == 0) {
        struct packer p = packer_of(out);
        pack_array(&p, g.n);
        e = buf_append(out, g.rows.data, g.rows.len);
        *next = g.next;
    }
    buf_fini(&g.rows);
    arena_fini(&a);
    return e;
}

/* ---- workers ---- */

static void pack_names(struct packer *p, const char *key, char (*names)[LIMIT_NAME_BYTES + 1],
                       uint32_t n) {
    pack_str(p, key);
    pack_array(p, n);
    for (uint32_t i = 0; i < n; i++) pack_str(p, names[i]);
}

static void pack_worker(struct packer *p, const struct broker *b, const struct worker *w) {
    pack_map(p, 14);
    pack_kv_str(p, "name", w->name);
    pack_kv_str(p, "session", w->session);
    pack_kv_str(p, "host", w->host);
    pack_kv_u64(p, "pid", w->pid);
    pack_names(p, "runs", w->runs, w->n_runs);
    pack_names(p, "models", w->models, w->n_models);
    pack_kv_str(p, "state", w->quiet || w->leaving ? "draining" : "ready");
    pack_kv_u64(p, "leases", w->leases);
    pack_kv_u64(p, "credit", w->credit_jobs);
    kv_i64(p, "age_ms", b->now_ms - w->since_ms);
    kv_i64(p, "heard_ms", b->now_ms - w->heard_ms);
    pack_kv_u64(p, "done", w->done);
    pack_kv_u64(p, "failed", w->failed);
    pack_kv_bool(p, "leaving", w->leaving);
}

void status_worker(const struct broker *b, const struct worker *w, struct buf *out) {
    struct packer p = packer_of(out);
    pack_array(&p, 1);
    pack_worker(&p, b, w);
}

void status_workers(const struct broker *b, const struct tenant *only, struct buf *out) {
    struct packer p = packer_of(out);
    uint32_t n = 0;
    for (const struct worker *w = b->peers.first; w; w = w->next) n += !only || w->tenant == only;
    pack_array(&p, n);
    for (const struct worker *w = b->peers.first; w; w = w->next) {
        if (only && w->tenant != only) continue;
        pack_worker(&p, b, w);
    }
}

/* ---- queues ---- */

void status_queues(const struct broker *b, struct buf *out) {
    struct packer p = packer_of(out);
    pack_array(&p, b->tally.n);
    for (uint32_t i = 0; i < b->tally.n; i++) {
        const struct tally_row *r = &b->tally.row[i];
        pack_map(&p, 13);
        pack_kv_str(&p, "pipeline", r->pipeline);
        pack_kv_str(&p, "stage", r->stage);
        pack_kv_u64(&p, "index", r->index);
        pack_kv_str(&p, "run", r->run);
        pack_kv_u64(&p, "ready", r->ready);
        pack_kv_u64(&p, "leased", r->leased);
        pack_kv_u64(&p, "delayed", r->delayed);
        pack_kv_u64(&p, "bytes", r->bytes);
        kv_i64(&p, "oldest_ms", r->oldest_ms);
        pack_kv_u64(&p, "in", r->in);
        pack_kv_u64(&p, "out", r->out);
        pack_kv_f64(&p, "in_rate", r->in_rate);
        pack_kv_f64(&p, "out_rate", r->out_rate);
    }
}

/* ---- the broker ---- */

struct count {
    const struct tenant *only;
    uint64_t states[JOB_STATES];
};

static void count_state(void *arg, struct job *j) {
    struct count *c = arg;
    if (!c->only || j->tenant == c->only) c->states[job_seen_state(j)]++;
}

static uint32_t draining(const struct broker *b) {
    uint32_t n = 0;
    for (const struct worker *w = b->peers.first; w; w = w->next) n += w->quiet || w->leaving;
    return n;
}

static void pack_queues(struct packer *p, const struct broker *b) {
    pack_str(p, "queues");
    pack_array(p, b->ready.n);
    for (uint32_t i = 0; i < b->ready.n; i++) {
        const struct ready_queue *q = &b->ready.queue[i];
        pack_map(p, 5);
        pack_kv_str(p, "run", q->run);
        pack_kv_str(p, "model", q->model);
        pack_kv_str(p, "next", q->next);
        pack_kv_u64(p, "stage", q->stage);
        pack_kv_u64(p, "queued", q->jobs);
    }
}

static bool counts_now(const struct tenant *t) {
    return t->live.jobs > 0 || t->upload_bytes > 0;
}

/* Those that have something here, at most TENANT_ROWS of them: what they use and what they may. */
enum { TENANT_ROWS = 128 };
static void pack_tenants(struct packer *p, const struct broker *b, const struct tenant *only) {
    uint32_t n = 0, rows = 0;
    for (const struct tenant *t = b->tenants.first; t; t = t->next)
        n += only ? t == only : counts_now(t);
    if (n > TENANT_ROWS) n = TENANT_ROWS;
    pack_str(p, "tenants");
    pack_array(p, n);
    for (const struct tenant *t = b->tenants.first; t && rows < n; t = t->next) {
        if (only ? t != only : !counts_now(t)) continue;
        rows++;
        pack_map(p, 6);
        pack_kv_str(p, "name", t->name);
        pack_kv_u64(p, "weight", tenant_weight(t));
        pack_kv_u64(p, "jobs", t->live.jobs);
        pack_kv_u64(p, "bytes", t->live.bytes + t->upload_bytes);
        pack_kv_u64(p, "jobs_max", t->settings ? t->settings->bounds.jobs_max : 0);
        pack_kv_u64(p, "bytes_max", t->settings ? t->settings->bounds.bytes_max : 0);
    }
}

enum { SOURCE_ROWS = 128 };
static void pack_sources(struct packer *p, const struct broker *b, const struct tenant *only) {
    uint32_t n = 0, rows = 0;
    for (const struct tenant *t = b->tenants.first; t; t = t->next)
        n += only && t != only ? 0 : t->n_sources;
    if (n > SOURCE_ROWS) n = SOURCE_ROWS;
    pack_str(p, "sources");
    pack_array(p, n);
    for (const struct tenant *t = b->tenants.first; t; t = t->next)
        for (const struct source *s = only && t != only ? NULL : t->sources; s && rows < n;
             s = s->next, rows++) {
            pack_map(p, 7);
            pack_kv_str(p, "tenant", t->name);
            pack_kv_str(p, "name", s->name);
            pack_kv_str(p, "policy", settings_policy_name(s->settings->policy));
            pack_kv_u64(p, "depth", s->settings->depth);
            pack_kv_u64(p, "jobs", s->live.jobs);
            pack_kv_u64(p, "dropped", s->dropped);
            pack_kv_u64(p, "sampled", s->sampled);
        }
}

static void pack_counts(struct packer *p, struct broker *b, const struct tenant *only) {
    struct count c = {.only = only};
    const uint64_t *ended = only ? only->finished : b->finished;
    job_table_each(&b->jobs, count_state, &c);
    kv_i64(p, "uptime_ms", b->now_ms - b->started_ms);
    pack_kv_bool(p, "accepting", broker_accepting(b));
    pack_kv_u64(p, "epoch", store_epoch(b->store));
    pack_str(p, "jobs"); /* live now, and ended since the start */
    pack_map(p, JOB_STATES);
    for (uint32_t s = 0; s < JOB_STATES; s++)
        pack_kv_u64(p, job_state_name((enum job_state)s), c.states[s] + ended[s]);
}

void status_broker(struct broker *b, const struct tenant *only, struct buf *out) {
    struct packer p = packer_of(out);
    if (only) {
        pack_map(&p, 6);
        pack_counts(&p, b, only);
        pack_tenants(&p, b, only);
        pack_sources(&p, b, only);
        return;
    }
    struct store_usage usage = {0};
    struct commit_stats commits = commit_stats(b->committer);
    store_usage(b->store, &usage);
    pack_map(&p, 34);
    pack_counts(&p, b, NULL);
    pack_tenants(&p, b, NULL);
    pack_sources(&p, b, NULL);
    pack_queues(&p, b);
    pack_str(&p, "pipelines");
    versions_pack(b, out);
    pack_kv_str(&p, "pipelines_refused", b->versions.refused);
    kv_i64(&p, "pipelines_loaded_ms", b->versions.loaded_ms);
    pack_kv_u64(&p, "stored_jobs", usage.jobs);
    pack_kv_u64(&p, "retained", usage.jobs > b->jobs.len ? usage.jobs - b->jobs.len : 0);
    pack_kv_u64(&p, "deleted", b->retain.deleted);
    pack_kv_u64(&p, "set_aside", b->set_aside);
    struct scrub_stats scrub = scrub_stats(b->scrub);
    pack_kv_u64(&p, "scrubbed_bytes", scrub.bytes);
    pack_kv_u64(&p, "scrub_rounds", scrub.rounds);
    pack_kv_u64(&p, "damaged", scrub.damaged);
    pack_kv_u64(&p, "stale_readers", scrub.stale_readers);
    pack_kv_u64(&p, "commits", commits.commits);
    pack_kv_u64(&p, "commit_ops", commits.ops);
    pack_kv_u64(&p, "commit_us", commits.last_us);
    pack_kv_u64(&p, "store_bytes", usage.meta_bytes + usage.blob_bytes);
    pack_kv_u64(&p, "store_cap_bytes", usage.meta_cap_bytes + usage.blob_cap_bytes);
    pack_kv_u64(&p, "handed_bytes", b->handed_bytes);
    pack_kv_u64(&p, "workers", b->peers.n);
    pack_kv_u64(&p, "workers_draining", draining(b));
    pack_kv_u64(&p, "watches", b->watches.n);
    pack_kv_u64(&p, "uploads", b->uploads.n);
    pack_kv_u64(&p, "upload_bytes_missing", uploads_missing_bytes(&b->uploads));
    pack_kv_u64(&p, "owed", b->owed.n);
    pack_kv_u64(&p, "refused", b->refused);
    pack_kv_u64(&p, "dropped", b->dropped);
    pack_kv_bool(&p, "stalled", b->stall.since_ms != 0);
    pack_kv_u64(&p, "stalls", b->stall.stalls);
}
