#include "store/blobs.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "schemas/job.h"
#include "store/txn.h"

#define OVERFLOW_HEADER_BYTES 16u /* what LMDB puts before a value on pages of its own */
#define HEADER_BYTES 32u
#define CRC_FROM 8u /* behind magic, version and the crc itself */
#define VERSION 1u

size_t blob_value_bytes(uint32_t page_bytes) {
    size_t least = OVERFLOW_HEADER_BYTES + HEADER_BYTES + BLOB_DATA_MIN_BYTES;
    return (least + page_bytes - 1) / page_bytes * page_bytes - OVERFLOW_HEADER_BYTES;
}

size_t blob_data_bytes(uint32_t page_bytes) {
    return blob_value_bytes(page_bytes) - HEADER_BYTES;
}

static size_t small_value_bytes(uint32_t page_bytes) {
    return page_bytes - OVERFLOW_HEADER_BYTES;
}

static size_t value_bytes_of(enum blob_table table, uint32_t page_bytes) {
    return table == BLOB_SMALL ? small_value_bytes(page_bytes) : blob_value_bytes(page_bytes);
}

uint64_t blob_room_bytes(uint64_t payload_bytes) {
    if (payload_bytes <= BLOB_SMALL_MAX_BYTES) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t data = page - OVERFLOW_HEADER_BYTES - HEADER_BYTES;
        return ((payload_bytes + data - 1) / data + 1) * page; /* one for the tree above them */
    }
    uint64_t chunks = (payload_bytes + BLOB_DATA_MIN_BYTES - 1) / BLOB_DATA_MIN_BYTES;
    return chunks * (OVERFLOW_HEADER_BYTES + HEADER_BYTES + BLOB_DATA_MIN_BYTES + 4096u);
}

static void put_be(uint8_t *at, uint64_t v, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static void put_le(uint8_t *at, uint64_t v, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> (8 * i));
}

static struct bytes key_of(uint8_t key[BLOB_KEY_BYTES], struct blob_id id, uint32_t index) {
    put_be(key, id.job, 8);
    put_be(key + 8, id.slot, 4);
    put_be(key + 12, id.crc, 4);
    put_be(key + 16, index, 4);
    return bytes_of(key, BLOB_KEY_BYTES);
}

static int id_of(struct bytes key, struct blob_id *id) {
    struct reader r = reader_of(key);
    id->job = read_u64be(&r);
    uint64_t slot_crc = read_u64be(&r);
    id->slot = (uint32_t)(slot_crc >> 32);
    id->crc = (uint32_t)slot_crc;
    return key.len == BLOB_KEY_BYTES && !r.bad ? 0 : ERR_CORRUPT;
}

/* Reads across the parts of a payload as if they were one. */
struct gather {
    const struct bytes *parts;
    uint32_t n, part;
    size_t offset;
};

static void gather(struct gather *g, uint8_t *out, size_t want) {
    while (want > 0) {
        assert(g->part < g->n);
        const struct bytes *p = &g->parts[g->part];
        size_t take = p->len - g->offset < want ? p->len - g->offset : want;
        if (take > 0) memcpy(out, (const uint8_t *)p->data + g->offset, take);
        out += take;
        want -= take;
        g->offset += take;
        if (g->offset == p->len) {
            g->part++;
            g->offset = 0;
        }
    }
}

static uint64_t sum_of(const struct bytes *parts, uint32_t n) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) total += parts[i].len;
    return total;
}

static int put_chunks(struct env_txn *t, enum blob_table table, struct blob_id id, uint64_t total,
                      uint32_t index, const struct bytes *parts, uint32_t n) {
    size_t value_bytes = value_bytes_of(table, env_page_bytes(t->env));
    size_t room = value_bytes - HEADER_BYTES;
    struct gather g = {parts, n, 0, 0};
    for (uint64_t left = sum_of(parts, n); left > 0; index++) {
        size_t take = left < room ? (size_t)left : room;
        uint8_t key[BLOB_KEY_BYTES];
        void *value;
        int code = env_reserve(t, table, key_of(key, id, index), value_bytes, &value);
        if (code != 0) return code;
        uint8_t *v = value;
        memcpy(v, "PSB", 3);
        v[3] = VERSION;
        put_le(v + 8, take, 4);
        put_le(v + 12, index, 4);
        put_le(v + 16, total, 8);
        put_le(v + 24, id.job, 8);
        gather(&g, v + HEADER_BYTES, take);
        memset(v + HEADER_BYTES + take, 0, room - take);
        put_le(v + 4, crc32c(0, v + CRC_FROM, HEADER_BYTES - CRC_FROM + take), 4);
        left -= take;
    }
    return 0;
}

