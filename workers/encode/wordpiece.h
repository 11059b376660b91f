/* wordpiece.h - WordPiece: the longest token first, from left to right; a word that cannot be
 * covered is one unknown token.
 *
 * Units: bytes of valid UTF-8.  Owner: embedded in the tokenizer; borrows its vocabulary.
 * Memory: a stack buffer.  Errors: ERR_FIELD with the place in err.  Threads:
 * immutable once read. */
#ifndef PENSTOCK_WORKERS_ENCODE_WORDPIECE_H
#define PENSTOCK_WORKERS_ENCODE_WORDPIECE_H

#include "workers/encode/vocab.h"

struct json;

#define WORDPIECE_PREFIX_BYTES_MAX 16u
#define WORDPIECE_CHARS_MAX 1024u

struct wordpiece {
    const struct vocab *vocab;
    char prefix[WORDPIECE_PREFIX_BYTES_MAX]; /* of a piece that continues a word: "##" */
    uint32_t prefix_bytes, chars_max, unknown;
};

int wordpiece_read(struct wordpiece *w, const struct vocab *v, const struct json *model,
                   const char *where, char *err, size_t err_bytes);
/* Appends the ids of one word, as u32 in memory order. */
int wordpiece_word(const struct wordpiece *w, struct bytes word, struct buf *ids);

#endif
