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
    if (u->in.kind != JV_STR)
        return run_fail(u->run, u->at, ERR_FIELD, "indent of a %s is not possible",
                        value_type(u->in));
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

const struct jinja_filter *jinja_filter_find(struct bytes name) {
    static const struct jinja_filter rows[] = {
        {"abs", "", 0, false, do_abs},
        {"capitalize", "", 0, false, do_capitalize},
        {"count", "", 0, false, do_length},
        {"d", "default_value boolean", 0, true, do_default},
        {"default", "default_value boolean", 0, true, do_default},
        {"e", "", 0, true, do_escape},
        {"escape", "", 0, true, do_escape},
        {"float", "default", 0, false, do_float},
        {"indent", "width first blank", 0, false, do_indent},
        {"int", "default", 0, false, do_int},
        {"length", "", 0, false, do_length},
        {"lower", "", 0, false, do_lower},
        {"replace", "old new count", 2, false, do_replace},
        {"round", "precision method", 0, false, do_round},
        {"safe", "", 0, true, do_safe},
        {"string", "", 0, true, do_string},
        {"title", "", 0, false, do_title},
        {"tojson", "ensure_ascii indent separators sort_keys", 0, false, do_tojson},
        {"trim", "chars", 0, false, do_trim},
        {"upper", "", 0, false, do_upper},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (bytes_is(name, rows[i].name)) return &rows[i];
    return jinja_filter_seq_find(name);
}
