#include "store/env.h"

#include <assert.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/err.h"

#define EXTEND_BYTES (4u << 20) /* the file grows in such steps, ahead of LMDB's writes */
#define FULL_BYTES (256u << 10) /* a file system with less has no room for a write */
#define READERS 126u
#define HEAD_BYTES 16u /* of a page: number u64, pad u16, flags u16, pages of a run u32 */
#define RUN_FLAG 4u    /* the flag of such pages */
#define DEPTH_MAX 16u  /* pages on the way to a leaf, generously; each may split once */

struct env {
    MDB_env *mdb;
    MDB_dbi table[ENV_TABLES_MAX], unnamed;
    uint32_t n_tables, page_bytes;
    uint64_t cap_bytes, reserve_pages;
    const char *first_table; /* its name, the opener's */
    uintptr_t map_at;        /* where page 0 is; 0: not known */
    /* Of the write transaction that runs: what was live when it had added counted_ahead; 0: not
     * counted yet. */
    uint64_t counted_pages, counted_ahead;
    _Atomic(MDB_txn *) spare; /* an ended read transaction that keeps its place among the readers */
};

/* The one place where LMDB's return codes become ours. */
static int code_of(int rc) {
    switch (rc) {
    case MDB_SUCCESS: return 0;
    case MDB_NOTFOUND: return -ENOENT;
    case MDB_KEYEXIST: return -EEXIST;
    case MDB_MAP_FULL: return ERR_FULL;
    case MDB_TXN_FULL: return ERR_LIMIT;
    case MDB_READERS_FULL: return ERR_FULL;
    case MDB_VERSION_MISMATCH: return ERR_VERSION;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID: return ERR_CORRUPT;
    case MDB_BAD_VALSIZE: return -EINVAL;
    case MDB_MAP_RESIZED: return ERR_STALE;
    case MDB_PANIC:
    case MDB_BAD_TXN: return -EIO;
    case EDQUOT:
    case EFBIG: return -ENOSPC;
    default: return rc > 0 ? -rc : -EIO;
    }
}

static MDB_val val_of(struct bytes b) {
    return (MDB_val){b.len, (void *)(uintptr_t)b.data};
}

static struct bytes bytes_from(MDB_val v) {
    return bytes_of(v.mv_data, v.mv_size);
}

static void take_cap(struct env *e, uint64_t map_bytes) {
    e->cap_bytes = map_bytes;
    e->reserve_pages = 64 + map_bytes / e->page_bytes / 32;
}

/* LMDB maps the file and trusts its own page numbers, so the file must hold every page that the
 * last commit knows of. env_commit keeps it longer than that, so a shorter one lost its end. */
static int check_size(struct env *e, const char *dir, char *err, size_t err_bytes) {
    MDB_envinfo info;
    MDB_stat stat;
    struct stat st;
    int fd;
    int rc = mdb_env_info(e->mdb, &info);
    if (rc == 0) rc = mdb_env_stat(e->mdb, &stat);
    if (rc == 0) rc = mdb_env_get_fd(e->mdb, &fd);
    if (rc == 0 && fstat(fd, &st) != 0) rc = errno;
    if (rc != 0) return err_set(err, err_bytes, code_of(rc), "%s: %s", dir, mdb_strerror(rc));
    e->page_bytes = stat.ms_psize;
    uint64_t need = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    if ((uint64_t)st.st_size < need)
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s/data.mdb was cut off: it has %llu bytes and its last commit needs %llu; "
                       "restore the store from a backup",
                       dir, (unsigned long long)st.st_size, (unsigned long long)need);
    take_cap(e, info.me_mapsize);
    return 0;
}

/* Where LMDB has mapped the file, which it does not tell: a page of the tree of tables knows its
 * number. */
static void find_map(struct env *e, const char *table) {
    MDB_txn *txn;
    MDB_val k = {strlen(table), (void *)(uintptr_t)table}, v;
    uint64_t number;
    e->map_at = 0;
    if (mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn) != 0) return;
    if (mdb_get(txn, e->unnamed, &k, &v) == 0) {
        uintptr_t page = (uintptr_t)v.mv_data / e->page_bytes * e->page_bytes;
        memcpy(&number, (const void *)page, sizeof number);
        if (number < e->cap_bytes / e->page_bytes) e->map_at = page - number * e->page_bytes;
    }
    mdb_txn_abort(txn);
}