int blob_put(struct env_txn *t, struct blob_id id, const struct bytes *parts, uint32_t n) {
    uint64_t total = sum_of(parts, n);
    enum blob_table table = total <= BLOB_SMALL_MAX_BYTES ? BLOB_SMALL : BLOB_CHUNKS;
    return put_chunks(t, table, id, total, 0, parts, n);
}

int blob_put_at(struct env_txn *t, struct blob_id id, uint64_t total, uint32_t index,
                const struct bytes *parts, uint32_t n) {
    return put_chunks(t, BLOB_CHUNKS, id, total, index, parts, n);
}

/* Checks one chunk against its key and the payload's size; on success *data is what it carries. */
static const char *open_chunk(struct bytes value, struct blob_id id, uint32_t index, uint64_t total,
                              size_t expect, struct bytes *data) {
    struct reader r = reader_of(value);
    struct bytes magic = read_bytes(&r, 3);
    uint8_t version = read_u8(&r);
    uint32_t crc = read_u32le(&r);
    uint32_t data_bytes = read_u32le(&r);
    uint32_t stored_index = read_u32le(&r);
    uint64_t stored_total = read_u64le(&r);
    uint64_t job = read_u64le(&r);
    *data = read_bytes(&r, data_bytes);
    if (r.bad || !bytes_is(magic, "PSB") || version != VERSION) return "its header is damaged";
    if (crc32c(0, (const uint8_t *)value.data + CRC_FROM, HEADER_BYTES - CRC_FROM + data_bytes) !=
        crc)
        return "its checksum is wrong";
    if (job != id.job || stored_index != index || stored_total != total || data_bytes != expect)
        return "it belongs to another payload";
    return NULL;
}

/* Where the chunks of a payload lie. */
static int table_of(const struct env_txn *t, struct blob_id id, uint64_t total,
                    enum blob_table *out) {
    uint8_t key[BLOB_KEY_BYTES];
    struct bytes value;
    *out = BLOB_CHUNKS;
    if (total > BLOB_SMALL_MAX_BYTES) return 0;
    int code = env_get(t, BLOB_SMALL, key_of(key, id, 0), &value);
    if (code == 0) *out = BLOB_SMALL;
    return code == -ENOENT ? 0 : code;
}

/* The first `have` bytes of a payload of total bytes; out may be NULL. */
static int read_blobs(const struct env_txn *t, struct blob_id id, uint64_t total, uint64_t have,
                      uint32_t want_crc, struct buf *out, char *err, size_t err_bytes) {
    enum blob_table table;
    int found = table_of(t, id, total, &table);
    if (found != 0) return found;
    size_t room = value_bytes_of(table, env_page_bytes(t->env)) - HEADER_BYTES;
    uint64_t left = have;
    uint32_t crc = 0;
    char job[JOB_ID_CHARS + 1];
    job_id_text(id.job, job);
    for (uint32_t index = 0; left > 0; index++) {
        size_t expect = left < room ? (size_t)left : room;
        uint8_t key[BLOB_KEY_BYTES];
        struct bytes value, data;
        int code = env_get(t, table, key_of(key, id, index), &value);
        const char *fault = code == -ENOENT ? "it is missing" : NULL;
        if (code != 0 && !fault) return code;
        if (!fault) fault = open_chunk(value, id, index, total, expect, &data);
        if (fault)
            return err_set(err, err_bytes, ERR_CORRUPT, "job %s, payload slot %u, chunk %u: %s",
                           job, id.slot, index, fault);
        code = out ? buf_append(out, data.data, data.len) : 0;
        if (code != 0) return code;
        crc = crc32c(crc, data.data, data.len);
        left -= expect;
    }
    if (crc == want_crc) return 0;
    return err_set(err, err_bytes, ERR_CORRUPT,
                   "job %s, payload slot %u: the checksum of the whole is wrong", job, id.slot);
}

int blob_get(const struct env_txn *t, struct blob_id id, uint64_t payload_bytes, struct buf *out,
             char *err, size_t err_bytes) {
    return read_blobs(t, id, payload_bytes, payload_bytes, id.crc, out, err, err_bytes);
}

int blob_check(const struct env_txn *t, struct blob_id id, uint64_t total, uint64_t have,
               uint32_t crc, char *err, size_t err_bytes) {
    return read_blobs(t, id, total, have, crc, NULL, err, err_bytes);
}

