/* page_group.h - one LMDB environment of KV pages of one size: found by key, the oldest leaf first
 * out, under a cap of bytes.
 *
 *   DATA   key -> value (page_value.h), always on a run of pages of its own
 *   NODES  key -> stamp u64 | depth u32: when the page was used last, and its place in its chain
 *   USED   stamp u64be | ~depth u32be | key -> nothing: the order in which pages are evicted
 *   INFO   "shape", "about"
 *
 * The stamp is the number of the write transaction. Whoever uses a page of a chain uses all that
 * are before it, at one stamp, and a new page takes at most its parent's, so that always
 *
 *   stamp(parent) >= stamp(child), and with equal stamps the deeper page comes first in USED:
 *
 * a parent is never evicted before its children, without anybody counting them. A page is stored
 * only behind its parent. In a group with a window (chained false) neither holds nor matters: a hit
 * needs the last pages of a chain alone.
 *
 * What a loss of power does. Commits flush their data, not the meta page (env.h, lazy): the file is
 * at any time the last commit or the one before, on disks that honour a flush. LMDB without any
 * flush would be faster by what the disk takes, but a half-written tree makes it follow page
 * numbers that lead nowhere; and on ext4 the blocks that nobody flushed are flushed by the next
 * process that flushes anything, which is the broker, in front of its clients. The flush here is
 * waited for by the thread that writes behind, and by nobody else.
 *
 * The first process that opens a group reads its trees (tree.h) and indexes before LMDB maps them;
 * what is damaged, larger than the cap or of another shape is removed, and the group begins empty.
 * While one is open the lock on DIR/users is shared; a process opens a group once.
 *
 * Units: bytes, pages.  Owner: the opener.  Memory: LMDB's map; a batch's dirty pages.
 * Errors: -ENOENT, ERR_CORRUPT, ERR_STALE (another page), ERR_FULL, ERR_LIMIT (cap too small),
 * -EIO after a failure that needs a restart.  Threads: any reader; one writer at a time, of any
 * process (the next waits). */
#ifndef PENSTOCK_STORE_PAGE_GROUP_H
#define PENSTOCK_STORE_PAGE_GROUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/env.h"
#include "store/page_value.h"

#define PAGE_GROUP_PATH_BYTES 4096
#define PAGE_GROUP_BAD_MAX 32u
#define PAGE_GROUP_BATCH_BYTES (16u << 20) /* of values in one transaction, about */
#define PAGE_GROUP_BATCH_PAGES 256u

struct page_group_config {
    const char *dir;   /* made when missing */
    const char *about; /* whose pages, for people; kept */
    struct page_shape shape;
    uint64_t cap_bytes;     /* of the data file; 0: an existing group as it is, or -ENOENT */
    uint32_t window_tokens; /* 0: a page needs its parent */
};
struct page_group {
    char dir[PAGE_GROUP_PATH_BYTES];
    struct env *env;
    struct page_shape shape;
    uint32_t window_tokens;
    size_t value_bytes;
    uint64_t pages_max;   /* that are kept */
    uint32_t batch_pages; /* at most, in one transaction */
    int users_fd;
    bool remade; /* what was there was removed */
    char why_remade[256];
    atomic_bool off;                         /* until it is opened again */
    pthread_rwlock_t map;                    /* held by transactions against a new map */
    pthread_mutex_t lock;                    /* of bad */
    struct page_key bad[PAGE_GROUP_BAD_MAX]; /* found damaged; the next writer drops them */
    uint32_t bad_n;
};
int page_group_open(struct page_group *g, const struct page_group_config *c, char *err,
                    size_t err_bytes);
void page_group_close(struct page_group *g); /* accepts zeroed memory */
/* Removes the data of a group that nobody has open. -EBUSY: somebody has. */
int page_group_remove(const char *dir);

int page_group_begin(struct page_group *g, bool write, struct env_txn *out);
int page_group_commit(struct page_group *g, struct env_txn *t); /* ends t, whatever it returns */
void page_group_abort(struct page_group *g, struct env_txn *t); /* zeroed is fine */

bool page_group_has(const struct page_group *g, const struct env_txn *t,
                    const struct page_key *key);
/* *data borrows from the map until t ends. A page that is damaged is dropped by the next writer. */
int page_group_get(struct page_group *g, const struct env_txn *t, const struct page_key *key,
                   const struct page_key *parent, const uint32_t *tokens, struct bytes *data);
/* Asks the system to read these from the disk; ends at the first that is not there. */
void page_group_prefetch(const struct page_group *g, const struct env_txn *t,
                         const struct page_key *keys, uint32_t n);

/* In a write transaction. Marks pages from..n-1 of a chain as used now (keys[i + 1] is page i's);
 * in a chained group up to the first that is missing. *used: how many. */
int page_group_use(struct page_group *g, struct env_txn *t, const struct page_key *keys,
                   uint32_t from, uint32_t n, uint32_t *used);
/* Stores page `depth` of a chain, evicting what is older. -EEXIST when it is there, -ENOENT without
 * its parent, ERR_FULL when all else was used later. *evicted is added to. */
int page_group_put(struct page_group *g, struct env_txn *t, const struct page_key *keys,
                   uint32_t depth, const uint32_t *tokens, const void *data, uint64_t *evicted);
int page_group_drop(struct page_group *g, struct env_txn *t, const struct page_key *key);
/* The n that would go first. */
int page_group_evict(struct page_group *g, struct env_txn *t, uint64_t n, uint64_t *evicted);
int page_group_drop_bad(struct page_group *g, struct env_txn *t);
int page_group_clear(struct page_group *g); /* drops all pages */

struct page_node {
    struct page_key key;
    uint64_t stamp;
    uint32_t depth;
};
/* The order of eviction: the node behind *at, or with stamp 0 the first. -ENOENT at the end. */
int page_group_next(const struct page_group *g, struct env_txn *t, struct page_node *at);

struct page_group_usage {
    uint64_t pages, pages_max, live_bytes, file_bytes, cap_bytes;
};
int page_group_usage(struct page_group *g, struct page_group_usage *out);
int page_group_about(struct page_group *g, char *out, size_t out_bytes);

#endif
