#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "workers/chat/jinja_print.h"
#include "workers/chat/jinja_run.h"
#include "workers/chat/jinja_text.h"
#include "workers/encode/unicode.h"

#define EXACT_WHOLE (1ll << 53) /* whole numbers up to it are doubles too */

int run_undefined(struct jinja_run *r, const struct jinja_node *at, struct value v) {
    size_t n = utf8_cut(v.text, 80);
    return run_fail(r, at, ERR_FIELD, "\"%.*s\" is undefined", (int)n,
                    n ? (const char *)v.text.data : "");
}

int run_take(struct jinja_run *r, const struct jinja_node *at, struct buf *b, struct value *out) {
    int rc = b->error;
    const char *text =
        rc == 0 ? arena_strndup(r->arena, b->data ? (char *)b->data : "", b->len) : 0;
    if (rc != 0)
        rc = run_fail(r, at, ERR_LIMIT, "a text of more than %zu bytes", b->max_bytes);
    else if (!text)
        rc = run_memory(r, at);
    else
        rc = run_spend(r, at, b->len);
    *out = value_text(bytes_of(text, b->len));
    buf_fini(b);
    return rc;
}

int run_str(struct jinja_run *r, const struct jinja_node *at, struct value v, struct value *out) {
    if (v.kind == JV_STR) {
        *out = value_text(v.text);
        return run_spend(r, at, v.text.len);
    }
    struct buf b = {.max_bytes = r->out->max_bytes};
    int rc = print_str(v, &b);
    if (rc == 0 || b.error) return run_take(r, at, &b, out);
    buf_fini(&b);
    if (rc == ERR_LIMIT) return run_fail(r, at, rc, "more than %u levels to print", JINJA_NEST_MAX);
    return run_fail(r, at, rc, "the text of a %s is not supported", value_type(v));
}

/* ---- arithmetic ---- */

static int cannot(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op,
                  struct value a, struct value b) {
    static const char *const signs[] = {
        [JO_ADD] = "+", [JO_SUB] = "-",  [JO_MUL] = "*", [JO_DIV] = "/", [JO_FLOOR] = "//",
        [JO_MOD] = "%", [JO_POW] = "**", [JO_EQ] = "==", [JO_NE] = "!=", [JO_LT] = "<",
        [JO_LE] = "<=", [JO_GT] = ">",   [JO_GE] = ">=", [JO_IN] = "in", [JO_NOT_IN] = "not in"};
    if (a.kind == JV_UNDEFINED) return run_undefined(r, at, a);
    if (b.kind == JV_UNDEFINED && op != JO_IN && op != JO_NOT_IN) return run_undefined(r, at, b);
    return run_fail(r, at, ERR_FIELD, "%s between %s and %s is not possible", signs[op],
                    value_type(a), value_type(b));
}

static int beyond(struct jinja_run *r, const struct jinja_node *at) {
    return run_fail(r, at, ERR_LIMIT, "a number beyond 64 bits is not supported");
}

static int whole_power(int64_t base, int64_t exponent, int64_t *out) {
    *out = 1;
    if (base == 0 || base == 1) *out = exponent == 0 ? 1 : base;
    if (base == -1) *out = exponent % 2 ? -1 : 1;
    if (base >= -1 && base <= 1) return 0;
    while (exponent-- > 0) /* 63 rounds at most until it is too large */
        if (__builtin_mul_overflow(*out, base, out)) return ERR_LIMIT;
    return 0;
}

static int whole(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, int64_t a,
                 int64_t b, struct value *out) {
    int64_t v = 0;
    bool over = false;
    if ((op == JO_FLOOR || op == JO_MOD || op == JO_DIV) && b == 0)
        return run_fail(r, at, ERR_FIELD, "division by zero");
    switch (op) {
    case JO_ADD: over = __builtin_add_overflow(a, b, &v); break;
    case JO_SUB: over = __builtin_sub_overflow(a, b, &v); break;
    case JO_MUL: over = __builtin_mul_overflow(a, b, &v); break;
    case JO_POW: over = whole_power(a, b, &v) != 0; break;
    case JO_FLOOR: /* rounds down, and the rest has the divisor's sign */
    case JO_MOD:
        if (b == -1) {
            over = op == JO_FLOOR && __builtin_sub_overflow((int64_t)0, a, &v);
            break;
        }
        v = op == JO_FLOOR ? a / b : a % b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) v += op == JO_FLOOR ? -1 : b;
        break;
    default:
        if (llabs(a) > EXACT_WHOLE || llabs(b) > EXACT_WHOLE) return beyond(r, at);
        *out = value_real((double)a / (double)b);
        return 0;
    }
    *out = value_int(v);
    return over ? beyond(r, at) : 0;
}

