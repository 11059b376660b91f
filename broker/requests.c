#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/version.h"
#include "broker/broker.h"
#include "broker/history.h"
#include "broker/status.h"
#include "schemas/pack.h"

enum { RETRY_FULL_MS = 500, PROBE_EVERY_MS = 1000 };

bool broker_accepting(const struct broker *b) {
    return !b->draining && !b->disk_error && !b->store_full;
}

/* ---- one job ---- */

static void refuse_record(struct broker *b, const struct request *r, uint64_t req, uint64_t job,
                          int e) {
    struct refusal why;
    char id[JOB_ID_CHARS + 1];
    job_id_text(job, id);
    refusal_set(&why, e == -ENOENT ? "unknown_job" : "store", "job", "a job of this broker",
                e == -ENOENT ? "`penstock ls` lists the jobs" : "run `penstock store check`",
                "job %s: %s", id, e == -ENOENT ? "there is none" : err_text(e));
    reply_refused(b, r->sock, &r->peer, req, &why);
}

/* A job of another tenant is answered as one that does not exist: in the same words, and after the
 * same look into the store. */
static bool may_see(const struct request *r, struct bytes tenant) {
    return (r->rights & CERT_ADMIN) || bytes_is(tenant, r->tenant->name);
}

static struct job *live_job(const struct broker *b, const struct request *r, uint64_t id) {
    struct job *j = job_table_find(&b->jobs, id);
    return j && may_see(r, bytes_str(j->tenant->name)) ? j : NULL;
}

/* Reads a record that is no longer live; refuses and returns false when there is none. */
static bool read_record(struct broker *b, const struct request *r, uint64_t req, uint64_t job,
                        struct arena *a, struct store_read **t, struct job_record *out) {
    int e = store_read_begin(b->store, t);
    if (e) *t = NULL;
    if (e == 0) e = jobs_get(*t, job, out, a);
    if (e == 0 && !may_see(r, out->tenant)) e = -ENOENT;
    if (e == 0) return true;
    if (*t) store_read_end(*t);
    *t = NULL;
    refuse_record(b, r, req, job, e);
    return false;
}

/* RESULT of a job that is not live, to one who may see it. */
static void ended_result(struct broker *b, const struct request *r, uint64_t req, uint64_t job) {
    struct arena a;
    struct job_record rec;
    struct store_read *t = NULL;
    arena_init(&a, LIMIT_FRAME_BYTES);
    bool seen = (r->rights & CERT_ADMIN) || read_record(b, r, req, job, &a, &t, &rec);
    if (t) store_read_end(t);
    arena_fini(&a);
    if (seen) reply_result(b, &r->peer, req, job);
}

/* error: of watch_add. */
static void refuse_full(struct broker *b, const struct request *r, uint64_t req, int error) {
    struct refusal why;
    char limit[64];
    bool own = error == ERR_LIMIT;
    snprintf(limit, sizeof limit, "at most %u waits and streams%s",
             own ? LIMIT_PEER_WATCHES : b->watches.cap, own ? " of one client" : "");
    refusal_set(&why, "full", "", limit, "try again later, or poll with RESULT_GET",
                own ? "this client waits for too many jobs" : "too many clients wait");
    why.retry_after_ms = RETRY_FULL_MS;
    reply_refused(b, r->sock, &r->peer, req, &why);
}

/* Followers that went away while nothing happened to their job make room for those who are here. */
static int watch_begin(struct broker *b, struct job *j, enum watch_type type,
                       const struct request *r, uint64_t req, int64_t until_ms) {
    int e = watch_add(&b->watches, j, type, &r->peer, req, until_ms);
    if (e != ERR_FULL || b->now_ms < b->probe_at_ms) return e;
    b->probe_at_ms = b->now_ms + PROBE_EVERY_MS;
    history_probe(b);
    return watch_add(&b->watches, j, type, &r->peer, req, until_ms);
}

void on_wait(struct broker *b, const struct request *r) {
    const struct msg_wait *m = r->header;
    struct job *j = live_job(b, r, m->job);
    if (!j) {
        ended_result(b, r, m->req, m->job);
        return;
    }
    int e = watch_begin(b, j, WATCH_WAIT, r, m->req, b->now_ms + (int64_t)m->timeout_ms);
    if (e) refuse_full(b, r, m->req, e);
}

void on_result_get(struct broker *b, const struct request *r) {
    const struct msg_result_get *m = r->header;
    struct job *j = live_job(b, r, m->job);
    if (j)
        reply_state(b, &r->peer, m->req, j);
    else
        ended_result(b, r, m->req, m->job);
}

void on_show(struct broker *b, const struct request *r) {
    const struct msg_show *m = r->header;
    struct arena a;
    struct job_record rec;
    struct store_read *t = NULL;
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    struct job *j = live_job(b, r, m->job);
    bool found =
        j ? job_record_make(j, &a, &rec) == 0 : read_record(b, r, m->req, m->job, &a, &t, &rec);
    if (found) {
        struct buf doc = {.max_bytes = LIMIT_HEADER_BYTES};
        status_job(&rec, j, &doc);
        struct msg_job answer = {.req = m->req, .job = buf_bytes(&doc)};
        reply_client(b, &r->peer, MSG_JOB, &answer);
        buf_fini(&doc);
    }
    if (t) store_read_end(t);
    arena_fini(&a);
}

