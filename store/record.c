#include "store/record.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"

#define HEAD_BYTES 8u /* magic, version, crc */

enum payload_place { PAYLOAD_ABSENT, PAYLOAD_INLINE, PAYLOAD_BLOB };

static void put_payload(struct buf *b, const struct job_payload *p) {
    buf_u64le(b, p->bytes);
    buf_u32le(b, p->crc);
    buf_u8(b, p->bytes == 0 ? PAYLOAD_ABSENT : p->in_blob ? PAYLOAD_BLOB : PAYLOAD_INLINE);
    if (p->bytes > 0 && !p->in_blob) buf_append(b, p->inlined.data, p->inlined.len);
}

static void put_stage(struct buf *b, const struct job_stage_record *s) {
    buf_lenbytes(b, s->name);
    buf_lenbytes(b, s->worker);
    buf_lenbytes(b, s->numerics_id);
    buf_u64le(b, s->attempt);
    buf_u64le(b, (uint64_t)s->queued_ms);
    buf_u64le(b, (uint64_t)s->started_ms);
    buf_u64le(b, (uint64_t)s->done_ms);
    buf_u64le(b, s->run_us);
    buf_u64le(b, s->output_bytes);
}

static void put_attempt(struct buf *b, const struct job_attempt *a) {
    buf_u32le(b, a->stage);
    buf_u8(b, (uint8_t)a->error);
    buf_u64le(b, a->attempt);
    buf_u64le(b, (uint64_t)a->started_ms);
    buf_u64le(b, (uint64_t)a->ended_ms);
    buf_lenbytes(b, a->worker);
    buf_lenbytes(b, a->reason);
}

static void put_note(struct buf *b, const struct job_note *n) {
    buf_u64le(b, n->seq);
    buf_u8(b, (uint8_t)n->type);
    buf_u8(b, (uint8_t)n->state);
    buf_u8(b, (uint8_t)n->error);
    buf_u8(b, (uint8_t)n->stage);
    buf_u64le(b, n->attempt);
    buf_u64le(b, (uint64_t)n->at_ms);
    buf_lenbytes(b, n->by);
}

static bool payload_fits(const struct job_payload *p) {
    if (p->bytes > LIMIT_OUTPUT_BYTES) return false;
    return p->bytes == 0 || p->in_blob ||
           (p->bytes <= LIMIT_INLINE_BYTES && p->inlined.len == p->bytes);
}

/* Whether every field is within its limit, of what we write and of what we read alike. */
static bool fits(const struct job_record *r) {
    bool ok = r->kind.len <= LIMIT_NAME_BYTES && r->tenant.len <= LIMIT_NAME_BYTES &&
              r->key.len <= LIMIT_KEY_BYTES && r->pipeline.len <= LIMIT_NAME_BYTES &&
              r->plan.len <= LIMIT_HEADER_BYTES && r->reason.len <= LIMIT_REASON_BYTES &&
              r->source.len <= LIMIT_NAME_BYTES && r->state < JOB_STATES &&
              r->state != JOB_LEASED && r->error < JOB_ERRORS && r->n_stages <= LIMIT_STAGES &&
              r->n_attempts <= LIMIT_ATTEMPTS && r->stage <= LIMIT_STAGES &&
              r->child <= LIMIT_CHILDREN && r->n_children <= LIMIT_CHILDREN &&
              r->n_notes <= LIMIT_NOTES && r->input_stage <= LIMIT_STAGES &&
              payload_fits(&r->body) && payload_fits(&r->input) && payload_fits(&r->result);
    for (uint32_t i = 0; ok && r->stages && i < r->n_stages; i++)
        ok = r->stages[i].name.len <= LIMIT_NAME_BYTES &&
             r->stages[i].worker.len <= LIMIT_NAME_BYTES && r->stages[i].numerics_id.len <= 128;
    for (uint32_t i = 0; ok && r->attempts && i < r->n_attempts; i++)
        ok = r->attempts[i].worker.len <= LIMIT_NAME_BYTES &&
             r->attempts[i].reason.len <= LIMIT_REASON_BYTES && r->attempts[i].error < JOB_ERRORS;
    for (uint32_t i = 0; ok && r->notes && i < r->n_notes; i++)
        ok = r->notes[i].by.len <= LIMIT_NAME_BYTES && r->notes[i].type < JOB_NOTES &&
             r->notes[i].state < JOB_STATES && r->notes[i].error < JOB_ERRORS &&
             r->notes[i].stage <= LIMIT_STAGES;
    return ok;
}

