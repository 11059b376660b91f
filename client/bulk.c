/* Many jobs under way at a time on one handle (penstock.h).
 *
 * A slot's life:
 *   FREE -> (take) TO_SUBMIT -> (say) SUBMITTED -> (hear ACCEPTED) TO_WAIT -> (say) WAITING
 *        -> (hear RESULT) FREE
 * A long body goes from TO_SUBMIT to SUBMITTED and back once for each of its chunks before.
 * SUBMITTED and WAITING go back to TO_ when their answer is overdue, refused for now or lost with a
 * connection; without `results` a slot is free at ACCEPTED. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "client/upload.h"
#include "schemas/job.h"

#define WINDOW_DEFAULT 64u
#define WINDOW_MAX LIMIT_PEER_WATCHES /* a WAIT each */
#define TICK_MS 100
#define ANSWER_MS 4000     /* a living broker answers a submit far sooner */
#define WAIT_SLICE_MS 2000 /* one WAIT; its STATE answer shows that the broker still knows of it */
#define HELD_BYTES_MAX (64u << 20) /* of bodies; then no more are taken for now */
#define RESEND_MS 20               /* when the connection takes nothing */
#define HOLD_MAX_MS 10000 /* whatever retry_after_ms says: a full broker may have room sooner */

enum phase { FREE, TO_SUBMIT, SUBMITTED, TO_WAIT, WAITING };
struct slot {
    enum phase phase;
    uint64_t tag, req, job;
    int64_t due_ms; /* TO_: say it then; else: the answer is overdue */
    struct penstock_job asked;
    struct buf packed; /* the body, where it came as JSON */
    struct bytes body;
    struct upload upload; /* of a body of more than a frame; then it is submitted by its name */
};
struct bulk {
    struct penstock *p;
    const struct penstock_bulk *how;
    struct slot *slots;
    uint32_t n_slots, busy;
    bool over;                           /* next had no more */
    int64_t now_ms, heard_ms, reopen_ms; /* reopen_ms: not before */
    size_t held_bytes;                   /* of bodies that are not accepted yet */
    int64_t hold_ms;                     /* the broker is full: no submit before */
    uint64_t ping_req;                   /* whose PONG says whether it reads MANY */
};

/* The body is the caller's again. */
static void release(struct bulk *b, struct slot *s) {
    b->held_bytes -= s->body.len;
    s->body = s->upload.body = bytes_of(NULL, 0);
    buf_fini(&s->packed);
}

static void ended(struct bulk *b, struct slot *s, int rc, const struct penstock_result *r,
                  const char *why) {
    static const struct penstock_result nothing;
    s->phase = FREE;
    b->busy--;
    release(b, s);
    b->how->ended(b->how->arg, s->tag, rc, r ? r : &nothing, why);
}

/* ---- saying ---- */

/* Fills free slots; a job that no broker would take ends at once. Negative: stopped. */
static int take(struct bulk *b, char *err, size_t err_bytes) {
    b->over = false;
    for (uint32_t i = 0; i < b->n_slots && !b->over; i++) {
        struct slot *s = &b->slots[i];
        if (s->phase != FREE) continue;
        if (b->held_bytes >= HELD_BYTES_MAX) break; /* there will be room when some are accepted */
        *s = (struct slot){.phase = FREE};
        int rc = b->how->next(b->how->arg, &s->asked, &s->tag);
        if (rc < 0) return err_set(err, err_bytes, PENSTOCK_STOPPED, "stopped by the caller");
        if (rc == 0) {
            b->over = true;
            break;
        }
        s->phase = TO_SUBMIT;
        b->busy++;
        char why[PENSTOCK_ERR_BYTES] = "a job of a bulk needs an idempotency key";
        rc = s->asked.key && s->asked.key[0] ? 0 : PENSTOCK_INVALID;
        if (rc == 0) rc = link_body(&s->asked, &s->packed, &s->body, why, sizeof why);
        b->held_bytes += s->body.len;
        if (rc < 0)
            ended(b, s, rc, NULL, why);
        else if (s->body.len > LIMIT_FRAME_BYTES)
            upload_init(&s->upload, s->body, s->asked.key);
    }
    return 0;
}

static int say_submit(struct bulk *b, struct slot *s, char *why, size_t why_bytes) {
    struct msg_submit m;
    if (s->upload.body.len && !upload_whole(&s->upload)) {
        union upload_message part;
        struct link_ask ask;
        upload_next(&s->upload, s->req, &part, &ask);
        return link_send(b->p, ask.type, ask.in, ask.payload, b->now_ms, why, why_bytes);
    }
    link_submit(&s->asked, s->req, &m);
    if (s->upload.body.len) m.upload = bytes_str(s->upload.name);
    struct bytes payload = s->upload.body.len ? bytes_of(NULL, 0) : s->body;
    return link_send(b->p, MSG_SUBMIT, &m, payload, b->now_ms, why, why_bytes);
}

