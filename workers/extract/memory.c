#include "workers/extract/memory.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

volatile sig_atomic_t memory_failed;

#if !MEMORY_SANITIZED

/* glibc's own names of its allocator, there for those who put their own in front. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static void *noted(void *p) {
    if (!p) memory_failed = 1;
    return p;
}

void *malloc(size_t bytes) {
    return noted(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t size) {
    return noted(__libc_calloc(count, size));
}

void *realloc(void *p, size_t bytes) {
    void *q = __libc_realloc(p, bytes);
    return bytes == 0 ? q : noted(q);
}

void *memalign(size_t alignment, size_t bytes);
void *memalign(size_t alignment, size_t bytes) {
    return noted(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    return noted(__libc_memalign(alignment, bytes));
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
    void *p = noted(__libc_memalign(alignment, bytes));
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

#endif
