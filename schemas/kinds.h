/* kinds.h - job kinds: one struct and one field table each, from kinds.def.
 *
 * Units: as kinds.def says.  Owner: decoded structs borrow from the body.  Memory: none.
 * Errors: as field.h.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_KINDS_H
#define PENSTOCK_SCHEMAS_KINDS_H

#include "schemas/field.h"

#define KIND(name, wire, doc) struct kind_##name {
#define U64(field, ...) uint64_t field;
#define F64(field, ...) double field;
#define BOOL(field, ...) bool field;
#define STR(field, ...) struct bytes field;
#define BIN(field, ...) struct bytes field;
#define STRS(field, ...) struct field_strs field;
#define PACK(field, ...) struct bytes field;
/* clang-format off */
#define END(name) };
/* clang-format on */
#include "schemas/kinds.def"
#undef KIND
#undef U64
#undef F64
#undef BOOL
#undef STR
#undef BIN
#undef STRS
#undef PACK
#undef END

struct kind_desc {
    const char *name; /* "text.embed" */
    const struct field *fields;
    uint32_t n;
    size_t struct_bytes;
    const char *doc;
};
const struct kind_desc *kind_find(struct bytes name); /* NULL: unknown */
const struct kind_desc *kind_at(uint32_t i);          /* NULL past the end */

/* Checks a body against its kind; out (may be NULL) is the kind's struct, borrowing from body. */
int kind_decode(const struct kind_desc *k, struct bytes body, void *out, struct refusal *why);

#endif
