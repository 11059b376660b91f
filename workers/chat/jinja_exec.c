#include <errno.h>
#include <stdarg.h>

#include "base/err.h"
#include "workers/chat/jinja_print.h"
#include "workers/chat/jinja_run.h"

/* ---- failing ---- */

int run_fail(struct jinja_run *r, const struct jinja_node *at, int code, const char *format, ...) {
    char what[320];
    va_list args;
    va_start(args, format);
    err_vset(what, sizeof what, 0, format, args);
    va_end(args);
    return err_set(r->err, r->err_bytes, code, "line %u: %s", at->line, what);
}

int run_memory(struct jinja_run *r, const struct jinja_node *at) {
    return run_fail(r, at, ERR_LIMIT, "the template needs more than %zu bytes of memory",
                    r->arena->max_bytes);
}

int run_spend(struct jinja_run *r, const struct jinja_node *at, size_t bytes) {
    r->steps += 1 + bytes / 64;
    if (r->steps <= JINJA_STEPS_MAX) return 0;
    return run_fail(r, at, ERR_LIMIT, "the template takes more than %u steps", JINJA_STEPS_MAX);
}

int run_spend_items(struct jinja_run *r, const struct jinja_node *at, uint32_t items) {
    return run_spend(r, at, (size_t)items * 8);
}

/* ---- names ---- */

struct jinja_scope *run_scope(struct jinja_run *r, struct jinja_scope *up) {
    struct jinja_scope *s = arena_calloc(r->arena, 1, sizeof *s);
    if (s) s->up = up;
    return s;
}

int run_set(struct jinja_run *r, const struct jinja_node *at, struct bytes name,
            struct value value) {
    struct jinja_var *v = r->scope->vars;
    while (v && !bytes_eq(v->name, name)) v = v->next;
    if (!v) {
        if (!(v = arena_calloc(r->arena, 1, sizeof *v))) return run_memory(r, at);
        v->name = name;
        v->next = r->scope->vars;
        r->scope->vars = v;
    }
    v->value = value;
    return 0;
}

static int set_place(struct jinja_run *r, const struct jinja_node *target, struct value value) {
    struct jinja_node name = {.kind = JN_NAME, .line = target->line, .text = target->text};
    struct value space;
    int rc = run_eval(r, &name, &space);
    if (rc != 0) return rc;
    if (space.kind != JV_NAMESPACE)
        return run_fail(r, target, ERR_FIELD, "cannot set .%.*s of a %s: it is no namespace",
                        (int)target->name.len, (const char *)target->name.data, value_type(space));
    if (*(const char *)target->name.data == '_')
        return run_fail(r, target, ERR_FIELD, "a namespace takes no name that begins with _");
    rc = run_spend_items(r, target, space.dict->n);
    if (rc == 0 && value_put(r->arena, space, value_text(target->name), value) != 0)
        rc = run_memory(r, target);
    return rc;
}

static int assign(struct jinja_run *r, const struct jinja_node *target, struct value value) {
    if (target->kind == JN_NAME) return run_set(r, target, target->text, value);
    if (target->kind == JN_PLACE) return set_place(r, target, value);
    const struct jinja_seq *items;
    uint32_t i = 0;
    int rc = run_items(r, target, value, &items);
    for (const struct jinja_node *t = target->a; rc == 0 && t; t = t->next, i++) {
        if (i == items->n)
            return run_fail(r, target, ERR_FIELD, "not enough values to unpack: %u", items->n);
        rc = assign(r, t, items->items[i]);
    }
    if (rc == 0 && i != items->n)
        rc = run_fail(r, target, ERR_FIELD, "too many values to unpack: %u, not %u", items->n, i);
    return rc;
}

/* ---- statements ---- */

static int run_print(struct jinja_run *r, const struct jinja_node *n) {
    struct value v;
    int rc = run_eval(r, n->a, &v);
    if (rc != 0) return rc;
    size_t before = r->out->len;
    rc = print_str(v, r->out);
    if (rc == ERR_FIELD)
        return run_fail(r, n, ERR_FIELD, "printing a %s is not supported", value_type(v));
    if (rc == ERR_LIMIT && !r->out->error)
        return run_fail(r, n, ERR_LIMIT, "more than %u levels to print", JINJA_NEST_MAX);
    return rc == 0 ? run_spend(r, n, r->out->len - before) : rc;
}

