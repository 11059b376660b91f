/* writer.h - a text on its way through a grammar: which tokens may come next.
 *
 * The grammar may be in several places at once, each with a stack of the rules it is in. A token
 * is legal when its bytes lead somewhere from which the text can be ended with the tokens that are
 * left, one a byte; so there is always a legal token until the text may end. Beyond
 * WRITER_DEPTH_MAX rules only what comes nearer to the end is legal.
 *
 * Units: tokens.  Owner: writer_fini; borrows the masks and what they are of.  Memory: 20 bytes a
 * rule entered.  Errors: -ENOMEM; ERR_LIMIT when tokens_max is below writer_shortest; ERR_FIELD for
 * a token that is not legal.  Threads: a writer at a time; the masks are shared. */
#ifndef PENSTOCK_WORKERS_SCHEMA_WRITER_H
#define PENSTOCK_WORKERS_SCHEMA_WRITER_H

#include "workers/schema/masks.h"

#define WRITER_DEPTH_MAX 64u

struct writer {
    const struct masks *m;
    struct walk walk;
    struct walk_places now, *level; /* level: [longest + 1] */
    uint32_t left, taken;           /* tokens */
};

/* Tokens that suffice for the shortest text. */
uint32_t writer_shortest(const struct masks *m);
int writer_init(struct writer *w, const struct masks *m, uint32_t tokens_max, char *err,
                size_t err_bytes);
void writer_fini(struct writer *w); /* accepts zeroed memory */
/* Legal tokens, one bit each, (vocab + 31) / 32 words. */
int writer_mask(struct writer *w, uint32_t *bits);
/* 1 when one token is legal, 0 when not: the mask's bit, found without masks. */
int writer_allows(struct writer *w, uint32_t token);
int writer_take(struct writer *w, uint32_t token);
bool writer_may_end(const struct writer *w);  /* the text is an instance */
bool writer_must_end(const struct writer *w); /* and nothing may follow */

#endif
