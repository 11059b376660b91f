/* tokenizer.h - text to token ids and back, as tokenizer.json says.
 *
 * Runs the file's own pipeline: normalizer, pre-tokenizer, model (WordPiece; Unigram; BPE
 * byte-level or with byte fallback), post-processor, decoder, added tokens. A component that is not
 * supported is refused by name at open.
 *
 * Units: bytes of UTF-8, tokens.  Owner: tokenizer_open gives a tokenizer to tokenizer_close.
 * Memory: a few times the file.  Errors: ERR_FIELD, ERR_LIMIT, ERR_CORRUPT with file and path in
 * err.
 * Threads: immutable after open: any number of encodes at once. */
#ifndef PENSTOCK_WORKERS_ENCODE_TOKENIZER_H
#define PENSTOCK_WORKERS_ENCODE_TOKENIZER_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/bytes.h"

struct tokenizer;
/* dir/tokenizer.json */
int tokenizer_open(struct tokenizer **out, const char *dir, char *err, size_t err_bytes);
void tokenizer_close(struct tokenizer *t);
uint32_t tokenizer_vocab(const struct tokenizer *t);                /* highest id + 1 */
int64_t tokenizer_id(const struct tokenizer *t, const char *token); /* -1: none */

struct tokens {
    uint32_t *ids; /* [n], in the arena */
    uint32_t n;
    bool truncated;
};
/* special adds what the post-processor adds; max 0: no limit, else cut to max with the specials
 * kept. */
int tokenizer_encode(const struct tokenizer *t, struct bytes text, bool special, uint32_t max,
                     struct arena *a, struct tokens *out, char *err, size_t err_bytes);
/* The text of ids, appended to out; skip leaves special tokens out. */
int tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, uint32_t n, bool skip,
                     struct buf *out);

/* The bytes that an id adds to a text, alone and behind its first token: 1 with them appended to
 * out, 0 when it has none (special, not in the vocabulary); ERR_FIELD when the decoder's text
 * depends on a token's neighbours. *differs: as the first token it gives other bytes. */
int tokenizer_piece(const struct tokenizer *t, uint32_t id, struct buf *out, bool *differs);

/* Streaming: each id gives the bytes that became certain (whole UTF-8 characters). The
 * concatenation of all pieces and the flush is exactly tokenizer_decode of all ids. */
struct token_stream;
struct token_stream *token_stream_new(const struct tokenizer *t, bool skip);
void token_stream_free(struct token_stream *s);
int token_stream_next(struct token_stream *s, uint32_t id, struct buf *out);
int token_stream_flush(struct token_stream *s, struct buf *out);

#endif
