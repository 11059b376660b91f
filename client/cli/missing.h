/* missing.h - says what a job waits for when no registered worker can run its next stage.
 *
 * Units: milliseconds.  Owner, memory: none.  Errors: what cannot be asked is not said.
 * Threads: one. */
#ifndef PENSTOCK_CLIENT_MISSING_H
#define PENSTOCK_CLIENT_MISSING_H

#include <stdbool.h>

#include "client/penstock.h"

#define MISSING_AFTER_MS 2000 /* so long a job may wait before the question is asked */

/* Asks, and tells on stderr the stage, its model, and the command that would help; whether it
 * did. */
bool missing_tell(struct penstock *p, const char *job);
/* penstock_wait, with the above after MISSING_AFTER_MS. */
int missing_wait(struct penstock *p, const char *job, int timeout_ms, struct penstock_result *out,
                 char *err, size_t err_bytes);

#endif
