#include "workers/link.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/thread.h"
#include "schemas/many.h"
#include "workers/outbox.h"

#define REGISTER_AGAIN_MS 1000
#define CONNECT_AGAIN_MS 5000
#define TICK_MS 20          /* while something waits for the socket or a stage may be late */
#define DRAIN_ACK_MS 5000   /* wait at most this long for the last acknowledgements */
#define MESSAGES_A_TURN 256 /* so that beats and timers have their turn under load */

enum link_state { LINK_NEW, LINK_REGISTERING, LINK_REGISTERED };

struct link {
    struct notify notify;
    struct worker *w;
    struct sock_ctx *ctx;
    struct sock *sock;
    int64_t connected_ms;
    int signal_fd;
    enum link_state state;
    char session[FLIGHT_SESSION_BYTES], host[LIMIT_NAME_BYTES + 1];
    uint64_t epoch;
    int64_t heartbeat_ms, lease_ms;
    int64_t next_beat_ms, next_register_ms;
    struct lease *leases[FLIGHT_SLOTS]; /* the compute thread has them */
    uint32_t n_leases;
    struct outbox outbox;
    bool asked; /* a REGISTER left: the broker may know the session */
    bool draining, said_goodbye, failed;
    bool quiet; /* the broker has said that no lease follows */
    int64_t goodbye_ms;
    int64_t idle_since_ms; /* draining, and nothing runs any more */
    struct buf scratch;
};

/* ---- sending ---- */

static int send_message(struct link *l, enum msg_type type, const void *message) {
    return outbox_send(l->sock, type, message, (struct bytes){NULL, 0}, &l->scratch);
}

static void send_register(struct link *l, int64_t now_ms) {
    const struct worker *w = l->w;
    struct msg_register m = {.session = bytes_str(l->session),
                             .name = bytes_str(w->config->name),
                             .host = bytes_str(l->host),
                             .pid = (uint64_t)getpid(),
                             .runs = {buf_bytes(&w->runs), w->n_stages},
                             .models = {buf_bytes(&w->models), w->n_models},
                             .credit_jobs = w->config->credit_jobs,
                             .credit_bytes = 64u << 20,
                             .numerics_id = bytes_str(w->numerics_id),
                             .many = true};
    l->state = LINK_REGISTERING;
    int code = send_message(l, MSG_REGISTER, &m);
    if (code == 0) l->asked = true;
    l->next_register_ms = now_ms + (code == -EAGAIN ? TICK_MS : REGISTER_AGAIN_MS);
}

static void send_beat(struct link *l, int64_t now_ms) {
    struct stage_load *load = &l->w->load;
    struct msg_heartbeat m = {.session = bytes_str(l->session),
                              .epoch = l->epoch,
                              .texts_running = atomic_load(&load->running),
                              .texts_waiting = atomic_load(&load->waiting),
                              .kv_pages = atomic_load(&load->kv_pages),
                              .kv_pages_max = atomic_load(&load->kv_pages_max),
                              .steps = atomic_load(&load->steps),
                              .steps_us = atomic_load(&load->steps_us),
                              .tokens = atomic_load(&load->tokens),
                              .pauses = atomic_load(&load->pauses)};
    send_message(l, MSG_HEARTBEAT, &m);
    l->next_beat_ms = now_ms + l->heartbeat_ms;
}

static void send_notes(struct link *l) {
    for (struct note *n; (n = ring_pop(&l->w->notes));) {
        struct msg_progress m = {.job = n->job,
                                 .stage = n->stage,
                                 .attempt = n->attempt,
                                 .type = bytes_str(n->type),
                                 .data = buf_bytes(&n->data)};
        if (l->state == LINK_REGISTERED) send_message(l, MSG_PROGRESS, &m);
        note_free(n);
    }
}

/* ---- leases ---- */

static struct lease *find_lease(struct link *l, uint64_t job, uint64_t attempt) {
    for (uint32_t i = 0; i < l->n_leases; i++)
        if (l->leases[i]->job == job && l->leases[i]->attempt == attempt) return l->leases[i];
    return NULL;
}

/* The broker has given it to others, or wants it no more: whatever comes of it is not reported. */
static void abandon(struct lease *lease) {
    lease->gone = true;
    atomic_store(&lease->slot->gone, true);
    atomic_store(&lease->cancelled, true);
}