static int real(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, double a,
                double b, struct value *out) {
    double rest = 0, v = 0;
    if ((op == JO_FLOOR || op == JO_MOD || op == JO_DIV) && b == 0)
        return run_fail(r, at, ERR_FIELD, "division by zero");
    if (op == JO_FLOOR || op == JO_MOD) {
        rest = fmod(a, b);
        v = (a - rest) / b;
        if (rest != 0 && (b < 0) != (rest < 0)) {
            rest += b;
            v -= 1;
        }
        if (rest == 0) rest = copysign(0, b);
        v = v != 0 ? (v - floor(v) > 0.5 ? floor(v) + 1 : floor(v)) : copysign(0, a / b);
    }
    switch (op) {
    case JO_ADD: v = a + b; break;
    case JO_SUB: v = a - b; break;
    case JO_MUL: v = a * b; break;
    case JO_DIV: v = a / b; break;
    case JO_MOD: v = rest; break;
    case JO_POW:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b)))
            return run_fail(r, at, ERR_FIELD, "a power that is no real number");
        v = pow(a, b);
        break;
    default: break;
    }
    if (isinf(v) && op == JO_POW && !isinf(a) && !isinf(b))
        return run_fail(r, at, ERR_FIELD, "a power that is too large");
    *out = value_real(v);
    return 0;
}

static int add_seqs(struct jinja_run *r, const struct jinja_node *at, struct value a,
                    struct value b, struct value *out) {
    uint32_t n = a.seq->n + b.seq->n; /* each below 2^31 by the arena's cap */
    int rc = run_spend_items(r, at, n);
    if (rc != 0) return rc;
    if (value_seq(r->arena, a.kind, n, out) != 0) return run_memory(r, at);
    for (uint32_t i = 0; i < n; i++)
        out->seq->items[i] = i < a.seq->n ? a.seq->items[i] : b.seq->items[i - a.seq->n];
    out->seq->n = n;
    return 0;
}

static int repeat(struct jinja_run *r, const struct jinja_node *at, struct value v, int64_t times,
                  struct value *out) {
    int rc = 0;
    if (times < 0) times = 0;
    if (v.kind == JV_STR) {
        struct buf b = {.max_bytes = r->out->max_bytes};
        for (int64_t i = 0; v.text.len && i < times && !b.error; i++)
            buf_append(&b, v.text.data, v.text.len);
        return run_take(r, at, &b, out);
    }
    if (value_seq(r->arena, v.kind, 0, out) != 0) return run_memory(r, at);
    for (int64_t i = 0; v.seq->n && rc == 0 && i < times; i++) {
        rc = run_spend_items(r, at, v.seq->n);
        for (uint32_t k = 0; rc == 0 && k < v.seq->n; k++)
            if (value_push(r->arena, *out, v.seq->items[k]) != 0) rc = run_memory(r, at);
    }
    return rc;
}

static bool repeats(struct value v) {
    return v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_TUPLE;
}

int run_binary(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, struct value a,
               struct value b, struct value *out) {
    if (a.safe || b.safe)
        return run_fail(r, at, ERR_FIELD,
                        "an operator on what the filter safe or escape made is not supported");
    if (value_is_whole(a) && value_is_whole(b) && (op != JO_POW || value_whole(b) >= 0))
        return whole(r, at, op, value_whole(a), value_whole(b), out);
    if (value_is_number(a) && value_is_number(b))
        return real(r, at, op, value_num(a), value_num(b), out);
    if (op == JO_ADD && a.kind == JV_STR && b.kind == JV_STR) {
        struct buf text = {.max_bytes = r->out->max_bytes};
        buf_append(&text, a.text.data, a.text.len);
        buf_append(&text, b.text.data, b.text.len);
        return run_take(r, at, &text, out);
    }
    if (op == JO_ADD && a.kind == b.kind && (a.kind == JV_LIST || a.kind == JV_TUPLE))
        return add_seqs(r, at, a, b, out);
    if (op == JO_MUL && repeats(a) && value_is_whole(b))
        return repeat(r, at, a, value_whole(b), out);
    if (op == JO_MUL && repeats(b) && value_is_whole(a))
        return repeat(r, at, b, value_whole(a), out);
    if (op == JO_MOD && a.kind == JV_STR)
        return run_fail(r, at, ERR_FIELD, "formatting a string by %% is not supported");
    return cannot(r, at, op, a, b);
}

