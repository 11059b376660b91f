#include "store/jobs.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "base/err.h"
#include "store/ended.h"
#include "store/record.h"
#include "store/state.h"
#include "store/uploads.h"

struct bytes num_key(uint8_t key[NUM_KEY_BYTES], uint64_t id) {
    for (uint32_t i = 0; i < NUM_KEY_BYTES; i++) key[i] = (uint8_t)(id >> (56 - 8 * i));
    return bytes_of(key, NUM_KEY_BYTES);
}

int num_of(struct bytes key, uint64_t *id) {
    struct reader r = reader_of(key);
    *id = read_u64be(&r);
    return r.bad || read_left(&r) > 0 ? ERR_CORRUPT : 0;
}

struct bytes finished_key(uint8_t key[FINISHED_KEY_BYTES], int64_t finished_ms, uint64_t id) {
    num_key(key, (uint64_t)finished_ms);
    num_key(key + 8, id);
    return bytes_of(key, FINISHED_KEY_BYTES);
}

void key_hash(uint8_t out[KEY_HASH_BYTES], struct bytes tenant, struct bytes key) {
    crypto_generichash_state h;
    uint8_t tenant_bytes[8];
    num_key(tenant_bytes, tenant.len);
    crypto_generichash_init(&h, NULL, 0, KEY_HASH_BYTES);
    crypto_generichash_update(&h, tenant_bytes, sizeof tenant_bytes);
    crypto_generichash_update(&h, tenant.data, tenant.len);
    crypto_generichash_update(&h, key.data, key.len);
    crypto_generichash_final(&h, out, KEY_HASH_BYTES);
}

bool tenant_indexed(struct bytes tenant) {
    return !bytes_is(tenant, "default");
}

struct bytes tenant_key(uint8_t key[TENANT_KEY_BYTES], struct bytes tenant, uint64_t id) {
    crypto_generichash(key, TENANT_HASH_BYTES, tenant.data, tenant.len, NULL, 0);
    num_key(key + TENANT_HASH_BYTES, id);
    return bytes_of(key, TENANT_KEY_BYTES);
}

/* What FINISHED says of a job: its state, and the number that its end was given (ended.h); an
 * earlier version said neither, or the state alone. */
#define END_BYTES (1 + NUM_KEY_BYTES)

static bool end_offset(struct bytes value, uint64_t *offset) {
    return value.len == END_BYTES &&
           num_of(bytes_of((const uint8_t *)value.data + 1, NUM_KEY_BYTES), offset) == 0;
}

/* The end of a job leaves both indexes. */
static int del_end(struct store_write *w, int64_t finished_ms, uint64_t id) {
    struct env_txn *meta = &w->view.meta;
    uint8_t done_key[FINISHED_KEY_BYTES];
    struct bytes key = finished_key(done_key, finished_ms, id), value;
    uint64_t offset = 0;
    int code = env_get(meta, META_FINISHED, key, &value);
    bool numbered = code == 0 && end_offset(value, &offset);
    if (code == 0) code = env_del(meta, META_FINISHED, key);
    if (code == 0 && numbered) code = ended_del(w, offset);
    return code;
}

static int put_end(struct store_write *w, const struct job_record *r) {
    uint8_t done_key[FINISHED_KEY_BYTES], end[END_BYTES] = {(uint8_t)r->state};
    uint64_t offset;
    int code = ended_add(w, r->id, &offset);
    if (code != 0) return code;
    num_key(end + 1, offset);
    return env_put(&w->view.meta, META_FINISHED, finished_key(done_key, r->finished_ms, r->id),
                   bytes_of(end, sizeof end), ENV_APPEND);
}

/* What an update must know of the record that it replaces; copied, since writes move the map. */
struct before {
    bool there, terminal;
    int64_t finished_ms;
    uint32_t n_blobs;
    struct blob_id blob[3];
};

static void name_blob(struct before *b, const struct job_record *r, const struct job_payload *p,
                      uint32_t slot) {
    if (p->bytes > 0 && p->in_blob) b->blob[b->n_blobs++] = (struct blob_id){r->id, slot, p->crc};
}

