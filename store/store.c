#include "store/store.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "store/dir.h"
#include "store/state.h"

#define META_CAP_BYTES (1ull << 30)
#define BLOB_CAP_BYTES (8ull << 30)
#define LAYOUT_VERSION 2u /* 1: without chunks of one page, which it would not find */
#define ID_BYTES 16u
#define TRIAL_PAGES_MAX 4096u

static const char *const meta_tables[META_TABLES] = {
    "info", "jobs", "keys", "live", "finished", "uploads", "tenants", "sources", "ended"};
static const char *const blob_tables[BLOB_TABLES] = {"info", "chunks", "small"};

int store_envs_open(struct store *s, bool must_exist, char *err, size_t err_bytes) {
    char path[STORE_PATH_BYTES];
    struct env_config c = {.dir = path,
                           .tables = meta_tables,
                           .n_tables = META_TABLES,
                           .cap_bytes = s->meta_cap_bytes,
                           .must_exist = must_exist};
    int code = store_path(s->dir, "meta", path, err, err_bytes);
    if (code == 0) code = env_open(&s->meta, &c, err, err_bytes);
    if (code == 0) code = store_path(s->dir, "blob", path, err, err_bytes);
    c.tables = blob_tables;
    c.n_tables = BLOB_TABLES;
    c.cap_bytes = s->blob_cap_bytes;
    if (code == 0) code = env_open(&s->blob, &c, err, err_bytes);
    return code;
}

void store_envs_close(struct store *s) {
    env_close(s->meta);
    env_close(s->blob);
    s->meta = s->blob = NULL;
}

/* A number in meta's info table; absent reads as 0. */
static int info_get(const struct env_txn *t, const char *name, uint64_t *v) {
    struct bytes value;
    int code = env_get(t, META_INFO, bytes_str(name), &value);
    *v = 0;
    if (code == -ENOENT) return 0;
    return code == 0 ? num_of(value, v) : code;
}

static int info_put(struct env_txn *t, const char *name, uint64_t v) {
    uint8_t value[NUM_KEY_BYTES];
    return env_put(t, META_INFO, bytes_str(name), num_key(value, v), ENV_REPLACE);
}

/* Both environments carry the id that was drawn when the store was made. */
static int match_ids(struct store_write *w, char *err, size_t err_bytes) {
    uint8_t id[ID_BYTES];
    struct bytes in_meta, in_blob;
    int meta = env_get(&w->view.meta, META_INFO, bytes_str("id"), &in_meta);
    int blob = env_get(&w->view.blob, BLOB_INFO, bytes_str("id"), &in_blob);
    if (meta == 0 && blob == 0 && in_meta.len == ID_BYTES && bytes_eq(in_meta, in_blob)) {
        memcpy(w->view.store->secret, in_meta.data, ID_BYTES);
        return 0;
    }
    if (meta == 0 || (meta != -ENOENT) || (blob != 0 && blob != -ENOENT))
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s: meta and blob are not of the same store; restore both from one backup",
                       w->view.store->dir);
    /* blob is committed first, so a crash while the store was made leaves the id there. */
    if (blob == 0 && in_blob.len == ID_BYTES)
        memcpy(id, in_blob.data, ID_BYTES);
    else
        randombytes_buf(id, sizeof id);
    memcpy(w->view.store->secret, id, sizeof id);
    struct bytes value = bytes_of(id, sizeof id);
    int code = env_put(&w->view.blob, BLOB_INFO, bytes_str("id"), value, ENV_REPLACE);
    if (code == 0) code = env_put(&w->view.meta, META_INFO, bytes_str("id"), value, ENV_NEW);
    return code;
}

static int check_layout(struct store_write *w, char *err, size_t err_bytes) {
    uint64_t version;
    int code = info_get(&w->view.meta, "version", &version);
    if (code != 0) return code;
    if (version > LAYOUT_VERSION)
        return err_set(err, err_bytes, ERR_VERSION,
                       "%s: written by a later version (layout %" PRIu64
                       "; this program reads up to %u); use that version",
                       w->view.store->dir, version, LAYOUT_VERSION);
    if (version < LAYOUT_VERSION) code = info_put(&w->view.meta, "version", LAYOUT_VERSION);
    return code == 0 ? match_ids(w, err, err_bytes) : code;
}

/* ---- payloads without a reference ---- */

struct sweep {
    struct store_write *w;
    struct buf orphans; /* struct blob_id */
};

static int sweep_one(void *arg, struct blob_id id) {
    struct sweep *s = arg;
    bool named;
    int code = job_names_blob(&s->w->view, id, &named);
    if (code != 0 || named) return code;
    return buf_append(&s->orphans, &id, sizeof id);
}

