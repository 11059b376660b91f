#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "workers/chat/jinja_print.h"
#include "workers/chat/jinja_run.h"
#include "workers/chat/jinja_text.h"
#include "workers/encode/unicode.h"

static int memory(struct jinja_use *u) {
    return run_memory(u->run, u->at);
}

static bool flag(const struct value *v, bool otherwise) {
    return v ? value_truth(*v) : otherwise;
}

/* ---- texts ---- */

static int str_of(struct jinja_use *u, struct value v, struct bytes *out) {
    struct value s;
    int rc = run_str(u->run, u->at, v, &s);
    *out = s.text;
    return rc;
}

static int do_string(struct jinja_use *u, struct value *out) {
    *out = u->in;
    return u->in.kind == JV_STR ? 0 : run_str(u->run, u->at, u->in, out);
}

static int do_safe(struct jinja_use *u, struct value *out) {
    int rc = run_str(u->run, u->at, u->in, out);
    out->safe = true;
    return rc;
}

static int do_escape(struct jinja_use *u, struct value *out) {
    static const char signs[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct bytes s;
    *out = u->in;
    if (u->in.safe) return 0;
    int rc = str_of(u, u->in, &s);
    if (rc != 0) return rc;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    for (size_t i = 0; i < s.len; i++) {
        const char *c = (const char *)s.data + i, *sign = *c ? strchr(signs, *c) : NULL;
        buf_append(&b, sign ? names[sign - signs] : c, sign ? strlen(names[sign - signs]) : 1);
    }
    rc = run_take(u->run, u->at, &b, out);
    out->safe = true;
    return rc;
}

static int to_case(struct jinja_use *u, enum text_case to, struct value *out) {
    struct bytes s;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    int rc = str_of(u, u->in, &s);
    if (rc != 0) return rc;
    rc = text_case(s, to, &b);
    if (rc == 0 || b.error) return run_take(u->run, u->at, &b, out);
    buf_fini(&b);
    return run_fail(u->run, u->at, rc, "the other case of a letter in this text is not supported");
}
static int do_upper(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_UPPER, out);
}
static int do_lower(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_LOWER, out);
}
static int do_title(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_WORDS, out);
}
static int do_capitalize(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_CAPITAL, out);
}

static int do_trim(struct jinja_use *u, struct value *out) {
    struct bytes s, chars = {0};
    int rc = str_of(u, u->in, &s);
    if (rc == 0 && u->args[0] && u->args[0]->kind != JV_NONE) rc = str_of(u, *u->args[0], &chars);
    if (rc == 0) rc = run_spend(u->run, u->at, s.len * (1 + chars.len / 8));
    if (rc == 0) *out = value_text(text_strip(s, chars, true, true));
    return rc;
}

static int do_replace(struct jinja_use *u, struct value *out) {
    struct bytes s, old, with;
    int64_t max = -1;
    int rc = str_of(u, u->in, &s);
    if (rc == 0) rc = str_of(u, *u->args[0], &old);
    if (rc == 0) rc = str_of(u, *u->args[1], &with);
    if (rc == 0 && u->args[2] && u->args[2]->kind != JV_NONE) {
        if (!value_is_whole(*u->args[2]))
            return run_fail(u->run, u->at, ERR_FIELD, "replace: count is no whole number");
        max = value_whole(*u->args[2]);
    }
    if (rc != 0) return rc;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    text_replace(s, old, with, max, &b);
    return run_take(u->run, u->at, &b, out);
}

static int do_indent(struct jinja_use *u, struct value *out) {
    struct bytes s, by = bytes_str("    ");
    struct value lines, room;
    int rc = str_of(u, u->in, &s);
    if (rc == 0 && u->args[0] && u->args[0]->kind == JV_STR) {
        by = u->args[0]->text;
    } else if (rc == 0 && u->args[0]) {
        rc = run_binary(u->run, u->at, JO_MUL, value_text(bytes_str(" ")), *u->args[0], &room);
        if (rc == 0) by = room.text;
    }
    bool first = flag(u->args[1], false), blank = flag(u->args[2], false);
    if (rc != 0) return rc;
    /* A text without lines is one empty line; a line end at the end begins another. */
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    buf_append(&b, s.data, s.len);
    buf_append(&b, "\n", 1);
    if ((rc = run_take(u->run, u->at, &b, &lines)) != 0) return rc;
    if (text_lines(u->run->arena, lines.text, &lines) != 0) return memory(u);
    b = (struct buf){.max_bytes = u->run->out->max_bytes};
    for (uint32_t i = 0; i < lines.seq->n; i++) {
        struct bytes line = lines.seq->items[i].text;
        if (i) buf_append(&b, "\n", 1);
        if (i ? blank || line.len : first) buf_append(&b, by.data, by.len);
        buf_append(&b, line.data, line.len);
    }
    return run_take(u->run, u->at, &b, out);
}

