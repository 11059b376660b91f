#include <errno.h>

#include "base/err.h"
#include "workers/chat/jinja_print.h"
#include "workers/chat/jinja_run.h"

static int eval_name(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    for (const struct jinja_scope *s = r->scope; s; s = s->up) {
        const struct jinja_var *v = s->vars;
        while (v && !bytes_eq(v->name, n->text)) v = v->next;
        if (!v) continue;
        *out = v->value;
        return 0;
    }
    const struct value *given = value_get(r->vars, value_text(n->text));
    const struct jinja_function *f = given ? NULL : jinja_function_find(n->text);
    if (f && !f->call)
        return run_fail(r, n, ERR_FIELD, "the function %s is not supported", f->name);
    if (given)
        *out = *given;
    else if (f)
        *out = (struct value){.kind = JV_FUNCTION, .function = f};
    else
        *out = value_undefined(n->text);
    return 0;
}

static int eval_list(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    enum jinja_kind kind = n->kind == JN_LIST ? JV_LIST : JV_TUPLE;
    int rc = value_seq(r->arena, kind, 0, out);
    for (const struct jinja_node *item = n->a; rc == 0 && item; item = item->next) {
        struct value v;
        if ((rc = run_eval(r, item, &v)) != 0) return rc;
        rc = value_push(r->arena, *out, v);
    }
    return rc == -ENOMEM ? run_memory(r, n) : rc;
}

static int eval_dict(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    int rc = value_dict(r->arena, JV_DICT, 0, out);
    for (const struct jinja_node *key = n->a; rc == 0 && key; key = key->next->next) {
        struct value k, v;
        if ((rc = run_eval(r, key, &k)) != 0 || (rc = run_eval(r, key->next, &v)) != 0) return rc;
        if (k.kind != JV_STR && k.kind != JV_NONE && !value_is_number(k))
            return run_fail(r, key, ERR_FIELD, "a %s as a key is not supported", value_type(k));
        rc = value_put(r->arena, *out, k, v);
    }
    return rc == -ENOMEM ? run_memory(r, n) : rc;
}

static int eval_item(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value object, key, bounds[3];
    int rc = run_eval(r, n->a, &object);
    if (rc != 0) return rc;
    if (n->b->kind != JN_SLICE) {
        rc = run_eval(r, n->b, &key);
        return rc == 0 ? run_item(r, n, object, key, out) : rc;
    }
    const struct jinja_node *const parts[] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++) {
        bounds[i] = value_none();
        if (parts[i] && (rc = run_eval(r, parts[i], &bounds[i])) != 0) return rc;
    }
    return run_slice(r, n, object, bounds, out);
}

int run_args(struct jinja_run *r, const struct jinja_node *list, struct jinja_args *out) {
    uint32_t n = 0;
    int rc = 0;
    for (const struct jinja_node *a = list; a; a = a->next) n++;
    *out = (struct jinja_args){0};
    if (n == 0) return 0;
    out->values = arena_calloc(r->arena, n, sizeof *out->values);
    out->names = arena_calloc(r->arena, n, sizeof *out->names);
    if (!out->values || !out->names) return run_memory(r, list);
    for (const struct jinja_node *a = list; rc == 0 && a; a = a->next, out->n++) {
        out->names[out->n] = a->name;
        rc = run_eval(r, a->a, &out->values[out->n]);
    }
    return rc;
}

static int eval_call(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value callee;
    struct jinja_args args;
    int rc = run_eval(r, n->a, &callee);
    if (rc == 0) rc = run_args(r, n->b, &args);
    return rc == 0 ? run_call(r, n, callee, &args, out) : rc;
}

static int apply(struct jinja_run *r, const struct jinja_node *n, struct value in,
                 struct value *out) {
    struct jinja_args args;
    int rc = run_args(r, n->b, &args);
    return rc == 0 ? run_filter(r, n, n->what, in, &args, out) : rc;
}

int run_filters(struct jinja_run *r, const struct jinja_node *n, struct value in,
                struct value *out) {
    int rc = n->a ? run_filters(r, n->a, in, &in) : 0;
    return rc == 0 ? apply(r, n, in, out) : rc;
}

static int eval_test(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value in;
    struct jinja_args args;
    bool yes = false;
    int rc = run_eval(r, n->a, &in);
    if (rc == 0) rc = run_args(r, n->b, &args);
    if (rc == 0) rc = run_test(r, n, n->what, in, &args, &yes);
    *out = value_bool(yes);
    return rc;
}

