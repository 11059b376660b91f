/* jinja_parser.h - what the two halves of the parser share: the tokens, and how to take one.
 *
 * Statements are jinja_parse.c's, expressions jinja_expr.c's. After an error `rc` stays set, tokens
 * read as the end, and every function returns NULL at once, so that callers check once.
 *
 * Units: as jinja_parse.h.  Owner, memory: the arena.  Errors: p->rc with err.
 * Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_PARSER_H
#define PENSTOCK_WORKERS_CHAT_JINJA_PARSER_H

#include "workers/chat/jinja_lex.h"
#include "workers/chat/jinja_node.h"

struct parser {
    struct arena *arena;
    const struct jinja_token *at; /* moves on; the last is JT_END */
    uint32_t depth, loops;        /* loops: around this place, in this macro */
    int rc;
    char *err;
    size_t err_bytes;
};

/* Sets rc and err and moves to the end; NULL, so that a node's maker can return it. */
void *parser_fail(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *parser_unexpected(struct parser *p, const char *wanted);
struct jinja_node *parser_node(struct parser *p, enum jinja_node_kind kind);
/* False, with rc set: too deep. parser_leave undoes a success. */
bool parser_enter(struct parser *p);
void parser_leave(struct parser *p);

bool parser_is_name(const struct parser *p, const char *name);
bool parser_is_op(const struct parser *p, const char *op);
/* Moves behind it when it is there. */
bool parser_take_name(struct parser *p, const char *name);
bool parser_take_op(struct parser *p, const char *op);
void parser_need_op(struct parser *p, const char *op);
struct bytes parser_need_word(struct parser *p); /* any name */

/* Expressions. */
struct jinja_node *parse_expression(struct parser *p);
/* One, or a tuple without brackets; choice: whether `x if y else z` may stand in it. */
struct jinja_node *parse_tuple(struct parser *p, bool choice);
/* What `set`, `for` and `with` assign to; place: `namespace.name` too. */
struct jinja_node *parse_target(struct parser *p, bool place);
/* name, name=default ... in brackets. */
struct jinja_node *parse_parameters(struct parser *p);
/* name(arguments) | name ... with no operand at their root. */
struct jinja_node *parse_filters(struct parser *p);

#endif