static int say_one(struct bulk *b, struct slot *s) {
    char why[PENSTOCK_ERR_BYTES];
    int rc;
    s->req = link_next_req(b->p);
    if (s->phase == TO_SUBMIT) {
        rc = say_submit(b, s, why, sizeof why);
    } else {
        struct msg_wait m = {.req = s->req, .job = s->job, .timeout_ms = WAIT_SLICE_MS};
        rc = link_send(b->p, MSG_WAIT, &m, bytes_of(NULL, 0), b->now_ms, why, sizeof why);
    }
    if (rc == 0) {
        s->due_ms = b->now_ms + (s->phase == TO_SUBMIT ? 0 : WAIT_SLICE_MS) + ANSWER_MS;
        s->phase = s->phase == TO_SUBMIT ? SUBMITTED : WAITING;
    } else if (rc == PENSTOCK_UNREACHABLE) {
        s->due_ms = b->now_ms + RESEND_MS;
    } else {
        ended(b, s, rc, NULL, why);
    }
    return rc;
}

/* What is due is said, as far as the connection takes it. */
static void say(struct bulk *b) {
    char why[PENSTOCK_ERR_BYTES];
    bool asked = b->p->n_going > 0;
    if (link_flush(b->p, b->now_ms, why, sizeof why) != 0) return; /* no room for more either */
    for (uint32_t i = 0; i < b->n_slots; i++) {
        struct slot *s = &b->slots[i];
        if (s->phase == FREE) continue;
        bool held = s->phase == TO_SUBMIT && b->now_ms < b->hold_ms;
        if (s->due_ms <= b->now_ms && (s->phase == SUBMITTED || s->phase == WAITING))
            s->phase = s->phase == SUBMITTED ? TO_SUBMIT : TO_WAIT;
        bool due = (s->phase == TO_SUBMIT && !held) || s->phase == TO_WAIT;
        if (due && s->due_ms <= b->now_ms && say_one(b, s) == PENSTOCK_UNREACHABLE) {
            asked = true;
            break;
        }
        asked |= s->phase == SUBMITTED || s->phase == WAITING || due;
    }
    link_flush(b->p, b->now_ms, why, sizeof why);
    if (!asked) b->heard_ms = b->now_ms; /* who was asked nothing is not silent */
}

/* A broker that reads several messages in one says so; until then each goes alone. */
static void ask_many(struct bulk *b) {
    char why[PENSTOCK_ERR_BYTES];
    struct msg_ping m = {.req = b->ping_req = link_next_req(b->p)};
    b->p->gathers = false;
    link_send(b->p, MSG_PING, &m, bytes_of(NULL, 0), b->now_ms, why, sizeof why);
}

/* The connection may be to a broker that is gone: everything is said again on a new one. */
static int reopen(struct bulk *b, char *err, size_t err_bytes) {
    b->reopen_ms = b->now_ms + ANSWER_MS;
    for (uint32_t i = 0; i < b->n_slots; i++) {
        struct slot *s = &b->slots[i];
        if (s->phase == SUBMITTED) s->phase = TO_SUBMIT;
        if (s->phase == WAITING) s->phase = TO_WAIT;
        s->due_ms = b->now_ms;
    }
    int rc = link_reopen(b->p, err, err_bytes);
    if (rc == 0) ask_many(b);
    return rc;
}

/* ---- hearing ---- */

static void hear_accepted(struct bulk *b, struct slot *s, const struct msg_accepted *m) {
    struct penstock_accepted a = {.seed = m->seed, .existing = m->existing};
    job_id_text(m->job, a.job);
    link_text(m->state, a.state, sizeof a.state);
    s->job = m->job;
    s->phase = TO_WAIT;
    s->due_ms = b->now_ms;
    release(b, s);
    if (b->how->accepted) b->how->accepted(b->how->arg, s->tag, &a);
    if (b->how->results) return;
    struct penstock_result r = {0};
    memcpy(r.job, a.job, sizeof r.job);
    memcpy(r.state, a.state, sizeof r.state);
    ended(b, s, 0, &r, "");
}

/* A part of the body is there: the next one, or the submit. */
static void hear_uploaded(struct bulk *b, struct slot *s, const struct msg_upload_state *m) {
    upload_heard(&s->upload, m);
    s->phase = TO_SUBMIT;
    s->due_ms = b->now_ms;
}