static void forget_lease(struct link *l, struct lease *lease) {
    for (uint32_t i = 0; i < l->n_leases; i++)
        if (l->leases[i] == lease) l->leases[i] = l->leases[--l->n_leases];
    lease_free(lease);
}

static void refuse_lease(struct link *l, const struct msg_lease *m, enum outcome_type type,
                         const char *reason) {
    struct outcome *o = outcome_new(type, NULL, (uint32_t)m->stage);
    if (!o) return; /* the lease runs out at the broker */
    o->job = m->job;
    o->attempt = m->attempt;
    o->error = JOB_ERROR_TRANSIENT;
    snprintf(o->reason, sizeof o->reason, "%s", reason);
    outbox_add(&l->outbox, o);
}

static const char *cannot_run(const struct link *l, const struct lease *lease) {
    for (uint32_t i = 0; i < lease->n_stages; i++)
        if (!worker_stage_find(l->w, lease->stages[i].run)) return lease->stages[i].run;
    return NULL;
}

static void on_lease(struct link *l, struct sock_msg *frames, const struct msg_lease *m,
                     int64_t now_ms) {
    struct lease *lease = NULL;
    struct refusal why = {.code = ""};
    char reason[LIMIT_REASON_BYTES];
    if (find_lease(l, m->job, m->attempt)) return; /* a repetition */
    if (l->draining || l->n_leases == FLIGHT_SLOTS) {
        refuse_lease(l, m, OUTCOME_RETURNED, "");
        return;
    }
    if (lease_new(&lease, frames, m, now_ms, &why) != 0) {
        refuse_lease(l, m, OUTCOME_FAILED, why.message);
        return;
    }
    const char *unknown = cannot_run(l, lease);
    lease->worker = l->w;
    lease->slot = flight_take(l->w->flight, m->job, m->attempt, lease->first);
    if (unknown || !lease->slot || ring_push(&l->w->leases, lease) != 0) {
        snprintf(reason, sizeof reason, "this worker does not offer stage %.64s",
                 unknown ? unknown : "");
        refuse_lease(l, m, unknown ? OUTCOME_FAILED : OUTCOME_RETURNED, reason);
        if (lease->slot) atomic_store(&lease->slot->state, FLIGHT_FREE);
        lease_free(lease);
        return;
    }
    l->leases[l->n_leases++] = lease;
}

/* A stage that is late is reported at once; one that does not stop then takes the process along. */
static void check_timeouts(struct link *l, int64_t now_ms) {
    for (uint32_t i = 0; i < l->n_leases; i++) {
        struct lease *lease = l->leases[i];
        int64_t since_ms = atomic_load(&lease->running_ms);
        const struct lease_stage *s = &lease->stages[atomic_load(&lease->running_stage)];
        if (since_ms == 0 || s->timeout_ms == 0 || now_ms - since_ms <= s->timeout_ms) continue;
        if (!lease->gone) {
            uint32_t stage = lease->first + atomic_load(&lease->running_stage);
            struct outcome *o = outcome_new(OUTCOME_FAILED, lease, stage);
            abandon(lease);
            if (o) {
                o->error = JOB_ERROR_TIMEOUT;
                snprintf(o->reason, sizeof o->reason,
                         "stage %s ran longer than its timeout of %u ms", s->run, s->timeout_ms);
                o->lease = NULL;
                outbox_add(&l->outbox, o);
            }
        } else if (now_ms - since_ms > (int64_t)s->timeout_ms + l->w->config->grace_ms) {
            snprintf(l->w->flight->last_words, sizeof l->w->flight->last_words,
                     "stage %s did not stop within %u ms of its timeout", s->run,
                     l->w->config->grace_ms);
            log_error("worker_aborts", "reason=\"%s\"", l->w->flight->last_words);
            abort();
        }
    }
}

/* ---- what the compute thread says ---- */

