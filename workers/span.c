#include "workers/span.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define NOTE_BYTES_MAX (LIMIT_HEADER_BYTES - 1024u) /* a PROGRESS header holds it */

/* One lease on its way through the stages. */
struct rider {
    struct lease *lease;              /* NULL once it has left */
    struct bytes carried;             /* the next stage's input */
    int64_t since_ns;                 /* waits since */
    const struct worker_stage *stage; /* that it has joined; NULL: none */
    int64_t start_ns;                 /* when that began it; 0: not yet */
    bool given_back;                  /* it was told to let go of it */
    struct stage_item item;
};

static void push(struct worker *w, struct outcome *o) {
    int code = ring_push(&w->outcomes, o);
    assert(code == 0); /* sized for all stages of all leases */
    (void)code;
}

/* Without memory for an outcome the process cannot tell anybody: the keeper does. */
static struct outcome *must_outcome(enum outcome_type type, struct lease *l, uint32_t stage) {
    struct outcome *o = outcome_new(type, l, stage);
    if (o) return o;
    snprintf(l->worker->flight->last_words, sizeof l->worker->flight->last_words,
             "out of memory for an outcome");
    abort();
}

void span_return(struct worker *w, struct lease *l, enum outcome_type type) {
    struct outcome *o = must_outcome(type, l, l->first);
    o->ends = true;
    push(w, o);
}

static void leave(struct worker *w, struct rider *r, struct outcome *o) {
    o->ends = true;
    r->lease = NULL;
    push(w, o);
}

static void say_cancelled(const struct lease *l, uint32_t s, const char *how) {
    char id[JOB_ID_CHARS + 1], quoted[LIMIT_REASON_BYTES + 64];
    job_id_text(l->job, id);
    log_info("stage_cancelled", "job=%s run=%s how=%s", id, l->stages[s].run,
             log_quote(quoted, sizeof quoted, how));
}

static void fail(struct worker *w, struct rider *r, enum job_error error, const char *reason) {
    if (error == JOB_ERROR_CANCELLED && r->given_back) {
        leave(w, r, must_outcome(OUTCOME_RETURNED, r->lease, r->item.stage));
        return;
    }
    if (error == JOB_ERROR_CANCELLED && atomic_load(&r->lease->cancelled)) {
        say_cancelled(r->lease, r->item.stage - r->lease->first, reason);
        leave(w, r, must_outcome(OUTCOME_DROPPED, r->lease, r->item.stage));
        return;
    }
    struct outcome *o = must_outcome(OUTCOME_FAILED, r->lease, r->item.stage);
    o->error = error;
    snprintf(o->reason, sizeof o->reason, "%s", reason);
    leave(w, r, o);
}

/* What a stage made of one item becomes an outcome. */
static void deliver(struct worker *w, struct rider *r, uint32_t s, int64_t start_ns,
                    int64_t end_ns) {
    struct lease *l = r->lease;
    struct stage_item *i = &r->item;
    char reason[LIMIT_REASON_BYTES];
    if (i->error == JOB_ERROR_NONE && !i->output.data)
        item_fail(i, JOB_ERROR_PERMANENT, "stage %s gave neither an output nor a reason",
                  l->stages[s].run);
    if (i->error == JOB_ERROR_NONE && i->output.len > LIMIT_OUTPUT_BYTES)
        item_fail(i, JOB_ERROR_PERMANENT, "stage %s made %zu bytes; at most %u can be kept",
                  l->stages[s].run, i->output.len, LIMIT_OUTPUT_BYTES);
    if (i->error != JOB_ERROR_NONE) {
        snprintf(reason, sizeof reason, "%s", i->reason);
        fail(w, r, i->error, reason);
        return;
    }
    struct outcome *o = must_outcome(OUTCOME_DONE, l, i->stage);
    if (buf_append(&o->output, i->output.data, i->output.len) != 0) {
        outcome_free(o);
        fail(w, r, JOB_ERROR_TRANSIENT, "the worker has no memory for the output");
        return;
    }
    o->run_us = (uint64_t)(end_ns - start_ns) / 1000;
    o->wait_us = (uint64_t)(start_ns - r->since_ns) / 1000;
    if (i->numerics_id) snprintf(o->numerics_id, sizeof o->numerics_id, "%s", i->numerics_id);
    o->more = s + 1 < l->n_stages;
    r->carried = i->output;
    r->since_ns = end_ns;
    if (o->more)
        push(w, o);
    else
        leave(w, r, o);
}