static int del_listed(struct store_write *w, const struct buf *list) {
    for (size_t at = 0; at < list->len; at += sizeof(struct blob_id)) {
        struct blob_id id;
        bool named;
        memcpy(&id, list->data + at, sizeof id);
        int code = job_names_blob(&w->view, id, &named);
        if (code == 0 && !named) code = blob_del(&w->view.blob, id);
        if (code != 0) return code;
    }
    return 0;
}

int store_sweep(struct store_write *w) {
    struct sweep s = {.w = w};
    if (store_dir_in_backup(w->view.store->backup_fd)) return 0; /* the next start does it */
    int code = blob_walk(&w->view.blob, sweep_one, &s);
    if (code == 0) code = del_listed(w, &s.orphans);
    if (code == 0 && s.orphans.len > 0)
        log_info("store_swept", "payloads=%zu", s.orphans.len / sizeof(struct blob_id));
    buf_fini(&s.orphans);
    return code;
}

/* Checks what was opened, frees what a crash left behind, and counts a start. */
static int take_over(struct store *s, bool count_start, char *err, size_t err_bytes) {
    struct store_write *w;
    if (err_bytes > 0) err[0] = '\0';
    int code = store_write_begin(s, &w);
    if (code == 0) {
        uint64_t epoch = 0;
        code = check_layout(w, err, err_bytes);
        if (code == 0) code = info_get(&w->view.meta, "epoch", &epoch);
        if (code == 0 && count_start) code = info_put(&w->view.meta, "epoch", epoch + 1);
        if (code == 0) code = store_sweep(w);
        if (code == 0)
            code = store_commit(w);
        else
            store_abort(w);
        if (code == 0 && count_start) s->epoch = epoch + 1;
    }
    if (code != 0 && (err_bytes == 0 || err[0] == '\0'))
        return err_set(err, err_bytes, code,
                       "%s: the store cannot be taken over: %s; run `penstock store check`", s->dir,
                       err_text(code));
    return code;
}

int store_open(struct store **out, const struct store_config *c, char *err, size_t err_bytes) {
    bool made = false;
    if (c->as_is && !store_dir_made(c->dir))
        return err_set(err, err_bytes, -ENOENT, "%s: there is no store", c->dir);
    struct store *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "%s: out of memory", c->dir);
    s->lock_fd = s->backup_fd = -1;
    s->meta_cap_bytes = c->meta_cap_bytes ? c->meta_cap_bytes : META_CAP_BYTES;
    s->blob_cap_bytes = c->blob_cap_bytes ? c->blob_cap_bytes : BLOB_CAP_BYTES;
    pthread_rwlock_init(&s->in_use, NULL);
    s->dir = strdup(c->dir);
    int code = s->dir ? 0 : err_set(err, err_bytes, -ENOMEM, "%s: out of memory", c->dir);
    if (code == 0 && sodium_init() < 0)
        code = err_set(err, err_bytes, -EIO, "libsodium found no source of randomness");
    if (code == 0) code = store_dir_lock(s->dir, &s->lock_fd, &made, err, err_bytes);
    if (code == 0) code = store_dir_backup_open(s->dir, &s->backup_fd, err, err_bytes);
    if (code == 0) code = store_envs_open(s, made, err, err_bytes);
    if (code == 0 && !made) code = store_dir_sync_names(s->dir, err, err_bytes);
    if (code == 0 && c->as_is) atomic_store(&s->poisoned, true);
    if (code == 0 && !c->as_is) code = take_over(s, true, err, err_bytes);
    if (code == 0 && !made) code = store_dir_mark(s->dir, err, err_bytes);
    if (code != 0) {
        store_close(s);
        return code;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s) {
    if (!s) return;
    assert(!s->writing);
    store_envs_close(s);
    store_dir_unlock(s->lock_fd);
    store_dir_unlock(s->backup_fd);
    pthread_rwlock_destroy(&s->in_use);
    buf_fini(&s->pending);
    buf_fini(&s->write.record);
    buf_fini(&s->write.dropped);
    free(s->dir);
    free(s);
}

uint64_t store_epoch(const struct store *s) {
    return s->epoch;
}

/* A disk without space takes the empty commit of a reopen; it has to take a real one. */
static int try_writing(struct store *s, char *err, size_t err_bytes) {
    int code = env_trial(s->blob, s->blob_trial_pages + 1);
    if (code == 0) code = env_trial(s->meta, s->meta_trial_pages + 1);
    if (code == 0) return 0;
    return err_set(err, err_bytes, code, "%s: a trial write failed: %s", s->dir, err_text(code));
}

