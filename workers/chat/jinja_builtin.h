/* jinja_builtin.h - the filters, tests, methods and functions that chat templates may use.
 *
 * Each is a row: its name, its parameters as Python names them, and what it does. The tables are in
 * jinja_filter.c, jinja_filter_seq.c, jinja_test.c, jinja_method.c and jinja_call.c; whatever is in
 * none of them is refused by name.
 *
 * Units: none.  Owner: rows are static; values live in the arena of the rendering.
 * Memory: that arena.  Errors: as run_fail of jinja_run.h.  Threads: one rendering at a time. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_BUILTIN_H
#define PENSTOCK_WORKERS_CHAT_JINJA_BUILTIN_H

#include "workers/chat/jinja_node.h"

#define JINJA_ARGS_MAX 8u

struct jinja_run;

/* What a call gave: those by position first, with no name. */
struct jinja_args {
    struct value *values;
    struct bytes *names;
    uint32_t n;
};
/* One use of a row. */
struct jinja_use {
    struct jinja_run *run;
    const struct jinja_node *at;
    struct value in;                          /* the operand, or the object of a method */
    const struct value *args[JINJA_ARGS_MAX]; /* by parameter; NULL: not given */
    struct jinja_args all;
};

struct jinja_filter {
    const char *name;
    const char *params; /* "old new count"; NULL: takes whatever comes, in `all` */
    uint32_t required;
    bool safe; /* takes strings that `safe` or `escape` made */
    int (*apply)(struct jinja_use *u, struct value *out);
};
const struct jinja_filter *jinja_filter_find(struct bytes name);
const struct jinja_filter *jinja_filter_seq_find(struct bytes name); /* its part for sequences */

struct jinja_test {
    const char *name;
    const char *params;
    uint32_t required;
    int (*ask)(struct jinja_use *u, bool *out);
};
const struct jinja_test *jinja_test_find(struct bytes name);

struct jinja_method {
    enum jinja_kind of;
    const char *name;
    const char *params;
    uint32_t required;
    int (*call)(struct jinja_use *u, struct value *out); /* NULL: refused, Python has it */
};
/* NULL: values of that kind have no such method in Python either. */
const struct jinja_method *jinja_method_find(struct value object, struct bytes name);

struct jinja_function {
    const char *name;
    const char *params;
    uint32_t required;
    int (*call)(struct jinja_use *u, struct value *out); /* NULL: refused, Jinja has it */
};
const struct jinja_function *jinja_function_find(struct bytes name);

#endif
