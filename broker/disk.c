#include <assert.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/admit.h"
#include "broker/broker.h"

enum { REOPEN_EVERY_MS = 1000, ROOM_EVERY_MS = 1000 };

/* ---- operations on their way to the disk ---- */

static void list_add(struct commit_list *l, struct commit_op *op) {
    op->next = NULL;
    if (l->last)
        l->last->next = op;
    else
        l->first = op;
    l->last = op;
}

static struct commit_op *list_take(struct commit_list *l) {
    struct commit_op *op = l->first;
    if (!op) return NULL;
    l->first = op->next;
    if (!l->first) l->last = NULL;
    return op;
}

/* Puts what came back before what has not been pushed yet. */
static void push_again(struct broker *b, struct commit_list *l) {
    struct commit_list again = *l, later = b->outbox;
    *l = b->outbox = (struct commit_list){0};
    for (struct commit_op *op; (op = list_take(&again)) || (op = list_take(&later));)
        list_add(&b->outbox, op);
}

void outbox_add(struct broker *b, struct commit_op *op) {
    for (struct commit_op *o = op; o; o = o->also) o->seq = ++b->op_seq;
    list_add(&b->outbox, op);
}

/* Operations may come here in another order than they were made: one that waited for the disk after
 * a later one that waits for room. */
static void wait_for_room(struct broker *b, struct job *j, struct commit_op *op) {
    struct commit_list *l = &b->no_room;
    j->no_room++;
    if (!l->last || l->last->seq < op->seq) {
        list_add(l, op);
        return;
    }
    struct commit_op **at = &l->first;
    while ((*at)->seq < op->seq) at = &(*at)->next;
    op->next = *at;
    *at = op;
}

/* While the disk fails everything waits behind what failed, and while an outcome finds no room the
 * later ones of its job do, so that the operations of one job never overtake each other. */
void outbox_flush(struct broker *b) {
    if (b->disk_error) return;
    while (b->outbox.first && commit_outstanding(b->committer) < COMMIT_OPS) {
        struct commit_op *op = list_take(&b->outbox);
        struct job *j = b->no_room.first ? job_table_find(&b->jobs, op->job) : NULL;
        if (j && j->no_room)
            wait_for_room(b, j, op);
        else
            commit_push(b->committer, op);
    }
}

/* ---- what came back with an error ---- */

static void refuse_submit(struct broker *b, struct commit_op *op) {
    struct refusal why;
    if (op->error == ERR_FULL)
        refusal_set(&why, "full", "", "80 % of the store",
                    "wait for retention, or raise the store's cap", "the store is over 80 %% full");
    else if (op->error == -ENOMEM)
        refusal_set(&why, "full", "", "memory", "submit again later",
                    "the broker is out of memory");
    else if (commit_fault_is_own(op->error))
        refusal_set(&why, "store", "", "", "run `penstock store check`",
                    "it could not be written: %s", err_text(op->error));
    else
        refusal_set(&why, "disk", "", "",
                    "free space or repair the disk; the broker tries again by itself",
                    "it could not be written: %s", err_text(op->error));
    if (!commit_fault_is_own(op->error) || commit_fault_passes(op->error))
        why.retry_after_ms = REOPEN_EVERY_MS;
    effects_refuse(b, op, &why);
}

/* The client is told; what the submit may have left on disk is deleted when that is possible. */
static void undo_submit(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    assert(j);
    struct upload *u = op->upload.id ? upload_find(&b->uploads, op->upload.id) : NULL;
    refuse_submit(b, op);
    effects_forget(b, j);
    if (u) upload_count(u, true); /* it is there still, or will be again */
    effects_release(b, op);
    op->type = COMMIT_FORGET;
    op->n_parts = 0;
    op->record.key = op->record.body.inlined = (struct bytes){NULL, 0}; /* they went with the job */
    op->error = 0;
}

/* An outcome found no room: it is kept until there is some. Its worker has not been told that it
 * was recorded, nor has anybody else. */
static void keep_for_room(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    assert(j);
    if (!b->no_room.first) {
        log_warn("outcome_waits", "error=\"%s\"", err_text(op->error));
        b->room_at_ms = b->now_ms + ROOM_EVERY_MS;
    }
    wait_for_room(b, j, op);
}

/* The store can never take this outcome. Those who wait are told what the store says of the job,
 * and the next start sets it aside. */
static void give_up(struct broker *b, struct commit_op *op) {
    struct job *j = job_table_find(&b->jobs, op->job);
    char id[JOB_ID_CHARS + 1];
    assert(j);
    job_id_text(op->job, id);
    log_error("outcome_lost", "job=%s error=\"%s\" next=\"penstock store check\"", id,
              err_text(op->error));
    j->commits--;
    family_lost(b, op);
    effects_release(b, op);
    commit_op_free(op);
    if (j->commits == 0) effects_abandon(b, j);
}

