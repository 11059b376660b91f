#include "broker/job.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "broker/source.h"
#include "broker/tenant.h"

struct job *job_new(const struct pipeline *p) {
    struct job *j = calloc(1, sizeof *j);
    if (!j) return NULL;
    j->pipeline = p;
    j->n_stages = (uint8_t)p->n_stages;
    return j;
}

int job_begin(struct job *j) {
    if (!j->stages) j->stages = calloc(j->n_stages, sizeof *j->stages);
    return j->stages ? 0 : -ENOMEM;
}

void job_body_leave(struct job *j) {
    free((void *)j->body.inlined.data);
    j->body.inlined = (struct bytes){NULL, 0};
}

void job_free(struct job *j) {
    if (!j) return;
    source_leave(j);
    for (uint32_t i = 0; i < j->n_tries; i++) free(j->try_log[i].reason);
    for (uint32_t i = 0; j->stages && i < j->n_stages; i++) free((char *)j->stages[i].numerics_id);
    free(j->stages);
    free(j->try_log);
    free(j->lines);
    free((void *)j->key.data);
    free((void *)j->body.inlined.data);
    free((void *)j->input.inlined.data);
    free((void *)j->result.inlined.data);
    free(j->reason);
    free((void *)j->handed.data);
    free(j);
}

int64_t job_backoff_ms(const struct pipeline *p, uint32_t tries) {
    int64_t ms = p->backoff_ms;
    for (uint32_t i = 1; i < tries && ms < p->backoff_max_ms; i++) ms *= 2;
    return ms < p->backoff_max_ms ? ms : p->backoff_max_ms;
}

static uint32_t finish(struct job *j, enum job_state state, enum job_error error, int64_t now_ms) {
    uint32_t fx = JOB_FX_COMMIT | JOB_FX_TERMINAL | JOB_FX_UNQUEUE;
    if (j->state == JOB_LEASED) fx |= JOB_FX_UNLEASE;
    j->state = state;
    j->error = error;
    j->finished_ms = now_ms;
    return fx;
}

static uint32_t to_ready(struct job *j, int64_t now_ms) {
    j->state = JOB_READY;
    j->queued_ms = now_ms;
    return JOB_FX_READY;
}

static uint32_t stage_done(struct job *j, const struct job_event *e, int64_t now_ms) {
    j->tries = j->timeouts = 0;
    if (j->stage + 1 == j->n_stages) return finish(j, JOB_DONE, JOB_ERROR_NONE, now_ms);
    bool checkpoint = j->pipeline->stages[j->stage].checkpoint;
    bool fans_out = j->pipeline->stages[j->stage].fan_out != NULL;
    j->stages[j->stage++].queued_ms = j->queued_ms;
    if (fans_out) {
        j->state = JOB_WAITING;
        return JOB_FX_UNLEASE | JOB_FX_COMMIT;
    }
    if (e->more) { /* the same token goes on with the next stage of its span */
        assert(j->span > 1);
        j->span--;
        j->queued_ms = now_ms;
        j->stages[j->stage].started_ms = now_ms;
        return checkpoint ? JOB_FX_COMMIT : 0;
    }
    return to_ready(j, now_ms) | JOB_FX_UNLEASE | (checkpoint ? JOB_FX_COMMIT : 0);
}

static uint32_t stage_failed(struct job *j, enum job_error error, int64_t now_ms) {
    const struct pipeline *p = j->pipeline;
    if (error == JOB_ERROR_WORKER_DIED) {
        if (++j->deaths >= p->deaths_max) return finish(j, JOB_FAILED, error, now_ms) | JOB_FX_TRY;
        return to_ready(j, now_ms) | JOB_FX_UNLEASE | JOB_FX_COMMIT | JOB_FX_TRY;
    }
    bool over = error == JOB_ERROR_PERMANENT;
    if (error == JOB_ERROR_TIMEOUT)
        over = ++j->timeouts >= p->timeouts_max;
    else
        over |= ++j->tries >= p->tries_max;
    if (over) return finish(j, JOB_FAILED, error, now_ms) | JOB_FX_TRY;
    j->state = JOB_DELAYED;
    j->ready_ms = now_ms + job_backoff_ms(p, j->tries + j->timeouts);
    return JOB_FX_DELAY | JOB_FX_UNLEASE | JOB_FX_COMMIT | JOB_FX_TRY;
}