static void name_blobs(struct before *b, const struct job_record *r) {
    b->n_blobs = 0;
    name_blob(b, r, &r->body, JOB_SLOT_BODY);
    name_blob(b, r, &r->input, JOB_SLOT_STAGE + r->input_stage);
    name_blob(b, r, &r->result, JOB_SLOT_RESULT);
}

static int get_raw(const struct store_read *t, uint64_t id, struct job_record *out,
                   struct arena *a) {
    uint8_t key[NUM_KEY_BYTES];
    struct bytes value;
    int code = env_get(&t->meta, META_JOBS, num_key(key, id), &value);
    if (code == 0) code = record_decode(value, out, a);
    if (code == 0 && out->id != id) code = ERR_CORRUPT;
    return code;
}

/* The new record in w->record, with the old one's body when it comes without. */
static int encode(struct store_write *w, const struct job_record *r, const struct job_record *old) {
    buf_clear(&w->record);
    if (!old || r->body.in_blob || r->body.inlined.len || r->body.bytes != old->body.bytes ||
        r->body.crc != old->body.crc)
        return record_encode(r, &w->record);
    struct job_record whole = *r;
    whole.body.inlined = old->body.inlined;
    return record_encode(&whole, &w->record);
}

/* Encodes r beside the record that w will replace; also refuses an update that changes who the job
 * is. */
static int look_before(struct store_write *w, const struct job_record *r, struct before *b) {
    struct job_record old;
    *b = (struct before){0};
    int code = get_raw(&w->view, r->id, &old, NULL);
    if (code == -ENOENT) return encode(w, r, NULL);
    if (code == 0) code = encode(w, r, &old);
    if (code != 0) return code;
    if (!bytes_eq(old.key, r->key) || !bytes_eq(old.tenant, r->tenant)) return -EINVAL;
    b->there = true;
    b->terminal = job_state_terminal(old.state);
    b->finished_ms = old.finished_ms;
    name_blobs(b, &old);
    return b->terminal && !job_state_terminal(r->state) ? -EINVAL : 0;
}

static int put_indexes(struct store_write *w, const struct job_record *r, const struct before *b) {
    struct env_txn *meta = &w->view.meta;
    uint8_t id_key[NUM_KEY_BYTES];
    struct bytes none = bytes_of("", 0);
    bool terminal = job_state_terminal(r->state);
    int code = 0;
    if (b->terminal && b->finished_ms != r->finished_ms) code = del_end(w, b->finished_ms, r->id);
    if (code == 0 && b->there && !b->terminal && terminal)
        code = env_del(meta, META_LIVE, num_key(id_key, r->id));
    if (code == -ENOENT) code = ERR_CORRUPT;
    if (code != 0) return code;
    if (!terminal) {
        if (b->there) return 0;
        code = env_put(meta, META_LIVE, num_key(id_key, r->id), none, ENV_APPEND);
    } else {
        if (b->terminal && b->finished_ms == r->finished_ms) return 0;
        code = put_end(w, r);
    }
    return code == -EEXIST ? ERR_CORRUPT : code;
}

static int put_tenant(struct store_write *w, const struct job_record *r) {
    uint8_t key[TENANT_KEY_BYTES];
    if (!tenant_indexed(r->tenant)) return 0;
    return env_put(&w->view.meta, META_TENANTS, tenant_key(key, r->tenant, r->id), bytes_of("", 0),
                   ENV_NEW);
}

static int put_idempotency(struct store_write *w, const struct job_record *r) {
    uint8_t hash[KEY_HASH_BYTES], id[NUM_KEY_BYTES];
    if (r->key.len == 0) return 0;
    key_hash(hash, r->tenant, r->key);
    return env_put(&w->view.meta, META_KEYS, bytes_of(hash, sizeof hash), num_key(id, r->id),
                   ENV_NEW);
}

