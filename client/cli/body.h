/* body.h - a job's body from what the command line was given.
 *
 * Units: bytes.  Owner: body_fini.  Memory: JSON, about ten times the text.
 * Errors: CLI_USAGE or CLI_FAILED, after complaining.  Threads: one. */
#ifndef PENSTOCK_CLIENT_BODY_H
#define PENSTOCK_CLIENT_BODY_H

#include "base/json.h"
#include "schemas/kinds.h"

struct body {
    const struct kind_desc *kind; /* NULL: a kind this build does not know */
    struct json *json;            /* object */
};
int body_init(struct body *b, const char *kind);
void body_fini(struct body *b);                       /* accepts zeroed memory */
int body_load(struct body *b, const char *path);      /* --body-json: a JSON object, - is stdin */
int body_text(struct body *b, const char *text);      /* --text: the kind's first text field */
int body_file(struct body *b, const char *path);      /* --file: the same; of a list, a line each */
int body_set(struct body *b, const char *assignment); /* --set name=value */

#endif
