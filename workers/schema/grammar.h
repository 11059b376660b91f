/* grammar.h - what a JSON Schema allows, as a pushdown automaton over bytes.
 *
 * A state has edges for bytes, or calls a rule and goes on at `then`; `also` is a second state that
 * it is at the same time. A rule begins at one of its starts and ends in an accepting state.
 * What may follow a rule never goes on with a byte that the rule's last state has an edge for.
 * All strings without a pattern share the TEXT_ states; their bounds are the rule's.
 *
 * Units: bytes; text bounds in characters; distances in tokens, each of one byte.  Owner: the
 * caller; grammar_fini.  Memory: at most GRAMMAR_STATES_MAX states, 24 bytes each.  Errors: the
 * first is kept in `error` (ERR_LIMIT, -ENOMEM); calls after it do nothing.
 * Threads: immutable once measured. */
#ifndef PENSTOCK_WORKERS_SCHEMA_GRAMMAR_H
#define PENSTOCK_WORKERS_SCHEMA_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define GRAMMAR_STATES_MAX 65536u
#define GRAMMAR_EDGES_MAX 1048576u
#define GRAMMAR_NONE UINT32_MAX
#define GRAMMAR_FAR (UINT32_MAX / 8) /* a distance: no way */
#define GRAMMAR_CHARS_MAX (1u << 20) /* of a text without maxLength */

enum {
    TEXT_QUOTE, /* before the opening quote */
    TEXT_BODY,  /* between characters */
    TEXT_ESCAPE,
    TEXT_1, /* so many continuation bytes are due */
    TEXT_2,
    TEXT_3,
    TEXT_E0, /* the byte that narrows the next one */
    TEXT_ED,
    TEXT_F0,
    TEXT_F4,
    GRAMMAR_END, /* accepts, without an edge */
    GRAMMAR_SHARED
};
struct grammar_edge {
    uint32_t to;
    uint8_t lo, hi;
};
struct grammar_state {
    uint32_t edge, edges; /* first and count */
    uint32_t call, then;  /* GRAMMAR_NONE: calls nothing */
    uint32_t also;
    uint32_t dist; /* least tokens to the end of the rule */
    bool accept;
};
struct grammar_rule {
    uint32_t start, starts;
    uint32_t chars_min, chars_max; /* of a text */
    uint32_t dist;
};
struct grammar {
    struct buf states, edges, starts, rules;
    uint32_t n_states, n_rules, root; /* root: the rule of the document */
    int error;
};
/* A text that leads to a state; none of a list is the beginning of another unless both end in
 * GRAMMAR_END. */
struct grammar_literal {
    const uint8_t *text;
    uint32_t bytes, to;
};

int grammar_init(struct grammar *g);
void grammar_fini(struct grammar *g); /* accepts zeroed memory */
uint32_t grammar_state(struct grammar *g, bool accept);
uint32_t grammar_call(struct grammar *g, uint32_t rule, uint32_t then);
void grammar_also(struct grammar *g, uint32_t state, uint32_t also);
/* Sorted and without overlap; once a state. */
void grammar_edges(struct grammar *g, uint32_t state, const struct grammar_edge *e, uint32_t n);
/* Sorts the list. */
void grammar_literals(struct grammar *g, uint32_t state, struct grammar_literal *list, uint32_t n);
uint32_t grammar_rule(struct grammar *g);
void grammar_starts(struct grammar *g, uint32_t rule, const uint32_t *starts, uint32_t n);
/* A rule for strings of chars_min to chars_max characters. */
uint32_t grammar_text(struct grammar *g, uint32_t chars_min, uint32_t chars_max);
/* Fills every dist: single[b] says whether byte b can be written by itself. Edges to what is
 * GRAMMAR_FAR are dead. */
void grammar_measure(struct grammar *g, const bool single[256]);

static inline struct grammar_state *grammar_at(const struct grammar *g, uint32_t state) {
    return (struct grammar_state *)(void *)g->states.data + state;
}
static inline struct grammar_rule *grammar_rule_at(const struct grammar *g, uint32_t rule) {
    return (struct grammar_rule *)(void *)g->rules.data + rule;
}
static inline uint32_t grammar_start_at(const struct grammar *g, uint32_t i) {
    return ((const uint32_t *)(const void *)g->starts.data)[i];
}
/* Where a byte leads; GRAMMAR_NONE: nowhere. */
uint32_t grammar_next(const struct grammar *g, uint32_t state, uint8_t byte);

#endif
