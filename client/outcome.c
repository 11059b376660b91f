/* What becomes of a job: waiting, results, cancel, events (penstock.h). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "client/link.h"
#include "schemas/job.h"
#include "schemas/pack.h"

#define ANSWER_MS 2000
#define WAIT_SLICE_MS 10000 /* one WAIT; a broker that was restarted forgets it, so ask again */
#define QUIET_MS 5000       /* a stream without events for so long is begun anew */

void penstock_result_free(struct penstock_result *r) {
    free(r->body);
    free(r->json);
    *r = (struct penstock_result){0};
}

static int out_of_memory(char *err, size_t err_bytes) {
    return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
}

/* The payload frames together are the result. */
static int take_body(const struct sock_msg *m, struct penstock_result *out, char *err,
                     size_t err_bytes) {
    struct buf b = {0};
    for (uint32_t i = 2; i < m->frames; i++) buf_append(&b, m->frame[i].data, m->frame[i].len);
    struct penstock_doc doc = {0};
    int rc =
        b.error ? out_of_memory(err, err_bytes) : link_doc(buf_bytes(&b), &doc, err, err_bytes);
    buf_fini(&b);
    out->body = doc.doc;
    out->body_bytes = doc.doc_bytes;
    out->json = doc.json;
    return rc;
}

int link_result(const struct link_answer *a, struct penstock_result *out, char *err,
                size_t err_bytes) {
    *out = (struct penstock_result){0};
    if (a->desc->type == MSG_STATE) {
        job_id_text(a->as.state.job, out->job);
        link_text(a->as.state.state, out->state, sizeof out->state);
        out->stage = (uint32_t)a->as.state.stage;
        return 0;
    }
    const struct msg_result *m = &a->as.result;
    out->terminal = true;
    job_id_text(m->job, out->job);
    link_text(m->state, out->state, sizeof out->state);
    link_text(m->kind, out->kind, sizeof out->kind);
    link_text(m->error_class, out->error_class, sizeof out->error_class);
    link_text(m->reason, out->reason, sizeof out->reason);
    link_text(m->numerics_id, out->numerics_id, sizeof out->numerics_id);
    out->attempt = m->attempt;
    return a->msg.frames > 2 ? take_body(&a->msg, out, err, err_bytes) : 0;
}

int penstock_result(struct penstock *p, const char *job, struct penstock_result *out,
                    int timeout_ms, char *err, size_t err_bytes) {
    *out = (struct penstock_result){0};
    struct msg_result_get m = {.req = link_next_req(p)};
    int rc = link_job_id(job, &m.job, err, err_bytes);
    if (rc < 0) return rc;
    struct link_ask ask = {MSG_RESULT_GET,          &m,    {NULL, 0},
                           {MSG_RESULT, MSG_STATE}, false, ANSWER_MS};
    struct link_answer a;
    rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    rc = link_result(&a, out, err, err_bytes);
    link_answer_fini(&a);
    if (rc < 0) penstock_result_free(out);
    return rc;
}

int penstock_wait(struct penstock *p, const char *job, int timeout_ms, struct penstock_result *out,
                  char *err, size_t err_bytes) {
    int64_t deadline_ms = clock_mono_ms() + (timeout_ms > 0 ? timeout_ms : 0);
    *out = (struct penstock_result){0};
    struct msg_wait m = {0};
    int rc = link_job_id(job, &m.job, err, err_bytes);
    if (rc < 0) return rc;
    for (;;) {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        if (left_ms < 0) left_ms = 0;
        int64_t slice_ms = left_ms < WAIT_SLICE_MS ? left_ms : WAIT_SLICE_MS;
        m.req = link_next_req(p);
        m.timeout_ms = (uint64_t)slice_ms;
        struct link_ask ask = {
            MSG_WAIT, &m, {NULL, 0}, {MSG_RESULT, MSG_STATE}, false, slice_ms + ANSWER_MS};
        struct link_answer a;
        /* A broker that is being restarted gets time to come back, whatever the caller's is. */
        rc = link_ask(p, &ask, left_ms + 2 * ANSWER_MS, &a, err, err_bytes);
        if (rc < 0) return rc;
        rc = link_result(&a, out, err, err_bytes);
        link_answer_fini(&a);
        if (rc < 0) penstock_result_free(out);
        if (rc < 0 || out->terminal || clock_mono_ms() >= deadline_ms) return rc;
    }
}

