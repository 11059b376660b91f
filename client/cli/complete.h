/* complete.h - what may follow the words of a command line: the engine behind shell completion.
 *
 * The options are those that `VERB --help` prints, the arguments those that main.c's table says, so
 * that neither can be out of date. Jobs come from the engine, when it answers at once.
 *
 * Units: none.  Owner, memory: none.  Errors: what cannot be known is not offered.
 * Threads: one. */
#ifndef PENSTOCK_CLIENT_COMPLETE_H
#define PENSTOCK_CLIENT_COMPLETE_H

#include "client/cli/cli.h"

/* Prints what the last of the n words may become, one a line; nothing where files are meant. */
void complete_words(char **words, int n);

#endif