static bool holds_token(const struct job *j, const struct job_event *e) {
    return j->state == JOB_LEASED && e->attempt == j->attempt;
}

static uint32_t kept(struct job *j, int64_t now_ms) {
    assert(j->state == JOB_CANCELLED);
    j->error = JOB_ERROR_NONE;
    j->finished_ms = 0;
    if (j->ready_ms <= now_ms) return to_ready(j, now_ms);
    j->state = JOB_DELAYED;
    return JOB_FX_DELAY;
}

uint32_t job_transition(struct job *j, const struct job_event *e, int64_t now_ms) {
    if (e->type == JOB_EV_KEPT) return kept(j, now_ms);
    if (job_state_terminal(j->state)) return e->attempt ? JOB_FX_STALE : 0;
    switch (e->type) {
    case JOB_EV_COMMITTED:
        if (j->state != JOB_ACCEPTED) return 0;
        if (j->ready_ms <= now_ms) return to_ready(j, now_ms);
        j->state = JOB_DELAYED;
        return JOB_FX_DELAY;
    case JOB_EV_DUE:
        if (j->state == JOB_WAITING) return j->n_expected ? 0 : JOB_FX_JOIN;
        if (j->state != JOB_DELAYED || j->ready_ms > now_ms) return 0;
        return to_ready(j, now_ms);
    case JOB_EV_LEASED:
        assert(j->state == JOB_READY && e->attempt > j->attempt && e->span > 0);
        assert(j->stages && j->stage + e->span <= j->n_stages);
        j->state = JOB_LEASED;
        j->attempt = e->attempt;
        j->span = (uint8_t)e->span;
        j->leased_ms = now_ms;
        j->stages[j->stage].started_ms = now_ms;
        return JOB_FX_UNQUEUE;
    case JOB_EV_STAGE_DONE:
        /* `more` beyond the leased span is a lie that would strand the job. */
        if (!holds_token(j, e) || e->stage != j->stage || (e->more && j->span < 2))
            return JOB_FX_STALE;
        if (e->more && j->pipeline->stages[j->stage].fan_out) return JOB_FX_STALE;
        return stage_done(j, e, now_ms);
    case JOB_EV_FAILED:
        if (!holds_token(j, e)) return JOB_FX_STALE;
        return stage_failed(j, e->error, now_ms);
    case JOB_EV_LOST:
        if (!holds_token(j, e)) return JOB_FX_STALE;
        return stage_failed(j, JOB_ERROR_WORKER_DIED, now_ms);
    case JOB_EV_RETURNED:
        if (!holds_token(j, e)) return JOB_FX_STALE;
        return to_ready(j, now_ms) | JOB_FX_UNLEASE;
    case JOB_EV_CHILD:
        if (j->state != JOB_WAITING) return 0;
        assert(j->n_expected > 0);
        return --j->n_expected ? 0 : JOB_FX_JOIN;
    case JOB_EV_JOINED:
        if (j->state != JOB_WAITING || j->n_expected) return 0;
        if (e->error) return finish(j, JOB_FAILED, e->error, now_ms);
        return to_ready(j, now_ms) | JOB_FX_COMMIT;
    case JOB_EV_CANCEL: return finish(j, JOB_CANCELLED, JOB_ERROR_CANCELLED, now_ms);
    case JOB_EV_EXPIRE:
        if (!j->expires_ms || j->expires_ms > now_ms) return 0;
        return finish(j, JOB_EXPIRED, JOB_ERROR_NONE, now_ms);
    case JOB_EV_KEPT: break;
    }
    return 0;
}