int blob_is_bad(struct bytes key, struct bytes value) {
    struct blob_id id;
    struct bytes data;
    if (id_of(key, &id) != 0) return ERR_CORRUPT;
    struct reader k = reader_of(key), v = reader_of(value);
    read_bytes(&k, BLOB_KEY_BYTES - 4);
    const uint8_t *index = read_bytes(&k, 4).data;
    read_bytes(&v, CRC_FROM);
    uint32_t data_bytes = read_u32le(&v);
    read_u32le(&v);
    uint64_t total = read_u64le(&v);
    uint32_t at =
        (uint32_t)index[0] << 24 | (uint32_t)index[1] << 16 | (uint32_t)index[2] << 8 | index[3];
    return v.bad || open_chunk(value, id, at, total, data_bytes, &data) ? ERR_CORRUPT : 0;
}

static int salvage(struct env_txn *t, enum blob_table table, struct blob_id id, struct buf *out) {
    uint8_t first[BLOB_KEY_BYTES];
    struct bytes key = key_of(first, id, 0), value;
    struct env_cursor c;
    int code = env_cursor_open(t, table, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_AT_LEAST, &key, &value);
         code == 0 && key.len == BLOB_KEY_BYTES && memcmp(key.data, first, 16) == 0;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        struct reader r = reader_of(value);
        read_bytes(&r, CRC_FROM);
        size_t data_bytes = read_u32le(&r);
        if (value.len <= HEADER_BYTES) continue;
        if (data_bytes > value.len - HEADER_BYTES) data_bytes = value.len - HEADER_BYTES;
        code = buf_append(out, (const uint8_t *)value.data + HEADER_BYTES, data_bytes);
        if (code != 0) break;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

int blob_salvage(struct env_txn *t, struct blob_id id, struct buf *out) {
    size_t before = out->len;
    int code = salvage(t, BLOB_SMALL, id, out);
    return code == 0 && out->len == before ? salvage(t, BLOB_CHUNKS, id, out) : code;
}

static int del_chunks(struct env_txn *t, enum blob_table table, struct blob_id id) {
    uint8_t first[BLOB_KEY_BYTES];
    struct bytes key = key_of(first, id, 0), value;
    struct env_cursor c;
    int code = env_cursor_open(t, table, &c);
    if (code != 0) return code;
    code = env_move(&c, ENV_AT_LEAST, &key, &value);
    while (code == 0 && key.len == BLOB_KEY_BYTES && memcmp(key.data, first, 16) == 0) {
        code = env_cursor_del(&c);
        if (code == 0) code = env_move(&c, ENV_NEXT, &key, &value);
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

int blob_del(struct env_txn *t, struct blob_id id) {
    int code = del_chunks(t, BLOB_SMALL, id);
    return code == 0 ? del_chunks(t, BLOB_CHUNKS, id) : code;
}

int blob_count(const struct env_txn *t, uint64_t *chunks) {
    uint64_t small = 0;
    int code = env_count(t, BLOB_CHUNKS, chunks);
    if (code == 0) code = env_count(t, BLOB_SMALL, &small);
    *chunks += small;
    return code;
}

/* ---- walking ---- */

struct walk {
    struct blob_id from;
    bool slot_only; /* what is of another job or slot ends the walk */
    int (*fn)(void *arg, struct blob_id id);
    void *arg;
};

static bool is_same(struct blob_id a, struct blob_id b) {
    return a.job == b.job && a.slot == b.slot && a.crc == b.crc;
}

static int walk_table(struct env_txn *t, enum blob_table table, const struct walk *w) {
    uint8_t first[BLOB_KEY_BYTES];
    struct bytes key = key_of(first, w->from, 0), value;
    struct env_cursor c;
    int code = env_cursor_open(t, table, &c);
    if (code != 0) return code;
    struct blob_id last = {0};
    bool any = false;
    for (code = env_move(&c, ENV_AT_LEAST, &key, &value); code == 0;
         code = env_move(&c, ENV_NEXT, &key, &value)) {
        struct blob_id id;
        code = id_of(key, &id);
        if (code != 0 || (w->slot_only && (id.job != w->from.job || id.slot != w->from.slot)))
            break;
        if (any && is_same(id, last)) continue;
        any = true;
        last = id;
        code = w->fn(w->arg, id);
        if (code != 0) break;
    }
    env_cursor_close(&c);
    return code == -ENOENT ? 0 : code;
}

static int walk_both(struct env_txn *t, const struct walk *w) {
    int code = walk_table(t, BLOB_SMALL, w);
    return code == 0 ? walk_table(t, BLOB_CHUNKS, w) : code;
}

int blob_walk(struct env_txn *t, int (*fn)(void *arg, struct blob_id id), void *arg) {
    return walk_both(t, &(struct walk){.fn = fn, .arg = arg});
}

int blob_walk_slot(struct env_txn *t, uint64_t job, uint32_t slot,
                   int (*fn)(void *arg, struct blob_id id), void *arg) {
    return walk_both(t, &(struct walk){{job, slot, 0}, true, fn, arg});
}