static void hear_result(struct bulk *b, struct slot *s, const struct link_answer *a) {
    struct penstock_result r;
    char why[PENSTOCK_ERR_BYTES] = "";
    int rc = link_result(a, &r, why, sizeof why);
    ended(b, s, rc, &r, why);
    penstock_result_free(&r);
}

static void hear_refused(struct bulk *b, struct slot *s, const struct link_answer *a) {
    char why[PENSTOCK_ERR_BYTES];
    int rc = link_refused(b->p, a, why, sizeof why);
    int64_t again_ms = (int64_t)b->p->refusal.retry_after_ms;
    bool uploads = s->phase == SUBMITTED && s->upload.body.len;
    if (uploads && upload_refused(&s->upload, &b->p->refusal)) {
        s->phase = TO_SUBMIT;
        s->due_ms = b->now_ms;
        return;
    }
    if (again_ms == 0) {
        if (uploads) upload_give_up(b->p, &s->upload);
        ended(b, s, rc, NULL, why);
        return;
    }
    if (again_ms > HOLD_MAX_MS) again_ms = HOLD_MAX_MS;
    s->due_ms = b->now_ms + again_ms;
    if (s->phase == SUBMITTED) b->hold_ms = s->due_ms;
    s->phase = s->phase == SUBMITTED ? TO_SUBMIT : TO_WAIT;
}

static void hear(struct bulk *b) {
    struct link_answer a;
    while (link_take(b->p, &a) == 1) {
        b->heard_ms = b->now_ms;
        if (a.desc->type == MSG_PONG && a.as.pong.req == b->ping_req)
            b->p->gathers = a.as.pong.many;
        struct slot *s = NULL;
        uint64_t req = msg_req(a.msg.frame[1]);
        for (uint32_t i = 0; i < b->n_slots && !s; i++)
            if (b->slots[i].req == req) s = &b->slots[i];
        bool asked = s && (s->phase == SUBMITTED || s->phase == WAITING);
        if (asked && a.desc->type == MSG_REFUSED)
            hear_refused(b, s, &a);
        else if (asked && s->phase == SUBMITTED && a.desc->type == MSG_ACCEPTED)
            hear_accepted(b, s, &a.as.accepted);
        else if (asked && s->phase == SUBMITTED && a.desc->type == MSG_UPLOAD_STATE)
            hear_uploaded(b, s, &a.as.upload_state);
        else if (asked && s->phase == WAITING && a.desc->type == MSG_RESULT)
            hear_result(b, s, &a);
        else if (asked && s->phase == WAITING && a.desc->type == MSG_STATE)
            s->phase = TO_WAIT, s->due_ms = b->now_ms;
        link_answer_fini(&a);
    }
}

static int check_silence(struct bulk *b, int silent_ms, char *err, size_t err_bytes) {
    int64_t silence_ms = b->now_ms - b->heard_ms;
    if (silence_ms > silent_ms)
        return err_set(err, err_bytes, PENSTOCK_UNREACHABLE,
                       "the broker at %s has been silent for %d ms; see `penstock ping`",
                       b->p->endpoint, silent_ms);
    if (silence_ms > ANSWER_MS && b->now_ms >= b->reopen_ms) return reopen(b, err, err_bytes);
    return 0;
}

static int run(struct bulk *b, int silent_ms, char *err, size_t err_bytes) {
    b->heard_ms = b->now_ms = clock_mono_ms();
    ask_many(b);
    for (int rc;;) {
        if ((rc = take(b, err, err_bytes)) < 0) return rc;
        if (b->busy == 0 && b->over) return 0;
        say(b);
        struct sock_wait w = {.sock = b->p->sock, .readable = true};
        sock_wait(&w, 1, b->busy ? TICK_MS : 0);
        b->now_ms = clock_mono_ms();
        hear(b);
        if (b->how->tick && b->how->tick(b->how->arg))
            return err_set(err, err_bytes, PENSTOCK_STOPPED, "stopped by the caller");
        if ((rc = check_silence(b, silent_ms, err, err_bytes)) < 0) return rc;
    }
}

int penstock_bulk(struct penstock *p, const struct penstock_bulk *how, int silent_ms, char *err,
                  size_t err_bytes) {
    struct bulk b = {.p = p, .how = how, .n_slots = how->window ? how->window : WINDOW_DEFAULT};
    if (b.n_slots > WINDOW_MAX) b.n_slots = WINDOW_MAX;
    b.slots = calloc(b.n_slots, sizeof *b.slots);
    if (!b.slots) return err_set(err, err_bytes, PENSTOCK_MEMORY, "out of memory");
    int rc = run(&b, silent_ms, err, err_bytes);
    p->gathers = false;
    link_forget(p);
    for (uint32_t i = 0; i < b.n_slots; i++) buf_fini(&b.slots[i].packed);
    free(b.slots);
    return rc;
}
