/* help.h - what the extraction tests share: runs that must succeed or fail, and what they leave.
 *
 * Units: bytes.  Owner: results lie in the arena.  Memory: the arena.  Errors: a failed helper
 * fails the test.  Threads: one. */
#ifndef PENSTOCK_TESTS_EXTRACT_HELP_H
#define PENSTOCK_TESTS_EXTRACT_HELP_H

#include "base/arena.h"
#include "base/bytes.h"
#include "base/err.h"
#include "tests/extract/pdf.h"
#include "workers/encode/extract.h"

/* Under the address sanitizer a helper has no limit of memory (sandbox.h). */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Runs that give a text. Every one checks what holds of all: pages add up and are in order, their
 * texts follow one another, every character has a box on its page. */
struct extracted must_extract(struct arena *a, struct bytes document);
struct extracted must_extract_within(struct arena *a, struct bytes document,
                                     const struct extract_limits *l);
void check_extracted(const struct extracted *x);

/* Runs that end with this code and words in err; then checks that the next good document is read
 * and that no process and no file is left. */
void must_refuse(struct arena *a, struct bytes document, const struct extract_limits *l, int code,
                 const char *says);
void must_be_unharmed(struct arena *a);

struct bytes page_text(const struct extracted *x, uint32_t page); /* page from 0 */
/* Fails unless the page has this outcome and these words in its reason; NULL: no reason. */
void page_is(const struct extracted *x, uint32_t page, enum extract_outcome outcome,
             const char *says);
/* Code points of text [begin, end) as bytes. */
struct bytes text_span(const struct extracted *x, uint32_t begin, uint32_t end);

/* A helper of its own making: a shell script that PENSTOCK_EXTRACT names from now on. */
void use_script(struct arena *a, const char *script);
/* This program as a helper that misbehaves inside the sandbox; see misbehave.c. */
void use_misbehaving(struct arena *a, const char *how);
void use_real_helper(void);

const char *data_dir(const char *below);
uint64_t test_seed(void); /* printed, so that a failure can be run again: SEED=N */

#endif
