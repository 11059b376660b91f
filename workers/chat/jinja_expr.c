#include "workers/chat/jinja_builtin.h"
#include "workers/chat/jinja_parser.h"

static struct jinja_node *parse_unary(struct parser *p, bool filters);
static struct jinja_node *parse_or(struct parser *p);
static struct jinja_node *parse_primary(struct parser *p);

/* ---- operands ---- */

static struct jinja_node *constant(struct parser *p, struct value v) {
    struct jinja_node *n = parser_node(p, JN_CONST);
    if (n) n->value = v;
    p->at += n != NULL;
    return n;
}

static struct jinja_node *parse_name(struct parser *p) {
    static const char *const names[] = {"true", "True", "false", "False", "none", "None"};
    for (uint32_t i = 0; i < 6; i++)
        if (parser_is_name(p, names[i]))
            return constant(p, i < 4 ? value_bool(i < 2) : value_none());
    struct jinja_node *n = parser_node(p, JN_NAME);
    if (n) n->text = (p->at++)->text;
    return n;
}

/* Strings that follow each other are one. */
static struct jinja_node *parse_string(struct parser *p) {
    struct bytes text = p->at->text;
    struct jinja_node *n = constant(p, value_text(text));
    while (n && p->at->kind == JT_STR) {
        char *both = arena_alloc(p->arena, text.len + p->at->text.len + 1);
        if (!both) return parser_fail(p, "the template is too large");
        if (text.len) memcpy(both, text.data, text.len);
        if (p->at->text.len) memcpy(both + text.len, p->at->text.data, p->at->text.len);
        text = bytes_of(both, text.len + p->at->text.len);
        n->value = value_text(text);
        p->at++;
    }
    return n;
}

/* Items up to the bracket that closes, which is taken; pairs with colons between for a dict. */
static struct jinja_node *parse_items(struct parser *p, enum jinja_node_kind kind,
                                      const char *close) {
    struct jinja_node *n = parser_node(p, kind), **to;
    if (!n) return NULL;
    p->at++;
    to = &n->a;
    while (p->rc == 0 && !parser_is_op(p, close)) {
        if (n->a) parser_need_op(p, ",");
        if (parser_is_op(p, close)) break;
        if (!(*to = parse_expression(p))) return NULL;
        to = &(*to)->next;
        if (kind != JN_DICT) continue;
        parser_need_op(p, ":");
        if (!(*to = parse_expression(p))) return NULL;
        to = &(*to)->next;
    }
    parser_need_op(p, close);
    return n;
}

static struct jinja_node *parse_brackets(struct parser *p) {
    p->at++;
    if (parser_is_op(p, ")")) {
        struct jinja_node *empty = parser_node(p, JN_TUPLE);
        p->at += empty != NULL;
        return empty;
    }
    struct jinja_node *n = parse_tuple(p, true);
    parser_need_op(p, ")");
    return n;
}

static struct jinja_node *parse_primary(struct parser *p) {
    struct jinja_node *n = NULL;
    if (!parser_enter(p)) return NULL;
    if (p->at->kind == JT_NAME)
        n = parse_name(p);
    else if (p->at->kind == JT_STR)
        n = parse_string(p);
    else if (p->at->kind == JT_INT)
        n = constant(p, value_int(p->at->number));
    else if (p->at->kind == JT_FLOAT)
        n = constant(p, value_real(p->at->real));
    else if (parser_is_op(p, "("))
        n = parse_brackets(p);
    else if (parser_is_op(p, "["))
        n = parse_items(p, JN_LIST, "]");
    else if (parser_is_op(p, "{"))
        n = parse_items(p, JN_DICT, "}");
    else
        parser_unexpected(p, "an expression");
    parser_leave(p);
    return n;
}

/* ---- what stands behind an operand ---- */

static struct jinja_node *parse_arguments(struct parser *p) {
    struct jinja_node *first = NULL, **to = &first;
    bool named = false;
    parser_need_op(p, "(");
    while (p->rc == 0 && !parser_is_op(p, ")")) {
        if (first) parser_need_op(p, ",");
        if (parser_is_op(p, ")")) break;
        if (parser_is_op(p, "*") || parser_is_op(p, "**"))
            return parser_fail(p, "* and ** in arguments are not supported");
        struct bytes name = {0};
        if (p->at->kind == JT_NAME && p->at[1].kind == JT_OP && bytes_is(p->at[1].text, "=")) {
            name = p->at->text;
            p->at += 2;
        }
        if (named && !name.data) return parser_unexpected(p, "an argument by name");
        named = name.data != NULL;
        struct jinja_node *value = parse_expression(p);
        /* A node of its own, because its links are the list's. */
        struct jinja_node *n = parser_node(p, JN_CONST);
        if (!n || !value) return NULL;
        n->a = value;
        n->name = name;
        *to = n;
        to = &n->next;
    }
    parser_need_op(p, ")");
    return first;
}

