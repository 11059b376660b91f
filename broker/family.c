/* Jobs that a stage of another job asks for, and what becomes of both.
 *
 * The output of a stage with `fan_out` is a map {children: [body, ...], keep: any}. Its children
 * are written in the transaction of that outcome, so that there are all of them or none, whatever
 * becomes of the attempt; their ids follow one another. The parent then waits and holds no lease.
 * When the end of the last child is on disk, their results, in order, become the input of the
 * parent's next stage: {keep, children: [{job, state, error_class, reason, result}]}. How many are
 * still to come is counted anew at a restart, from the children that live. */
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/history.h"
#include "schemas/batch.h"
#include "schemas/pack.h"

enum { AGAIN_MS = 1000 };

struct asked { /* what the stage's output says */
    struct bytes children, keep;
};
static const struct field asked_fields[] = {
    {.name = "children",
     .type = FIELD_PACK,
     .required = true,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct asked, children)},
    {.name = "keep",
     .type = FIELD_PACK,
     .max = LIMIT_OUTPUT_BYTES,
     .offset = offsetof(struct asked, keep)},
};

/* ---- the stage is done ---- */

void family_drop(struct broker *b, struct family *f) {
    while (f->n) {
        struct job *c = f->child[--f->n];
        job_table_remove(&b->jobs, c);
        job_free(c);
    }
}

static struct job *make_child(struct broker *b, const struct job *j, const struct pipeline *p,
                              const struct kind_desc *kind, struct bytes body, uint32_t place) {
    struct job *c = job_new(p);
    if (!c) return NULL;
    c->id = b->last_id = job_id_next(b->last_id, b->now_wall_ms);
    c->parent = j->id;
    c->child = (uint16_t)place;
    c->kind = kind;
    c->tenant = j->tenant;
    c->seed = (j->seed + 1 + place) & INT64_MAX;
    c->priority = j->priority;
    c->accepted_ms = c->ready_ms = b->now_wall_ms;
    c->expires_ms = j->expires_ms;
    if (job_payload_set(&c->body, &body, 1) == 0 && job_table_insert(&b->jobs, c) == 0) return c;
    job_free(c);
    return NULL;
}

static const struct pipeline *pipeline_for(struct broker *b, const struct job *j,
                                           const struct kind_desc **kind, char *why,
                                           size_t why_bytes) {
    const char *name = j->pipeline->stages[j->stage].fan_out;
    const struct pipeline *p = pipeline_find(&b->pipelines, bytes_str(name));
    *kind = p ? kind_find(bytes_str(p->kind)) : NULL;
    bool again = false;
    for (uint32_t i = 0; p && i < p->n_stages; i++) again |= p->stages[i].fan_out != NULL;
    if (*kind && !again) return p;
    snprintf(why, why_bytes, "stage %s fans out to pipeline %s, %s",
             j->pipeline->stages[j->stage].name, name,
             again ? "which fans out itself" : "which is not loaded");
    return NULL;
}

/* The output in one piece; b->payload holds it when it came in several. */
static struct bytes whole(struct broker *b, const struct request *r) {
    if (r->n == 1) return r->payload[0];
    buf_clear(&b->payload);
    for (uint32_t i = 0; i < r->n; i++)
        buf_append(&b->payload, r->payload[i].data, r->payload[i].len);
    return buf_bytes(&b->payload);
}

enum job_error family_make(struct broker *b, const struct job *j, const struct request *r,
                           struct family *f, char *why, size_t why_bytes) {
    static const uint8_t nil[] = {0xC0};
    const char *stage = j->pipeline->stages[j->stage].name;
    struct asked asked;
    struct refusal no;
    const struct kind_desc *kind;
    struct batch_it it;
    f->n = 0;
    const struct pipeline *p = pipeline_for(b, j, &kind, why, why_bytes);
    if (!p) return JOB_ERROR_PERMANENT;
    struct bytes out = whole(b, r);
    if (field_decode(asked_fields, 2, out, &asked, &no) != 0 ||
        batch_begin(&it, asked.children, &no) != 0) {
        snprintf(why, why_bytes, "stage %s gave no {children, keep}: %s", stage, no.message);
        return JOB_ERROR_PERMANENT;
    }
    f->keep = asked.keep.len ? asked.keep : bytes_of(nil, sizeof nil);
    if (it.left > LIMIT_CHILDREN) {
        snprintf(why, why_bytes, "stage %s asked for %u jobs; at most %u are possible", stage,
                 it.left, LIMIT_CHILDREN);
        return JOB_ERROR_PERMANENT;
    }
    struct batch_item item;
    for (int e; (e = batch_next(&it, &item, &no)) != 0;) {
        if (e < 0 || item.key.len || kind_decode(kind, item.body, NULL, &no) != 0) {
            snprintf(why, why_bytes, "stage %s: child %u: %s", stage, f->n,
                     item.key.len ? "it has a key" : no.message);
            family_drop(b, f);
            return JOB_ERROR_PERMANENT;
        }
        struct job *c = make_child(b, j, p, kind, item.body, f->n);
        if (!c) {
            snprintf(why, why_bytes, "the broker has no room for the jobs of stage %s", stage);
            family_drop(b, f);
            return JOB_ERROR_TRANSIENT;
        }
        f->body[f->n] = item.body;
        f->child[f->n++] = c;
    }
    return JOB_ERROR_NONE;
}

