#include "workers/chat/jinja_parse.h"

#include <errno.h>
#include <stdarg.h>

#include "base/err.h"
#include "workers/chat/jinja_parser.h"

/* ---- what the expressions use too ---- */

static const struct jinja_token end_of_all = {.kind = JT_END};

void *parser_fail(struct parser *p, const char *format, ...) {
    char what[256];
    va_list args;
    if (p->rc != 0) return NULL;
    va_start(args, format);
    err_vset(what, sizeof what, 0, format, args);
    va_end(args);
    p->rc = err_set(p->err, p->err_bytes, ERR_FIELD, "line %u: %s", p->at->line, what);
    p->at = &end_of_all;
    return NULL;
}

void *parser_unexpected(struct parser *p, const char *wanted) {
    static const char *const names[] = {[JT_END] = "the end of the template",
                                        [JT_TEXT] = "text",
                                        [JT_PRINT] = "{{",
                                        [JT_PRINT_END] = "}}",
                                        [JT_BLOCK] = "{%",
                                        [JT_BLOCK_END] = "%}",
                                        [JT_STR] = "a string"};
    const struct jinja_token *t = p->at;
    const char *name = t->kind < JT_NAME || t->kind == JT_STR ? names[t->kind] : NULL;
    size_t n = name ? strlen(name) : utf8_cut(t->text, 40);
    return parser_fail(p, "%.*s stands where %s is expected", (int)n,
                       name ? name : (const char *)t->text.data, wanted);
}

struct jinja_node *parser_node(struct parser *p, enum jinja_node_kind kind) {
    struct jinja_node *n = p->rc == 0 ? arena_calloc(p->arena, 1, sizeof *n) : NULL;
    if (n) {
        n->kind = kind;
        n->line = p->at->line;
    } else if (p->rc == 0) {
        p->rc = err_set(p->err, p->err_bytes, ERR_LIMIT, "line %u: the template is too large",
                        p->at->line);
        p->at = &end_of_all;
    }
    return n;
}

bool parser_enter(struct parser *p) {
    if (p->rc == 0 && p->depth++ < JINJA_DEPTH_MAX) return true;
    parser_fail(p, "more than %u blocks and brackets in each other", JINJA_DEPTH_MAX);
    return false;
}

void parser_leave(struct parser *p) {
    p->depth--;
}

bool parser_is_name(const struct parser *p, const char *name) {
    return p->at->kind == JT_NAME && bytes_is(p->at->text, name);
}

bool parser_is_op(const struct parser *p, const char *op) {
    return p->at->kind == JT_OP && bytes_is(p->at->text, op);
}

bool parser_take_name(struct parser *p, const char *name) {
    if (!parser_is_name(p, name)) return false;
    p->at++;
    return true;
}

bool parser_take_op(struct parser *p, const char *op) {
    if (!parser_is_op(p, op)) return false;
    p->at++;
    return true;
}

void parser_need_op(struct parser *p, const char *op) {
    char wanted[8];
    err_set(wanted, sizeof wanted, 0, "\"%s\"", op);
    if (!parser_take_op(p, op)) parser_unexpected(p, wanted);
}

struct bytes parser_need_word(struct parser *p) {
    if (p->at->kind == JT_NAME) return (p->at++)->text;
    parser_unexpected(p, "a name");
    return (struct bytes){0};
}

/* ---- statements ---- */

static struct jinja_node *parse_body(struct parser *p, const char *const *ends, uint32_t *which);

static void need_block_end(struct parser *p) {
    if (p->at->kind == JT_BLOCK_END)
        p->at++;
    else
        parser_unexpected(p, "%}");
}

/* The statements up to {% end %}, which is taken. */
static struct jinja_node *body_until(struct parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    uint32_t which;
    need_block_end(p);
    struct jinja_node *body = parse_body(p, ends, &which);
    need_block_end(p);
    return body;
}

static struct jinja_node *parse_if(struct parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jinja_node *first = parser_node(p, JN_IF), *n = first;
    for (uint32_t which = 0; n && p->rc == 0;) {
        n->a = parse_tuple(p, false);
        need_block_end(p);
        n->b = parse_body(p, ends, &which);
        if (p->rc != 0 || which == 2) break;
        if (which == 1) {
            n->c = body_until(p, "endif");
            return first;
        }
        n->c = parser_node(p, JN_IF);
        n = n->c;
    }
    need_block_end(p);
    return first;
}

static struct jinja_node *parse_for(struct parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL};
    struct jinja_node *n = parser_node(p, JN_FOR);
    uint32_t which = 0;
    if (!n) return NULL;
    n->a = parse_target(p, false);
    if (!parser_take_name(p, "in")) parser_unexpected(p, "\"in\"");
    n->b = parse_tuple(p, false);
    if (parser_take_name(p, "if")) n->c = parse_expression(p);
    if (parser_is_name(p, "recursive")) parser_fail(p, "a recursive loop is not supported");
    need_block_end(p);
    p->loops++;
    n->d = parse_body(p, ends, &which);
    p->loops--;
    if (which == 1)
        n->e = body_until(p, "endfor");
    else
        need_block_end(p);
    return n;
}

static struct jinja_node *parse_set(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_SET);
    if (!n) return NULL;
    n->a = parse_target(p, true);
    if (parser_take_op(p, "=")) {
        n->b = parse_tuple(p, true);
        need_block_end(p);
        return n;
    }
    n->kind = JN_SET_BLOCK;
    if (parser_take_op(p, "|")) n->b = parse_filters(p);
    n->d = body_until(p, "endset");
    return n;
}

