/* jinja_value.h - the values that a chat template works on, as Python has them.
 *
 * Lists, tuples, views of a dict, ranges and one-shot iterators are one sequence with a kind of
 * their own, because Python tells them apart when it prints, counts or subscripts them. Nothing
 * here changes after it was made but a namespace and what an iterator has left.
 *
 * Units: bytes of UTF-8; positions and lengths of strings in code points, as in Python.
 * Owner: everything lives in the arena of one rendering.  Memory: that arena, capped.
 * Errors: -ENOMEM; ERR_LIMIT for nesting.  Threads: one at a time. */
#ifndef PENSTOCK_WORKERS_CHAT_JINJA_VALUE_H
#define PENSTOCK_WORKERS_CHAT_JINJA_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

struct json;

#define JINJA_NEST_MAX 64u /* of lists and dicts in each other */

enum jinja_kind {
    JV_UNDEFINED, /* text: what was not defined */
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_FLOAT,
    JV_STR,
    JV_LIST, /* the sequences, from here ... */
    JV_TUPLE,
    JV_RANGE,
    JV_VIEW, /* dict.keys(), .values(), .items() */
    JV_ITER, /* ... to here: an iterator is empty once it was walked */
    JV_DICT,
    JV_NAMESPACE,
    JV_LOOP,
    JV_MACRO,
    JV_METHOD,  /* bound to its object */
    JV_FUNCTION /* of the environment */
};

struct jinja_seq;
struct jinja_dict;
struct value {
    enum jinja_kind kind;
    bool safe; /* of a string: `safe` or `escape` made it; it may only be printed */
    union {
        bool truth;
        int64_t number;
        double real;
        struct bytes text;
        struct jinja_seq *seq;
        struct jinja_dict *dict; /* of a namespace too */
        struct jinja_loop *loop; /* jinja_run.h */
        struct jinja_macro *macro;
        struct jinja_bound *bound;
        const struct jinja_function *function;
    };
};

struct jinja_seq {
    struct value *items;
    uint32_t n, cap;
};
struct jinja_pair {
    struct value key, value;
};
struct jinja_dict {
    struct jinja_pair *pairs; /* in the order of their making */
    uint32_t n, cap;
};

static inline struct value value_none(void) {
    return (struct value){.kind = JV_NONE};
}
static inline struct value value_bool(bool truth) {
    return (struct value){.kind = JV_BOOL, .truth = truth};
}
static inline struct value value_int(int64_t number) {
    return (struct value){.kind = JV_INT, .number = number};
}
static inline struct value value_real(double real) {
    return (struct value){.kind = JV_FLOAT, .real = real};
}
static inline struct value value_text(struct bytes text) {
    return (struct value){.kind = JV_STR, .text = text};
}
static inline struct value value_undefined(struct bytes name) {
    return (struct value){.kind = JV_UNDEFINED, .text = name};
}
static inline bool value_is_seq(struct value v) {
    return v.kind >= JV_LIST && v.kind <= JV_ITER;
}
static inline bool value_is_number(struct value v) { /* a bool is one in Python */
    return v.kind == JV_BOOL || v.kind == JV_INT || v.kind == JV_FLOAT;
}
static inline bool value_is_whole(struct value v) {
    return v.kind == JV_BOOL || v.kind == JV_INT;
}
static inline int64_t value_whole(struct value v) {
    return v.kind == JV_BOOL ? v.truth : v.number;
}
static inline double value_num(struct value v) {
    return v.kind == JV_FLOAT ? v.real : (double)value_whole(v);
}

/* An empty sequence or dict of that kind; n: room at first. */
int value_seq(struct arena *a, enum jinja_kind kind, uint32_t n, struct value *out);
int value_push(struct arena *a, struct value seq, struct value item);
int value_dict(struct arena *a, enum jinja_kind kind, uint32_t n, struct value *out);
int value_put(struct arena *a, struct value dict, struct value key, struct value value);
const struct value *value_get(struct value dict, struct value key); /* NULL: not there */
const struct value *value_member(struct value dict, const char *key);

/* A copy of a JSON value; NULL is none. */
int value_of_json(struct arena *a, const struct json *j, struct value *out);

const char *value_type(struct value v); /* Python's name of its type, for messages */
bool value_truth(struct value v);
#define JINJA_STEPS_MAX 4000000u                  /* of one rendering */
bool value_equal(struct value a, struct value b); /* beyond JINJA_NEST_MAX levels: not */
/* The same, counting a step for each item and 64 bytes; beyond JINJA_STEPS_MAX: not, and the run
 * must end. */
bool value_equal_in(uint64_t *steps, struct value a, struct value b);
/* Python's order: *sign is below, 0 or above. -EINVAL: there is none between these two. */
int value_order(uint64_t *steps, struct value a, struct value b, int *sign);
uint32_t value_count(struct value v); /* len(): code points, items or pairs; else 0 */

#endif