int job_index(struct store_write *w, const struct job_record *r) {
    struct before none = {0};
    int code = put_idempotency(w, r);
    bool taken = code == -EEXIST;
    if (code == 0 || taken) code = put_tenant(w, r);
    uint8_t done[FINISHED_KEY_BYTES];
    struct bytes end;
    bool there =
        job_state_terminal(r->state) &&
        env_get(&w->view.meta, META_FINISHED, finished_key(done, r->finished_ms, r->id), &end) == 0;
    if (code == 0 && !there) code = put_indexes(w, r, &none);
    return code == 0 && taken ? -EEXIST : code;
}

/* Payloads that the old record named and the new one does not are freed after the commit. */
static int drop_unnamed(struct store_write *w, const struct before *b, const struct before *now) {
    for (uint32_t i = 0; i < b->n_blobs; i++) {
        bool kept = false;
        for (uint32_t k = 0; k < now->n_blobs; k++)
            kept |= b->blob[i].slot == now->blob[k].slot && b->blob[i].crc == now->blob[k].crc;
        int code = kept ? 0 : store_drop_later(w, b->blob[i]);
        if (code != 0) return code;
    }
    return 0;
}

int jobs_put(struct store_write *w, const struct job_record *r) {
    assert(r->state != JOB_LEASED && r->id != 0);
    struct before before, now = {0};
    uint8_t key[NUM_KEY_BYTES];
    int code = look_before(w, r, &before);
    if (code == 0 && !before.there) code = put_idempotency(w, r);
    if (code == 0 && !before.there) code = put_tenant(w, r);
    if (code == 0)
        code = env_put(&w->view.meta, META_JOBS, num_key(key, r->id), buf_bytes(&w->record),
                       before.there ? ENV_REPLACE : ENV_APPEND);
    if (code == 0) code = put_indexes(w, r, &before);
    name_blobs(&now, r);
    return code == 0 ? drop_unnamed(w, &before, &now) : code;
}

/* The payloads that were put for r have no record to name them. */
static int drop_payloads(struct store_write *w, const struct job_record *r) {
    struct before unused = {0}, none = {0};
    name_blobs(&unused, r);
    return drop_unnamed(w, &unused, &none);
}

int jobs_add(struct store_write *w, const struct job_record *r, uint64_t *existing) {
    assert(r->state != JOB_LEASED && r->id != 0);
    struct before none = {0};
    uint8_t key[NUM_KEY_BYTES];
    int code = r->key.len == 0 ? -ENOENT : jobs_by_key(&w->view, r->tenant, r->key, existing);
    if (code == 0) code = drop_payloads(w, r);
    if (code == 0) return -EEXIST;
    if (code == -ENOENT) code = encode(w, r, NULL);
    if (code == 0)
        code = env_put(&w->view.meta, META_JOBS, num_key(key, r->id), buf_bytes(&w->record),
                       ENV_APPEND);
    if (code == -EEXIST) *existing = r->id;
    if (code == 0) code = put_idempotency(w, r);
    if (code == 0) code = put_tenant(w, r);
    return code == 0 ? put_indexes(w, r, &none) : code;
}

int jobs_del(struct store_write *w, uint64_t id) {
    struct env_txn *meta = &w->view.meta;
    struct job_record old;
    struct before b = {0};
    uint8_t key[NUM_KEY_BYTES], hash[KEY_HASH_BYTES];
    uint8_t owner[TENANT_KEY_BYTES];
    int code = get_raw(&w->view, id, &old, NULL);
    if (code != 0) return code;
    name_blobs(&b, &old);
    bool terminal = job_state_terminal(old.state), has_key = old.key.len > 0;
    int64_t finished_ms = old.finished_ms;
    if (has_key) key_hash(hash, old.tenant, old.key);
    bool indexed = tenant_indexed(old.tenant);
    if (indexed) tenant_key(owner, old.tenant, id);
    code = env_del(meta, META_JOBS, num_key(key, id));
    if (code == 0 && indexed) code = env_del(meta, META_TENANTS, bytes_of(owner, sizeof owner));
    if (code == 0 && has_key) code = env_del(meta, META_KEYS, bytes_of(hash, sizeof hash));
    if (code == 0 && !terminal) code = env_del(meta, META_LIVE, num_key(key, id));
    if (code == 0 && terminal) code = del_end(w, finished_ms, id);
    if (code == -ENOENT) return ERR_CORRUPT;
    for (uint32_t i = 0; code == 0 && i < b.n_blobs; i++) code = store_drop_later(w, b.blob[i]);
    return code;
}

