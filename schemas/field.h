/* field.h - tables of fields that turn a msgpack map into a C struct and back.
 *
 * Messages (msg.def) and job kinds (kinds.def) are rows of one kind: name, type, required or
 * default, bounds, doc. Validation, defaults, encoding, JSON Schema and the documents all come from
 * the row. Unknown keys are ignored; a key that is given twice is refused.
 *
 * A struct is filled by borrowing: str, bin, pack and strs members point into the input bytes.
 *
 * Units: lengths in bytes, numbers as the row says.  Owner: members borrow from the input.
 * Memory: none.  Errors: ERR_FIELD, ERR_LIMIT, ERR_CORRUPT with a struct refusal that names the
 * field, the limit and the fix.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_FIELD_H
#define PENSTOCK_SCHEMAS_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"

enum field_type {
    FIELD_U64,  /* uint64_t; bounds are values */
    FIELD_F64,  /* double; bounds are values */
    FIELD_BOOL, /* bool */
    FIELD_STR,  /* struct bytes, UTF-8; bounds are bytes; choices narrows it */
    FIELD_BIN,  /* struct bytes, from bin or from str; bounds are bytes */
    FIELD_ID,   /* uint64_t job id, 13 characters on the wire (job.h) */
    FIELD_STRS, /* struct field_strs: a list of str; bounds are the count, item_max bytes each */
    FIELD_PACK  /* struct bytes: any msgpack value, encoded; max is bytes */
};

struct field_strs {
    struct bytes raw; /* the encoded list */
    uint32_t count;
};
/* Walks a list: `struct reader it = reader_of(list.raw)` is hidden behind field_strs_next. */
struct field_strs_it {
    struct bytes rest;
    uint32_t left;
};
struct field_strs_it field_strs_begin(struct field_strs list);
bool field_strs_next(struct field_strs_it *it, struct bytes *out);

struct field {
    const char *name;
    enum field_type type;
    bool required;
    bool one_of;       /* of all fields that say so exactly one is given */
    uint64_t min, max; /* U64 values, STR/BIN/PACK bytes, STRS count */
    double fmin, fmax; /* F64 */
    uint64_t item_max; /* STRS: bytes an item */
    uint64_t def_u64;  /* default of U64, BOOL */
    double def_f64;
    const char *choices; /* STR: "auto|en|zh", the first is the default; NULL: any */
    size_t offset;       /* in the struct */
    const char *doc;
};

/* Why something was refused; what the REFUSED message carries. Empty strings: not applicable. */
struct refusal {
    /* malformed, version, unknown_kind, missing, type, limit, full, ... (README) */
    char code[32];
    char field[LIMIT_NAME_BYTES];
    char limit[64];    /* "at most 786432 bytes" */
    char message[256]; /* what was wrong */
    char fix[192];     /* what to do about it */
    uint64_t retry_after_ms;
};
void refusal_set(struct refusal *r, const char *code, const char *field, const char *limit,
                 const char *fix, const char *message_format, ...)
    __attribute__((format(printf, 6, 7)));

/* Fills the struct at out (zeroed first, then defaults, then the document's values). */
int field_decode(const struct field *fields, uint32_t n, struct bytes document, void *out,
                 struct refusal *why);
/* Appends a map with every required field and every other that differs from its default. */
int field_encode(const struct field *fields, uint32_t n, const void *in, struct buf *out);
const struct field *field_find(const struct field *fields, uint32_t n, const char *name);

#endif
