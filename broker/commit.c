#include "broker/commit.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"

/* An operation holds a record, a body of one frame or an output of LIMIT_PARTS frames. */
#define OP_ARENA_BYTES (LIMIT_OUTPUT_BYTES + 4u * LIMIT_FRAME_BYTES)
/* Behind the operation itself lies the first block of its arena: thousands are on their way at a
 * time, most of them without a long payload. */
#define OP_FIRST_BYTES 1024u

struct committer {
    struct store *store;
    struct ring todo, done;
    pthread_t thread;
    uint32_t outstanding; /* the loop's count */
    /* The jobs of updates that found no room, [n_held % COMMIT_OPS]; how many the loop has seen. */
    uint64_t *held, n_held, seen;
    _Atomic uint64_t commits, ops, last_us;
    struct histogram times;
};

struct commit_op *commit_op_new(enum commit_type type) {
    struct commit_op *op = malloc(sizeof *op + OP_FIRST_BYTES);
    if (!op) return NULL;
    memset(op, 0, sizeof *op);
    op->type = type;
    size_t pad = -(uintptr_t)(op + 1) % ARENA_ALIGN;
    arena_init_in(&op->arena, OP_ARENA_BYTES, (char *)(op + 1) + pad, OP_FIRST_BYTES - pad);
    return op;
}

void commit_op_free(struct commit_op *op) {
    for (struct commit_op *also; op; op = also) {
        also = op->also;
        arena_fini(&op->arena);
        free(op);
    }
}

struct commit_op **commit_op_end(struct commit_op *op) {
    struct commit_op **end = &op->also;
    while (*end) end = &(*end)->also;
    return end;
}

uint64_t commit_op_bytes(const struct commit_op *op) {
    uint64_t bytes = op->record.body.inlined.len;
    for (uint32_t i = 0; i < op->n_parts; i++) bytes += op->parts[i].len;
    for (uint32_t i = 0; i < op->n_children; i++) bytes += op->children[i].record.body.bytes;
    return bytes;
}

bool commit_fault_passes(int error) {
    return error == ERR_FULL || error == -ENOMEM;
}

bool commit_fault_is_own(int error) {
    switch (error) {
    case ERR_CORRUPT:
    case ERR_VERSION:
    case ERR_LIMIT:
    case ERR_CANCELLED:
    case -EINVAL:
    case -EEXIST:
    case -ENOENT: return true;
    default: return commit_fault_passes(error);
    }
}

/* The key is taken: same kind and body make it the same request, anything else is a conflict. */
static int describe_existing(struct store_write *w, struct commit_op *op) {
    struct job_record r;
    int e = jobs_get(store_write_view(w), op->existing, &r, &op->arena);
    if (e) return e;
    op->conflict = !bytes_eq(r.kind, op->record.kind) || r.body.bytes != op->record.body.bytes ||
                   r.body.crc != op->record.body.crc;
    op->existing_state = r.state;
    op->existing_seed = r.seed;
    return 0;
}

/* A dead letter is queued again once: a second time finds its heir. Sets existing or not_dead, else
 * all is well. */
static int look_at_origin(struct store_write *w, struct commit_op *op) {
    struct job_record origin;
    int e = jobs_get(store_write_view(w), op->record.origin, &origin, NULL);
    op->not_dead = e == -ENOENT || (e == 0 && origin.state != JOB_FAILED);
    if (e || op->not_dead || !origin.heir) return e == -ENOENT ? 0 : e;
    e = jobs_get(store_write_view(w), origin.heir, &origin, NULL);
    if (e == -ENOENT) op->not_dead = true; /* and its heir is dropped already */
    if (e) return e == -ENOENT ? 0 : e;
    op->existing = origin.id;
    op->existing_state = origin.state;
    op->existing_seed = origin.seed;
    return 0;
}

/* The new job is written into the dead letter; or out of it, when it was refused after all. */
static int name_heir(struct store_write *w, struct commit_op *op, bool forget) {
    struct job_record origin;
    int e = jobs_get(store_write_view(w), op->record.origin, &origin, &op->arena);
    if (forget && (e == -ENOENT || (e == 0 && origin.heir != op->record.id))) return 0;
    if (e) return e;
    origin.heir = forget ? 0 : op->record.id;
    return jobs_put(w, &origin);
}