static int run_if(struct jinja_run *r, const struct jinja_node *n) {
    while (n) {
        struct value v;
        int rc = run_eval(r, n->a, &v);
        if (rc == 0) rc = run_spend(r, n, 0);
        if (rc != 0) return rc;
        if (value_truth(v)) return run_body(r, n->b);
        /* An elif is an if alone in the else of the one before. */
        if (!n->c || n->c->kind != JN_IF || n->c->next) return run_body(r, n->c);
        n = n->c;
    }
    return 0;
}

/* The items that the loop's condition lets through. */
static int filter_items(struct jinja_run *r, const struct jinja_node *n,
                        const struct jinja_seq **items) {
    struct jinja_scope *outer = r->scope;
    struct value kept, v;
    int rc = value_seq(r->arena, JV_LIST, (*items)->n, &kept);
    if (rc != 0) return run_memory(r, n);
    for (uint32_t i = 0; rc == 0 && i < (*items)->n; i++) {
        if (!(r->scope = run_scope(r, outer))) rc = run_memory(r, n);
        if (rc == 0 && (rc = assign(r, n->a, (*items)->items[i])) == 0 &&
            (rc = run_eval(r, n->c, &v)) == 0 && value_truth(v))
            rc = value_push(r->arena, kept, (*items)->items[i]); /* there is room */
        r->scope = outer;
    }
    *items = kept.seq;
    return rc;
}

static int run_for(struct jinja_run *r, const struct jinja_node *n) {
    static const char name[] = "loop";
    struct jinja_scope *outer = r->scope;
    const struct jinja_seq *items;
    struct value over;
    int rc = run_eval(r, n->b, &over);
    if (rc == 0) rc = run_items(r, n, over, &items);
    if (rc == 0 && n->c) rc = filter_items(r, n, &items);
    if (rc != 0) return rc;
    struct jinja_loop *loop = arena_calloc(r->arena, 1, sizeof *loop);
    if (!loop) return run_memory(r, n);
    loop->items = items;
    for (; rc == 0 && loop->i < items->n; loop->i++) {
        struct value self = {.kind = JV_LOOP, .loop = loop};
        if (!(r->scope = run_scope(r, outer))) rc = run_memory(r, n);
        if (rc == 0) rc = run_spend(r, n, 0);
        if (rc == 0) rc = run_set(r, n, bytes_of(name, sizeof name - 1), self);
        if (rc == 0) rc = assign(r, n->a, items->items[loop->i]);
        if (rc == 0) rc = run_body(r, n->d);
        if (rc == RUN_CONTINUE) rc = 0;
        r->scope = outer;
    }
    if (rc == 0 && items->n == 0 && n->e) {
        if (!(r->scope = run_scope(r, outer))) rc = run_memory(r, n);
        if (rc == 0) rc = run_body(r, n->e);
        r->scope = outer;
    }
    return rc == RUN_BREAK ? 0 : rc;
}

int run_capture(struct jinja_run *r, const struct jinja_node *first, struct value *out) {
    struct buf text = {.max_bytes = r->out->max_bytes}, *outside = r->out;
    struct jinja_node none = {.kind = JN_TEXT};
    r->out = &text;
    int rc = run_body(r, first);
    r->out = outside;
    if (rc == 0) return run_take(r, first ? first : &none, &text, out);
    buf_fini(&text);
    return rc;
}

/* A body as a string, in a scope of its own. */
static int capture_inside(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct jinja_scope *outer = r->scope;
    if (!(r->scope = run_scope(r, outer))) {
        r->scope = outer;
        return run_memory(r, n);
    }
    int rc = run_capture(r, n->d, out);
    r->scope = outer;
    return rc;
}

static int run_set_block(struct jinja_run *r, const struct jinja_node *n) {
    struct value v;
    int rc = capture_inside(r, n, &v);
    if (rc == 0 && n->b) rc = run_filters(r, n->b, v, &v);
    return rc == 0 ? assign(r, n->a, v) : rc;
}

static int run_filter_block(struct jinja_run *r, const struct jinja_node *n) {
    struct value v;
    int rc = capture_inside(r, n, &v);
    if (rc == 0) rc = run_filters(r, n->a, v, &v);
    if (rc == 0) rc = run_str(r, n, v, &v);
    return rc == 0 ? buf_append(r->out, v.text.data, v.text.len) : rc;
}

