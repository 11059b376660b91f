#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "broker/accept.h"
#include "broker/broker.h"
#include "broker/glance.h"
#include "broker/zap.h"

enum {
    MESSAGES_A_TURN = 1024,
    TIMERS_A_TURN = 4096,
    SAMPLE_EVERY_MS = 1000,
    DRAIN_MS = 10000,
    TURN_MAX_MS = 1000
};

#define OWNER(entry, type, member) ((type *)((char *)(entry)-offsetof(type, member)))

static int64_t sooner(int64_t a, int64_t b) {
    return a < 0 ? b : b < 0 || a < b ? a : b;
}

static bool may_read(const struct broker *b) {
    return commit_outstanding(b->committer) < BROKER_OPS_MAX;
}

/* How long nothing is due. */
static int64_t idle_ms(const struct broker *b) {
    int64_t ms = TURN_MAX_MS;
    ms = sooner(ms, due_wait_ms(&b->leases, b->now_ms));
    ms = sooner(ms, due_wait_ms(&b->delays, b->now_ms));
    ms = sooner(ms, due_wait_ms(&b->expiries, b->now_ms));
    ms = sooner(ms, due_wait_ms(&b->watches.due, b->now_ms));
    ms = sooner(ms, due_wait_ms(&b->uploads.due, b->now_ms));
    ms = sooner(ms, owed_wait_ms(&b->owed, b->now_ms));
    ms = sooner(ms, streams_wait_ms(&b->streams, b->now_ms));
    return sooner(ms, due_wait_ms(&b->peers.due, b->now_ms));
}

static void on_signal(struct broker *b, int signal_fd) {
    for (int s; (s = signals_read(signal_fd)) != 0;) {
        if (s == SIGHUP) {
            auth_reload(&b->auth, &b->tenants, user_gone, b);
            reload(b);
            versions_reload(b);
        }
        if (b->draining || (s != SIGTERM && s != SIGINT)) continue;
        log_info("draining", "live_jobs=%u", b->jobs.len);
        notify_say("STOPPING=1\nSTATUS=draining");
        b->draining = true;
        b->drain_until_ms = b->now_ms + DRAIN_MS;
    }
}

static void poll_all(struct broker *b, int signal_fd) {
    struct sock_wait w[8] = {{.fd = signal_fd, .readable = true},
                             {.fd = commit_fd(b->committer), .readable = true}};
    uint32_t n = 2;
    if (b->zap) w[n++] = (struct sock_wait){.sock = b->zap, .readable = true};
    if (b->zap) w[n++] = (struct sock_wait){.fd = b->auth.changes_fd, .readable = true};
    if (b->settings_fd >= 0) w[n++] = (struct sock_wait){.fd = b->settings_fd, .readable = true};
    if (b->versions.fd >= 0) w[n++] = (struct sock_wait){.fd = b->versions.fd, .readable = true};
    if (may_read(b)) {
        w[n++] = (struct sock_wait){.sock = b->clients, .readable = true};
        w[n++] = (struct sock_wait){.sock = b->workers, .readable = true};
    }
    outbox_flush(b);
    sock_wait(w, n, idle_ms(b));
    b->turn_ns = clock_mono_ns();
    b->now_ms = clock_mono_ms();
    b->now_wall_ms = clock_wall_ms();
    if (w[0].readable) on_signal(b, signal_fd);
    if (b->zap && auth_changed(&b->auth)) auth_reload(&b->auth, &b->tenants, user_gone, b);
    if (reload_wanted(b)) reload(b);
    if (versions_changed(b)) versions_reload(b);
    if (b->zap) zap_serve(b->zap, &b->auth, b->now_ms);
}

static void dispatch_from(struct broker *b, struct sock *s, enum msg_direction from) {
    for (uint32_t i = 0; i < MESSAGES_A_TURN && may_read(b); i++) {
        struct sock_msg m;
        int e = sock_recv(s, &m);
        if (e == 0) return;
        if (e == 1) {
            i += dispatch(b, s, from, &m) - 1;
            sock_msg_fini(&m);
        } else if (e == ERR_LIMIT && m.peer.len) {
            struct refusal why;
            char limit[64];
            snprintf(limit, sizeof limit, "at most %u frames", LIMIT_FRAMES);
            refusal_set(&why, "limit", "frames", limit, "send fewer frames",
                        "the message has more frames than it may");
            reply_refused(b, s, &m.peer, 0, &why);
        } else if (e < 0 && e != ERR_LIMIT) {
            return;
        }
    }
}

static void wait_is_over(struct broker *b, struct watch *w) {
    reply_state(b, &w->peer, w->req, w->job);
    watch_drop(&b->watches, w);
}

