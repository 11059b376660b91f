/* env.h - one LMDB environment with its named tables: the only door to lmdb.h.
 *
 * Adds to LMDB what the store promises: the size of the data file is checked before a page of it is
 * touched (reading a mapped page that is not there is a SIGBUS); a reserve of pages stays free so
 * that deletes and index moves go on when the map is full; a transaction in which a write failed
 * cannot be committed; LMDB's return codes become the codes of base/err.h in one place.
 *
 * Units: bytes, pages.  Owner: the opener; a transaction belongs to the thread that began it.
 * Memory: LMDB's map, which is address space until touched, and the dirty pages of a transaction.
 * Errors: ERR_FULL the map is full, -ENOSPC the disk is, -ENOENT, -EEXIST, -EIO, ERR_CORRUPT,
 * ERR_VERSION, ERR_LIMIT (a transaction of too many pages).  Threads: one writer at a time, any
 * readers. */
#ifndef PENSTOCK_STORE_ENV_H
#define PENSTOCK_STORE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define ENV_TABLES_MAX 9

struct env;
struct env_config {
    const char *dir;           /* holds data.mdb and lock.mdb; must exist */
    const char *const *tables; /* [n_tables], addressed by their index; static texts */
    uint32_t n_tables;
    uint64_t cap_bytes; /* rounded up to whole pages, and to what is stored already; 0: as made */
    bool must_exist;    /* an absent or empty data file is ERR_CORRUPT, not a new store */
    /* A commit flushes what it wrote but not the meta page that makes it so, which goes with the
     * next one: a loss of power may undo the last commit, and tears none. */
    bool lazy;
};
int env_open(struct env **out, const struct env_config *c, char *err, size_t err_bytes);
void env_close(struct env *e); /* NULL is fine; no transaction may be open */
uint32_t env_page_bytes(const struct env *e);
/* What mdb_env_info calls the last transaction: changes with every commit that wrote something. */
uint64_t env_last_txn(struct env *e);

struct env_txn { /* zeroed: none */
    struct env *env;
    void *txn;
    uint64_t ahead_pages; /* an upper bound of what this transaction may add to the file */
    int error;            /* the first write that failed */
    bool write;
};
/* ERR_STALE: another process has made the map larger; env_remap takes that over. */
int env_begin(struct env *e, bool write, struct env_txn *out);
int env_remap(struct env *e);      /* while this process has no transaction of it */
int env_commit(struct env_txn *t); /* ends t, whatever it returns */
void env_abort(struct env_txn *t); /* zeroed is fine */
uint64_t env_txn_id(const struct env_txn *t);

/* *value borrows from the map until the next write of this transaction or its end. */
int env_get(const struct env_txn *t, uint32_t table, struct bytes key, struct bytes *value);
enum env_put {
    ENV_REPLACE,
    ENV_NEW /* -EEXIST when there */,
    ENV_APPEND /* as NEW, expects the last key */
};
int env_put(struct env_txn *t, uint32_t table, struct bytes key, struct bytes value,
            enum env_put how);
/* Room for a value that the caller fills completely before its next call; replaces. */
int env_reserve(struct env_txn *t, uint32_t table, struct bytes key, size_t value_bytes,
                void **out);
int env_del(struct env_txn *t, uint32_t table, struct bytes key); /* -ENOENT */
/* Whether a value that has pages of its own still lies behind the head that LMDB gave it: which
 * pages are freed with the value stands there, and nothing else checks it. */
bool env_run_is_sound(const struct env_txn *t, struct bytes value);
int env_clear(struct env_txn *t, uint32_t table); /* deletes every entry */

struct env_cursor {
    struct env_txn *txn;
    void *cursor;
};
enum env_move { ENV_FIRST, ENV_LAST, ENV_NEXT, ENV_PREV, ENV_AT_LEAST /* the first key >= *key */ };
int env_cursor_open(struct env_txn *t, uint32_t table, struct env_cursor *out);
void env_cursor_close(struct env_cursor *c); /* before its transaction ends; zeroed is fine */
int env_move(struct env_cursor *c, enum env_move move, struct bytes *key, struct bytes *value);
/* Deletes where the cursor stands; ENV_NEXT then gives the entry behind it. */
int env_cursor_del(struct env_cursor *c);

struct env_usage {
    uint64_t live_pages; /* trees and values, without what is free for reuse */
    uint64_t cap_pages;
    uint64_t file_pages; /* the highest page ever used */
};
int env_usage(const struct env_txn *t, struct env_usage *out);
int env_count(const struct env_txn *t, uint32_t table, uint64_t *entries);
/* Copies a consistent snapshot into dir (which must exist and be empty), without the free pages. */
int env_copy(struct env *e, const char *dir);
/* The same of an environment that another process has open, and may write to meanwhile. Never of
 * one that this process has open. */
int env_copy_live(const char *from, const char *dir);
/* Frees the readers of processes that are gone; they kept pages from being used again. */
int env_clear_readers(struct env *e, uint32_t *cleared);

/* Whether a value of so many bytes would be admitted; unlike a put that is not, asking leaves the
 * transaction fit to commit. ERR_FULL. */
int env_room(const struct env_txn *t, uint64_t value_bytes);
/* Whether so much more leaves the last fifth of the cap free. ERR_FULL. */
int env_soft_room(const struct env_txn *t, uint64_t more_bytes);
/* Writes and flushes about as many pages as a commit would, into table 0, and deletes them again:
 * whether the disk takes writes. In a map that is full it tries fewer. */
int env_trial(struct env *e, uint64_t pages);

#endif