/* The parts of a job go with it, unless they still live. */
static int delete_with_children(struct store_write *w, const struct job_record *r) {
    struct job_record child;
    uint64_t first = r->first_child;
    uint32_t n = r->n_children;
    int e = jobs_del(w, r->id);
    for (uint32_t i = 0; e == 0 && i < n; i++) {
        e = jobs_get(store_write_view(w), first + i, &child, NULL);
        if (e == 0 && job_state_terminal(child.state)) e = jobs_del(w, first + i);
        if (e == -ENOENT) e = 0;
    }
    return e;
}

static int bury(struct store_write *w, struct commit_op *op) {
    op->n_dropped = 0;
    for (uint32_t i = 0; i < op->n_ids; i++) {
        struct job_record r;
        int e = jobs_get(store_write_view(w), op->ids[i], &r, NULL);
        if (e == -ENOENT || (e == 0 && r.state != JOB_FAILED)) continue;
        if (e == 0 && r.parent) { /* its parent still needs to know of it */
            struct job_record parent;
            if (jobs_get(store_write_view(w), r.parent, &parent, NULL) == 0 &&
                !job_state_terminal(parent.state))
                continue;
        }
        if (e == 0) e = delete_with_children(w, &r);
        if (e) return e;
        op->n_dropped++;
    }
    return 0;
}

/* Children go with their parent: not before it, and not after it unless they still live. */
static int delete_family(struct store_write *w, uint64_t id) {
    struct job_record r, parent;
    int e = jobs_get(store_write_view(w), id, &r, NULL);
    if (e == ERR_CORRUPT) return jobs_del(w, id);
    if (e == 0 && r.parent && jobs_get(store_write_view(w), r.parent, &parent, NULL) == 0) return 0;
    return e ? e : delete_with_children(w, &r);
}

static int delete_jobs(struct store_write *w, const struct commit_op *op) {
    int e = 0;
    for (uint32_t i = 0; i < op->n_ids && (e == 0 || e == -ENOENT); i++)
        e = delete_family(w, op->ids[i]);
    return e == -ENOENT ? 0 : e;
}

/* Once, however often the end is written: after a failed flush it may be there already. */
static int count_drop(struct store_write *w, const struct commit_op *op) {
    struct job_record was;
    if (!op->count.name.len) return 0;
    int e = jobs_get(store_write_view(w), op->record.id, &was, NULL);
    if (e == 0 && !job_state_terminal(was.state)) e = sources_add(w, &op->count);
    return e;
}

/* The jobs that an outcome asks for, in its own transaction: they are there when it is. */
static int put_children(struct store_write *w, struct commit_op *op) {
    int e = 0;
    for (uint32_t i = 0; e == 0 && i < op->n_children; i++) {
        struct commit_child *c = &op->children[i];
        if (c->body.len)
            e = store_payload_put(w, c->record.id, JOB_SLOT_BODY, &c->body, 1, &op->arena,
                                  &c->record.body);
        if (e == 0) e = jobs_put(w, &c->record);
    }
    return e;
}

static int apply(struct store_write *w, struct commit_op *op) {
    struct job_record *r = &op->record;
    if (op->type == COMMIT_DELETE) return delete_jobs(w, op);
    if (op->type > COMMIT_FORGET) return upload_apply(w, op);
    if (op->type == COMMIT_BURY) return bury(w, op);
    if (op->type == COMMIT_COUNT) return op->count.name.len ? sources_add(w, &op->count) : 0;
    if (op->type == COMMIT_FORGET) {
        if (op->upload.id) return upload_restore(w, op);
        int e = jobs_del(w, r->id);
        /* Blob may have been committed when meta was not. */
        if (e == -ENOENT) e = store_payload_del(w, r->id, JOB_SLOT_BODY);
        return e == 0 && r->origin ? name_heir(w, op, true) : e;
    }
    if (op->type == COMMIT_ADD && op->upload.id) {
        int e = upload_apply(w, op);
        if (e) return e;
    }
    if (op->n_parts) {
        struct job_payload *p = op->slot == JOB_SLOT_BODY     ? &r->body
                                : op->slot == JOB_SLOT_RESULT ? &r->result
                                                              : &r->input;
        int e = store_payload_put(w, r->id, op->slot, op->parts, op->n_parts, &op->arena, p);
        if (e) return e;
    }
    if (op->type == COMMIT_UPDATE) {
        int e = count_drop(w, op);
        if (e == 0) e = jobs_put(w, r);
        return e ? e : put_children(w, op);
    }
    int e = jobs_add(w, r, &op->existing);
    return e == 0 && r->origin ? name_heir(w, op, false) : e;
}

