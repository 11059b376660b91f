#include "store/uploads.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "base/err.h"
#include "store/state.h"

#define VERSION 1u
#define HEAD_BYTES 8u /* magic, version, crc */

/* ---- records: "PSU" version u8 | crc u32 | fields, little-endian ---- */

static int encode(const struct upload_record *u, struct buf *out) {
    if (u->bytes == 0 || u->bytes > LIMIT_OUTPUT_BYTES || u->have > u->bytes ||
        u->tenant.len > LIMIT_NAME_BYTES || u->key.len > LIMIT_KEY_BYTES)
        return ERR_LIMIT;
    buf_append(out, "PSU", 3);
    buf_u8(out, VERSION);
    buf_u32le(out, 0);
    buf_u64le(out, u->id);
    buf_u64le(out, u->bytes);
    buf_u64le(out, u->have);
    buf_u32le(out, u->crc);
    buf_u32le(out, u->have_crc);
    buf_lenbytes(out, u->tenant);
    buf_lenbytes(out, u->key);
    if (out->error != 0) return out->error;
    uint32_t crc = crc32c(0, out->data + HEAD_BYTES, out->len - HEAD_BYTES);
    for (uint32_t i = 0; i < 4; i++) out->data[4 + i] = (uint8_t)(crc >> (8 * i));
    return 0;
}

static int decode(struct bytes in, uint64_t id, struct upload_record *out) {
    struct reader r = reader_of(in);
    struct bytes magic = read_bytes(&r, 3);
    uint8_t version = read_u8(&r);
    uint32_t crc = read_u32le(&r);
    if (r.bad || !bytes_is(magic, "PSU") || version == 0) return ERR_CORRUPT;
    if (version > VERSION) return ERR_VERSION;
    if (crc32c(0, r.at, read_left(&r)) != crc) return ERR_CORRUPT;
    out->id = read_u64le(&r);
    out->bytes = read_u64le(&r);
    out->have = read_u64le(&r);
    out->crc = read_u32le(&r);
    out->have_crc = read_u32le(&r);
    out->tenant = read_lenbytes(&r);
    out->key = read_lenbytes(&r);
    bool sound = !r.bad && read_left(&r) == 0 && out->id == id && out->have <= out->bytes &&
                 out->bytes <= LIMIT_OUTPUT_BYTES && out->tenant.len <= LIMIT_NAME_BYTES &&
                 out->key.len <= LIMIT_KEY_BYTES;
    return sound ? 0 : ERR_CORRUPT;
}

int upload_is_bad(struct bytes key, struct bytes value) {
    struct upload_record u;
    uint64_t id;
    int code = num_of(key, &id);
    return code == 0 ? decode(value, id, &u) : code;
}

int uploads_add(struct store_write *w, const struct upload_record *u) {
    uint8_t key[NUM_KEY_BYTES];
    buf_clear(&w->record);
    int code = encode(u, &w->record);
    if (code != 0) return code;
    return env_put(&w->view.meta, META_UPLOADS, num_key(key, u->id), buf_bytes(&w->record),
                   ENV_REPLACE);
}

int uploads_get(struct store_read *t, uint64_t id, struct upload_record *out) {
    uint8_t key[NUM_KEY_BYTES];
    struct bytes value;
    int code = env_get(&t->meta, META_UPLOADS, num_key(key, id), &value);
    return code == 0 ? decode(value, id, out) : code;
}

int uploads_append(struct store_write *w, struct upload_record *u, struct bytes data) {
    uint32_t blob = (uint32_t)blob_data_bytes(env_page_bytes(w->view.blob.env));
    bool last = u->have + data.len == u->bytes;
    if (data.len == 0 || data.len > u->bytes - u->have || u->have % blob != 0 ||
        (!last && data.len % blob != 0))
        return ERR_LIMIT;
    /* The strings lie in the map, which moves with the first write. */
    uint8_t strings[LIMIT_NAME_BYTES + LIMIT_KEY_BYTES];
    if (u->tenant.len) memcpy(strings, u->tenant.data, u->tenant.len);
    if (u->key.len) memcpy(strings + u->tenant.len, u->key.data, u->key.len);
    struct upload_record now = *u;
    now.tenant = bytes_of(strings, u->tenant.len);
    now.key = bytes_of(strings + u->tenant.len, u->key.len);
    struct blob_id id = {u->id, JOB_SLOT_BODY, u->crc};
    int code = blob_put_at(&w->view.blob, id, u->bytes, (uint32_t)(u->have / blob), &data, 1);
    if (code != 0) return code;
    now.have += data.len;
    now.have_crc = crc32c(now.have_crc, data.data, data.len);
    code = uploads_add(w, &now);
    u->have = now.have;
    u->have_crc = now.have_crc;
    u->tenant = u->key = (struct bytes){NULL, 0};
    return code;
}

int uploads_take(struct store_write *w, uint64_t id) {
    uint8_t key[NUM_KEY_BYTES];
    return env_del(&w->view.meta, META_UPLOADS, num_key(key, id));
}

int uploads_del(struct store_write *w, uint64_t id) {
    struct upload_record u;
    int code = uploads_get(&w->view, id, &u);
    if (code != 0) return code;
    struct blob_id blob = {id, JOB_SLOT_BODY, u.crc};
    code = uploads_take(w, id);
    return code == 0 ? store_drop_later(w, blob) : code;
}

int uploads_walk(struct store_read *t, int (*fn)(void *arg, const struct upload_record *u),
                 void *arg) {
    struct env_cursor c;
    struct bytes key = {0}, value = {0};
    int stopped = 0;
    int code = env_cursor_open(&t->meta, META_UPLOADS, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_FIRST, &key, &value); code == 0 && stopped == 0;
         code = stopped == 0 ? env_move(&c, ENV_NEXT, &key, &value) : 0) {
        struct upload_record u;
        uint64_t id;
        code = num_of(key, &id);
        if (code == 0) code = decode(value, id, &u);
        if (code == ERR_CORRUPT)
            t->damaged++;
        else if (code == 0)
            stopped = fn(arg, &u);
        else
            break;
    }
    env_cursor_close(&c);
    if (stopped != 0) return stopped;
    return code == -ENOENT ? 0 : code;
}

int uploads_check(struct store_read *t, const struct upload_record *u, char *err,
                  size_t err_bytes) {
    struct blob_id id = {u->id, JOB_SLOT_BODY, u->crc};
    return blob_check(&t->blob, id, u->bytes, u->have, u->have_crc, err, err_bytes);
}

uint32_t uploads_chunk_bytes(struct store *s) {
    uint32_t blob = (uint32_t)blob_data_bytes(env_page_bytes(s->blob));
    return LIMIT_FRAME_BYTES / blob * blob;
}

/* Keyed with the id that was drawn when the store was made, which never leaves it. */
uint64_t uploads_token(const struct store *s, uint64_t id) {
    static const char purpose[] = "penstock upload";
    uint8_t bytes[NUM_KEY_BYTES], out[crypto_generichash_BYTES_MIN];
    crypto_generichash_state h;
    crypto_generichash_init(&h, s->secret, sizeof s->secret, sizeof out);
    crypto_generichash_update(&h, (const uint8_t *)purpose, sizeof purpose);
    num_key(bytes, id);
    crypto_generichash_update(&h, bytes, sizeof bytes);
    crypto_generichash_final(&h, out, sizeof out);
    struct reader r = reader_of(bytes_of(out, sizeof out));
    return read_u64be(&r);
}