/* Best effort: what does not fit is dropped. */
static void emit(void *arg, const struct stage_item *i, const char *type, struct bytes data) {
    struct worker *w = arg;
    if (data.len > NOTE_BYTES_MAX || item_cancelled(i)) return;
    struct note *n = calloc(1, sizeof *n);
    if (!n) return;
    n->job = i->job;
    n->attempt = i->attempt;
    n->stage = i->stage;
    snprintf(n->type, sizeof n->type, "%s", type);
    if (buf_append(&n->data, data.data, data.len) != 0 || ring_push(&w->notes, n) != 0)
        note_free(n);
}

/* The item of a rider for stage s of its span; from now on it is to blame if the process dies. */
static void board(struct worker *w, struct rider *r, uint32_t s) {
    struct lease *l = r->lease;
    r->item = (struct stage_item){.job = l->job,
                                  .attempt = l->attempt,
                                  .seed = l->seed,
                                  .stage = l->first + s,
                                  .priority = l->priority,
                                  .kind = l->kind,
                                  .body = l->body,
                                  .model = bytes_str(l->stages[s].model),
                                  .adapter = bytes_str(l->stages[s].adapter),
                                  .input = r->carried,
                                  .arena = &l->arena,
                                  .cancelled = &l->cancelled,
                                  .emit_to = &w->emitter};
    atomic_store(&l->running_stage, s);
    flight_run(l->slot, r->item.stage, l->stages[s].run);
}

static void alight(struct worker *w, struct rider *r, uint32_t s, int64_t start_ns,
                   int64_t end_ns) {
    atomic_store(&r->lease->running_ms, 0);
    flight_rest(r->lease->slot, r->lease->first + s + 1);
    deliver(w, r, s, start_ns, end_ns);
}

static void run_chunk(struct worker *w, struct rider **riders, uint32_t n, uint32_t s) {
    struct stage_item *items[LIMIT_SPAN_JOBS];
    const struct worker_stage *stage = worker_stage_find(w, riders[0]->lease->stages[s].run);
    int64_t start_ns = clock_mono_ns();
    for (uint32_t k = 0; k < n; k++) {
        board(w, riders[k], s);
        items[k] = &riders[k]->item;
        atomic_store(&riders[k]->lease->running_ms, start_ns / 1000000);
    }
    stage->program->run_batch(stage->self, items, n);
    int64_t end_ns = clock_mono_ns();
    for (uint32_t k = 0; k < n; k++) alight(w, riders[k], s, start_ns, end_ns);
}

static void join_stage(struct worker *w, struct rider *r, uint32_t s,
                       const struct worker_stage *stage) {
    board(w, r, s);
    r->start_ns = 0;
    r->item.waits = true;
    if (stage->program->join(stage->self, &r->item) != 0) {
        item_fail(&r->item, JOB_ERROR_TRANSIENT, "the worker has no memory for another item");
        alight(w, r, s, r->since_ns, r->since_ns);
        return;
    }
    r->stage = stage;
    w->stepped[w->n_stepped++] = r;
}

