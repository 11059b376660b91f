/* term.h - what the terminal can show.
 *
 * Colour only where a person looks: a terminal that is not dumb, and no NO_COLOR in the
 * environment.
 *
 * Units: columns.  Owner, memory, errors: none.  Threads: one. */
#ifndef PENSTOCK_BASE_TERM_H
#define PENSTOCK_BASE_TERM_H

#include <stdbool.h>
#include <stdio.h>

enum term_style { TERM_PLAIN, TERM_BOLD, TERM_DIM, TERM_RED, TERM_GREEN, TERM_YELLOW, TERM_CYAN };

bool term_is(FILE *f);
int term_columns(FILE *f); /* 80 where nobody knows */
bool term_utf8(void);      /* the user's locale shows more than ASCII */
/* The sequences that begin and end a style: "" where colour does not belong. */
const char *term_on(FILE *f, enum term_style style);
const char *term_off(FILE *f);
/* What a terminal would obey becomes blanks, in place; line breaks and tabs stay. */
void term_clean(char *text);
/* Writes what others have said: clean where a person looks, else as it is. */
void term_put(FILE *f, const char *text);
/* The style of "high", "NG", "failed" (red), "medium" (yellow), "OK", "done", "low" (green). */
enum term_style term_style_of(const char *word);

#endif
