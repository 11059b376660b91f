#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "broker/admit.h"
#include "broker/broker.h"
#include "broker/history.h"
#include "broker/verdicts.h"

int effects_keep_parts(struct commit_op *op, uint32_t slot, const struct bytes *parts, uint32_t n) {
    op->slot = slot;
    for (op->n_parts = 0; op->n_parts < n; op->n_parts++) {
        struct bytes p = parts[op->n_parts];
        void *copy = arena_copy(&op->arena, p.data, p.len);
        if (!copy) return -ENOMEM;
        op->parts[op->n_parts] = bytes_of(copy, p.len);
    }
    return 0;
}

/* ---- leases ---- */

static void end_lease(struct broker *b, struct job *j) {
    due_drop(&b->leases, &j->lease_due);
    worker_give(j);
}

void effects_revoke(struct broker *b, struct job *j) {
    if (!j->worker) return;
    struct msg_cancel_lease m = {.job = j->id, .attempt = j->attempt};
    reply(b, b->workers, &j->worker->peer, MSG_CANCEL_LEASE, &m, NULL, 0);
}

/* ---- carrying out ---- */

static void enqueue(struct broker *b, struct job *j) {
    if (j->state != JOB_READY || j->flow || j->commits) return;
    int e = ready_add(&b->ready, j);
    if (e == 0) return;
    char id[JOB_ID_CHARS + 1];
    job_id_text(j->id, id);
    log_error("queue_limit", "job=%s error=\"%s\"", id, err_text(e));
    struct job_event cancel = {.type = JOB_EV_CANCEL};
    job_set_reason(j,
                   bytes_str("too many different stage programs are waiting; use fewer pipelines"));
    effects_event(b, j, &cancel);
}

void effects_drop_handed(struct broker *b, struct job *j) {
    b->handed_bytes -= j->handed.len;
    free((void *)j->handed.data);
    j->handed = (struct bytes){NULL, 0};
    j->in_memory = false;
}

void effects_prepare(struct broker *b, struct job *j, struct commit_op *op) {
    int e = op ? job_record_make(j, &op->arena, &op->record) : -ENOMEM;
    if (e) {
        /* Without memory for 2 KiB there is nothing left to promise; the store still has the last
         * committed state, and a restart goes on from it. */
        log_error("out_of_memory", "what=\"a job's record\"");
        abort();
    }
    b->commit_bytes += op->held = commit_op_bytes(op);
    op->room = store_room_of(op->held);
    b->coming.meta_bytes += op->room.meta_bytes;
    b->coming.blob_bytes += op->room.blob_bytes;
    op->job = j->id;
    op->terminal = job_state_terminal(j->state);
    j->commits++;
}

static void commit(struct broker *b, struct job *j, struct commit_op *op) {
    if (!op) op = commit_op_new(COMMIT_UPDATE);
    effects_prepare(b, j, op);
    if (op->with)
        *commit_op_end(op->with) = op; /* they go together */
    else
        outbox_add(b, op);
}

void effects_apply(struct broker *b, struct job *j, uint32_t fx, struct commit_op *op) {
    if (fx & JOB_FX_UNLEASE) end_lease(b, j);
    caps_follow(&b->load.caps, j, b->now_ms);
    if (fx & JOB_FX_UNQUEUE) {
        ready_drop(&b->ready, j);
        due_drop(&b->delays, &j->delay_due);
    }
    if (fx & JOB_FX_TERMINAL) {
        due_drop(&b->expiries, &j->expiry_due);
        if (!j->leaving) effects_drop_handed(b, j); /* else its end may yet be taken back */
    }
    if (fx & JOB_FX_DELAY)
        due_set(&b->delays, &j->delay_due, b->now_ms + (j->ready_ms - b->now_wall_ms));
    if (fx & JOB_FX_COMMIT)
        commit(b, j, op);
    else
        commit_op_free(op);
    if (fx & JOB_FX_READY) enqueue(b, j);
    if (fx & JOB_FX_TERMINAL && j->n_children) family_ends(b, j);
    if (fx & JOB_FX_JOIN) {
        family_join(b, j);
        return;
    }
    bool untold = j->n_lines && j->lines[j->n_lines - 1].seq > j->told_seq;
    if ((fx || untold) && !(fx & (JOB_FX_TERMINAL | JOB_FX_STALE))) history_tell(b, j, false);
}