void on_cancel(struct broker *b, const struct request *r) {
    const struct msg_cancel *m = r->header;
    struct job *j = live_job(b, r, m->job);
    if (j && j->state == JOB_ACCEPTED) { /* nobody was told its id, and it may yet be a duplicate */
        refuse_record(b, r, m->req, m->job, -ENOENT);
        return;
    }
    if (!j) { /* terminal already, or never there: the store knows */
        struct arena a;
        struct job_record rec;
        struct store_read *t;
        arena_init(&a, LIMIT_FRAME_BYTES * 2);
        if (read_record(b, r, m->req, m->job, &a, &t, &rec)) {
            struct msg_state s = {.req = m->req,
                                  .job = m->job,
                                  .state = bytes_str(job_state_name(rec.state)),
                                  .stage = rec.stage};
            reply_client(b, &r->peer, MSG_STATE, &s);
            store_read_end(t);
        }
        arena_fini(&a);
        return;
    }
    if (job_state_terminal(j->state)) { /* its end is being committed */
        reply_state(b, &r->peer, m->req, j);
        return;
    }
    struct commit_op *op = commit_op_new(COMMIT_UPDATE);
    if (!op) {
        refuse_full(b, r, m->req, -ENOMEM);
        return;
    }
    op->peer = r->peer;
    op->req = m->req;
    op->answer = true;
    job_set_reason(j, m->reason.len ? m->reason : bytes_str("cancelled by a client"));
    effects_revoke(b, j);
    struct job_event e = {.type = JOB_EV_CANCEL};
    uint32_t fx = effects_transition(b, j, &e, r->tenant->name, bytes_str(""));
    effects_apply(b, j, fx, op);
}

/* ---- events ---- */

void on_events(struct broker *b, const struct request *r) {
    const struct msg_events *m = r->header;
    struct arena a;
    struct job_record rec;
    struct store_read *t = NULL;
    struct job *j = live_job(b, r, m->job);
    int e = j && m->follow ? watch_begin(b, j, WATCH_EVENTS, r, m->req, 0) : 0;
    if (e) {
        refuse_full(b, r, m->req, e);
        return;
    }
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    if (j ? job_record_make(j, &a, &rec) == 0 : read_record(b, r, m->req, m->job, &a, &t, &rec))
        history_replay(b, r, j, &rec);
    if (t) store_read_end(t);
    arena_fini(&a);
}

void on_events_stop(struct broker *b, const struct request *r) {
    const struct msg_events_stop *m = r->header;
    stream_end(&b->streams, &r->peer, m->req);
    for (struct watch *w; (w = watch_find(&b->watches, &r->peer, m->req));)
        watch_drop(&b->watches, w);
}

/* ---- the broker as a whole ---- */

void on_list(struct broker *b, const struct request *r) {
    const struct msg_list *m = r->header;
    struct refusal why;
    enum job_state state = JOB_STATES;
    if (m->state.len && job_state_parse(m->state, &state) != 0) {
        refusal_set(&why, "type", "state",
                    "accepted|ready|delayed|leased|waiting|done|failed|cancelled|expired",
                    "name one of the states", "no state is named %.*s", (int)m->state.len,
                    (const char *)m->state.data);
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct buf doc = {.max_bytes = LIMIT_FRAME_BYTES - 4096};
    uint64_t next = 0, damaged = 0;
    int e =
        status_jobs(b, m, r->rights & CERT_ADMIN ? NULL : r->tenant, state, &doc, &next, &damaged);
    if (e) {
        refusal_set(&why, "store", "", "", "run `penstock store check`",
                    "the jobs cannot be listed: %s", err_text(e));
        reply_refused(b, r->sock, &r->peer, m->req, &why);
    } else {
        struct msg_jobs answer = {
            .req = m->req, .jobs = buf_bytes(&doc), .next = next, .damaged = damaged};
        reply_client(b, &r->peer, MSG_JOBS, &answer);
    }
    buf_fini(&doc);
}

void on_workers(struct broker *b, const struct request *r) {
    const struct msg_workers *m = r->header;
    struct buf doc = {.max_bytes = LIMIT_FRAME_BYTES - 4096};
    status_workers(b, r->rights & CERT_ADMIN ? NULL : r->tenant, &doc);
    struct msg_worker_list answer = {.req = m->req, .workers = buf_bytes(&doc)};
    reply_client(b, &r->peer, MSG_WORKER_LIST, &answer);
    buf_fini(&doc);
}

void on_ping(struct broker *b, const struct request *r) {
    const struct msg_ping *m = r->header;
    struct msg_pong answer = {.req = m->req,
                              .version = bytes_str(PENSTOCK_VERSION),
                              .epoch = store_epoch(b->store),
                              .accepting = broker_accepting(b),
                              .many = true};
    reply_client(b, &r->peer, MSG_PONG, &answer);
}

void on_queues(struct broker *b, const struct request *r) {
    const struct msg_queues *m = r->header;
    struct buf doc = {.max_bytes = LIMIT_FRAME_BYTES - 4096};
    status_queues(b, &doc);
    struct msg_queue_list answer = {.req = m->req, .queues = buf_bytes(&doc)};
    reply_client(b, &r->peer, MSG_QUEUE_LIST, &answer);
    buf_fini(&doc);
}

void on_status(struct broker *b, const struct request *r) {
    const struct msg_status *m = r->header;
    struct buf doc = {.max_bytes = LIMIT_HEADER_BYTES};
    status_broker(b, r->rights & CERT_ADMIN ? NULL : r->tenant, &doc);
    struct msg_stats answer = {.req = m->req, .stats = buf_bytes(&doc)};
    reply_client(b, &r->peer, MSG_STATS, &answer);
    buf_fini(&doc);
}
