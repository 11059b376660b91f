/* arena.h - memory that lives exactly as long as one job or one batch.
 *
 * Bump allocation from chained blocks; arena_reset frees everything at once and keeps the first
 * block. What does not fit under the cap is refused with NULL, and the caller returns -ENOMEM.
 *
 * Units: bytes.  Owner: whoever calls arena_init.  Memory: blocks from malloc, at most max_bytes.
 * Errors: NULL.  Threads: one at a time. */
#ifndef PENSTOCK_BASE_ARENA_H
#define PENSTOCK_BASE_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *first, *last;
    size_t used_bytes, max_bytes; /* of all blocks; the hard limit */
    struct arena_block *own;      /* of the blocks, the one that is the caller's; or NULL */
};

void arena_init(struct arena *a, size_t max_bytes); /* allocates nothing yet */
/* The same, and the first block is memory of the caller's, which outlives the arena: for many
 * arenas that mostly hold little. Aligned as ARENA_ALIGN says. */
void arena_init_in(struct arena *a, size_t max_bytes, void *first, size_t first_bytes);
#define ARENA_ALIGN 64u
void arena_fini(struct arena *a);  /* accepts zeroed memory */
void arena_reset(struct arena *a); /* all pointers handed out become invalid */

/* 64-byte aligned; NULL over the cap */
void *arena_alloc(struct arena *a, size_t bytes);
void *arena_calloc(struct arena *a, size_t count, size_t size); /* zeroed, overflow-checked */
void *arena_copy(struct arena *a, const void *data, size_t bytes);
char *arena_strndup(struct arena *a, const char *text, size_t bytes); /* adds a NUL */
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