int jobs_get(struct store_read *t, uint64_t id, struct job_record *out, struct arena *a) {
    return get_raw(t, id, out, a);
}

int jobs_by_key(struct store_read *t, struct bytes tenant, struct bytes key, uint64_t *id) {
    uint8_t hash[KEY_HASH_BYTES];
    struct bytes value;
    struct job_record r;
    key_hash(hash, tenant, key);
    int code = env_get(&t->meta, META_KEYS, bytes_of(hash, sizeof hash), &value);
    if (code == 0) code = num_of(value, id);
    if (code != 0) return code;
    code = get_raw(t, *id, &r, NULL);
    if (code == -ENOENT) return ERR_CORRUPT;
    if (code != 0) return code;
    return bytes_eq(r.tenant, tenant) && bytes_eq(r.key, key) ? 0 : ERR_CORRUPT;
}

/* Puts the cursor on the first key of the walk. */
static int walk_start(struct env_cursor *c, uint64_t from, bool down, struct bytes *key,
                      struct bytes *value) {
    uint8_t first[NUM_KEY_BYTES];
    uint64_t id;
    *key = num_key(first, from);
    int code = env_move(c, ENV_AT_LEAST, key, value);
    if (!down) return code;
    if (code == -ENOENT) return env_move(c, ENV_LAST, key, value);
    if (code == 0) code = num_of(*key, &id);
    return code == 0 && id > from ? env_move(c, ENV_PREV, key, value) : code;
}

int jobs_walk(struct store_read *t, uint64_t from, bool down, bool live_only, struct arena *a,
              int (*fn)(void *arg, const struct job_record *r), void *arg) {
    struct env_cursor c;
    struct bytes key = {0}, value = {0};
    int stopped = 0;
    int code = env_cursor_open(&t->meta, live_only ? META_LIVE : META_JOBS, &c);
    if (code != 0) return code;
    code = walk_start(&c, from, down, &key, &value);
    while (code == 0 && stopped == 0) {
        struct job_record r;
        uint64_t id;
        arena_reset(a);
        code = num_of(key, &id);
        if (code == 0) code = live_only ? get_raw(t, id, &r, a) : record_decode(value, &r, a);
        if (code == -ENOENT || (code == 0 && r.id != id)) code = ERR_CORRUPT;
        if (code == ERR_CORRUPT)
            t->damaged++;
        else if (code == 0)
            stopped = fn(arg, &r);
        else
            break;
        code = env_move(&c, down ? ENV_PREV : ENV_NEXT, &key, &value);
    }
    env_cursor_close(&c);
    if (stopped != 0) return stopped;
    return code == -ENOENT ? 0 : code;
}

/* Puts the cursor on the tenant's last job at or below `from`. */
static int tenant_start(struct env_cursor *c, struct bytes tenant, uint64_t from, uint8_t *first,
                        struct bytes *key, struct bytes *value) {
    struct bytes wanted = *key = tenant_key(first, tenant, from);
    int code = env_move(c, ENV_AT_LEAST, key, value);
    if (code == -ENOENT) return env_move(c, ENV_LAST, key, value);
    return code == 0 && !bytes_eq(*key, wanted) ? env_move(c, ENV_PREV, key, value) : code;
}

