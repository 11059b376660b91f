#include <errno.h>

#include "base/err.h"
#include "workers/chat/jinja_run.h"
#include "workers/chat/jinja_text.h"
#include "workers/encode/unicode.h"

/* ---- arguments ---- */

static int wrong(struct jinja_use *u, struct value v) {
    if (v.kind == JV_UNDEFINED) return run_undefined(u->run, u->at, v);
    return run_fail(u->run, u->at, ERR_FIELD, "a method of a %s takes no %s here",
                    value_type(u->in), value_type(v));
}

/* {NULL, 0} for an argument that is none or not given. */
static int text_or_none(struct jinja_use *u, uint32_t i, struct bytes *out) {
    *out = (struct bytes){0};
    if (!u->args[i] || u->args[i]->kind == JV_NONE) return 0;
    if (u->args[i]->kind != JV_STR || u->args[i]->safe) return wrong(u, *u->args[i]);
    *out = u->args[i]->text;
    if (!out->data) out->data = "";
    return 0;
}

static int text_arg(struct jinja_use *u, uint32_t i, struct bytes *out) {
    int rc = text_or_none(u, i, out);
    return rc == 0 && !out->data ? wrong(u, *u->args[i]) : rc;
}

static int number_arg(struct jinja_use *u, uint32_t i, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (!u->args[i]) return 0;
    if (!value_is_whole(*u->args[i])) return wrong(u, *u->args[i]);
    *out = value_whole(*u->args[i]);
    return 0;
}

/* ---- strings ---- */

static int strip(struct jinja_use *u, bool left, bool right, struct value *out) {
    struct bytes chars;
    int rc = text_or_none(u, 0, &chars);
    if (rc == 0) rc = run_spend(u->run, u->at, u->in.text.len * (1 + chars.len / 8));
    if (rc == 0) *out = value_text(text_strip(u->in.text, chars, left, right));
    return rc;
}
static int str_strip(struct jinja_use *u, struct value *out) {
    return strip(u, true, true, out);
}
static int str_lstrip(struct jinja_use *u, struct value *out) {
    return strip(u, true, false, out);
}
static int str_rstrip(struct jinja_use *u, struct value *out) {
    return strip(u, false, true, out);
}

static int split(struct jinja_use *u, bool last, struct value *out) {
    struct bytes sep;
    int64_t max;
    int rc = text_or_none(u, 0, &sep);
    if (rc == 0) rc = number_arg(u, 1, -1, &max);
    if (rc == 0) rc = run_spend(u->run, u->at, u->in.text.len);
    if (rc == 0 && sep.data && sep.len == 0)
        rc = run_fail(u->run, u->at, ERR_FIELD, "split: empty separator");
    if (rc == 0 && text_split(u->run->arena, u->in.text, sep, max, last, out) != 0)
        rc = run_memory(u->run, u->at);
    return rc == 0 ? run_spend_items(u->run, u->at, out->seq->n) : rc;
}
static int str_split(struct jinja_use *u, struct value *out) {
    return split(u, false, out);
}
static int str_rsplit(struct jinja_use *u, struct value *out) {
    return split(u, true, out);
}

static int str_splitlines(struct jinja_use *u, struct value *out) {
    int rc = run_spend(u->run, u->at, u->in.text.len);
    if (rc == 0 && text_lines(u->run->arena, u->in.text, out) != 0) rc = run_memory(u->run, u->at);
    return rc;
}

/* partition: a triple of what is in front, the separator, and the rest. */
static int partition(struct jinja_use *u, bool last, struct value *out) {
    struct bytes sep, s = u->in.text;
    int rc = text_arg(u, 0, &sep);
    if (rc == 0 && sep.len == 0)
        rc = run_fail(u->run, u->at, ERR_FIELD, "partition: empty separator");
    if (rc == 0) rc = run_spend(u->run, u->at, s.len);
    if (rc != 0) return rc;
    if (value_seq(u->run->arena, JV_TUPLE, 3, out) != 0) return run_memory(u->run, u->at);
    int64_t at = text_find(s, sep, last);
    struct value none = value_text(bytes_str("")), *v = out->seq->items;
    size_t begin = at < 0 ? s.len : (size_t)at;
    out->seq->n = 3;
    v[0] = v[1] = v[2] = none;
    if (at < 0) {
        v[last ? 2 : 0] = u->in;
    } else {
        v[0] = value_text(bytes_of(s.data, begin));
        v[1] = value_text(sep);
        v[2] =
            value_text(bytes_of((const char *)s.data + begin + sep.len, s.len - begin - sep.len));
    }
    return 0;
}
static int str_partition(struct jinja_use *u, struct value *out) {
    return partition(u, false, out);
}
static int str_rpartition(struct jinja_use *u, struct value *out) {
    return partition(u, true, out);
}