int store_reopen(struct store *s, char *err, size_t err_bytes) {
    assert(!s->writing);
    pthread_rwlock_wrlock(&s->in_use);
    store_envs_close(s);
    buf_clear(&s->pending);
    int code = store_envs_open(s, true, err, err_bytes);
    atomic_store(&s->poisoned, false);
    if (code == 0) code = take_over(s, false, err, err_bytes);
    if (code == 0) code = try_writing(s, err, err_bytes);
    if (code != 0) {
        atomic_store(&s->poisoned, true);
        store_envs_close(s);
    }
    pthread_rwlock_unlock(&s->in_use);
    return code;
}

/* ---- transactions ---- */

/* The end of a write, whatever became of it. */
static void end_write(struct store_write *w) {
    env_abort(&w->view.blob);
    env_abort(&w->view.meta);
    w->view.store->writing = false;
}

static int begin_both(struct store *s) {
    struct store_write *w = &s->write;
    w->view = (struct store_read){.store = s};
    buf_clear(&w->dropped);
    int code = env_begin(s->meta, true, &w->view.meta);
    if (code == 0) code = env_begin(s->blob, true, &w->view.blob);
    if (code == 0)
        s->writing = true;
    else
        env_abort(&w->view.meta);
    return code;
}

int store_write_begin(struct store *s, struct store_write **out) {
    assert(!s->writing);
    if (!s->meta || atomic_load(&s->poisoned)) return -EIO;
    *out = &s->write;
    int code = begin_both(s);
    s->holding = s->pending.len > 0 && store_dir_in_backup(s->backup_fd);
    if (code == 0 && s->pending.len > 0 && !s->holding) {
        code = del_listed(&s->write, &s->pending);
        if (code != 0) end_write(&s->write);
        if (code == ERR_CORRUPT) { /* what lies there stays there; nobody names it */
            log_error("store_damaged", "what=\"a payload that was to be deleted\"");
            buf_clear(&s->pending);
            code = begin_both(s);
        }
    }
    return code;
}

/* What this transaction, once committed, leaves of room. */
static void note_usage(struct store *s, const struct store_write *w) {
    struct env_usage u;
    if (env_usage(&w->view.meta, &u) == 0) {
        atomic_store(&s->meta_live, u.live_pages * env_page_bytes(s->meta));
        atomic_store(&s->meta_cap, u.cap_pages * env_page_bytes(s->meta));
    }
    if (env_usage(&w->view.blob, &u) == 0) {
        atomic_store(&s->blob_live, u.live_pages * env_page_bytes(s->blob));
        atomic_store(&s->blob_cap, u.cap_pages * env_page_bytes(s->blob));
    }
}

int store_commit(struct store_write *w) {
    struct store *s = w->view.store;
    assert(s->writing);
    int code = w->view.meta.error != 0 ? w->view.meta.error : w->view.blob.error;
    if (code != 0) {
        end_write(w);
        return code;
    }
    note_usage(s, w);
    uint64_t meta_pages = w->view.meta.ahead_pages, blob_pages = w->view.blob.ahead_pages;
    bool fail = s->fail_countdown > 0 && --s->fail_countdown == 0;
    code = env_commit(&w->view.blob);
    if (code == 0) code = fail ? s->fail_error : env_commit(&w->view.meta);
    if (code == 0 && s->holding) { /* what there is no memory for is swept by the next start */
        buf_append(&s->pending, w->dropped.data, w->dropped.len);
    } else if (code == 0) {
        struct buf swap = s->pending;
        s->pending = w->dropped;
        w->dropped = swap;
    } else if (code != ERR_FULL) { /* LMDB gives up before it writes when the map is full */
        s->meta_trial_pages = meta_pages < TRIAL_PAGES_MAX ? meta_pages : TRIAL_PAGES_MAX;
        s->blob_trial_pages = blob_pages < TRIAL_PAGES_MAX ? blob_pages : TRIAL_PAGES_MAX;
        atomic_store(&s->poisoned, true);
        log_error("store_commit_failed", "error=\"%s\"", err_text(code));
    }
    end_write(w);
    return code;
}

void store_abort(struct store_write *w) {
    assert(w->view.store->writing);
    end_write(w);
}

int store_drop_later(struct store_write *w, struct blob_id id) {
    return buf_append(&w->dropped, &id, sizeof id);
}

/* Two snapshots that fit together. A payload is deleted in the transaction after the one that
 * stopped naming it, so what meta names can only be missing from blob when meta was committed
 * between the two begins: then begin again. */