/* The bytes of a body too long for the record, which lie in the message, are copied. */
static int attach_child(struct broker *b, struct commit_op *op, struct job *c, struct bytes body) {
    struct commit_child *to = &op->children[op->n_children];
    int e = job_record_make(c, &op->arena, &to->record);
    if (e) return e;
    if (c->body.in_blob) {
        void *copy = arena_copy(&op->arena, body.data, body.len);
        if (!copy) return -ENOMEM;
        to->body = bytes_of(copy, body.len);
    }
    op->n_children++;
    c->commits++;
    b->bodies_bytes += c->body.inlined.len;
    load_take(b, c);
    return 0;
}

int family_attach(struct broker *b, struct job *j, struct commit_op *op, struct family *f) {
    j->n_children = j->n_expected = (uint16_t)f->n;
    j->first_child = f->n ? f->child[0]->id : 0;
    op->children = f->n ? arena_calloc(&op->arena, f->n, sizeof *op->children) : NULL;
    if (f->n && !op->children) return -ENOMEM;
    int e = 0;
    for (uint32_t i = 0; e == 0 && i < f->n; i++) {
        assert(f->child[i]->id == j->first_child + i);
        e = attach_child(b, op, f->child[i], f->body[i]);
    }
    return e;
}

/* ---- children live and end ---- */

static void cancel_child(struct broker *b, struct job *c) {
    struct job_event e = {.type = JOB_EV_CANCEL};
    job_set_reason(c, bytes_str("the job that it is a part of has ended"));
    effects_event(b, c, &e);
}

void family_born(struct broker *b, struct job *j, const struct commit_op *op) {
    for (uint32_t i = 0; i < op->n_children; i++) {
        struct job *c = job_table_find(&b->jobs, op->children[i].record.id);
        assert(c && c->state == JOB_ACCEPTED);
        c->commits--;
        if (c->expires_ms)
            due_set(&b->expiries, &c->expiry_due, b->now_ms + (c->expires_ms - b->now_wall_ms));
        effects_body_leave(b, c);
        struct job_event e = {.type = JOB_EV_COMMITTED};
        if (job_state_terminal(j->state))
            cancel_child(b, c);
        else
            effects_event(b, c, &e);
    }
    if (j->state == JOB_WAITING && j->n_expected == 0) family_join(b, j);
}

void family_lost(struct broker *b, const struct commit_op *op) {
    for (uint32_t i = 0; i < op->n_children; i++) {
        struct job *c = job_table_find(&b->jobs, op->children[i].record.id);
        assert(c && c->state == JOB_ACCEPTED);
        c->commits--;
        effects_forget(b, c);
    }
}

void family_child_ended(struct broker *b, const struct job *child) {
    struct job *j = job_table_find(&b->jobs, child->parent);
    struct job_event e = {.type = JOB_EV_CHILD};
    if (!j || j->state != JOB_WAITING) return;
    history_child(b, j, child);
    effects_event(b, j, &e);
}

void family_ends(struct broker *b, struct job *j) {
    for (uint32_t i = 0; i < j->n_children; i++) {
        struct job *c = job_table_find(&b->jobs, j->first_child + i);
        /* One that is being written is cancelled when it is there. */
        if (c && c->parent == j->id && c->state != JOB_ACCEPTED && !job_state_terminal(c->state))
            cancel_child(b, c);
    }
}

bool family_lives(const struct broker *b, const struct job_record *r) {
    bool lives = job_table_find(&b->jobs, r->id) != NULL;
    for (uint32_t i = 0; i < r->n_children && !lives; i++)
        lives = job_table_find(&b->jobs, r->first_child + i) != NULL;
    return lives;
}

/* ---- the join ---- */

struct joining {
    struct broker *b;
    struct store_read *t;
    struct arena arena;
    struct buf doc;
    uint32_t failed;
    char first[160]; /* why the first of these is not done */
};

static int join_keep(struct joining *g, const struct job *j, struct packer *p) {
    const struct job_payload *keep = &j->input;
    buf_clear(&g->b->payload);
    int e = 0;
    if (keep->in_blob)
        e = store_payload_get(g->t, j->id, JOB_SLOT_STAGE + j->input_stage, keep, &g->b->payload);
    else
        buf_append(&g->b->payload, keep->inlined.data, keep->inlined.len);
    if (e == 0) pack_raw(p, buf_bytes(&g->b->payload));
    return e;
}

