/* pack.h - msgpack documents, written and read under limits: the only door to msgpack-c.
 *
 * pack_check walks a document before msgpack-c sees it and refuses depths, counts and lengths that
 * the remaining bytes cannot hold (msgpack-c allocates what is declared). A parsed document is a
 * tree of pack_val, borrowed from the document; str values must be valid UTF-8.
 *
 * Units: bytes.  Owner: pack_parse gives a document to pack_free; values and the bytes inside them
 * are borrowed from the document, which itself borrows the input bytes.  Memory: one zone a
 * document; the writer appends to a struct buf.  Errors: ERR_CORRUPT, ERR_LIMIT, -ENOMEM with err
 * naming the offset.  Threads: one at a time. */
#ifndef PENSTOCK_SCHEMAS_PACK_H
#define PENSTOCK_SCHEMAS_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* One whole document and nothing behind it. Depth at most LIMIT_PACK_DEPTH, items at most
 * LIMIT_PACK_ITEMS, map keys are strings, every str is UTF-8, no ext types. */
int pack_check(struct bytes document, char *err, size_t err_bytes);

/* ---- writing: everything goes through one packer over a struct buf; errors stick in it ---- */
struct packer {
    struct buf *out;
};
struct packer packer_of(struct buf *out);
void pack_map(struct packer *p, uint32_t pairs);
void pack_array(struct packer *p, uint32_t items);
void pack_nil(struct packer *p);
void pack_bool(struct packer *p, bool v);
void pack_u64(struct packer *p, uint64_t v);
void pack_i64(struct packer *p, int64_t v);
void pack_f32(struct packer *p, float v);
void pack_f64(struct packer *p, double v);
void pack_str(struct packer *p, const char *text);
void pack_strn(struct packer *p, struct bytes text);
void pack_bin(struct packer *p, struct bytes data);
void pack_raw(struct packer *p, struct bytes document); /* an encoded document as it stands */
/* key and value in one call, for maps written by hand */
void pack_kv_str(struct packer *p, const char *key, const char *text);
void pack_kv_u64(struct packer *p, const char *key, uint64_t v);
void pack_kv_f64(struct packer *p, const char *key, double v);
void pack_kv_bool(struct packer *p, const char *key, bool v);

/* ---- reading ---- */
struct pack_doc;
struct pack_val; /* opaque; points into a document */
enum pack_kind {
    PACK_NIL,
    PACK_BOOL,
    PACK_U64,
    PACK_I64,
    PACK_F64,
    PACK_STR,
    PACK_BIN,
    PACK_ARRAY,
    PACK_MAP
};

int pack_parse(struct pack_doc **out, struct bytes document, char *err, size_t err_bytes);
void pack_free(struct pack_doc *d); /* NULL is fine */
const struct pack_val *pack_root(const struct pack_doc *d);

/* NULL reads as PACK_NIL; I64 only when negative */
enum pack_kind pack_kind(const struct pack_val *v);
const struct pack_val *pack_get(const struct pack_val *map, const char *key); /* NULL: absent */
const struct pack_val *pack_at(const struct pack_val *array, uint32_t i);
uint32_t pack_len(const struct pack_val *v); /* items or pairs, else 0 */
/* The i-th pair of a map, in the document's order. */
struct bytes pack_key_at(const struct pack_val *map, uint32_t i, const struct pack_val **value);
uint64_t pack_as_u64(const struct pack_val *v, uint64_t otherwise);
int64_t pack_as_i64(const struct pack_val *v, int64_t otherwise);
double pack_as_f64(const struct pack_val *v, double otherwise); /* integers too */
bool pack_as_bool(const struct pack_val *v, bool otherwise);
struct bytes pack_as_bytes(const struct pack_val *v); /* STR or BIN, else {NULL, 0} */

#endif