uint32_t effects_transition(struct broker *b, struct job *j, const struct job_event *e,
                            const char *by, struct bytes reason) {
    uint32_t stage = j->stage;
    uint32_t fx = job_transition(j, e, b->now_wall_ms);
    tally_place(&b->tally, j);
    if (fx & JOB_FX_STALE || (fx == 0 && e->type != JOB_EV_STAGE_DONE)) return fx;
    enum job_error error = e->type == JOB_EV_LOST ? JOB_ERROR_WORKER_DIED : e->error;
    if (fx & JOB_FX_TRY) job_log_try(j, by, stage, error, reason, b->now_wall_ms);
    history_add(b, j, e, fx, stage, by);
    return fx;
}

void effects_event(struct broker *b, struct job *j, const struct job_event *e) {
    bool told = j->worker && (e->type == JOB_EV_CANCEL || e->type == JOB_EV_EXPIRE);
    if (told) effects_revoke(b, j);
    struct bytes reason = j->reason ? bytes_str(j->reason) : (struct bytes){NULL, 0};
    uint32_t fx = effects_transition(b, j, e, j->worker ? j->worker->name : "", reason);
    effects_apply(b, j, fx, NULL);
}

/* ---- back from the disk ---- */

void effects_body_leave(struct broker *b, struct job *j) {
    if (b->bodies_bytes <= b->config.bodies_bytes) return;
    b->bodies_bytes -= j->body.inlined.len;
    job_body_leave(j);
}

void effects_forget(struct broker *b, struct job *j) {
    ready_drop(&b->ready, j);
    tally_remove(&b->tally, j);
    due_drop(&b->delays, &j->delay_due);
    due_drop(&b->expiries, &j->expiry_due);
    while (j->watches) watch_drop(&b->watches, j->watches);
    effects_drop_handed(b, j);
    b->bodies_bytes -= j->body.inlined.len;
    load_give(b, j);
    admit_left(b, j);
    job_table_remove(&b->jobs, j);
    job_free(j);
}

/* The outcome is on disk: tell whoever waits, and let the store answer from now on. */
static void conclude(struct broker *b, struct job *j) {
    admit_left(b, j);
    char id[JOB_ID_CHARS + 1], reason[LIMIT_REASON_BYTES + 64];
    job_id_text(j->id, id);
    b->finished[j->state]++;
    b->streams.fresh = true;
    j->tenant->finished[j->state]++;
    log_info("job_finished", "job=%s kind=%s state=%s ms=%lld%s%s", id, j->kind->name,
             job_state_name(j->state), (long long)(j->finished_ms - j->accepted_ms),
             j->reason ? " reason=" : "",
             j->reason ? log_quote(reason, sizeof reason, j->reason) : "");
    for (struct watch *w = j->watches, *next; w; w = next) {
        next = w->next;
        if (w->type == WATCH_WAIT) reply_ended(b, &w->peer, w->req, j);
    }
    history_tell(b, j, true);
    if (j->parent) family_child_ended(b, j);
    effects_forget(b, j);
}

void effects_abandon(struct broker *b, struct job *j) {
    if (j->worker) {
        effects_revoke(b, j);
        end_lease(b, j);
    }
    for (struct watch *w = j->watches, *next; w; w = next) {
        next = w->next;
        if (w->type == WATCH_WAIT) reply_result(b, &w->peer, w->req, j->id);
    }
    history_tell(b, j, true);
    if (j->parent) family_child_ended(b, j);
    effects_forget(b, j);
}

void effects_refuse(struct broker *b, const struct commit_op *op, const struct refusal *why) {
    if (!op->verdicts) {
        reply_refused(b, b->clients, &op->peer, op->req, why);
        return;
    }
    verdict_refused(op->verdicts, op->index, why);
    verdicts_answer(b, op->verdicts);
}

static void answer_drop(struct broker *b, const struct commit_op *op) {
    struct msg_dropped m = {.req = op->req, .dropped = op->n_dropped, .next = op->next_id};
    reply_client(b, &op->peer, MSG_DROPPED, &m);
}

