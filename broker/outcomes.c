#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/history.h"
#include "broker/status.h"
#include "schemas/pack.h"

/* The job whose current lease this worker message speaks of; NULL when the token is not current, or
 * another connection holds the lease. */
static struct job *leased(struct broker *b, const struct request *r, uint64_t id,
                          uint64_t attempt) {
    struct job *j = job_table_find(&b->jobs, id);
    if (!j || j->state != JOB_LEASED || j->attempt != attempt) return NULL;
    return sock_peer_eq(&j->worker->peer, &r->peer) ? j : NULL;
}

/* An outcome with the current token on a connection where no worker is known: its worker had to
 * connect anew and has not beaten since. The beat makes it known, and it then says this again. */
static bool too_early(const struct broker *b, const struct request *r, uint64_t id,
                      uint64_t attempt) {
    const struct job *j = job_table_find(&b->jobs, id);
    return j && j->state == JOB_LEASED && j->attempt == attempt &&
           j->worker->peer.user == r->peer.user && !worker_by_peer(&b->peers, &r->peer);
}

/* The same for an outcome, which is answered when it cannot be recorded. */
static struct job *claimed(struct broker *b, const struct request *r, uint64_t id, uint64_t stage,
                           uint64_t attempt) {
    struct job *j = leased(b, r, id, attempt);
    if (!j && !too_early(b, r, id, attempt))
        reply_stage_ack(b, &r->peer, id, stage, attempt, false);
    return j;
}

static void log_worker(const char *event, const struct worker *w, const char *why) {
    char quoted[LIMIT_REASON_BYTES];
    log_info(event, "worker=%s session=%s pid=%llu leases=%u why=%s", w->name, w->session,
             (unsigned long long)w->pid, w->leases, log_quote(quoted, sizeof quoted, why));
}

/* A lease ends without an outcome: the job is tried again. */
static void take_back(struct broker *b, struct worker *w, enum job_event_type type,
                      const char *why) {
    while (w->first) {
        struct job *j = w->first;
        struct job_event e = {.type = type, .attempt = j->attempt, .stage = j->stage};
        if (type == JOB_EV_LOST) job_set_reason(j, bytes_str(why));
        effects_event(b, j, &e);
    }
}

/* Whoever wants it to leave is answered when the worker knows it or is no more: a wish that this
 * broker took with it into a crash was not answered. */
static void tell_drained(struct broker *b, struct worker *w) {
    if (!w->asked) return;
    struct buf doc = {.max_bytes = LIMIT_HEADER_BYTES};
    status_worker(b, w, &doc);
    struct msg_worker_list answer = {.req = w->asked_req, .workers = buf_bytes(&doc)};
    reply_client(b, &w->asked_by, MSG_WORKER_LIST, &answer);
    buf_fini(&doc);
    w->asked = false;
}

void user_gone(void *broker, uint32_t user) {
    struct broker *b = broker;
    for (struct watch *w = b->watches.all, *next; w; w = next) {
        next = w->all_next;
        if (w->peer.user == user) watch_drop(&b->watches, w);
    }
    streams_user_gone(&b->streams, user);
    for (struct worker *w = b->peers.first, *next; w; w = next) {
        next = w->next;
        if (w->peer.user != user) continue;
        log_worker("worker_lost", w, "its key was revoked");
        take_back(b, w, JOB_EV_RETURNED, "");
        tell_drained(b, w);
        worker_remove(&b->peers, w);
    }
}

void worker_lost(struct broker *b, struct worker *w, const char *why) {
    log_worker("worker_lost", w, why);
    take_back(b, w, JOB_EV_LOST, why);
    tell_drained(b, w);
    worker_remove(&b->peers, w);
}

/* The workers of a key run the stages that it names and no other. */
static bool may_run(const struct request *r, struct field_strs runs, struct refusal *why) {
    struct field_strs_it it = field_strs_begin(runs);
    struct bytes run;
    while (field_strs_next(&it, &run)) {
        if (cert_stage_in(r->stages, run)) continue;
        refusal_set(why, "forbidden", "runs", "the stages that the key names",
                    "start the worker with --stages, or ask the operator for a key with them",
                    "the key of this connection does not allow stage %.*s", (int)run.len,
                    (const char *)run.data);
        return false;
    }
    return true;
}

static void say_registered(struct broker *b, const struct worker *w) {
    struct msg_registered answer = {.session = bytes_str(w->session),
                                    .epoch = store_epoch(b->store),
                                    .heartbeat_ms = (uint64_t)b->config.heartbeat_ms,
                                    .lease_ms = (uint64_t)b->config.lease_ms,
                                    .many = true};
    reply(b, b->workers, &w->peer, MSG_REGISTERED, &answer, NULL, 0);
}