static bool stands_at(struct bytes s, struct bytes part, bool end) {
    return part.len <= s.len &&
           (part.len == 0 ||
            memcmp((const char *)s.data + (end ? s.len - part.len : 0), part.data, part.len) == 0);
}

/* One string, or a tuple of several. */
static int affix(struct jinja_use *u, bool end, struct value *out) {
    struct value which = *u->args[0];
    bool yes = false;
    size_t read = 0;
    if (which.kind != JV_STR && which.kind != JV_TUPLE) return wrong(u, which);
    if (which.kind == JV_STR) {
        yes = stands_at(u->in.text, which.text, end);
        read = which.text.len;
    }
    for (uint32_t i = 0; which.kind == JV_TUPLE && !yes && i < which.seq->n; i++) {
        if (which.seq->items[i].kind != JV_STR) return wrong(u, which.seq->items[i]);
        yes = stands_at(u->in.text, which.seq->items[i].text, end);
        read += which.seq->items[i].text.len;
    }
    *out = value_bool(yes);
    return run_spend(u->run, u->at, read);
}
static int str_startswith(struct jinja_use *u, struct value *out) {
    return affix(u, false, out);
}
static int str_endswith(struct jinja_use *u, struct value *out) {
    return affix(u, true, out);
}

static int remove_affix(struct jinja_use *u, bool end, struct value *out) {
    struct bytes part, s = u->in.text;
    int rc = text_arg(u, 0, &part);
    if (rc != 0) return rc;
    *out = u->in;
    if (stands_at(s, part, end))
        *out = value_text(bytes_of((const char *)s.data + (end ? 0 : part.len), s.len - part.len));
    return 0;
}
static int str_removeprefix(struct jinja_use *u, struct value *out) {
    return remove_affix(u, false, out);
}
static int str_removesuffix(struct jinja_use *u, struct value *out) {
    return remove_affix(u, true, out);
}

static int str_replace(struct jinja_use *u, struct value *out) {
    struct bytes old, with;
    int64_t max;
    int rc = text_arg(u, 0, &old);
    if (rc == 0) rc = text_arg(u, 1, &with);
    if (rc == 0) rc = number_arg(u, 2, -1, &max);
    if (rc == 0) rc = run_spend(u->run, u->at, u->in.text.len);
    if (rc != 0) return rc;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    text_replace(u->in.text, old, with, max, &b);
    return run_take(u->run, u->at, &b, out);
}

static int to_case(struct jinja_use *u, enum text_case to, struct value *out) {
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    int rc = text_case(u->in.text, to, &b);
    if (rc == 0 || b.error) return run_take(u->run, u->at, &b, out);
    buf_fini(&b);
    return run_fail(u->run, u->at, rc, "the other case of a letter in this text is not supported");
}
static int str_upper(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_UPPER, out);
}
static int str_lower(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_LOWER, out);
}
static int str_title(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_TITLE, out);
}
static int str_capitalize(struct jinja_use *u, struct value *out) {
    return to_case(u, TEXT_CAPITAL, out);
}

static int str_join(struct jinja_use *u, struct value *out) {
    const struct jinja_seq *items;
    struct buf b = {.max_bytes = u->run->out->max_bytes};
    int rc = run_items(u->run, u->at, *u->args[0], &items);
    for (uint32_t i = 0; rc == 0 && i < items->n && !b.error; i++) {
        if (items->items[i].kind != JV_STR) rc = wrong(u, items->items[i]);
        if (rc != 0) break;
        if (i) buf_append(&b, u->in.text.data, u->in.text.len);
        buf_append(&b, items->items[i].text.data, items->items[i].text.len);
    }
    if (rc == 0) return run_take(u->run, u->at, &b, out);
    buf_fini(&b);
    return rc;
}

/* Places in code points; `must`: none is an error. */
static int find(struct jinja_use *u, bool last, bool must, struct value *out) {
    struct bytes part;
    int rc = text_arg(u, 0, &part);
    if (rc == 0) rc = run_spend(u->run, u->at, u->in.text.len * (last ? 4 : 1));
    if (rc != 0) return rc;
    int64_t at = text_find(u->in.text, part, last);
    if (at < 0 && must) return run_fail(u->run, u->at, ERR_FIELD, "index: substring not found");
    if (at > 0) at = (int64_t)unicode_count(bytes_of(u->in.text.data, (size_t)at));
    *out = value_int(at);
    return 0;
}
static int str_find(struct jinja_use *u, struct value *out) {
    return find(u, false, false, out);
}
static int str_rfind(struct jinja_use *u, struct value *out) {
    return find(u, true, false, out);
}
static int str_index(struct jinja_use *u, struct value *out) {
    return find(u, false, true, out);
}

