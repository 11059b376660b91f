/* Clients that follow the stream of ended jobs: each goes on from the last offset that it has seen,
 * whatever becomes of its connection and of the broker, and must see every end once, in order, or
 * be told of a gap. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/sim/world.h"

enum { SILENCE_MS = 6000 };

/* ---- what the broker sends ---- */

static struct told *told_of(uint32_t conn, uint64_t req) {
    for (uint32_t i = W->n_told; i > 0; i--)
        if (W->told[i - 1].conn == conn && W->told[i - 1].req == req) return &W->told[i - 1];
    world_broken("a subscription", "nobody subscribed with %llu", (unsigned long long)req);
}

static bool wanted(const struct told *s, const struct cell *c) {
    return (s->tenant == TENANT_ALL || s->tenant == c->tenant) && (c->of_one || !s->only_one);
}

/* Between what was told and `to` nothing was left out; what is gone by now may have been there when
 * the broker passed it, but not if it was to be sent. */
static void check_skipped(const struct told *s, uint64_t to) {
    for (uint64_t o = s->offset + 1; o < to; o++) {
        const struct cell *c = disk_cell(W->disk.ends[o - 1]);
        CHECK(!wanted(s, c), "%s, offset %llu, is %s", sim_name(c->id), (unsigned long long)o,
              ends_at(o) ? "left out" : "gone, and no gap is told");
    }
}

void follow_sent_ended(uint32_t conn, const struct msg_ended *m, const struct sock_msg *raw) {
    struct told *s = told_of(conn, m->req);
    const struct cell *c = ends_at(m->offset);
    struct job_record r;
    CHECK(s->begun && m->offset > s->offset, "offset %llu is sent twice",
          (unsigned long long)m->offset);
    CHECK(c && c->id == m->job && disk_record(c, &r, NULL), "%s has not offset %llu",
          sim_name(m->job), (unsigned long long)m->offset);
    CHECK(wanted(s, c), "%s is no business of this subscriber", sim_name(m->job));
    CHECK(bytes_is(m->state, job_state_name(r.state)) && bytes_eq(m->key, r.key),
          "%s ended otherwise", sim_name(m->job));
    check_skipped(s, m->offset);
    s->offset = m->offset;
    struct bytes kept = {NULL, 0};
    size_t sent = 0;
    if (s->results && r.result.bytes) kept = disk_payload(c, &r, JOB_SLOT_RESULT);
    for (uint32_t i = 2; i < raw->frames; i++) sent += raw->frame[i].len;
    CHECK(sent == kept.len && (!sent || memcmp(raw->frame[2].data, kept.data, sent) == 0),
          "%s comes with another result", sim_name(m->job));
}

void follow_sent_stream(uint32_t conn, const struct msg_stream *m) {
    struct told *s = told_of(conn, m->req);
    if (bytes_is(m->what, "begun")) {
        uint64_t from = m->offset;
        CHECK(s->from == 0 || m->offset == s->from, "it begins elsewhere");
        for (; s->from == 0 && from > 0; from--)
            CHECK(!ends_at(from), "it begins behind what is kept");
        s->begun = true;
        s->offset = m->offset;
    } else if (bytes_is(m->what, "gap")) {
        CHECK(m->offset > s->offset && m->lost <= m->offset - s->offset, "a gap of nothing");
        check_skipped(s, m->offset - m->lost + 1);
        for (uint64_t o = m->offset - m->lost + 1; o <= m->offset; o++)
            CHECK(!ends_at(o), "offset %llu is told to be lost and is there",
                  (unsigned long long)o);
        W->gaps++;
        s->offset = m->offset;
    } else if (bytes_is(m->what, "live")) {
        CHECK(m->offset >= s->offset && m->offset <= W->disk.n_ends, "it goes back");
        check_skipped(s, m->offset + 1);
        s->offset = m->offset;
    }
}

/* ---- the client ---- */

static void subscribe(struct client *c) {
    struct following *f = &c->following;
    struct msg_events_stop stop = {.req = f->req};
    if (f->open) net_send(c->conn, MSG_EVENTS_STOP, &stop, NULL, 0);
    f->req = ++c->req;
    f->begun = 0;
    f->open = true;
    f->conn = c->conn;
    f->heard_ms = W->mono_ms;
    struct msg_subscribe m = {.req = f->req, .from = f->last, .results = f->results};
    if (f->only_one) m.pipeline = bytes_str("one");
    if (W->n_told == W->told_cap) {
        W->told_cap = W->told_cap ? W->told_cap * 2 : 32;
        W->told = realloc(W->told, W->told_cap * sizeof *W->told);
        CHECK(W->told, "out of memory");
    }
    W->told[W->n_told++] = (struct told){.conn = c->conn,
                                         .req = f->req,
                                         .from = f->last,
                                         .tenant = c->admin ? TENANT_ALL : c->tenant,
                                         .only_one = f->only_one,
                                         .results = f->results};
    net_send(c->conn, MSG_SUBSCRIBE, &m, NULL, 0);
}

static void hears_stream(struct following *f, const struct msg_stream *m) {
    if (bytes_is(m->what, "dropped")) f->open = false;
    if (bytes_is(m->what, "begun") && ++f->begun > 1) f->open = false; /* its request came twice */
    if (!f->open) return;
    CHECK(m->offset >= f->last, "the stream goes back");
    f->last = m->offset;
}

void follow_hears(struct client *c, const struct msg_desc *d, const struct packet *p) {
    struct following *f = &c->following;
    struct refusal why;
    if (!f->open || f->conn != c->conn || msg_req(p->frame[1]) != f->req) return;
    f->heard_ms = W->mono_ms;
    if (d->type == MSG_ENDED) {
        struct msg_ended m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        CHECK(m.offset > f->last, "offset %llu comes twice", (unsigned long long)m.offset);
        f->last = m.offset;
        W->followed++;
    } else if (d->type == MSG_STREAM) {
        struct msg_stream m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        hears_stream(f, &m);
    } else if (d->type == MSG_REFUSED) {
        struct msg_refused m;
        CHECK(msg_decode(d, p->frame[1], &m, &why) == 0, "%s", why.message);
        CHECK(bytes_is(m.code, "full"), "its last offset is refused: %.*s", (int)m.message.len,
              (const char *)m.message.data);
        f->open = false;
    }
}

void follow_step(struct client *c) {
    struct following *f = &c->following;
    if (!f->wants) return;
    if (W->mono_ms < f->away_until_ms && W->faults) return;
    if (f->open && chance(4)) { /* it goes on another day, and much is deleted by then */
        struct msg_events_stop stop = {.req = f->req};
        net_send(c->conn, MSG_EVENTS_STOP, &stop, NULL, 0);
        f->open = false;
        f->away_until_ms = W->mono_ms + (int64_t)draw(12000);
        return;
    }
    bool lost = f->conn != c->conn || W->mono_ms - f->heard_ms > SILENCE_MS;
    if (f->open && !lost && !chance(3)) return;
    if (f->open && f->conn != c->conn) f->open = false;
    subscribe(c);
}

/* Everybody has seen the newest end that is his. */
bool follow_done(void) {
    for (uint32_t i = 0; i < CLIENTS; i++) {
        const struct following *f = &W->clients[i].following;
        if (f->wants && (!f->open || f->last < W->disk.n_ends)) return false;
    }
    return true;
}
