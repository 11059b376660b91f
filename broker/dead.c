/* Dead letters: jobs that failed for good. They are listed and shown as any other job; here they
 * are queued again as new jobs, or dropped. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "broker/broker.h"
#include "broker/submit.h"
#include "broker/verdicts.h"

enum { RETRY_MS = 500, PAGE_END = 1, SCAN_MAX = 10000 };

/* Which dead letters a request means: one, or a page of those that a filter lets through. */
struct want {
    const struct broker *b;
    const struct request *r;
    uint64_t job, before, limit;
    struct bytes kind, error_class;
    bool heirs; /* those too that have been queued again */
    uint64_t *ids;
    uint32_t n, scanned;
    uint64_t last, next;
};

static bool may_see(const struct job_record *rec, const struct request *r) {
    return (r->rights & CERT_ADMIN) || bytes_is(rec->tenant, r->tenant->name);
}

static bool is_dead(const struct job_record *rec, const struct request *r) {
    return rec->state == JOB_FAILED && may_see(rec, r);
}

static int look_at(void *arg, const struct job_record *rec) {
    struct want *w = arg;
    /* One that is in the table still has to be told of. */
    bool wanted = is_dead(rec, w->r) && !family_lives(w->b, rec) && (w->heirs || !rec->heir) &&
                  (!w->kind.len || bytes_eq(w->kind, rec->kind)) &&
                  (!w->error_class.len || bytes_is(w->error_class, job_error_name(rec->error)));
    if ((wanted && w->n == w->limit) || w->scanned == SCAN_MAX) {
        w->next = w->last;
        return PAGE_END;
    }
    w->scanned++;
    w->last = rec->id;
    if (wanted) w->ids[w->n++] = rec->id;
    return 0;
}

static void refuse_dead(struct refusal *why, uint64_t job, int e) {
    char id[JOB_ID_CHARS + 1];
    job_id_text(job, id);
    if (e == ERR_UNKNOWN)
        refusal_set(why, "not_dead", "job", "a job that failed", "`penstock dead ls` lists them",
                    "job %s is no dead letter", id);
    else if (e == -ENOENT)
        refusal_set(why, "unknown_job", "job", "a job of this broker",
                    "`penstock dead ls` lists those that failed", "job %s: there is none", id);
    else
        refusal_set(why, "store", "job", "", "run `penstock store check`",
                    "job %s cannot be read: %s", id, err_text(e));
}

/* The ids that are meant, in w->ids; *w->next says where the next page begins. */
static int find(struct broker *b, struct want *w, struct refusal *why) {
    struct arena a;
    struct store_read *t;
    struct job_record rec;
    int e = store_read_begin(b->store, &t);
    if (e) {
        refuse_dead(why, w->job, e);
        return e;
    }
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    if (w->job) {
        e = jobs_get(t, w->job, &rec, &a);
        if (e == 0 && !may_see(&rec, w->r)) e = -ENOENT;
        if (e == 0 && (family_lives(b, &rec) || !is_dead(&rec, w->r))) e = ERR_UNKNOWN;
        if (e == 0) w->ids[w->n++] = w->job;
    } else {
        uint64_t from = w->before ? w->before - 1 : UINT64_MAX;
        e = w->r->rights & CERT_ADMIN
                ? jobs_walk(t, from, true, false, &a, look_at, w)
                : jobs_walk_tenant(t, bytes_str(w->r->tenant->name), from, &a, look_at, w);
        if (e == PAGE_END) e = 0;
    }
    store_read_end(t);
    arena_fini(&a);
    if (e) refuse_dead(why, w->job, e);
    return e;
}

/* ---- again ---- */

static struct commit_op *again(struct broker *b, uint64_t id, struct refusal *why) {
    struct arena a;
    struct store_read *t;
    struct job_record rec;
    struct commit_op *op = NULL;
    int e = store_read_begin(b->store, &t);
    if (e) {
        refuse_dead(why, id, e);
        return NULL;
    }
    arena_init(&a, 4 * LIMIT_FRAME_BYTES);
    buf_clear(&b->payload);
    e = jobs_get(t, id, &rec, &a);
    if (e == 0) e = store_payload_get(t, id, JOB_SLOT_BODY, &rec.body, &b->payload);
    if (e == 0) {
        struct msg_submit m = {.kind = rec.kind,
                               .pipeline = rec.pipeline,
                               .priority = rec.priority,
                               .has_seed = true,
                               .seed = rec.seed};
        struct draft d = {.m = &m,
                          .tenant = tenant_get(&b->tenants, rec.tenant),
                          .body = buf_bytes(&b->payload),
                          .origin = id};
        if (!d.tenant)
            refuse_dead(why, id, -ENOMEM);
        else if (draft_choose(b, &d, why) == 0)
            op = draft_admit(b, &d, why);
    } else {
        refuse_dead(why, id, e);
    }
    store_read_end(t);
    arena_fini(&a);
    return op;
}

void on_requeue(struct broker *b, const struct request *r) {
    const struct msg_requeue *m = r->header;
    uint64_t ids[LIMIT_DEAD_PAGE];
    struct want w = {.b = b,
                     .r = r,
                     .job = m->job,
                     .before = m->before,
                     .limit = m->limit,
                     .kind = m->kind,
                     .error_class = m->error_class,
                     .ids = ids};
    struct refusal why;
    struct verdicts *v = NULL;
    if (find(b, &w, &why) == 0 && !(v = verdicts_new(b, &r->peer, m->req, w.n))) {
        refusal_set(&why, "full", "", "memory", "try again later", "the broker is out of memory");
        why.retry_after_ms = RETRY_MS;
    }
    if (!v) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    verdicts_next(v, w.next);
    struct commit_op *first = NULL, **last = &first;
    for (uint32_t i = 0; i < w.n; i++) {
        struct commit_op *op = again(b, ids[i], &why);
        verdict_origin(v, i, ids[i]);
        if (!op) {
            verdict_refused(v, i, &why);
            continue;
        }
        op->verdicts = v;
        op->index = i;
        *last = op;
        last = commit_op_end(op);
    }
    if (first) outbox_add(b, first);
    verdicts_answer(b, v);
}

/* ---- dropped ---- */

void on_drop(struct broker *b, const struct request *r) {
    const struct msg_drop *m = r->header;
    uint64_t ids[LIMIT_DEAD_PAGE];
    struct want w = {.b = b,
                     .r = r,
                     .job = m->job,
                     .before = m->before,
                     .limit = m->limit,
                     .kind = m->kind,
                     .error_class = m->error_class,
                     .heirs = true,
                     .ids = ids};
    struct refusal why;
    if (find(b, &w, &why) != 0) {
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    struct commit_op *op = commit_op_new(COMMIT_BURY);
    uint64_t *kept = op ? arena_copy(&op->arena, ids, w.n * sizeof *ids + !w.n) : NULL;
    if (!kept) {
        commit_op_free(op);
        refusal_set(&why, "full", "", "memory", "try again later", "the broker is out of memory");
        why.retry_after_ms = RETRY_MS;
        reply_refused(b, r->sock, &r->peer, m->req, &why);
        return;
    }
    op->ids = kept;
    op->n_ids = w.n;
    op->next_id = w.next;
    op->peer = r->peer;
    op->req = m->req;
    outbox_add(b, op);
}
