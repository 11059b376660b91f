/* writer.h - a text on its way through a grammar: which tokens may come next.
 *
 * The grammar may be in several places at once, each with a stack of the rules it is in. A token
 * is legal when its bytes lead somewhere from which the text can be ended with the tokens that are
 * left, one a byte; so there is always a legal token until the text may end. Beyond
 * WRITER_DEPTH_MAX rules only what comes nearer to the end is legal.
 *
 * Units: tokens.  Owner: writer_fini; borrows grammar and lexicon.  Memory: 20 bytes a rule
 * entered.  Errors: -ENOMEM; ERR_LIMIT when tokens_max is below writer_shortest; ERR_FIELD for
 * a token that is not legal.  Threads: a writer at a time; grammar and lexicon are shared. */
#ifndef PENSTOCK_WORKERS_SCHEMA_WRITER_H
#define PENSTOCK_WORKERS_SCHEMA_WRITER_H

#include "workers/schema/grammar.h"
#include "workers/schema/lexicon.h"

#define WRITER_PLACES_MAX 16u
#define WRITER_DEPTH_MAX 64u

struct writer_frame { /* where a rule goes on when it is over */
    uint32_t then, rule, parent, dist, depth;
};
struct writer_place {
    uint32_t state, frame, chars;
};
struct writer_places {
    struct writer_place at[WRITER_PLACES_MAX];
    uint32_t n;
};
struct writer {
    const struct grammar *g;
    const struct lexicon *l;
    struct buf frames;
    struct writer_places now, *walk; /* walk: [longest + 1] */
    uint32_t *mark;                  /* frames in use at each depth of the walk */
    uint32_t left, taken;            /* tokens */
};

/* Measures the grammar for the lexicon: before any writer, once. ERR_FIELD when the tokens cannot
 * write any text of it. */
int writer_prepare(struct grammar *g, const struct lexicon *l, char *err, size_t err_bytes);
/* Tokens that suffice for the shortest text. */
uint32_t writer_shortest(const struct grammar *g);
int writer_init(struct writer *w, const struct grammar *g, const struct lexicon *l,
                uint32_t tokens_max, char *err, size_t err_bytes);
void writer_fini(struct writer *w); /* accepts zeroed memory */
/* Legal tokens, one bit each, (vocab + 31) / 32 words. */
int writer_mask(struct writer *w, uint32_t *bits);
int writer_take(struct writer *w, uint32_t token);
bool writer_may_end(const struct writer *w);  /* the text is an instance */
bool writer_must_end(const struct writer *w); /* and nothing may follow */

#endif