int store_read_begin(struct store *s, struct store_read **out) {
    struct store_read *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    pthread_rwlock_rdlock(&s->in_use);
    t->store = s;
    int code = s->meta ? 0 : -EIO;
    while (code == 0) {
        code = env_begin(s->meta, false, &t->meta);
        if (code == 0) code = env_begin(s->blob, false, &t->blob);
        if (code == 0 && env_last_txn(s->meta) == env_txn_id(&t->meta)) {
            *out = t;
            return 0;
        }
        env_abort(&t->blob);
        env_abort(&t->meta);
    }
    pthread_rwlock_unlock(&s->in_use);
    free(t);
    return code;
}

void store_read_end(struct store_read *t) {
    struct store *s = t->store;
    env_abort(&t->blob);
    env_abort(&t->meta);
    pthread_rwlock_unlock(&s->in_use);
    free(t);
}

uint64_t store_read_damaged(const struct store_read *t) {
    return t->damaged;
}

struct store_read *store_write_view(struct store_write *w) {
    return &w->view;
}

uint32_t store_clear_readers(struct store *s) {
    uint32_t in_meta = 0, in_blob = 0;
    pthread_rwlock_rdlock(&s->in_use);
    if (s->meta) env_clear_readers(s->meta, &in_meta);
    if (s->blob) env_clear_readers(s->blob, &in_blob);
    pthread_rwlock_unlock(&s->in_use);
    return in_meta + in_blob;
}

int store_usage(struct store *s, struct store_usage *out) {
    struct store_read *t;
    struct env_usage meta, blob;
    *out = (struct store_usage){0};
    int code = store_read_begin(s, &t);
    if (code != 0) return code;
    code = env_usage(&t->meta, &meta);
    if (code == 0) code = env_usage(&t->blob, &blob);
    if (code == 0) code = env_count(&t->meta, META_JOBS, &out->jobs);
    if (code == 0) code = blob_count(&t->blob, &out->chunks);
    if (code == 0) {
        out->meta_bytes = meta.live_pages * env_page_bytes(s->meta);
        out->meta_cap_bytes = meta.cap_pages * env_page_bytes(s->meta);
        out->blob_bytes = blob.live_pages * env_page_bytes(s->blob);
        out->blob_cap_bytes = blob.cap_pages * env_page_bytes(s->blob);
    }
    store_read_end(t);
    return code;
}

/* ---- room ---- */

#define RECORD_ROOM_BYTES 2048u /* a record with its index entries, in pages that are half full */

struct store_room store_room_of(uint64_t payload_bytes) {
    struct store_room r = {.meta_bytes = RECORD_ROOM_BYTES};
    if (payload_bytes > LIMIT_INLINE_BYTES)
        r.blob_bytes = blob_room_bytes(payload_bytes);
    else
        r.meta_bytes += payload_bytes;
    return r;
}

bool store_has_room(const struct store *s, struct store_room more) {
    return atomic_load(&s->meta_live) + more.meta_bytes <= atomic_load(&s->meta_cap) / 5 * 4 &&
           atomic_load(&s->blob_live) + more.blob_bytes <= atomic_load(&s->blob_cap) / 5 * 4;
}

static uint64_t over(uint64_t have, uint64_t may) {
    return have > may ? have - may : 0;
}

uint64_t store_over(const struct store *s, uint32_t percent, uint64_t bytes) {
    uint64_t meta = atomic_load(&s->meta_live), blob = atomic_load(&s->blob_live);
    uint64_t most = over(meta, atomic_load(&s->meta_cap) / 100 * percent);
    uint64_t of_blob = over(blob, atomic_load(&s->blob_cap) / 100 * percent);
    uint64_t of_both = bytes > 0 ? over(meta + blob, bytes) : 0;
    if (of_blob > most) most = of_blob;
    return of_both > most ? of_both : most;
}

int store_write_room(const struct store_write *w, uint64_t payload_bytes) {
    struct store_room r = store_room_of(payload_bytes);
    int code = env_soft_room(&w->view.meta, r.meta_bytes);
    return code == 0 ? env_soft_room(&w->view.blob, r.blob_bytes) : code;
}

int store_outcome_room(const struct store_write *w, uint64_t payload_bytes) {
    struct store_room r = store_room_of(payload_bytes);
    int code = env_room(&w->view.meta, r.meta_bytes);
    return code == 0 && r.blob_bytes > 0 ? env_room(&w->view.blob, r.blob_bytes) : code;
}

void store_fail_commit(struct store *s, uint32_t countdown, int error) {
    s->fail_countdown = error == 0 ? 0 : countdown;
    s->fail_error = error;
}
