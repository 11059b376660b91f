/* normalize.h - the normalizer of tokenizer.json: what happens to a text before it is split.
 *
 * A Sequence is laid flat. Supported: BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase,
 * StripAccents, Prepend, Replace (String or Regex), Strip, Precompiled. Anything else is refused by
 * name.
 *
 * Units: bytes of valid UTF-8.  Owner: the tokenizer embeds it; normalizer_fini at the end.
 * Memory: a copy of the text for each step, one after the other.  Errors: ERR_FIELD, ERR_LIMIT,
 * -ENOMEM with the place in err.  Threads: immutable once read. */
#ifndef PENSTOCK_WORKERS_ENCODE_NORMALIZE_H
#define PENSTOCK_WORKERS_ENCODE_NORMALIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "workers/encode/charsmap.h"
#include "workers/encode/unicode.h"

struct json;
struct regex;

#define NORMALIZER_STEPS_MAX 16u

enum normalize_kind {
    NORMALIZE_FORM,    /* form */
    NORMALIZE_CLEAN,   /* control characters out, every white space a blank */
    NORMALIZE_HAN,     /* blanks around each Han character */
    NORMALIZE_ACCENTS, /* Mn out, as BertNormalizer does */
    NORMALIZE_MARKS,   /* M* out, as StripAccents does */
    NORMALIZE_LOWER,
    NORMALIZE_PREPEND, /* to: in front of a text that is not empty */
    NORMALIZE_REPLACE, /* from or regex, by to */
    NORMALIZE_STRIP,   /* white space at left, right */
    NORMALIZE_CHARSMAP /* charsmap */
};
struct normalize_step {
    enum normalize_kind kind;
    enum unicode_form form;
    bool left, right;
    struct buf from, to;
    struct regex *regex;
    struct charsmap charsmap;
};
struct normalizer {
    struct normalize_step steps[NORMALIZER_STEPS_MAX];
    uint32_t n;
};

/* j may be NULL or null: no steps. */
int normalizer_read(struct normalizer *n, const struct json *j, const char *where, char *err,
                    size_t err_bytes);
void normalizer_fini(struct normalizer *n); /* accepts zeroed memory */
/* Appends the normalized text to an empty out. */
int normalizer_run(const struct normalizer *n, struct bytes text, struct buf *out);

#endif