static int str_count(struct jinja_use *u, struct value *out) {
    struct bytes part, s = u->in.text;
    int64_t n = 0, at;
    int rc = text_arg(u, 0, &part);
    if (rc == 0) rc = run_spend(u->run, u->at, s.len);
    if (rc != 0) return rc;
    if (part.len == 0) n = (int64_t)unicode_count(s) + 1;
    while (part.len && (at = text_find(s, part, false)) >= 0) {
        size_t next = (size_t)at + part.len;
        s = bytes_of((const char *)s.data + next, s.len - next);
        n++;
    }
    *out = value_int(n);
    return 0;
}

static int all_are(struct jinja_use *u, bool (*is)(uint32_t), struct value *out) {
    const char *p = u->in.text.data, *end = p + u->in.text.len;
    bool yes = p < end;
    while (yes && p < end) yes = is(unicode_next(&p));
    *out = value_bool(yes);
    return run_spend(u->run, u->at, u->in.text.len);
}
static int str_isspace(struct jinja_use *u, struct value *out) {
    return all_are(u, text_is_space, out);
}
static int str_isalpha(struct jinja_use *u, struct value *out) {
    return all_are(u, unicode_is_letter, out);
}

/* Which numbers beyond ASCII are digits is a table of its own. */
static int str_isdigit(struct jinja_use *u, struct value *out) {
    const char *p = u->in.text.data, *end = p + u->in.text.len;
    bool yes = p < end;
    while (p < end) {
        uint32_t c = unicode_next(&p);
        if (c >= 0x80 && unicode_is_number(c))
            return run_fail(u->run, u->at, ERR_FIELD,
                            "isdigit of numbers beyond ASCII is not supported");
        yes = yes && c - '0' < 10;
    }
    *out = value_bool(yes);
    return run_spend(u->run, u->at, u->in.text.len);
}

/* ---- dicts ---- */

static int dict_get(struct jinja_use *u, struct value *out) {
    const struct value *v = value_get(u->in, *u->args[0]);
    *out = v ? *v : u->args[1] ? *u->args[1] : value_none();
    return run_spend_items(u->run, u->at, u->in.dict->n);
}

enum part { KEYS, VALUES, ITEMS };

static int view(struct jinja_use *u, enum part part, struct value *out) {
    const struct jinja_dict *d = u->in.dict;
    struct arena *a = u->run->arena;
    int rc = run_spend_items(u->run, u->at, d->n);
    if (rc != 0) return rc;
    if (value_seq(a, JV_VIEW, d->n, out) != 0) return run_memory(u->run, u->at);
    for (uint32_t i = 0; i < d->n; i++) {
        struct value v = part == KEYS ? d->pairs[i].key : d->pairs[i].value;
        if (part == ITEMS) {
            if (value_seq(a, JV_TUPLE, 2, &v) != 0) return run_memory(u->run, u->at);
            v.seq->items[0] = d->pairs[i].key;
            v.seq->items[1] = d->pairs[i].value;
            v.seq->n = 2;
        }
        out->seq->items[out->seq->n++] = v;
    }
    return 0;
}
static int dict_keys(struct jinja_use *u, struct value *out) {
    return view(u, KEYS, out);
}
static int dict_values(struct jinja_use *u, struct value *out) {
    return view(u, VALUES, out);
}
static int dict_items(struct jinja_use *u, struct value *out) {
    return view(u, ITEMS, out);
}

/* ---- lists and loops ---- */

/* Nothing changes a list or dict, so a copy is the thing itself. */
static int copy(struct jinja_use *u, struct value *out) {
    *out = u->in;
    return 0;
}

static int seq_count(struct jinja_use *u, struct value *out) {
    int64_t n = 0;
    for (uint32_t i = 0; i < u->in.seq->n; i++)
        n += value_equal_in(&u->run->steps, u->in.seq->items[i], *u->args[0]);
    *out = value_int(n);
    return run_spend_items(u->run, u->at, u->in.seq->n);
}

static int seq_index(struct jinja_use *u, struct value *out) {
    uint32_t i = 0;
    while (i < u->in.seq->n && !value_equal_in(&u->run->steps, u->in.seq->items[i], *u->args[0]))
        i++;
    if (run_spend(u->run, u->at, 0) != 0) return ERR_LIMIT;
    if (i == u->in.seq->n)
        return run_fail(u->run, u->at, ERR_FIELD, "index: the item is not in the %s",
                        value_type(u->in));
    *out = value_int(i);
    return run_spend_items(u->run, u->at, i);
}

static int loop_cycle(struct jinja_use *u, struct value *out) {
    if (u->all.n == 0) return run_fail(u->run, u->at, ERR_FIELD, "cycle: no items");
    *out = u->all.values[u->in.loop->i % u->all.n];
    return 0;
}

