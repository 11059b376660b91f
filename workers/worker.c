#include "workers/worker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "kernels/ops.h"
#include "schemas/pack.h"
#include "workers/infer/model.h"
#include "workers/infer/models.h"
#include "workers/link.h"
#include "workers/span.h"

/* Every stage of every lease may have an outcome on its way, and two say how the opening went. */
#define OUTCOMES_MAX (FLIGHT_SLOTS * LIMIT_STAGES + 2u)
#define NOTES_MAX 1024u
#define TURN_MS 20

/* ---- opening ---- */

static int open_models(struct worker *w, char *err, size_t err_bytes) {
    const struct worker_config *c = w->config;
    if (!c->models_dir && c->n_models == 0) return 0;
    struct ops_config oc = {.backend = c->backend, .level = "auto", .threads = c->threads};
    int code = ops_open(&w->ops, &oc, err, err_bytes);
    if (code != 0) return code;
    snprintf(w->numerics_id, sizeof w->numerics_id, "%s", w->ops->numerics_id);
    code = models_open(&w->set, w->ops, c->models_dir, c->models, c->n_models, err, err_bytes);
    struct model_config config = {.cache = true};
    if (code != 0) return code;
    if (c->weights) model_weights_parse(c->weights, &config);
    if (c->memory_efficient) model_config_lean(&config);
    models_configure(w->set, &config);
    return models_speculate(w->set, c->speculate, c->drafts, c->n_drafts, err, err_bytes);
}

static int open_stage(struct worker *w, const struct stage_program *p, char *err,
                      size_t err_bytes) {
    struct stage_context context = {
        .models = w->set, .recipes = w->config->recipes, .load = &w->load};
    struct worker_stage *s = &w->stages[w->n_stages];
    *s = (struct worker_stage){.program = p};
    if (p->needs_model && (!w->set || models_count(w->set) == 0))
        return err_set(err, err_bytes, ERR_UNKNOWN,
                       "stage %s needs a model: start the worker with --models DIR", p->run);
    int code = p->open ? p->open(&s->self, &context, err, err_bytes) : 0;
    if (code == 0) w->n_stages++;
    return code;
}

static int open_stages(struct worker *w, char *err, size_t err_bytes) {
    const struct worker_config *c = w->config;
    for (uint32_t i = 0; i < c->n_programs; i++) {
        int code = open_stage(w, c->programs[i], err, err_bytes);
        if (code == 0) continue;
        if (c->programs_named) return code;
        char quoted[320];
        log_warn("stage_left_out", "run=%s reason=%s", c->programs[i]->run,
                 log_quote(quoted, sizeof quoted, err));
    }
    if (w->n_stages > 0) return 0;
    return err_set(err, err_bytes, ERR_UNKNOWN,
                   "no stage can run here; give the worker its models with --models DIR");
}

static int list_names(struct worker *w) {
    struct packer p = packer_of(&w->runs);
    pack_array(&p, w->n_stages);
    for (uint32_t i = 0; i < w->n_stages; i++) pack_str(&p, w->stages[i].program->run);
    w->n_models = w->set ? models_count(w->set) : 0;
    if (w->n_models > WORKER_MODELS_MAX) w->n_models = WORKER_MODELS_MAX;
    p = packer_of(&w->models);
    pack_array(&p, w->n_models);
    for (uint32_t i = 0; i < w->n_models; i++) pack_str(&p, models_name(w->set, i));
    return w->runs.error != 0 ? w->runs.error : w->models.error;
}

static void open_all(struct worker *w) {
    char err[LIMIT_REASON_BYTES] = "";
    int code = open_models(w, err, sizeof err);
    if (code == 0) code = open_stages(w, err, sizeof err);
    if (code == 0) {
        code = list_names(w);
        if (code != 0) err_set(err, sizeof err, code, "%s", err_text(code));
    }
    struct outcome *o = outcome_new(code == 0 ? OUTCOME_OPENED : OUTCOME_UNOPENED, NULL, 0);
    if (!o) abort();
    snprintf(o->reason, sizeof o->reason, "%s", err);
    ring_push(&w->outcomes, o);
}

static void close_all(struct worker *w) {
    for (uint32_t i = w->n_stages; i-- > 0;)
        if (w->stages[i].program->close) w->stages[i].program->close(w->stages[i].self);
    models_close(w->set);
    ops_close(w->ops);
}

const struct worker_stage *worker_stage_find(const struct worker *w, const char *run) {
    for (uint32_t i = 0; i < w->n_stages; i++)
        if (strcmp(w->stages[i].program->run, run) == 0) return &w->stages[i];
    return NULL;
}