static struct jinja_node *parse_slice(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_SLICE), *from = NULL;
    if (!n) return NULL;
    if (!parser_is_op(p, ":")) from = parse_expression(p);
    if (!parser_take_op(p, ":")) {
        if (parser_is_op(p, ",")) return parser_fail(p, "a tuple as a subscript is not supported");
        return from;
    }
    n->a = from;
    if (!parser_is_op(p, ":") && !parser_is_op(p, "]")) n->b = parse_expression(p);
    if (parser_take_op(p, ":") && !parser_is_op(p, "]")) n->c = parse_expression(p);
    return n;
}

static struct jinja_node *parse_subscript(struct parser *p, struct jinja_node *object) {
    bool dot = parser_is_op(p, ".");
    struct jinja_node *n = parser_node(p, JN_ITEM);
    if (!n) return NULL;
    n->a = object;
    p->at++;
    if (!dot) {
        n->b = parse_slice(p);
        parser_need_op(p, "]");
    } else if (p->at->kind == JT_INT) {
        n->b = constant(p, value_int(p->at->number));
    } else {
        n->kind = JN_MEMBER;
        n->text = parser_need_word(p);
    }
    return n;
}

static struct jinja_node *parse_call(struct parser *p, struct jinja_node *callee) {
    struct jinja_node *n = parser_node(p, JN_CALL);
    if (!n) return NULL;
    n->a = callee;
    n->b = parse_arguments(p);
    return n;
}

