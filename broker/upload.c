#include "broker/upload.h"

#include <assert.h>
#include <stdlib.h>

#include "base/err.h"

void uploads_init(struct uploads *t, uint32_t chunk_bytes) {
    *t = (struct uploads){.chunk_bytes = chunk_bytes};
    due_init(&t->due, LIMIT_UPLOADS);
}

void uploads_fini(struct uploads *t) {
    while (t->n) upload_close(t, t->open[t->n - 1]);
    due_fini(&t->due);
}

int upload_open(struct uploads *t, const struct upload_record *r, struct tenant *tenant,
                struct upload **out) {
    if (t->n == LIMIT_UPLOADS) return ERR_FULL;
    struct upload *u = calloc(1, sizeof *u);
    if (!u) return -ENOMEM;
    *u = (struct upload){.id = r->id,
                         .bytes = r->bytes,
                         .have = r->have,
                         .next = r->have,
                         .crc = r->crc,
                         .have_crc = r->have_crc,
                         .tenant = tenant};
    if (r->key.len && !(u->key = bytes_dup(r->key))) {
        free(u);
        return -ENOMEM;
    }
    t->open[t->n++] = *out = u;
    upload_count(u, true);
    return 0;
}

void upload_count(struct upload *u, bool counted) {
    if (u->counted == counted) return;
    u->counted = counted;
    if (counted)
        u->tenant->upload_bytes += u->bytes;
    else
        u->tenant->upload_bytes -= u->bytes;
}

struct upload *upload_find(const struct uploads *t, uint64_t id) {
    for (uint32_t i = 0; i < t->n; i++)
        if (t->open[i]->id == id) return t->open[i];
    return NULL;
}

struct upload *upload_by_key(const struct uploads *t, const struct tenant *tenant, struct bytes key,
                             uint64_t bytes, uint32_t crc) {
    for (uint32_t i = 0; i < t->n; i++) {
        struct upload *u = t->open[i];
        if (u->tenant == tenant && u->bytes == bytes && u->crc == crc && u->key &&
            bytes_is(key, u->key))
            return u;
    }
    return NULL;
}

void upload_close(struct uploads *t, struct upload *u) {
    uint32_t i = 0;
    while (i < t->n && t->open[i] != u) i++;
    assert(i < t->n);
    t->open[i] = t->open[--t->n];
    due_drop(&t->due, &u->due);
    upload_count(u, false);
    free(u->key);
    free(u);
}

uint32_t uploads_of_peer(const struct uploads *t, const struct sock_peer *peer) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) n += sock_peer_eq(&t->open[i]->peer, peer);
    return n;
}

uint32_t uploads_of_tenant(const struct uploads *t, const struct tenant *tenant) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n; i++) n += t->open[i]->tenant == tenant;
    return n;
}

uint64_t uploads_missing_bytes(const struct uploads *t) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < t->n; i++) bytes += t->open[i]->bytes - t->open[i]->have;
    return bytes;
}
