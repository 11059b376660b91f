#include <errno.h>

#include "base/err.h"
#include "workers/chat/jinja_run.h"

static int memory(struct jinja_use *u) {
    return run_memory(u->run, u->at);
}

static int str_of(struct jinja_use *u, struct value v, struct bytes *out) {
    struct value s;
    int rc = run_str(u->run, u->at, v, &s);
    *out = s.text;
    return rc;
}

static bool flag(const struct value *v, bool otherwise) {
    return v ? value_truth(*v) : otherwise;
}

static int do_first(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    if (u->in.kind == JV_ITER) {
        struct jinja_seq *s = u->in.seq;
        *out = s->n ? s->items[0] : value_undefined(bytes_str("the first of nothing"));
        s->items += s->n > 0;
        s->n -= s->n > 0;
        return 0;
    }
    int rc = run_items(u->run, u->at, u->in, &items);
    if (rc == 0)
        *out = items->n ? items->items[0] : value_undefined(bytes_str("the first of nothing"));
    return rc;
}

static int do_last(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    if (u->in.kind == JV_ITER)
        return run_fail(u->run, u->at, ERR_FIELD, "last of an iterator is not possible");
    int rc = run_items(u->run, u->at, u->in, &items);
    if (rc == 0)
        *out = items->n ? items->items[items->n - 1]
                        : value_undefined(bytes_str("the last of nothing"));
    return rc;
}

/* A sequence of that kind with room for n, and the items of the operand. */
static int begin(struct jinja_use *u, enum jinja_kind kind, const struct jinja_seq **items,
                 struct value *out) {
    int rc = run_items(u->run, u->at, u->in, items);
    if (rc == 0) rc = run_spend_items(u->run, u->at, (*items)->n);
    if (rc == 0 && value_seq(u->run->arena, kind, (*items)->n, out) != 0) rc = memory(u);
    return rc;
}

static int do_list(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    int rc = begin(u, JV_LIST, &items, out);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++)
        out->seq->items[out->seq->n++] = items->items[i];
    return rc;
}

static int do_reverse(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    if (u->in.kind == JV_STR) {
        const struct value bounds[] = {value_none(), value_none(), value_int(-1)};
        return run_slice(u->run, u->at, u->in, bounds, out);
    }
    int rc = begin(u, u->in.kind == JV_ITER ? JV_LIST : JV_ITER, &items, out);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++)
        out->seq->items[out->seq->n++] = items->items[items->n - 1 - i];
    return rc;
}

static int do_items(struct jinja_use *u, struct value *out) {
    if (u->in.kind == JV_UNDEFINED)
        return value_seq(u->run->arena, JV_ITER, 0, out) == 0 ? 0 : memory(u);
    if (u->in.kind != JV_DICT)
        return run_fail(u->run, u->at, ERR_FIELD, "items of a %s are not possible",
                        value_type(u->in));
    const struct jinja_args none = {0};
    struct value method;
    int rc = run_member(u->run, u->at, u->in, bytes_str("items"), &method);
    if (rc == 0) rc = run_call(u->run, u->at, method, &none, out);
    out->kind = JV_ITER;
    return rc;
}

/* A part of a path: digits are an index. */
static struct value index_or_name(struct bytes part) {
    const char *d = part.data;
    int64_t n = 0;
    size_t i = 0;
    for (; i < part.len && i < 18 && d[i] >= '0' && d[i] <= '9'; i++) n = n * 10 + (d[i] - '0');
    return part.len > 0 && i == part.len ? value_int(n) : value_text(part);
}

/* "a.0.b" of an item, as Jinja's attribute arguments mean it; `otherwise`, where it is not NULL,
 * stands for each part that is undefined. */
static int attribute_or(struct jinja_use *u, struct value item, const struct value *path,
                        const struct value *otherwise, struct value *out) {
    *out = item;
    if (!path || path->kind == JV_NONE) return 0;
    if (path->kind != JV_STR) {
        int got = run_item(u->run, u->at, item, *path, out);
        if (otherwise && out->kind == JV_UNDEFINED) *out = *otherwise;
        return got;
    }
    struct bytes rest = path->text;
    int rc = 0;
    for (bool more = true; rc == 0 && more;) {
        const char *d = rest.data, *dot = rest.len ? memchr(d, '.', rest.len) : NULL;
        struct bytes part = bytes_of(d, dot ? (size_t)(dot - d) : rest.len);
        struct value key = index_or_name(part);
        rc = run_item(u->run, u->at, *out, key, out);
        if (otherwise && out->kind == JV_UNDEFINED) *out = *otherwise;
        more = dot != NULL;
        if (more) rest = bytes_of(dot + 1, rest.len - part.len - 1);
    }
    return rc;
}

static int attribute(struct jinja_use *u, struct value item, const struct value *path,
                     struct value *out) {
    return attribute_or(u, item, path, NULL, out);
}

