/* walk.h - a msgpack document read in place, one token at a time, trusting nothing it declares.
 *
 * A declared length or count is compared with the bytes that remain before anything else happens,
 * so a document of n bytes costs n steps and no memory, whatever it claims.
 *
 * Units: bytes.  Owner: tokens borrow from the document.  Memory: none.
 * Errors: ERR_CORRUPT, ERR_LIMIT with the place in a struct walk_fault.  Threads: any. */
#ifndef PENSTOCK_SCHEMAS_WALK_H
#define PENSTOCK_SCHEMAS_WALK_H

#include "schemas/pack.h"

struct walk_token {
    enum pack_kind kind;
    union {
        bool b;     /* BOOL */
        uint64_t u; /* U64 */
        int64_t i;  /* I64, negative */
        double f;   /* F64 */
        uint32_t n; /* ARRAY items, MAP pairs; they follow */
    };
    struct bytes data; /* STR, BIN */
};

/* Why a document was refused, where, and inside which member of the outermost map. */
struct walk_fault {
    size_t offset;
    const char *code;  /* "malformed", "utf8" or "limit": the word of a refusal */
    char what[128];    /* "declares 1073741824 bytes, 3 remain" */
    const char *limit; /* "at most 16 levels"; static */
    struct bytes key;  /* absent when the fault is not inside a member */
};

/* The next token; of an array or map only its head. ERR_CORRUPT with fault (may be NULL) filled. */
int walk_token(struct reader *r, struct walk_token *out, struct walk_fault *fault);
/* Passes over one whole value. */
int walk_skip(struct reader *r);
/* Checks a whole document as pack_check promises. */
int walk_check(struct bytes document, struct walk_fault *fault);

#endif
