/* pages_care.h - looking after the caches of KV pages of a folder, whoever has them open.
 *
 * Groups are found by their place, DIR/FINGERPRINT/GROUP, and tell of themselves. What is damaged
 * is reported as it lies; the next engine that opens it makes it anew. A page that is damaged is a
 * miss anyhow: to verify is to find it before somebody waits for it.
 *
 * Units: bytes, pages.  Owner: the caller.  Memory: a group is open during a call, so never one
 * that this process has open.  Errors: -ENOENT no such folder or model, -errno, with err.
 * Threads: one at a time. */
#ifndef PENSTOCK_STORE_PAGES_CARE_H
#define PENSTOCK_STORE_PAGES_CARE_H

#include "store/pages.h"

struct pages_found {
    const char *model, *group; /* the names of their folders */
    char about[256];
    int code; /* 0; else it cannot be opened, and `why` says it */
    char why[512];
    struct page_shape shape;
    uint32_t window_tokens;
    struct page_group_usage usage;
    int64_t changed_ms; /* wall clock: its last write */
    uint64_t torn;      /* pages_verify: that were damaged, and are dropped */
};
/* By name; a result of fn other than 0 ends the walk and is returned. only: a fingerprint or its
 * beginning; NULL: all. */
int pages_each(const char *dir, const char *only, int (*fn)(void *arg, const struct pages_found *f),
               void *arg, char *err, size_t err_bytes);
/* The same, after every page was read and its checksum compared. */
int pages_verify(const char *dir, const char *only,
                 int (*fn)(void *arg, const struct pages_found *f), void *arg, char *err,
                 size_t err_bytes);
/* The same, after every page was dropped; usage is of before. The files of a group that nobody has
 * open go, so that damage ends here. */
int pages_drop(const char *dir, const char *only, int (*fn)(void *arg, const struct pages_found *f),
               void *arg, char *err, size_t err_bytes);

#endif