static void answer_submit(struct broker *b, struct commit_op *op, struct job *j) {
    if (op->not_dead) {
        struct refusal why;
        refusal_set(&why, "not_dead", "job", "a job that failed", "`penstock dead ls` lists them",
                    "the job is no dead letter any more");
        effects_refuse(b, op, &why);
        return;
    }
    if (op->existing && op->conflict) {
        struct refusal why;
        char id[JOB_ID_CHARS + 1];
        job_id_text(op->existing, id);
        refusal_set(&why, "key_conflict", "key", "one kind and body a key",
                    "use another key, or send what the first submit sent",
                    "the key belongs to job %s, which has another kind or body", id);
        effects_refuse(b, op, &why);
        return;
    }
    struct job *known = op->existing ? job_table_find(&b->jobs, op->existing) : j;
    enum job_state state = known ? job_seen_state(known) : op->existing_state;
    struct msg_accepted m = {.req = op->req,
                             .job = op->existing ? op->existing : op->job,
                             .state = bytes_str(job_state_name(state)),
                             .seed = known ? known->seed : op->existing_seed,
                             .existing = op->existing != 0};
    if (!op->verdicts) {
        reply_accepted(b, &op->peer, &m);
        return;
    }
    verdict_accepted(op->verdicts, op->index, &m);
    verdicts_answer(b, op->verdicts);
}

static void added(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    assert(j);
    j->commits--;
    if (op->existing || op->not_dead) {
        answer_submit(b, op, NULL);
        effects_forget(b, j);
        return;
    }
    /* Only now may it end: before, it could have turned out to be another submit's duplicate. */
    if (j->expires_ms)
        due_set(&b->expiries, &j->expiry_due, b->now_ms + (j->expires_ms - b->now_wall_ms));
    effects_body_leave(b, j);
    struct job_event e = {.type = JOB_EV_COMMITTED};
    effects_event(b, j, &e);
    answer_submit(b, op, j);
    b->accepted++;
    histogram_add(&b->accept_times, (uint64_t)(clock_mono_ns() - op->begun_ns) / 1000);
}

/* A submit that was refused; unless its key is known: then it is that job's again. */
static void counted(struct broker *b, struct commit_op *op) {
    if (op->existing) {
        admit_uncount(b, op);
        answer_submit(b, op, NULL);
    } else {
        admit_counted(b, op);
    }
}

static void updated(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    assert(j);
    j->commits--;
    if (j->state == JOB_WAITING || op->n_children) family_born(b, j, op);
    if (op->answer && op->for_worker)
        reply_stage_ack(b, &op->peer, op->job, op->stage, op->attempt, true);
    else if (op->answer)
        reply_state(b, &op->peer, op->req, j);
    if (op->terminal && j->commits == 0)
        conclude(b, j);
    else
        enqueue(b, j);
}

void effects_release(struct broker *b, struct commit_op *op) {
    b->commit_bytes -= op->held;
    b->coming.meta_bytes -= op->room.meta_bytes;
    b->coming.blob_bytes -= op->room.blob_bytes;
    op->held = 0;
    op->room = (struct store_room){0};
}

static void committed(struct broker *b, struct commit_op *op) {
    if (op->error) {
        disk_refused(b, op);
        return;
    }
    op->with = NULL;
    if (op->type == COMMIT_ADD && op->upload.id) upload_submitted(b, op->upload.id);
    if (op->type == COMMIT_FORGET && op->upload.id) upload_restored(b, op);
    if (op->type == COMMIT_ADD)
        added(b, op);
    else if (op->type == COMMIT_UPDATE)
        updated(b, op);
    else if (op->type == COMMIT_DELETE)
        retain_done(b, op);
    else if (op->type > COMMIT_FORGET)
        upload_committed(b, op);
    else if (op->type == COMMIT_BURY)
        answer_drop(b, op);
    else if (op->type == COMMIT_COUNT)
        counted(b, op);
    effects_release(b, op);
    commit_op_free(op);
}

void effects_committed(struct broker *b, struct commit_op *op) {
    if (op->type == COMMIT_REOPEN) {
        disk_reopened(b, op);
        return;
    }
    for (struct commit_op *also; op; op = also) {
        also = op->also;
        op->also = NULL;
        committed(b, op);
    }
}
