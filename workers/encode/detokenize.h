/* detokenize.h - the decoder of tokenizer.json: tokens to text, one by one.
 *
 * A token gives the text that became certain with it: bytes of an unfinished character wait, and so
 * do byte tokens (<0xE4>) until the run ends, because one wrong byte turns the whole run into
 * U+FFFD. Supported: none (tokens joined with blanks), WordPiece, ByteLevel, Metaspace, and a
 * Sequence of Replace (String), ByteFallback, Fuse, Strip (start) in that order.
 *
 * Units: bytes of UTF-8.  Owner: the tokenizer embeds the detokenizer, each reader of tokens a
 * state; zero-fill a state before first use.  Memory: the bytes that wait.  Errors: ERR_FIELD with
 * the name of what is not supported, -ENOMEM.  Threads: the detokenizer is immutable once read. */
#ifndef PENSTOCK_WORKERS_ENCODE_DETOKENIZE_H
#define PENSTOCK_WORKERS_ENCODE_DETOKENIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "workers/encode/pretokenize.h"

struct json;

#define DETOKENIZER_REPLACES_MAX 4u

struct detokenizer {
    enum {
        DETOKENIZE_JOIN,
        DETOKENIZE_WORDPIECE,
        DETOKENIZE_BYTELEVEL,
        DETOKENIZE_META,
        DETOKENIZE_PIECES
    } kind;
    struct buf prefix; /* WordPiece */
    struct metaspace metaspace;
    bool cleanup;
    struct {
        struct buf from, to;
    } replace[DETOKENIZER_REPLACES_MAX];
    uint32_t n_replace;
    bool byte_fallback, fuse;
    struct buf strip; /* the character that goes, at most strip_start times */
    uint32_t strip_start;
};
struct detokenize_state {
    bool begun;
    uint32_t stripped; /* UINT32_MAX: stripping is over */
    struct buf held;
};

/* j may be NULL or null. */
int detokenizer_read(struct detokenizer *d, const struct json *j, const char *where, char *err,
                     size_t err_bytes);
void detokenizer_fini(struct detokenizer *d); /* accepts zeroed memory */
int detokenizer_next(const struct detokenizer *d, struct detokenize_state *s, struct bytes token,
                     struct buf *out);
int detokenizer_flush(const struct detokenizer *d, struct detokenize_state *s, struct buf *out);
/* As tokenizer_piece: the bytes of one token, those of an unfinished character too. */
int detokenizer_piece(const struct detokenizer *d, struct bytes token, struct buf *out,
                      bool *differs);
void detokenize_state_fini(struct detokenize_state *s); /* ready for another text */

#endif