/* The body of a macro or of what is called like one: a loop around it cannot be left from it. */
static struct jinja_node *closed_body(struct parser *p, const char *end) {
    uint32_t loops = p->loops;
    p->loops = 0;
    struct jinja_node *body = body_until(p, end);
    p->loops = loops;
    return body;
}

static struct jinja_node *parse_macro(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_MACRO);
    if (!n) return NULL;
    n->text = parser_need_word(p);
    n->a = parse_parameters(p);
    n->d = closed_body(p, "endmacro");
    return n;
}

static struct jinja_node *parse_call_block(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_CALL_BLOCK);
    if (!n) return NULL;
    if (parser_is_op(p, "(")) n->b = parse_parameters(p);
    n->a = parse_expression(p);
    if (p->rc == 0 && n->a->kind != JN_CALL) return parser_unexpected(p, "the call of a macro");
    n->d = closed_body(p, "endcall");
    return n;
}

static struct jinja_node *parse_with(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_WITH), **target, **value;
    if (!n) return NULL;
    target = &n->a;
    value = &n->b;
    while (p->rc == 0 && p->at->kind != JT_BLOCK_END) {
        if (n->a) parser_need_op(p, ",");
        if ((*target = parse_target(p, false))) target = &(*target)->next;
        parser_need_op(p, "=");
        if ((*value = parse_expression(p))) value = &(*value)->next;
    }
    n->d = body_until(p, "endwith");
    return n;
}

static struct jinja_node *parse_filter_block(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_FILTER_BLOCK);
    if (!n) return NULL;
    n->a = parse_filters(p);
    n->d = body_until(p, "endfilter");
    return n;
}

static struct jinja_node *parse_generation(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_GENERATION);
    if (n) n->d = closed_body(p, "endgeneration");
    return n;
}

static struct jinja_node *parse_jump(struct parser *p, enum jinja_node_kind kind) {
    struct jinja_node *n = parser_node(p, kind);
    if (p->loops == 0) return parser_fail(p, "break and continue belong into a loop");
    need_block_end(p);
    return n;
}

static struct jinja_node *parse_statement(struct parser *p) {
    if (parser_take_name(p, "if")) return parse_if(p);
    if (parser_take_name(p, "for")) return parse_for(p);
    if (parser_take_name(p, "set")) return parse_set(p);
    if (parser_take_name(p, "macro")) return parse_macro(p);
    if (parser_take_name(p, "call")) return parse_call_block(p);
    if (parser_take_name(p, "with")) return parse_with(p);
    if (parser_take_name(p, "filter")) return parse_filter_block(p);
    if (parser_take_name(p, "generation")) return parse_generation(p);
    if (parser_take_name(p, "break")) return parse_jump(p, JN_BREAK);
    if (parser_take_name(p, "continue")) return parse_jump(p, JN_CONTINUE);
    if (p->at->kind != JT_NAME) return parser_unexpected(p, "the name of a tag");
    size_t n = utf8_cut(p->at->text, 40);
    return parser_fail(p, "the tag {%% %.*s %%} is not supported", (int)n,
                       (const char *)p->at->text.data);
}

static struct jinja_node *parse_print(struct parser *p) {
    struct jinja_node *n = parser_node(p, JN_PRINT);
    if (!n) return NULL;
    n->a = parse_tuple(p, true);
    if (p->at->kind != JT_PRINT_END) return parser_unexpected(p, "}}");
    p->at++;
    return n;
}

static bool at_end(const struct parser *p, const char *const *ends, uint32_t *which) {
    for (*which = 0; ends && ends[*which]; ++*which)
        if (parser_is_name(p, ends[*which])) return true;
    return false;
}

/* Statements up to a tag of `ends`, behind whose name the parser then stands; to the end of the
 * template where ends is NULL. */
static struct jinja_node *parse_body(struct parser *p, const char *const *ends, uint32_t *which) {
    struct jinja_node *first = NULL, **to = &first;
    *which = 0;
    if (!parser_enter(p)) return NULL;
    while (p->rc == 0) {
        struct jinja_node *n = NULL;
        if (p->at->kind == JT_END) {
            if (ends) parser_fail(p, "{%% %s %%} is missing", ends[0]);
            break;
        }
        if (p->at->kind == JT_TEXT) {
            if ((n = parser_node(p, JN_TEXT))) n->text = (p->at++)->text;
        } else if (p->at->kind == JT_PRINT) {
            p->at++;
            n = parse_print(p);
        } else {
            p->at++;
            if (at_end(p, ends, which)) {
                p->at++;
                break;
            }
            n = parse_statement(p);
        }
        if (!n) break;
        *to = n;
        to = &n->next;
    }
    parser_leave(p);
    return first;
}

int jinja_parse(struct arena *a, struct bytes source, struct jinja_node **out, char *err,
                size_t err_bytes) {
    struct jinja_token *tokens;
    uint32_t n, which;
    int rc = jinja_lex(a, source, &tokens, &n, err, err_bytes);
    if (rc == -ENOMEM) return err_set(err, err_bytes, ERR_LIMIT, "the template is too large");
    if (rc < 0) return rc;
    struct parser p = {.arena = a, .at = tokens, .err = err, .err_bytes = err_bytes};
    *out = parse_body(&p, NULL, &which);
    return p.rc;
}
