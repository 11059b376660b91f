#include <errno.h>

#include "base/err.h"
#include "workers/chat/jinja_run.h"

static int is_defined(struct jinja_use *u, bool *out) {
    *out = u->in.kind != JV_UNDEFINED;
    return 0;
}
static int is_undefined(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_UNDEFINED;
    return 0;
}
static int is_none(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_NONE;
    return 0;
}
static int is_boolean(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_BOOL;
    return 0;
}
static int is_true(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_BOOL && u->in.truth;
    return 0;
}
static int is_false(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_BOOL && !u->in.truth;
    return 0;
}
static int is_integer(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_INT;
    return 0;
}
static int is_float(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_FLOAT;
    return 0;
}
static int is_number(struct jinja_use *u, bool *out) {
    *out = value_is_number(u->in);
    return 0;
}
static int is_string(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_STR;
    return 0;
}
static int is_mapping(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_DICT;
    return 0;
}
/* What has a length and subscripts: dicts and, by Jinja's making, what is undefined too. */
static int is_sequence(struct jinja_use *u, bool *out) {
    enum jinja_kind k = u->in.kind;
    *out = k == JV_STR || k == JV_LIST || k == JV_TUPLE || k == JV_RANGE || k == JV_DICT ||
           k == JV_UNDEFINED;
    return 0;
}
static int is_iterable(struct jinja_use *u, bool *out) {
    *out = u->in.kind == JV_STR || value_is_seq(u->in) || u->in.kind == JV_DICT ||
           u->in.kind == JV_UNDEFINED || u->in.kind == JV_LOOP;
    return 0;
}
static int is_callable(struct jinja_use *u, bool *out) {
    *out = u->in.kind >= JV_MACRO || u->in.kind == JV_UNDEFINED;
    return 0;
}

/* Python's `is`: objects that a template can tell apart. Equal numbers and strings may or may not
 * be one object there. */
static int is_same(struct jinja_use *u, bool *out) {
    struct value other = *u->args[0];
    *out = false;
    if (u->in.kind != other.kind) return 0;
    if (u->in.kind == JV_INT || u->in.kind == JV_FLOAT || u->in.kind == JV_STR ||
        u->in.kind == JV_UNDEFINED || u->in.kind == JV_METHOD)
        return run_fail(u->run, u->at, ERR_FIELD,
                        "the test sameas between two of %s is not supported", value_type(other));
    *out = u->in.kind == JV_NONE ||
           (u->in.kind == JV_BOOL ? u->in.truth == other.truth : u->in.seq == other.seq);
    return 0;
}

static int compare(struct jinja_use *u, enum jinja_op op, bool *out) {
    return run_compare(u->run, u->at, op, u->in, *u->args[0], out);
}
static int is_eq(struct jinja_use *u, bool *out) {
    return compare(u, JO_EQ, out);
}
static int is_ne(struct jinja_use *u, bool *out) {
    return compare(u, JO_NE, out);
}
static int is_lt(struct jinja_use *u, bool *out) {
    return compare(u, JO_LT, out);
}
static int is_le(struct jinja_use *u, bool *out) {
    return compare(u, JO_LE, out);
}
static int is_gt(struct jinja_use *u, bool *out) {
    return compare(u, JO_GT, out);
}
static int is_ge(struct jinja_use *u, bool *out) {
    return compare(u, JO_GE, out);
}
static int is_in(struct jinja_use *u, bool *out) {
    return compare(u, JO_IN, out);
}

static int divides(struct jinja_use *u, struct value by, int64_t rest, bool *out) {
    struct value v;
    int rc = run_binary(u->run, u->at, JO_MOD, u->in, by, &v);
    *out = rc == 0 && value_equal(v, value_int(rest));
    return rc;
}
static int is_odd(struct jinja_use *u, bool *out) {
    return divides(u, value_int(2), 1, out);
}
static int is_even(struct jinja_use *u, bool *out) {
    return divides(u, value_int(2), 0, out);
}
static int is_divisible(struct jinja_use *u, bool *out) {
    return divides(u, *u->args[0], 0, out);
}

const struct jinja_test *jinja_test_find(struct bytes name) {
    static const struct jinja_test rows[] = {
        {"defined", "", 0, is_defined},
        {"undefined", "", 0, is_undefined},
        {"none", "", 0, is_none},
        {"boolean", "", 0, is_boolean},
        {"true", "", 0, is_true},
        {"false", "", 0, is_false},
        {"integer", "", 0, is_integer},
        {"float", "", 0, is_float},
        {"number", "", 0, is_number},
        {"string", "", 0, is_string},
        {"mapping", "", 0, is_mapping},
        {"sequence", "", 0, is_sequence},
        {"iterable", "", 0, is_iterable},
        {"callable", "", 0, is_callable},
        {"sameas", "other", 1, is_same},
        {"eq", "other", 1, is_eq},
        {"equalto", "other", 1, is_eq},
        {"==", "other", 1, is_eq},
        {"ne", "other", 1, is_ne},
        {"!=", "other", 1, is_ne},
        {"lt", "other", 1, is_lt},
        {"lessthan", "other", 1, is_lt},
        {"<", "other", 1, is_lt},
        {"le", "other", 1, is_le},
        {"<=", "other", 1, is_le},
        {"gt", "other", 1, is_gt},
        {"greaterthan", "other", 1, is_gt},
        {">", "other", 1, is_gt},
        {"ge", "other", 1, is_ge},
        {">=", "other", 1, is_ge},
        {"in", "seq", 1, is_in},
        {"odd", "", 0, is_odd},
        {"even", "", 0, is_even},
        {"divisibleby", "num", 1, is_divisible},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (bytes_is(name, rows[i].name)) return &rows[i];
    return NULL;
}
