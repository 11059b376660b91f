#include "client/penstock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/version.h"
#include "client/upload.h"
#include "schemas/endpoint.h"
#include "schemas/job.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"

#define ANSWER_MS 2000 /* a living broker answers far sooner; then the question is repeated */

_Static_assert(PENSTOCK_JOB_BYTES == JOB_ID_CHARS + 1, "a job id and a NUL");
_Static_assert(PENSTOCK_NAME_BYTES == LIMIT_NAME_BYTES + 1, "a name and a NUL");

const char *penstock_version(void) {
    return PENSTOCK_VERSION;
}

int penstock_open(struct penstock **out, const char *endpoint, char *err, size_t err_bytes) {
    struct penstock_options o = {.endpoint = endpoint};
    return penstock_open_with(out, &o, err, err_bytes);
}

int penstock_open_with(struct penstock **out, const struct penstock_options *options, char *err,
                       size_t err_bytes) {
    const char *endpoint = options->endpoint;
    const char *key = options->key ? options->key : getenv("PENSTOCK_KEY");
    const char *server = options->server_key ? options->server_key : getenv("PENSTOCK_SERVER_KEY");
    *out = NULL;
    char standard[ENDPOINT_BYTES];
    const char *named = getenv("PENSTOCK_ENDPOINT");
    endpoint_default(ENDPOINT_CLIENTS, standard);
    if (!endpoint || !endpoint[0]) endpoint = named && named[0] ? named : standard;
    if (endpoint_check(endpoint, err, err_bytes) < 0) return PENSTOCK_INVALID;
    struct penstock *p = calloc(1, sizeof *p);
    if (!p) return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    int n = snprintf(p->endpoint, sizeof p->endpoint, "%s", endpoint);
    int rc = 0;
    if (n < 0 || (size_t)n >= sizeof p->endpoint)
        rc = err_set(err, err_bytes, PENSTOCK_INVALID, "the endpoint is too long");
    if (rc == 0 && cert_pair_load(&p->pair, key, server, &p->encrypted, err, err_bytes) < 0)
        rc = PENSTOCK_INVALID;
    /* Request numbers differ between handles, so that a log tells them apart. */
    p->last_req = (uint64_t)clock_mono_ns() >> 10 << 20;
    if (rc == 0 && sock_ctx_open(&p->ctx) < 0)
        rc = err_set(err, err_bytes, PENSTOCK_MEMORY, "cannot start ZeroMQ");
    if (rc == 0) rc = link_reopen(p, err, err_bytes);
    if (rc < 0) {
        penstock_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void penstock_close(struct penstock *p) {
    if (!p) return;
    link_forget(p);
    sock_close(p->sock);
    sock_ctx_close(p->ctx);
    free(p);
}

const char *penstock_endpoint(const struct penstock *p) {
    return p->endpoint;
}

const struct penstock_refusal *penstock_refusal(const struct penstock *p) {
    return &p->refusal;
}

/* ---- submit ---- */

int link_body(const struct penstock_job *job, struct buf *buf, struct bytes *out, char *err,
              size_t err_bytes) {
    *out = bytes_of(job->body, job->body_bytes);
    if (!job->body) {
        struct json *j;
        char why[256];
        const char *text = job->body_json ? job->body_json : "{}";
        int rc = json_parse(&j, text, strlen(text), why, sizeof why);
        if (rc == 0) rc = json_to_pack(j, buf, why, sizeof why);
        if (rc < 0) return err_set(err, err_bytes, PENSTOCK_INVALID, "the body: %s", why);
        json_free(j);
        *out = buf_bytes(buf);
    }
    if (out->len <= LIMIT_BODY_BYTES) return 0;
    return err_set(err, err_bytes, PENSTOCK_INVALID,
                   "the body has %zu bytes, at most %u are possible; split the input into several "
                   "jobs",
                   out->len, LIMIT_BODY_BYTES);
}

void link_submit(const struct penstock_job *job, uint64_t req, struct msg_submit *out) {
    *out = (struct msg_submit){
        .req = req,
        .kind = bytes_str(job->kind),
        .pipeline = bytes_str(job->pipeline),
        .key = bytes_str(job->key),
        .source = bytes_str(job->source),
        .priority = job->has_priority ? job->priority : 4,
        .delay_ms = job->delay_ms,
        .ttl_ms = job->ttl_ms,
        .has_seed = job->has_seed,
        .seed = job->seed,
    };
}

static int submit_short(struct penstock *p, const struct penstock_job *job, struct bytes body,
                        int timeout_ms, struct link_answer *a, char *err, size_t err_bytes) {
    struct msg_submit m;
    link_submit(job, link_next_req(p), &m);
    struct link_ask ask = {.type = MSG_SUBMIT,
                           .in = &m,
                           .payload = body,
                           .want = {MSG_ACCEPTED},
                           .once = m.key.len == 0,
                           .patience_ms = 2 * ANSWER_MS};
    return link_ask(p, &ask, timeout_ms, a, err, err_bytes);
}

/* Uploaded, then submitted by the upload's name: that may be repeated, with a key or without. */
static int submit_long(struct penstock *p, const struct penstock_job *job, struct bytes body,
                       int timeout_ms, struct link_answer *a, char *err, size_t err_bytes) {
    int64_t deadline_ms = clock_mono_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    struct upload u;
    int rc;
    upload_init(&u, body, job->key);
    do {
        rc = upload_run(p, &u, job, deadline_ms, err, err_bytes);
        if (rc < 0) break;
        struct msg_submit m;
        link_submit(job, link_next_req(p), &m);
        m.upload = bytes_str(u.name);
        struct link_ask ask = {
            .type = MSG_SUBMIT, .in = &m, .want = {MSG_ACCEPTED}, .patience_ms = 2 * ANSWER_MS};
        rc = link_ask(p, &ask, deadline_ms - clock_mono_ms(), a, err, err_bytes);
    } while (rc == PENSTOCK_REFUSED && upload_refused(&u, &p->refusal));
    bool again = rc == PENSTOCK_REFUSED && p->refusal.retry_after_ms > 0;
    if (rc == PENSTOCK_STOPPED || (rc == PENSTOCK_REFUSED && !again)) upload_give_up(p, &u);
    return rc;
}

int penstock_submit(struct penstock *p, const struct penstock_job *job,
                    struct penstock_accepted *out, int timeout_ms, char *err, size_t err_bytes) {
    memset(out, 0, sizeof *out);
    if (!job->kind || !job->kind[0])
        return err_set(err, err_bytes, PENSTOCK_INVALID, "a job needs a kind, such as text.embed");
    struct buf buf = {0};
    struct bytes body;
    int rc = link_body(job, &buf, &body, err, err_bytes);
    if (rc < 0) goto done;
    struct link_answer a;
    rc = body.len > LIMIT_FRAME_BYTES ? submit_long(p, job, body, timeout_ms, &a, err, err_bytes)
                                      : submit_short(p, job, body, timeout_ms, &a, err, err_bytes);
    if (rc < 0) goto done;
    job_id_text(a.as.accepted.job, out->job);
    link_text(a.as.accepted.state, out->state, sizeof out->state);
    out->seed = a.as.accepted.seed;
    out->existing = a.as.accepted.existing;
    link_answer_fini(&a);
done:
    buf_fini(&buf);
    return rc;
}

/* ---- looking ---- */

void penstock_doc_free(struct penstock_doc *d) {
    free(d->doc);
    free(d->json);
    *d = (struct penstock_doc){0};
}

int penstock_show(struct penstock *p, const char *job, struct penstock_doc *out, int timeout_ms,
                  char *err, size_t err_bytes) {
    *out = (struct penstock_doc){0};
    struct msg_show m = {.req = link_next_req(p)};
    struct link_answer a;
    int rc = link_job_id(job, &m.job, err, err_bytes);
    if (rc < 0) return rc;
    struct link_ask ask = {MSG_SHOW, &m, {NULL, 0}, {MSG_JOB}, false, ANSWER_MS};
    rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_doc(a.as.job.job, out, err, err_bytes);
    link_answer_fini(&a);
    return rc;
}

int penstock_workers(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                     size_t err_bytes) {
    *out = (struct penstock_doc){0};
    struct msg_workers m = {.req = link_next_req(p)};
    struct link_ask ask = {MSG_WORKERS, &m, {NULL, 0}, {MSG_WORKER_LIST}, false, ANSWER_MS};
    struct link_answer a;
    int rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_doc(a.as.worker_list.workers, out, err, err_bytes);
    link_answer_fini(&a);
    return rc;
}

int penstock_drain(struct penstock *p, const char *worker, struct penstock_doc *out, int timeout_ms,
                   char *err, size_t err_bytes) {
    *out = (struct penstock_doc){0};
    struct msg_drain m = {.req = link_next_req(p), .worker = bytes_str(worker)};
    struct link_ask ask = {MSG_DRAIN, &m, {NULL, 0}, {MSG_WORKER_LIST}, false, ANSWER_MS};
    struct link_answer a;
    int rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_doc(a.as.worker_list.workers, out, err, err_bytes);
    link_answer_fini(&a);
    return rc;
}

int penstock_status(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                    size_t err_bytes) {
    *out = (struct penstock_doc){0};
    struct msg_status m = {.req = link_next_req(p)};
    struct link_ask ask = {MSG_STATUS, &m, {NULL, 0}, {MSG_STATS}, false, ANSWER_MS};
    struct link_answer a;
    int rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_doc(a.as.stats.stats, out, err, err_bytes);
    link_answer_fini(&a);
    return rc;
}

int penstock_queues(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                    size_t err_bytes) {
    *out = (struct penstock_doc){0};
    struct msg_queues m = {.req = link_next_req(p)};
    struct link_ask ask = {MSG_QUEUES, &m, {NULL, 0}, {MSG_QUEUE_LIST}, false, ANSWER_MS};
    struct link_answer a;
    int rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_doc(a.as.queue_list.queues, out, err, err_bytes);
    link_answer_fini(&a);
    return rc;
}

int penstock_ping(struct penstock *p, struct penstock_pong *out, int timeout_ms, char *err,
                  size_t err_bytes) {
    *out = (struct penstock_pong){0};
    struct msg_ping m = {.req = link_next_req(p)};
    struct link_ask ask = {MSG_PING, &m, {NULL, 0}, {MSG_PONG}, false, ANSWER_MS};
    struct link_answer a;
    int64_t start_ns = clock_mono_ns();
    int rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    out->round_trip_ms = (double)(clock_mono_ns() - start_ns) / 1e6;
    link_text(a.as.pong.version, out->version, sizeof out->version);
    out->epoch = a.as.pong.epoch;
    out->accepting = a.as.pong.accepting;
    link_answer_fini(&a);
    return 0;
}

/* ---- the list of jobs ---- */

void penstock_list_free(struct penstock_list *l) {
    free(l->rows);
    penstock_doc_free(&l->raw);
    *l = (struct penstock_list){0};
}

static void fill_row(const struct pack_val *v, struct penstock_row *row) {
    link_text(pack_as_bytes(pack_get(v, "job")), row->job, sizeof row->job);
    link_text(pack_as_bytes(pack_get(v, "kind")), row->kind, sizeof row->kind);
    link_text(pack_as_bytes(pack_get(v, "state")), row->state, sizeof row->state);
    link_text(pack_as_bytes(pack_get(v, "reason")), row->reason, sizeof row->reason);
    link_text(pack_as_bytes(pack_get(v, "error_class")), row->error_class, sizeof row->error_class);
    row->requeued = pack_as_bool(pack_get(v, "requeued"), false);
    row->stage = (uint32_t)pack_as_u64(pack_get(v, "stage"), 0);
    row->accepted_ms = pack_as_i64(pack_get(v, "accepted_ms"), 0);
    row->finished_ms = pack_as_i64(pack_get(v, "finished_ms"), 0);
}

static int fill_rows(struct bytes jobs, struct penstock_list *out, char *err, size_t err_bytes) {
    int rc = link_doc(jobs, &out->raw, err, err_bytes);
    if (rc < 0) return rc;
    struct pack_doc *d;
    char why[256];
    if (pack_parse(&d, jobs, why, sizeof why) < 0)
        return err_set(err, err_bytes, PENSTOCK_PROTOCOL, "%s", why);
    uint32_t n = pack_kind(pack_root(d)) == PACK_ARRAY ? pack_len(pack_root(d)) : 0;
    out->rows = calloc(n ? n : 1, sizeof *out->rows);
    if (out->rows) {
        out->n = n;
        for (uint32_t i = 0; i < n; i++) fill_row(pack_at(pack_root(d), i), &out->rows[i]);
    }
    pack_free(d);
    return out->rows ? 0 : err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
}

int penstock_list(struct penstock *p, const struct penstock_filter *filter,
                  struct penstock_list *out, int timeout_ms, char *err, size_t err_bytes) {
    *out = (struct penstock_list){0};
    static const struct penstock_filter all;
    const struct penstock_filter *f = filter ? filter : &all;
    struct msg_list m = {.req = link_next_req(p),
                         .state = bytes_str(f->state),
                         .kind = bytes_str(f->kind),
                         .limit = f->limit ? f->limit : 50};
    int rc = f->before && f->before[0] ? link_job_id(f->before, &m.before, err, err_bytes) : 0;
    if (rc < 0) return rc;
    struct link_ask ask = {MSG_LIST, &m, {NULL, 0}, {MSG_JOBS}, false, ANSWER_MS};
    struct link_answer a;
    rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    if (a.as.jobs.next) job_id_text(a.as.jobs.next, out->next);
    out->damaged = a.as.jobs.damaged;
    rc = fill_rows(a.as.jobs.jobs, out, err, err_bytes);
    link_answer_fini(&a);
    if (rc < 0) penstock_list_free(out);
    return rc;
}