static int open_tables(struct env *e, const struct env_config *c) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(e->mdb, NULL, 0, &txn);
    if (rc != 0) return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &e->unnamed);
    for (uint32_t i = 0; rc == 0 && i < c->n_tables; i++)
        rc = mdb_dbi_open(txn, c->tables[i], MDB_CREATE, &e->table[i]);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int check_there(const struct env_config *c, char *err, size_t err_bytes) {
    char path[4096];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/data.mdb", c->dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(err, err_bytes, -ENAMETOOLONG, "%s: the path is too long", c->dir);
    bool there = stat(path, &st) == 0 && st.st_size > 0;
    /* LMDB makes a file with its two meta pages, which a loss of power may have torn; they are all
     * that such a file has, so that it is made anew. */
    if (!c->must_exist && there && st.st_size <= 2 * sysconf(_SC_PAGESIZE) && unlink(path) != 0)
        return err_set(err, err_bytes, -errno, "%s: cannot be made anew: %s", path,
                       strerror(errno));
    if (!c->must_exist || there) return 0;
    return err_set(err, err_bytes, ERR_CORRUPT,
                   "%s is missing or empty although the store was made before; restore it from a "
                   "backup",
                   path);
}

int env_open(struct env **out, const struct env_config *c, char *err, size_t err_bytes) {
    assert(c->n_tables <= ENV_TABLES_MAX);
    int code = check_there(c, err, err_bytes);
    if (code != 0) return code;
    struct env *e = calloc(1, sizeof *e);
    if (!e) return err_set(err, err_bytes, -ENOMEM, "%s: out of memory", c->dir);
    e->n_tables = c->n_tables;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    int rc = mdb_env_create(&e->mdb);
    if (rc == 0) rc = mdb_env_set_maxdbs(e->mdb, ENV_TABLES_MAX);
    if (rc == 0) rc = mdb_env_set_maxreaders(e->mdb, READERS);
    if (rc == 0) rc = mdb_env_set_mapsize(e->mdb, (c->cap_bytes + page - 1) / page * page);
    if (rc == 0)
        rc = mdb_env_open(e->mdb, c->dir, MDB_NOTLS | (c->lazy ? MDB_NOMETASYNC : 0), 0600);
    if (rc == 0 && !c->must_exist) rc = mdb_env_sync(e->mdb, 1); /* the first meta pages */
    if (rc != 0) goto fail;
    code = check_size(e, c->dir, err, err_bytes);
    if (code != 0) goto close;
    rc = mdb_reader_check(e->mdb, NULL); /* slots of processes that were killed */
    if (rc == 0) rc = open_tables(e, c);
    if (rc != 0) goto fail;
    find_map(e, c->tables[0]);
    e->first_table = c->tables[0];
    *out = e;
    return 0;

fail:
    code = code_of(rc);
    if (code == ERR_CORRUPT)
        err_set(err, err_bytes, code,
                "%s/data.mdb is damaged where the file begins (%s): nothing of it can be reached; "
                "put a copy that `penstock store backup` made in place of the whole store",
                c->dir, mdb_strerror(rc));
    else
        err_set(err, err_bytes, code, "%s/data.mdb: %s", c->dir, mdb_strerror(rc));
close:
    env_close(e);
    return code;
}

void env_close(struct env *e) {
    if (!e) return;
    MDB_txn *spare = atomic_exchange(&e->spare, NULL);
    if (spare) mdb_txn_abort(spare);
    if (e->mdb) mdb_env_close(e->mdb);
    free(e);
}

uint32_t env_page_bytes(const struct env *e) {
    return e->page_bytes;
}

uint64_t env_last_txn(struct env *e) {
    MDB_envinfo info;
    return mdb_env_info(e->mdb, &info) == 0 ? info.me_last_txnid : 0;
}