/* ---- comparisons ---- */

/* What value_get takes: every pair is looked at, and a text of the same length read. */
static int spend_lookup(struct jinja_run *r, const struct jinja_node *at, struct value in,
                        struct value key) {
    int rc = run_spend_items(r, at, in.dict->n);
    if (rc != 0 || key.kind != JV_STR || key.text.len < 64) return rc;
    return run_spend(r, at, key.text.len * in.dict->n);
}

static int contains(struct jinja_run *r, const struct jinja_node *at, struct value item,
                    struct value in, bool *out) {
    *out = false;
    if (in.kind == JV_UNDEFINED) return 0;
    if (in.kind == JV_STR) {
        if (item.kind != JV_STR) return cannot(r, at, JO_IN, item, in);
        *out = text_find(in.text, item.text, false) >= 0;
        return run_spend(r, at, in.text.len);
    }
    if (in.kind == JV_DICT) {
        if (item.kind == JV_LIST || item.kind == JV_DICT) return cannot(r, at, JO_IN, item, in);
        *out = value_get(in, item) != NULL;
        return spend_lookup(r, at, in, item);
    }
    if (!value_is_seq(in)) return cannot(r, at, JO_IN, item, in);
    uint32_t i = 0;
    while (i < in.seq->n && !value_equal_in(&r->steps, in.seq->items[i], item)) i++;
    *out = i < in.seq->n;
    int rc = run_spend_items(r, at, i);
    if (in.kind == JV_ITER) { /* walked up to there */
        i += *out;
        in.seq->items += i;
        in.seq->n -= i;
    }
    return rc;
}

int run_compare(struct jinja_run *r, const struct jinja_node *at, enum jinja_op op, struct value a,
                struct value b, bool *out) {
    int sign = 0, rc;
    if (op == JO_IN || op == JO_NOT_IN) {
        rc = contains(r, at, a, b, out);
        *out = *out == (op == JO_IN);
        return rc;
    }
    rc =
        run_spend_items(r, at, (value_is_seq(a) ? a.seq->n : 0) + (value_is_seq(b) ? b.seq->n : 0));
    if (rc != 0) return rc;
    if (op == JO_EQ || op == JO_NE) {
        *out = value_equal_in(&r->steps, a, b) == (op == JO_EQ);
        return run_spend(r, at, 0);
    }
    if (value_order(&r->steps, a, b, &sign) != 0) return cannot(r, at, op, a, b);
    if ((rc = run_spend(r, at, 0)) != 0) return rc;
    switch (op) {
    case JO_LT: *out = sign < 0; break;
    case JO_LE: *out = sign <= 0; break;
    case JO_GT: *out = sign == 1; break;
    default: *out = sign == 0 || sign == 1; break;
    }
    return 0;
}

/* ---- members and items ---- */

static struct value loop_member(const struct jinja_loop *l, struct bytes name) {
    uint32_t n = l->items->n, i = l->i;
    if (bytes_is(name, "index")) return value_int(i + 1);
    if (bytes_is(name, "index0")) return value_int(i);
    if (bytes_is(name, "revindex")) return value_int(n - i);
    if (bytes_is(name, "revindex0")) return value_int(n - i - 1);
    if (bytes_is(name, "first")) return value_bool(i == 0);
    if (bytes_is(name, "last")) return value_bool(i + 1 == n);
    if (bytes_is(name, "length")) return value_int(n);
    if (bytes_is(name, "depth")) return value_int(1); /* of recursive loops */
    if (bytes_is(name, "depth0")) return value_int(0);
    if (bytes_is(name, "previtem") && i > 0) return l->items->items[i - 1];
    if (bytes_is(name, "nextitem") && i + 1 < n) return l->items->items[i + 1];
    return value_undefined(name);
}

