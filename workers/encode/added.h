/* added.h - the added tokens of tokenizer.json: found in a text before anything else looks at it.
 *
 * At each place the longest token wins. Tokens marked "normalized" are looked for in the normalized
 * text, all others in the text as it came, as two sets.
 *
 * Units: bytes of valid UTF-8.  Owner: embedded in the tokenizer; added_fini at the end.  Memory:
 * the tokens.  Errors: -ENOMEM, ERR_LIMIT.  Threads: immutable once sorted. */
#ifndef PENSTOCK_WORKERS_ENCODE_ADDED_H
#define PENSTOCK_WORKERS_ENCODE_ADDED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct added_token {
    uint32_t id, begin, bytes; /* content in text */
    bool single_word, lstrip, rstrip;
};
struct added {
    struct buf text;
    struct added_token *at; /* [n], sorted by content */
    uint32_t n, cap;
    bool first[256]; /* bytes that a token begins with */
};
struct added_hit {
    size_t begin, end; /* with the white space that lstrip and rstrip take */
    uint32_t id;
};

int added_add(struct added *a, struct bytes content, struct added_token flags);
void added_sort(struct added *a);
void added_fini(struct added *a); /* accepts zeroed memory */
/* The first token at or behind `from`; white space before `from` is taken already. */
bool added_find(const struct added *a, struct bytes text, size_t from, struct added_hit *out);

#endif
