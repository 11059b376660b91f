#include "broker/table.h"

#include <stdlib.h>

#include "base/err.h"

enum { BUCKETS_MIN = 1024 };

/* Ids count up within a millisecond, so multiplying spreads them (Knuth, 64-bit golden ratio). */
static uint32_t place(const struct job_table *t, uint64_t id) {
    return (uint32_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (t->buckets - 1);
}

int job_table_init(struct job_table *t, uint32_t cap) {
    *t = (struct job_table){.buckets = BUCKETS_MIN, .cap = cap};
    t->bucket = calloc(t->buckets, sizeof *t->bucket);
    return t->bucket ? 0 : -ENOMEM;
}

void job_table_fini(struct job_table *t) {
    for (uint32_t i = 0; t->bucket && i < t->buckets; i++)
        for (struct job *j = t->bucket[i], *next; j; j = next) {
            next = j->hash_next;
            job_free(j);
        }
    free(t->bucket);
    *t = (struct job_table){0};
}

/* A table that cannot grow still works, only slower. */
static void grow(struct job_table *t) {
    struct job_table bigger = {.buckets = t->buckets * 2, .cap = t->cap, .len = t->len};
    bigger.bucket = calloc(bigger.buckets, sizeof *bigger.bucket);
    if (!bigger.bucket) return;
    for (uint32_t i = 0; i < t->buckets; i++)
        for (struct job *j = t->bucket[i], *next; j; j = next) {
            next = j->hash_next;
            uint32_t at = place(&bigger, j->id);
            j->hash_next = bigger.bucket[at];
            bigger.bucket[at] = j;
        }
    free(t->bucket);
    *t = bigger;
}

int job_table_insert(struct job_table *t, struct job *j) {
    if (t->len == t->cap) return ERR_FULL;
    if (t->len >= t->buckets) grow(t);
    uint32_t at = place(t, j->id);
    j->hash_next = t->bucket[at];
    t->bucket[at] = j;
    t->len++;
    return 0;
}

struct job *job_table_find(const struct job_table *t, uint64_t id) {
    struct job *j = t->bucket[place(t, id)];
    while (j && j->id != id) j = j->hash_next;
    return j;
}

void job_table_remove(struct job_table *t, struct job *j) {
    struct job **at = &t->bucket[place(t, j->id)];
    while (*at && *at != j) at = &(*at)->hash_next;
    if (!*at) return;
    *at = j->hash_next;
    j->hash_next = NULL;
    t->len--;
}

void job_table_each(const struct job_table *t, void (*fn)(void *arg, struct job *j), void *arg) {
    for (uint32_t i = 0; i < t->buckets; i++)
        for (struct job *j = t->bucket[i]; j; j = j->hash_next) fn(arg, j);
}
