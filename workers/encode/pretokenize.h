/* pretokenize.h - the pre-tokenizer of tokenizer.json: text to the pieces that the model sees.
 *
 * Steps run over the pieces of the step before; a Sequence is laid flat. Supported:
 * BertPreTokenizer, ByteLevel, Split (String or Regex; Removed, Isolated, MergedWithPrevious,
 * MergedWithNext; inverted or not), Digits, Whitespace, WhitespaceSplit, Punctuation and Metaspace.
 *
 * Units: bytes of valid UTF-8.  Owner: the tokenizer embeds it; pretokenizer_fini at the end.
 * Memory: pieces and changed text in the scratch arena: 8 bytes a piece and step.  Errors:
 * ERR_FIELD with the name of what is not supported, ERR_LIMIT, -ENOMEM.  Threads: immutable once
 * read. */
#ifndef PENSTOCK_WORKERS_ENCODE_PRETOKENIZE_H
#define PENSTOCK_WORKERS_ENCODE_PRETOKENIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "workers/encode/split.h"

struct json;

#define PRETOKENIZER_STEPS_MAX 16u

enum pretokenize_kind {
    PRETOKENIZE_BERT,  /* at white space, which goes, and around punctuation */
    PRETOKENIZE_SPLIT, /* by splitter, behavior and inverted */
    PRETOKENIZE_BLANK, /* a blank in front of each piece that does not begin with one */
    PRETOKENIZE_META,  /* blanks become metaspace.character, which is also put in front */
    PRETOKENIZE_BYTES  /* each byte becomes its printable character */
};
enum metaspace_prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };
struct metaspace {
    char character[4]; /* that stands for a blank */
    uint32_t bytes;
    enum metaspace_prepend prepend; /* one in front of what does not begin with one */
};
struct pretokenize_step {
    enum pretokenize_kind kind;
    struct splitter splitter;
    enum split_behavior behavior;
    bool inverted;
    struct metaspace metaspace;
};
struct pretokenizer {
    struct pretokenize_step steps[PRETOKENIZER_STEPS_MAX];
    uint32_t n;
};
struct span {
    uint32_t begin, end;
};
struct pieces { /* piece i is text[at[i].begin .. at[i].end) */
    const char *text;
    struct span *at;
    uint32_t n;
};

/* j may be NULL or null: the whole text is one piece. */
int pretokenizer_read(struct pretokenizer *p, const struct json *j, const char *where, char *err,
                      size_t err_bytes);
void pretokenizer_fini(struct pretokenizer *p); /* accepts zeroed memory */
/* text borrows until the scratch arena is reset; at most UINT32_MAX / 4 bytes. first: it is what
 * the document begins with. */
int pretokenizer_run(const struct pretokenizer *p, struct bytes text, bool first,
                     struct arena *scratch, struct pieces *out);

/* What a Metaspace says, as pre-tokenizer or decoder. */
int metaspace_read(struct metaspace *m, const struct json *j, const char *where, char *err,
                   size_t err_bytes);

/* The printable character that stands for a byte in byte-level vocabularies, and
 * back (-1: none). */
uint32_t bytelevel_char(uint8_t byte);
int bytelevel_byte(uint32_t c);

#endif