/* A method of Python's own; *found is false when there is none of that name. */
static int bound(struct jinja_run *r, const struct jinja_node *at, struct value object,
                 struct bytes name, bool *found, struct value *out) {
    const struct jinja_method *m = jinja_method_find(object, name);
    *found = m != NULL;
    if (!m) return 0;
    if (!m->call || object.safe)
        return run_fail(r, at, ERR_FIELD, "the method %.*s of a %s is not supported",
                        (int)utf8_cut(name, 40), (const char *)name.data,
                        object.safe ? "safe string" : value_type(object));
    struct jinja_bound *b = arena_calloc(r->arena, 1, sizeof *b);
    if (!b) return run_memory(r, at);
    *b = (struct jinja_bound){object, name, m};
    *out = (struct value){.kind = JV_METHOD, .bound = b};
    return 0;
}

int run_member(struct jinja_run *r, const struct jinja_node *at, struct value object,
               struct bytes name, struct value *out) {
    bool found;
    if (object.kind == JV_UNDEFINED) return run_undefined(r, at, object);
    if (name.len > 1 && memcmp(name.data, "__", 2) == 0)
        return run_fail(r, at, ERR_FIELD, "names that begin with __ are not allowed");
    if (object.kind == JV_MACRO || object.kind == JV_FUNCTION)
        return run_fail(r, at, ERR_FIELD, "a member of a %s is not supported", value_type(object));
    int rc = bound(r, at, object, name, &found, out);
    if (rc != 0 || found) return rc;
    *out = value_undefined(name);
    if (object.kind == JV_LOOP) *out = loop_member(object.loop, name);
    if (object.kind != JV_DICT && object.kind != JV_NAMESPACE) return 0;
    const struct value *member = value_get(object, value_text(name));
    if (member) *out = *member;
    return spend_lookup(r, at, object, value_text(name));
}

static int nth_char(struct jinja_run *r, const struct jinja_node *at, struct bytes s, int64_t i,
                    struct value *out) {
    int64_t n = (int64_t)unicode_count(s);
    if (i < 0) i += n;
    if (i >= 0 && i < n) {
        size_t from = text_offset(s, (uint32_t)i), to = text_offset(s, (uint32_t)i + 1);
        *out = value_text(bytes_of((const char *)s.data + from, to - from));
    }
    return run_spend(r, at, s.len);
}

int run_item(struct jinja_run *r, const struct jinja_node *at, struct value object,
             struct value key, struct value *out) {
    if (object.kind == JV_UNDEFINED) return run_undefined(r, at, object);
    if (object.safe) return run_fail(r, at, ERR_FIELD, "an item of a safe string is not supported");
    *out = value_undefined(key.kind == JV_STR ? key.text : bytes_str("an item that is not there"));
    if (object.kind == JV_DICT) {
        const struct value *member = value_get(object, key);
        int rc = spend_lookup(r, at, object, key);
        if (member) *out = *member;
        if (member || rc != 0) return rc;
    }
    if (value_is_whole(key)) {
        int64_t i = value_whole(key);
        if (object.kind == JV_STR) return nth_char(r, at, object.text, i, out);
        if (object.kind == JV_LIST || object.kind == JV_TUPLE || object.kind == JV_RANGE) {
            if (i < 0) i += object.seq->n;
            if (i >= 0 && i < object.seq->n) *out = object.seq->items[i];
        }
        return 0;
    }
    if (key.kind != JV_STR) return 0;
    return object.kind == JV_DICT && !jinja_method_find(object, key.text)
               ? 0
               : run_member(r, at, object, key.text, out);
}

/* ---- slices ---- */