/* ---- batching ---- */

/* Leases that have arrived and not begun, the lower priority first, then the older. */
struct waiting {
    struct lease *lease[FLIGHT_SLOTS];
    uint32_t n;
};

/* The stage with the tightest objective of those that l can be batched for; NULL: none has one. */
static const struct lease_stage *objective(const struct worker *w, const struct lease *l) {
    const struct lease_stage *found = NULL;
    for (uint32_t i = 0; i < l->n_stages; i++) {
        const struct lease_stage *s = &l->stages[i];
        if (worker_stage_find(w, s->run)->program->step) break;
        if (s->batch_slo_ms && (!found || s->batch_slo_ms < found->batch_slo_ms)) found = s;
    }
    return found;
}

static struct pace *pace_of(struct worker *w, const struct lease_stage *s) {
    for (uint32_t i = 0; i < w->n_paces; i++)
        if (strcmp(w->paces[i].run, s->run) == 0 && strcmp(w->paces[i].model, s->model) == 0)
            return &w->paces[i].pace;
    if (w->n_paces == WORKER_PACES_MAX) w->n_paces--; /* the newest makes room */
    struct worker_pace *new = &w->paces[w->n_paces++];
    *new = (struct worker_pace){0};
    memcpy(new->run, s->run, sizeof new->run);
    memcpy(new->model, s->model, sizeof new->model);
    return &new->pace;
}

static size_t size_of(const struct lease *l) {
    return l->body.len + l->input.len + 1;
}

static void take_new(struct worker *w, struct waiting *q) {
    while (q->n < FLIGHT_SLOTS) {
        struct lease *l = ring_pop(&w->leases);
        if (!l) break;
        const struct lease_stage *s = objective(w, l);
        if (s) pace_arrived(pace_of(w, s), l->arrived_ms);
        uint32_t at = q->n++;
        for (; at > 0 && q->lease[at - 1]->priority > l->priority; at--)
            q->lease[at] = q->lease[at - 1];
        q->lease[at] = l;
    }
}

/* Hands back what was cancelled while it waited; everything, when the worker drains. */
static void hand_back(struct worker *w, struct waiting *q) {
    bool draining = atomic_load(&w->draining);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < q->n; i++) {
        struct lease *l = q->lease[i];
        if (atomic_load(&l->cancelled))
            span_return(w, l, OUTCOME_DROPPED);
        else if (draining)
            span_return(w, l, OUTCOME_RETURNED);
        else
            q->lease[kept++] = l;
    }
    q->n = kept;
}

/* How large a batch of l's stages may be, and how long it may wait to become so: those before one
 * that is stepped, which can be joined at any time. */
static uint32_t batch_max(const struct worker *w, const struct lease *l, uint32_t *delay_ms) {
    uint32_t most = 1;
    *delay_ms = 0;
    for (uint32_t i = 0; i < l->n_stages; i++) {
        if (worker_stage_find(w, l->stages[i].run)->program->step) {
            if (i == 0) most = LIMIT_SPAN_JOBS;
            break;
        }
        if (l->stages[i].batch_max > most) most = l->stages[i].batch_max;
        if (l->stages[i].batch_delay_ms > *delay_ms) *delay_ms = l->stages[i].batch_delay_ms;
    }
    if (!l->alone && most > 1) return most;
    *delay_ms = 0;
    return 1;
}

/* How many of those that match the first lease to run now, by its objective; else 0 and *wait_ms.
 */
static uint32_t batch_by_pace(struct worker *w, const struct waiting *q, uint32_t most,
                              const struct lease_stage *s, int64_t now_ms, int64_t *wait_ms) {
    const struct lease *lead = q->lease[0];
    int64_t oldest_ms = lead->arrived_ms;
    size_t bytes[FLIGHT_SLOTS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < q->n; i++) {
        const struct lease *l = q->lease[i];
        if (i > 0 && !lease_matches(lead, l)) continue;
        bytes[n++] = size_of(l);
        if (l->arrived_ms < oldest_ms) oldest_ms = l->arrived_ms;
    }
    struct pace_wish wish = {.bytes = bytes,
                             .n = n,
                             .most = most,
                             .age_ms = now_ms - oldest_ms,
                             .slo_ms = s->batch_slo_ms};
    return pace_take(pace_of(w, s), &wish, now_ms, wait_ms);
}