int record_encode(const struct job_record *r, struct buf *out) {
    if (!fits(r)) return ERR_LIMIT;
    size_t start = out->len;
    buf_append(out, "PSJ", 3);
    buf_u8(out, RECORD_VERSION);
    buf_u32le(out, 0);
    buf_u64le(out, r->id);
    buf_u64le(out, r->seed);
    buf_u8(out, (uint8_t)r->state);
    buf_u8(out, (uint8_t)r->error);
    buf_u32le(out, r->priority);
    buf_u32le(out, r->stage);
    buf_u32le(out, r->tries);
    buf_u32le(out, r->deaths);
    buf_u64le(out, r->attempt);
    buf_u64le(out, (uint64_t)r->accepted_ms);
    buf_u64le(out, (uint64_t)r->ready_ms);
    buf_u64le(out, (uint64_t)r->expires_ms);
    buf_u64le(out, (uint64_t)r->finished_ms);
    buf_u32le(out, r->input_stage);
    put_payload(out, &r->body);
    put_payload(out, &r->input);
    put_payload(out, &r->result);
    buf_lenbytes(out, r->kind);
    buf_lenbytes(out, r->tenant);
    buf_lenbytes(out, r->key);
    buf_lenbytes(out, r->pipeline);
    buf_lenbytes(out, r->plan);
    buf_lenbytes(out, r->reason);
    buf_u32le(out, r->n_stages);
    for (uint32_t i = 0; i < r->n_stages; i++) put_stage(out, &r->stages[i]);
    buf_u32le(out, r->n_attempts);
    for (uint32_t i = 0; i < r->n_attempts; i++) put_attempt(out, &r->attempts[i]);
    buf_u64le(out, r->origin);
    buf_u64le(out, r->heir);
    buf_u32le(out, r->n_notes);
    for (uint32_t i = 0; i < r->n_notes; i++) put_note(out, &r->notes[i]);
    buf_u32le(out, r->timeouts);
    buf_lenbytes(out, r->source);
    buf_u64le(out, r->parent);
    buf_u64le(out, r->first_child);
    buf_u32le(out, r->child);
    buf_u32le(out, r->n_children);
    if (out->error != 0) return out->error;
    uint32_t crc = crc32c(0, out->data + start + HEAD_BYTES, out->len - start - HEAD_BYTES);
    for (uint32_t i = 0; i < 4; i++) out->data[start + 4 + i] = (uint8_t)(crc >> (8 * i));
    return 0;
}

static void get_payload(struct reader *r, struct job_payload *p) {
    p->bytes = read_u64le(r);
    p->crc = read_u32le(r);
    uint8_t place = read_u8(r);
    p->in_blob = place == PAYLOAD_BLOB;
    if (place > PAYLOAD_BLOB || (place == PAYLOAD_ABSENT) != (p->bytes == 0)) r->bad = true;
    if (place == PAYLOAD_INLINE) {
        if (p->bytes > LIMIT_INLINE_BYTES) r->bad = true;
        p->inlined = read_bytes(r, r->bad ? 0 : (size_t)p->bytes);
    }
}

static void get_stage(struct reader *r, struct job_stage_record *s) {
    s->name = read_lenbytes(r);
    s->worker = read_lenbytes(r);
    s->numerics_id = read_lenbytes(r);
    s->attempt = read_u64le(r);
    s->queued_ms = (int64_t)read_u64le(r);
    s->started_ms = (int64_t)read_u64le(r);
    s->done_ms = (int64_t)read_u64le(r);
    s->run_us = read_u64le(r);
    s->output_bytes = read_u64le(r);
}

static void get_attempt(struct reader *r, struct job_attempt *a) {
    a->stage = read_u32le(r);
    a->error = (enum job_error)read_u8(r);
    a->attempt = read_u64le(r);
    a->started_ms = (int64_t)read_u64le(r);
    a->ended_ms = (int64_t)read_u64le(r);
    a->worker = read_lenbytes(r);
    a->reason = read_lenbytes(r);
}

static void get_note(struct reader *r, struct job_note *n) {
    n->seq = read_u64le(r);
    n->type = (enum job_note_type)read_u8(r);
    n->state = (enum job_state)read_u8(r);
    n->error = (enum job_error)read_u8(r);
    n->stage = read_u8(r);
    n->attempt = read_u64le(r);
    n->at_ms = (int64_t)read_u64le(r);
    n->by = read_lenbytes(r);
}

static void get_family(struct reader *r, struct job_record *out) {
    out->parent = read_u64le(r);
    out->first_child = read_u64le(r);
    out->child = read_u32le(r);
    out->n_children = read_u32le(r);
}

