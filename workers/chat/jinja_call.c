#include <errno.h>
#include <time.h>

#include "base/err.h"
#include "workers/chat/jinja_run.h"

/* ---- arguments ---- */

/* The i-th word of `params`; false beyond the last. */
static bool param(const char *params, uint32_t i, struct bytes *out) {
    const char *p = params;
    while (i-- > 0 && p) p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL;
    if (!p || !*p) return false;
    *out = bytes_of(p, strcspn(p, " "));
    return true;
}

int run_bind(struct jinja_use *u, const char *what, const char *params, uint32_t required) {
    struct bytes name;
    for (uint32_t i = 0; params && i < u->all.n; i++) {
        uint32_t k = i;
        if (u->all.names[i].data)
            for (k = 0; param(params, k, &name) && !bytes_eq(name, u->all.names[i]);) k++;
        if (k >= JINJA_ARGS_MAX || !param(params, k, &name))
            return run_fail(u->run, u->at, ERR_FIELD, "%s: the argument %s%.*s is not supported",
                            what, u->all.names[i].data ? "" : "in that place",
                            (int)u->all.names[i].len,
                            u->all.names[i].data ? (const char *)u->all.names[i].data : "");
        if (u->args[k])
            return run_fail(u->run, u->at, ERR_FIELD, "%s: the argument %.*s is there twice", what,
                            (int)name.len, (const char *)name.data);
        u->args[k] = &u->all.values[i];
    }
    for (uint32_t k = 0; k < required; k++)
        if (!u->args[k] && param(params, k, &name))
            return run_fail(u->run, u->at, ERR_FIELD, "%s: the argument %.*s is missing", what,
                            (int)name.len, (const char *)name.data);
    return 0;
}

int run_filter(struct jinja_run *r, const struct jinja_node *at, const struct jinja_filter *row,
               struct value in, const struct jinja_args *args, struct value *out) {
    struct jinja_use u = {.run = r, .at = at, .in = in, .all = *args};
    if (in.safe && !row->safe)
        return run_fail(r, at, ERR_FIELD, "the filter %s behind safe or escape is not supported",
                        row->name);
    int rc = run_bind(&u, row->name, row->params, row->required);
    return rc == 0 ? row->apply(&u, out) : rc;
}

int run_test(struct jinja_run *r, const struct jinja_node *at, const struct jinja_test *row,
             struct value in, const struct jinja_args *args, bool *out) {
    struct jinja_use u = {.run = r, .at = at, .in = in, .all = *args};
    int rc = run_bind(&u, row->name, row->params, row->required);
    return rc == 0 ? row->ask(&u, out) : rc;
}

/* ---- macros ---- */

static const struct value *given(const struct jinja_args *args, uint32_t place, struct bytes name) {
    for (uint32_t i = 0; i < args->n; i++)
        if (args->names[i].data ? bytes_eq(args->names[i], name) : i == place)
            return &args->values[i];
    return NULL;
}

static int set_params(struct jinja_run *r, const struct jinja_node *at, const struct jinja_macro *m,
                      const struct jinja_args *args) {
    uint32_t place = 0, used = 0;
    int rc = 0;
    for (const struct jinja_node *p = m->params; rc == 0 && p; p = p->next, place++) {
        const struct value *v = given(args, place, p->text);
        struct value other = value_undefined(p->text);
        used += v != NULL;
        if (!v && p->a) rc = run_eval(r, p->a, &other);
        if (rc == 0) rc = run_set(r, at, p->text, v ? *v : other);
    }
    for (uint32_t i = 0; rc == 0 && i < args->n; i++)
        if (args->names[i].data && bytes_is(args->names[i], "caller")) {
            rc = run_set(r, at, args->names[i], args->values[i]);
            used++;
        }
    if (rc == 0 && used != args->n)
        rc = run_fail(r, at, ERR_FIELD, "the macro %.*s takes other arguments than these %u",
                      (int)m->name.len, m->name.len ? (const char *)m->name.data : "", args->n);
    return rc;
}

static int call_macro(struct jinja_run *r, const struct jinja_node *at, const struct jinja_macro *m,
                      const struct jinja_args *args, struct value *out) {
    struct jinja_scope *before = r->scope;
    if (!(r->scope = run_scope(r, m->scope))) {
        r->scope = before;
        return run_memory(r, at);
    }
    int rc = set_params(r, at, m, args);
    if (rc == 0) rc = run_capture(r, m->body, out);
    r->scope = before;
    return rc;
}

int run_call(struct jinja_run *r, const struct jinja_node *at, struct value callee,
             const struct jinja_args *args, struct value *out) {
    struct jinja_use u = {.run = r, .at = at, .all = *args};
    int rc;
    switch (callee.kind) {
    case JV_UNDEFINED: return run_undefined(r, at, callee);
    case JV_MACRO: return call_macro(r, at, callee.macro, args, out);
    case JV_METHOD:
        u.in = callee.bound->self;
        rc = run_bind(&u, callee.bound->row->name, callee.bound->row->params,
                      callee.bound->row->required);
        return rc == 0 ? callee.bound->row->call(&u, out) : rc;
    case JV_FUNCTION:
        rc =
            run_bind(&u, callee.function->name, callee.function->params, callee.function->required);
        return rc == 0 ? callee.function->call(&u, out) : rc;
    default: return run_fail(r, at, ERR_FIELD, "a %s cannot be called", value_type(callee));
    }
}

