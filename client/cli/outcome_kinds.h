/* outcome_kinds.h - the results that people read, a file a kind; outcome.c calls them.
 *
 * Units, owner, memory: none.  Errors: what a result lacks is left out.  Threads: one. */
#ifndef PENSTOCK_CLIENT_OUTCOME_KINDS_H
#define PENSTOCK_CLIENT_OUTCOME_KINDS_H

#include "base/json.h"

void outcome_contract(const struct json *result);
void outcome_qc(const struct json *result);

#endif
