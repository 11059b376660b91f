#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/history.h"
#include "broker/verdicts.h"

enum { RETRY_UNREAD_MS = 500 };

/* A peer whose key was revoked hears nothing but that. */
static bool known(const struct broker *b, const struct sock_peer *to) {
    return !b->auth.on || auth_by_user(&b->auth, to->user);
}

int reply(struct broker *b, struct sock *s, const struct sock_peer *to, enum msg_type type,
          const void *header, const struct bytes *payload, uint32_t n) {
    uint8_t tag[MSG_TAG_BYTES];
    struct sock_msg m = {.peer = *to, .frames = 2 + n};
    if (m.frames > LIMIT_FRAMES) return ERR_LIMIT;
    if (type != MSG_REFUSED && !known(b, to)) return -EHOSTUNREACH;
    buf_clear(&b->scratch);
    int e = msg_encode(type, header, tag, &b->scratch);
    if (e) {
        log_error("encode_failed", "message=%s error=\"%s\"", msg_desc(type)->name, err_text(e));
        return e;
    }
    m.frame[0] = bytes_of(tag, sizeof tag);
    m.frame[1] = buf_bytes(&b->scratch);
    for (uint32_t i = 0; i < n; i++) m.frame[2 + i] = payload[i];
    if (packs_take(b, s, &m)) return 0;
    e = sock_send(s, &m);
    if (e) {
        b->dropped++;
        log_debug("send_failed", "message=%s error=\"%s\"", msg_desc(type)->name, err_text(e));
    }
    return e;
}

int reply_client(struct broker *b, const struct sock_peer *to, enum msg_type type,
                 const void *header) {
    return reply(b, b->clients, to, type, header, NULL, 0);
}

void reply_refused(struct broker *b, struct sock *s, const struct sock_peer *to, uint64_t req,
                   const struct refusal *why) {
    struct refusal gone;
    if (!known(b, to)) {
        refusal_set(&gone, "revoked", "", "a key that the broker lets in",
                    "ask the operator for a key; `penstock keys add` makes one",
                    "the key of this connection was revoked");
        why = &gone;
    }
    struct msg_refused m = {.req = req,
                            .code = bytes_str(why->code),
                            .field = bytes_str(why->field),
                            .limit = bytes_str(why->limit),
                            .message = bytes_str(why->message),
                            .fix = bytes_str(why->fix),
                            .retry_after_ms = why->retry_after_ms};
    b->refused++;
    reply(b, s, to, MSG_REFUSED, &m, NULL, 0);
}

void reply_stage_ack(struct broker *b, const struct sock_peer *to, uint64_t job, uint64_t stage,
                     uint64_t attempt, bool recorded) {
    struct msg_stage_ack m = {.job = job,
                              .stage = stage,
                              .attempt = attempt,
                              .verdict = bytes_str(recorded ? "recorded" : "stale")};
    reply(b, b->workers, to, MSG_STAGE_ACK, &m, NULL, 0);
}

/* Whose queue is full is told later; when too many are, a short refusal has the better chance. */
void reply_owe(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job) {
    if (owed_add(&b->owed, to, req, job, b->now_ms) == 0) return;
    struct refusal why;
    char limit[64];
    snprintf(limit, sizeof limit, "at most %u answers owed", b->owed.cap);
    refusal_set(&why, "full", "", limit, "read the answers that are on their way, then ask again",
                "too many answers wait for clients that do not read");
    why.retry_after_ms = RETRY_UNREAD_MS;
    reply_refused(b, b->clients, to, req, &why);
}

static int send_state(struct broker *b, const struct sock_peer *to, uint64_t req,
                      const struct job *j) {
    struct msg_state m = {.req = req,
                          .job = j->id,
                          .state = bytes_str(job_state_name(job_seen_state(j))),
                          .stage = j->stage};
    return reply_client(b, to, MSG_STATE, &m);
}

void reply_state(struct broker *b, const struct sock_peer *to, uint64_t req, const struct job *j) {
    if (send_state(b, to, req, j) == -EAGAIN) reply_owe(b, to, req, j->id);
}

static void refuse_read(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job,
                        int e) {
    struct refusal why;
    char id[JOB_ID_CHARS + 1];
    job_id_text(job, id);
    if (e == -ENOENT)
        refusal_set(&why, "unknown_job", "job", "a job of this broker",
                    "`penstock ls` lists the jobs", "there is no job %s", id);
    else
        refusal_set(&why, "store", "job", "a readable record", "run `penstock store check`",
                    "job %s cannot be read: %s", id, err_text(e));
    reply_refused(b, b->clients, to, req, &why);
}

