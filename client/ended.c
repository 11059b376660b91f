#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "client/link.h"
#include "schemas/job.h"

/* A living broker says something every second (older ones every four). */
enum { BEGIN_MS = 10000, QUIET_MS = 5000, AGAIN_MS = 2000, PAUSE_MAX_MS = 5000 };

struct subscriber {
    struct penstock *p;
    const struct penstock_subscription *how;
    uint64_t req, offset; /* the last that was passed on */
    penstock_ended_fn *fn;
    void *arg;
};

static int begin(struct subscriber *s, int64_t deadline_ms, char *err, size_t err_bytes) {
    struct msg_subscribe m = {.req = link_next_req(s->p),
                              .from = s->offset,
                              .kind = bytes_str(s->how->kind),
                              .pipeline = bytes_str(s->how->pipeline),
                              .results = s->how->results};
    s->req = m.req;
    return link_send(s->p, MSG_SUBSCRIBE, &m, bytes_of(NULL, 0), deadline_ms, err, err_bytes);
}

static void end(const struct subscriber *s) {
    struct msg_events_stop stop = {.req = s->req};
    char ignored[64];
    link_send(s->p, MSG_EVENTS_STOP, &stop, bytes_of(NULL, 0), clock_mono_ms(), ignored,
              sizeof ignored);
}

static int call(struct subscriber *s, const struct penstock_ended *e, char *err, size_t err_bytes) {
    s->offset = e->offset;
    return s->fn(s->arg, e) ? err_set(err, err_bytes, PENSTOCK_STOPPED, "stopped by the caller")
                            : 1;
}

/* 1: go on. */
static int pass_end(struct subscriber *s, const struct link_answer *a, char *err,
                    size_t err_bytes) {
    const struct msg_ended *m = &a->as.ended;
    struct penstock_ended e = {.what = PENSTOCK_ENDED_JOB,
                               .offset = m->offset,
                               .accepted_ms = (int64_t)m->accepted_ms,
                               .finished_ms = (int64_t)m->finished_ms};
    struct penstock_doc doc = {0};
    struct buf whole = {0};
    job_id_text(m->job, e.job);
    link_text(m->state, e.state, sizeof e.state);
    link_text(m->kind, e.kind, sizeof e.kind);
    link_text(m->pipeline, e.pipeline, sizeof e.pipeline);
    link_text(m->key, e.key, sizeof e.key);
    link_text(m->error_class, e.error_class, sizeof e.error_class);
    link_text(m->reason, e.reason, sizeof e.reason);
    for (uint32_t i = 2; i < a->msg.frames; i++)
        buf_append(&whole, a->msg.frame[i].data, a->msg.frame[i].len);
    int rc = whole.error ? err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory") : 1;
    if (rc == 1 && whole.len && (rc = link_doc(buf_bytes(&whole), &doc, err, err_bytes)) == 0)
        rc = 1;
    e.doc = doc.doc;
    e.doc_bytes = doc.doc_bytes;
    e.json = doc.json;
    if (rc == 1) rc = call(s, &e, err, err_bytes);
    penstock_doc_free(&doc);
    buf_fini(&whole);
    return rc;
}

/* 1: go on, 0: it is live and that was all, 2: begin again. */
static int pass_stream(struct subscriber *s, const struct msg_stream *m, char *err,
                       size_t err_bytes) {
    struct penstock_ended e = {.offset = m->offset, .lost = m->lost};
    if (bytes_is(m->what, "dropped")) return 2;
    if (bytes_is(m->what, "begun")) {
        s->offset = m->offset; /* where 0 and UINT64_MAX are */
        return 1;
    }
    e.what = bytes_is(m->what, "gap") ? PENSTOCK_ENDED_GAP : PENSTOCK_ENDED_LIVE;
    int rc = call(s, &e, err, err_bytes);
    return rc == 1 && e.what == PENSTOCK_ENDED_LIVE && !s->how->follow ? 0 : rc;
}

/* What answers the subscription: as pass_stream. */
static int pass(struct subscriber *s, const struct link_answer *a, char *err, size_t err_bytes) {
    int rc = 1;
    if (a->desc->type == MSG_ENDED) {
        if (a->as.ended.offset > s->offset) rc = pass_end(s, a, err, err_bytes);
    } else if (a->desc->type == MSG_STREAM) {
        rc = pass_stream(s, &a->as.stream, err, err_bytes);
    } else if (a->desc->type == MSG_REFUSED) {
        rc = link_refused(s->p, a, err, err_bytes);
        uint64_t pause_ms = penstock_refusal(s->p)->retry_after_ms;
        if (pause_ms == 0) return rc;
        usleep((useconds_t)(pause_ms < PAUSE_MAX_MS ? pause_ms : PAUSE_MAX_MS) * 1000);
        rc = 2;
    }
    return rc;
}

static int64_t soonest(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Goes on behind the last offset, on a new connection; a broker that is away is waited for. */
static int again(struct subscriber *s, int64_t deadline_ms, char *err, size_t err_bytes) {
    end(s);
    for (;;) {
        int rc = link_reopen(s->p, err, err_bytes);
        if (rc == 0)
            rc = begin(s, soonest(clock_mono_ms() + AGAIN_MS, deadline_ms), err, err_bytes);
        if (rc != PENSTOCK_UNREACHABLE || clock_mono_ms() >= deadline_ms) return rc;
    }
}

int penstock_results(struct penstock *p, const struct penstock_subscription *how,
                     penstock_ended_fn *fn, void *arg, int timeout_ms, char *err,
                     size_t err_bytes) {
    int64_t deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    struct subscriber s = {.p = p, .how = how, .offset = how->from, .fn = fn, .arg = arg};
    int rc = begin(&s, soonest(clock_mono_ms() + BEGIN_MS, deadline_ms), err, err_bytes);
    if (rc < 0) return rc;
    for (rc = 1; rc > 0;) {
        struct link_answer a;
        int64_t until_ms = soonest(clock_mono_ms() + QUIET_MS, deadline_ms);
        int got = link_recv(p, s.req, until_ms, &a, err, err_bytes);
        rc = got < 0 ? got : 2;
        if (got == 1) {
            rc = pass(&s, &a, err, err_bytes);
            link_answer_fini(&a);
        } else if (got == 0 && clock_mono_ms() >= deadline_ms) {
            rc = err_set(err, err_bytes, PENSTOCK_TIMEOUT, "no end of the stream in %d ms",
                         timeout_ms);
        }
        if (rc == 2 && (rc = again(&s, deadline_ms, err, err_bytes)) == 0) rc = 1;
    }
    end(&s);
    return rc;
}
