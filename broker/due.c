#include "broker/due.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void due_init(struct due_table *t, uint32_t cap) {
    *t = (struct due_table){.cap = cap};
}

void due_fini(struct due_table *t) {
    free(t->heap);
    *t = (struct due_table){0};
}

/* Every move goes through put(), so heap[d->slot] == d always holds. */
static void put(struct due_table *t, uint32_t slot, struct due *d) {
    t->heap[slot] = d;
    d->slot = slot;
}

/* Seats d at the hole `slot`, then lets it rise or sink to its place. */
static void settle(struct due_table *t, uint32_t slot, struct due *d) {
    for (; slot > 1 && d->at_ms < t->heap[slot / 2]->at_ms; slot /= 2)
        put(t, slot, t->heap[slot / 2]);
    for (uint32_t kid; (kid = slot * 2) <= t->len; slot = kid) {
        if (kid < t->len && t->heap[kid + 1]->at_ms < t->heap[kid]->at_ms) kid++;
        if (d->at_ms <= t->heap[kid]->at_ms) break;
        put(t, slot, t->heap[kid]);
    }
    put(t, slot, d);
}

static int grow(struct due_table *t) {
    uint32_t room = t->room ? t->room * 2 : 64;
    struct due **heap = realloc(t->heap, ((size_t)room + 1) * sizeof *heap);
    if (!heap) return -ENOMEM;
    t->heap = heap;
    t->room = room;
    return 0;
}

int due_set(struct due_table *t, struct due *d, int64_t at_ms) {
    assert(d->slot == 0 || t->heap[d->slot] == d);
    if (d->slot == 0) {
        if (t->len == t->cap) return -ENOSPC;
        if (t->len == t->room) {
            int e = grow(t);
            if (e) return e;
        }
        d->slot = ++t->len;
    }
    d->at_ms = at_ms;
    settle(t, d->slot, d);
    return 0;
}

void due_drop(struct due_table *t, struct due *d) {
    if (d->slot == 0) return;
    assert(t->heap[d->slot] == d);
    struct due *last = t->heap[t->len--];
    if (last != d) settle(t, d->slot, last); /* the last one fills the hole */
    d->slot = 0;
}

struct due *due_late(const struct due_table *t, int64_t now_ms) {
    return t->len && t->heap[1]->at_ms <= now_ms ? t->heap[1] : NULL;
}

int64_t due_wait_ms(const struct due_table *t, int64_t now_ms) {
    if (t->len == 0) return -1;
    return t->heap[1]->at_ms <= now_ms ? 0 : t->heap[1]->at_ms - now_ms;
}