/* Part of an upload: its client is told; what may be there all the same is deleted. False: the
 * operation is over. */
static bool undo_upload(struct broker *b, struct commit_op *op) {
    if (op->answer) refuse_submit(b, op);
    effects_release(b, op);
    if (!upload_failed(b, op)) {
        commit_op_free(op);
        return false;
    }
    op->n_parts = 0;
    op->error = 0;
    return true;
}

static void undo_count(struct broker *b, struct commit_op *op) {
    admit_uncount(b, op);
    refuse_submit(b, op);
    commit_op_free(op);
}

static void disk_failed(struct broker *b, struct commit_op *op) {
    if (!b->disk_error) {
        b->disk_error = op->error;
        b->reopen_at_ms = b->now_ms + REOPEN_EVERY_MS;
        log_error("disk_failed", "error=\"%s\" accepting=false", err_text(op->error));
    }
    if (op->type > COMMIT_FORGET && !undo_upload(b, op)) return;
    if (op->type == COMMIT_COUNT) {
        undo_count(b, op);
        return;
    }
    op->with = NULL; /* a drop goes on without the job that it was to make room for */
    if (op->type == COMMIT_ADD) undo_submit(b, op);
    list_add(&b->retries, op);
}

void disk_refused(struct broker *b, struct commit_op *op) {
    if (!commit_fault_is_own(op->error)) {
        disk_failed(b, op);
    } else if (op->error == ERR_CANCELLED) {
        admit_kept(b, op);
    } else if (op->type == COMMIT_COUNT) {
        undo_count(b, op);
    } else if (op->type == COMMIT_ADD) {
        undo_submit(b, op);
        outbox_add(b, op);
    } else if (op->type == COMMIT_UPLOAD || op->type == COMMIT_CHUNK || op->type == COMMIT_LOOK) {
        if (undo_upload(b, op)) outbox_add(b, op);
    } else if (op->type == COMMIT_UPDATE && commit_fault_passes(op->error)) {
        keep_for_room(b, op);
    } else if (op->type == COMMIT_UPDATE) {
        give_up(b, op);
    } else if (op->type == COMMIT_BURY) {
        refuse_submit(b, op);
        commit_op_free(op);
    } else if (op->type == COMMIT_DELETE) {
        retain_done(b, op);
        commit_op_free(op);
    } else { /* what is left of a refused submit is swept at the next start */
        log_warn("not_forgotten", "error=\"%s\"", err_text(op->error));
        commit_op_free(op);
    }
}

/* ---- again ---- */

void disk_reopened(struct broker *b, struct commit_op *op) {
    b->reopening = false;
    if (op->error) {
        b->reopen_at_ms = b->now_ms + REOPEN_EVERY_MS;
    } else {
        log_info("disk_recovered", "accepting=true");
        b->disk_error = 0;
        push_again(b, &b->retries);
    }
    commit_op_free(op);
}

/* A job some of whose operations are still with the store thread waits for them: they may come back
 * for want of room too, and belong behind those that are here. */
static void try_room(struct broker *b) {
    if (!b->no_room.first || b->disk_error || b->now_ms < b->room_at_ms) return;
    b->room_at_ms = b->now_ms + ROOM_EVERY_MS;
    struct commit_list all = b->no_room, again = {0};
    b->no_room = (struct commit_list){0};
    for (struct commit_op *op; (op = list_take(&all));) {
        const struct job *j = job_table_find(&b->jobs, op->job);
        list_add(j->commits == j->no_room ? &again : &b->no_room, op);
    }
    for (struct commit_op *op = again.first; op; op = op->next)
        job_table_find(&b->jobs, op->job)->no_room = 0;
    push_again(b, &again);
}

void disk_retry(struct broker *b) {
    try_room(b);
    if (!b->disk_error || b->reopening || b->now_ms < b->reopen_at_ms) return;
    if (commit_outstanding(b->committer)) return; /* they come back first, in order */
    struct commit_op *op = commit_op_new(COMMIT_REOPEN);
    if (!op) return;
    commit_push(b->committer, op);
    b->reopening = true;
}

bool disk_has_room(const struct broker *b, uint64_t body_bytes) {
    struct store_room need = store_room_of(body_bytes);
    need.meta_bytes += b->coming.meta_bytes;
    need.blob_bytes += b->coming.blob_bytes;
    return store_has_room(b->store, need);
}
