#include "broker/packs.h"

#include <errno.h>
#include <string.h>

#include "broker/broker.h"
#include "schemas/many.h"

_Static_assert(PACKS_MAX < UINT8_MAX && PACKS_PLACES >= 2 * PACKS_MAX, "places hold index + 1");

void packs_fini(struct packs *p) {
    for (uint32_t i = 0; i < PACKS_MAX; i++) buf_fini(&p->at[i].frame);
    buf_fini(&p->header);
}

static enum msg_type type_of(struct bytes tag) {
    return (enum msg_type)((const uint8_t *)tag.data)[MSG_TAG_BYTES - 1];
}

/* Where the peer's pack is, or would be. libzmq's routing ids count up in their last bytes. */
static uint8_t *place_of(struct packs *p, const struct sock *s, const struct sock_peer *to) {
    uint32_t h = to->len;
    for (uint32_t i = 0; i < to->len; i++) h = h * 31 + to->id[i];
    for (;; h++) {
        uint8_t *place = &p->place[h % PACKS_PLACES];
        const struct pack *k = *place ? &p->at[*place - 1] : NULL;
        if (!k || (k->to == s && sock_peer_eq(&k->peer, to))) return place;
    }
}

/* ---- what could not be sent ---- */

/* The worker has never seen the lease: nothing is counted against the job. */
static bool take_back(struct broker *b, const struct msg_lease *m) {
    struct job *j = job_table_find(&b->jobs, m->job);
    if (!j || j->state != JOB_LEASED || j->attempt != m->attempt) return false;
    struct job_event e = {.type = JOB_EV_RETURNED, .attempt = j->attempt, .stage = j->stage};
    effects_event(b, j, &e);
    return true;
}

/* True: it was a lease. What a full queue does not take of the rest is owed (owed.h), but for
 * acknowledgements, which are asked for again, and refusals. */
static bool unsent_one(struct broker *b, const struct pack *k, const struct many_it *it) {
    union {
        struct msg_lease lease;
        struct msg_accepted accepted;
        struct msg_result result;
        struct msg_state state;
        struct msg_stage_ack ack;
        struct msg_refused refused;
    } m;
    struct refusal why;
    const struct msg_desc *d = msg_desc(type_of(it->frame[0]));
    b->dropped++;
    if (msg_decode(d, it->frame[1], &m, &why) != 0) return false;
    if (d->type == MSG_LEASE) return take_back(b, &m.lease);
    if (k->error != -EAGAIN) return false;
    if (d->type == MSG_RESULT) reply_owe(b, &k->peer, m.result.req, m.result.job);
    if (d->type == MSG_STATE) reply_owe(b, &k->peer, m.state.req, m.state.job);
    if (d->type == MSG_ACCEPTED)
        owed_notice(&b->owed, &k->peer, m.accepted.req, OWED_ACCEPTED, m.accepted.job,
                    m.accepted.existing, b->now_ms);
    return false;
}

static bool unsent(struct broker *b, const struct pack *k) {
    struct many_it it;
    struct refusal why;
    bool leases = false;
    b->packs.closed = true;
    for (int e = many_begin(&it, buf_bytes(&k->frame), k->n, &why); e >= 0;) {
        if ((e = many_next(&it, &why)) <= 0) break;
        leases |= unsent_one(b, k, &it);
    }
    struct worker *w = leases ? worker_by_peer(&b->peers, &k->peer) : NULL;
    if (w && k->error == -EHOSTUNREACH)
        worker_lost(b, w, "its connection is gone");
    else if (w)
        w->choked = true; /* it does not read: no more until it is heard again */
    b->packs.closed = false;
    return leases;
}

/* ---- gathering and sending ---- */

static void send_pack(struct packs *p, struct pack *k) {
    uint8_t tag[MSG_TAG_BYTES];
    struct msg_many m = {.n = k->n};
    if (k->n == 0 || k->error) return;
    many_end(&k->frame, k->n);
    buf_clear(&p->header);
    k->error = msg_encode(MSG_MANY, &m, tag, &p->header);
    struct sock_msg out = {
        .peer = k->peer,
        .frames = 3,
        .frame = {bytes_of(tag, sizeof tag), buf_bytes(&p->header), buf_bytes(&k->frame)}};
    if (!k->error) k->error = sock_send(k->to, &out);
    if (k->error) return;
    k->n = 0;
    buf_clear(&k->frame);
}

static bool goes_along(const struct sock_msg *m) {
    switch (type_of(m->frame[0])) {
    case MSG_ACCEPTED:
    case MSG_REFUSED:
    case MSG_RESULT:
    case MSG_STATE:
    case MSG_STAGE_ACK:
    case MSG_LEASE: return true;
    default: return false;
    }
}

bool packs_take(struct broker *b, struct sock *s, const struct sock_msg *m) {
    struct packs *p = &b->packs;
    if (p->closed || (p->n == 0 && !m->peer.many)) return false;
    uint8_t *place = place_of(p, s, &m->peer);
    struct pack *k = *place ? &p->at[*place - 1] : NULL;
    bool along = m->peer.many && goes_along(m);
    if (!k && along && p->n < PACKS_MAX) {
        k = &p->at[p->n++];
        *place = (uint8_t)p->n;
        k->to = s;
        k->peer = m->peer;
    }
    if (!k) return false;
    if (along && many_add(&k->frame, &k->n, m->frame, m->frames)) return true;
    send_pack(p, k);
    return along && many_add(&k->frame, &k->n, m->frame, m->frames);
}

bool packs_flush(struct broker *b) {
    struct packs *p = &b->packs;
    bool leases = false;
    for (uint32_t i = 0; i < p->n; i++) {
        struct pack *k = &p->at[i];
        send_pack(p, k);
        if (!k->error) continue;
        many_end(&k->frame, k->n);
        leases |= unsent(b, k);
        k->error = 0;
        k->n = 0;
        buf_clear(&k->frame);
    }
    if (p->n) memset(p->place, 0, sizeof p->place);
    p->n = 0;
    return leases;
}
