#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "schemas/pack.h"

static uint64_t input_bytes(const struct job *j) {
    return j->body.bytes + (j->in_memory ? j->handed.len : j->stage ? j->input.bytes : 0);
}

/* A worker died while it held j, beside others perhaps. From then on j is leased to a worker that
 * holds nothing else: what dies with it then died of it, and who was only near is cleared. */
static bool is_suspect(const struct job *j) {
    return j->deaths > 0;
}

/* It holds a suspect, or drains for one. */
static bool is_apart(const struct worker *w) {
    return w->kept || (w->first && is_suspect(w->first));
}

/* The least loaded worker that can run j and has credit for it; for a suspect the one to wait for,
 * when it holds something. */
static struct worker *best_worker(const struct broker *b, const struct job *j) {
    const struct pipeline_stage *s = &j->pipeline->stages[j->stage];
    uint64_t bytes = input_bytes(j);
    bool suspect = is_suspect(j);
    struct worker *best = NULL;
    for (struct worker *w = b->peers.first; w; w = w->next)
        if ((!best || w->leases < best->leases) && worker_can(w, s->run, s->model) &&
            (suspect ? worker_serves(w) : !is_apart(w) && worker_has_credit(w, bytes)))
            best = w;
    return best;
}

/* Of the lease before in the same turn, when it is the same. */
static struct bytes plan_of(struct broker *b, const struct job *j, uint32_t span) {
    struct lease_plan *was = &b->plan;
    if (was->of == j->pipeline && was->stage == j->stage && was->span == span)
        return buf_bytes(&was->packed);
    was->of = j->pipeline;
    was->stage = j->stage;
    was->span = span;
    buf_clear(&was->packed);
    was->packed.max_bytes = LIMIT_HEADER_BYTES;
    struct packer p = packer_of(&was->packed);
    pack_array(&p, span);
    for (uint32_t i = 0; i < span; i++) {
        const struct pipeline_stage *s = &j->pipeline->stages[j->stage + i];
        pack_map(&p, 6u + (s->batch_slo_ms != 0) + (s->model != NULL) + (s->adapter != NULL));
        pack_kv_str(&p, "name", s->name);
        pack_kv_str(&p, "run", s->run);
        if (s->model) pack_kv_str(&p, "model", s->model);
        if (s->adapter) pack_kv_str(&p, "adapter", s->adapter);
        pack_kv_u64(&p, "timeout_ms", s->timeout_ms);
        pack_kv_u64(&p, "batch_max", s->batch_max);
        pack_kv_u64(&p, "batch_delay_ms", s->batch_delay_ms);
        if (s->batch_slo_ms) pack_kv_u64(&p, "batch_slo_ms", s->batch_slo_ms);
        pack_kv_bool(&p, "checkpoint", s->checkpoint);
    }
    return buf_bytes(&was->packed);
}

static int load_payload(struct broker *b, uint64_t job, uint32_t slot, const struct job_payload *p,
                        struct store_read **t, struct buf *out) {
    if (!p->in_blob && !job_payload_left(p))
        return p->bytes ? buf_append(out, p->inlined.data, p->inlined.len) : 0;
    int e = *t ? 0 : store_read_begin(b->store, t);
    if (e || p->in_blob) return e ? e : store_payload_get(*t, job, slot, p, out);
    struct job_record r;
    e = jobs_get(*t, job, &r, NULL);
    return e ? e : buf_append(out, r.body.inlined.data, r.body.inlined.len);
}

/* Cuts [from, to) of b->payload into frames. */
static void cut(const struct broker *b, size_t from, size_t to, struct bytes *frame, uint32_t *n) {
    for (size_t at = from; at < to; at += LIMIT_FRAME_BYTES) {
        size_t left = to - at;
        frame[(*n)++] =
            bytes_of(b->payload.data + at, left < LIMIT_FRAME_BYTES ? left : LIMIT_FRAME_BYTES);
    }
}

/* The body, then the input, both cut into frames; n_body of them are the body. The bytes lie in
 * b->payload. */
static int load_frames(struct broker *b, const struct job *j, struct bytes *frame, uint32_t *n,
                       uint32_t *n_body) {
    struct store_read *t = NULL;
    buf_clear(&b->payload);
    int e = load_payload(b, j->id, JOB_SLOT_BODY, &j->body, &t, &b->payload);
    size_t body = b->payload.len;
    if (!e && j->in_memory)
        e = buf_append(&b->payload, j->handed.data, j->handed.len);
    else if (!e && j->stage)
        e = load_payload(b, j->id, JOB_SLOT_STAGE + j->input_stage, &j->input, &t, &b->payload);
    if (t) store_read_end(t);
    if (e) return e;
    *n = 0;
    cut(b, 0, body, frame, n);
    *n_body = *n;
    cut(b, body, b->payload.len, frame, n);
    return 0;
}