/* Whether an update of the job was held back and the loop had not seen it when it pushed op. */
static bool behind_held(const struct committer *c, const struct commit_op *op) {
    for (uint64_t i = op->seen; i < c->n_held; i++)
        if (c->held[i % COMMIT_OPS] == op->job) return true;
    return false;
}

/* What can be known before anything is written. */
static int look_ahead(struct committer *c, struct store_write *w, struct commit_op *op) {
    uint64_t bytes = commit_op_bytes(op);
    const struct commit_op *with = op->with;
    if (with) return with->refused || with->existing || with->not_dead ? ERR_CANCELLED : 0;
    if (op->type == COMMIT_UPDATE)
        return behind_held(c, op) ? ERR_FULL : store_outcome_room(w, bytes);
    if (op->type == COMMIT_UPLOAD || op->type == COMMIT_CHUNK) return store_write_room(w, bytes);
    if (op->type != COMMIT_ADD && op->type != COMMIT_COUNT) return 0;
    op->existing = 0;
    op->not_dead = false;
    if (op->record.origin) {
        int e = look_at_origin(w, op);
        if (e || op->existing || op->not_dead) return e;
    }
    if (op->record.key.len) {
        int e = jobs_by_key(store_write_view(w), op->record.tenant, op->record.key, &op->existing);
        if (e == 0 && op->upload.id) e = upload_apply(w, op); /* the job has a body already */
        if (e != -ENOENT) return e == 0 ? describe_existing(w, op) : e;
    }
    return op->type == COMMIT_ADD ? store_write_room(w, bytes) : 0;
}

static void refuse(struct committer *c, struct commit_op *op, int error) {
    if (op->refused) return;
    op->refused = true;
    op->error = op->with && commit_fault_passes(error) ? ERR_CANCELLED : error;
    error = op->error;
    if (op->type == COMMIT_UPDATE && commit_fault_passes(error))
        c->held[c->n_held++ % COMMIT_OPS] = op->job;
}

/* Nonzero spoils the transaction, if only for the pages that it touched; when the fault is op's own
 * it has been refused, and is left out the next time. */
static int apply_one(struct committer *c, struct store_write *w, struct commit_op *op) {
    if (op->refused) return 0;
    op->error = 0;
    int e = look_ahead(c, w, op);
    bool untouched = e == ERR_FULL || e == ERR_CANCELLED;
    bool known =
        (op->type == COMMIT_ADD || op->type == COMMIT_COUNT) && (op->existing || op->not_dead);
    if (e == 0 && !known) e = apply(w, op);
    if (e != 0 && commit_fault_is_own(e)) refuse(c, op, e);
    return untouched ? 0 : e;
}

/* One transaction. *bad is the operation that spoilt it, n when none did. */
static int run_batch(struct committer *c, struct commit_op **ops, uint32_t n, uint32_t *bad) {
    struct store_write *w;
    int e = store_write_begin(c->store, &w);
    *bad = n;
    if (e) return e;
    for (uint32_t i = 0; i < n; i++) {
        *bad = i;
        for (struct commit_op *op = ops[i]; op; op = op->also)
            if ((e = apply_one(c, w, op)) != 0) {
                store_abort(w);
                return e;
            }
    }
    *bad = n;
    return store_commit(w);
}

static void refuse_all(struct committer *c, struct commit_op *op, int error) {
    for (; op; op = op->also) refuse(c, op, error);
}

/* Transactions until each of ops is on disk or has its error. A batch that one operation spoils is
 * done again as far as that one, and the rest without it: every operation is applied twice at most,
 * but for those that are written together. */
static void run(struct committer *c, struct commit_op **ops, uint32_t n) {
    uint32_t from = 0, to = n, bad;
    while (from < n) {
        int e = run_batch(c, ops + from, to - from, &bad);
        atomic_fetch_add_explicit(&c->commits, 1, memory_order_relaxed);
        if (e == 0) {
            from = to;
            to = n;
        } else if (!commit_fault_is_own(e)) {
            for (; from < n; from++)
                for (struct commit_op *op = ops[from]; op; op = op->also)
                    if (!op->refused) op->error = e;
        } else if (bad < to - from) {
            to = bad > 0 ? from + bad : n;
        } else if (e == ERR_FULL && bad > 1) {
            to = from + bad / 2; /* the commit itself found no room for so many pages */
        } else {
            refuse_all(c, ops[from++], e);
            to = n;
        }
    }
}

