#include "broker/ready.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "broker/tenant.h"

static const char *or_empty(const char *name) {
    return name ? name : "";
}

/* A queue of its own, in the place of one that is empty when there is no other. */
static struct ready_queue *queue_begin(struct ready *r) {
    if (r->n < READY_QUEUES) return &r->queue[r->n++];
    for (uint32_t i = 0; i < r->n; i++)
        if (!r->queue[i].jobs) return &r->queue[i];
    return NULL;
}

static struct ready_queue *queue_for(struct ready *r, const struct job *j) {
    const struct pipeline_stage *s = &j->pipeline->stages[j->stage];
    const char *next = j->stage + 1 < j->pipeline->n_stages ? s[1].run : "";
    const char *model = or_empty(s->model);
    for (uint32_t i = 0; i < r->n; i++) {
        struct ready_queue *q = &r->queue[i];
        if (q->stage == j->stage && strcmp(q->run, s->run) == 0 && strcmp(q->model, model) == 0 &&
            strcmp(q->next, next) == 0)
            return q;
    }
    struct ready_queue *q = queue_begin(r);
    if (!q) return NULL;
    *q = (struct ready_queue){.stage = j->stage};
    snprintf(q->run, sizeof q->run, "%s", s->run);
    snprintf(q->model, sizeof q->model, "%s", model);
    snprintf(q->next, sizeof q->next, "%s", next);
    return q;
}

/* What a job costs its tenant: a share of what every job needs, and its bytes. Past a limit that
 * keeps the number of turns that one job may take small, more bytes cost no more. */
enum { JOB_COST = 4096, TURN_BYTES = 16384, COST_MAX = 64 * TURN_BYTES };

static int64_t cost_of(const struct job *j) {
    uint64_t bytes =
        j->body.bytes + (j->stage && j->stages ? j->stages[j->stage - 1].output_bytes : 0);
    return bytes < COST_MAX - JOB_COST ? (int64_t)bytes + JOB_COST : COST_MAX;
}

static struct ready_flow *flow_of(const struct ready_queue *q, const struct job *j) {
    struct ready_flow *f = j->tenant->flows;
    while (f && (f->queue != q || f->level != j->priority)) f = f->also;
    return f;
}

/* A new flow is the last in the ring: its turn comes when everybody else had theirs. */
static struct ready_flow *flow_begin(struct ready *r, struct ready_queue *q, const struct job *j) {
    struct ready_flow *f = r->spare, **turn = &q->turn[j->priority];
    if (f)
        r->spare = f->also;
    else if (!(f = malloc(sizeof *f)))
        return NULL;
    *f = (struct ready_flow){
        .queue = q, .tenant = j->tenant, .level = j->priority, .also = j->tenant->flows};
    j->tenant->flows = f;
    f->next = *turn ? *turn : f;
    f->prev = *turn ? (*turn)->prev : f;
    f->prev->next = f->next->prev = f;
    if (!*turn) *turn = f;
    q->levels |= (uint16_t)(1u << f->level);
    return f;
}

static void flow_end(struct ready *r, struct ready_flow *f) {
    struct ready_flow **turn = &f->queue->turn[f->level], **at = &f->tenant->flows;
    while (*at != f) at = &(*at)->also;
    *at = f->also;
    f->prev->next = f->next;
    f->next->prev = f->prev;
    /* Back by one, so that the next turn is that of the flow behind. */
    if (*turn == f) *turn = f->prev == f ? NULL : f->prev;
    if (!*turn) f->queue->levels &= (uint16_t) ~(1u << f->level);
    f->also = r->spare;
    r->spare = f;
}

void ready_fini(struct ready *r) {
    for (uint32_t i = 0; i < r->n; i++)
        for (uint32_t p = 0; p < READY_LEVELS; p++)
            while (r->queue[i].turn[p]) flow_end(r, r->queue[i].turn[p]);
    for (struct ready_flow *f = r->spare, *next; f; f = next) {
        next = f->also;
        free(f);
    }
    *r = (struct ready){.n = 0};
}

int ready_add(struct ready *r, struct job *j) {
    assert(!j->flow && j->priority < READY_LEVELS);
    struct ready_queue *q = queue_for(r, j);
    if (!q) return ERR_LIMIT;
    struct ready_flow *f = flow_of(q, j);
    if (!f && !(f = flow_begin(r, q, j))) return -ENOMEM;
    j->ready_prev = f->tail;
    j->ready_next = NULL;
    if (f->tail)
        f->tail->ready_next = j;
    else
        f->head = j;
    f->tail = j;
    j->flow = f;
    q->jobs++;
    r->jobs++;
    return 0;
}

void ready_drop(struct ready *r, struct job *j) {
    struct ready_flow *f = j->flow;
    if (!f) return;
    if (j->ready_prev)
        j->ready_prev->ready_next = j->ready_next;
    else
        f->head = j->ready_next;
    if (j->ready_next)
        j->ready_next->ready_prev = j->ready_prev;
    else
        f->tail = j->ready_prev;
    j->flow = NULL;
    j->ready_prev = j->ready_next = NULL;
    f->queue->jobs--;
    r->jobs--;
    if (!f->head) flow_end(r, f);
}

struct job *ready_head(struct ready_queue *q) {
    if (!q->levels) return NULL;
    struct ready_flow **turn = &q->turn[__builtin_ctz(q->levels)];
    while ((*turn)->deficit < cost_of((*turn)->head)) {
        *turn = (*turn)->next;
        (*turn)->deficit += (int64_t)tenant_weight((*turn)->tenant) * TURN_BYTES;
    }
    return (*turn)->head;
}

void ready_serve(struct job *j) {
    j->flow->deficit -= cost_of(j);
}

bool ready_before(const struct job *a, const struct job *b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (a->stage != b->stage) return a->stage > b->stage;
    return a->id < b->id;
}
