#include "broker/retain.h"

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"

enum { LOOK_MAX = 2048, PASS_EVERY_MS = 5000, TIGHT_EVERY_MS = 500 };

static bool is_owed(const struct broker *b, uint64_t id) {
    for (uint32_t i = 0; i < b->owed.n; i++)
        if (b->owed.at[i].job == id) return true;
    return false;
}

/* Whatever ended stays so long, that its key is honoured. */
static int64_t grace_ms(const struct broker *b) {
    int64_t window_ms = b->load.settings->dedupe_window_ms;
    return window_ms > RETAIN_GRACE_MS ? window_ms : RETAIN_GRACE_MS;
}

static int64_t keep_ms(const struct broker *b, const struct job_ended *e) {
    return e->state == JOB_FAILED ? b->config.retain_failed_ms : b->config.retain_ms;
}

/* 0 keeps for ever, as far as time goes. */
static bool is_old(const struct broker *b, const struct job_ended *e) {
    int64_t keep = keep_ms(b, e), window_ms = b->load.settings->dedupe_window_ms;
    if (keep > 0 && keep < window_ms) keep = window_ms;
    return keep > 0 && b->now_wall_ms - e->finished_ms >= keep;
}

/* What is damaged stays, for `penstock store repair`, and so does whoever was not announced yet or
 * has parts that were not. */
static bool is_over(const struct broker *b, struct store_read *t, uint64_t id) {
    struct job_record r;
    return jobs_get(t, id, &r, NULL) == 0 && !family_lives(b, &r);
}

static bool may_go(const struct broker *b, const struct job_ended *e, bool tight) {
    bool need = tight && b->now_wall_ms - e->finished_ms >= grace_ms(b) &&
                (e->state != JOB_FAILED || b->retain.failed_too);
    return (need || is_old(b, e)) && !is_owed(b, e->id);
}

/* Whether nothing that ended at this time or later can be due. */
static bool too_young(const struct broker *b, const struct job_ended *e, bool tight) {
    int64_t least = tight ? grace_ms(b) : INT64_MAX;
    int64_t keep[] = {b->config.retain_ms, b->config.retain_failed_ms};
    for (int i = 0; i < 2; i++)
        if (keep[i] > 0 && keep[i] < least) least = keep[i];
    return b->now_wall_ms - e->finished_ms < least;
}

/* The index was walked to its end: from its beginning again, after a while. */
static void end_pass(struct broker *b, bool tight) {
    struct retain *r = &b->retain;
    r->failed_too = tight && r->pass == 0;
    r->at_ms = INT64_MIN;
    r->at_id = 0;
    r->next_ms = b->now_ms + (tight ? TIGHT_EVERY_MS : PASS_EVERY_MS);
    r->pass = 0;
}

/* About what the store gets back with this job. */
static uint64_t bytes_of_job(struct store_read *t, uint64_t id) {
    struct job_record r;
    if (jobs_get(t, id, &r, NULL) != 0) return 0;
    uint64_t sum = 0;
    const struct job_payload *p[] = {&r.body, &r.input, &r.result};
    for (int i = 0; i < 3; i++) {
        struct store_room room = store_room_of(p[i]->bytes);
        sum += p[i]->bytes == 0 ? 0 : room.blob_bytes + (room.blob_bytes ? 0 : p[i]->bytes);
    }
    return sum + 512;
}

/* Fills op with the next jobs that may go: those that are old, and as many as the need asks for. */
static int choose(struct broker *b, struct store_read *t, uint64_t need, struct commit_op *op) {
    struct retain *r = &b->retain;
    bool tight = need > 0;
    uint64_t freed = 0;
    struct job_ended ended[RETAIN_SLICE];
    uint32_t n = RETAIN_SLICE, slice = r->careful > 0 ? 1 : RETAIN_SLICE;
    for (uint32_t looked = 0; looked < LOOK_MAX; looked += n) {
        int e = jobs_ended(t, r->at_ms, r->at_id, ended, RETAIN_SLICE, &n);
        if (e) return e;
        for (uint32_t i = 0; i < n && op->n_ids < slice; i++) {
            if (too_young(b, &ended[i], tight)) {
                end_pass(b, tight);
                return 0;
            }
            r->at_ms = ended[i].finished_ms;
            r->at_id = ended[i].id;
            if (!may_go(b, &ended[i], tight) || !is_over(b, t, ended[i].id)) continue;
            op->ids[op->n_ids++] = ended[i].id;
            if (tight && (freed += bytes_of_job(t, ended[i].id)) >= need) return 0;
        }
        if (op->n_ids == slice) return 0;
        if (n < RETAIN_SLICE) {
            end_pass(b, tight);
            return 0;
        }
    }
    return 0;
}

static struct commit_op *slice(struct broker *b, uint64_t need) {
    struct commit_op *op = commit_op_new(COMMIT_DELETE);
    struct store_read *t;
    if (!op) return NULL;
    op->ids = arena_calloc(&op->arena, RETAIN_SLICE, sizeof *op->ids);
    int e = op->ids ? 0 : -ENOMEM;
    if (e == 0 && !b->retain.sweep && (e = store_read_begin(b->store, &t)) == 0) {
        e = choose(b, t, need, op);
        store_read_end(t);
    }
    if (e == 0 && (op->n_ids > 0 || b->retain.sweep)) return op;
    if (e) {
        log_error("retention_failed", "error=\"%s\"", err_text(e));
        end_pass(b, false);
    }
    commit_op_free(op);
    return NULL;
}

void retain(struct broker *b) {
    struct retain *r = &b->retain;
    if (r->busy || b->disk_error || b->draining || b->now_ms < r->next_ms) return;
    uint64_t need = store_over(b->store, RETAIN_PERCENT, b->config.retain_bytes);
    struct commit_op *op = slice(b, need);
    if (!op) return;
    /* The payloads of deleted jobs are freed by the transaction after: then the level is known. */
    r->sweep = need > 0 && op->n_ids > 0;
    r->busy = true;
    outbox_add(b, op);
}

void retain_done(struct broker *b, const struct commit_op *op) {
    struct retain *r = &b->retain;
    r->busy = false;
    if (op->error == 0) {
        r->deleted += op->n_ids;
        r->pass += op->n_ids;
        if (r->careful > 0) r->careful--;
        return;
    }
    log_warn("not_deleted", "jobs=%u error=\"%s\" next=\"penstock store check\"", op->n_ids,
             err_text(op->error));
    if (r->careful > 0) {
        r->careful--; /* this one stays; the next pass meets it again */
        return;
    }
    r->careful = RETAIN_SLICE;
    r->at_ms = INT64_MIN;
    r->at_id = 0;
}