static int do_join(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    struct bytes between = bytes_str(""), s;
    int rc = u->args[0] ? str_of(u, *u->args[0], &between) : 0;
    if (rc == 0) rc = run_items(u->run, u->at, u->in, &items);
    if (rc != 0) return rc;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    for (uint32_t i = 0; rc == 0 && i < items->n && !b.error; i++) {
        struct value v;
        rc = attribute(u, items->items[i], u->args[1], &v);
        if (rc == 0) rc = str_of(u, v, &s);
        if (rc == 0 && i) buf_append(&b, between.data, between.len);
        if (rc == 0) buf_append(&b, s.data, s.len);
    }
    if (rc == 0) return run_take(u->run, u->at, &b, out);
    buf_fini(&b);
    return rc;
}

static int do_sum(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    int rc = run_items(u->run, u->at, u->in, &items);
    *out = u->args[1] ? *u->args[1] : value_int(0);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++) {
        struct value v;
        rc = attribute(u, items->items[i], u->args[0], &v);
        if (rc == 0) rc = run_spend(u->run, u->at, 0);
        if (rc == 0) rc = run_binary(u->run, u->at, JO_ADD, *out, v, out);
    }
    return rc;
}

/* ---- order ---- */

/* What an item is ordered or told apart by. */
static int key_of(struct jinja_use *u, struct value item, const struct value *path, bool exact,
                  struct value *out) {
    int rc = attribute(u, item, path, out);
    if (rc != 0 || exact || out->kind != JV_STR) return rc;
    const struct jinja_args none = {0};
    return run_filter(u->run, u->at, jinja_filter_find(bytes_str("lower")), *out, &none, out);
}

static int sort_by(struct jinja_use *u, const struct value *path, bool exact, bool down,
                   struct value list) {
    uint32_t n = list.seq->n;
    struct value *items = list.seq->items,
                 *keys = arena_calloc(u->run->arena, n + 1u, sizeof *keys);
    int rc = keys ? 0 : memory(u);
    for (uint32_t i = 0; rc == 0 && i < n; i++) rc = key_of(u, items[i], path, exact, &keys[i]);
    /* By insertion: stable, and lists here are short; every step is counted. */
    for (uint32_t i = 1; rc == 0 && i < n; i++) {
        struct value item = items[i], key = keys[i];
        uint32_t k = i;
        for (bool less = true; rc == 0 && k > 0; k--) {
            struct value a = down ? keys[k - 1] : key, b = down ? key : keys[k - 1];
            if ((rc = run_compare(u->run, u->at, JO_LT, a, b, &less)) != 0 || !less) break;
            if ((rc = run_spend(u->run, u->at, 0)) != 0) break;
            items[k] = items[k - 1];
            keys[k] = keys[k - 1];
        }
        items[k] = item;
        keys[k] = key;
    }
    return rc;
}

static int do_sort(struct jinja_use *u, struct value *out) {
    int rc = do_list(u, out);
    return rc == 0 ? sort_by(u, u->args[2], flag(u->args[1], false), flag(u->args[0], false), *out)
                   : rc;
}

static int do_dictsort(struct jinja_use *u, struct value *out) {
    struct value by =
        value_int(u->args[1] && value_equal(*u->args[1], value_text(bytes_str("value"))));
    if (u->in.kind == JV_UNDEFINED) return run_undefined(u->run, u->at, u->in);
    int rc = do_items(u, out);
    out->kind = JV_LIST;
    return rc == 0 ? sort_by(u, &by, flag(u->args[0], false), flag(u->args[2], false), *out) : rc;
}

static int extreme(struct jinja_use *u, enum jinja_op op, struct value *out) {
    const struct jinja_seq *items;
    struct value best = {0}, key;
    int rc = run_items(u->run, u->at, u->in, &items);
    if (rc != 0) return rc;
    *out = value_undefined(bytes_str("the least or greatest of nothing"));
    for (uint32_t i = 0; rc == 0 && i < items->n; i++) {
        bool better = i == 0;
        rc = key_of(u, items->items[i], u->args[1], flag(u->args[0], false), &key);
        if (rc == 0 && i) rc = run_compare(u->run, u->at, op, key, best, &better);
        if (rc != 0 || !better) continue;
        best = key;
        *out = items->items[i];
    }
    return rc;
}
static int do_min(struct jinja_use *u, struct value *out) {
    return extreme(u, JO_LT, out);
}
static int do_max(struct jinja_use *u, struct value *out) {
    return extreme(u, JO_GT, out);
}

static int do_unique(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    struct value keys;
    int rc = begin(u, JV_ITER, &items, out);
    if (rc == 0 && value_seq(u->run->arena, JV_LIST, items->n, &keys) != 0) rc = memory(u);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++) {
        bool seen;
        struct value key;
        rc = key_of(u, items->items[i], u->args[1], flag(u->args[0], false), &key);
        if (rc == 0 && (key.kind == JV_LIST || key.kind == JV_DICT))
            rc = run_fail(u->run, u->at, ERR_FIELD, "unique of a %s is not possible",
                          value_type(key));
        if (rc != 0 || (rc = run_compare(u->run, u->at, JO_IN, key, keys, &seen)) != 0 || seen)
            continue;
        keys.seq->items[keys.seq->n++] = key;
        out->seq->items[out->seq->n++] = items->items[i];
    }
    return rc;
}

