#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"

/* From here on a buffer is aligned for, and asked to lie in, huge pages: a decode step streams
 * through gigabytes of weights, and 4 KiB pages would miss the TLB all the way. */
enum { HUGE_PAGE = 2 << 20, ALIGNMENT = 64 };

/* Large memory comes zeroed from the system, and is taken there only when it is touched: a KV pool
 * costs what its texts hold. What was allocated stands in front of what is given. */
void *cpu_alloc(struct ops *o, size_t bytes) {
    (void)o;
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes > PTRDIFF_MAX - 3 * unit) return NULL;
    size_t whole = bytes == 0 ? unit : (bytes + unit - 1) / unit * unit;
    char *raw = calloc(1, whole + unit + sizeof(void *));
    if (!raw) return NULL;
    uintptr_t at = ((uintptr_t)raw + sizeof(void *) + unit - 1) / unit * unit;
    void *buffer = raw + (at - (uintptr_t)raw);
    memcpy((char *)buffer - sizeof raw, &raw, sizeof raw);
    if (unit == HUGE_PAGE) madvise(buffer, whole, MADV_HUGEPAGE);
    return buffer;
}

void cpu_free(struct ops *o, void *buffer) {
    (void)o;
    char *raw;
    if (!buffer) return;
    memcpy(&raw, (char *)buffer - sizeof raw, sizeof raw);
    free(raw);
}
