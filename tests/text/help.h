/* help.h - what the text tests share: tokenizers made to measure, random texts, outside data.
 *
 * Units: bytes.  Owner: as said at each call.  Memory: malloc.  Errors: a failed helper fails the
 * test.  Threads: one. */
#ifndef PENSTOCK_TESTS_TEXT_HELP_H
#define PENSTOCK_TESTS_TEXT_HELP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "workers/encode/tokenizer.h"

/* A directory of this test under the temporary folder, removed by folder_end. */
struct folder {
    char dir[256];
};
void folder_begin(struct folder *f);
void folder_write(const struct folder *f, const char *name, const void *data, size_t bytes);
void folder_end(struct folder *f);

/* A tokenizer whose tokenizer.json is this text; must open, or must be refused with
 * `says` in err. */
struct tokenizer *tokenizer_must_open(const char *json);
void tokenizer_must_refuse(const char *json, const char *says);
/* A byte-level tokenizer.json: 256 bytes, some merges, `<end>` (id 400) special. Freed with free().
 * pre_tokenizer and extra model members are JSON texts; extra begins with a comma or is empty. */
char *bytelevel_json(const char *pre_tokenizer, const char *extra, bool pairs);

/* Ids as "1 2 3" in the arena. */
char *ids_text(struct arena *a, const uint32_t *ids, uint32_t n);
char *encode_text(const struct tokenizer *t, struct arena *a, const char *text, bool special,
                  uint32_t max);
void must_decode(const struct tokenizer *t, const uint32_t *ids, uint32_t n, bool skip,
                 const char *expected);

/* Valid UTF-8 of a few scripts, signs, blanks and line ends. */
void random_text(uint64_t *state, uint32_t chars_max, struct buf *out);
uint64_t test_seed(void); /* printed, so that a failure can be run again: SEED=N */

/* A folder below PENSTOCK_DATA; skips the test when it is unset or the folder is not there. */
const char *data_dir(const char *below);
const char *minilm_dir(void); /* in the user's cache; skips the test when it is not there */

#endif