int env_begin(struct env *e, bool write, struct env_txn *out) {
    MDB_txn *txn = write ? NULL : atomic_exchange(&e->spare, NULL);
    if (txn && mdb_txn_renew(txn) != 0) {
        mdb_txn_abort(txn);
        txn = NULL;
    }
    int rc = txn ? 0 : mdb_txn_begin(e->mdb, NULL, write ? 0 : MDB_RDONLY, &txn);
    if (rc != 0) return code_of(rc);
    if (write) e->counted_pages = 0;
    *out = (struct env_txn){.env = e, .txn = txn, .write = write};
    return 0;
}

int env_remap(struct env *e) {
    MDB_envinfo info;
    int rc = mdb_env_set_mapsize(e->mdb, 0);
    if (rc == 0) rc = mdb_env_info(e->mdb, &info);
    if (rc == 0) take_cap(e, info.me_mapsize);
    if (rc == 0) find_map(e, e->first_table);
    return code_of(rc);
}

/* Makes the file longer than this transaction can need, before LMDB writes to it: afterwards a file
 * that is too short was truncated by somebody else. The new end is a hole; it takes no space. */
static int extend(const struct env_txn *t) {
    MDB_envinfo info;
    struct stat st;
    int fd;
    int rc = mdb_env_info(t->env->mdb, &info);
    if (rc == 0) rc = mdb_env_get_fd(t->env->mdb, &fd);
    if (rc == 0 && fstat(fd, &st) != 0) rc = errno;
    if (rc != 0) return rc;
    uint64_t need = ((uint64_t)info.me_last_pgno + 1 + t->ahead_pages) * t->env->page_bytes;
    if (need > t->env->cap_bytes) need = t->env->cap_bytes;
    if ((uint64_t)st.st_size >= need) return 0;
    need = (need + EXTEND_BYTES - 1) / EXTEND_BYTES * EXTEND_BYTES;
    if (need > t->env->cap_bytes) need = t->env->cap_bytes;
    return ftruncate(fd, (off_t)need) == 0 ? 0 : errno;
}

/* LMDB says EIO of a write that was cut short; a file system does that when it becomes full. */
static bool is_disk_full(struct env *e) {
    mdb_filehandle_t fd;
    struct statvfs fs;
    return mdb_env_get_fd(e->mdb, &fd) == 0 && fstatvfs(fd, &fs) == 0 &&
           fs.f_bavail * fs.f_frsize < FULL_BYTES;
}

int env_commit(struct env_txn *t) {
    assert(t->txn);
    int rc = 0;
    if (t->error != 0) {
        int code = t->error;
        env_abort(t);
        return code;
    }
    if (t->write && t->ahead_pages > 0) rc = extend(t);
    if (rc != 0) {
        env_abort(t);
        return code_of(rc);
    }
    struct env *e = t->env;
    rc = mdb_txn_commit(t->txn);
    *t = (struct env_txn){0};
    return rc == EIO && is_disk_full(e) ? -ENOSPC : code_of(rc);
}

void env_abort(struct env_txn *t) {
    MDB_txn *txn = t->txn;
    if (txn && !t->write) { /* the next reader takes it; one that was there before goes */
        mdb_txn_reset(txn);
        txn = atomic_exchange(&t->env->spare, txn);
    }
    if (txn) mdb_txn_abort(txn);
    *t = (struct env_txn){0};
}

uint64_t env_txn_id(const struct env_txn *t) {
    return mdb_txn_id(t->txn);
}

int env_get(const struct env_txn *t, uint32_t table, struct bytes key, struct bytes *value) {
    MDB_val k = val_of(key), v;
    int rc = mdb_get(t->txn, t->env->table[table], &k, &v);
    if (rc == 0) *value = bytes_from(v);
    return code_of(rc);
}

/* ERR_FULL when so many pages more would be beyond the limit. Counting is not needed while a count
 * of before, with the most that was added since, leaves room. */
static int below(const struct env_txn *t, uint64_t more_pages, uint64_t limit_pages) {
    struct env *e = t->env;
    uint64_t most = e->counted_pages + (t->ahead_pages - e->counted_ahead);
    if (t->write && e->counted_pages > 0 && most + more_pages <= limit_pages) return 0;
    struct env_usage u;
    int code = env_usage(t, &u);
    if (code != 0) return code;
    if (t->write) {
        e->counted_pages = u.live_pages;
        e->counted_ahead = t->ahead_pages;
    }
    return u.live_pages + more_pages > limit_pages ? ERR_FULL : 0;
}

