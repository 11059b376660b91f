#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"
#include "schemas/many.h"

#define HEADER_STRUCT_BYTES 512
#define REFUSED_LOG_MS 1000

/* What the peer's key must allow: one of these rights. */
enum {
    SUBMIT = CERT_SUBMIT,
    READ = CERT_READ | CERT_ADMIN,
    END = CERT_SUBMIT | CERT_ADMIN,
    CLIENT = CERT_SUBMIT | CERT_READ | CERT_ADMIN,
    WORKER = CERT_WORKER
};

static const struct handler {
    enum msg_type type;
    void (*serve)(struct broker *b, const struct request *r);
    uint32_t rights;
} handlers[] = {
    {MSG_SUBMIT, on_submit, SUBMIT},
    {MSG_SUBMIT_MANY, on_submit_many, SUBMIT},
    {MSG_REQUEUE, on_requeue, END},
    {MSG_DROP, on_drop, END},
    {MSG_WAIT, on_wait, READ},
    {MSG_RESULT_GET, on_result_get, READ},
    {MSG_SHOW, on_show, READ},
    {MSG_CANCEL, on_cancel, END},
    {MSG_EVENTS, on_events, READ},
    {MSG_EVENTS_STOP, on_events_stop, READ},
    {MSG_LIST, on_list, READ},
    {MSG_WORKERS, on_workers, READ},
    {MSG_DRAIN, on_drain, CERT_ADMIN},
    {MSG_PING, on_ping, CLIENT},
    {MSG_STATUS, on_status, READ},
    {MSG_SUBSCRIBE, on_subscribe, READ},
    {MSG_QUEUES, on_queues, CERT_ADMIN},
    {MSG_REGISTER, on_register, WORKER},
    {MSG_HEARTBEAT, on_heartbeat, WORKER},
    {MSG_PROGRESS, on_progress, WORKER},
    {MSG_STAGE_DONE, on_stage_done, WORKER},
    {MSG_STAGE_FAILED, on_stage_failed, WORKER},
    {MSG_RETURN, on_return, WORKER},
    {MSG_GOODBYE, on_goodbye, WORKER},
    {MSG_UPLOAD_BEGIN, on_upload_begin, SUBMIT},
    {MSG_UPLOAD_CHUNK, on_upload_chunk, SUBMIT},
    {MSG_UPLOAD_GET, on_upload_get, SUBMIT},
    {MSG_UPLOAD_DROP, on_upload_drop, SUBMIT},
};

static const struct handler *handler_of(enum msg_type type) {
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (handlers[i].type == type) return &handlers[i];
    return NULL;
}

uint32_t dispatch_right(enum msg_type type) {
    const struct handler *h = handler_of(type);
    return h ? h->rights : 0;
}

/* A message on its own, or one of several in a MANY. */
struct heard {
    struct sock *sock;
    enum msg_direction from;
    struct sock_peer peer;
    struct caller by;
};

static void refuse(struct broker *b, const struct heard *h, const struct bytes *frame,
                   uint32_t frames, const struct refusal *why) {
    uint64_t req = frames > 1 ? msg_req(frame[1]) : 0;
    char quoted[512];
    if (b->now_ms >= b->refused_log_ms) { /* a broken client sends thousands */
        log_warn("refused", "code=%s field=%s why=%s refused=%llu", why->code, why->field,
                 log_quote(quoted, sizeof quoted, why->message), (unsigned long long)b->refused);
        b->refused_log_ms = b->now_ms + REFUSED_LOG_MS;
    }
    reply_refused(b, h->sock, &h->peer, req, why);
}

static void forbid(struct refusal *why, const struct msg_desc *d, uint32_t rights) {
    char limit[64], words[32];
    cert_rights_text(rights & ~(uint32_t)CERT_WORKER, "", words, sizeof words);
    snprintf(limit, sizeof limit, "a key with one of the rights %.31s",
             rights & CERT_WORKER ? "worker" : words);
    refusal_set(why, "forbidden", "", limit,
                "ask the operator; `penstock keys add --rights` gives them",
                "the key of this connection does not allow %s", d->name);
}

static int serve(struct broker *b, const struct heard *h, const struct bytes *frame,
                 uint32_t frames, struct refusal *why) {
    _Alignas(16) unsigned char header[HEADER_STRUCT_BYTES];
    const struct msg_desc *d;
    int e = msg_open(frame, frames, h->from, &d, why);
    if (e) return e;
    if (d->type == MSG_MANY) {
        refusal_set(why, "unknown_type", "type", "any type but MANY",
                    "send what is inside as messages of the outer one",
                    "a MANY lies inside a MANY");
        return ERR_UNKNOWN;
    }
    const struct handler *to = handler_of(d->type);
    if (!to) return 0; /* every message of a client or worker has one; a test holds it */
    if (!(to->rights & h->by.rights)) {
        forbid(why, d, to->rights);
        return -EPERM;
    }
    if (d->struct_bytes > sizeof header) return 0; /* no message is that large; a test holds it */
    if ((e = msg_decode(d, frame[1], header, why)) != 0) return e;
    struct request r = {.sock = h->sock,
                        .peer = h->peer,
                        .tenant = h->by.tenant,
                        .rights = h->by.rights,
                        .stages = h->by.stages,
                        .desc = d,
                        .header = header,
                        .payload = frame + 2,
                        .n = frames - 2};
    to->serve(b, &r);
    return 0;
}

/* Each of them as if it had come alone: what is wrong with one is said of that one. When the list
 * itself cannot be read any further, that is said of the MANY. */
static uint32_t serve_many(struct broker *b, struct heard *h, const struct sock_msg *m) {
    struct many_it it;
    struct msg_many header;
    struct refusal why;
    uint32_t n = 0;
    int e = msg_decode(msg_desc(MSG_MANY), m->frame[1], &header, &why);
    if (!e) e = many_begin(&it, m->frame[2], header.n, &why);
    h->peer.many = true;
    while (!e && (e = many_next(&it, &why)) > 0) {
        n++;
        if ((e = serve(b, h, it.frame, it.frames, &why)) != 0)
            refuse(b, h, it.frame, it.frames, &why);
        e = 0;
    }
    if (e) refuse(b, h, m->frame, m->frames, &why);
    return n ? n : 1;
}

uint32_t dispatch(struct broker *b, struct sock *s, enum msg_direction from,
                  const struct sock_msg *m) {
    struct heard h = {.sock = s, .from = from, .peer = m->peer};
    const struct msg_desc *d;
    struct refusal why;
    if (!auth_of(&b->auth, &b->tenants, &m->peer, &h.by)) {
        why = (struct refusal){.code = ""}; /* it is said in the words of a revoked key */
        reply_refused(b, s, &m->peer, m->frames > 1 ? msg_req(m->frame[1]) : 0, &why);
        return 1;
    }
    if (msg_open(m->frame, m->frames, from, &d, &why) == 0 && d->type == MSG_MANY)
        return serve_many(b, &h, m);
    if (serve(b, &h, m->frame, m->frames, &why) != 0) refuse(b, &h, m->frame, m->frames, &why);
    return 1;
}