int penstock_cancel(struct penstock *p, const char *job, const char *reason, char state[17],
                    int timeout_ms, char *err, size_t err_bytes) {
    state[0] = '\0';
    struct msg_cancel m = {.req = link_next_req(p), .reason = bytes_str(reason)};
    int rc = link_job_id(job, &m.job, err, err_bytes);
    if (rc < 0) return rc;
    struct link_ask ask = {MSG_CANCEL, &m, {NULL, 0}, {MSG_STATE}, false, 2 * ANSWER_MS};
    struct link_answer a;
    rc = link_ask(p, &ask, timeout_ms, &a, err, err_bytes);
    if (rc < 0) return rc;
    link_text(a.as.state.state, state, 17);
    link_answer_fini(&a);
    return 0;
}

/* ---- events ---- */

struct stream {
    struct penstock *p;
    uint64_t job, req, from; /* from: begun anew, it goes on behind this line of the history */
    bool now;                /* ends with the present */
    char state[17];          /* the last that was passed on, of `stage` */
    uint64_t stage;
    bool fresh;     /* the next event is the first since the stream was begun */
    uint32_t quiet; /* how often in a row nothing came */
    penstock_event_fn *fn;
    void *arg;
};

static int stream_begin(struct stream *s, int64_t deadline_ms, char *err, size_t err_bytes) {
    struct msg_events m = {
        .req = link_next_req(s->p), .job = s->job, .from = s->from, .follow = !s->now};
    s->req = m.req;
    s->fresh = true;
    return link_send(s->p, MSG_EVENTS, &m, bytes_of(NULL, 0), deadline_ms, err, err_bytes);
}

/* The broker may be another one than before, or the connection: end the stream there, if it is
 * still known, and begin it anew. The second time in a row on a new socket. */
static int stream_again(struct stream *s, int64_t deadline_ms, char *err, size_t err_bytes) {
    if (++s->quiet > 2)
        return err_set(err, err_bytes, PENSTOCK_UNREACHABLE,
                       "the broker at %s has fallen silent; see `penstock ping`",
                       penstock_endpoint(s->p));
    struct msg_events_stop stop = {.req = s->req};
    int rc = 0;
    if (s->quiet == 1)
        link_send(s->p, MSG_EVENTS_STOP, &stop, bytes_of(NULL, 0), clock_mono_ms(), err, err_bytes);
    else
        rc = link_reopen(s->p, err, err_bytes);
    return rc < 0 ? rc : stream_begin(s, deadline_ms, err, err_bytes);
}

/* This client did not read for long, and the broker ended the stream: on from what was seen. */
static int stream_resume(struct stream *s, int64_t deadline_ms, char *err, size_t err_bytes) {
    int64_t send_ms = clock_mono_ms() + ANSWER_MS;
    int rc = stream_begin(s, send_ms < deadline_ms ? send_ms : deadline_ms, err, err_bytes);
    return rc < 0 ? rc : 1;
}

/* A stream begins with the state of the job: begun anew it says again what is known. */
static bool known(struct stream *s, const struct penstock_event *e) {
    if (strcmp(e->type, "state") != 0) return false;
    bool again = s->fresh && !e->last && e->seq <= s->from && e->stage == s->stage &&
                 strcmp(e->text, s->state) == 0;
    link_text(bytes_str(e->text), s->state, sizeof s->state);
    s->stage = e->stage;
    return again;
}

