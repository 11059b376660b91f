#include "workers/encode/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define NONE UINT32_MAX

/* FNV-1a, folded once more so that the low bits of short tokens spread. */
static uint32_t hash_of(struct bytes token) {
    const unsigned char *s = token.data;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < token.len; i++) h = (h ^ s[i]) * 1099511628211u;
    return (uint32_t)(h ^ h >> 32);
}

static struct vocab_slot *seek(const struct vocab *v, struct bytes token, uint32_t hash) {
    for (uint32_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        struct vocab_slot *s = &v->slots[i];
        if (s->bytes == NONE) return s;
        if (s->hash == hash && s->bytes == token.len &&
            (token.len == 0 || memcmp(v->text.data + s->begin, token.data, token.len) == 0))
            return s;
    }
}

static int grow_slots(struct vocab *v) {
    uint32_t cap = v->slots ? (v->mask + 1) * 2 : 1024;
    struct vocab_slot *old = v->slots, *slots = malloc(cap * sizeof *slots);
    if (!slots) return -ENOMEM;
    memset(slots, 0xFF, cap * sizeof *slots);
    for (uint32_t i = 0; old && i <= v->mask; i++) {
        if (old[i].bytes == NONE) continue;
        uint32_t at = old[i].hash & (cap - 1);
        while (slots[at].bytes != NONE) at = (at + 1) & (cap - 1);
        slots[at] = old[i];
    }
    free(old);
    v->slots = slots;
    v->mask = cap - 1;
    return 0;
}

static int grow_ids(struct vocab *v, uint32_t id) {
    if (id >= v->ids_cap) {
        uint32_t cap = v->ids_cap ? v->ids_cap : 1024;
        while (cap <= id) cap *= 2;
        struct vocab_entry *e = realloc(v->by_id, cap * sizeof *e);
        if (!e) return -ENOMEM;
        memset(e + v->ids_cap, 0xFF, (cap - v->ids_cap) * sizeof *e);
        v->by_id = e;
        v->ids_cap = cap;
    }
    if (id >= v->ids) v->ids = id + 1;
    return 0;
}

int vocab_add(struct vocab *v, struct bytes token, uint32_t id) {
    if (id >= VOCAB_IDS_MAX || token.len > UINT16_MAX || v->text.len > UINT32_MAX / 2)
        return ERR_LIMIT;
    int rc = grow_ids(v, id);
    if (rc == 0 && (!v->slots || v->used > v->mask / 2)) rc = grow_slots(v);
    if (rc < 0) return rc;
    uint32_t hash = hash_of(token);
    struct vocab_slot *s = seek(v, token, hash);
    if (s->bytes == NONE) {
        uint32_t begin = (uint32_t)v->text.len;
        rc = buf_append(&v->text, token.data, token.len);
        if (rc < 0) return rc;
        *s = (struct vocab_slot){hash, begin, (uint32_t)token.len, id};
        v->used++;
        if (token.len > v->longest_bytes) v->longest_bytes = (uint32_t)token.len;
    }
    s->id = id;
    v->by_id[id] = (struct vocab_entry){s->begin, s->bytes};
    return 0;
}

int64_t vocab_find(const struct vocab *v, struct bytes token) {
    if (!v->slots || token.len > UINT16_MAX) return -1;
    const struct vocab_slot *s = seek(v, token, hash_of(token));
    return s->bytes == NONE ? -1 : (int64_t)s->id;
}

struct bytes vocab_token(const struct vocab *v, uint32_t id) {
    if (id >= v->ids || v->by_id[id].bytes == NONE) return (struct bytes){NULL, 0};
    /* An empty token is there all the same: its pointer is not NULL. */
    const char *text = v->text.data ? (const char *)v->text.data : "";
    return bytes_of(text + v->by_id[id].begin, v->by_id[id].bytes);
}

void vocab_fini(struct vocab *v) {
    buf_fini(&v->text);
    free(v->by_id);
    free(v->slots);
    *v = (struct vocab){0};
}
