#include "broker/zap.h"

#include <stdio.h>

#include "base/err.h"
#include "base/log.h"

enum { QUESTIONS_A_TURN = 256, LOG_EVERY_MS = 1000 };
enum { /* the frames of a question */
       VERSION = 0,
       REQUEST,
       DOMAIN,
       ADDRESS,
       ROUTING_ID,
       MECHANISM,
       CREDENTIALS,
       FRAMES
};

void zap_decide(const struct auth *a, const struct bytes *frame, uint32_t n,
                struct zap_answer *out) {
    *out = (struct zap_answer){.status = "500", .text = "not a question of ZAP 1.0"};
    if (n < FRAMES || !bytes_is(frame[VERSION], "1.0")) return;
    out->status = "400";
    out->text = "only CURVE is let in";
    if (n != FRAMES || !bytes_is(frame[MECHANISM], "CURVE")) return;
    const struct auth_key *k = auth_by_key(a, frame[CREDENTIALS]);
    out->text = "this key is not let in";
    if (!k) return;
    out->status = "200";
    out->text = "OK";
    snprintf(out->user, sizeof out->user, "%u", k->user);
}

/* What libzmq sends a REP socket comes to a ROUTER with the empty delimiter in front. */
static void answer(struct sock *s, struct auth *a, const struct sock_msg *m, int64_t now_ms) {
    struct zap_answer out;
    struct bytes request = m->frames > 1 + REQUEST ? m->frame[1 + REQUEST] : bytes_of("", 0);
    zap_decide(a, m->frame + 1, m->frames ? m->frames - 1 : 0, &out);
    if (!out.user[0]) a->unknown++;
    if (!out.user[0] && now_ms >= a->unknown_log_ms) { /* strangers may knock all day */
        a->unknown_log_ms = now_ms + LOG_EVERY_MS;
        struct bytes from = m->frames > 1 + ADDRESS ? m->frame[1 + ADDRESS] : bytes_of("", 0);
        log_warn("key_unknown", "address=%.*s status=%s reason=\"%s\" refused=%llu",
                 (int)(from.len < 64 ? from.len : 64), from.len ? (const char *)from.data : "",
                 out.status, out.text, (unsigned long long)a->unknown);
    }
    struct sock_msg reply = {.peer = m->peer,
                             .frames = 7,
                             .frame = {bytes_of("", 0), bytes_str("1.0"), request,
                                       bytes_str(out.status), bytes_str(out.text),
                                       bytes_str(out.user), bytes_of("", 0)}};
    sock_send(s, &reply); /* a connection that has gone meanwhile needs no answer */
}

void zap_serve(struct sock *s, struct auth *a, int64_t now_ms) {
    for (int i = 0; i < QUESTIONS_A_TURN; i++) {
        struct sock_msg m;
        int e = sock_recv(s, &m);
        if (e == 0 || (e < 0 && e != ERR_LIMIT)) return;
        if (e != 1) continue;
        answer(s, a, &m, now_ms);
        sock_msg_fini(&m);
    }
}