/* Python's indices of a slice: from, to and how many steps between. */
static int slice_range(struct jinja_run *r, const struct jinja_node *at,
                       const struct value bounds[3], int64_t n, int64_t *from, int64_t *step,
                       int64_t *count) {
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != JV_NONE && !value_is_whole(bounds[i]))
            return run_fail(r, at, ERR_FIELD, "a slice by a %s is not possible",
                            value_type(bounds[i]));
    *step = bounds[2].kind == JV_NONE ? 1 : value_whole(bounds[2]);
    if (*step == 0) return run_fail(r, at, ERR_FIELD, "a slice needs a step other than 0");
    int64_t least = *step < 0 ? -1 : 0, most = *step < 0 ? n - 1 : n;
    int64_t ends[2] = {*step < 0 ? most : least, *step < 0 ? least : most};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind == JV_NONE) continue;
        ends[i] = value_whole(bounds[i]);
        if (ends[i] < 0) ends[i] = ends[i] < -n ? least : ends[i] + n;
        if (ends[i] > most) ends[i] = most;
        if (ends[i] < least) ends[i] = least;
    }
    *from = ends[0];
    uint64_t way = *step > 0 ? (uint64_t)(ends[1] - ends[0]) : (uint64_t)(ends[0] - ends[1]);
    uint64_t pace = *step > 0 ? (uint64_t)*step : 0 - (uint64_t)*step;
    bool any = *step > 0 ? ends[1] > ends[0] : ends[0] > ends[1];
    *count = any ? (int64_t)((way - 1) / pace + 1) : 0;
    return 0;
}

static int slice_text(struct jinja_run *r, const struct jinja_node *at, struct bytes s,
                      int64_t from, int64_t step, int64_t count, struct value *out) {
    const char *d = s.data;
    if (step == 1) {
        size_t begin = text_offset(s, (uint32_t)from);
        struct bytes rest = bytes_of(d + begin, s.len - begin);
        *out = value_text(bytes_of(d + begin, text_offset(rest, (uint32_t)count)));
        return run_spend(r, at, s.len);
    }
    uint32_t n = (uint32_t)unicode_count(s), k = 0;
    size_t *starts = arena_calloc(r->arena, n + 1u, sizeof *starts);
    if (!starts) return run_memory(r, at);
    for (size_t i = 0; i < s.len; i++)
        if ((d[i] & 0xC0) != 0x80) starts[k++] = i;
    starts[n] = s.len;
    struct buf b = {.max_bytes = r->out->max_bytes};
    for (int64_t i = 0; i < count; i++, from += step)
        buf_append(&b, d + starts[from], starts[from + 1] - starts[from]);
    return run_take(r, at, &b, out);
}

int run_slice(struct jinja_run *r, const struct jinja_node *at, struct value object,
              const struct value bounds[3], struct value *out) {
    int64_t from = 0, step = 1, count = 0;
    if (object.kind == JV_UNDEFINED) return run_undefined(r, at, object);
    if (object.safe || (object.kind != JV_STR && object.kind != JV_LIST &&
                        object.kind != JV_TUPLE && object.kind != JV_RANGE))
        return run_fail(r, at, ERR_FIELD, "a slice of a %s is not possible", value_type(object));
    int rc = slice_range(r, at, bounds, value_count(object), &from, &step, &count);
    if (rc != 0) return rc;
    if (object.kind == JV_STR) return slice_text(r, at, object.text, from, step, count, out);
    if (value_seq(r->arena, object.kind, (uint32_t)count, out) != 0) return run_memory(r, at);
    for (; out->seq->n < count; from += step)
        out->seq->items[out->seq->n++] = object.seq->items[from];
    return run_spend_items(r, at, (uint32_t)count);
}

/* ---- walking ---- */

int run_items(struct jinja_run *r, const struct jinja_node *at, struct value v,
              const struct jinja_seq **out) {
    struct value list;
    if (value_is_seq(v) && v.kind != JV_ITER) {
        *out = v.seq;
        return 0;
    }
    if (v.kind != JV_ITER && v.kind != JV_UNDEFINED && v.kind != JV_STR && v.kind != JV_DICT)
        return run_fail(r, at, ERR_FIELD, "a %s cannot be gone through", value_type(v));
    uint32_t n = value_count(v);
    int rc = run_spend_items(r, at, n);
    if (rc != 0) return rc;
    if (value_seq(r->arena, JV_LIST, n, &list) != 0) return run_memory(r, at);
    struct jinja_seq *s = list.seq;
    if (v.kind == JV_ITER) {
        *s = *v.seq;
        *v.seq = (struct jinja_seq){0};
    } else if (v.kind == JV_DICT) {
        for (; s->n < n; s->n++) s->items[s->n] = v.dict->pairs[s->n].key;
    } else if (v.kind == JV_STR) {
        const char *p = v.text.data, *end = p + v.text.len;
        while (p < end) {
            const char *from = p;
            unicode_next(&p);
            s->items[s->n++] = value_text(bytes_of(from, (size_t)(p - from)));
        }
    }
    *out = s;
    return 0;
}