static int send_result(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job) {
    struct arena a;
    struct job_record r;
    struct store_read *t;
    arena_init(&a, LIMIT_FRAME_BYTES);
    int e = store_read_begin(b->store, &t);
    if (e) {
        arena_fini(&a);
        refuse_read(b, to, req, job, e);
        return e;
    }
    buf_clear(&b->payload);
    if ((e = jobs_get(t, job, &r, &a)) == 0 && r.result.bytes)
        e = store_payload_get(t, job, JOB_SLOT_RESULT, &r.result, &b->payload);
    if (e == 0 && !job_state_terminal(r.state)) e = -ENOENT; /* only the table knows live jobs */
    if (e) {
        refuse_read(b, to, req, job, e);
    } else {
        struct msg_result m = {.req = req,
                               .job = job,
                               .state = bytes_str(job_state_name(r.state)),
                               .kind = r.kind,
                               .reason = r.reason,
                               .attempt = r.attempt};
        if (r.state == JOB_FAILED) m.error_class = bytes_str(job_error_name(r.error));
        for (uint32_t i = 0; i < r.n_stages; i++)
            if (r.stages[i].numerics_id.len) m.numerics_id = r.stages[i].numerics_id;
        struct bytes part[LIMIT_PARTS];
        uint32_t n = 0;
        for (size_t at = 0; at < b->payload.len && n < LIMIT_PARTS; at += LIMIT_FRAME_BYTES) {
            size_t left = b->payload.len - at;
            part[n++] =
                bytes_of(b->payload.data + at, left < LIMIT_FRAME_BYTES ? left : LIMIT_FRAME_BYTES);
        }
        e = reply(b, b->clients, to, MSG_RESULT, &m, part, n);
    }
    store_read_end(t);
    arena_fini(&a);
    return e;
}

void reply_result(struct broker *b, const struct sock_peer *to, uint64_t req, uint64_t job) {
    if (send_result(b, to, req, job) == -EAGAIN) reply_owe(b, to, req, job);
}

/* A result that is too long to be in memory is read again. */
void reply_ended(struct broker *b, const struct sock_peer *to, uint64_t req, const struct job *j) {
    if (j->result.in_blob) {
        reply_result(b, to, req, j->id);
        return;
    }
    struct msg_result m = {.req = req,
                           .job = j->id,
                           .state = bytes_str(job_state_name(j->state)),
                           .kind = bytes_str(j->kind->name),
                           .reason = bytes_str(j->reason),
                           .attempt = j->attempt};
    if (j->state == JOB_FAILED) m.error_class = bytes_str(job_error_name(j->error));
    for (uint32_t i = 0; j->stages && i < j->n_stages; i++)
        if (j->stages[i].numerics_id) m.numerics_id = bytes_str(j->stages[i].numerics_id);
    uint32_t n = j->result.bytes > 0;
    int e = reply(b, b->clients, to, MSG_RESULT, &m, &j->result.inlined, n);
    if (e == -EAGAIN) reply_owe(b, to, req, j->id);
}

void reply_accepted(struct broker *b, const struct sock_peer *to, const struct msg_accepted *m) {
    if (reply_client(b, to, MSG_ACCEPTED, m) != -EAGAIN) return;
    owed_notice(&b->owed, to, m->req, OWED_ACCEPTED, m->job, m->existing, b->now_ms);
}

/* Said as it stands by now; nothing when it is deleted already. */
static int say_accepted(struct broker *b, const struct owed *o) {
    const struct job *j = job_table_find(&b->jobs, o->job);
    struct msg_accepted m = {.req = o->req, .job = o->job, .existing = o->at != 0};
    struct job_record r;
    struct store_read *t;
    int e = j ? 0 : store_read_begin(b->store, &t);
    if (e == 0 && !j) {
        e = jobs_get(t, o->job, &r, NULL);
        store_read_end(t);
    }
    if (e) return e;
    m.state = bytes_str(job_state_name(j ? job_seen_state(j) : r.state));
    m.seed = j ? j->seed : r.seed;
    return reply_client(b, &o->peer, MSG_ACCEPTED, &m);
}

static bool say_owed(void *arg, const struct owed *o) {
    struct broker *b = arg;
    if (o->what == OWED_ACCEPTED) return say_accepted(b, o) != -EAGAIN;
    if (o->what == OWED_VERDICTS) return verdicts_say(b, &o->peer, o->req) != -EAGAIN;
    if (o->what == OWED_STREAM) return stream_tell_dropped(b, &o->peer, o->req, o->at) != -EAGAIN;
    if (o->what == OWED_EVENTS) return history_tell_dropped(b, o) != -EAGAIN;
    const struct job *j = job_table_find(&b->jobs, o->job);
    int e = j ? send_state(b, &o->peer, o->req, j) : send_result(b, &o->peer, o->req, o->job);
    return e != -EAGAIN;
}

void reply_owed(struct broker *b) {
    owed_settle(&b->owed, b->now_ms, say_owed, b);
}