static int join_child(struct joining *g, uint64_t id, struct packer *p) {
    struct job_record r = {.state = JOB_CANCELLED, .reason = bytes_str("its record is gone")};
    char text[JOB_ID_CHARS + 1];
    arena_reset(&g->arena);
    int e = jobs_get(g->t, id, &r, &g->arena);
    if (e && e != -ENOENT) return e;
    bool done = r.state == JOB_DONE;
    buf_clear(&g->b->payload);
    if (done && r.result.bytes &&
        (e = store_payload_get(g->t, id, JOB_SLOT_RESULT, &r.result, &g->b->payload)) != 0)
        return e;
    job_id_text(id, text);
    if (!done && g->failed++ == 0)
        snprintf(g->first, sizeof g->first, "%s is %s: %.*s", text, job_state_name(r.state),
                 r.reason.len < 100 ? (int)r.reason.len : 100, (const char *)r.reason.data);
    pack_map(p, 5);
    pack_kv_str(p, "job", text);
    pack_kv_str(p, "state", job_state_name(r.state));
    pack_kv_str(p, "error_class", r.state == JOB_FAILED ? job_error_name(r.error) : "");
    pack_str(p, "reason");
    pack_strn(p, r.reason);
    pack_str(p, "result");
    if (g->b->payload.len)
        pack_raw(p, buf_bytes(&g->b->payload));
    else
        pack_nil(p);
    return 0;
}

static int join_all(struct joining *g, const struct job *j) {
    struct packer p = packer_of(&g->doc);
    int e = store_read_begin(g->b->store, &g->t);
    if (e) return e;
    pack_map(&p, 2);
    pack_str(&p, "keep");
    e = join_keep(g, j, &p);
    pack_str(&p, "children");
    pack_array(&p, j->n_children);
    for (uint32_t i = 0; e == 0 && i < j->n_children; i++)
        e = join_child(g, j->first_child + i, &p);
    store_read_end(g->t);
    return e ? e : g->doc.error;
}

static void join_failed(struct broker *b, struct job *j, const char *why) {
    struct job_event e = {.type = JOB_EV_JOINED, .error = JOB_ERROR_PERMANENT};
    job_set_reason(j, bytes_str(why));
    effects_event(b, j, &e);
}

static void joined(struct broker *b, struct job *j, struct bytes doc) {
    struct job_event e = {.type = JOB_EV_JOINED};
    struct commit_op *op = commit_op_new(COMMIT_UPDATE);
    if (!op || effects_keep_parts(op, JOB_SLOT_STAGE + j->input_stage, &doc, 1) ||
        job_payload_set(&j->input, &doc, 1)) {
        log_error("out_of_memory", "what=\"joined results\" bytes=%zu", doc.len);
        abort(); /* the store has all of it; a restart joins again */
    }
    effects_apply(b, j, effects_transition(b, j, &e, "", bytes_str("")), op);
}

void family_join(struct broker *b, struct job *j) {
    struct joining g = {.b = b, .doc = {.max_bytes = LIMIT_OUTPUT_BYTES}};
    char why[LIMIT_REASON_BYTES];
    arena_init(&g.arena, 4 * LIMIT_FRAME_BYTES);
    int e = join_all(&g, j);
    const struct pipeline_stage *fan = &j->pipeline->stages[j->stage - 1];
    if (e == 0 && g.failed && !fan->partial) {
        snprintf(why, sizeof why, "%u of the %u jobs of stage %s are not done; %s", g.failed,
                 j->n_children, fan->name, g.first);
        join_failed(b, j, why);
    } else if (e == 0) {
        joined(b, j, buf_bytes(&g.doc));
    } else if (e == ERR_CORRUPT || e == -ENOENT || e == ERR_LIMIT) {
        snprintf(why, sizeof why, "the results of stage %s cannot be joined: %s", fan->name,
                 e == ERR_LIMIT ? "together they have more bytes than an output may"
                                : "run `penstock store check`");
        join_failed(b, j, why);
    } else {
        log_warn("join_waits", "error=\"%s\"", err_text(e));
        due_set(&b->delays, &j->delay_due, b->now_ms + AGAIN_MS);
    }
    buf_fini(&g.doc);
    arena_fini(&g.arena);
}

/* ---- after a restart ---- */

struct census {
    struct broker *b;
    struct buf ids; /* of those for whom something is to be done */
};

static void count_child(void *arg, struct job *c) {
    struct census *s = arg;
    struct job *j = c->parent ? job_table_find(&s->b->jobs, c->parent) : NULL;
    if (c->parent && !j) buf_u64le(&s->ids, c->id);
    if (j && j->state == JOB_WAITING) j->n_expected++;
}

static void find_complete(void *arg, struct job *j) {
    struct census *s = arg;
    if (j->state == JOB_WAITING && j->n_expected == 0) buf_u64le(&s->ids, j->id);
}

void family_recover(struct broker *b) {
    struct census s = {.b = b};
    job_table_each(&b->jobs, count_child, &s);
    job_table_each(&b->jobs, find_complete, &s);
    struct reader r = reader_of(buf_bytes(&s.ids));
    while (read_left(&r) > 0) {
        struct job *j = job_table_find(&b->jobs, read_u64le(&r));
        if (j->state == JOB_WAITING)
            family_join(b, j);
        else
            cancel_child(b, j);
    }
    buf_fini(&s.ids);
}
