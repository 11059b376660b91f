/* page_value.h - how one KV page lies in the store, and what proves that it is the one asked for.
 *
 *   "PSKV" | version u8 | layout u8 | dtype u8 | 0 u8 | tokens u32 | crc u32 | parent key, 32 |
 *   data | token ids u32 each | zeros                                             (little-endian)
 *
 * The first line is 48 bytes, so that behind LMDB's own 16 the data begins at a multiple of 64 in
 * the map. The zeros fill whole pages with it: every value of an environment takes the same run,
 * and any run that was freed fits any page. crc is the CRC32C of the page's own key, of the bytes
 * from version to tokens and of all from the parent key to the last token id: it binds the value to
 * its name. Numbers of `data` are as the engine has them in memory.
 *
 * Units: bytes.  Owner: a value that is opened borrows as its bytes do.  Memory: none.
 * Errors: ERR_CORRUPT bits are wrong; ERR_STALE the value is sound, and another page.
 * Threads: any. */
#ifndef PENSTOCK_STORE_PAGE_VALUE_H
#define PENSTOCK_STORE_PAGE_VALUE_H

#include "store/page_key.h"

#define PAGE_HEAD_BYTES 48u

struct page_shape {
    uint32_t data_bytes, page_tokens;
    uint8_t layout, dtype;
};
/* What a value and LMDB's head take together is this and 16: whole pages. */
size_t page_value_bytes(const struct page_shape *s, uint32_t lmdb_page_bytes);
/* Fills out[value_bytes]. */
void page_value_write(uint8_t *out, size_t value_bytes, const struct page_shape *s,
                      const struct page_key *key, const struct page_key *parent,
                      const uint32_t *tokens, const void *data);
/* parent and tokens NULL: whether it is a sound page of that key, whatever its tokens. */
int page_value_open(struct bytes value, const struct page_shape *s, const struct page_key *key,
                    const struct page_key *parent, const uint32_t *tokens, struct bytes *data);

#endif
