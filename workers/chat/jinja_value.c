#include "workers/chat/jinja_value.h"

#include <errno.h>
#include <math.h>

#include "base/err.h"
#include "base/json.h"
#include "workers/encode/unicode.h"

int value_seq(struct arena *a, enum jinja_kind kind, uint32_t n, struct value *out) {
    struct jinja_seq *seq = arena_calloc(a, 1, sizeof *seq);
    if (!seq || (n && !(seq->items = arena_calloc(a, n, sizeof *seq->items)))) return -ENOMEM;
    seq->cap = n;
    *out = (struct value){.kind = kind, .seq = seq};
    return 0;
}

int value_push(struct arena *a, struct value seq, struct value item) {
    struct jinja_seq *s = seq.seq;
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        struct value *items = s->cap <= UINT32_MAX / 4 ? arena_calloc(a, cap, sizeof *items) : NULL;
        if (!items) return -ENOMEM;
        if (s->n) memcpy(items, s->items, s->n * sizeof *items);
        s->items = items;
        s->cap = cap;
    }
    s->items[s->n++] = item;
    return 0;
}

int value_dict(struct arena *a, enum jinja_kind kind, uint32_t n, struct value *out) {
    struct jinja_dict *dict = arena_calloc(a, 1, sizeof *dict);
    if (!dict || (n && !(dict->pairs = arena_calloc(a, n, sizeof *dict->pairs)))) return -ENOMEM;
    dict->cap = n;
    *out = (struct value){.kind = kind, .dict = dict};
    return 0;
}

static struct jinja_pair *find(struct jinja_dict *d, struct value key) {
    for (uint32_t i = 0; i < d->n; i++)
        if (value_equal(d->pairs[i].key, key)) return &d->pairs[i];
    return NULL;
}

/* A key that is not there yet. */
static int add(struct arena *a, struct jinja_dict *d, struct value key, struct value value) {
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 4;
        struct jinja_pair *pairs =
            d->cap <= UINT32_MAX / 4 ? arena_calloc(a, cap, sizeof *pairs) : NULL;
        if (!pairs) return -ENOMEM;
        if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
        d->pairs = pairs;
        d->cap = cap;
    }
    d->pairs[d->n++] = (struct jinja_pair){key, value};
    return 0;
}

int value_put(struct arena *a, struct value dict, struct value key, struct value value) {
    struct jinja_pair *there = find(dict.dict, key);
    if (!there) return add(a, dict.dict, key, value);
    there->value = value;
    return 0;
}

const struct value *value_get(struct value dict, struct value key) {
    const struct jinja_pair *there = find(dict.dict, key);
    return there ? &there->value : NULL;
}

const struct value *value_member(struct value dict, const char *key) {
    return value_get(dict, value_text(bytes_str(key)));
}

/* ---- from JSON ---- */

static int text_of(struct arena *a, const char *data, size_t len, struct value *out) {
    const char *copy = arena_strndup(a, data, len);
    if (!copy) return -ENOMEM;
    *out = value_text(bytes_of(copy, len));
    return 0;
}

static int copy_json(struct arena *a, const struct json *j, unsigned depth, struct value *out);

static int copy_object(struct arena *a, const struct json *j, unsigned depth, struct value *out) {
    const char *key;
    const struct json *member;
    int rc = value_dict(a, JV_DICT, (uint32_t)json_len(j), out);
    for (size_t it = 0; rc == 0 && json_next(j, &it, &key, &member);) {
        struct value name, value;
        if ((rc = text_of(a, key, strlen(key), &name)) == 0 &&
            (rc = copy_json(a, member, depth + 1, &value)) == 0)
            rc = add(a, out->dict, name, value); /* the reader refuses a key that is there twice */
    }
    return rc;
}

static int copy_json(struct arena *a, const struct json *j, unsigned depth, struct value *out) {
    if (depth > JINJA_NEST_MAX) return ERR_LIMIT;
    switch (json_kind(j)) {
    case JSON_BOOL: *out = value_bool(json_bool(j, false)); return 0;
    case JSON_INT: *out = value_int(json_int(j, 0)); return 0;
    case JSON_REAL: *out = value_real(json_num(j, 0)); return 0;
    case JSON_STR: return text_of(a, json_str(j), json_str_len(j), out);
    case JSON_OBJECT: return copy_object(a, j, depth, out);
    case JSON_ARRAY: break;
    default: *out = value_none(); return 0;
    }
    int rc = value_seq(a, JV_LIST, (uint32_t)json_len(j), out);
    for (size_t i = 0; rc == 0 && i < json_len(j); i++) {
        struct value item;
        if ((rc = copy_json(a, json_at(j, i), depth + 1, &item)) == 0)
            rc = value_push(a, *out, item);
    }
    return rc;
}

int value_of_json(struct arena *a, const struct json *j, struct value *out) {
    return copy_json(a, j, 1, out);
}

/* ---- asking ---- */

