/* jinja_parse.h - the text of a chat template to its tree.
 *
 * What is not supported is refused here, by name and line: tags, filters, tests and forms of
 * expressions that are not in the tables of jinja_builtin.h and jinja_node.h.
 *
 * Units: bytes, lines from 1.  Owner: the tree lives in the arena.  Memory: the arena.
 * Errors: ERR_FIELD "line N: ..."; ERR_LIMIT beyond JINJA_DEPTH_MAX; -ENOMEM.
 * Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_PARSE_H
#define PENSTOCK_WORKERS_CHAT_JINJA_PARSE_H

#include "workers/chat/jinja_node.h"

#define JINJA_DEPTH_MAX 64u /* of blocks and brackets in each other */

/* *out is the first statement; NULL: an empty template. The source is valid UTF-8. */
int jinja_parse(struct arena *a, struct bytes source, struct jinja_node **out, char *err,
                size_t err_bytes);

#endif
