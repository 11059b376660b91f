#include "workers/infer/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define NONE UINT32_MAX

struct prefix_entry {
    struct page_key key, parent;
    uint32_t next_in_bucket; /* or of the free ones */
    uint32_t place[PREFIX_LEVELS], holders[PREFIX_LEVELS];
    uint32_t newer[PREFIX_LEVELS], older[PREFIX_LEVELS];
};

int prefix_init(struct prefix *p, uint32_t pages_max) {
    *p = (struct prefix){.cap = pages_max, .buckets = 16};
    while (p->buckets < pages_max && p->buckets < 1u << 30) p->buckets *= 2;
    p->entry = calloc(pages_max, sizeof *p->entry);
    p->bucket = malloc(p->buckets * sizeof *p->bucket);
    if (!p->entry || !p->bucket) {
        prefix_fini(p);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < p->buckets; i++) p->bucket[i] = NONE;
    for (uint32_t i = 0; i < pages_max; i++)
        p->entry[i].next_in_bucket = i + 1 < pages_max ? i + 1 : NONE;
    p->free = pages_max > 0 ? 0 : NONE;
    for (uint32_t l = 0; l < PREFIX_LEVELS; l++) p->newest[l] = p->oldest[l] = NONE;
    return 0;
}

void prefix_fini(struct prefix *p) {
    free(p->entry);
    free(p->bucket);
    *p = (struct prefix){0};
}

/* ---- entries ---- */

static uint32_t *bucket_of(const struct prefix *p, const struct page_key *key) {
    uint32_t hash; /* keys are hashes already */
    memcpy(&hash, key->b, sizeof hash);
    return &p->bucket[hash & (p->buckets - 1)];
}

static uint32_t find(const struct prefix *p, const struct page_key *key) {
    uint32_t i = *bucket_of(p, key);
    while (i != NONE && memcmp(&p->entry[i].key, key, sizeof *key) != 0)
        i = p->entry[i].next_in_bucket;
    return i;
}

static uint32_t find_on(const struct prefix *p, enum prefix_level level,
                        const struct page_key *key) {
    uint32_t i = find(p, key);
    return i != NONE && p->entry[i].place[level] != PREFIX_NOWHERE ? i : NONE;
}

/* keys[0] is the parent's, keys[1] its own. */
static uint32_t add(struct prefix *p, const struct page_key *keys) {
    uint32_t i = p->free, *bucket = bucket_of(p, &keys[1]);
    if (i == NONE) return NONE;
    p->free = p->entry[i].next_in_bucket;
    p->entry[i] =
        (struct prefix_entry){.key = keys[1], .parent = keys[0], .next_in_bucket = *bucket};
    for (uint32_t l = 0; l < PREFIX_LEVELS; l++) p->entry[i].place[l] = PREFIX_NOWHERE;
    *bucket = i;
    p->known++;
    return i;
}

static void forget(struct prefix *p, uint32_t i) {
    uint32_t *at = bucket_of(p, &p->entry[i].key);
    while (*at != i) at = &p->entry[*at].next_in_bucket;
    *at = p->entry[i].next_in_bucket;
    p->entry[i].next_in_bucket = p->free;
    p->free = i;
    p->known--;
}

/* ---- the order of a level ---- */

static void unlink_entry(struct prefix *p, enum prefix_level l, uint32_t i) {
    struct prefix_entry *e = &p->entry[i];
    *(e->newer[l] != NONE ? &p->entry[e->newer[l]].older[l] : &p->newest[l]) = e->older[l];
    *(e->older[l] != NONE ? &p->entry[e->older[l]].newer[l] : &p->oldest[l]) = e->newer[l];
}

static void link_newest(struct prefix *p, enum prefix_level l, uint32_t i) {
    struct prefix_entry *e = &p->entry[i];
    e->newer[l] = NONE;
    e->older[l] = p->newest[l];
    *(p->newest[l] != NONE ? &p->entry[p->newest[l]].newer[l] : &p->oldest[l]) = i;
    p->newest[l] = i;
}