int job_payload_set(struct job_payload *p, const struct bytes *parts, uint32_t n) {
    struct job_payload out = {0};
    for (uint32_t i = 0; i < n; i++) {
        out.bytes += parts[i].len;
        out.crc = crc32c(out.crc, parts[i].data, parts[i].len);
    }
    out.in_blob = out.bytes > LIMIT_INLINE_BYTES;
    if (out.bytes && !out.in_blob) {
        uint8_t *copy = malloc(out.bytes);
        if (!copy) return -ENOMEM;
        size_t at = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (parts[i].len) memcpy(copy + at, parts[i].data, parts[i].len);
            at += parts[i].len;
        }
        out.inlined = bytes_of(copy, at);
    }
    free((void *)p->inlined.data);
    *p = out;
    return 0;
}

void job_set_reason(struct job *j, struct bytes reason) {
    size_t n = utf8_cut(reason, LIMIT_REASON_BYTES - 1); /* half a character would not be sent */
    free(j->reason);
    j->reason = n ? bytes_dup(bytes_of(reason.data, n)) : NULL;
}

void job_log_try(struct job *j, const char *worker, uint32_t stage, enum job_error error,
                 struct bytes reason, int64_t now_ms) {
    if (!j->try_log) j->try_log = calloc(LIMIT_ATTEMPTS, sizeof *j->try_log);
    if (!j->try_log) return; /* the log is a courtesy; the counts that decide are in the job */
    if (j->n_tries == LIMIT_ATTEMPTS) {
        free(j->try_log[0].reason);
        memmove(j->try_log, j->try_log + 1, (LIMIT_ATTEMPTS - 1) * sizeof *j->try_log);
        j->n_tries--;
    }
    struct job_try *t = &j->try_log[j->n_tries++];
    *t = (struct job_try){.stage = stage,
                          .error = error,
                          .attempt = j->attempt,
                          .started_ms = j->leased_ms,
                          .ended_ms = now_ms};
    snprintf(t->worker, sizeof t->worker, "%s", worker);
    t->reason = reason.len ? bytes_dup(reason) : NULL;
}

void job_note(struct job *j, const struct job_line *line) {
    if (j->n_lines == LIMIT_NOTES) {
        memmove(j->lines, j->lines + 1, (LIMIT_NOTES - 1) * sizeof *j->lines);
        j->n_lines--;
    }
    if (j->n_lines == j->lines_cap) {
        uint16_t cap = j->lines_cap ? (uint16_t)(j->lines_cap * 2) : 4;
        struct job_line *more = realloc(j->lines, cap * sizeof *more);
        if (!more) return; /* as the log of tries */
        j->lines = more;
        j->lines_cap = cap;
    }
    j->lines[j->n_lines++] = *line;
}

void job_unnote(struct job *j) {
    if (j->n_lines && j->lines[j->n_lines - 1].type == JOB_NOTE_ENDED) j->n_lines--;
}

/* Copies into the arena; an empty span stays empty. Clears *ok without memory. */
static struct bytes keep(struct arena *a, struct bytes b, bool *ok) {
    if (b.len == 0) return (struct bytes){NULL, 0};
    void *copy = arena_copy(a, b.data, b.len);
    if (!copy) *ok = false;
    return bytes_of(copy, copy ? b.len : 0);
}

static struct bytes keep_str(struct arena *a, const char *text, bool *ok) {
    return keep(a, text ? bytes_str(text) : (struct bytes){NULL, 0}, ok);
}

static struct job_payload keep_payload(struct arena *a, const struct job_payload *p, bool *ok) {
    struct job_payload out = *p;
    out.inlined = keep(a, p->inlined, ok);
    return out;
}

static struct job_payload body_left(const struct job *j) {
    struct job_payload out = j->body;
    out.inlined = (struct bytes){NULL, 0};
    return out;
}