/* 1: go on, 0: that was the last one, negative: stop. */
static int stream_pass(struct stream *s, const struct msg_event *m, char *err, size_t err_bytes) {
    struct penstock_doc doc = {0};
    struct pack_doc *d = NULL;
    char type[33], text[4096] = "", why[64];
    link_text(m->type, type, sizeof type);
    bool state = strcmp(type, "state") == 0;
    struct bytes named = {NULL, 0};
    if (m->data.len) {
        int rc = link_doc(m->data, &doc, err, err_bytes);
        if (rc < 0) return rc;
        if (pack_parse(&d, m->data, why, sizeof why) == 0)
            named = pack_as_bytes(pack_get(pack_root(d), state ? "state" : "text"));
        link_text(named, text, sizeof text);
    }
    struct penstock_event e = {.seq = m->seq,
                               .type = type,
                               .stage = (uint32_t)m->stage,
                               .attempt = m->attempt,
                               .last = m->last,
                               .data = doc.doc,
                               .data_bytes = doc.doc_bytes,
                               .json = doc.json,
                               .text = named.data || state ? text : NULL};
    int stop = known(s, &e) ? 0 : s->fn(s->arg, &e);
    s->fresh = false;
    s->from = m->seq;
    pack_free(d);
    penstock_doc_free(&doc);
    if (stop) return err_set(err, err_bytes, PENSTOCK_STOPPED, "stopped by the caller");
    return m->last ? 0 : 1;
}

int penstock_events(struct penstock *p, const char *job, penstock_event_fn *fn, void *arg,
                    int timeout_ms, char *err, size_t err_bytes) {
    return penstock_events_from(p, job, UINT64_MAX, true, fn, arg, timeout_ms, err, err_bytes);
}

int penstock_events_from(struct penstock *p, const char *job, uint64_t from, bool follow,
                         penstock_event_fn *fn, void *arg, int timeout_ms, char *err,
                         size_t err_bytes) {
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    struct stream s = {.p = p, .from = from, .now = !follow, .fn = fn, .arg = arg};
    int rc = link_job_id(job, &s.job, err, err_bytes);
    int64_t reach_ms = clock_mono_ms() + 2 * ANSWER_MS;
    if (rc == 0)
        rc = stream_begin(&s, reach_ms < deadline_ms ? reach_ms : deadline_ms, err, err_bytes);
    if (rc < 0) return rc;
    for (rc = 1; rc == 1;) {
        int64_t until_ms = clock_mono_ms() + QUIET_MS;
        if (until_ms > deadline_ms) until_ms = deadline_ms;
        struct link_answer a;
        int got = link_recv(p, s.req, until_ms, &a, err, err_bytes);
        if (got < 0) return got;
        if (got == 0 && clock_mono_ms() >= deadline_ms) {
            rc = err_set(err, err_bytes, PENSTOCK_TIMEOUT, "the job was not over in %d ms",
                         timeout_ms);
        } else if (got == 0) {
            int64_t send_ms = clock_mono_ms() + 2 * QUIET_MS; /* time for a broker's restart */
            rc = stream_again(&s, send_ms < deadline_ms ? send_ms : deadline_ms, err, err_bytes);
            if (rc == 0) rc = 1;
        } else {
            s.quiet = 0;
            if (a.desc->type == MSG_EVENT && bytes_is(a.as.event.type, "dropped"))
                rc = stream_resume(&s, deadline_ms, err, err_bytes);
            else if (a.desc->type == MSG_EVENT)
                rc = stream_pass(&s, &a.as.event, err, err_bytes);
            if (a.desc->type == MSG_REFUSED) rc = link_refused(p, &a, err, err_bytes);
            link_answer_fini(&a);
        }
    }
    if (rc < 0) {
        struct msg_events_stop stop = {.req = s.req};
        char ignored[64];
        link_send(p, MSG_EVENTS_STOP, &stop, bytes_of(NULL, 0), clock_mono_ms(), ignored,
                  sizeof ignored);
    }
    return rc;
}