static int do_tojson(struct jinja_use *u, struct value *out) {
    struct json_style style = {.item = bytes_str(", "), .pair = bytes_str(": ")};
    const struct value *indent = u->args[1], *seps = u->args[2];
    struct value room;
    int rc = 0;
    style.ascii = flag(u->args[0], false);
    style.sorted = flag(u->args[3], false);
    style.lines = indent && indent->kind != JV_NONE;
    if (style.lines) {
        style.item = bytes_str(",");
        style.indent = indent->text;
        if (indent->kind != JV_STR) {
            rc = run_binary(u->run, u->at, JO_MUL, value_text(bytes_str(" ")), *indent, &room);
            style.indent = room.text;
        }
    }
    if (rc == 0 && seps && seps->kind != JV_NONE) {
        if ((seps->kind != JV_TUPLE && seps->kind != JV_LIST) || seps->seq->n != 2 ||
            seps->seq->items[0].kind != JV_STR || seps->seq->items[1].kind != JV_STR)
            return run_fail(u->run, u->at, ERR_FIELD, "tojson: separators are two strings");
        style.item = seps->seq->items[0].text;
        style.pair = seps->seq->items[1].text;
    }
    if (rc != 0) return rc;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    rc = print_json(u->in, &style, &b);
    if (rc == 0 || b.error) return run_take(u->run, u->at, &b, out);
    buf_fini(&b);
    if (rc == ERR_LIMIT)
        return run_fail(u->run, u->at, rc, "tojson: more than %u levels", JINJA_NEST_MAX);
    return run_fail(u->run, u->at, rc, "tojson of a %s, or of one inside it, is not possible",
                    value_type(u->in));
}

/* ---- values ---- */

static int do_default(struct jinja_use *u, struct value *out) {
    bool absent = u->in.kind == JV_UNDEFINED || (flag(u->args[1], false) && !value_truth(u->in));
    *out = u->in;
    if (absent) *out = u->args[0] ? *u->args[0] : value_text(bytes_str(""));
    return 0;
}

static int do_length(struct jinja_use *u, struct value *out) {
    if (u->in.kind != JV_STR && u->in.kind != JV_DICT && u->in.kind != JV_UNDEFINED &&
        (!value_is_seq(u->in) || u->in.kind == JV_ITER))
        return run_fail(u->run, u->at, ERR_FIELD, "a %s has no length", value_type(u->in));
    *out = value_int(value_count(u->in));
    return run_spend(u->run, u->at, u->in.kind == JV_STR ? u->in.text.len : 0);
}

static int do_abs(struct jinja_use *u, struct value *out) {
    if (!value_is_number(u->in))
        return run_fail(u->run, u->at, ERR_FIELD, "abs of a %s is not possible", value_type(u->in));
    *out = value_is_whole(u->in) ? value_int(value_whole(u->in)) : value_real(fabs(u->in.real));
    if (out->kind == JV_INT && out->number < 0)
        return run_binary(u->run, u->at, JO_SUB, value_int(0), *out, out);
    return 0;
}

/* A decimal number that is the whole text, less blanks around it. */
static bool read_number(struct bytes s, bool whole, struct value *out) {
    char text[64], *end;
    s = text_strip(s, (struct bytes){0}, true, true);
    if (s.len == 0 || bytes_to_cstr(s, text, sizeof text) != 0) return false;
    size_t digits = strspn(text, whole ? "+-0123456789" : "+-0123456789.eE");
    if (digits != s.len) return false;
    errno = 0;
    *out = whole ? value_int(strtoll(text, &end, 10)) : value_real(strtod(text, &end));
    return *end == 0 && errno != ERANGE;
}

/* Python reads more than decimal digits as numbers; where that could matter, it is refused. */
static int unsure(struct jinja_use *u, const char *filter) {
    struct bytes s = u->in.text;
    const unsigned char *d = s.data;
    bool digit = false;
    for (size_t i = 0; i < s.len; i++)
        digit = digit || d[i] >= 0x80 || (d[i] >= '0' && d[i] <= '9');
    if (!digit && s.len > 8) return 0;
    for (size_t i = 0; !digit && i < s.len; i++) digit = (d[i] | 32) == 'n'; /* inf, nan */
    if (!digit) return 0;
    return run_fail(u->run, u->at, ERR_FIELD, "%s of the text \"%.*s\" is not supported", filter,
                    (int)utf8_cut(s, 40), (const char *)d);
}

