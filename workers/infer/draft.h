/* draft.h - how many guessed tokens pay: odds that a guess is right, what rows cost, and the plan.
 *
 * A step over more rows takes longer, and gives more tokens if its guesses are right. Odds are
 * learnt from every token that is drawn, whether or not its guess stood in a step; what rows cost
 * is learnt from every step. A plan adds the likeliest rows as long as tokens a second grow, and
 * none when that gains too little to be sure of. None of this changes what a text says.
 *
 * Units: token rows, nanoseconds.  Owner: the caller's structs, zeroed before first use.  Memory:
 * none.  Errors: none.  Threads: one; pure functions of what they were told. */
#ifndef PENSTOCK_WORKERS_INFER_DRAFT_H
#define PENSTOCK_WORKERS_INFER_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

#define DRAFT_MAX 15u      /* guesses of one text in a step */
#define DRAFT_CLASSES 8u   /* of guesses whose odds are kept apart */
#define DRAFT_ROWS_MAX 64u /* steps up to here are told apart by their rows */
#define DRAFT_MODEL 0u     /* the class of a model's guesses */

/* The class of a guess from a place where so many tokens were alike. */
uint32_t draft_class(uint32_t match);

struct draft_odds { /* of one text */
    float right[DRAFT_CLASSES];
    uint32_t seen[DRAFT_CLASSES];
};
void draft_odds_note(struct draft_odds *o, uint32_t class, bool right);
float draft_odds_of(const struct draft_odds *o, uint32_t class);

struct draft_pace {
    struct {
        float factor;  /* of its time to what was expected beforehand; 0: not seen */
        uint64_t step; /* when it was last seen */
    } rows[DRAFT_ROWS_MAX + 1];
    uint64_t steps;
    uint32_t guessed; /* plans with guesses since one without was made to see its time */
};
void draft_pace_note(struct draft_pace *p, uint32_t rows, int64_t ns);
/* What a step of so many rows takes: in proportion only, before one was seen. */
double draft_pace_of(const struct draft_pace *p, uint32_t rows);

/* A text that draws a token in the step: the odds of each guess behind one that was right, and how
 * many there may be. */
struct draft_text {
    float odds[DRAFT_MAX];
    uint32_t most, n; /* n: the plan's answer */
};
/* Shares `room` further rows of a step that has `rows` among its n texts. extra_ns: what guessing
 * costs for each row of the longest guess. */
void draft_plan(struct draft_pace *p, uint32_t rows, uint32_t room, double extra_ns,
                struct draft_text *text, uint32_t n);

#endif
