/* pretokenize.h - the pre-tokenizer of tokenizer.json: text to the pieces that the model sees.
 *
 * Steps run over the pieces of the step before; a Sequence is laid flat. Supported:
 * BertPreTokenizer, ByteLevel, Split (String or Regex; Removed, Isolated, MergedWithPrevious,
 * MergedWithNext; inverted or not) and Digits.
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
    PRETOKENIZE_BYTES  /* each byte becomes its printable character */
};
struct pretokenize_step {
    enum pretokenize_kind kind;
    struct splitter splitter;
    enum split_behavior behavior;
    bool inverted;
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
/* text borrows until the scratch arena is reset; at most UINT32_MAX / 4 bytes. */
int pretokenizer_run(const struct pretokenizer *p, struct bytes text, struct arena *scratch,
                     struct pieces *out);

/* The printable character that stands for a byte in byte-level vocabularies, and
 * back (-1: none). */
uint32_t bytelevel_char(uint8_t byte);
int bytelevel_byte(uint32_t c);

#endif