static bool keep_notes(const struct job *j, struct arena *a, struct job_record *out) {
    bool ok = true;
    struct job_note *notes = j->n_lines ? arena_calloc(a, j->n_lines, sizeof *notes) : NULL;
    if (j->n_lines && !notes) return false;
    for (uint32_t i = 0; i < j->n_lines; i++) {
        const struct job_line *l = &j->lines[i];
        notes[i] = (struct job_note){.seq = l->seq,
                                     .type = (enum job_note_type)l->type,
                                     .state = (enum job_state)l->state,
                                     .error = (enum job_error)l->error,
                                     .stage = l->stage,
                                     .attempt = l->attempt,
                                     .at_ms = l->at_ms,
                                     .by = keep_str(a, l->by, &ok)};
    }
    out->notes = notes;
    out->n_notes = j->n_lines;
    return ok;
}

int job_record_make(const struct job *j, struct arena *a, struct job_record *out) {
    bool ok = true, first = j->state == JOB_ACCEPTED;
    struct job_stage_record *stages = arena_calloc(a, j->n_stages, sizeof *stages);
    struct job_attempt *tries = j->n_tries ? arena_calloc(a, j->n_tries, sizeof *tries) : NULL;
    if (!stages || (j->n_tries && !tries)) return -ENOMEM;
    for (uint32_t i = 0; i < j->n_stages; i++) {
        const struct job_stage none = {0}, *s = j->stages ? &j->stages[i] : &none;
        stages[i] =
            (struct job_stage_record){.name = bytes_str(j->pipeline->stages[i].name),
                                      .worker = keep_str(a, s->worker, &ok),
                                      .numerics_id = keep_str(a, s->numerics_id, &ok),
                                      .attempt = s->attempt,
                                      .queued_ms = i == j->stage ? j->queued_ms : s->queued_ms,
                                      .started_ms = s->started_ms,
                                      .done_ms = s->done_ms,
                                      .run_us = s->run_us,
                                      .output_bytes = s->output_bytes};
    }
    for (uint32_t i = 0; i < j->n_tries; i++) {
        const struct job_try *t = &j->try_log[i];
        tries[i] = (struct job_attempt){.stage = t->stage,
                                        .error = t->error,
                                        .attempt = t->attempt,
                                        .started_ms = t->started_ms,
                                        .ended_ms = t->ended_ms,
                                        .worker = keep_str(a, t->worker, &ok),
                                        .reason = keep_str(a, t->reason, &ok)};
    }
    *out = (struct job_record){
        .id = j->id,
        .seed = j->seed,
        .kind = bytes_str(j->kind->name),
        .tenant = bytes_str(j->tenant->name),
        .key = j->key,
        .pipeline = bytes_str(j->pipeline->name),
        .plan = j->pipeline->plan,
        .state = j->state == JOB_LEASED || j->state == JOB_ACCEPTED ? JOB_READY : j->state,
        .error = j->error,
        .priority = j->priority,
        .stage = job_state_terminal(j->state) ? j->stage : j->durable_stage,
        .tries = j->tries,
        .timeouts = j->timeouts,
        .deaths = j->deaths,
        .attempt = j->attempt,
        .accepted_ms = j->accepted_ms,
        .ready_ms = j->ready_ms,
        .expires_ms = j->expires_ms,
        .finished_ms = j->finished_ms,
        .reason = keep_str(a, j->reason, &ok),
        .body = first ? j->body : body_left(j),
        .input = keep_payload(a, &j->input, &ok),
        .result = keep_payload(a, &j->result, &ok),
        .input_stage = j->input_stage,
        .n_stages = j->n_stages,
        .n_attempts = j->n_tries,
        .stages = stages,
        .attempts = tries,
        .origin = j->origin,
        .source = keep_str(a, j->seat ? j->seat->source->name : NULL, &ok),
        .parent = j->parent,
        .child = j->child,
        .first_child = j->first_child,
        .n_children = j->n_children};
    ok = ok && keep_notes(j, a, out);
    if (out->state == JOB_READY && j->ready_ms > j->accepted_ms && j->state == JOB_ACCEPTED)
        out->state = JOB_DELAYED;
    return ok ? 0 : -ENOMEM;
}

