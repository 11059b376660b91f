#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

/* From here on a buffer is aligned for, and asked to lie in, huge pages: a decode step streams
 * through gigabytes of weights, and 4 KiB pages would miss the TLB all the way. */
enum { HUGE_PAGE = 2 << 20, ALIGNMENT = 64 };

void *cpu_alloc(struct ops *o, size_t bytes) {
    (void)o;
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes > PTRDIFF_MAX - unit) return NULL;
    size_t whole = bytes == 0 ? unit : (bytes + unit - 1) / unit * unit;
    void *buffer = aligned_alloc(unit, whole);
    if (!buffer) return NULL;
    if (unit == HUGE_PAGE) madvise(buffer, whole, MADV_HUGEPAGE);
    return memset(buffer, 0, whole);
}

void cpu_free(struct ops *o, void *buffer) {
    (void)o;
    free(buffer);
}
