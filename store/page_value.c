#include "store/page_value.h"

#include "base/err.h"

#define VERSION 1u
#define LMDB_HEAD_BYTES 16u
#define FIELDS_AT 4u /* version .. tokens */
#define CRC_AT 12u
#define PARENT_AT 16u

static size_t used_bytes(const struct page_shape *s) {
    return PAGE_HEAD_BYTES + (size_t)s->data_bytes + (size_t)s->page_tokens * 4;
}

size_t page_value_bytes(const struct page_shape *s, uint32_t lmdb_page_bytes) {
    size_t all = LMDB_HEAD_BYTES + used_bytes(s);
    return (all + lmdb_page_bytes - 1) / lmdb_page_bytes * lmdb_page_bytes - LMDB_HEAD_BYTES;
}

static uint32_t crc_of(const uint8_t *v, const struct page_shape *s, const struct page_key *key) {
    uint32_t crc = crc32c(0, key->b, sizeof key->b);
    crc = crc32c(crc, v + FIELDS_AT, CRC_AT - FIELDS_AT);
    return crc32c(crc, v + PARENT_AT, used_bytes(s) - PARENT_AT);
}

void page_value_write(uint8_t *out, size_t value_bytes, const struct page_shape *s,
                      const struct page_key *key, const struct page_key *parent,
                      const uint32_t *tokens, const void *data) {
    uint32_t n = htole32(s->page_tokens);
    memcpy(out, "PSKV", FIELDS_AT);
    out[4] = VERSION;
    out[5] = s->layout;
    out[6] = s->dtype;
    out[7] = 0;
    memcpy(out + 8, &n, sizeof n);
    memcpy(out + PARENT_AT, parent->b, sizeof parent->b);
    memcpy(out + PAGE_HEAD_BYTES, data, s->data_bytes);
    uint8_t *at = out + PAGE_HEAD_BYTES + s->data_bytes;
    for (uint32_t i = 0; i < s->page_tokens; i++, at += 4) {
        uint32_t token = htole32(tokens[i]);
        memcpy(at, &token, sizeof token);
    }
    memset(at, 0, (size_t)(out + value_bytes - at));
    uint32_t crc = htole32(crc_of(out, s, key));
    memcpy(out + CRC_AT, &crc, sizeof crc);
}

int page_value_open(struct bytes value, const struct page_shape *s, const struct page_key *key,
                    const struct page_key *parent, const uint32_t *tokens, struct bytes *data) {
    struct reader r = reader_of(value);
    struct bytes magic = read_bytes(&r, FIELDS_AT);
    uint8_t version = read_u8(&r), layout = read_u8(&r), dtype = read_u8(&r), zero = read_u8(&r);
    uint32_t n = read_u32le(&r), crc = read_u32le(&r);
    struct bytes stored_parent = read_bytes(&r, PAGE_KEY_BYTES);
    *data = read_bytes(&r, s->data_bytes);
    struct bytes ids = read_bytes(&r, (size_t)s->page_tokens * 4);
    if (r.bad || !bytes_is(magic, "PSKV") || zero != 0) return ERR_CORRUPT;
    if (version != VERSION || layout != s->layout || dtype != s->dtype || n != s->page_tokens)
        return ERR_STALE;
    if (crc_of(value.data, s, key) != crc) return ERR_CORRUPT;
    if (!parent) return 0;
    if (!bytes_eq(stored_parent, bytes_of(parent->b, sizeof parent->b))) return ERR_STALE;
    struct reader t = reader_of(ids);
    for (uint32_t i = 0; i < n; i++)
        if (read_u32le(&t) != tokens[i]) return ERR_STALE;
    return 0;
}
