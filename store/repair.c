#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "store/dir.h"
#include "store/record.h"
#include "store/state.h"
#include "store/store.h"
#include "store/uploads.h"

struct repair {
    struct store *s;
    struct store_write *w;
    void (*fn)(void *arg, const char *line);
    void *arg;
    int done; /* changes so far */
    char folder[STORE_PATH_BYTES];
    struct buf payload;
    char *err;
    size_t err_bytes;
};

static void say(struct repair *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct repair *r, const char *format, ...) {
    char line[320];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    r->done++;
    if (r->fn) r->fn(r->arg, line);
}

/* ---- what cannot be read goes into files ---- */

static int keep(struct repair *r, const char *name, struct bytes data) {
    char path[STORE_PATH_BYTES];
    int code = file_mkdirs(r->folder);
    if (code != 0)
        return err_set(r->err, r->err_bytes, code, "%s: cannot be made: %s", r->folder,
                       err_text(code));
    code = store_path(r->folder, name, path, r->err, r->err_bytes);
    return code == 0 ? file_replace_secret(path, data.data, data.len, r->err, r->err_bytes) : code;
}

/* The payloads of a job whose record nobody can read: nobody will name them again. */
static int keep_payload(void *arg, struct blob_id id) {
    struct repair *r = arg;
    char text[JOB_ID_CHARS + 1], name[96];
    job_id_text(id.job, text);
    snprintf(name, sizeof name, "%s.payload-%" PRIu32 "-%08" PRIx32, text, id.slot, id.crc);
    buf_clear(&r->payload);
    int code = blob_salvage(&r->w->view.blob, id, &r->payload);
    return code == 0 ? keep(r, name, buf_bytes(&r->payload)) : code;
}

static int keep_one(void *arg, struct blob_id id) {
    struct repair *r = arg;
    bool named;
    int code = job_names_blob(&r->w->view, id, &named);
    return code == 0 && !named ? keep_payload(r, id) : code;
}

/* The record that the cursor stands on. */
static int move_record(struct repair *r, struct env_cursor *c, const char *what, struct bytes key,
                       struct bytes value) {
    char id[JOB_ID_CHARS + 1] = "", name[96];
    uint64_t number = 0;
    if (num_of(key, &number) == 0)
        job_id_text(number, id);
    else /* a key that is no id either */
        snprintf(id, sizeof id, "key-%08" PRIx32, crc32c(0, key.data, key.len));
    snprintf(name, sizeof name, "%s.%s", id, what);
    int code = keep(r, name, value);
    if (code == 0) code = env_cursor_del(c);
    if (code == 0)
        say(r, "%s %s: its record cannot be read; moved to %s/%s", what, id, r->folder, name);
    return code;
}

/* A record of a later version is none that is damaged: this program must not touch it. */
static int later_version(struct repair *r) {
    return err_set(r->err, r->err_bytes, ERR_VERSION,
                   "%s: there are records of a later version; use that version's program",
                   r->s->dir);
}