/* What it holds it ends; nothing follows. Said again with every beat until the worker leaves. */
static void say_quiet(struct broker *b, const struct sock_peer *to, struct bytes session) {
    struct msg_quiet m = {.session = session};
    reply(b, b->workers, to, MSG_QUIET, &m, NULL, 0);
}

static void refuse_drain(struct broker *b, const struct request *r, uint32_t n) {
    const struct msg_drain *m = r->header;
    struct refusal why;
    int len = (int)m->worker.len;
    const char *name = m->worker.data;
    if (n)
        refusal_set(&why, "ambiguous", "worker", "one worker",
                    "name it by its session, which `penstock worker ls --json` shows",
                    "%u workers are named %.*s", n, len, name);
    else
        refusal_set(&why, "unknown_worker", "worker", "a worker that is registered",
                    "`penstock worker ls` lists the workers", "no worker is named %.*s", len, name);
    reply_refused(b, r->sock, &r->peer, m->req, &why);
}

void on_drain(struct broker *b, const struct request *r) {
    const struct msg_drain *m = r->header;
    uint32_t n;
    struct worker *w = worker_named(&b->peers, m->worker, &n);
    if (n != 1) {
        refuse_drain(b, r, n);
        return;
    }
    if (!w->quiet) log_worker("worker_drained", w, "asked by a client");
    w->quiet = true;
    tell_drained(b, w); /* who asked before */
    w->asked = true;
    w->asked_by = r->peer;
    w->asked_req = m->req;
    if (w->leaving)
        tell_drained(b, w);
    else
        say_quiet(b, &w->peer, bytes_str(w->session));
}

void on_register(struct broker *b, const struct request *r) {
    const struct msg_register *m = r->header;
    struct refusal why;
    if (!may_run(r, m->runs, &why)) {
        reply_refused(b, r->sock, &r->peer, 0, &why);
        return;
    }
    struct worker *w = worker_by_session(&b->peers, m->session, r->peer.user);
    /* Registering anew says that the process dropped its leases: it is alive, so nothing died. */
    if (w) take_back(b, w, JOB_EV_RETURNED, "");
    int e = worker_register(&b->peers, m, &r->peer, b->now_ms, &w);
    if (e) {
        char limit[64];
        snprintf(limit, sizeof limit, "at most %u workers", LIMIT_WORKERS);
        refusal_set(&why, "full", "", limit, "stop a worker first",
                    "the worker cannot be registered: %s", err_text(e));
        why.retry_after_ms = 1000;
        reply_refused(b, r->sock, &r->peer, 0, &why);
        return;
    }
    worker_heard(&b->peers, w, b->now_ms, b->config.lease_ms);
    w->tenant = r->tenant;
    w->peer.many = m->many;
    log_worker("worker_registered", w, "asked");
    say_registered(b, w);
}

void on_heartbeat(struct broker *b, const struct request *r) {
    const struct msg_heartbeat *m = r->header;
    struct worker *w = worker_by_session(&b->peers, m->session, r->peer.user);
    if (!w || m->epoch != store_epoch(b->store)) {
        struct msg_reregister answer = {.reason = bytes_str("this session is not known here")};
        reply(b, b->workers, &r->peer, MSG_REREGISTER, &answer, NULL, 0);
        return;
    }
    worker_heard(&b->peers, w, b->now_ms, b->config.lease_ms);
    texts_heard(&w->texts, &b->texts, m);
    if (w->quiet && !w->leaving) say_quiet(b, &r->peer, m->session);
    if (!sock_peer_eq(&w->peer, &r->peer)) {
        bool many = w->peer.many;
        w->peer = r->peer;
        w->peer.many = many;
        say_registered(b, w); /* so that it says again what came on the new connection too early */
        return;
    }
    struct msg_heartbeat_ack answer = {.epoch = store_epoch(b->store)};
    reply(b, b->workers, &r->peer, MSG_HEARTBEAT_ACK, &answer, NULL, 0);
}

void on_progress(struct broker *b, const struct request *r) {
    const struct msg_progress *m = r->header;
    struct job *j = leased(b, r, m->job, m->attempt);
    char type[33];
    if (!j || !j->watches || bytes_to_cstr(m->type, type, sizeof type) != 0) return;
    history_stream(b, j, type, m->stage, m->attempt, m->data);
}

/* ---- a stage failed ---- */