static int loop_changed(struct jinja_use *u, struct value *out) {
    struct jinja_loop *l = u->in.loop;
    struct value now;
    if (value_seq(u->run->arena, JV_TUPLE, 0, &now) != 0) return run_memory(u->run, u->at);
    now.seq->items = u->all.values;
    now.seq->n = now.seq->cap = u->all.n;
    *out = value_bool(!l->any_seen || !value_equal_in(&u->run->steps, now, l->seen));
    l->seen = now;
    l->any_seen = true;
    return 0;
}

const struct jinja_method *jinja_method_find(struct value object, struct bytes name) {
    static const struct jinja_method rows[] = {
        {JV_STR, "strip", "chars", 0, str_strip},
        {JV_STR, "lstrip", "chars", 0, str_lstrip},
        {JV_STR, "rstrip", "chars", 0, str_rstrip},
        {JV_STR, "split", "sep maxsplit", 0, str_split},
        {JV_STR, "rsplit", "sep maxsplit", 0, str_rsplit},
        {JV_STR, "splitlines", "", 0, str_splitlines},
        {JV_STR, "partition", "sep", 1, str_partition},
        {JV_STR, "rpartition", "sep", 1, str_rpartition},
        {JV_STR, "startswith", "prefix", 1, str_startswith},
        {JV_STR, "endswith", "suffix", 1, str_endswith},
        {JV_STR, "removeprefix", "prefix", 1, str_removeprefix},
        {JV_STR, "removesuffix", "suffix", 1, str_removesuffix},
        {JV_STR, "replace", "old new count", 2, str_replace},
        {JV_STR, "upper", "", 0, str_upper},
        {JV_STR, "lower", "", 0, str_lower},
        {JV_STR, "title", "", 0, str_title},
        {JV_STR, "capitalize", "", 0, str_capitalize},
        {JV_STR, "join", "iterable", 1, str_join},
        {JV_STR, "find", "sub", 1, str_find},
        {JV_STR, "rfind", "sub", 1, str_rfind},
        {JV_STR, "index", "sub", 1, str_index},
        {JV_STR, "count", "sub", 1, str_count},
        {JV_STR, "isspace", "", 0, str_isspace},
        {JV_STR, "isalpha", "", 0, str_isalpha},
        {JV_STR, "isdigit", "", 0, str_isdigit},
        {JV_DICT, "get", "key default", 1, dict_get},
        {JV_DICT, "keys", "", 0, dict_keys},
        {JV_DICT, "values", "", 0, dict_values},
        {JV_DICT, "items", "", 0, dict_items},
        {JV_DICT, "copy", "", 0, copy},
        {JV_LIST, "copy", "", 0, copy},
        {JV_LIST, "count", "value", 1, seq_count},
        {JV_LIST, "index", "value", 1, seq_index},
        {JV_TUPLE, "count", "value", 1, seq_count},
        {JV_TUPLE, "index", "value", 1, seq_index},
        {JV_RANGE, "count", "value", 1, seq_count},
        {JV_RANGE, "index", "value", 1, seq_index},
        {JV_LOOP, "cycle", NULL, 0, loop_cycle},
        {JV_LOOP, "changed", NULL, 0, loop_changed},
    };
    /* Names that Python's types have beyond these. What changes a value is not allowed at all. */
    static const char *const others[] = {
        [JV_INT] = " as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag "
                   "numerator real to_bytes ",
        [JV_FLOAT] = " as_integer_ratio conjugate fromhex hex imag is_integer real ",
        [JV_STR] = " casefold center encode expandtabs format format_map isalnum isascii isdecimal "
                   "isidentifier islower isnumeric isprintable istitle isupper ljust maketrans "
                   "rindex rjust swapcase translate zfill ",
        [JV_LIST] = " append clear extend insert pop remove reverse sort ",
        [JV_RANGE] = " start stop step ",
        [JV_VIEW] = " isdisjoint mapping ",
        [JV_ITER] = " close gi_code gi_frame gi_running gi_suspended gi_yieldfrom send throw ",
        [JV_DICT] = " clear fromkeys pop popitem setdefault update "};
    static const struct jinja_method refused = {.name = ""};
    enum jinja_kind kind = object.kind == JV_BOOL ? JV_INT : object.kind;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].of == kind && bytes_is(name, rows[i].name)) return &rows[i];
    const char *list = kind < sizeof others / sizeof *others ? others[kind] : NULL;
    for (const char *p = list; p && *++p;) {
        size_t n = strcspn(p, " ");
        if (bytes_eq(name, bytes_of(p, n))) return &refused;
        p += n;
    }
    return NULL;
}
