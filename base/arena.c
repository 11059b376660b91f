#include "base/arena.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK_BYTES (64u * 1024u)             /* the first block */
#define ARENA_BLOCK_MAX_BYTES (16u * 1024u * 1024u) /* doubling ends here */

/* The header fills one alignment unit, so that the data behind it is aligned too. */
struct arena_block {
    struct arena_block *next;
    size_t at, cap; /* offsets into data */
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t max_bytes) {
    *a = (struct arena){.max_bytes = max_bytes};
}

void arena_init_in(struct arena *a, size_t max_bytes, void *first, size_t first_bytes) {
    assert(first_bytes > sizeof(struct arena_block) && (uintptr_t)first % ARENA_ALIGN == 0);
    struct arena_block *b = first;
    b->next = NULL;
    b->at = 0;
    b->cap = first_bytes - sizeof *b;
    *a = (struct arena){
        .first = b, .last = b, .used_bytes = first_bytes, .max_bytes = max_bytes, .own = b};
}

static void free_from(struct arena_block *b) {
    while (b) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
}

void arena_fini(struct arena *a) {
    free_from(a->own ? a->own->next : a->first);
    a->first = a->last = a->own = NULL;
    a->used_bytes = 0;
}

void arena_reset(struct arena *a) {
    if (!a->first) return;
    free_from(a->first->next);
    a->first->next = NULL;
    a->first->at = 0;
    a->last = a->first;
    a->used_bytes = sizeof *a->first + a->first->cap;
}

static size_t round_up(size_t n) {
    return (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
}

/* A block with room for `need` bytes at the end of the chain: as large as doubling asks, or as
 * small as `need` when the cap is near. */
static struct arena_block *add_block(struct arena *a, size_t need) {
    size_t left = a->max_bytes > a->used_bytes ? a->max_bytes - a->used_bytes : 0;
    size_t head = sizeof(struct arena_block);
    if (left < head || need > left - head) return NULL;
    size_t want = a->last && a->last != a->own ? a->last->cap * 2 : ARENA_BLOCK_BYTES - head;
    if (want > ARENA_BLOCK_MAX_BYTES) want = ARENA_BLOCK_MAX_BYTES;
    if (want < need) want = need;
    if (want > left - head) want = need;
    struct arena_block *b = aligned_alloc(ARENA_ALIGN, round_up(head + want));
    if (!b) return NULL;
    *b = (struct arena_block){.cap = want};
    if (a->last)
        a->last->next = b;
    else
        a->first = b;
    a->last = b;
    a->used_bytes += head + want;
    return b;
}

void *arena_alloc(struct arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - ARENA_ALIGN) return NULL;
    struct arena_block *b = a->last;
    if (!b || b->cap - b->at < bytes) {
        b = add_block(a, bytes);
        if (!b) return NULL;
    }
    void *p = b->data + b->at;
    size_t end = round_up(b->at + bytes);
    b->at = end < b->cap ? end : b->cap;
    return p;
}

void *arena_calloc(struct arena *a, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    void *p = arena_alloc(a, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

void *arena_copy(struct arena *a, const void *data, size_t bytes) {
    void *p = arena_alloc(a, bytes);
    if (p && bytes) memcpy(p, data, bytes);
    return p;
}

char *arena_strndup(struct arena *a, const char *text, size_t bytes) {
    if (bytes == SIZE_MAX) return NULL;
    char *p = arena_alloc(a, bytes + 1);
    if (!p) return NULL;
    if (bytes) memcpy(p, text, bytes);
    p[bytes] = '\0';
    return p;
}

char *arena_printf(struct arena *a, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    return p;
}
