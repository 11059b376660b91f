/* regex.h - Unicode regular expressions under match and depth limits: the only door to PCRE2.
 *
 * Units: byte offsets into the subject.  Owner: the caller frees.  Memory: PCRE2's, with match,
 * depth and heap limits set.  Errors: ERR_FIELD with the pattern's offset in err; ERR_LIMIT when a
 * subject exceeds the limits.  Threads: a compiled regex may be shared; each call makes its own
 * match data. */
#ifndef PENSTOCK_BASE_REGEX_H
#define PENSTOCK_BASE_REGEX_H

#include <stddef.h>

struct regex;
#define REGEX_GROUPS 16
struct regex_span {
    size_t begin, end; /* both (size_t)-1: the group took no part */
};

/* flags: "i" ignore case, "x" extended, "m" multiline; UTF and UCP are always on. */
int regex_open(struct regex **out, const char *pattern, const char *flags, char *err,
               size_t err_bytes);
void regex_close(struct regex *r);
/* 1: found from `from` on, spans[0] the whole match, named groups by regex_group; 0: none;
 * ERR_LIMIT. The subject must be valid UTF-8. */
int regex_find(const struct regex *r, const char *subject, size_t bytes, size_t from,
               struct regex_span spans[REGEX_GROUPS]);
int regex_group(const struct regex *r, const char *name); /* group number, -1 when there is none */

#endif