/* ---- functions ---- */

static int call_raise(struct jinja_use *u, struct value *out) {
    int rc = run_str(u->run, u->at, *u->args[0], out);
    if (rc != 0) return rc;
    size_t n = utf8_cut(out->text, 240);
    return run_fail(u->run, u->at, ERR_FIELD, "the template refuses these messages: %.*s", (int)n,
                    n ? (const char *)out->text.data : "");
}

static int call_strftime(struct jinja_use *u, struct value *out) {
    char format[128], text[512];
    time_t now = (time_t)u->run->now_s;
    struct tm tm;
    if (u->args[0]->kind != JV_STR ||
        bytes_to_cstr(u->args[0]->text, format, sizeof format - 1) != 0 || !gmtime_r(&now, &tm))
        return run_fail(u->run, u->at, ERR_FIELD, "strftime_now takes a format of 126 bytes");
    /* One sign more, because strftime answers 0 for an empty text and for one that is too long. */
    strcat(format, ".");
    size_t n = strftime(text, sizeof text, format, &tm);
    if (n == 0) return run_fail(u->run, u->at, ERR_LIMIT, "strftime_now: more than 500 bytes");
    const char *copy = arena_strndup(u->run->arena, text, n - 1);
    *out = value_text(bytes_of(copy, n - 1));
    return copy ? 0 : run_memory(u->run, u->at);
}

/* namespace(a=1) and dict(a=1), each with a dict before if wanted. */
static int make_dict(struct jinja_use *u, enum jinja_kind kind, struct value *out) {
    struct arena *a = u->run->arena;
    int rc = value_dict(a, kind, u->all.n, out);
    for (uint32_t i = 0; rc == 0 && i < u->all.n; i++) {
        struct value v = u->all.values[i];
        if (u->all.names[i].data) {
            rc = value_put(a, *out, value_text(u->all.names[i]), v);
            continue;
        }
        if (i > 0 || v.kind != JV_DICT)
            return run_fail(u->run, u->at, ERR_FIELD, "%s of a %s is not supported",
                            kind == JV_DICT ? "dict" : "namespace", value_type(v));
        rc = run_spend_items(u->run, u->at, v.dict->n * 8);
        if (rc != 0) return rc;
        for (uint32_t k = 0; rc == 0 && k < v.dict->n; k++)
            rc = value_put(a, *out, v.dict->pairs[k].key, v.dict->pairs[k].value);
    }
    return rc == 0 ? 0 : run_memory(u->run, u->at);
}

static int call_namespace(struct jinja_use *u, struct value *out) {
    int rc = make_dict(u, JV_NAMESPACE, out);
    for (uint32_t i = 0; rc == 0 && i < out->dict->n; i++) {
        struct value key = out->dict->pairs[i].key;
        if (key.kind == JV_STR && key.text.len && *(const char *)key.text.data == '_')
            rc = run_fail(u->run, u->at, ERR_FIELD, "a namespace takes no name that begins with _");
    }
    return rc;
}

static int call_dict(struct jinja_use *u, struct value *out) {
    return make_dict(u, JV_DICT, out);
}

static int call_range(struct jinja_use *u, struct value *out) {
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        if (!u->args[i]) continue;
        if (!value_is_whole(*u->args[i]))
            return run_fail(u->run, u->at, ERR_FIELD, "range of a %s is not possible",
                            value_type(*u->args[i]));
        v[i] = value_whole(*u->args[i]);
    }
    if (!u->args[1]) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0) return run_fail(u->run, u->at, ERR_FIELD, "range needs a step other than 0");
    if (value_seq(u->run->arena, JV_RANGE, 0, out) != 0) return run_memory(u->run, u->at);
    int rc = 0;
    for (int64_t i = v[0]; rc == 0 && (v[2] > 0 ? i < v[1] : i > v[1]);) {
        if (out->seq->n == 100000) /* Jinja's own cap */
            return run_fail(u->run, u->at, ERR_LIMIT, "range: more than 100000 items");
        if (value_push(u->run->arena, *out, value_int(i)) != 0) rc = run_memory(u->run, u->at);
        if (__builtin_add_overflow(i, v[2], &i)) break;
    }
    if (rc == 0) rc = run_spend_items(u->run, u->at, out->seq->n);
    return rc;
}

const struct jinja_function *jinja_function_find(struct bytes name) {
    static const struct jinja_function rows[] = {
        {"raise_exception", "message", 1, call_raise},
        {"strftime_now", "format", 1, call_strftime},
        {"namespace", NULL, 0, call_namespace},
        {"dict", NULL, 0, call_dict},
        {"range", "start stop step", 1, call_range},
        {"lipsum", NULL, 0, NULL},
        {"cycler", NULL, 0, NULL},
        {"joiner", NULL, 0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (bytes_is(name, rows[i].name)) return &rows[i];
    return NULL;
}
