/* follow.h - a submitted job to its end: its tokens as they come, then its result.
 *
 * Units: none.  Owner, memory: none.  Errors: exit codes, after complaining.  Threads: one. */
#ifndef PENSTOCK_CLIENT_FOLLOW_H
#define PENSTOCK_CLIENT_FOLLOW_H

#include "client/cli/cli.h"

/* Waits c->timeout_ms (-1: as long as it takes) and prints the result; with stream the tokens, and
 * of the result only what is not text. */
int follow_job(const struct cli *c, struct penstock *p, const char *job, bool stream);

#endif