static int do_int(struct jinja_use *u, struct value *out) {
    struct value v = u->in;
    *out = u->args[0] ? *u->args[0] : value_int(0);
    if (v.kind == JV_STR) {
        if (read_number(v.text, true, out)) return 0;
        if (!read_number(v.text, false, &v)) return unsure(u, "int");
    }
    if (value_is_whole(v)) *out = value_int(value_whole(v));
    if (v.kind == JV_UNDEFINED) return run_undefined(u->run, u->at, v);
    if (v.kind != JV_FLOAT || isnan(v.real) || isinf(v.real)) return 0;
    if (fabs(v.real) >= 0x1p63)
        return run_fail(u->run, u->at, ERR_LIMIT, "a number beyond 64 bits is not supported");
    *out = value_int((int64_t)v.real);
    return 0;
}

static int do_float(struct jinja_use *u, struct value *out) {
    *out = u->args[0] ? *u->args[0] : value_real(0);
    if (value_is_number(u->in)) *out = value_real(value_num(u->in));
    if (u->in.kind == JV_UNDEFINED) return run_undefined(u->run, u->at, u->in);
    if (u->in.kind != JV_STR || read_number(u->in.text, false, out)) return 0;
    return unsure(u, "float");
}

static int do_round(struct jinja_use *u, struct value *out) {
    int64_t digits = u->args[0] && value_is_whole(*u->args[0]) ? value_whole(*u->args[0]) : 0;
    bool common = !u->args[1] || value_equal(*u->args[1], value_text(bytes_str("common")));
    char text[512];
    if (!value_is_number(u->in) || !common || digits < 0 || digits > 100 ||
        (u->args[0] && !value_is_whole(*u->args[0])))
        return run_fail(u->run, u->at, ERR_FIELD, "round in this form is not supported");
    *out = u->in;
    if (value_is_whole(u->in)) *out = value_int(value_whole(u->in));
    if (u->in.kind != JV_FLOAT || isnan(u->in.real) || isinf(u->in.real)) return 0;
    snprintf(text, sizeof text, "%.*f", (int)digits, u->in.real);
    *out = value_real(strtod(text, NULL));
    return 0;
}

/* ---- sequences ---- */

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
        struct value key = value_text(part), number;
        if (part.len && *d >= '0' && *d <= '9' && read_number(part, true, &number)) key = number;
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
    struct jinja_use lower = {.run = u->run, .at = u->at, .in = *out};
    return do_lower(&lower, out);
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
        if ((rc = key_of(u, items->items[i], u->args[1], flag(u->args[0], false), &key)) != 0 ||
            (rc = run_compare(u->run, u->at, JO_IN, key, keys, &seen)) != 0 || seen)
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

static int do_map(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    const struct jinja_filter *row = NULL;
    const struct value *path = NULL, *otherwise = NULL;
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

const struct jinja_filter *jinja_filter_find(struct bytes name) {
    static const struct jinja_filter rows[] = {
        {"abs", "", 0, false, do_abs},
        {"capitalize", "", 0, false, do_capitalize},
        {"count", "", 0, false, do_length},
        {"d", "default_value boolean", 0, true, do_default},
        {"default", "default_value boolean", 0, true, do_default},
        {"dictsort", "case_sensitive by reverse", 0, false, do_dictsort},
        {"e", "", 0, true, do_escape},
        {"escape", "", 0, true, do_escape},
        {"first", "", 0, false, do_first},
        {"float", "default", 0, false, do_float},
        {"indent", "width first blank", 0, false, do_indent},
        {"int", "default", 0, false, do_int},
        {"items", "", 0, false, do_items},
        {"join", "d attribute", 0, false, do_join},
        {"last", "", 0, false, do_last},
        {"length", "", 0, false, do_length},
        {"list", "", 0, false, do_list},
        {"lower", "", 0, false, do_lower},
        {"map", NULL, 0, false, do_map},
        {"max", "case_sensitive attribute", 0, false, do_max},
        {"min", "case_sensitive attribute", 0, false, do_min},
        {"reject", NULL, 0, false, do_reject},
        {"rejectattr", NULL, 0, false, do_rejectattr},
        {"replace", "old new count", 2, false, do_replace},
        {"reverse", "", 0, false, do_reverse},
        {"round", "precision method", 0, false, do_round},
        {"safe", "", 0, true, do_safe},
        {"select", NULL, 0, false, do_select},
        {"selectattr", NULL, 0, false, do_selectattr},
        {"sort", "reverse case_sensitive attribute", 0, false, do_sort},
        {"string", "", 0, true, do_string},
        {"sum", "attribute start", 0, false, do_sum},
        {"title", "", 0, false, do_title},
        {"tojson", "ensure_ascii indent separators sort_keys", 0, false, do_tojson},
        {"trim", "chars", 0, false, do_trim},
        {"unique", "case_sensitive attribute", 0, false, do_unique},
        {"upper", "", 0, false, do_upper},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (bytes_is(name, rows[i].name)) return &rows[i];
    return NULL;
}