/* Deepest first, so that each page comes to stand before those that continue it. */
static void use_on(struct prefix *p, enum prefix_level level, const struct page_key *keys,
                   uint32_t n) {
    for (uint32_t k = n; k > 0; k--) {
        uint32_t i = find_on(p, level, &keys[k]);
        if (i == NONE) continue;
        unlink_entry(p, level, i);
        link_newest(p, level, i);
    }
}

/* ---- verbs ---- */

uint32_t prefix_find(const struct prefix *p, const struct page_key *keys, uint32_t n,
                     struct prefix_place *place) {
    uint32_t leading = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = find(p, &keys[k + 1]);
        if (i != NONE && leading == k) leading++;
        for (uint32_t l = 0; place && l < PREFIX_LEVELS; l++)
            place[k].at[l] = i != NONE ? p->entry[i].place[l] : PREFIX_NOWHERE;
        if (!place && leading <= k) break;
    }
    return leading;
}

/* The pages before that of this key, nearest first, come to stand before it. */
static void lift(struct prefix *p, enum prefix_level level, const struct page_key *key) {
    for (uint32_t i; (i = find(p, key)) != NONE; key = &p->entry[i].parent) {
        if (p->entry[i].place[level] == PREFIX_NOWHERE) continue;
        unlink_entry(p, level, i);
        link_newest(p, level, i);
    }
}

int prefix_put(struct prefix *p, enum prefix_level level, const struct page_key *keys, uint32_t n,
               uint32_t *place, uint32_t *done) {
    uint32_t k = 0;
    for (; k < n; k++) {
        assert(place[k] != PREFIX_NOWHERE);
        uint32_t i = find(p, &keys[k + 1]);
        if (i == NONE) i = add(p, &keys[k]);
        if (i == NONE) break;
        struct prefix_entry *e = &p->entry[i];
        if (e->place[level] != PREFIX_NOWHERE) {
            place[k] = e->place[level];
            continue;
        }
        e->place[level] = place[k];
        link_newest(p, level, i);
        p->n[level]++;
    }
    *done = k;
    use_on(p, level, keys, k);
    lift(p, level, &keys[0]);
    return k == n ? 0 : ERR_FULL;
}

void prefix_use(struct prefix *p, const struct page_key *keys, uint32_t n) {
    for (uint32_t l = 0; l < PREFIX_LEVELS; l++) use_on(p, (enum prefix_level)l, keys, n);
}

void prefix_hold(struct prefix *p, enum prefix_level level, const struct page_key *keys,
                 uint32_t n) {
    for (uint32_t k = 1; k <= n; k++) {
        uint32_t i = find_on(p, level, &keys[k]);
        assert(i != NONE);
        p->entry[i].holders[level]++;
    }
}

void prefix_release(struct prefix *p, enum prefix_level level, const struct page_key *keys,
                    uint32_t n) {
    for (uint32_t k = 1; k <= n; k++) {
        uint32_t i = find_on(p, level, &keys[k]);
        assert(i != NONE && p->entry[i].holders[level] > 0);
        p->entry[i].holders[level]--;
    }
}

bool prefix_oldest(const struct prefix *p, enum prefix_level level, struct page_key keys[2],
                   uint32_t *place) {
    uint32_t i = p->oldest[level];
    while (i != NONE && p->entry[i].holders[level] > 0) i = p->entry[i].newer[level];
    if (i == NONE) return false;
    keys[0] = p->entry[i].parent;
    keys[1] = p->entry[i].key;
    *place = p->entry[i].place[level];
    return true;
}

void prefix_remove(struct prefix *p, enum prefix_level level, const struct page_key *key) {
    uint32_t i = find_on(p, level, key);
    assert(i != NONE && p->entry[i].holders[level] == 0);
    unlink_entry(p, level, i);
    p->entry[i].place[level] = PREFIX_NOWHERE;
    p->n[level]--;
    for (uint32_t l = 0; l < PREFIX_LEVELS; l++)
        if (p->entry[i].place[l] != PREFIX_NOWHERE) return;
    forget(p, i);
}