static int move_damaged(struct repair *r, uint32_t table, const char *what,
                        int (*is_bad)(struct bytes key, struct bytes value)) {
    struct env_cursor c;
    struct bytes key, value;
    int code = env_cursor_open(&r->w->view.meta, table, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_FIRST, &key, &value); code == 0;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        int bad = is_bad(key, value);
        if (bad == ERR_CORRUPT) bad = move_record(r, &c, what, key, value);
        if (bad == ERR_VERSION) bad = later_version(r);
        if (bad != 0) {
            code = bad;
            break;
        }
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

/* ---- the indexes, from the records ---- */

static const struct index {
    uint32_t table;
    const char *name;
} indexes[] = {{META_KEYS, "idempotency keys"},
               {META_LIVE, "live jobs"},
               {META_FINISHED, "ended jobs"},
               {META_TENANTS, "tenants' jobs"}};
enum { INDEXES = sizeof indexes / sizeof *indexes };

static int index_all(struct repair *r) {
    struct env_cursor c;
    struct bytes key, value;
    int code = env_cursor_open(&r->w->view.meta, META_JOBS, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_FIRST, &key, &value); code == 0;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        struct job_record rec;
        code = record_decode(value, &rec, NULL);
        if (code == 0) code = job_index(r->w, &rec);
        if (code == -EEXIST) {
            char id[JOB_ID_CHARS + 1];
            job_id_text(rec.id, id);
            say(r, "job %s: an older job has its idempotency key", id);
            code = 0;
        }
        if (code != 0) break;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

/* Whether an entry of FINISHED is that of a record that has ended. */
static bool leads_to_end(struct repair *r, struct bytes key) {
    struct reader k = reader_of(key);
    int64_t finished_ms = (int64_t)read_u64be(&k);
    uint64_t id = read_u64be(&k);
    struct job_record rec;
    return !k.bad && jobs_get(&r->w->view, id, &rec, NULL) == 0 && job_state_terminal(rec.state) &&
           rec.finished_ms == finished_ms;
}

/* Whether an entry of ENDED, offset -> id, is named by that job's entry of FINISHED. */
static bool is_named(struct repair *r, struct bytes key, struct bytes value) {
    uint8_t done[FINISHED_KEY_BYTES];
    struct bytes end;
    struct job_record rec;
    uint64_t id;
    if (num_of(value, &id) != 0 || jobs_get(&r->w->view, id, &rec, NULL) != 0) return false;
    return env_get(&r->w->view.meta, META_FINISHED, finished_key(done, rec.finished_ms, id),
                   &end) == 0 &&
           end.len == 1 + key.len && memcmp((const uint8_t *)end.data + 1, key.data, key.len) == 0;
}

/* The order of ends was told to clients: what is right in it stays as it is. */
static int drop_ends(struct repair *r, uint32_t table) {
    struct env_cursor c;
    struct bytes key, value;
    int code = env_cursor_open(&r->w->view.meta, table, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_FIRST, &key, &value); code == 0;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        if (table == META_FINISHED ? leads_to_end(r, key) : is_named(r, key, value)) continue;
        code = env_cursor_del(&c);
        if (code != 0) break;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

static int write_indexes(struct repair *r) {
    struct env_txn *meta = &r->w->view.meta;
    uint64_t before[INDEXES], after;
    int code = 0;
    for (int i = 0; code == 0 && i < INDEXES; i++) {
        code = env_count(meta, indexes[i].table, &before[i]);
        if (code == 0 && indexes[i].table != META_FINISHED)
            code = env_clear(meta, indexes[i].table);
    }
    if (code == 0) code = drop_ends(r, META_FINISHED);
    if (code == 0) code = drop_ends(r, META_ENDED);
    if (code == 0) code = index_all(r);
    for (int i = 0; code == 0 && i < INDEXES; i++) {
        code = env_count(meta, indexes[i].table, &after);
        if (code == 0 && after != before[i])
            say(r, "the index of %s was written anew: %" PRIu64 " entries, it had %" PRIu64,
                indexes[i].name, after, before[i]);
    }
    return code;
}

/* ---- */

/* The records go first, in a transaction of their own: the indexes are then written from records
 * that lie still in the map. */
static int step(struct repair *r, int (*work)(struct repair *r)) {
    int code = store_write_begin(r->s, &r->w);
    if (code != 0) return code;
    code = work(r);
    if (code == 0) return store_commit(r->w);
    store_abort(r->w);
    return code;
}

static int move_all(struct repair *r) {
    int code = move_damaged(r, META_JOBS, "job", record_is_bad);
    if (code == 0) code = move_damaged(r, META_UPLOADS, "upload", upload_is_bad);
    return code;
}

static int save_payloads(struct repair *r) {
    return blob_walk(&r->w->view.blob, keep_one, r);
}

static int sweep(struct repair *r) {
    return store_sweep(r->w);
}

int store_repair(struct store *s, void (*fn)(void *arg, const char *line), void *arg, char *err,
                 size_t err_bytes) {
    struct repair r = {.s = s, .fn = fn, .arg = arg, .err = err, .err_bytes = err_bytes};
    if (err_bytes > 0) err[0] = '\0';
    int code = store_path(s->dir, "quarantine", r.folder, err, err_bytes);
    atomic_store(&s->poisoned, false);
    if (code == 0) code = step(&r, move_all);
    if (code == 0 && r.done > 0) code = step(&r, save_payloads);
    if (code == 0) code = step(&r, write_indexes);
    if (code == 0) code = step(&r, sweep);
    buf_fini(&r.payload);
    if (code == 0) return r.done;
    if (err_bytes > 0 && err[0] == '\0')
        err_set(err, err_bytes, code, "%s: the repair ended early: %s", s->dir, err_text(code));
    return code;
}