/* What version 2 added. */
static int get_history(struct reader *r, struct job_record *out, struct arena *a) {
    struct job_note *notes = NULL, note;
    out->origin = read_u64le(r);
    out->heir = read_u64le(r);
    uint32_t n = read_u32le(r);
    if (n > LIMIT_NOTES) return ERR_CORRUPT;
    if (a && n > 0 && !(notes = arena_calloc(a, n, sizeof *notes))) return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) get_note(r, notes ? &notes[i] : &note);
    out->notes = notes;
    out->n_notes = notes ? n : 0;
    return 0;
}

static void get_fixed(struct reader *r, struct job_record *out) {
    out->id = read_u64le(r);
    out->seed = read_u64le(r);
    out->state = (enum job_state)read_u8(r);
    out->error = (enum job_error)read_u8(r);
    out->priority = read_u32le(r);
    out->stage = read_u32le(r);
    out->tries = read_u32le(r);
    out->deaths = read_u32le(r);
    out->attempt = read_u64le(r);
    out->accepted_ms = (int64_t)read_u64le(r);
    out->ready_ms = (int64_t)read_u64le(r);
    out->expires_ms = (int64_t)read_u64le(r);
    out->finished_ms = (int64_t)read_u64le(r);
    out->input_stage = read_u32le(r);
    get_payload(r, &out->body);
    get_payload(r, &out->input);
    get_payload(r, &out->result);
    out->kind = read_lenbytes(r);
    out->tenant = read_lenbytes(r);
    out->key = read_lenbytes(r);
    out->pipeline = read_lenbytes(r);
    out->plan = read_lenbytes(r);
    out->reason = read_lenbytes(r);
}

/* Stages, then attempts; without an arena they are only walked over. */
static int get_lists(struct reader *r, struct job_record *out, struct arena *a) {
    struct job_stage_record *stages = NULL, stage;
    struct job_attempt *attempts = NULL, attempt;
    uint32_t n_stages = read_u32le(r);
    if (n_stages > LIMIT_STAGES) return ERR_CORRUPT;
    if (a && n_stages > 0 && !(stages = arena_calloc(a, n_stages, sizeof *stages))) return -ENOMEM;
    for (uint32_t i = 0; i < n_stages; i++) get_stage(r, stages ? &stages[i] : &stage);
    uint32_t n_attempts = read_u32le(r);
    if (n_attempts > LIMIT_ATTEMPTS) return ERR_CORRUPT;
    if (a && n_attempts > 0 && !(attempts = arena_calloc(a, n_attempts, sizeof *attempts)))
        return -ENOMEM;
    for (uint32_t i = 0; i < n_attempts; i++) get_attempt(r, attempts ? &attempts[i] : &attempt);
    out->stages = stages;
    out->n_stages = stages ? n_stages : 0;
    out->attempts = attempts;
    out->n_attempts = attempts ? n_attempts : 0;
    return 0;
}

/* What lies behind the head, as this version wrote it. */
static int get_fields(struct reader r, uint8_t version, struct job_record *out, struct arena *a) {
    memset(out, 0, sizeof *out);
    get_fixed(&r, out);
    int code = get_lists(&r, out, a);
    if (code == 0 && version >= 2) code = get_history(&r, out, a);
    if (code == 0 && version >= 3) out->timeouts = read_u32le(&r);
    if (code == 0 && version >= 4) out->source = read_lenbytes(&r);
    if (code == 0 && version >= 5) get_family(&r, out);
    if (code != 0) return code;
    return r.bad || read_left(&r) > 0 || !fits(out) ? ERR_CORRUPT : 0;
}

/* The CRC does not cover the version. One that we do not know is a newer build's, but for a byte
 * that has flipped: then the rest is as a version that we know wrote it. */
static int unknown_version(struct reader r) {
    struct job_record unused;
    for (uint8_t known = 1; known <= RECORD_VERSION; known++)
        if (get_fields(r, known, &unused, NULL) == 0) return ERR_CORRUPT;
    return ERR_VERSION;
}

int record_decode(struct bytes in, struct job_record *out, struct arena *a) {
    struct reader r = reader_of(in);
    struct bytes magic = read_bytes(&r, 3);
    uint8_t version = read_u8(&r);
    uint32_t crc = read_u32le(&r);
    if (r.bad || !bytes_is(magic, "PSJ") || version == 0) return ERR_CORRUPT;
    if (version > RECORD_VERSION) return unknown_version(r);
    if (crc32c(0, r.at, read_left(&r)) != crc) return ERR_CORRUPT;
    return get_fields(r, version, out, a);
}

int record_is_bad(struct bytes key, struct bytes value) {
    struct job_record r;
    struct reader k = reader_of(key);
    uint64_t id = read_u64be(&k);
    int code = k.bad || read_left(&k) > 0 ? ERR_CORRUPT : record_decode(value, &r, NULL);
    return code == 0 && r.id != id ? ERR_CORRUPT : code;
}
