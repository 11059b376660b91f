/* memory.h - notes each allocation of the process that failed.
 *
 * Poppler, GLib and libstdc++ end a process that is out of memory by abort, and nothing tells that
 * abort from a bug. So malloc and its family are ours: they call the C library's and remember.
 * Under a sanitizer, which has its own, nothing is noted.
 *
 * Units: none.  Owner, memory, errors: none.  Threads: any. */
#ifndef PENSTOCK_WORKERS_EXTRACT_MEMORY_H
#define PENSTOCK_WORKERS_EXTRACT_MEMORY_H

#include <signal.h>

/* 1 after a failure; whoever handles it sets it to 0. */
extern volatile sig_atomic_t memory_failed;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_SANITIZED 1
#endif
#endif
#ifndef MEMORY_SANITIZED
#define MEMORY_SANITIZED 0
#endif

#endif