static void on_outcome(struct link *l, struct outcome *o) {
    struct lease *lease = o->lease;
    bool ends = o->ends;
    if (o->type == OUTCOME_OPENED) {
        atomic_store(&l->w->flight->started, true);
        l->next_register_ms = 0;
        l->state = LINK_REGISTERING;
        outcome_free(o);
        return;
    }
    if (o->type == OUTCOME_UNOPENED) {
        char quoted[LIMIT_REASON_BYTES + 64];
        log_error("worker_start_failed", "reason=%s", log_quote(quoted, sizeof quoted, o->reason));
        l->failed = true;
        outcome_free(o);
        return;
    }
    struct flight_slot *slot = lease->slot;
    bool report = !lease->gone && o->type != OUTCOME_DROPPED;
    if (ends) forget_lease(l, lease);
    o->lease = NULL;
    if (report) {
        if (ends) {
            o->slot = slot;
            atomic_store(&slot->state, FLIGHT_REPORTING);
        }
        outbox_add(&l->outbox, o);
        return;
    }
    if (ends) atomic_store(&slot->state, FLIGHT_FREE);
    outcome_free(o);
}

/* ---- what the broker says ---- */

static void on_registered(struct link *l, const struct msg_registered *m, int64_t now_ms) {
    log_info("worker_registered", "session=%s epoch=%" PRIu64 " stages=%u models=%u", l->session,
             m->epoch, l->w->n_stages, l->w->n_models);
    l->state = LINK_REGISTERED;
    l->epoch = m->epoch;
    atomic_store(&l->w->flight->epoch, m->epoch);
    l->heartbeat_ms = (int64_t)m->heartbeat_ms;
    l->lease_ms = (int64_t)m->lease_ms;
    l->said_goodbye = l->quiet = false;
    l->outbox.many = m->many;
    outbox_send_again(&l->outbox);
    send_beat(l, now_ms);
    if (!l->draining) notify_say("READY=1\nSTATUS=registered with the broker");
}

static void on_reregister(struct link *l, const struct msg_reregister *m, int64_t now_ms) {
    char quoted[LIMIT_REASON_BYTES + 64], reason[LIMIT_REASON_BYTES + 1];
    if (l->state != LINK_REGISTERED) return; /* already on the way */
    snprintf(reason, sizeof reason, "%.*s", (int)m->reason.len, (const char *)m->reason.data);
    log_warn("worker_reregisters", "leases=%u reason=%s", l->n_leases,
             log_quote(quoted, sizeof quoted, reason));
    for (uint32_t i = 0; i < l->n_leases; i++) abandon(l->leases[i]);
    send_register(l, now_ms);
}

static void on_stage_ack(struct link *l, const struct msg_stage_ack *m) {
    bool stale = bytes_is(m->verdict, "stale");
    outbox_acknowledged(&l->outbox, m->job, (uint32_t)m->stage, m->attempt, stale);
    struct lease *lease = stale ? find_lease(l, m->job, m->attempt) : NULL;
    if (lease) abandon(lease);
}

static void on_cancel(struct link *l, const struct msg_cancel_lease *m) {
    struct lease *lease = find_lease(l, m->job, m->attempt);
    if (lease) abandon(lease);
}

/* Takes nothing more; what has not begun is given back. */
static void drain(struct link *l) {
    if (l->draining) return;
    log_info("worker_drains", "leases=%u", l->n_leases);
    notify_say("STOPPING=1\nSTATUS=ending what runs");
    l->draining = true;
    atomic_store(&l->w->draining, true);
    ring_close(&l->w->leases);
}

/* After an operator's wish, or in answer to GOODBYE: a lease that was on its way came before. */
static void on_quiet(struct link *l) {
    l->quiet = true;
    drain(l);
}

static void on_refused(struct link *l, const struct msg_refused *m, int64_t now_ms) {
    char quoted[320], reason[257];
    bytes_to_cstr(m->message, reason, sizeof reason);
    log_error("broker_refused", "reason=%s", log_quote(quoted, sizeof quoted, reason));
    if (!bytes_is(m->code, "revoked") || l->state != LINK_REGISTERED) return;
    for (uint32_t i = 0; i < l->n_leases; i++) abandon(l->leases[i]);
    l->state = LINK_REGISTERING; /* on a new connection, should the key be let in again */
    l->connected_ms = now_ms;
    l->next_register_ms = now_ms + CONNECT_AGAIN_MS;
}