/* Those who have not left, for one stage, in chunks. */
static void run_stage(struct worker *w, struct rider **riders, uint32_t n, uint32_t s) {
    const struct lease_stage *plan = NULL;
    for (uint32_t k = 0; k < n;) {
        struct rider *chunk[LIMIT_SPAN_JOBS];
        uint32_t m = 0;
        for (; k < n && (!plan || m < plan->batch_max); k++) {
            struct rider *r = riders[k];
            if (!r->lease) continue;
            plan = &r->lease->stages[s];
            if (!atomic_load(&r->lease->cancelled)) {
                chunk[m++] = r;
                continue;
            }
            say_cancelled(r->lease, s, "before it began");
            leave(w, r, must_outcome(OUTCOME_DROPPED, r->lease, r->lease->first + s));
        }
        const struct worker_stage *stage = m > 0 ? worker_stage_find(w, plan->run) : NULL;
        if (stage && !stage->program->step) run_chunk(w, chunk, m, s);
        for (uint32_t i = 0; stage && stage->program->step && i < m; i++)
            join_stage(w, chunk[i], s, stage);
    }
}

/* From stage s to the end, or to a stage that is stepped; frees who has left. */
static void ride(struct worker *w, struct rider **riders, uint32_t n, uint32_t s,
                 uint32_t n_stages) {
    bool joined = false;
    for (; s < n_stages && !joined; s++) {
        run_stage(w, riders, n, s);
        for (uint32_t k = 0; k < n; k++) joined |= riders[k]->lease && riders[k]->stage;
    }
    for (uint32_t k = 0; k < n; k++)
        if (!riders[k]->lease) free(riders[k]);
}

void span_run(struct worker *w, struct lease **batch, uint32_t n) {
    assert(n > 0 && n <= LIMIT_SPAN_JOBS);
    struct rider *riders[LIMIT_SPAN_JOBS];
    uint32_t taken = 0, n_stages = batch[0]->n_stages;
    w->emitter = (struct stage_emitter){emit, w};
    for (uint32_t k = 0; k < n; k++) {
        struct rider *r = calloc(1, sizeof *r);
        if (!r) {
            span_return(w, batch[k], OUTCOME_RETURNED);
            continue;
        }
        r->lease = batch[k];
        r->carried = batch[k]->input;
        r->since_ns = batch[k]->arrived_ms * 1000000;
        riders[taken++] = r;
    }
    if (taken > 0) ride(w, riders, taken, 0, n_stages);
}

/* What has begun is timed from now on; what has not is given back when the worker drains. */
static void look_after(struct worker *w, struct rider *r, int64_t now_ns) {
    if (r->start_ns == 0 && !r->item.waits) {
        r->start_ns = now_ns;
        atomic_store(&r->lease->running_ms, now_ns / 1000000);
    }
    if (r->start_ns != 0 || r->given_back || !atomic_load(&w->draining)) return;
    if (atomic_exchange(&r->lease->cancelled, true)) return;
    r->given_back = true;
}

static void step_ended(struct worker *w, struct rider *r, int64_t now_ns) {
    uint32_t s = r->item.stage - r->lease->first, n_stages = r->lease->n_stages;
    uint32_t i = 0;
    while (w->stepped[i] != r) i++;
    w->stepped[i] = w->stepped[--w->n_stepped];
    r->stage = NULL;
    alight(w, r, s, r->start_ns ? r->start_ns : now_ns, now_ns);
    ride(w, &r, 1, s + 1, n_stages);
}

void span_step(struct worker *w) {
    const struct worker_stage *stepped[WORKER_STAGES_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_stepped; i++) {
        uint32_t k = 0;
        while (k < n && stepped[k] != w->stepped[i]->stage) k++;
        if (k == n) stepped[n++] = w->stepped[i]->stage;
    }
    for (uint32_t k = 0; k < n; k++) {
        struct stage_item *ended[FLIGHT_SLOTS];
        int64_t began_ns = clock_mono_ns();
        uint32_t n_ended = stepped[k]->program->step(stepped[k]->self, ended, FLIGHT_SLOTS);
        int64_t now_ns = clock_mono_ns();
        for (uint32_t i = 0; i < w->n_stepped; i++)
            if (w->stepped[i]->stage == stepped[k]) look_after(w, w->stepped[i], began_ns);
        for (uint32_t i = 0; i < n_ended; i++)
            step_ended(w, (struct rider *)((char *)ended[i] - offsetof(struct rider, item)),
                       now_ns);
    }
}
