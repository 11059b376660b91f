#include "broker/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "store/ended.h"

enum {
    ENDS_A_TURN = 256, /* of one stream, matching or not */
    BYTES_A_TURN = 4 << 20,
    RETRY_MS = 20,
    SAY_EVERY_MS = 1000, /* a client that hears nothing for longer asks again */
    READ_FAILED_MS = 1000,
    RETRY_FULL_MS = 1000
};

static void drop(struct streams *t, struct stream **at) {
    struct stream *s = *at;
    *at = s->next;
    t->n--;
    free(s);
}

void streams_fini(struct streams *t) {
    while (t->first) drop(t, &t->first);
}

bool stream_end(struct streams *t, const struct sock_peer *peer, uint64_t req) {
    for (struct stream **at = &t->first; *at; at = &(*at)->next)
        if ((*at)->req == req && sock_peer_eq(&(*at)->peer, peer)) {
            drop(t, at);
            return true;
        }
    return false;
}

void streams_user_gone(struct streams *t, uint32_t user) {
    for (struct stream **at = &t->first; *at;)
        if ((*at)->peer.user == user)
            drop(t, at);
        else
            at = &(*at)->next;
}

/* ---- beginning ---- */

static int say(struct broker *b, struct stream *s, const char *what, uint64_t lost) {
    struct msg_stream m = {
        .req = s->req, .what = bytes_str(what), .offset = s->offset, .lost = lost};
    int e = reply_client(b, &s->peer, MSG_STREAM, &m);
    if (e == 0) s->said_ms = b->now_ms;
    return e;
}

int stream_tell_dropped(struct broker *b, const struct sock_peer *to, uint64_t req,
                        uint64_t offset) {
    struct msg_stream m = {.req = req, .what = bytes_str("dropped"), .offset = offset};
    return reply_client(b, to, MSG_STREAM, &m);
}

static void refuse(struct broker *b, const struct request *r, const char *code, const char *field,
                   const char *limit, const char *fix, const char *message) {
    const struct msg_subscribe *m = r->header;
    struct refusal why;
    refusal_set(&why, code, field, limit, fix, "%s", message);
    if (strcmp(code, "full") == 0) why.retry_after_ms = RETRY_FULL_MS;
    reply_refused(b, r->sock, &r->peer, m->req, &why);
}

static bool has_room(struct broker *b, const struct request *r) {
    char limit[64];
    uint32_t own = 0;
    for (const struct stream *s = b->streams.first; s; s = s->next)
        own += sock_peer_eq(&s->peer, &r->peer);
    bool one = own >= LIMIT_PEER_STREAMS;
    if (!one && b->streams.n < LIMIT_STREAMS) return true;
    snprintf(limit, sizeof limit, "at most %u subscriptions%s",
             one ? LIMIT_PEER_STREAMS : LIMIT_STREAMS, one ? " of one client" : "");
    refuse(b, r, "full", "", limit, "end one with EVENTS_STOP, or try again later",
           one ? "this client has too many subscriptions" : "too many clients subscribe");
    return false;
}

static int read_bounds(struct broker *b, uint64_t *oldest, uint64_t *newest) {
    struct store_read *t;
    int e = store_read_begin(b->store, &t);
    if (e) return e;
    e = ended_bounds(t, oldest, newest);
    store_read_end(t);
    return e;
}

void on_subscribe(struct broker *b, const struct request *r) {
    const struct msg_subscribe *m = r->header;
    uint64_t oldest, newest;
    stream_end(&b->streams, &r->peer, m->req);
    if (!has_room(b, r)) return;
    int e = read_bounds(b, &oldest, &newest);
    if (e) {
        refuse(b, r, "store", "", "", "run `penstock store check`", err_text(e));
        return;
    }
    if (m->from != UINT64_MAX && m->from > newest) {
        char limit[64];
        snprintf(limit, sizeof limit, "at most %" PRIu64 ", the newest", newest);
        refuse(b, r, "limit", "from", limit, "subscribe from 0 for all that are kept",
               "the offset is of another store, or of a later state of this one");
        return;
    }
    struct stream *s = calloc(1, sizeof *s);
    if (!s) {
        refuse(b, r, "full", "", "memory", "try again later", "the broker is out of memory");
        return;
    }
    s->peer = r->peer;
    s->req = m->req;
    s->offset = m->from == UINT64_MAX ? newest : m->from == 0 ? oldest - 1 : m->from;
    s->only = r->rights & CERT_ADMIN ? NULL : r->tenant;
    bytes_to_cstr(m->kind, s->kind, sizeof s->kind);
    bytes_to_cstr(m->pipeline, s->pipeline, sizeof s->pipeline);
    s->results = m->results;
    s->behind = true;
    s->next = b->streams.first;
    b->streams.first = s;
    b->streams.n++;
    s->begun = say(b, s, "begun", 0) == 0;
}

/* ---- serving ---- */

static bool wanted(const struct stream *s, const struct job_record *r) {
    return (!s->only || bytes_is(r->tenant, s->only->name)) &&
           (!s->kind[0] || bytes_is(r->kind, s->kind)) &&
           (!s->pipeline[0] || bytes_is(r->pipeline, s->pipeline));
}

