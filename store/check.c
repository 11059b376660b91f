#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "store/record.h"
#include "store/state.h"
#include "store/store.h"
#include "store/uploads.h"

#define CHECK_ARENA_BYTES (1u << 20)

struct check {
    struct store_read *t;
    void (*fn)(void *arg, const char *finding);
    void *arg;
    int problems;
    struct arena arena;
    struct buf payload;
    uint64_t keyed, live, finished, owned, told; /* records that must have an entry there */
};

static void found(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void found(struct check *c, const char *format, ...) {
    char text[320];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->problems++;
    if (c->fn) c->fn(c->arg, text);
}

static int check_payload(struct check *c, const struct job_record *r, const char *id,
                         const struct job_payload *p, uint32_t slot) {
    char err[160] = "";
    if (p->bytes == 0) return 0;
    if (!p->in_blob) {
        if (crc32c(0, p->inlined.data, p->inlined.len) != p->crc)
            found(c, "job %s, payload slot %u: the checksum of the inline payload is wrong", id,
                  slot);
        return 0;
    }
    buf_clear(&c->payload);
    int code = blob_get(&c->t->blob, (struct blob_id){r->id, slot, p->crc}, p->bytes, &c->payload,
                        err, sizeof err);
    if (code == ERR_CORRUPT) found(c, "%s", err);
    return code == ERR_CORRUPT ? 0 : code;
}

/* The number of a job's end leads back to it. Ends of earlier versions have none. */
static int check_end(struct check *c, const struct job_record *r, const char *id,
                     struct bytes end) {
    struct bytes value;
    uint64_t job = 0;
    if (end.len <= 1) return 0;
    c->told++;
    struct bytes offset = bytes_of((const uint8_t *)end.data + 1, end.len - 1);
    int code = env_get(&c->t->meta, META_ENDED, offset, &value);
    if (code != 0 && code != -ENOENT) return code;
    if (code != 0 || num_of(value, &job) != 0 || job != r->id)
        found(c, "job %s: its place in the order of ends does not lead back to it", id);
    return 0;
}

static int check_indexes(struct check *c, const struct job_record *r, const char *id) {
    uint8_t key[NUM_KEY_BYTES], done_key[FINISHED_KEY_BYTES];
    struct bytes value;
    bool terminal = job_state_terminal(r->state);
    int code = env_get(&c->t->meta, META_LIVE, num_key(key, r->id), &value);
    if (code != 0 && code != -ENOENT) return code;
    if ((code == 0) == terminal)
        found(c, "job %s: is %s, but %s the index of live jobs", id, job_state_name(r->state),
              terminal ? "in" : "not in");
    if (terminal) {
        code = env_get(&c->t->meta, META_FINISHED, finished_key(done_key, r->finished_ms, r->id),
                       &value);
        if (code == -ENOENT) found(c, "job %s: not in the retention index", id);
        if (code == 0) code = check_end(c, r, id, value);
        if (code != 0 && code != -ENOENT) return code;
    }
    c->live += !terminal;
    c->finished += terminal;
    if (tenant_indexed(r->tenant)) {
        uint8_t owner[TENANT_KEY_BYTES];
        c->owned++;
        code = env_get(&c->t->meta, META_TENANTS, tenant_key(owner, r->tenant, r->id), &value);
        if (code == -ENOENT) found(c, "job %s: not in the index of its tenant", id);
        if (code != 0 && code != -ENOENT) return code;
    }
    if (r->key.len == 0) return 0;
    c->keyed++;
    uint64_t named = 0;
    code = jobs_by_key(c->t, r->tenant, r->key, &named);
    if (code != 0 && code != -ENOENT && code != ERR_CORRUPT) return code;
    if (code != 0 || named != r->id)
        found(c, "job %s: its idempotency key does not lead back to it", id);
    return 0;
}

static int check_records(struct check *c) {
    struct env_cursor cursor;
    struct bytes key, value;
    int code = env_cursor_open(&c->t->meta, META_JOBS, &cursor);
    if (code != 0) return code;
    for (code = env_move(&cursor, ENV_FIRST, &key, &value); code == 0;
         code = env_move(&cursor, ENV_NEXT, &key, &value)) {
        struct job_record r;
        uint64_t number = 0;
        char id[JOB_ID_CHARS + 1];
        if (num_of(key, &number) != 0) found(c, "a record with a key of %zu bytes", key.len);
        job_id_text(number, id);
        arena_reset(&c->arena);
        int bad = record_decode(value, &r, &c->arena);
        if (bad == 0 && r.id != number) bad = ERR_CORRUPT;
        if (bad != 0) {
            found(c, "job %s: its record cannot be read: %s", id, err_text(bad));
            continue;
        }
        code = check_indexes(c, &r, id);
        if (code == 0) code = check_payload(c, &r, id, &r.body, JOB_SLOT_BODY);
        if (code == 0) code = check_payload(c, &r, id, &r.input, JOB_SLOT_STAGE + r.input_stage);
        if (code == 0) code = check_payload(c, &r, id, &r.result, JOB_SLOT_RESULT);
        if (code != 0) break;
    }
    env_cursor_close(&cursor);
    return code == -ENOENT ? 0 : code;
}

static int check_upload(void *arg, const struct upload_record *u) {
    struct check *c = arg;
    char err[160] = "", id[JOB_ID_CHARS + 1];
    job_id_text(u->id, id);
    int code = uploads_check(c->t, u, err, sizeof err);
    if (code == ERR_CORRUPT) found(c, "upload %s: %s", id, err);
    return code == ERR_CORRUPT ? 0 : code;
}

static int check_uploads(struct check *c) {
    uint64_t before = store_read_damaged(c->t);
    int code = uploads_walk(c->t, check_upload, c);
    uint64_t damaged = store_read_damaged(c->t) - before;
    if (damaged > 0) found(c, "the records of %" PRIu64 " uploads cannot be read", damaged);
    if (code == ERR_VERSION) found(c, "an upload was written by a later version");
    return code == ERR_VERSION ? 0 : code;
}

/* Every record found its entries, so an index with more of them has some that lead nowhere. */
static int check_count(struct check *c, uint32_t table, uint64_t expect, const char *what) {
    uint64_t entries;
    int code = env_count(&c->t->meta, table, &entries);
    if (code == 0 && entries != expect)
        found(c, "%s has %" PRIu64 " entries for %" PRIu64 " jobs", what, entries, expect);
    return code;
}

static int check_named(void *arg, struct blob_id id) {
    struct check *c = arg;
    bool named;
    int code = job_names_blob(c->t, id, &named);
    if (code != 0 || named) return code;
    /* What the last commit dropped is still there until the next one. */
    const struct buf *pending = &c->t->store->pending;
    for (size_t at = 0; at < pending->len; at += sizeof id) {
        struct blob_id dropped;
        memcpy(&dropped, pending->data + at, sizeof dropped);
        if (dropped.job == id.job && dropped.slot == id.slot && dropped.crc == id.crc) return 0;
    }
    char text[JOB_ID_CHARS + 1];
    job_id_text(id.job, text);
    found(c, "job %s, payload slot %u: no record names it", text, id.slot);
    return 0;
}

int store_check(struct store *s, void (*fn)(void *arg, const char *finding), void *arg) {
    struct check c = {.fn = fn, .arg = arg};
    int code = store_read_begin(s, &c.t);
    if (code != 0) return code;
    arena_init(&c.arena, CHECK_ARENA_BYTES);
    code = check_records(&c);
    if (code == 0) code = check_count(&c, META_KEYS, c.keyed, "the index of idempotency keys");
    if (code == 0) code = check_count(&c, META_LIVE, c.live, "the index of live jobs");
    if (code == 0) code = check_count(&c, META_FINISHED, c.finished, "the retention index");
    if (code == 0) code = check_count(&c, META_ENDED, c.told, "the order of ends");
    if (code == 0) code = check_uploads(&c);
    if (code == 0) code = check_count(&c, META_TENANTS, c.owned, "the index of tenants");
    if (code == 0) code = blob_walk(&c.t->blob, check_named, &c);
    store_read_end(c.t);
    buf_fini(&c.payload);
    arena_fini(&c.arena);
    return code == 0 ? c.problems : code;
}
