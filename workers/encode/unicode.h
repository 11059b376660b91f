/* unicode.h - what the tokenizers and the clause splitter ask about characters: the door to
 * utf8proc.
 *
 * The classes are those of utf8proc's Unicode version. Punctuation, accents and format characters
 * are BertNormalizer's, which stopped at Unicode 8.0 (unicode_late.def).
 *
 * Units: code points, bytes of UTF-8.  Owner, memory: unicode_normalize appends to the caller's buf
 * and needs eight times the text for a moment.  Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_UNICODE_H
#define PENSTOCK_WORKERS_ENCODE_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

/* The code point at `*at`, which moves behind it. The text must be valid UTF-8 and not
 * at its end. */
uint32_t unicode_next(const char **at);
/* The code point that ends at `at`; `*start` is where it begins. Valid UTF-8, not
 * at its beginning. */
uint32_t unicode_before(const char *at, const char **start);
uint32_t unicode_put(char out[4], uint32_t c); /* bytes written, 1 to 4 */
size_t unicode_count(struct bytes text);       /* code points of valid UTF-8 */

bool unicode_is_letter(uint32_t c); /* L* */
bool unicode_is_number(uint32_t c); /* N* */
bool unicode_is_space(uint32_t c);  /* White_Space */
bool unicode_is_punct(uint32_t c);  /* P*, and every ASCII sign that is no letter, digit or space */
bool unicode_is_upper(uint32_t c);  /* Lu, Lt */
bool unicode_is_lower(uint32_t c);  /* Ll */
bool unicode_is_mark(uint32_t c);   /* M* */
bool unicode_is_accent(uint32_t c); /* Mn */
bool unicode_is_format(uint32_t c); /* Cc, Cf, Co: what BertNormalizer cleans away */
bool unicode_is_word(uint32_t c);   /* \w: alphabetic, marks, decimal digits, connectors, joiners */
bool unicode_is_han(uint32_t c);    /* the ranges that BertNormalizer sets apart with spaces */

/* Where the extended grapheme cluster that begins at `at` ends. Valid UTF-8, at < end. */
const char *unicode_grapheme(const char *at, const char *end);

/* Lower case as Rust's char::to_lowercase: one code point, two for U+0130. Returns how many. */
uint32_t unicode_lower(uint32_t c, uint32_t out[2]);
/* The simple mappings: letters that become several stay as they are. */
uint32_t unicode_upper(uint32_t c);
uint32_t unicode_title(uint32_t c);
bool unicode_is_printable(uint32_t c); /* Python's isprintable: no C*, no Z* but the space */

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
/* Appends the normal form of valid UTF-8. Runs of any length of combining marks take O(n log n). */
int unicode_normalize(enum unicode_form form, struct bytes text, struct buf *out);

#endif
