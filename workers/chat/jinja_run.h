/* jinja_run.h - one rendering of a chat template, as its parts share it.
 *
 * jinja_exec.c walks statements, jinja_eval.c expressions, jinja_op.c does what operators and
 * subscripts do, jinja_call.c calls; the rows of jinja_builtin.h do the rest. Names are looked up
 * from the innermost scope outwards, then among the variables given, then among the functions:
 * a loop's body and a macro's are scopes, the branches of an if are not.
 *
 * Units: bytes; steps: a node evaluated, or 64 bytes or 8 items gone through.
 * Owner: everything lives in the arena of the rendering.  Memory: that arena; `out` is the
 * caller's, and capped.  Errors: negative, with err set once ("line N: ..."): ERR_FIELD for what
 * Python would raise or what is not supported, ERR_LIMIT, -ENOMEM.  Threads: one. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_RUN_H
#define PENSTOCK_WORKERS_CHAT_JINJA_RUN_H

#include "workers/chat/jinja_builtin.h"

#define JINJA_CALLS_MAX 320u /* evaluations in each other */

struct jinja_var {
    struct bytes name;
    struct value value;
    struct jinja_var *next;
};
struct jinja_scope {
    struct jinja_scope *up;
    struct jinja_var *vars;
};
struct jinja_loop {
    const struct jinja_seq *items;
    uint32_t i;
    struct value seen; /* by changed(); undefined at first */
    bool any_seen;
};
struct jinja_macro {
    const struct jinja_node *params, *body;
    struct bytes name;
    struct jinja_scope *scope; /* where it was written */
};
struct jinja_bound {
    struct value self;
    struct bytes name;
    const struct jinja_method *row;
};

struct jinja_run {
    struct arena *arena;
    struct buf *out;
    struct value vars; /* a dict */
    struct jinja_scope *scope;
    uint32_t depth;
    uint64_t steps;
    int64_t now_s; /* what strftime_now says, UTC */
    char *err;
    size_t err_bytes;
};

/* ---- running out, failing ---- */
int run_fail(struct jinja_run *r, const struct jinja_node *at, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int run_memory(struct jinja_run *r, const struct jinja_node *at); /* the arena is full */
/* Counts steps for that many bytes; ERR_LIMIT when they are used up. */
int run_spend(struct jinja_run *r, const struct jinja_node *at, size_t bytes);
int run_spend_items(struct jinja_run *r, const struct jinja_node *at, uint32_t items);

/* ---- jinja_exec.c ---- */
enum { RUN_BREAK = 1, RUN_CONTINUE = 2 };
int run_body(struct jinja_run *r, const struct jinja_node *first); /* 0, or one of those */
/* A body's text as a string. */
int run_capture(struct jinja_run *r, const struct jinja_node *first, struct value *out);
int run_set(struct jinja_run *r, const struct jinja_node *at, struct bytes name,
            struct value value);
struct jinja_scope *run_scope(struct jinja_run *r, struct jinja_scope *up); /* NULL: memory */

/* ---- jinja_eval.c ---- */
int run_eval(struct jinja_run *r, const struct jinja_node *n, struct value *out);
int run_args(struct jinja_run *r, const struct jinja_node *list, struct jinja_args *out);
int run_filters(struct jinja_run *r, const struct jinja_node *n, struct value in,
                struct value *out); /* a chain without an operand at its root */

/* ---- jinja_op.c ---- */
int run_binary(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, struct value a,
               struct value b, struct value *out);
int run_compare(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, struct value a,
                struct value b, bool *out);
int run_member(struct jinja_run *r, const struct jinja_node *at, struct value object,
               struct bytes name, struct value *out);
int run_item(struct jinja_run *r, const struct jinja_node *at, struct value object,
             struct value key, struct value *out);
int run_slice(struct jinja_run *r, const struct jinja_node *at, struct value object,
              const struct value bounds[3], struct value *out); /* undefined: left out */
/* What a loop over it goes through; an iterator is empty then. */
int run_items(struct jinja_run *r, const struct jinja_node *at, struct value v,
              const struct jinja_seq **out);
/* str() of a value as a string of the arena. */
int run_str(struct jinja_run *r, const struct jinja_node *at, struct value v, struct value *out);
/* The bytes of a finished buf as a string of the arena; frees the buf. */
int run_take(struct jinja_run *r, const struct jinja_node *at, struct buf *b, struct value *out);
/* An undefined value used where Python needs one. */
int run_undefined(struct jinja_run *r, const struct jinja_node *at, struct value v);

/* ---- jinja_call.c ---- */
int run_call(struct jinja_run *r, const struct jinja_node *at, struct value callee,
             const struct jinja_args *args, struct value *out);
/* Fills u->args from what was given, as `params` says. */
int run_bind(struct jinja_use *u, const char *what, const char *params, uint32_t required);
int run_filter(struct jinja_run *r, const struct jinja_node *at, const struct jinja_filter *row,
               struct value in, const struct jinja_args *args, struct value *out);
int run_test(struct jinja_run *r, const struct jinja_node *at, const struct jinja_test *row,
             struct value in, const struct jinja_args *args, bool *out);

#endif
