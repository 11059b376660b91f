#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "broker/broker.h"

#define HEADER_STRUCT_BYTES 512
#define REFUSED_LOG_MS 1000

static const struct handler {
    enum msg_type type;
    void (*serve)(struct broker *b, const struct request *r);
} handlers[] = {
    {MSG_SUBMIT, on_submit},
    {MSG_SUBMIT_MANY, on_submit_many},
    {MSG_WAIT, on_wait},
    {MSG_RESULT_GET, on_result_get},
    {MSG_SHOW, on_show},
    {MSG_CANCEL, on_cancel},
    {MSG_EVENTS, on_events},
    {MSG_EVENTS_STOP, on_events_stop},
    {MSG_LIST, on_list},
    {MSG_WORKERS, on_workers},
    {MSG_PING, on_ping},
    {MSG_STATUS, on_status},
    {MSG_REGISTER, on_register},
    {MSG_HEARTBEAT, on_heartbeat},
    {MSG_PROGRESS, on_progress},
    {MSG_STAGE_DONE, on_stage_done},
    {MSG_STAGE_FAILED, on_stage_failed},
    {MSG_RETURN, on_return},
    {MSG_GOODBYE, on_goodbye},
    {MSG_UPLOAD_BEGIN, on_upload_begin},
    {MSG_UPLOAD_CHUNK, on_upload_chunk},
    {MSG_UPLOAD_GET, on_upload_get},
    {MSG_UPLOAD_DROP, on_upload_drop},
};

static void refuse(struct broker *b, struct sock *s, const struct sock_msg *m,
                   const struct refusal *why) {
    uint64_t req = m->frames > 1 ? msg_req(m->frame[1]) : 0;
    char quoted[512];
    if (b->now_ms >= b->refused_log_ms) { /* a broken client sends thousands */
        log_warn("refused", "code=%s field=%s why=%s refused=%llu", why->code, why->field,
                 log_quote(quoted, sizeof quoted, why->message), (unsigned long long)b->refused);
        b->refused_log_ms = b->now_ms + REFUSED_LOG_MS;
    }
    reply_refused(b, s, &m->peer, req, why);
}

void dispatch(struct broker *b, struct sock *s, enum msg_direction from, const struct sock_msg *m) {
    _Alignas(16) unsigned char header[HEADER_STRUCT_BYTES];
    const struct msg_desc *d;
    struct refusal why;
    memset(&why, 0, sizeof why);
    if (msg_open(m->frame, m->frames, from, &d, &why) != 0) {
        refuse(b, s, m, &why);
        return;
    }
    if (d->struct_bytes > sizeof header) return; /* no message is that large; a test holds it */
    if (msg_decode(d, m->frame[1], header, &why) != 0) {
        refuse(b, s, m, &why);
        return;
    }
    struct tenant *tenant = tenant_get(&b->tenants, bytes_str(TENANT_DEFAULT));
    if (!tenant) return; /* no memory for the first message: the peer asks again */
    struct request r = {.sock = s,
                        .peer = m->peer,
                        .tenant = tenant,
                        .desc = d,
                        .header = header,
                        .payload = m->frame + 2,
                        .n = m->frames - 2};
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (handlers[i].type == d->type) {
            handlers[i].serve(b, &r);
            return;
        }
}
