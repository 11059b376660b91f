/* walk.h - the places that a text may have reached in a grammar, byte by byte.
 *
 * A place is a state, the stack of rules that it is in, and the characters of the string that it is
 * in. Stacks share their frames, which are appended and never changed; who cuts `frames` back to an
 * earlier length drops what was entered since.
 *
 * Units: bytes; distances in tokens, each of one byte.  Owner: the caller; frames by buf_fini.
 * Memory: 20 bytes a rule entered.  Errors: -ENOMEM.  Threads: a walk at a time; the grammar is
 * shared. */
#ifndef PENSTOCK_WORKERS_SCHEMA_WALK_H
#define PENSTOCK_WORKERS_SCHEMA_WALK_H

#include "workers/schema/grammar.h"

#define WALK_PLACES_MAX 32u

struct walk_frame { /* where a rule goes on when it is over */
    uint32_t then, rule, parent, dist, depth;
};
struct walk_place {
    uint32_t state, frame, chars; /* frame GRAMMAR_NONE: the text is over */
};
/* Beyond the maximum those farthest from the end are left out: fewer texts, never wrong ones. */
struct walk_places {
    struct walk_place at[WALK_PLACES_MAX];
    uint32_t n;
};
struct walk {
    const struct grammar *g;
    struct buf frames;
};

static inline struct walk_frame *walk_frame_at(const struct walk *w, uint32_t frame) {
    return (struct walk_frame *)(void *)w->frames.data + frame;
}
/* Tokens that end the whole text from here; GRAMMAR_FAR of no place. */
uint32_t walk_dist(const struct walk *w, const struct walk_place *p);
uint32_t walk_nearest(const struct walk *w, const struct walk_places *places);

/* Every place before the first byte of a rule called at p. */
int walk_enter(struct walk *w, struct walk_place p, uint32_t rule, uint32_t then,
               struct walk_places *out);
/* Every place behind the rule of a frame, before another byte. */
int walk_leave(struct walk *w, uint32_t frame, struct walk_places *out);
/* Adds the places behind a byte. */
int walk_step(struct walk *w, struct walk_place p, uint8_t byte, struct walk_places *out);
void walk_keep(const struct walk *w, struct walk_place p, struct walk_places *out);

#endif
