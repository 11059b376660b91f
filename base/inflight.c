#include "base/inflight.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Peers that have large frames on their way at a time. */
enum { PEERS = 1024 };

struct inflight_peer {
    struct sock_peer peer;
    _Atomic uint64_t bytes; /* 0: the entry is free, since no block points here */
};
struct inflight {
    _Atomic uint64_t bytes;
    _Atomic uint32_t refs; /* the socket's and one for each block */
    uint32_t used;         /* entries that were ever taken */
    struct inflight_peer peers[PEERS];
};
struct inflight_block {
    /* Written last and read first: what zmq does in between orders the two, but says so to nobody
     * (a thread sanitizer does not see into it). */
    _Atomic(struct inflight *) table;
    struct inflight_peer *peer;
    size_t len;
    uint8_t data[];
};

struct inflight *inflight_open(void) {
    struct inflight *t = calloc(1, sizeof *t);
    if (t) atomic_init(&t->refs, 1);
    return t;
}

void inflight_close(struct inflight *t) {
    if (t && atomic_fetch_sub(&t->refs, 1) == 1) free(t);
}

static struct inflight_peer *find(struct inflight *t, const struct sock_peer *to) {
    struct inflight_peer *spare = NULL;
    for (uint32_t i = 0; i < t->used; i++) {
        struct inflight_peer *p = &t->peers[i];
        if (sock_peer_eq(&p->peer, to)) return p;
        if (!spare && atomic_load(&p->bytes) == 0) spare = p;
    }
    if (!spare && t->used < PEERS) spare = &t->peers[t->used++];
    if (spare) spare->peer = *to;
    return spare;
}

int inflight_room(struct inflight *t, const struct sock_peer *to, uint64_t bytes,
                  struct inflight_peer **out) {
    struct inflight_peer *p = find(t, to);
    if (!p) return -EAGAIN;
    uint64_t has = atomic_load(&p->bytes);
    if (has && has + bytes > LIMIT_PEER_INFLIGHT_BYTES) return -EAGAIN;
    /* Who has nothing under way finds room when those who do not read have used theirs up. */
    uint64_t most = has ? LIMIT_INFLIGHT_BYTES : 2 * LIMIT_INFLIGHT_BYTES;
    if (atomic_load(&t->bytes) + bytes > most) return -EAGAIN;
    *out = p;
    return 0;
}

struct inflight_block *inflight_take(struct inflight *t, struct inflight_peer *p, const void *data,
                                     size_t len) {
    struct inflight_block *b = malloc(sizeof *b + len);
    if (!b) return NULL;
    b->peer = p;
    b->len = len;
    memcpy(b->data, data, len);
    atomic_store(&b->table, t);
    atomic_fetch_add(&p->bytes, len);
    atomic_fetch_add(&t->bytes, len);
    atomic_fetch_add(&t->refs, 1);
    return b;
}

void *inflight_data(struct inflight_block *b) {
    return b->data;
}

void inflight_free(void *data, void *hint) {
    struct inflight_block *b = hint;
    struct inflight *t = atomic_load(&b->table);
    (void)data;
    atomic_fetch_sub(&t->bytes, b->len);
    atomic_fetch_sub(&b->peer->bytes, b->len);
    free(b);
    inflight_close(t);
}

uint64_t inflight_bytes(const struct inflight *t) {
    return atomic_load(&t->bytes);
}
