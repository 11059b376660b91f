/* jinja.h - chat templates: the subset of Jinja that the templates of chat models are written in.
 *
 * A template is parsed once and rendered as `transformers` renders it, byte for byte, or refused
 * with its line and what is not supported. Supported:
 *
 *   tags       if elif else, for else (with if; break, continue), set (of namespaces and blocks
 *              too), macro, call, filter, with, raw, generation (its body as it is)
 *   operators  or and not, == != < <= > >= in, not in, is, is not, + - * / // % **, ~, x if y else
 *              z, .name, [index], [slice], calls with arguments by place and name, | filters
 *   literals   strings, numbers, true false none, lists, tuples, dicts
 *   filters, tests, methods, functions: the tables that jinja_builtin.h names
 *
 * Refused: include, import, extends, block, recursive loops, autoescape, * and ** in calls,
 * formatting by % or .format, numbers beyond 64 bits, and what is in no table.
 *
 * Units: bytes of UTF-8.  Owner: jinja_open gives a template to jinja_close.
 * Memory: capped below, for parsing and for each rendering.
 * Errors: ERR_FIELD (what the template does or does not allow) and ERR_LIMIT, "line N: ..." in err;
 * -ENOMEM.  Threads: immutable once open: any number of renderings at once. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_H
#define PENSTOCK_WORKERS_CHAT_JINJA_H

#include "workers/chat/jinja_value.h"

#define JINJA_SOURCE_BYTES (256u * 1024u)
#define JINJA_TREE_BYTES (64u * 1024u * 1024u)
#define JINJA_RENDER_BYTES (128u * 1024u * 1024u)

struct jinja;
int jinja_open(struct jinja **out, struct bytes source, char *err, size_t err_bytes);
void jinja_close(struct jinja *t); /* NULL is fine */

/* Appends the text to out, whose max_bytes is the limit of what may be written. vars is a dict in
 * the arena, which also holds what the rendering makes; now_s is what strftime_now tells, UTC. */
int jinja_render(const struct jinja *t, struct arena *a, struct value vars, int64_t now_s,
                 struct buf *out, char *err, size_t err_bytes);

#endif