/* ---- filters and tests over sequences ---- */

/* The arguments behind the first n. */
static struct jinja_args behind(struct jinja_args all, uint32_t n) {
    if (n > all.n) n = all.n;
    return (struct jinja_args){n ? all.values + n : all.values, n ? all.names + n : all.names,
                               all.n - n};
}

/* Of what is false, whatever it is, Jinja picks nothing. */
static int nothing(struct jinja_use *u, struct value *out) {
    return value_seq(u->run->arena, JV_ITER, 0, out) == 0 ? 0 : memory(u);
}

static int do_map(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    const struct jinja_filter *row = NULL;
    const struct value *path = NULL, *otherwise = NULL;
    if (!value_truth(u->in)) return nothing(u, out);
    for (uint32_t i = 0; i < u->all.n; i++) {
        if (u->all.names[i].data && bytes_is(u->all.names[i], "attribute"))
            path = &u->all.values[i];
        if (u->all.names[i].data && bytes_is(u->all.names[i], "default"))
            otherwise = &u->all.values[i];
    }
    if (!path) {
        if (u->all.n && !u->all.names[0].data && u->all.values[0].kind == JV_STR)
            row = jinja_filter_find(u->all.values[0].text);
        if (!row)
            return run_fail(u->run, u->at, ERR_FIELD,
                            "map takes attribute=NAME or the name of a supported filter");
    }
    const struct jinja_args args = behind(u->all, 1);
    int rc = begin(u, JV_ITER, &items, out);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++) {
        struct value v = items->items[i];
        rc = row ? run_filter(u->run, u->at, row, v, &args, &v)
                 : attribute_or(u, v, path, otherwise, &v);
        out->seq->items[out->seq->n++] = v;
    }
    return rc;
}

/* Those items that a test holds for, or does not; of an attribute where `by` says so. */
static int pick(struct jinja_use *u, bool by, bool wanted, struct value *out) {
    const struct jinja_seq *items;
    const struct jinja_test *row = NULL;
    uint32_t at = by ? 1 : 0;
    if (!value_truth(u->in)) return nothing(u, out);
    if (by && u->all.n == 0)
        return run_fail(u->run, u->at, ERR_FIELD, "the name of an attribute is missing");
    if (u->all.n > at) {
        if (u->all.values[at].kind == JV_STR) row = jinja_test_find(u->all.values[at].text);
        if (!row) return run_fail(u->run, u->at, ERR_FIELD, "a test of that name is not supported");
    }
    const struct jinja_args args = behind(u->all, at + 1);
    int rc = begin(u, JV_ITER, &items, out);
    for (uint32_t i = 0; rc == 0 && i < items->n; i++) {
        struct value v;
        rc = attribute(u, items->items[i], by ? &u->all.values[0] : NULL, &v);
        bool yes = rc == 0 && value_truth(v);
        if (rc == 0 && row) rc = run_test(u->run, u->at, row, v, &args, &yes);
        if (rc == 0 && yes == wanted) out->seq->items[out->seq->n++] = items->items[i];
    }
    return rc;
}
static int do_select(struct jinja_use *u, struct value *out) {
    return pick(u, false, true, out);
}
static int do_reject(struct jinja_use *u, struct value *out) {
    return pick(u, false, false, out);
}
static int do_selectattr(struct jinja_use *u, struct value *out) {
    return pick(u, true, true, out);
}
static int do_rejectattr(struct jinja_use *u, struct value *out) {
    return pick(u, true, false, out);
}

const struct jinja_filter *jinja_filter_seq_find(struct bytes name) {
    static const struct jinja_filter rows[] = {
        {"dictsort", "case_sensitive by reverse", 0, false, do_dictsort},
        {"first", "", 0, false, do_first},
        {"items", "", 0, false, do_items},
        {"join", "d attribute", 0, false, do_join},
        {"last", "", 0, false, do_last},
        {"list", "", 0, false, do_list},
        {"map", NULL, 0, false, do_map},
        {"max", "case_sensitive attribute", 0, false, do_max},
        {"min", "case_sensitive attribute", 0, false, do_min},
        {"reject", NULL, 0, false, do_reject},
        {"rejectattr", NULL, 0, false, do_rejectattr},
        {"reverse", "", 0, false, do_reverse},
        {"select", NULL, 0, false, do_select},
        {"selectattr", NULL, 0, false, do_selectattr},
        {"sort", "reverse case_sensitive attribute", 0, false, do_sort},
        {"sum", "attribute start", 0, false, do_sum},
        {"unique", "case_sensitive attribute", 0, false, do_unique},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (bytes_is(name, rows[i].name)) return &rows[i];
    return NULL;
}
