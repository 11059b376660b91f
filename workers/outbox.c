#include "workers/outbox.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "schemas/many.h"

void outbox_fini(struct outbox *b) {
    for (struct outcome *o = b->first, *next; o; o = next) {
        next = o->next;
        outcome_free(o);
    }
    buf_fini(&b->pack);
    *b = (struct outbox){0};
}

/* A reason may quote input or be cut in the middle of a character; the wire takes only UTF-8. */
static void clean(char *text) {
    size_t len = strlen(text), bad;
    while ((bad = utf8_check(text, len)) < len) text[bad] = '?';
}

void outbox_add(struct outbox *b, struct outcome *o) {
    clean(o->reason);
    o->next = NULL;
    o->sent_ms = 0;
    if (b->last)
        b->last->next = o;
    else
        b->first = o;
    b->last = o;
    b->n++;
}

void outbox_send_again(struct outbox *b) {
    for (struct outcome *o = b->first; o; o = o->next) o->sent_ms = 0;
}

static int encode(enum msg_type type, const void *message, struct bytes payload,
                  struct buf *scratch, uint8_t tag[MSG_TAG_BYTES], struct sock_msg *out) {
    buf_clear(scratch);
    int code = msg_encode(type, message, tag, scratch);
    if (code != 0) return code;
    out->frames = 0;
    out->frame[out->frames++] = bytes_of(tag, MSG_TAG_BYTES);
    out->frame[out->frames++] = buf_bytes(scratch);
    for (size_t at = 0; at < payload.len; at += LIMIT_FRAME_BYTES) {
        size_t left = payload.len - at;
        size_t take = left < LIMIT_FRAME_BYTES ? left : LIMIT_FRAME_BYTES;
        assert(out->frames < LIMIT_FRAMES);
        out->frame[out->frames++] = bytes_of((const uint8_t *)payload.data + at, take);
    }
    return 0;
}

int outbox_send(struct sock *s, enum msg_type type, const void *message, struct bytes payload,
                struct buf *scratch) {
    uint8_t tag[MSG_TAG_BYTES];
    struct sock_msg m;
    int code = encode(type, message, payload, scratch, tag, &m);
    return code ? code : sock_send(s, &m);
}

static int encode_outcome(const struct outcome *o, struct buf *scratch, uint8_t tag[MSG_TAG_BYTES],
                          struct sock_msg *out) {
    struct bytes none = {NULL, 0};
    if (o->type == OUTCOME_DONE) {
        struct msg_stage_done m = {.job = o->job,
                                   .stage = o->stage,
                                   .attempt = o->attempt,
                                   .more = o->more,
                                   .run_us = o->run_us,
                                   .wait_us = o->wait_us,
                                   .numerics_id = bytes_str(o->numerics_id)};
        return encode(MSG_STAGE_DONE, &m, buf_bytes(&o->output), scratch, tag, out);
    }
    if (o->type == OUTCOME_FAILED) {
        const char *reason = o->reason[0] ? o->reason : "no reason was given";
        struct msg_stage_failed m = {.job = o->job,
                                     .stage = o->stage,
                                     .attempt = o->attempt,
                                     .error_class = bytes_str(job_error_name(o->error)),
                                     .reason = bytes_str(reason)};
        return encode(MSG_STAGE_FAILED, &m, none, scratch, tag, out);
    }
    assert(o->type == OUTCOME_RETURNED);
    struct msg_return m = {.job = o->job, .stage = o->stage, .attempt = o->attempt};
    return encode(MSG_RETURN, &m, none, scratch, tag, out);
}

/* What was gathered leaves, or is gathered anew at the next flush. */
static int send_pack(struct outbox *b, struct sock *s, int64_t now_ms, struct buf *scratch) {
    struct msg_many m = {.n = b->packed};
    if (b->packed == 0) return 0;
    many_end(&b->pack, b->packed);
    int code = outbox_send(s, MSG_MANY, &m, buf_bytes(&b->pack), scratch);
    for (struct outcome *o = b->first; o; o = o->next) {
        if (o->packed && code != -EAGAIN) o->sent_ms = now_ms;
        o->packed = false;
    }
    b->packed = 0;
    buf_clear(&b->pack);
    return code;
}

static bool gather(struct outbox *b, struct outcome *o, struct buf *scratch) {
    uint8_t tag[MSG_TAG_BYTES];
    struct sock_msg m;
    if (!b->many || encode_outcome(o, scratch, tag, &m) != 0) return false;
    return o->packed = many_add(&b->pack, &b->packed, m.frame, m.frames);
}

static int send_alone(struct sock *s, struct outcome *o, int64_t now_ms, struct buf *scratch) {
    uint8_t tag[MSG_TAG_BYTES];
    struct sock_msg m;
    int code = encode_outcome(o, scratch, tag, &m);
    if (code == 0) code = sock_send(s, &m);
    if (code != -EAGAIN) o->sent_ms = now_ms;
    return code;
}

void outbox_flush(struct outbox *b, struct sock *s, int64_t now_ms, int64_t again_ms,
                  struct buf *scratch) {
    for (struct outcome *o = b->first; o; o = o->next) {
        if (o->sent_ms != 0 && now_ms - o->sent_ms < again_ms) continue;
        if (gather(b, o, scratch)) continue;
        /* Full: those behind keep their order. */
        if (send_pack(b, s, now_ms, scratch) == -EAGAIN) return;
        if (!gather(b, o, scratch) && send_alone(s, o, now_ms, scratch) == -EAGAIN) return;
    }
    send_pack(b, s, now_ms, scratch);
}

void outbox_acknowledged(struct outbox *b, uint64_t job, uint32_t stage, uint64_t attempt,
                         bool stale) {
    struct outcome **at = &b->first, *before = NULL;
    while (*at) {
        struct outcome *o = *at;
        bool hit = o->job == job && o->attempt == attempt && (stale || o->stage == stage);
        if (!hit) {
            before = o;
            at = &o->next;
            continue;
        }
        *at = o->next;
        if (o->slot) atomic_store(&o->slot->state, FLIGHT_FREE);
        outcome_free(o);
        b->n--;
    }
    b->last = before;
}
