/* plain.h - a verb with the common options alone that prints one document of the broker.
 *
 * Units, owner, memory: none.  Errors: exit codes.  Threads: one. */
#ifndef PENSTOCK_CLIENT_PLAIN_H
#define PENSTOCK_CLIENT_PLAIN_H

#include "base/json.h"
#include "client/cli/cli.h"

/* Parses; refuses arguments beyond `args_max`. CLI_OK or an exit code. */
int plain_parse(struct cli *c, int argc, char **argv, int args_max, const char *args_doc,
                const char *doc);
/* A client call without an argument of its own. */
typedef int plain_ask_fn(struct penstock *p, struct penstock_doc *out, int timeout_ms, char *err,
                         size_t err_bytes);
/* Asks and prints: JSON as it stands, or through print. */
int plain_show(struct cli *c, plain_ask_fn *ask, void (*print)(const struct json *document));

#endif