/* Payloads that cannot be read any more end the job: retrying would not bring them back. */
static void fail_unreadable(struct broker *b, struct job *j, int error) {
    char reason[LIMIT_REASON_BYTES], id[JOB_ID_CHARS + 1];
    job_id_text(j->id, id);
    snprintf(reason, sizeof reason,
             "the stored payload of stage %u cannot be read: %s; run `penstock store check`",
             j->stage, err_text(error));
    log_error("payload_unreadable", "job=%s error=\"%s\"", id, err_text(error));
    job_set_reason(j, bytes_str(reason));
    struct job_event lease = {.type = JOB_EV_LEASED, .attempt = ++b->next_attempt, .span = 1};
    effects_event(b, j, &lease);
    struct job_event fail = {.type = JOB_EV_FAILED,
                             .attempt = j->attempt,
                             .stage = j->stage,
                             .error = JOB_ERROR_PERMANENT};
    effects_event(b, j, &fail);
}

static int64_t lease_limit_ms(const struct broker *b, const struct job *j, const struct worker *w,
                              uint32_t span) {
    int64_t ms = 0;
    for (uint32_t i = 0; i < span; i++) ms += j->pipeline->stages[j->stage + i].timeout_ms;
    /* It may wait behind everything that this worker holds already. */
    return ms * ((int64_t)w->leases + 1) + b->config.lease_ms;
}

/* Returns false when nothing can be leased just now. */
static bool lease(struct broker *b, struct job *j, struct worker *w) {
    struct bytes frame[LIMIT_FRAMES];
    uint32_t n, n_body;
    int e = job_begin(j);
    if (!e) e = load_frames(b, j, frame, &n, &n_body);
    if (e == ERR_CORRUPT || e == -ENOENT) {
        fail_unreadable(b, j, e);
        return true;
    }
    if (e) {
        log_error("lease_failed", "error=\"%s\"", err_text(e));
        return false;
    }
    uint32_t span = caps_span(&b->load.caps, j, worker_span(w, j));
    struct job_event event = {.type = JOB_EV_LEASED, .attempt = ++b->next_attempt, .span = span};
    int64_t left_ms = j->expires_ms - b->now_wall_ms;
    struct msg_lease m = {.job = j->id,
                          .kind = bytes_str(j->kind->name),
                          .stage = j->stage,
                          .attempt = event.attempt,
                          .seed = j->seed,
                          .left_ms = j->expires_ms ? (uint64_t)(left_ms > 1 ? left_ms : 1) : 0,
                          .priority = j->priority,
                          .body_parts = n_body,
                          .alone = is_suspect(j),
                          .plan = plan_of(b, j, span)};
    e = reply(b, b->workers, &w->peer, MSG_LEASE, &m, frame, n);
    if (e == -EHOSTUNREACH) {
        worker_lost(b, w, "its connection is gone");
        return true;
    }
    if (e) { /* it does not read: no more until it is heard again */
        w->choked = true;
        return true;
    }
    due_set(&b->leases, &j->lease_due, b->now_ms + lease_limit_ms(b, j, w, span));
    worker_take(w, j, input_bytes(j));
    ready_serve(j);
    int64_t waited_ms = b->now_wall_ms - j->queued_ms;
    histogram_add(&tally_times_of(&b->tally, j->pipeline->stages[j->stage].run)->wait,
                  waited_ms > 0 ? (uint64_t)waited_ms * 1000 : 0);
    b->tally.dispatched++;
    effects_event(b, j, &event);
    return true;
}

void match(struct broker *b) {
    bool waits[READY_QUEUES] = {false}; /* its head is a suspect whose worker still holds others */
    if (b->draining || b->disk_error) return; /* what ran now could not be recorded */
    b->plan.of = NULL; /* a pipeline may have been read anew where another one lay */
    for (struct worker *w = b->peers.first; w; w = w->next) w->kept = false;
    for (uint32_t room = LIMIT_WORKERS * LIMIT_SPAN_JOBS; room; room--) {
        struct job *best = NULL;
        struct worker *with = NULL;
        uint32_t from = 0;
        for (uint32_t i = 0; i < b->ready.n; i++) {
            struct job *j = waits[i] ? NULL : ready_head(&b->ready.queue[i]);
            if (!j || (best && !ready_before(j, best)) || !caps_span(&b->load.caps, j, 1)) continue;
            struct worker *w = best_worker(b, j);
            if (!w) continue;
            best = j;
            with = w;
            from = i;
        }
        if (!best) return;
        if (is_suspect(best) && with->leases > 0)
            waits[from] = with->kept = true;
        else if (!lease(b, best, with))
            return;
    }
}