static int send_end(struct broker *b, struct stream *s, struct store_read *t, uint64_t offset,
                    const struct job_record *r) {
    struct bytes part[LIMIT_PARTS];
    uint32_t n = 0;
    buf_clear(&b->payload);
    if (s->results && r->result.bytes) {
        int e = store_payload_get(t, r->id, JOB_SLOT_RESULT, &r->result, &b->payload);
        if (e) return e;
    }
    for (size_t at = 0; at < b->payload.len && n < LIMIT_PARTS; at += LIMIT_FRAME_BYTES) {
        size_t left = b->payload.len - at;
        part[n++] =
            bytes_of(b->payload.data + at, left < LIMIT_FRAME_BYTES ? left : LIMIT_FRAME_BYTES);
    }
    struct msg_ended m = {.req = s->req,
                          .offset = offset,
                          .job = r->id,
                          .state = bytes_str(job_state_name(r->state)),
                          .kind = r->kind,
                          .pipeline = r->pipeline,
                          .key = r->key,
                          .reason = r->reason,
                          .accepted_ms = r->accepted_ms > 0 ? (uint64_t)r->accepted_ms : 0,
                          .finished_ms = r->finished_ms > 0 ? (uint64_t)r->finished_ms : 0};
    if (r->state == JOB_FAILED) m.error_class = bytes_str(job_error_name(r->error));
    return reply(b, b->clients, &s->peer, MSG_ENDED, &m, part, n);
}

/* What the store no longer has, or cannot read, was not sent: up to `to`. */
static int say_gap(struct broker *b, struct stream *s, uint64_t to) {
    uint64_t before = s->offset;
    s->offset = to;
    int e = say(b, s, "gap", to - before);
    if (e) s->offset = before;
    return e;
}

/* One end. -EAGAIN: it does not read. */
static int pass(struct broker *b, struct stream *s, struct store_read *t, const struct ended *e,
                struct arena *a, uint64_t *bytes) {
    struct job_record r;
    arena_reset(a);
    int code = jobs_get(t, e->job, &r, a);
    if (code == 0 && wanted(s, &r)) {
        code = send_end(b, s, t, e->offset, &r);
        *bytes += b->payload.len;
        if (code == 0) s->said_ms = b->now_ms;
    }
    if (code == ERR_CORRUPT || code == ERR_VERSION || code == -ENOENT)
        return say_gap(b, s, e->offset); /* the scrub and `store check` name it */
    if (code == 0) s->offset = e->offset;
    return code;
}

static int advance(struct broker *b, struct stream *s, struct store_read *t, struct arena *a) {
    struct ended ends[ENDS_A_TURN];
    uint64_t oldest, newest, bytes = 0;
    uint32_t n = 0, i = 0;
    int e = ended_bounds(t, &oldest, &newest);
    if (e == 0) e = ended_after(t, s->offset, ends, ENDS_A_TURN, &n);
    for (; e == 0 && i < n && bytes < BYTES_A_TURN; i++) {
        if (ends[i].offset > s->offset + 1) e = say_gap(b, s, ends[i].offset - 1);
        if (e == 0) e = pass(b, s, t, &ends[i], a, &bytes);
    }
    if (e || i < n || n == ENDS_A_TURN) return e;
    if (newest > s->offset && (e = say_gap(b, s, newest)) != 0) return e;
    if ((e = say(b, s, "live", 0)) == 0) s->behind = false;
    return e;
}

/* Returns false when the stream is over. */
static bool serve(struct broker *b, struct stream *s, struct store_read *t, struct arena *a) {
    int e = s->begun ? 0 : say(b, s, "begun", 0);
    s->begun = e == 0;
    if (e == 0) e = s->behind ? advance(b, s, t, a) : say(b, s, "live", 0);
    if (e == 0) {
        s->blocked_ms = 0;
        return true;
    }
    if (e == -EHOSTUNREACH) return false;
    s->retry_ms = b->now_ms + (e == -EAGAIN ? RETRY_MS : READ_FAILED_MS);
    if (e != -EAGAIN) return true;
    if (!s->blocked_ms) s->blocked_ms = b->now_ms;
    if (b->now_ms - s->blocked_ms < STREAM_PATIENCE_MS) return true;
    log_info("subscriber_dropped", "offset=%" PRIu64 " why=\"it does not read\"", s->offset);
    owed_notice(&b->owed, &s->peer, s->req, OWED_STREAM, 0, s->offset, b->now_ms);
    return false;
}

static bool is_due(const struct stream *s, int64_t now_ms) {
    if (now_ms < s->retry_ms) return false;
    return s->behind || now_ms - s->said_ms >= SAY_EVERY_MS;
}

int64_t streams_wait_ms(const struct streams *t, int64_t now_ms) {
    int64_t wait_ms = -1;
    for (const struct stream *s = t->first; s; s = s->next) {
        int64_t due_ms = s->behind ? s->retry_ms : s->said_ms + SAY_EVERY_MS;
        int64_t ms = due_ms > now_ms ? due_ms - now_ms : 0;
        if (wait_ms < 0 || ms < wait_ms) wait_ms = ms;
    }
    return wait_ms;
}

void streams_serve(struct broker *b) {
    struct streams *t = &b->streams;
    struct store_read *read = NULL;
    struct arena a;
    if (!t->first) return;
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    for (struct stream **at = &t->first; *at;) {
        struct stream *s = *at;
        s->behind |= t->fresh;
        if (is_due(s, b->now_ms)) {
            int e = read ? 0 : store_read_begin(b->store, &read);
            if (e) {
                s->retry_ms = b->now_ms + READ_FAILED_MS;
            } else if (!serve(b, s, read, &a)) {
                drop(t, at);
                continue;
            }
        }
        at = &s->next;
    }
    t->fresh = false;
    if (read) store_read_end(read);
    arena_fini(&a);
}