static int reopen(struct committer *c) {
    char err[256];
    int e = store_reopen(c->store, err, sizeof err);
    if (e) {
        char quoted[300];
        log_error("store_reopen_failed", "error=%s", log_quote(quoted, sizeof quoted, err));
    }
    return e;
}

/* How many of ops, which begin with no REOPEN, go into one transaction: at least one. */
static uint32_t batch_of(struct commit_op **ops, uint32_t n) {
    uint32_t to = 0;
    uint64_t bytes = 0;
    do {
        for (const struct commit_op *op = ops[to++]; op; op = op->also)
            bytes += commit_op_bytes(op);
    } while (to < n && ops[to]->type != COMMIT_REOPEN && bytes < COMMIT_BATCH_BYTES);
    return to;
}

/* One transaction of what may go together; a REOPEN stands alone. */
static void work(struct committer *c, struct commit_op **ops, uint32_t n) {
    for (uint32_t from = 0; from < n;) {
        uint32_t to = from + 1;
        int64_t begin_ns = clock_mono_ns();
        if (ops[from]->type == COMMIT_REOPEN) {
            ops[from]->error = reopen(c);
        } else {
            to = from + batch_of(ops + from, n - from);
            run(c, ops + from, to - from);
        }
        uint64_t took_us = (uint64_t)(clock_mono_ns() - begin_ns) / 1000;
        atomic_store_explicit(&c->last_us, took_us, memory_order_relaxed);
        histogram_add(&c->times, took_us);
        uint64_t n_ops = 0;
        for (uint32_t i = from; i < to; i++)
            for (const struct commit_op *op = ops[i]; op; op = op->also) n_ops++;
        atomic_fetch_add_explicit(&c->ops, n_ops, memory_order_relaxed);
        for (; from < to; from++) {
            int full = ring_push(&c->done, ops[from]);
            assert(full == 0); /* both rings hold everything that may be outstanding */
            (void)full;
        }
    }
}

static void *store_thread_main(void *arg) {
    struct committer *c = arg;
    void *items[COMMIT_BATCH];
    while (!ring_done(&c->todo)) {
        ring_wait(&c->todo, -1);
        uint32_t n = ring_pop_many(&c->todo, items, COMMIT_BATCH);
        if (n) work(c, (struct commit_op **)items, n);
    }
    return NULL;
}

int committer_start(struct committer **out, struct store *s) {
    struct committer *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->store = s;
    c->held = malloc(COMMIT_OPS * sizeof *c->held);
    int e = c->held ? ring_init(&c->todo, COMMIT_OPS) : -ENOMEM;
    if (e) goto fail;
    if ((e = ring_init(&c->done, COMMIT_OPS))) goto fail_todo;
    if ((e = thread_start(&c->thread, "store", store_thread_main, c))) goto fail_done;
    *out = c;
    return 0;
fail_done:
    ring_fini(&c->done);
fail_todo:
    ring_fini(&c->todo);
fail:
    free(c->held);
    free(c);
    return e;
}

void committer_stop(struct committer *c) {
    if (!c) return;
    ring_close(&c->todo);
    pthread_join(c->thread, NULL);
    for (struct commit_op *op; (op = ring_pop(&c->done));) commit_op_free(op);
    ring_fini(&c->todo);
    ring_fini(&c->done);
    free(c->held);
    free(c);
}

void commit_push(struct committer *c, struct commit_op *op) {
    assert(c->outstanding < COMMIT_OPS);
    c->outstanding++;
    for (struct commit_op *o = op; o; o = o->also) {
        o->seen = c->seen;
        o->refused = false;
    }
    int e = ring_push(&c->todo, op);
    assert(e == 0);
    (void)e;
}

struct commit_op *commit_pop(struct committer *c) {
    struct commit_op *op = ring_pop(&c->done);
    if (!op) return NULL;
    c->outstanding--;
    for (const struct commit_op *o = op; o; o = o->also)
        if (o->type == COMMIT_UPDATE && commit_fault_passes(o->error)) c->seen++;
    return op;
}

uint32_t commit_outstanding(const struct committer *c) {
    return c->outstanding;
}

int commit_fd(const struct committer *c) {
    return ring_fd(&c->done);
}

const struct histogram *commit_times(const struct committer *c) {
    return &c->times;
}

struct commit_stats commit_stats(const struct committer *c) {
    return (struct commit_stats){atomic_load(&c->commits), atomic_load(&c->ops),
                                 atomic_load(&c->last_us)};
}