static void lease_is_late(struct broker *b, struct job *j) {
    effects_revoke(b, j);
    job_set_reason(j, bytes_str("the worker is alive but did not finish the stage in time"));
    struct job_event e = {.type = JOB_EV_FAILED,
                          .attempt = j->attempt,
                          .stage = j->stage,
                          .error = JOB_ERROR_TIMEOUT};
    effects_event(b, j, &e);
}

static void expire(struct broker *b) {
    struct due *d;
    struct job_event due = {.type = JOB_EV_DUE}, end = {.type = JOB_EV_EXPIRE};
    while ((d = due_late(&b->peers.due, b->now_ms)))
        worker_lost(b, OWNER(d, struct worker, due), "unheard for the lease time");
    while ((d = due_late(&b->leases, b->now_ms))) lease_is_late(b, OWNER(d, struct job, lease_due));
    /* A million jobs may have one deadline; workers want to be heard in between. */
    for (int i = 0; i < TIMERS_A_TURN && (d = due_late(&b->delays, b->now_ms)); i++) {
        struct job *j = OWNER(d, struct job, delay_due);
        due_drop(&b->delays, d);
        if (j->ready_ms > b->now_wall_ms)
            j->ready_ms = b->now_wall_ms; /* the wall clock was set back */
        effects_event(b, j, &due);
    }
    for (int i = 0; i < TIMERS_A_TURN && (d = due_late(&b->expiries, b->now_ms)); i++) {
        struct job *j = OWNER(d, struct job, expiry_due);
        due_drop(&b->expiries, d);
        if (j->expires_ms > b->now_wall_ms) j->expires_ms = b->now_wall_ms;
        effects_event(b, j, &end);
    }
    while ((d = due_late(&b->uploads.due, b->now_ms)))
        upload_expired(b, OWNER(d, struct upload, due));
    while ((d = due_late(&b->watches.due, b->now_ms))) wait_is_over(b, OWNER(d, struct watch, due));
    for (struct worker *w = b->peers.first, *next; w; w = next) {
        next = w->next;
        if (w->leaving && w->leases == 0) worker_remove(&b->peers, w);
    }
}

static void look_for_stall(struct broker *b) {
    bool could = !b->draining && stall_could_move(&b->ready, &b->load.caps, &b->peers);
    switch (stall_look(&b->stall, could, b->tally.dispatched, b->now_ms)) {
    case STALL_BEGINS:
        log_error("stalled", "queued=%u workers=%u dispatched=%llu disk_error=%d", b->ready.jobs,
                  b->peers.n, (unsigned long long)b->tally.dispatched, -b->disk_error);
        break;
    case STALL_ENDS: log_info("stall_over", "queued=%u", b->ready.jobs); break;
    case STALL_NOTHING: break;
    }
}

static void look_for_crowd(struct broker *b) {
    uint64_t n = accept_refused();
    if (n > b->crowded)
        log_warn("connections_refused", "now=%llu since_start=%llu why=\"too few files\"",
                 (unsigned long long)(n - b->crowded), (unsigned long long)n);
    b->crowded = n;
}

/* What needs no more precision than a second. */
static void sample(struct broker *b) {
    disk_retry(b);
    retain(b);
    if (b->now_ms - b->sampled_ms < SAMPLE_EVERY_MS) return;
    b->sampled_ms = b->now_ms;
    bool full = !store_has_room(b->store, (struct store_room){0});
    if (full != b->store_full) log_warn("store_full", "accepting=%s", full ? "false" : "true");
    b->store_full = full;
    tally_sample(&b->tally, &b->ready, b->now_ms, b->now_wall_ms);
    look_for_stall(b);
    look_for_crowd(b);
    log_flush();
    if (!b->box) return;
    glance_take(b, glance_begin(b->box));
    glance_publish(b->box);
}

static void answer_committed(struct broker *b) {
    for (struct commit_op *op; (op = commit_pop(b->committer));) effects_committed(b, op);
}

static bool drained(const struct broker *b) {
    bool done = !b->outbox.first && !b->retries.first && !b->no_room.first &&
                commit_outstanding(b->committer) == 0;
    return b->draining && (done || b->now_ms > b->drain_until_ms);
}

int loop_run(struct broker *b, int signal_fd) {
    while (!drained(b)) {
        poll_all(b, signal_fd);
        notify_beat(&b->notify, b->now_ms);
        if (b->box) glance_turn(b->box, b);
        dispatch_from(b, b->clients, MSG_C2B);
        dispatch_from(b, b->workers, MSG_W2B);
        expire(b);
        match(b);
        outbox_flush(b); /* commit: the store thread takes what this turn changed */
        answer_committed(b);
        streams_serve(b);
        reply_owed(b);
        while (packs_flush(b)) match(b); /* what one worker could not be sent, another may take */
        sample(b);
    }
    return 0;
}