static void on_message(struct link *l, struct sock_msg *frames, int64_t now_ms) {
    const struct msg_desc *d;
    struct refusal why;
    union {
        struct msg_registered registered;
        struct msg_reregister reregister;
        struct msg_heartbeat_ack heartbeat_ack;
        struct msg_lease lease;
        struct msg_stage_ack stage_ack;
        struct msg_cancel_lease cancel_lease;
        struct msg_quiet quiet;
        struct msg_refused refused;
    } m;
    char quoted[320];
    if (msg_open(frames->frame, frames->frames, (enum msg_direction)(MSG_B2W | MSG_B2A), &d,
                 &why) != 0 ||
        d->struct_bytes > sizeof m || msg_decode(d, frames->frame[1], &m, &why) != 0) {
        log_warn("message_ignored", "reason=%s", log_quote(quoted, sizeof quoted, why.message));
        return;
    }
    switch (d->type) {
    case MSG_REGISTERED: on_registered(l, &m.registered, now_ms); break;
    case MSG_REREGISTER: on_reregister(l, &m.reregister, now_ms); break;
    case MSG_LEASE: on_lease(l, frames, &m.lease, now_ms); break;
    case MSG_STAGE_ACK: on_stage_ack(l, &m.stage_ack); break;
    case MSG_CANCEL_LEASE: on_cancel(l, &m.cancel_lease); break;
    case MSG_QUIET: on_quiet(l); break;
    case MSG_REFUSED: on_refused(l, &m.refused, now_ms); break;
    default: break; /* HEARTBEAT_ACK: the broker is there */
    }
}

static bool is_many(const struct sock_msg *m) {
    return m->frames == 3 && m->frame[0].len == MSG_TAG_BYTES &&
           ((const uint8_t *)m->frame[0].data)[MSG_TAG_BYTES - 1] == MSG_MANY;
}

/* Each message of a MANY as if it had come alone. */
static void on_many(struct link *l, const struct sock_msg *frames, int64_t now_ms) {
    struct msg_many m;
    struct many_it it;
    struct sock_msg one;
    struct refusal why;
    char quoted[320];
    int e = msg_decode(msg_desc(MSG_MANY), frames->frame[1], &m, &why);
    if (e == 0) e = many_begin(&it, frames->frame[2], m.n, &why);
    while (e == 0 && (e = many_next(&it, &why)) == 1) {
        e = 0;
        if (sock_msg_copy(&one, it.frame, it.frames) != 0) continue; /* as if it were lost */
        on_message(l, &one, now_ms);
        sock_msg_fini(&one);
    }
    if (e) log_warn("message_ignored", "reason=%s", log_quote(quoted, sizeof quoted, why.message));
}

/* ---- the connection ---- */

static int connect_socket(struct link *l, struct sock_ctx *ctx, char *err, size_t err_bytes) {
    const struct worker_config *w = l->w->config;
    struct sock_config c = {.type = SOCK_DEALER, .endpoint = w->endpoint, .curve = w->curve};
    struct sock *s;
    int code = sock_open(&s, ctx, &c, err, err_bytes);
    l->connected_ms = clock_mono_ms();
    if (code != 0) return code;
    sock_close(l->sock);
    l->sock = s;
    return 0;
}

/* libzmq gives up on a broker that does not let its key in; the operator may let it in later. */
static void connect_again(struct link *l, int64_t now_ms) {
    char err[256], quoted[300];
    if (!l->w->config->curve || l->state != LINK_REGISTERING) return;
    if (now_ms - l->connected_ms < CONNECT_AGAIN_MS) return;
    log_warn("worker_not_answered",
             "endpoint=%s fix=\"start the broker, or let in this key there: "
             "penstock keys ls\"",
             l->w->config->endpoint);
    if (connect_socket(l, l->ctx, err, sizeof err) != 0)
        log_error("worker_connect_failed", "reason=%s", log_quote(quoted, sizeof quoted, err));
    l->next_register_ms = now_ms;
}

/* ---- the loop ---- */