static bool own(struct bytes *to, struct bytes from) {
    *to = (struct bytes){NULL, 0};
    if (from.len == 0) return true;
    void *copy = malloc(from.len);
    if (!copy) return false;
    memcpy(copy, from.data, from.len);
    *to = bytes_of(copy, from.len);
    return true;
}

static bool own_payload(struct job_payload *to, const struct job_payload *from) {
    *to = *from;
    return own(&to->inlined, from->inlined);
}

static void copy_name(char to[LIMIT_NAME_BYTES + 1], struct bytes from) {
    size_t n = from.len < LIMIT_NAME_BYTES ? from.len : LIMIT_NAME_BYTES;
    if (n) memcpy(to, from.data, n);
    to[n] = 0;
}

int job_from_record(const struct job_record *r, const struct kind_desc *kind,
                    const struct pipeline *p, struct job **out) {
    if (r->n_stages != p->n_stages || r->stage >= p->n_stages) return ERR_CORRUPT;
    struct job *j = job_new(p);
    if (!j) return -ENOMEM;
    j->id = r->id;
    j->seed = r->seed;
    j->kind = kind;
    bool timed = r->state == JOB_DELAYED || r->state == JOB_WAITING;
    j->state = (timed ? r->state : JOB_READY) & 0xFF;
    j->parent = r->parent;
    j->child = (uint16_t)r->child;
    j->first_child = r->first_child;
    j->n_children = (uint16_t)r->n_children;
    j->priority = (uint8_t)r->priority;
    j->stage = r->stage;
    j->durable_stage = (uint8_t)r->stage;
    j->tries = (uint16_t)r->tries;
    j->timeouts = (uint16_t)r->timeouts;
    j->deaths = (uint16_t)r->deaths;
    j->attempt = r->attempt;
    j->accepted_ms = r->accepted_ms;
    j->ready_ms = r->ready_ms;
    j->expires_ms = r->expires_ms;
    j->queued_ms = r->n_stages ? r->stages[r->stage].queued_ms : 0;
    j->input_stage = (uint8_t)r->input_stage;
    bool ok = own(&j->key, r->key) && own_payload(&j->body, &r->body) &&
              own_payload(&j->input, &r->input);
    if (r->attempt) ok = ok && job_begin(j) == 0; /* it was leased before */
    for (uint32_t i = 0; r->attempt && i < r->n_stages && ok; i++) {
        struct job_stage *s = &j->stages[i];
        const struct job_stage_record *from = &r->stages[i];
        copy_name(s->worker, from->worker);
        s->attempt = from->attempt;
        s->queued_ms = from->queued_ms;
        s->started_ms = from->started_ms;
        s->done_ms = from->done_ms;
        s->run_us = from->run_us;
        s->output_bytes = from->output_bytes;
        if (from->numerics_id.len) s->numerics_id = bytes_dup(from->numerics_id);
    }
    for (uint32_t i = 0; i < r->n_attempts && ok; i++) {
        const struct job_attempt *from = &r->attempts[i];
        char worker[LIMIT_NAME_BYTES + 1];
        copy_name(worker, from->worker);
        j->attempt = from->attempt;
        j->leased_ms = from->started_ms;
        job_log_try(j, worker, from->stage, from->error, from->reason, from->ended_ms);
    }
    for (uint32_t i = 0; i < r->n_notes && ok; i++) {
        const struct job_note *n = &r->notes[i];
        struct job_line line = {.seq = n->seq,
                                .attempt = n->attempt,
                                .at_ms = n->at_ms,
                                .type = (uint8_t)n->type,
                                .state = (uint8_t)n->state,
                                .error = (uint8_t)n->error,
                                .stage = (uint8_t)n->stage};
        copy_name(line.by, n->by);
        job_note(j, &line);
        j->told_seq = j->last_seq = n->seq;
    }
    j->attempt = r->attempt;
    j->origin = r->origin;
    if (!ok) {
        job_free(j);
        return -ENOMEM;
    }
    *out = j;
    return 0;
}
