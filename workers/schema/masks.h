/* masks.h - for each state of a grammar the tokens that may be written there, made beforehand.
 *
 * Most tokens stay within the rule that a state belongs to, or end with it: whether they are legal
 * does not depend on the stack, but for what is left to write behind them. They are kept in groups
 * of the same need. The others end the rule and go on; of them a state keeps where in the trie they
 * leave the rule, by the byte that comes next, and these few are followed for each mask.
 *
 * Units: tokens; need: tokens to the end of the rule; characters of a string.  Owner: masks_fini;
 * borrows grammar and lexicon.  Memory: at most MASKS_BYTES_MAX.  Errors: ERR_LIMIT for a grammar
 * that needs more memory or MASKS_WORK_MAX nodes of the trie; ERR_FIELD when the tokens cannot
 * write any text of it; -ENOMEM.  Threads: immutable once made. */
#ifndef PENSTOCK_WORKERS_SCHEMA_MASKS_H
#define PENSTOCK_WORKERS_SCHEMA_MASKS_H

#include "workers/schema/lexicon.h"
#include "workers/schema/walk.h"

#define MASKS_BYTES_MAX (64u * 1024u * 1024u)
#define MASKS_WORK_MAX 100000000u /* about two seconds */

struct mask_state {
    uint32_t group, groups; /* first and count */
    uint32_t run, runs;
    uint32_t all; /* the groups that are not closed together, in words; GRAMMAR_NONE: too few */
    uint32_t need_max, chars_max; /* of these */
};
struct mask_group { /* tokens that leave the same to do */
    uint32_t need, chars;
    bool closed; /* they end the string */
    uint32_t first, n;
    bool dense; /* first: of words, else of ids */
};
struct mask_run { /* where a rule is over before this byte */
    uint32_t first, n;
    uint8_t byte;
};
struct mask_exit {
    uint32_t node, chars;
};
struct masks {
    const struct grammar *g;
    const struct lexicon *l;
    struct mask_state *state; /* [n_states] */
    struct buf groups, ids, words, runs, exits;
    uint32_t work; /* nodes visited */
};

/* Measures the grammar for the lexicon, once. */
int masks_init(struct masks *m, struct grammar *g, const struct lexicon *l, char *err,
               size_t err_bytes);
void masks_fini(struct masks *m); /* accepts zeroed memory */
size_t masks_bytes(const struct masks *m);
/* Sets the bits of the tokens that are legal at a place of the walk and leave less than `budget` to
 * write. level: [longest + 1], scratch. */
int masks_add(const struct masks *m, struct walk *w, struct walk_place p, uint32_t budget,
              struct walk_places *level, uint32_t *bits);

#endif
