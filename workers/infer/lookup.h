/* lookup.h - guesses at how a text goes on, from what followed its last tokens before.
 *
 * Every pair of tokens that was added is found by its hash, the later places first. The text's last
 * tokens are compared with the places where the last pair stood before; where most of them are
 * alike, what followed there is the guess. A place that went on to be right is kept as it is, so
 * that a token takes constant time: at most LOOKUP_TRIES places of LOOKUP_MATCH_MAX tokens.
 *
 * Units: tokens.  Owner: lookup_open gives it to lookup_close.  Memory: 12 to 16 bytes for each of
 * tokens_max; none after open.  Errors: -ENOMEM.  Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_LOOKUP_H
#define PENSTOCK_WORKERS_INFER_LOOKUP_H

#include <stdint.h>

#define LOOKUP_TRIES 16u
#define LOOKUP_MATCH_MAX 32u

struct lookup;
int lookup_open(struct lookup **out, uint32_t tokens_max);
void lookup_close(struct lookup *l);            /* NULL is fine */
void lookup_add(struct lookup *l, uint32_t id); /* at most tokens_max of them */
uint32_t lookup_len(const struct lookup *l);
/* How many of the last tokens stood at the place that is guessed from, 2 to LOOKUP_MATCH_MAX; 0:
 * there is none. */
uint32_t lookup_match(struct lookup *l);
/* The n tokens that come next if they do as they did there; 0 of them without a match, else n: a
 * guess that reaches the end of the text goes on with itself. */
uint32_t lookup_guess(struct lookup *l, uint32_t n, uint32_t *ids);

#endif