/* Takes the batch that the first lease leads, when it is full or has waited long enough; else 0 and
 * *wait_ms says how much longer. */
static uint32_t take_batch(struct worker *w, struct waiting *q, int64_t now_ms,
                           struct lease **batch, int64_t *wait_ms) {
    *wait_ms = -1;
    if (q->n == 0) return 0;
    const struct lease *lead = q->lease[0];
    const struct lease_stage *s = lead->alone ? NULL : objective(w, lead);
    uint32_t delay_ms, most = batch_max(w, lead, &delay_ms), n = 1;
    if (s) {
        n = batch_by_pace(w, q, most, s, now_ms, wait_ms);
        if (n == 0) return 0;
    } else {
        for (uint32_t i = 1; i < q->n && n < most; i++) n += lease_matches(lead, q->lease[i]);
        int64_t due_ms = lead->arrived_ms + delay_ms;
        if (n < most && now_ms < due_ms) {
            *wait_ms = due_ms - now_ms;
            return 0;
        }
    }
    uint32_t taken = 0, kept = 0;
    for (uint32_t i = 0; i < q->n; i++) {
        struct lease *l = q->lease[i];
        if (i == 0 || (taken < n && lease_matches(lead, l)))
            batch[taken++] = l;
        else
            q->lease[kept++] = l;
    }
    q->n = kept;
    return taken;
}

static void run_batch(struct worker *w, struct lease **batch, uint32_t n) {
    const struct lease_stage *s = objective(w, batch[0]);
    struct pace *pace = s ? pace_of(w, s) : NULL;
    size_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) bytes += size_of(batch[i]);
    int64_t began_ns = clock_mono_ns();
    span_run(w, batch, n); /* the leases are gone */
    if (pace) pace_ran(pace, bytes, (double)(clock_mono_ns() - began_ns) / 1e6);
}

/* Runs the batches that are ready, for about TURN_MS: long enough that many short ones reach a
 * stage that is stepped before its next step, short enough that it is not kept waiting. */
static void run_batches(struct worker *w, struct waiting *q, int64_t *wait_ms) {
    struct lease *batch[LIMIT_SPAN_JOBS];
    int64_t until_ms = clock_mono_ms() + TURN_MS;
    for (int64_t now_ms = 0; now_ms < until_ms;) {
        take_new(w, q);
        hand_back(w, q);
        now_ms = clock_mono_ms();
        uint32_t n = take_batch(w, q, now_ms, batch, wait_ms);
        if (n == 0) return;
        run_batch(w, batch, n);
    }
    *wait_ms = 0;
}

static void *compute_thread_main(void *arg) {
    struct worker *w = arg;
    struct waiting q = {.n = 0};
    int64_t wait_ms;
    open_all(w);
    for (;;) {
        run_batches(w, &q, &wait_ms);
        if (w->n_stepped > 0)
            span_step(w);
        else if (q.n == 0 && ring_done(&w->leases))
            break;
        else if (wait_ms != 0)
            ring_wait(&w->leases, (int)wait_ms);
    }
    close_all(w);
    return NULL;
}

/* ---- the process ---- */

int worker_run(const struct worker_config *c, struct flight *f) {
    struct worker *w = calloc(1, sizeof *w);
    pthread_t compute;
    int status = 1;
    int code = w ? 0 : -ENOMEM;
    if (code == 0) {
        w->config = c;
        w->flight = f;
        w->leases.fd = w->outcomes.fd = w->notes.fd = -1;
        code = ring_init(&w->leases, FLIGHT_SLOTS);
    }
    if (code == 0) code = ring_init(&w->outcomes, OUTCOMES_MAX);
    if (code == 0) code = ring_init(&w->notes, NOTES_MAX);
    if (code == 0) code = thread_start(&compute, "compute", compute_thread_main, w);
    if (code == 0) {
        status = link_run(w);
        ring_close(&w->leases);
        pthread_join(compute, NULL);
    } else {
        log_error("worker_start_failed", "error=\"%s\"", err_text(code));
    }
    for (struct note *n; w && w->notes.slot && (n = ring_pop(&w->notes));) note_free(n);
    for (struct outcome *o; w && w->outcomes.slot && (o = ring_pop(&w->outcomes));) {
        if (o->ends) lease_free(o->lease);
        outcome_free(o);
    }
    if (w) {
        ring_fini(&w->leases);
        ring_fini(&w->outcomes);
        ring_fini(&w->notes);
        buf_fini(&w->runs);
        buf_fini(&w->models);
    }
    free(w);
    return status;
}
