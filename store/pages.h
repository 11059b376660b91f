/* pages.h - the KV pages of a model that outlive its process: found by prefix, written behind.
 *
 * A model has a folder DIR/FINGERPRINT and in it a group for each kind of attention: one that sees
 * everything (window_tokens 0), and one for each sliding window, whose pages are others under the
 * same keys. A prefix can be used up to where all pages of the first kind are there and, of a
 * window, those that the next token sees; what is missing shortens it, and the hit says so.
 *
 * It is a cache. A page that is missing, torn, foreign or flipped is a miss with a counter: what
 * pages_get gives has the tokens that were asked for and the bytes that were stored under them
 * (page_value.h), whatever became of the files (page_group.h, tree.h). Deleting DIR costs time
 * only.
 *
 * Reading: a struct pages_read is a snapshot of all groups that borrows from the maps. While it is
 * open the writers of all processes cannot use again what is freed, so it ends by itself, in a way:
 * after PAGES_READ_MS or PAGES_READ_PAGES its calls give ERR_LIMIT, and the caller ends it and
 * begins another. Writing: pages_save queues what a thread of this module then stores, a
 * transaction for some pages at a time; the caller's memory is borrowed until `done`. A full queue
 * is a refusal, and the pages are not kept.
 *
 * Units: bytes, tokens, monotonic milliseconds (passed in).  Owner: pages_open to pages_close.
 * Memory: LMDB's maps; some MiB while a transaction is written.  Errors: as said; a cache that
 * fails is misses.  Threads: any may read and save, a struct pages_read is of one; one struct pages
 * a folder and process. */
#ifndef PENSTOCK_STORE_PAGES_H
#define PENSTOCK_STORE_PAGES_H

#include "store/page_group.h"

#define PAGES_GROUPS_MAX 4u
#define PAGES_READ_MS 2000
#define PAGES_READ_PAGES 4096u

struct pages;
struct pages_group_config {
    const char *name; /* a folder */
    uint32_t data_bytes;
    uint32_t window_tokens; /* that a token sees, itself included; 0: all */
    uint64_t cap_bytes;     /* of its data file */
};
struct pages_config {
    const char *dir; /* of all models */
    const char *about;
    struct page_model model;
    const struct pages_group_config *groups; /* [n_groups]; the first sees everything */
    uint32_t n_groups;
};
int pages_open(struct pages **out, const struct pages_config *c, char *err, size_t err_bytes);
/* Stores what is queued, then ends. NULL is fine. */
void pages_close(struct pages *p);
const char *pages_dir(const struct pages *p); /* DIR/FINGERPRINT */
/* What a group lost at open because it was damaged, as a sentence; NULL when it was sound. */
const char *pages_remade(const struct pages *p, uint32_t group);

/* ---- reading ---- */

struct pages_read {
    struct pages *pages;
    struct env_txn txn[PAGES_GROUPS_MAX];
    int64_t until_ms;
    uint32_t pages_left;
};
int pages_read_begin(struct pages *p, int64_t now_ms, struct pages_read *out);
void pages_read_end(struct pages_read *r); /* zeroed is fine */

struct pages_hit {
    uint32_t pages;  /* that can be used, from the first on */
    uint32_t stored; /* leading ones that the first group has: more, where a window's are missing */
};
/* keys[0] is the root and keys[i + 1] page i's; of n pages. */
int pages_find(struct pages_read *r, int64_t now_ms, const struct page_key *keys, uint32_t n,
               struct pages_hit *out);
/* The first page of that group which a prefix of so many pages needs. */
uint32_t pages_first_needed(const struct pages *p, uint32_t group, uint32_t pages);
/* Page i's data, 64-byte aligned, borrowed until the read ends. -ENOENT: not there (any more);
 * ERR_CORRUPT, ERR_STALE of the page: it is counted, and dropped soon; both mean a miss. ERR_LIMIT:
 * this read has been open too long, begin another. */
int pages_get(struct pages_read *r, int64_t now_ms, uint32_t group, const struct page_key *keys,
              uint32_t i, const uint32_t *tokens, struct bytes *data);
/* Starts to read pages from..n-1 from the disk. */
void pages_prefetch(struct pages_read *r, uint32_t group, const struct page_key *keys,
                    uint32_t from, uint32_t n);

/* ---- writing ---- */

/* Marks a chain as used now, and stores its pages from `first` on that are not there yet. */
struct pages_save {
    uint32_t group, first, pages;
    const struct page_key *keys; /* [pages + 1] */
    const uint32_t *tokens;      /* [pages * page_tokens] */
    const void *const *data;     /* [pages - first] of data_bytes; NULL when first == pages */
    /* By the writing thread; NULL with pages_write. stored: how many of them are there now. */
    void (*done)(struct pages_save *s);
    void *arg;
    uint32_t stored;
    int code;      /* 0; ERR_FULL the cap, -ENOENT a parent went, -ENOSPC, -EIO, ... */
    uint32_t next; /* private */
};
int pages_save(struct pages *p, struct pages_save *s); /* ERR_FULL, ERR_CLOSED */
/* The same at once, by this thread. */
void pages_write(struct pages *p, struct pages_save *const *s, uint32_t n);
void pages_flush(struct pages *p); /* waits until what was queued before is stored */

/* ---- looking after it ---- */

struct pages_stats {
    uint64_t hits, absent, torn, foreign; /* pages that were asked for */
    uint64_t shortened;                   /* prefixes that a window's missing pages cut */
    uint64_t stored, known, evicted;      /* known: there already */
    uint64_t refused;                     /* saves that a full queue refused */
    uint64_t no_room, orphaned, failed;   /* pages that were not stored, and why */
    uint64_t readers_cleared, remade;     /* groups */
};
struct pages_stats pages_stats(const struct pages *p);
int pages_usage(struct pages *p, uint32_t group, struct page_group_usage *out);

#endif