/* The attempt is over without an outcome; what comes of the job is the transition's to say. */
static void stage_failed(struct broker *b, const struct request *r, struct job *j, uint64_t stage,
                         enum job_error error, struct bytes reason) {
    struct worker *w = j->worker;
    char name[LIMIT_NAME_BYTES + 1], id[JOB_ID_CHARS + 1], quoted[LIMIT_REASON_BYTES];
    uint64_t attempt = j->attempt;
    strcpy(name, w->name);
    w->failed++;
    job_set_reason(j, reason);
    struct job_event e = {
        .type = JOB_EV_FAILED, .attempt = attempt, .stage = (uint32_t)stage, .error = error};
    job_id_text(j->id, id);
    log_info("stage_failed", "job=%s stage=%u worker=%s class=%s reason=%s", id, j->stage, name,
             job_error_name(error), log_quote(quoted, sizeof quoted, j->reason ? j->reason : ""));
    uint32_t fx = effects_transition(b, j, &e, name, reason);
    struct commit_op *op = commit_op_new(COMMIT_UPDATE);
    if (op) {
        op->peer = r->peer;
        op->attempt = attempt;
        op->stage = (uint32_t)stage;
        op->answer = op->for_worker = true;
    }
    effects_apply(b, j, fx, op);
}

void on_stage_failed(struct broker *b, const struct request *r) {
    const struct msg_stage_failed *m = r->header;
    struct job *j = claimed(b, r, m->job, m->stage, m->attempt);
    enum job_error error; /* msg_decode has seen that the word is one of them */
    if (!j || job_error_parse(m->error_class, &error) != 0) return;
    /* A stage that stopped for a cancel nobody here knows of is a stage that did not run. */
    if (error == JOB_ERROR_CANCELLED) error = JOB_ERROR_TRANSIENT;
    stage_failed(b, r, j, m->stage, error, m->reason);
}

/* ---- a stage is done ---- */

static void note_stage(struct job *j, const struct msg_stage_done *m, uint64_t bytes,
                       int64_t now_wall_ms) {
    struct job_stage *s = &j->stages[m->stage];
    strcpy(s->worker, j->worker->name);
    s->attempt = m->attempt;
    s->run_us = m->run_us;
    s->output_bytes = bytes;
    s->done_ms = now_wall_ms;
    /* What the worker says it took cannot be longer than it had the lease. */
    int64_t leased_ms = now_wall_ms > j->leased_ms ? now_wall_ms - j->leased_ms : 0;
    uint64_t run_ms = m->run_us / 1000;
    s->started_ms = now_wall_ms - (run_ms < (uint64_t)leased_ms ? (int64_t)run_ms : leased_ms);
    free((char *)s->numerics_id);
    s->numerics_id = m->numerics_id.len ? bytes_dup(m->numerics_id) : NULL;
    free(j->reason);
    j->reason = NULL;
}

static uint64_t payload_bytes(const struct request *r) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < r->n; i++) n += r->payload[i].len;
    return n;
}

/* What the next stage reads stays in memory: nobody else needs it, unless the broker dies. */
static int hand_over(struct broker *b, struct job *j, const struct request *r) {
    effects_drop_handed(b, j);
    size_t bytes = payload_bytes(r), at = 0;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy) return -ENOMEM;
    for (uint32_t i = 0; i < r->n; at += r->payload[i++].len)
        if (r->payload[i].len) memcpy(copy + at, r->payload[i].data, r->payload[i].len);
    j->handed = bytes_of(copy, bytes);
    b->handed_bytes += bytes;
    j->in_memory = true;
    return 0;
}

/* The output goes to disk with the record: a result at the end, else what the next stage reads. */
static struct commit_op *output_op(struct broker *b, struct job *j, const struct request *r) {
    const struct msg_stage_done *m = r->header;
    bool end = j->state == JOB_DONE;
    struct commit_op *op = commit_op_new(COMMIT_UPDATE);
    uint32_t slot = end ? JOB_SLOT_RESULT : JOB_SLOT_STAGE + (uint32_t)m->stage;
    if (!op || effects_keep_parts(op, slot, r->payload, r->n) ||
        job_payload_set(end ? &j->result : &j->input, r->payload, r->n)) {
        commit_op_free(op);
        return NULL;
    }
    if (!end) {
        j->input_stage = (uint8_t)m->stage;
        j->durable_stage = (uint8_t)j->stage;
        effects_drop_handed(b, j);
    }
    op->peer = r->peer;
    op->attempt = m->attempt;
    op->stage = (uint32_t)m->stage;
    op->answer = op->for_worker = true;
    return op;
}