static struct jinja_node *parse_postfix(struct parser *p, struct jinja_node *n) {
    while (p->rc == 0) {
        if (parser_is_op(p, ".") || parser_is_op(p, "["))
            n = parse_subscript(p, n);
        else if (parser_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static struct jinja_node *parse_filter(struct parser *p, struct jinja_node *operand) {
    struct jinja_node *n = parser_node(p, JN_FILTER);
    if (!n || p->at->kind != JT_NAME) return parser_unexpected(p, "the name of a filter");
    n->a = operand;
    n->text = p->at->text;
    n->what = jinja_filter_find(n->text);
    if (!n->what) {
        size_t len = utf8_cut(n->text, 40);
        return parser_fail(p, "the filter \"%.*s\" is not supported", (int)len,
                           (const char *)n->text.data);
    }
    p->at++;
    if (parser_is_op(p, "(")) n->b = parse_arguments(p);
    return n;
}

struct jinja_node *parse_filters(struct parser *p) {
    struct jinja_node *n = parse_filter(p, NULL);
    while (p->rc == 0 && parser_take_op(p, "|")) n = parse_filter(p, n);
    return n;
}

/* Whether the one argument of a test without brackets stands here. */
static bool at_argument(const struct parser *p) {
    switch (p->at->kind) {
    case JT_NAME:
        return !parser_is_name(p, "else") && !parser_is_name(p, "or") && !parser_is_name(p, "and");
    case JT_STR:
    case JT_INT:
    case JT_FLOAT: return true;
    default: return parser_is_op(p, "(") || parser_is_op(p, "[") || parser_is_op(p, "{");
    }
}

static struct jinja_node *parse_test(struct parser *p, struct jinja_node *operand) {
    bool negated = parser_take_name(p, "not");
    struct jinja_node *n = parser_node(p, JN_TEST), *no;
    if (!n || p->at->kind != JT_NAME) return parser_unexpected(p, "the name of a test");
    n->a = operand;
    n->text = p->at->text;
    n->what = jinja_test_find(n->text);
    if (!n->what) {
        size_t len = utf8_cut(n->text, 40);
        return parser_fail(p, "the test \"is %.*s\" is not supported", (int)len,
                           (const char *)n->text.data);
    }
    p->at++;
    if (parser_is_op(p, "(")) {
        n->b = parse_arguments(p);
    } else if (at_argument(p)) {
        if (parser_is_name(p, "is")) return parser_fail(p, "tests cannot be chained with is");
        struct jinja_node *argument = parse_postfix(p, parse_primary(p));
        if (!(n->b = parser_node(p, JN_CONST))) return NULL;
        n->b->a = argument;
    }
    if (!negated) return n;
    if ((no = parser_node(p, JN_NOT))) no->a = n;
    return no;
}

static struct jinja_node *parse_filter_chain(struct parser *p, struct jinja_node *n) {
    while (p->rc == 0) {
        if (parser_take_op(p, "|"))
            n = parse_filter(p, n);
        else if (parser_take_name(p, "is"))
            n = parse_test(p, n);
        else if (parser_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* ---- operators, from those that bind most ---- */

static struct jinja_node *parse_unary(struct parser *p, bool filters) {
    struct jinja_node *n;
    bool minus = parser_is_op(p, "-");
    if (minus || parser_is_op(p, "+")) {
        if (!parser_enter(p)) return NULL;
        if ((n = parser_node(p, minus ? JN_MINUS : JN_PLUS))) {
            p->at++;
            n->a = parse_unary(p, false);
        }
        parser_leave(p);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    return filters ? parse_filter_chain(p, n) : n;
}

static struct jinja_node *binary(struct parser *p, enum jinja_node_kind kind, enum jinja_op op,
                                 struct jinja_node *left) {
    struct jinja_node *n = parser_node(p, kind);
    if (!n) return NULL;
    p->at++;
    n->op = op;
    n->a = left;
    return n;
}

struct sign {
    const char *text;
    enum jinja_op op;
};
static const struct sign power[] = {{"**", JO_POW}, {NULL, JO_NONE}};
static const struct sign products[] = {
    {"*", JO_MUL}, {"/", JO_DIV}, {"//", JO_FLOOR}, {"%", JO_MOD}, {NULL, JO_NONE}};
static const struct sign sums[] = {{"+", JO_ADD}, {"-", JO_SUB}, {NULL, JO_NONE}};
static const struct sign orders[] = {{"==", JO_EQ}, {"!=", JO_NE}, {"<", JO_LT},   {"<=", JO_LE},
                                     {">", JO_GT},  {">=", JO_GE}, {NULL, JO_NONE}};

static enum jinja_op which(const struct parser *p, const struct sign *signs) {
    while (signs->text && !parser_is_op(p, signs->text)) signs++;
    return signs->op;
}

static struct jinja_node *parse_power(struct parser *p) {
    struct jinja_node *n = parse_unary(p, true);
    for (enum jinja_op op; p->rc == 0 && (op = which(p, power)) != JO_NONE;)
        if ((n = binary(p, JN_BINARY, op, n))) n->b = parse_unary(p, true);
    return n;
}

static struct jinja_node *parse_product(struct parser *p) {
    struct jinja_node *n = parse_power(p);
    for (enum jinja_op op; p->rc == 0 && (op = which(p, products)) != JO_NONE;)
        if ((n = binary(p, JN_BINARY, op, n))) n->b = parse_power(p);
    return n;
}

static struct jinja_node *parse_concat(struct parser *p) {
    struct jinja_node *first = parse_product(p), *n, *last = first;
    if (p->rc != 0 || !parser_is_op(p, "~")) return first;
    if (!(n = parser_node(p, JN_CONCAT))) return NULL;
    n->a = first;
    while (p->rc == 0 && parser_take_op(p, "~"))
        if ((last->next = parse_product(p))) last = last->next;
    return n;
}

static struct jinja_node *parse_sum(struct parser *p) {
    struct jinja_node *n = parse_concat(p);
    for (enum jinja_op op; p->rc == 0 && (op = which(p, sums)) != JO_NONE;)
        if ((n = binary(p, JN_BINARY, op, n))) n->b = parse_concat(p);
    return n;
}

static enum jinja_op compare_op(const struct parser *p) {
    if (parser_is_name(p, "in")) return JO_IN;
    if (parser_is_name(p, "not") && p->at[1].kind == JT_NAME && bytes_is(p->at[1].text, "in"))
        return JO_NOT_IN;
    return which(p, orders);
}

static struct jinja_node *parse_compare(struct parser *p) {
    struct jinja_node *left = parse_sum(p), *n, **to;
    if (p->rc != 0 || compare_op(p) == JO_NONE) return left;
    if (!(n = parser_node(p, JN_COMPARE))) return NULL;
    n->a = left;
    to = &n->b;
    for (enum jinja_op op; p->rc == 0 && (op = compare_op(p)) != JO_NONE;) {
        struct jinja_node *operand = binary(p, JN_CONST, op, NULL);
        if (!operand) return NULL;
        p->at += op == JO_NOT_IN;
        operand->a = parse_sum(p);
        *to = operand;
        to = &operand->next;
    }
    return n;
}

static struct jinja_node *parse_not(struct parser *p) {
    struct jinja_node *n;
    if (!parser_is_name(p, "not")) return parse_compare(p);
    if (!parser_enter(p)) return NULL;
    if ((n = binary(p, JN_NOT, JO_NONE, NULL))) n->a = parse_not(p);
    parser_leave(p);
    return n;
}

static struct jinja_node *parse_and(struct parser *p) {
    struct jinja_node *n = parse_not(p);
    while (p->rc == 0 && parser_is_name(p, "and"))
        if ((n = binary(p, JN_AND, JO_NONE, n))) n->b = parse_not(p);
    return n;
}

static struct jinja_node *parse_or(struct parser *p) {
    struct jinja_node *n = parse_and(p);
    while (p->rc == 0 && parser_is_name(p, "or"))
        if ((n = binary(p, JN_OR, JO_NONE, n))) n->b = parse_and(p);
    return n;
}

struct jinja_node *parse_expression(struct parser *p) {
    struct jinja_node *n = NULL, *then;
    if (!parser_enter(p)) return NULL;
    then = parse_or(p);
    while (p->rc == 0 && parser_is_name(p, "if")) {
        if (!(n = binary(p, JN_CHOICE, JO_NONE, NULL))) break;
        n->b = then;
        n->a = parse_or(p);
        if (parser_take_name(p, "else")) n->c = parse_expression(p);
        then = n;
    }
    parser_leave(p);
    return p->rc == 0 ? then : NULL;
}

/* ---- several ---- */

static bool at_tuple_end(const struct parser *p) {
    return p->at->kind == JT_PRINT_END || p->at->kind == JT_BLOCK_END || parser_is_op(p, ")") ||
           parser_is_op(p, "=");
}

struct jinja_node *parse_tuple(struct parser *p, bool choice) {
    struct jinja_node *first = choice ? parse_expression(p) : parse_or(p), *n, *last = first;
    if (p->rc != 0 || !parser_is_op(p, ",")) return first;
    if (!(n = parser_node(p, JN_TUPLE))) return NULL;
    n->a = first;
    while (p->rc == 0 && parser_take_op(p, ",") && !at_tuple_end(p))
        if ((last->next = choice ? parse_expression(p) : parse_or(p))) last = last->next;
    return n;
}

static struct jinja_node *parse_target_one(struct parser *p, bool place) {
    struct jinja_node *n;
    if (parser_is_op(p, "(")) {
        if (!parser_enter(p)) return NULL;
        p->at++;
        n = parse_target(p, false);
        parser_need_op(p, ")");
        parser_leave(p);
        return n;
    }
    if (!(n = parser_node(p, JN_NAME))) return NULL;
    n->text = parser_need_word(p);
    if (!place || !parser_take_op(p, ".")) return n;
    n->kind = JN_PLACE;
    n->name = parser_need_word(p);
    return n;
}

struct jinja_node *parse_target(struct parser *p, bool place) {
    struct jinja_node *first = parse_target_one(p, place), *n, *last = first;
    if (p->rc != 0 || !parser_is_op(p, ",")) return first;
    if (!(n = parser_node(p, JN_TUPLE))) return NULL;
    n->a = first;
    while (p->rc == 0 && parser_take_op(p, ",") && !at_tuple_end(p) && !parser_is_name(p, "in"))
        if ((last->next = parse_target_one(p, place))) last = last->next;
    return n;
}

struct jinja_node *parse_parameters(struct parser *p) {
    struct jinja_node *first = NULL, **to = &first;
    bool defaults = false;
    parser_need_op(p, "(");
    while (p->rc == 0 && !parser_is_op(p, ")")) {
        if (first) parser_need_op(p, ",");
        struct jinja_node *n = parser_node(p, JN_NAME);
        if (!n) return NULL;
        n->text = parser_need_word(p);
        if (parser_take_op(p, "="))
            defaults = (n->a = parse_expression(p)) != NULL;
        else if (defaults)
            return parser_unexpected(p, "a default, as the parameters before have");
        *to = n;
        to = &n->next;
    }
    parser_need_op(p, ")");
    return first;
}
