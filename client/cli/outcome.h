/* outcome.h - a job's outcome for people and for programs.
 *
 * Units, owner, memory: none.  Errors: exit codes.  Threads: one. */
#ifndef PENSTOCK_CLIENT_OUTCOME_H
#define PENSTOCK_CLIENT_OUTCOME_H

#include "base/json.h"
#include "client/cli/cli.h"

/* Prints a result (or where the job stands) to stdout, why it failed to stderr. */
void outcome_print(const struct cli *c, const struct penstock_result *r);
/* The texts behind the first, numbered; nothing when there is one. For who has streamed it. */
void outcome_print_rest(const struct penstock_result *r);
/* Adds what --json shows of a result to an object; negative without memory. */
int outcome_json(const struct penstock_result *r, struct json *into);
/* What a table with a row a job shows of a done one: "NG, 2 defects"; for free(), NULL without
 * memory. */
char *outcome_gist(const struct penstock_result *r);
/* CLI_OK when it is done, else CLI_FAILED. */
int outcome_code(const struct penstock_result *r);
/* What the client library answers as JSON text, printed as it stands or indented. */
void outcome_print_json(const char *json, bool pretty);

#endif