int env_room(const struct env_txn *t, uint64_t value_bytes) {
    const struct env *e = t->env;
    uint64_t cap_pages = e->cap_bytes / e->page_bytes;
    return below(t, value_bytes / e->page_bytes + 2 + e->reserve_pages, cap_pages);
}

int env_soft_room(const struct env_txn *t, uint64_t more_bytes) {
    const struct env *e = t->env;
    return below(t, more_bytes / e->page_bytes, e->cap_bytes / e->page_bytes / 5 * 4);
}

/* Refuses what would eat into the reserve, and remembers how far the file may grow. */
static int admit(struct env_txn *t, size_t value_bytes) {
    assert(t->write);
    if (t->error != 0) return t->error;
    int code = env_room(t, value_bytes);
    if (code != 0) return t->error = code;
    t->ahead_pages += value_bytes / t->env->page_bytes + 2 + 2 * DEPTH_MAX;
    return 0;
}

/* Keeps the first failure that leaves a transaction unfit to commit. */
static int done(struct env_txn *t, int rc) {
    int code = code_of(rc);
    if (code != 0 && code != -ENOENT && code != -EEXIST && t->error == 0) t->error = code;
    return code;
}

int env_put(struct env_txn *t, uint32_t table, struct bytes key, struct bytes value,
            enum env_put how) {
    int code = admit(t, key.len + value.len);
    if (code != 0) return code;
    MDB_dbi dbi = t->env->table[table];
    MDB_val k = val_of(key), v = val_of(value);
    int rc = MDB_KEYEXIST;
    if (how == ENV_APPEND) rc = mdb_put(t->txn, dbi, &k, &v, MDB_APPEND);
    if (how != ENV_APPEND || rc == MDB_KEYEXIST) {
        v = val_of(value);
        rc = mdb_put(t->txn, dbi, &k, &v, how == ENV_REPLACE ? 0 : MDB_NOOVERWRITE);
    }
    return done(t, rc);
}

int env_reserve(struct env_txn *t, uint32_t table, struct bytes key, size_t value_bytes,
                void **out) {
    int code = admit(t, key.len + value_bytes);
    if (code != 0) return code;
    MDB_val k = val_of(key), v = {value_bytes, NULL};
    int rc = mdb_put(t->txn, t->env->table[table], &k, &v, MDB_RESERVE);
    if (rc == 0) *out = v.mv_data;
    return done(t, rc);
}

int env_del(struct env_txn *t, uint32_t table, struct bytes key) {
    assert(t->write);
    MDB_val k = val_of(key);
    t->ahead_pages += 2 * DEPTH_MAX;
    return done(t, mdb_del(t->txn, t->env->table[table], &k, NULL));
}

bool env_run_is_sound(const struct env_txn *t, struct bytes value) {
    const struct env *e = t->env;
    const uint8_t *head = (const uint8_t *)value.data - HEAD_BYTES;
    uint64_t number;
    uint32_t pages;
    memcpy(&number, head, sizeof number);
    memcpy(&pages, head + 12, sizeof pages);
    uintptr_t at = (uintptr_t)head - e->map_at; /* what this transaction wrote is elsewhere */
    bool in_map = (uintptr_t)head >= e->map_at && at < e->cap_bytes;
    return (head[10] & RUN_FLAG) != 0 &&
           pages == (HEAD_BYTES - 1 + value.len) / e->page_bytes + 1 &&
           (!in_map || number == at / e->page_bytes);
}

int env_cursor_open(struct env_txn *t, uint32_t table, struct env_cursor *out) {
    MDB_cursor *c;
    int rc = mdb_cursor_open(t->txn, t->env->table[table], &c);
    if (rc == 0) *out = (struct env_cursor){t, c};
    return code_of(rc);
}

void env_cursor_close(struct env_cursor *c) {
    if (c->cursor) mdb_cursor_close(c->cursor);
    *c = (struct env_cursor){0};
}

