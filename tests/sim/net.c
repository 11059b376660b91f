/* What base/sock, base/ring, base/thread, base/clock and base/log are to the broker, simulated. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/thread.h"
#include "schemas/many.h"
#include "tests/sim/world.h"

/* ---- clock ---- */

int64_t clock_mono_ms(void) {
    return W->mono_ms;
}
int64_t clock_mono_ns(void) {
    return W->mono_ms * 1000000 + (int64_t)W->steps;
}
int64_t clock_wall_ms(void) {
    return W->wall_ms;
}

/* ---- log ---- */

void log_event(enum log_level level, const char *event, const char *format, ...) {
    static int shown = -1;
    if (shown < 0) shown = getenv("SIM_LOG") != NULL;
    if (!shown) return;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%lld %d %s ", (long long)(W ? W->mono_ms : 0), (int)level, event);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}
void log_flush(void) {}
const char *log_quote(char *buf, size_t buf_bytes, const char *text) {
    snprintf(buf, buf_bytes, "\"%s\"", text);
    return buf;
}

/* ---- threads and rings: the store thread's main function runs when the world lets it ---- */

static void *nothing(void *arg) {
    return arg;
}
int thread_start(pthread_t *t, const char *name, void *(*thread_main)(void *), void *arg) {
    (void)name;
    W->store_main = thread_main;
    W->store_arg = arg;
    return -pthread_create(t, NULL, nothing, NULL); /* something to join */
}
int signals_read(int fd) {
    (void)fd;
    bool now = W->signalled;
    W->signalled = false;
    return now ? 15 : 0;
}

int ring_init(struct ring *r, uint32_t cap) {
    *r = (struct ring){.cap = cap, .slot = calloc(cap, sizeof(void *)), .fd = -1};
    W->rings[W->n_rings++ % 2] = r;
    return r->slot ? 0 : -ENOMEM;
}
void ring_fini(struct ring *r) {
    free(r->slot);
    r->slot = NULL;
}
int ring_push(struct ring *r, void *item) {
    const struct commit_op *op = item;
    if (r == W->rings[0] && op->type == COMMIT_DELETE) ends_chosen(op);
    if (r->closed) return ERR_CLOSED;
    if (r->len == r->cap) return ERR_FULL;
    r->slot[(r->head + r->len++) % r->cap] = item;
    return 0;
}
void *ring_pop(struct ring *r) {
    if (r->len == 0) return NULL;
    void *item = r->slot[r->head];
    r->head = (r->head + 1) % r->cap;
    r->len--;
    return item;
}
uint32_t ring_pop_many(struct ring *r, void **items, uint32_t max) {
    uint32_t n = 0;
    if (max > W->store_batch) max = W->store_batch;
    while (n < max && r->len) items[n++] = ring_pop(r);
    return n;
}
bool ring_wait(struct ring *r, int timeout_ms) {
    (void)timeout_ms;
    return r->len > 0;
}
void ring_close(struct ring *r) {
    r->closed = true;
}
bool ring_done(struct ring *r) { /* asked by the store thread alone: one pass a batch */
    (void)r;
    return W->store_passes-- == 0;
}
int ring_fd(const struct ring *r) {
    (void)r;
    return -1;
}

void net_drop_store(void) {
    struct ring *todo = W->rings[0];
    for (struct commit_op *op; (op = ring_pop(todo));) commit_op_free(op);
    W->n_rings = 0;
}

void net_run_store(uint32_t batch) {
    W->store_passes = 1;
    W->store_batch = batch;
    W->store_main(W->store_arg);
}

/* ---- sockets ---- */

static struct packet *packet_make(const struct bytes *frame, uint32_t n) {
    size_t bytes = sizeof(struct packet);
    for (uint32_t i = 0; i < n; i++) bytes += frame[i].len;
    struct packet *p = malloc(bytes);
    CHECK(p, "out of memory");
    p->next = NULL;
    p->frames = n;
    uint8_t *at = (uint8_t *)(p + 1);
    for (uint32_t i = 0; i < n; i++) {
        if (frame[i].len) memcpy(at, frame[i].data, frame[i].len);
        p->frame[i] = bytes_of(at, frame[i].len);
        at += frame[i].len;
    }
    return p;
}

static void queue_add(struct queue *q, struct packet *p) {
    if (q->last)
        q->last->next = p;
    else
        q->first = p;
    q->last = p;
    q->len++;
}

static struct packet *queue_take(struct queue *q) {
    struct packet *p = q->first;
    if (!p) return NULL;
    q->first = p->next;
    if (!q->first) q->last = NULL;
    q->len--;
    return p;
}

/* Calls f for each message of a MANY, or for the one that it is; f borrows it. */
static void each_message(const struct sock_msg *m, void (*f)(void *arg, const struct sock_msg *one),
                         void *arg) {
    struct sock_msg one = {.peer = m->peer};
    struct msg_many header;
    struct refusal why;
    struct many_it it;
    if (m->frames != 3 || m->frame[0].len != MSG_TAG_BYTES ||
        ((const uint8_t *)m->frame[0].data)[3] != MSG_MANY) {
        f(arg, m);
        return;
    }
    if (msg_decode(msg_desc(MSG_MANY), m->frame[1], &header, &why) != 0 ||
        many_begin(&it, m->frame[2], header.n, &why) != 0)
        return;
    while (many_next(&it, &why) == 1) {
        one.frames = it.frames;
        memcpy(one.frame, it.frame, it.frames * sizeof *it.frame);
        f(arg, &one);
    }
}

static void queue_cut(struct queue *q, uint32_t keep) {
    struct queue kept = {0};
    for (struct packet *p; (p = queue_take(q));) {
        if (kept.len == keep) {
            free(p);
        } else {
            p->next = NULL;
            queue_add(&kept, p);
        }
    }
    *q = kept;
}

uint32_t net_connect(bool to_workers) {
    if (W->n_conns == W->conns_cap) {
        W->conns_cap = W->conns_cap ? W->conns_cap * 2 : 64;
        W->conns = realloc(W->conns, W->conns_cap * sizeof *W->conns);
        CHECK(W->conns, "out of memory");
    }
    W->conns[W->n_conns] = (struct conn){.open = true, .to_workers = to_workers};
    return W->n_conns++;
}

void net_close(uint32_t conn) {
    struct conn *c = &W->conns[conn];
    c->open = false;
    queue_cut(&c->up, (uint32_t)draw(c->up.len + 1));
    queue_cut(&c->down, 0);
}

void net_reset(void) {
    for (uint32_t i = 0; i < W->n_conns; i++) {
        struct conn *c = &W->conns[i];
        c->open = false;
        queue_cut(&c->up, 0);
        queue_cut(&c->down, (uint32_t)draw(c->down.len + 1)); /* what it had sent may still come */
    }
}

void net_fini(void) {
    for (uint32_t i = 0; i < W->n_conns; i++) {
        queue_cut(&W->conns[i].up, 0);
        queue_cut(&W->conns[i].down, 0);
    }
    free(W->conns);
}

struct gathering {
    struct buf list;
    uint32_t n;
};

static void gather(void *arg, const struct sock_msg *one) {
    struct gathering *g = arg;
    many_add(&g->list, &g->n, one->frame, one->frames);
}

/* In one with what was said last, when that is a MANY; alone in one otherwise. */
static void say_in_many(struct conn *c, const struct bytes *frame, uint32_t frames) {
    uint8_t tag[MSG_TAG_BYTES];
    struct gathering g = {.n = 0};
    struct buf header = {0};
    struct packet *last = c->up.last;
    bool add = last && last->frames == 3 && ((const uint8_t *)last->frame[0].data)[3] == MSG_MANY;
    if (add) {
        struct sock_msg m = {.frames = 3};
        memcpy(m.frame, last->frame, 3 * sizeof *m.frame);
        each_message(&m, gather, &g);
    }
    if (!many_add(&g.list, &g.n, frame, frames) || (add && g.n == 1)) {
        buf_fini(&g.list); /* too long, or behind one that cannot be read */
        queue_add(&c->up, packet_make(frame, frames));
        return;
    }
    many_end(&g.list, g.n);
    struct msg_many m = {.n = g.n};
    int e = msg_encode(MSG_MANY, &m, tag, &header);
    CHECK(e == 0, "encoding: %s", err_text(e));
    struct bytes all[] = {bytes_of(tag, sizeof tag), buf_bytes(&header), buf_bytes(&g.list)};
    if (add) queue_cut(&c->up, c->up.len - 1);
    queue_add(&c->up, packet_make(all, 3));
    W->many++;
    buf_fini(&header);
    buf_fini(&g.list);
}

void net_send(uint32_t conn, enum msg_type type, const void *header, const struct bytes *payload,
              uint32_t n) {
    struct conn *c = &W->conns[conn];
    if (!c->open || chance(4)) return;
    uint8_t tag[MSG_TAG_BYTES];
    struct buf buf = {0};
    struct bytes frame[LIMIT_FRAMES];
    int e = msg_encode(type, header, tag, &buf);
    CHECK(e == 0, "encoding: %s", err_text(e));
    frame[0] = bytes_of(tag, sizeof tag);
    frame[1] = buf_bytes(&buf);
    for (uint32_t i = 0; i < n; i++) frame[2 + i] = payload[i];
    if (W->play ? W->gathers : toss(300))
        say_in_many(c, frame, 2 + n);
    else
        queue_add(&c->up, packet_make(frame, 2 + n));
    if (chance(5)) queue_add(&c->up, packet_make(frame, 2 + n)); /* twice */
    if (chance(5)) queue_add(&c->up, queue_take(&c->up));        /* out of order */
    c->up.last->next = NULL;
    buf_fini(&buf);
}

void net_send_frames(uint32_t conn, const struct bytes *frame, uint32_t n) {
    queue_add(&W->conns[conn].up, packet_make(frame, n));
}

struct packet *net_receive(uint32_t conn) {
    return queue_take(&W->conns[conn].down);
}

int sock_curve_raw(uint8_t raw[SOCK_RAW_KEY_BYTES], const char *key) {
    (void)raw;
    (void)key;
    return -EINVAL; /* nobody has a key here */
}
int sock_curve_public(char public_key[SOCK_KEY_BYTES], const char *secret_key) {
    (void)public_key;
    (void)secret_key;
    return -EINVAL;
}

bool sock_peer_eq(const struct sock_peer *a, const struct sock_peer *b) {
    return a->len == b->len && memcmp(a->id, b->id, a->len) == 0;
}

static struct sock_peer peer_of(uint32_t conn) {
    struct sock_peer p = {.len = sizeof conn, .user = LIMIT_PEER_KEYS + W->conns[conn].user};
    memcpy(p.id, &conn, sizeof conn);
    return p;
}

static void delivered(void *arg, const struct sock_msg *one) {
    (void)arg;
    oracle_delivered(one);
}

int sock_recv(struct sock *s, struct sock_msg *m) {
    tenants_message(USERS);
    if (chance(100)) return 0;
    uint32_t at = (uint32_t)draw(W->n_conns);
    for (uint32_t i = 0; i < W->n_conns; i++) {
        uint32_t conn = (at + i) % W->n_conns;
        struct conn *c = &W->conns[conn];
        if (c->to_workers != s->to_workers || !c->up.len) continue;
        struct packet *p = queue_take(&c->up);
        *m = (struct sock_msg){.peer = peer_of(conn), .frames = p->frames};
        if (!s->to_workers) tenants_message(c->user);
        memcpy(m->frame, p->frame, p->frames * sizeof *p->frame);
        m->hold[0] = p;
        if (s->to_workers) each_message(m, delivered, NULL);
        return 1;
    }
    return 0;
}

void sock_msg_fini(struct sock_msg *m) {
    free(m->hold[0]);
}

/* The peer takes a MANY apart. */
static void sent(void *arg, const struct sock_msg *one) {
    struct conn *c = arg;
    oracle_sent(c, one);
    queue_add(&c->down, packet_make(one->frame, one->frames));
}

static void lost(void *arg, const struct sock_msg *one) {
    (void)arg;
    oracle_unsent(one);
}

int sock_send(struct sock *s, const struct sock_msg *m) {
    uint32_t conn;
    memcpy(&conn, m->peer.id, sizeof conn);
    struct conn *c = &W->conns[conn];
    CHECK(conn < W->n_conns && c->to_workers == s->to_workers, "a message to nobody: %u", conn);
    bool full = c->open && chance(3); /* it does not read */
    if (!c->open || full) {
        each_message(m, lost, NULL);
        return full ? -EAGAIN : -EHOSTUNREACH;
    }
    each_message(m, sent, c);
    return 0;
}

static bool any_up(const struct sock *s) {
    for (uint32_t i = 0; i < W->n_conns; i++)
        if (W->conns[i].to_workers == s->to_workers && W->conns[i].up.len) return true;
    return false;
}

static void live(void) {
    world_fate();
    actors_step();
    int64_t dt = toss(700) ? (int64_t)draw(3) : (int64_t)draw(12);
    if (!W->faults) dt *= 4;
    if (chance(3)) dt += (int64_t)draw(2 * LEASE_MS); /* nobody is scheduled for a while */
    if (chance(1)) dt += 3000 + (int64_t)draw(9000);  /* or a long while */
    W->mono_ms += dt;
    if (chance(2))
        W->wall_off_ms = (int64_t)draw(2 * WALL_OFF_MS) - WALL_OFF_MS; /* somebody sets the clock */
    if (!W->faults || toss(500)) net_run_store(W->faults ? (uint32_t)draw(40) : COMMIT_BATCH);
}

/* The broker sleeps: everybody else lives meanwhile, and the broker may never wake up again. */
int sock_wait(struct sock_wait *w, uint32_t n, int64_t timeout_ms) {
    oracle_broker(W->b);
    CHECK(timeout_ms >= 0, "the loop would sleep for ever");
    (W->play ? W->play : live)();
    W->wall_ms = W->mono_ms + W->wall_off_ms + WALL_BEGIN_MS;
    w[0].readable = W->signalled;
    w[1].readable = true;
    for (uint32_t i = 2; i < n; i++) w[i].readable = any_up(w[i].sock);
    return 1;
}
