#include "store/sources.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "store/txn.h"

#define VERSION 1u
#define KEY_BYTES (2u * LIMIT_NAME_BYTES + 1u) /* tenant, NUL, name */

/* ---- records: version u8 | dropped u64 | sampled u64 | crc u32, little-endian ---- */

static int decode(struct bytes key, struct bytes in, struct source_record *out) {
    struct reader r = reader_of(in);
    const uint8_t *nul = key.len ? memchr(key.data, 0, key.len) : NULL;
    uint8_t version = read_u8(&r);
    if (!nul || r.bad || version == 0) return ERR_CORRUPT;
    if (version > VERSION) return ERR_VERSION;
    size_t len = (size_t)(nul - (const uint8_t *)key.data);
    out->tenant = bytes_of(key.data, len);
    out->name = bytes_of(nul + 1, key.len - len - 1);
    out->dropped = read_u64le(&r);
    out->sampled = read_u64le(&r);
    uint32_t crc = read_u32le(&r);
    bool sound = !r.bad && read_left(&r) == 0 && out->tenant.len <= LIMIT_NAME_BYTES &&
                 out->name.len <= LIMIT_NAME_BYTES && crc32c(0, in.data, in.len - 4) == crc;
    return sound ? 0 : ERR_CORRUPT;
}

int sources_add(struct store_write *w, const struct source_record *r) {
    uint8_t key[KEY_BYTES];
    struct source_record was = {.dropped = 0};
    struct bytes value;
    if (r->tenant.len > LIMIT_NAME_BYTES || r->name.len > LIMIT_NAME_BYTES || !r->name.len ||
        !r->tenant.len)
        return ERR_LIMIT;
    memcpy(key, r->tenant.data, r->tenant.len);
    key[r->tenant.len] = 0;
    memcpy(key + r->tenant.len + 1, r->name.data, r->name.len);
    struct bytes at = bytes_of(key, r->tenant.len + 1 + r->name.len);
    int code = env_get(&w->view.meta, META_SOURCES, at, &value);
    if (code == 0) code = decode(at, value, &was);
    if (code != 0 && code != -ENOENT) return code;
    buf_clear(&w->record);
    buf_u8(&w->record, VERSION);
    buf_u64le(&w->record, was.dropped + r->dropped);
    buf_u64le(&w->record, was.sampled + r->sampled);
    buf_u32le(&w->record, crc32c(0, w->record.data, w->record.len));
    if (w->record.error) return w->record.error;
    return env_put(&w->view.meta, META_SOURCES, at, buf_bytes(&w->record), ENV_REPLACE);
}

int sources_walk(struct store_read *t, int (*fn)(void *arg, const struct source_record *r),
                 void *arg) {
    struct env_cursor c;
    struct bytes key = {0}, value = {0};
    struct source_record r;
    int stopped = 0;
    int code = env_cursor_open(&t->meta, META_SOURCES, &c);
    if (code != 0) return code;
    for (code = env_move(&c, ENV_FIRST, &key, &value); code == 0 && stopped == 0;
         code = stopped == 0 ? env_move(&c, ENV_NEXT, &key, &value) : 0) {
        if ((code = decode(key, value, &r)) != 0) break;
        stopped = fn(arg, &r);
    }
    env_cursor_close(&c);
    if (stopped != 0) return stopped;
    return code == -ENOENT ? 0 : code;
}
