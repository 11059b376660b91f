#include "broker/ready.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"

static bool same(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static struct ready_queue *queue_for(struct ready *r, const struct job *j) {
    const struct pipeline_stage *s = &j->pipeline->stages[j->stage];
    for (uint32_t i = 0; i < r->n; i++) {
        struct ready_queue *q = &r->queue[i];
        if (q->stage == j->stage && same(q->run, s->run) && same(q->model, s->model)) return q;
    }
    if (r->n == READY_QUEUES) return NULL;
    struct ready_queue *q = &r->queue[r->n++];
    *q = (struct ready_queue){.run = s->run, .model = s->model, .stage = j->stage};
    return q;
}

static void link_at(struct ready *r, struct ready_queue *q, struct job *j, bool front) {
    uint32_t p = j->priority;
    assert(!j->queue && p < READY_LEVELS);
    j->ready_prev = front ? NULL : q->tail[p];
    j->ready_next = front ? q->head[p] : NULL;
    if (j->ready_prev)
        j->ready_prev->ready_next = j;
    else
        q->head[p] = j;
    if (j->ready_next)
        j->ready_next->ready_prev = j;
    else
        q->tail[p] = j;
    j->queue = q;
    q->levels |= (uint16_t)(1u << p);
    q->jobs++;
    r->jobs++;
}

int ready_add(struct ready *r, struct job *j) {
    struct ready_queue *q = queue_for(r, j);
    if (!q) return ERR_LIMIT;
    link_at(r, q, j, false);
    return 0;
}

void ready_first(struct ready *r, struct job *j) {
    struct ready_queue *q = queue_for(r, j);
    assert(q); /* it was in this queue before its lease */
    link_at(r, q, j, true);
}

void ready_drop(struct ready *r, struct job *j) {
    struct ready_queue *q = j->queue;
    if (!q) return;
    uint32_t p = j->priority;
    if (j->ready_prev)
        j->ready_prev->ready_next = j->ready_next;
    else
        q->head[p] = j->ready_next;
    if (j->ready_next)
        j->ready_next->ready_prev = j->ready_prev;
    else
        q->tail[p] = j->ready_prev;
    if (!q->head[p]) q->levels &= (uint16_t) ~(1u << p);
    j->queue = NULL;
    j->ready_prev = j->ready_next = NULL;
    q->jobs--;
    r->jobs--;
}

struct job *ready_head(const struct ready_queue *q) {
    return q->levels ? q->head[__builtin_ctz(q->levels)] : NULL;
}

bool ready_before(const struct job *a, const struct job *b) {
    if (a->priority != b->priority) return a->priority < b->priority;
    if (a->stage != b->stage) return a->stage > b->stage;
    return a->id < b->id;
}
