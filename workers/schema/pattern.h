/* pattern.h - strings that regular expressions allow, as states over their JSON bytes.
 *
 * A subset of ECMA-262 with the u flag: alternation, groups, classes, quantifiers, ^ and $, \d \w
 * \s and escapes of single characters; a pattern without anchors is searched for. Back references,
 * look-around, \b and \p are refused by name. Classes that say what is not a digit, word character
 * or space keep to ASCII, where all dialects agree. Control characters that have no escape letter
 * in JSON are never written.
 *
 * Units: characters.  Owner, memory: the grammar's; scratch while it runs.  Errors: ERR_FIELD,
 * ERR_LIMIT, -ENOMEM with err.  Threads: as the grammar. */
#ifndef PENSTOCK_WORKERS_SCHEMA_PATTERN_H
#define PENSTOCK_WORKERS_SCHEMA_PATTERN_H

#include "workers/schema/grammar.h"

#define PATTERN_TEXTS_MAX 4u

/* The state before the opening quote of a string that all n patterns match. */
int pattern_states(struct grammar *g, const char *const *patterns, uint32_t n, uint32_t chars_min,
                   uint32_t chars_max, uint32_t *out, char *err, size_t err_bytes);

#endif
