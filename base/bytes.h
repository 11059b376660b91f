/* bytes.h - spans of bytes, growable buffers, little- and big-endian fields, CRC32C.
 *
 * Everything that goes to the wire or the disk passes through bounds-checked helpers; no struct is
 * ever cast onto bytes (STYLE rule 11).
 *
 * Units: bytes.  Owner: `struct bytes` borrows (the maker says until when); `struct buf` owns.
 * Memory: buf grows by doubling up to max_bytes.  Errors: -ENOMEM, ERR_LIMIT; readers set `bad`
 * once and then return zeros, so that a sequence is checked at its end.  Threads: one at a time. */
#ifndef PENSTOCK_BASE_BYTES_H
#define PENSTOCK_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes; not NUL-terminated. {NULL, 0} is absent. */
struct bytes {
    const void *data;
    size_t len;
};

static inline struct bytes bytes_of(const void *data, size_t len) {
    return (struct bytes){data, len};
}
static inline struct bytes bytes_str(const char *text) { /* without the NUL */
    return (struct bytes){text, text ? strlen(text) : 0};
}
static inline bool bytes_eq(struct bytes a, struct bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
static inline bool bytes_is(struct bytes a, const char *text) {
    return bytes_eq(a, bytes_str(text));
}
/* A copy with a NUL behind it, for free(); NULL without memory. */
char *bytes_dup(struct bytes a);
/* Copies into a C string; -EINVAL with an inner NUL, ERR_LIMIT when it does not fit. */
int bytes_to_cstr(struct bytes a, char *out, size_t out_bytes);

struct buf {
    uint8_t *data;
    size_t len, cap, max_bytes; /* max_bytes 0: no limit but memory */
    int error;                  /* the first append that failed; later appends do nothing */
};
void buf_fini(struct buf *b);              /* accepts zeroed memory */
void buf_clear(struct buf *b);             /* keeps the memory, clears error */
void *buf_grow(struct buf *b, size_t len); /* buf_extend where there is no room yet */
/* room for len more, counted as used; NULL on failure */
static inline void *buf_extend(struct buf *b, size_t len) {
    if (b->error || len > b->cap - b->len || !b->data) return buf_grow(b, len);
    b->len += len;
    return b->data + b->len - len;
}
static inline int buf_append(struct buf *b, const void *data, size_t len) {
    void *at = buf_extend(b, len);
    if (at && len) memcpy(at, data, len);
    return b->error;
}
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct bytes buf_bytes(const struct buf *b) {
    return (struct bytes){b->data, b->len};
}
static inline int buf_u8(struct buf *b, uint8_t v) {
    return buf_append(b, &v, sizeof v);
}
static inline int buf_u16le(struct buf *b, uint16_t v) {
    v = htole16(v);
    return buf_append(b, &v, sizeof v);
}
static inline int buf_u32le(struct buf *b, uint32_t v) {
    v = htole32(v);
    return buf_append(b, &v, sizeof v);
}
static inline int buf_u64le(struct buf *b, uint64_t v) {
    v = htole64(v);
    return buf_append(b, &v, sizeof v);
}
static inline int buf_u64be(struct buf *b, uint64_t v) { /* keys that sort */
    v = htobe64(v);
    return buf_append(b, &v, sizeof v);
}
int buf_lenbytes(struct buf *b, struct bytes v); /* u32le length, then the bytes */

struct reader {
    const uint8_t *at, *end;
    bool bad;
};
static inline struct reader reader_of(struct bytes b) {
    const uint8_t *p = b.data;
    return (struct reader){p, p ? p + b.len : p, false};
}
static inline size_t read_left(const struct reader *r) {
    return (size_t)(r->end - r->at);
}
static inline struct bytes read_bytes(struct reader *r, size_t len) {
    if (r->bad || read_left(r) < len) {
        r->bad = true;
        return (struct bytes){NULL, 0};
    }
    struct bytes out = {r->at, len};
    if (len) r->at += len;
    return out;
}
static inline uint8_t read_u8(struct reader *r) {
    struct bytes b = read_bytes(r, 1);
    return b.len ? *(const uint8_t *)b.data : 0;
}
static inline uint16_t read_u16le(struct reader *r) {
    uint16_t v = 0;
    struct bytes b = read_bytes(r, sizeof v);
    if (b.len) memcpy(&v, b.data, sizeof v);
    return le16toh(v);
}
static inline uint32_t read_u32le(struct reader *r) {
    uint32_t v = 0;
    struct bytes b = read_bytes(r, sizeof v);
    if (b.len) memcpy(&v, b.data, sizeof v);
    return le32toh(v);
}
static inline uint64_t read_u64le(struct reader *r) {
    uint64_t v = 0;
    struct bytes b = read_bytes(r, sizeof v);
    if (b.len) memcpy(&v, b.data, sizeof v);
    return le64toh(v);
}
static inline uint64_t read_u64be(struct reader *r) {
    uint64_t v = 0;
    struct bytes b = read_bytes(r, sizeof v);
    if (b.len) memcpy(&v, b.data, sizeof v);
    return be64toh(v);
}
static inline struct bytes read_lenbytes(struct reader *r) {
    return read_bytes(r, read_u32le(r));
}

/* CRC32C (Castagnoli, RFC 3720), as iSCSI and LMDB blobs use it; crc starts at 0. SSE4.2 where
 * the processor has it. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* The same without special instructions: the fallback, and what a test compares with. */
uint32_t crc32c_plain(uint32_t crc, const void *data, size_t len);

/* Checks UTF-8 by the Unicode table (no surrogates, no overlong forms, at most U+10FFFF); returns
 * the offset of the first bad byte, or len when all is well. */
size_t utf8_check(const void *data, size_t len);
/* The largest length <= max at which text may be cut without splitting a character. */
size_t utf8_cut(struct bytes text, size_t max);

#endif