/* Every client would fail at a result that is no document, long after the worker has gone. */
static bool result_is_sound(struct broker *b, const struct job *j, const struct request *r,
                            char *why, size_t why_bytes) {
    const struct msg_stage_done *m = r->header;
    char err[160];
    if (m->stage + 1 != j->pipeline->n_stages || r->n == 0) return true;
    struct bytes whole = r->payload[0];
    if (r->n > 1) {
        buf_clear(&b->payload);
        for (uint32_t i = 0; i < r->n; i++)
            buf_append(&b->payload, r->payload[i].data, r->payload[i].len);
        if (b->payload.error) return true; /* no memory to look */
        whole = buf_bytes(&b->payload);
    }
    if (pack_check(whole, err, sizeof err) == 0) return true;
    snprintf(why, why_bytes, "stage %s of worker %s gave no acceptable msgpack document: %s",
             j->pipeline->stages[m->stage].run, j->worker->name, err);
    return false;
}

void on_stage_done(struct broker *b, const struct request *r) {
    const struct msg_stage_done *m = r->header;
    struct job *j = claimed(b, r, m->job, m->stage, m->attempt);
    char unsound[LIMIT_REASON_BYTES];
    if (!j) return;
    if (m->stage == j->stage && !result_is_sound(b, j, r, unsound, sizeof unsound)) {
        stage_failed(b, r, j, m->stage, JOB_ERROR_TRANSIENT, bytes_str(unsound));
        return;
    }
    struct family made, *kids = NULL;
    struct request kept = *r;
    if (m->stage == j->stage && j->pipeline->stages[j->stage].fan_out && !m->more) {
        kids = &made;
        enum job_error error = family_make(b, j, r, kids, unsound, sizeof unsound);
        if (error) {
            stage_failed(b, r, j, m->stage, error, bytes_str(unsound));
            return;
        }
        kept.payload = &kids->keep;
        kept.n = 1;
    }
    struct job_event e = {.type = JOB_EV_STAGE_DONE,
                          .attempt = m->attempt,
                          .stage = (uint32_t)m->stage,
                          .more = m->more};
    uint64_t bytes = payload_bytes(r);
    struct worker *w = j->worker;
    uint32_t fx = effects_transition(b, j, &e, w->name, bytes_str(""));
    if (fx & JOB_FX_STALE) {
        if (kids) family_drop(b, kids);
        reply_stage_ack(b, &r->peer, m->job, m->stage, m->attempt, false);
        return;
    }
    w->done++;
    histogram_add(&tally_times_of(&b->tally, j->pipeline->stages[m->stage].run)->duration,
                  m->run_us);
    note_stage(j, m, bytes, b->now_wall_ms);
    if (b->handed_bytes + bytes > BROKER_HANDED_BYTES) fx |= JOB_FX_COMMIT;
    struct commit_op *op = NULL;
    if (fx & JOB_FX_COMMIT) {
        op = output_op(b, j, &kept);
        if (!op || (kids && family_attach(b, j, op, kids) != 0)) {
            log_error("out_of_memory", "what=\"a stage's output\" bytes=%llu",
                      (unsigned long long)bytes);
            abort(); /* the store has the job as it was; a restart runs the stage again */
        }
    } else {
        if (hand_over(b, j, r) != 0) {
            log_error("out_of_memory", "what=\"a stage's output\" bytes=%llu",
                      (unsigned long long)bytes);
            abort();
        }
        reply_stage_ack(b, &r->peer, m->job, m->stage, m->attempt, true);
    }
    effects_apply(b, j, fx, op);
}

/* ---- a lease comes back ---- */

void on_return(struct broker *b, const struct request *r) {
    const struct msg_return *m = r->header;
    struct job *j = claimed(b, r, m->job, m->stage, m->attempt);
    if (!j) return;
    reply_stage_ack(b, &r->peer, m->job, m->stage, m->attempt, true);
    struct job_event e = {
        .type = JOB_EV_RETURNED, .attempt = m->attempt, .stage = (uint32_t)m->stage};
    effects_event(b, j, &e);
}

void on_goodbye(struct broker *b, const struct request *r) {
    const struct msg_goodbye *m = r->header;
    struct worker *w = worker_by_session(&b->peers, m->session, r->peer.user);
    if (w) w->leaving = true;
    /* Behind the last lease: when it comes the worker knows that it misses none. */
    if (!m->dead) say_quiet(b, &r->peer, m->session);
    if (!w) return;
    log_worker("worker_leaving", w, m->dead ? "its process has ended" : "said goodbye");
    /* What had begun was reported; the rest was still on the wire, and no job is to blame. */
    if (m->dead) take_back(b, w, JOB_EV_RETURNED, "");
    tell_drained(b, w);
    if (w->leases == 0) worker_remove(&b->peers, w);
}
