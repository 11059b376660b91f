#include "broker/watch.h"

#include <stdlib.h>

#include "base/err.h"

void watches_init(struct watches *t, uint32_t cap) {
    *t = (struct watches){.cap = cap};
    due_init(&t->due, cap);
}

void watches_fini(struct watches *t) {
    while (t->all) watch_drop(t, t->all);
    due_fini(&t->due);
}

/* FNV-1a of the routing id. */
static struct watch **bucket(struct watches *t, const struct sock_peer *peer) {
    uint32_t h = 2166136261u;
    for (uint8_t i = 0; i < peer->len; i++) h = (h ^ peer->id[i]) * 16777619u;
    return &t->by_peer[(h ^ h >> 16) % WATCH_PEERS];
}

static uint32_t watches_of(struct watches *t, const struct sock_peer *peer) {
    uint32_t n = 0;
    for (const struct watch *w = *bucket(t, peer); w; w = w->peer_next)
        n += sock_peer_eq(&w->peer, peer);
    return n;
}

int watch_add(struct watches *t, struct job *j, enum watch_type type, const struct sock_peer *peer,
              uint64_t req, int64_t until_ms) {
    if (t->n == t->cap) return ERR_FULL;
    if (watches_of(t, peer) >= LIMIT_PEER_WATCHES) return ERR_LIMIT;
    struct watch *w = calloc(1, sizeof *w);
    if (!w) return -ENOMEM;
    *w = (struct watch){.type = type, .peer = *peer, .req = req, .job = j};
    int e = type == WATCH_WAIT ? due_set(&t->due, &w->due, until_ms) : 0;
    if (e) {
        free(w);
        return e;
    }
    w->next = j->watches;
    j->watches = w;
    w->all_next = t->all;
    if (t->all) t->all->all_prev = w;
    t->all = w;
    struct watch **at = bucket(t, peer);
    w->peer_next = *at;
    *at = w;
    t->n++;
    return 0;
}

void watch_drop(struct watches *t, struct watch *w) {
    struct watch **at = &w->job->watches;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    at = bucket(t, &w->peer);
    while (*at != w) at = &(*at)->peer_next;
    *at = w->peer_next;
    if (w->all_prev)
        w->all_prev->all_next = w->all_next;
    else
        t->all = w->all_next;
    if (w->all_next) w->all_next->all_prev = w->all_prev;
    due_drop(&t->due, &w->due);
    t->n--;
    free(w);
}

struct watch *watch_find(struct watches *t, const struct sock_peer *peer, uint64_t req) {
    for (struct watch *w = *bucket(t, peer); w; w = w->peer_next)
        if (w->req == req && sock_peer_eq(&w->peer, peer)) return w;
    return NULL;
}