int jobs_walk_tenant(struct store_read *t, struct bytes tenant, uint64_t from, struct arena *a,
                     int (*fn)(void *arg, const struct job_record *r), void *arg) {
    struct env_cursor c;
    struct bytes key, value;
    uint8_t first[TENANT_KEY_BYTES];
    int stopped = 0;
    int code = env_cursor_open(&t->meta, META_TENANTS, &c);
    if (code != 0) return code;
    code = tenant_start(&c, tenant, from, first, &key, &value);
    while (code == 0 && stopped == 0) {
        struct job_record r;
        uint64_t id;
        if (key.len != TENANT_KEY_BYTES || memcmp(key.data, first, TENANT_HASH_BYTES) != 0) break;
        arena_reset(a);
        code = num_of(bytes_of((const uint8_t *)key.data + TENANT_HASH_BYTES, NUM_KEY_BYTES), &id);
        if (code == 0) code = get_raw(t, id, &r, a);
        if (code == -ENOENT || (code == 0 && !bytes_eq(r.tenant, tenant))) code = ERR_CORRUPT;
        if (code == ERR_CORRUPT)
            t->damaged++;
        else if (code == 0)
            stopped = fn(arg, &r);
        else
            break;
        code = env_move(&c, ENV_PREV, &key, &value);
    }
    env_cursor_close(&c);
    if (stopped != 0) return stopped;
    return code == -ENOENT ? 0 : code;
}

int jobs_last_id(struct store_read *t, uint64_t *id) {
    struct env_cursor c;
    struct bytes key, value;
    *id = 0;
    int code = env_cursor_open(&t->meta, META_JOBS, &c);
    if (code != 0) return code;
    code = env_move(&c, ENV_LAST, &key, &value);
    if (code == 0) code = num_of(key, id);
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

/* An upload's bytes lie where its job's body will. */
static int upload_names_blob(struct store_read *t, struct blob_id id, bool *named) {
    struct upload_record u;
    int code = uploads_get(t, id.job, &u);
    *named = code != -ENOENT;
    if (code == -ENOENT || code == ERR_CORRUPT || code == ERR_VERSION) return 0;
    if (code == 0) *named = id.slot == JOB_SLOT_BODY && id.crc == u.crc;
    return code;
}

int job_names_blob(struct store_read *t, struct blob_id id, bool *named) {
    struct job_record r;
    struct before b;
    int code = get_raw(t, id.job, &r, NULL);
    if (code == -ENOENT) return upload_names_blob(t, id, named);
    *named = true;
    if (code == ERR_CORRUPT || code == ERR_VERSION) return 0;
    if (code != 0) return code;
    name_blobs(&b, &r);
    *named = false;
    for (uint32_t i = 0; i < b.n_blobs; i++)
        *named |= b.blob[i].slot == id.slot && b.blob[i].crc == id.crc;
    return 0;
}

/* Indexes that an earlier version wrote do not say how a job ended. */
static enum job_state state_of(const struct store_read *t, uint64_t id, struct bytes value) {
    struct job_record r;
    if (value.len >= 1 && *(const uint8_t *)value.data < JOB_STATES)
        return (enum job_state) * (const uint8_t *)value.data;
    return get_raw(t, id, &r, NULL) == 0 ? r.state : JOB_STATES;
}

int jobs_ended(struct store_read *t, int64_t after_ms, uint64_t after_id, struct job_ended *out,
               uint32_t max, uint32_t *n) {
    struct env_cursor c;
    uint8_t first[FINISHED_KEY_BYTES];
    struct bytes key = finished_key(first, after_ms > 0 ? after_ms : 0, after_id), value;
    *n = 0;
    int code = env_cursor_open(&t->meta, META_FINISHED, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_AT_LEAST, &key, &value); code == 0 && *n < max;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        struct reader r = reader_of(key);
        struct job_ended e = {.finished_ms = (int64_t)read_u64be(&r)};
        e.id = read_u64be(&r);
        if (r.bad || read_left(&r) > 0) code = ERR_CORRUPT;
        if (code != 0) break;
        if (e.finished_ms == after_ms && e.id == after_id) continue;
        e.state = state_of(t, e.id, value);
        out[(*n)++] = e;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}