/* a < b < c is a < b and b < c, with b evaluated once. */
static int eval_compare(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value left, right;
    bool yes = true;
    int rc = run_eval(r, n->a, &left);
    for (const struct jinja_node *o = n->b; rc == 0 && yes && o; o = o->next) {
        if ((rc = run_eval(r, o->a, &right)) == 0) rc = run_compare(r, o, o->op, left, right, &yes);
        left = right;
    }
    *out = value_bool(yes);
    return rc;
}

static int eval_concat(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct buf text = {.max_bytes = r->out->max_bytes};
    int rc = 0;
    for (const struct jinja_node *item = n->a; rc == 0 && item; item = item->next) {
        struct value v;
        if ((rc = run_eval(r, item, &v)) == 0 && (rc = run_str(r, n, v, &v)) == 0)
            rc = buf_append(&text, v.text.data, v.text.len);
    }
    if (rc == 0 || rc == text.error) return run_take(r, n, &text, out);
    buf_fini(&text);
    return rc;
}

static int eval_sign(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value v;
    int rc = run_eval(r, n->a, &v);
    if (rc != 0) return rc;
    if (v.kind == JV_UNDEFINED) return run_undefined(r, n, v);
    if (!value_is_number(v))
        return run_fail(r, n, ERR_FIELD, "a sign in front of a %s", value_type(v));
    if (v.kind == JV_FLOAT)
        *out = value_real(n->kind == JN_MINUS ? -v.real : v.real);
    else if (n->kind == JN_MINUS)
        return run_binary(r, n, JO_SUB, value_int(0), v, out);
    else
        *out = value_int(value_whole(v));
    return 0;
}

static int eval_choice(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value v;
    int rc = run_eval(r, n->a, &v);
    if (rc != 0) return rc;
    if (value_truth(v)) return run_eval(r, n->b, out);
    if (n->c) return run_eval(r, n->c, out);
    *out = value_undefined(bytes_str("the else of an if without one"));
    return 0;
}

static int eval(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    struct value a, b;
    int rc;
    switch (n->kind) {
    case JN_CONST: *out = n->value; return 0;
    case JN_NAME: return eval_name(r, n, out);
    case JN_TUPLE:
    case JN_LIST: return eval_list(r, n, out);
    case JN_DICT: return eval_dict(r, n, out);
    case JN_MEMBER:
        rc = run_eval(r, n->a, &a);
        return rc == 0 ? run_member(r, n, a, n->text, out) : rc;
    case JN_ITEM: return eval_item(r, n, out);
    case JN_CALL: return eval_call(r, n, out);
    case JN_FILTER: rc = run_eval(r, n->a, &a); return rc == 0 ? apply(r, n, a, out) : rc;
    case JN_TEST: return eval_test(r, n, out);
    case JN_AND:
    case JN_OR:
        rc = run_eval(r, n->a, out);
        if (rc != 0 || value_truth(*out) == (n->kind == JN_OR)) return rc;
        return run_eval(r, n->b, out);
    case JN_NOT:
        rc = run_eval(r, n->a, &a);
        if (rc == 0) *out = value_bool(!value_truth(a));
        return rc;
    case JN_MINUS:
    case JN_PLUS: return eval_sign(r, n, out);
    case JN_BINARY:
        if ((rc = run_eval(r, n->a, &a)) != 0 || (rc = run_eval(r, n->b, &b)) != 0) return rc;
        return run_binary(r, n, n->op, a, b, out);
    case JN_COMPARE: return eval_compare(r, n, out);
    case JN_CONCAT: return eval_concat(r, n, out);
    case JN_CHOICE: return eval_choice(r, n, out);
    default: return run_fail(r, n, ERR_FIELD, "this expression is not supported");
    }
}

int run_eval(struct jinja_run *r, const struct jinja_node *n, struct value *out) {
    if (++r->depth > JINJA_CALLS_MAX) {
        r->depth--;
        return run_fail(r, n, ERR_LIMIT, "more than %u evaluations in each other", JINJA_CALLS_MAX);
    }
    int rc = run_spend(r, n, 0);
    if (rc == 0) rc = eval(r, n, out);
    r->depth--;
    return rc;
}
