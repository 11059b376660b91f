/* split.h - where a text is cut: known patterns as scanners, all others as regular expressions.
 *
 * A scanner reads the text once, without recursion or backtracking, and gives the same matches as
 * its pattern: that of GPT-2, of Qwen2 (digits one by one), of Llama-3 (digits in threes) and o200k
 * (words cut where a capital follows a small letter).
 *
 * Units: bytes of valid UTF-8.  Owner: splitter_open makes what splitter_fini frees.  Memory: none,
 * or the compiled pattern.  Errors: ERR_FIELD for a bad pattern, ERR_LIMIT when a text exceeds the
 * limits of base/regex.h.  Threads: immutable once open. */
#ifndef PENSTOCK_WORKERS_ENCODE_SPLIT_H
#define PENSTOCK_WORKERS_ENCODE_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct regex;

#define SPLIT_GPT2                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

#define SPLIT_O200K                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*"                                  \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"                                  \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"                                 \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"                                  \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT };
enum splitter_kind {
    SPLITTER_GPT2,
    SPLITTER_DIGITS_1, /* Qwen2 */
    SPLITTER_DIGITS_3, /* Llama-3 */
    SPLITTER_O200K,
    SPLITTER_SIGN, /* one unicode_is_punct */
    SPLITTER_STRING,
    SPLITTER_REGEX
};
struct splitter {
    enum splitter_kind kind;
    struct buf string;
    struct regex *regex;
};

int splitter_open_regex(struct splitter *s, const char *pattern, char *err, size_t err_bytes);
void splitter_open_sign(struct splitter *s);
int splitter_open_string(struct splitter *s, struct bytes string);
void splitter_fini(struct splitter *s); /* accepts zeroed memory */
/* The first match in text from `from` on: 1 with [*begin, *end), not empty; 0: none;
 * or an error. */
int splitter_find(const struct splitter *s, struct bytes text, size_t from, size_t *begin,
                  size_t *end);

#endif