static int make_macro(struct jinja_run *r, const struct jinja_node *n,
                      const struct jinja_node *params, struct value *out) {
    struct jinja_macro *m = arena_calloc(r->arena, 1, sizeof *m);
    if (!m) return run_memory(r, n);
    *m = (struct jinja_macro){params, n->d, n->text, r->scope};
    *out = (struct value){.kind = JV_MACRO, .macro = m};
    return 0;
}

static int run_macro(struct jinja_run *r, const struct jinja_node *n) {
    struct value v;
    int rc = make_macro(r, n, n->a, &v);
    return rc == 0 ? run_set(r, n, n->text, v) : rc;
}

/* The body becomes the macro `caller` of what is called. */
static int run_call_block(struct jinja_run *r, const struct jinja_node *n) {
    struct value callee, caller, v;
    struct jinja_args args, with;
    int rc = run_eval(r, n->a->a, &callee);
    if (rc == 0) rc = run_args(r, n->a->b, &args);
    if (rc == 0) rc = make_macro(r, n, n->b, &caller);
    if (rc != 0) return rc;
    with.n = args.n + 1;
    with.values = arena_calloc(r->arena, with.n, sizeof *with.values);
    with.names = arena_calloc(r->arena, with.n, sizeof *with.names);
    if (!with.values || !with.names) return run_memory(r, n);
    if (args.n) {
        memcpy(with.values, args.values, args.n * sizeof *args.values);
        memcpy(with.names, args.names, args.n * sizeof *args.names);
    }
    with.values[args.n] = caller;
    with.names[args.n] = bytes_str("caller");
    if ((rc = run_call(r, n, callee, &with, &v)) == 0) rc = run_str(r, n, v, &v);
    return rc == 0 ? buf_append(r->out, v.text.data, v.text.len) : rc;
}

static int run_with(struct jinja_run *r, const struct jinja_node *n) {
    struct jinja_scope *outer = r->scope, *inner = run_scope(r, outer);
    if (!inner) return run_memory(r, n);
    int rc = 0;
    const struct jinja_node *value = n->b;
    for (const struct jinja_node *t = n->a; rc == 0 && t; t = t->next, value = value->next) {
        struct value v;
        if ((rc = run_eval(r, value, &v)) != 0) break; /* in the scope outside */
        r->scope = inner;
        rc = assign(r, t, v);
        r->scope = outer;
    }
    r->scope = inner;
    if (rc == 0) rc = run_body(r, n->d);
    r->scope = outer;
    return rc;
}

static int run_statement(struct jinja_run *r, const struct jinja_node *n) {
    struct value v;
    int rc;
    switch (n->kind) {
    case JN_TEXT: return buf_append(r->out, n->text.data, n->text.len);
    case JN_PRINT: return run_print(r, n);
    case JN_IF: return run_if(r, n);
    case JN_FOR: return run_for(r, n);
    case JN_SET: rc = run_eval(r, n->b, &v); return rc == 0 ? assign(r, n->a, v) : rc;
    case JN_SET_BLOCK: return run_set_block(r, n);
    case JN_MACRO: return run_macro(r, n);
    case JN_CALL_BLOCK: return run_call_block(r, n);
    case JN_FILTER_BLOCK: return run_filter_block(r, n);
    case JN_WITH: return run_with(r, n);
    case JN_GENERATION:
        rc = capture_inside(r, n, &v);
        return rc == 0 ? buf_append(r->out, v.text.data, v.text.len) : rc;
    case JN_BREAK: return RUN_BREAK;
    default: return RUN_CONTINUE;
    }
}

int run_body(struct jinja_run *r, const struct jinja_node *first) {
    int rc = 0;
    if (++r->depth > JINJA_CALLS_MAX && first)
        rc = run_fail(r, first, ERR_LIMIT, "more than %u evaluations in each other",
                      JINJA_CALLS_MAX);
    for (const struct jinja_node *n = first; rc == 0 && n; n = n->next) {
        rc = run_statement(r, n);
        if (rc >= 0 && r->out->error) rc = r->out->error;
        if (rc < 0 && rc == r->out->error)
            rc = run_fail(r, n, ERR_LIMIT, "the template writes more than %zu bytes",
                          r->out->max_bytes);
    }
    r->depth--;
    return rc;
}
