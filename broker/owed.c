#include "broker/owed.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"

enum { RETRY_MS = 10 };

int owed_init(struct owed_list *l, uint32_t cap) {
    *l = (struct owed_list){.at = calloc(cap, sizeof *l->at), .cap = cap};
    return l->at ? 0 : -ENOMEM;
}

void owed_fini(struct owed_list *l) {
    free(l->at);
    *l = (struct owed_list){0};
}

int owed_notice(struct owed_list *l, const struct sock_peer *peer, uint64_t req,
                enum owed_what what, uint64_t job, uint64_t at, int64_t now_ms) {
    if (l->n == l->cap) return ERR_FULL;
    if (l->n == 0) l->retry_ms = now_ms + RETRY_MS;
    l->at[l->n++] = (struct owed){.peer = *peer, .what = what, .req = req, .job = job, .at = at};
    return 0;
}

int owed_add(struct owed_list *l, const struct sock_peer *peer, uint64_t req, uint64_t job,
             int64_t now_ms) {
    return owed_notice(l, peer, req, OWED_JOB, job, 0, now_ms);
}

int64_t owed_wait_ms(const struct owed_list *l, int64_t now_ms) {
    if (l->n == 0) return -1;
    return l->retry_ms > now_ms ? l->retry_ms - now_ms : 0;
}

void owed_settle(struct owed_list *l, int64_t now_ms, bool (*say)(void *arg, const struct owed *o),
                 void *arg) {
    struct sock_peer slow = {0};
    uint32_t kept = 0;
    if (owed_wait_ms(l, now_ms) != 0) return;
    l->retry_ms = now_ms + RETRY_MS;
    for (uint32_t i = 0; i < l->n; i++) {
        struct owed *o = &l->at[i];
        if (!sock_peer_eq(&o->peer, &slow) && say(arg, o)) continue;
        slow = o->peer;
        l->at[kept++] = *o;
    }
    l->n = kept;
}