const char *value_type(struct value v) {
    static const char *const names[] = {[JV_UNDEFINED] = "Undefined", [JV_NONE] = "NoneType",
                                        [JV_BOOL] = "bool",           [JV_INT] = "int",
                                        [JV_FLOAT] = "float",         [JV_STR] = "str",
                                        [JV_LIST] = "list",           [JV_TUPLE] = "tuple",
                                        [JV_RANGE] = "range",         [JV_VIEW] = "dict view",
                                        [JV_ITER] = "iterator",       [JV_DICT] = "dict",
                                        [JV_NAMESPACE] = "namespace", [JV_LOOP] = "loop",
                                        [JV_MACRO] = "macro",         [JV_METHOD] = "method",
                                        [JV_FUNCTION] = "function"};
    return names[v.kind];
}

bool value_truth(struct value v) {
    switch (v.kind) {
    case JV_UNDEFINED:
    case JV_NONE: return false;
    case JV_BOOL: return v.truth;
    case JV_INT: return v.number != 0;
    case JV_FLOAT: return v.real != 0;
    case JV_STR: return v.text.len > 0;
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE:
    case JV_VIEW: return v.seq->n > 0;
    case JV_DICT: return v.dict->n > 0;
    default: return true;
    }
}

uint32_t value_count(struct value v) {
    if (v.kind == JV_STR) return (uint32_t)unicode_count(v.text);
    if (v.kind == JV_DICT) return v.dict->n;
    return value_is_seq(v) ? v.seq->n : 0;
}

/* Wide enough for any of both kinds of numbers, as Python compares them. */
static long double exact(struct value v) {
    return v.kind == JV_FLOAT ? (long double)v.real : (long double)value_whole(v);
}

/* Counts a comparison; false when the steps are used up. */
static bool step(uint64_t *steps, struct value a, struct value b) {
    bool texts = a.kind == JV_STR && b.kind == JV_STR;
    *steps += 1 + (texts ? (a.text.len < b.text.len ? a.text.len : b.text.len) / 64 : 0);
    return *steps <= JINJA_STEPS_MAX;
}

static bool equal(struct value a, struct value b, unsigned depth, uint64_t *steps);

static bool equal_seqs(const struct jinja_seq *a, const struct jinja_seq *b, unsigned depth,
                       uint64_t *steps) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!equal(a->items[i], b->items[i], depth, steps)) return false;
    return true;
}

static bool equal_dicts(struct jinja_dict *a, struct jinja_dict *b, unsigned depth,
                        uint64_t *steps) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct jinja_pair *there = find(b, a->pairs[i].key);
        if (!there || !equal(a->pairs[i].value, there->value, depth, steps)) return false;
    }
    return true;
}

static bool equal(struct value a, struct value b, unsigned depth, uint64_t *steps) {
    if (depth > JINJA_NEST_MAX || !step(steps, a, b)) return false;
    if (value_is_whole(a) && value_is_whole(b)) return value_whole(a) == value_whole(b);
    if (value_is_number(a) && value_is_number(b)) return exact(a) == exact(b);
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JV_UNDEFINED:
    case JV_NONE: return true;
    case JV_STR: return bytes_eq(a.text, b.text);
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE: return equal_seqs(a.seq, b.seq, depth + 1, steps);
    case JV_DICT: return equal_dicts(a.dict, b.dict, depth + 1, steps);
    case JV_METHOD: return false;
    default: return a.seq == b.seq; /* the rest is equal to itself only */
    }
}

bool value_equal_in(uint64_t *steps, struct value a, struct value b) {
    return equal(a, b, 1, steps);
}

bool value_equal(struct value a, struct value b) {
    uint64_t steps = 0;
    return equal(a, b, 1, &steps);
}

static int order(struct value a, struct value b, unsigned depth, uint64_t *steps, int *sign);

static int order_seqs(const struct jinja_seq *a, const struct jinja_seq *b, unsigned depth,
                      uint64_t *steps, int *sign) {
    for (uint32_t i = 0; i < a->n && i < b->n; i++)
        if (!equal(a->items[i], b->items[i], depth, steps))
            return order(a->items[i], b->items[i], depth, steps, sign);
    *sign = (a->n > b->n) - (a->n < b->n);
    return 0;
}

static int order(struct value a, struct value b, unsigned depth, uint64_t *steps, int *sign) {
    if (depth > JINJA_NEST_MAX) return -EINVAL;
    *sign = 0;
    if (!step(steps, a, b)) return 0;
    if (value_is_whole(a) && value_is_whole(b)) {
        *sign = (value_whole(a) > value_whole(b)) - (value_whole(a) < value_whole(b));
        return 0;
    }
    if (value_is_number(a) && value_is_number(b)) {
        long double x = exact(a), y = exact(b);
        *sign = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
        return 0;
    }
    if (a.kind != b.kind) return -EINVAL;
    if (a.kind == JV_STR) { /* the order of UTF-8 is that of its code points */
        size_t n = a.text.len < b.text.len ? a.text.len : b.text.len;
        int c = n ? memcmp(a.text.data, b.text.data, n) : 0;
        *sign = c ? (c > 0) - (c < 0) : (a.text.len > b.text.len) - (a.text.len < b.text.len);
        return 0;
    }
    if (a.kind != JV_LIST && a.kind != JV_TUPLE) return -EINVAL;
    return order_seqs(a.seq, b.seq, depth + 1, steps, sign);
}

int value_order(uint64_t *steps, struct value a, struct value b, int *sign) {
    return order(a, b, 1, steps, sign);
}