static void on_timers(struct link *l, int64_t now_ms) {
    notify_beat(&l->notify, now_ms);
    bool needed = !l->draining || l->outbox.n > 0;
    if (l->state == LINK_REGISTERING && needed && now_ms >= l->next_register_ms)
        send_register(l, now_ms);
    bool unheard = !l->quiet && now_ms - l->goodbye_ms >= REGISTER_AGAIN_MS;
    if (l->draining && l->asked && (!l->said_goodbye || unheard)) {
        struct msg_goodbye m = {.session = bytes_str(l->session)};
        l->said_goodbye = send_message(l, MSG_GOODBYE, &m) == 0;
        l->goodbye_ms = now_ms;
    }
    if (l->state == LINK_REGISTERED) {
        if (now_ms >= l->next_beat_ms) send_beat(l, now_ms);
        outbox_flush(&l->outbox, l->sock, now_ms, l->lease_ms, &l->scratch);
    }
    connect_again(l, now_ms);
    check_timeouts(l, now_ms);
}

/* Drained: nothing is held any more, or the broker does not answer. */
static bool finished(struct link *l, int64_t now_ms) {
    if (l->failed) return true;
    if (!l->draining || l->n_leases > 0) return false;
    if (l->idle_since_ms == 0) l->idle_since_ms = now_ms;
    bool told = l->outbox.n == 0 && ((l->said_goodbye && l->quiet) || !l->asked);
    return told || now_ms - l->idle_since_ms > DRAIN_ACK_MS;
}

static int64_t wait_ms(const struct link *l, int64_t now_ms) {
    int64_t until = now_ms + 1000;
    if (l->state == LINK_REGISTERING && !l->draining && l->next_register_ms < until)
        until = l->next_register_ms;
    if (l->state == LINK_REGISTERED && l->next_beat_ms < until) until = l->next_beat_ms;
    bool soon = l->n_leases > 0 || l->outbox.n > 0 || l->draining;
    if (soon && now_ms + TICK_MS < until) until = now_ms + TICK_MS;
    return until > now_ms ? until - now_ms : 0;
}

static void turn(struct link *l) {
    struct sock_wait wait[] = {{.sock = l->sock, .readable = true},
                               {.fd = ring_fd(&l->w->outcomes), .readable = true},
                               {.fd = ring_fd(&l->w->notes), .readable = true},
                               {.fd = l->signal_fd, .readable = true}};
    sock_wait(wait, 4, wait_ms(l, clock_mono_ms()));
    int64_t now_ms = clock_mono_ms();
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        struct sock_msg m = {.frames = 0};
        int got = sock_recv(l->sock, &m);
        if (got == 0) break;
        if (got > 0 && is_many(&m))
            on_many(l, &m, now_ms);
        else if (got > 0)
            on_message(l, &m, now_ms);
        sock_msg_fini(&m);
    }
    for (struct outcome *o; (o = ring_pop(&l->w->outcomes));) on_outcome(l, o);
    send_notes(l);
    for (int n; (n = signals_read(l->signal_fd)) != 0;)
        if (n == SIGTERM || n == SIGINT) drain(l);
    on_timers(l, now_ms);
}

static int link_open(struct link *l) {
    uint8_t random[(FLIGHT_SESSION_BYTES - 1) / 2];
    char err[256] = "";
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return -errno;
    for (size_t i = 0; i < sizeof random; i++) snprintf(l->session + 2 * i, 3, "%02x", random[i]);
    memcpy(l->w->flight->session, l->session, sizeof l->session);
    if (gethostname(l->host, sizeof l->host - 1) != 0) l->host[0] = '\0';
    int code = sock_ctx_open(&l->ctx);
    if (code == 0) code = connect_socket(l, l->ctx, err, sizeof err);
    if (code != 0) log_error("worker_start_failed", "reason=\"%s\"", err[0] ? err : err_text(code));
    return code;
}

int link_run(struct worker *w) {
    struct link l = {.w = w, .heartbeat_ms = 1000, .lease_ms = 10000};
    notify_init(&l.notify);
    l.signal_fd = signals_init();
    int code = l.signal_fd < 0 ? l.signal_fd : link_open(&l);
    l.failed = code != 0;
    while (!finished(&l, clock_mono_ms())) turn(&l);
    /* What a failed start leaves behind is freed with the rings; here nothing runs any more. */
    outbox_fini(&l.outbox);
    buf_fini(&l.scratch);
    sock_close(l.sock);
    sock_ctx_close(l.ctx);
    if (l.signal_fd >= 0) close(l.signal_fd);
    return l.failed ? 1 : 0;
}