int env_move(struct env_cursor *c, enum env_move move, struct bytes *key, struct bytes *value) {
    static const MDB_cursor_op ops[] = {[ENV_FIRST] = MDB_FIRST,
                                        [ENV_LAST] = MDB_LAST,
                                        [ENV_NEXT] = MDB_NEXT,
                                        [ENV_PREV] = MDB_PREV,
                                        [ENV_AT_LEAST] = MDB_SET_RANGE};
    MDB_val k = {0}, v;
    if (move == ENV_AT_LEAST) k = val_of(*key);
    int rc = mdb_cursor_get(c->cursor, &k, &v, ops[move]);
    if (rc != 0) return code_of(rc);
    *key = bytes_from(k);
    *value = bytes_from(v);
    return 0;
}

int env_cursor_del(struct env_cursor *c) {
    assert(c->txn->write);
    c->txn->ahead_pages += 2 * DEPTH_MAX;
    return done(c->txn, mdb_cursor_del(c->cursor, 0));
}

int env_usage(const struct env_txn *t, struct env_usage *out) {
    const struct env *e = t->env;
    uint64_t live = 2; /* LMDB's two meta pages */
    for (uint32_t i = 0; i < e->n_tables + 2; i++) {
        /* The tables, the unnamed one that lists them, and LMDB's list of free pages, handle 0. */
        MDB_dbi dbi = i < e->n_tables ? e->table[i] : i == e->n_tables ? e->unnamed : 0;
        MDB_stat stat;
        int rc = mdb_stat(t->txn, dbi, &stat);
        if (rc != 0) return code_of(rc);
        live += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    MDB_envinfo info;
    int rc = mdb_env_info(e->mdb, &info);
    if (rc != 0) return code_of(rc);
    *out = (struct env_usage){live, e->cap_bytes / e->page_bytes, (uint64_t)info.me_last_pgno + 1};
    return 0;
}

int env_clear(struct env_txn *t, uint32_t table) {
    assert(t->write);
    return done(t, mdb_drop(t->txn, t->env->table[table], 0));
}

int env_count(const struct env_txn *t, uint32_t table, uint64_t *entries) {
    MDB_stat stat;
    int rc = mdb_stat(t->txn, t->env->table[table], &stat);
    if (rc == 0) *entries = stat.ms_entries;
    return code_of(rc);
}

static int trial_write(struct env *e, uint64_t pages) {
    static const char key[] = "trial";
    struct env_txn t;
    MDB_val k = {sizeof key - 1, (void *)(uintptr_t)key}, v = {pages * e->page_bytes, NULL};
    int code = env_begin(e, true, &t);
    if (code != 0) return code;
    t.ahead_pages = pages + 2 * DEPTH_MAX;
    code = done(&t, mdb_put(t.txn, e->table[0], &k, &v, MDB_RESERVE));
    if (code == 0) memset(v.mv_data, 0x55, v.mv_size);
    int committed = env_commit(&t);
    if (code == 0) code = committed;
    if (code != 0) return code;
    code = env_begin(e, true, &t);
    if (code != 0) return code;
    t.ahead_pages = 2 * DEPTH_MAX;
    done(&t, mdb_del(t.txn, e->table[0], &k, NULL));
    return env_commit(&t);
}

int env_trial(struct env *e, uint64_t pages) {
    int code = ERR_FULL;
    for (; code == ERR_FULL && pages > 0; pages /= 2) code = trial_write(e, pages);
    return code == ERR_FULL ? 0 : code;
}

int env_copy(struct env *e, const char *dir) {
    return code_of(mdb_env_copy2(e->mdb, dir, MDB_CP_COMPACT));
}

int env_copy_live(const char *from, const char *dir) {
    MDB_env *mdb = NULL;
    int rc = mdb_env_create(&mdb);
    if (rc == 0) rc = mdb_env_open(mdb, from, MDB_RDONLY | MDB_NOTLS, 0600);
    if (rc == 0) rc = mdb_env_copy2(mdb, dir, MDB_CP_COMPACT);
    if (mdb) mdb_env_close(mdb);
    return code_of(rc);
}

int env_clear_readers(struct env *e, uint32_t *cleared) {
    int dead = 0;
    int rc = mdb_reader_check(e->mdb, &dead);
    *cleared = dead > 0 ? (uint32_t)dead : 0;
    return code_of(rc);
}
