/* jinja_node.h - the tree of a parsed chat template.
 *
 * One struct serves all nodes; which of its members a kind uses:
 *
 *   statement     text        a             b           c          d        e
 *   TEXT          the text
 *   PRINT                     expression
 *   IF                        condition     body        else
 *   FOR                       target        sequence    condition  body     else
 *   SET                       target        expression
 *   SET_BLOCK                 target        filters     -          body
 *   MACRO         its name    parameters    -           -          body
 *   CALL_BLOCK                call          parameters  -          body
 *   FILTER_BLOCK              filters       -           -          body
 *   WITH                      targets       expressions -          body
 *   GENERATION                -             -           -          body
 *   BREAK, CONTINUE
 *
 *   expression
 *   CONST         (value)
 *   NAME          the name
 *   TUPLE, LIST               items
 *   DICT                      keys and values in turn
 *   MEMBER        .name       object
 *   ITEM                      object        index, or SLICE
 *   SLICE                     from          to          step       (each may be NULL)
 *   CALL                      callee        arguments
 *   FILTER, TEST  its name    operand       arguments   (NULL operand: the body of a block)
 *   AND, OR                   left          right
 *   NOT, MINUS, PLUS          operand
 *   BINARY                    left          right       (op)
 *   COMPARE                   left          operands, each with its op
 *   CONCAT                    items
 *   CHOICE                    condition     then        else
 *   PLACE         namespace   (member: the name) - a target only
 *
 * Lists are linked by `next`. An argument by name has `name`; a parameter's `a` is its default.
 *
 * Units: lines from 1.  Owner: the arena of the template, strings too.  Memory: that arena.
 * Errors: n/a.  Threads: immutable once parsed. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_NODE_H
#define PENSTOCK_WORKERS_CHAT_JINJA_NODE_H

#include "workers/chat/jinja_value.h"

enum jinja_node_kind {
    JN_TEXT,
    JN_PRINT,
    JN_IF,
    JN_FOR,
    JN_SET,
    JN_SET_BLOCK,
    JN_MACRO,
    JN_CALL_BLOCK,
    JN_FILTER_BLOCK,
    JN_WITH,
    JN_GENERATION,
    JN_BREAK,
    JN_CONTINUE,
    JN_CONST,
    JN_NAME,
    JN_TUPLE,
    JN_LIST,
    JN_DICT,
    JN_MEMBER,
    JN_ITEM,
    JN_SLICE,
    JN_CALL,
    JN_FILTER,
    JN_TEST,
    JN_AND,
    JN_OR,
    JN_NOT,
    JN_MINUS,
    JN_PLUS,
    JN_BINARY,
    JN_COMPARE,
    JN_CONCAT,
    JN_CHOICE,
    JN_PLACE
};

enum jinja_op {
    JO_NONE,
    JO_ADD,
    JO_SUB,
    JO_MUL,
    JO_DIV,
    JO_FLOOR,
    JO_MOD,
    JO_POW,
    JO_EQ,
    JO_NE,
    JO_LT,
    JO_LE,
    JO_GT,
    JO_GE,
    JO_IN,
    JO_NOT_IN
};

struct jinja_node {
    enum jinja_node_kind kind;
    enum jinja_op op;
    uint32_t line;
    struct bytes text, name;
    const void *what; /* of FILTER and TEST: its row in the tables of jinja_builtin.h */
    struct value value;
    struct jinja_node *a, *b, *c, *d, *e, *next;
};

#endif
