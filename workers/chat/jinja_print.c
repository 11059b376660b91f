#include "workers/chat/jinja_print.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "workers/encode/unicode.h"

void print_real(double v, char out[PRINT_REAL_BYTES]) {
    char digits[PRINT_REAL_BYTES];
    if (isnan(v) || isinf(v)) {
        snprintf(out, PRINT_REAL_BYTES, "%s", isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, v);
    while (strtod(digits, NULL) != v && ++precision < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - exponent;
        snprintf(out, PRINT_REAL_BYTES, "%.*f", decimals > 1 ? decimals : 1, v);
    } else {
        snprintf(out, PRINT_REAL_BYTES, "%s", digits);
    }
}

/* Python's quotes and escapes: single quotes unless only they occur in the text. */
static void quote(struct bytes s, struct buf *out) {
    const char *p = s.data, *end = p + s.len;
    bool twice = s.len && memchr(p, '\'', s.len) && !memchr(p, '"', s.len);
    char mark = twice ? '"' : '\'';
    buf_append(out, &mark, 1);
    while (p < end) {
        const char *at = p;
        uint32_t c = unicode_next(&p);
        if (c == '\\' || c == (uint32_t)mark)
            buf_printf(out, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            buf_append(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", 2);
        else if (unicode_is_printable(c))
            buf_append(out, at, (size_t)(p - at));
        else
            buf_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    buf_append(out, &mark, 1);
}

static int repr(struct value v, unsigned depth, struct buf *out);

static int repr_seq(struct value v, unsigned depth, struct buf *out) {
    const char *ends = v.kind == JV_TUPLE ? "()" : "[]";
    int rc = buf_append(out, ends, 1);
    for (uint32_t i = 0; rc == 0 && i < v.seq->n; i++) {
        if (i) buf_append(out, ", ", 2);
        rc = repr(v.seq->items[i], depth, out);
    }
    if (rc == 0 && v.kind == JV_TUPLE && v.seq->n == 1) buf_append(out, ",", 1);
    return rc == 0 ? buf_append(out, ends + 1, 1) : rc;
}

static int repr_dict(const struct jinja_dict *d, unsigned depth, struct buf *out) {
    int rc = buf_append(out, "{", 1);
    for (uint32_t i = 0; rc == 0 && i < d->n; i++) {
        if (i) buf_append(out, ", ", 2);
        if ((rc = repr(d->pairs[i].key, depth, out)) != 0) break;
        buf_append(out, ": ", 2);
        rc = repr(d->pairs[i].value, depth, out);
    }
    return rc == 0 ? buf_append(out, "}", 1) : rc;
}

static int repr(struct value v, unsigned depth, struct buf *out) {
    char real[PRINT_REAL_BYTES];
    if (depth > JINJA_NEST_MAX) return ERR_LIMIT;
    if (v.safe) return ERR_FIELD;
    switch (v.kind) {
    case JV_UNDEFINED: return buf_append(out, "Undefined", 9);
    case JV_NONE: return buf_append(out, "None", 4);
    case JV_BOOL: return buf_append(out, v.truth ? "True" : "False", v.truth ? 4 : 5);
    case JV_INT: return buf_printf(out, "%" PRId64, v.number);
    case JV_FLOAT: print_real(v.real, real); return buf_append(out, real, strlen(real));
    case JV_STR: quote(v.text, out); return out->error;
    case JV_LIST:
    case JV_TUPLE: return repr_seq(v, depth + 1, out);
    case JV_DICT: return repr_dict(v.dict, depth + 1, out);
    default: return ERR_FIELD;
    }
}

int print_repr(struct value v, struct buf *out) {
    return repr(v, 1, out);
}

int print_str(struct value v, struct buf *out) {
    if (v.kind == JV_STR) return buf_append(out, v.text.data, v.text.len);
    return v.kind == JV_UNDEFINED ? 0 : repr(v, 1, out);
}

/* ---- JSON ---- */

static void json_quote(struct bytes s, bool ascii, struct buf *out) {
    static const char plain[] = "\"\"\\\\\nn\rr\tt\ff\bb";
    const char *p = s.data, *end = p + s.len;
    buf_append(out, "\"", 1);
    while (p < end) {
        const char *at = p, *e = plain;
        uint32_t c = unicode_next(&p);
        while (*e && (uint32_t)*e != c) e += 2;
        if (c && *e)
            buf_printf(out, "\\%c", e[1]);
        else if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000))
            buf_printf(out, "\\u%04x", c);
        else if (ascii && c >= 0x10000)
            buf_printf(out, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
        else
            buf_append(out, at, (size_t)(p - at));
    }
    buf_append(out, "\"", 1);
}

static void line(const struct json_style *style, unsigned depth, struct buf *out) {
    if (!style->lines) return;
    buf_append(out, "\n", 1);
    for (unsigned i = 1; i < depth; i++) buf_append(out, style->indent.data, style->indent.len);
}

static int json(struct value v, const struct json_style *style, unsigned depth, struct buf *out);

static int json_scalar(struct value v, struct buf *out) {
    if (v.kind == JV_NONE) return buf_append(out, "null", 4);
    if (v.kind == JV_BOOL) return buf_append(out, v.truth ? "true" : "false", v.truth ? 4 : 5);
    if (v.kind == JV_FLOAT && isnan(v.real)) return buf_append(out, "NaN", 3);
    if (v.kind == JV_FLOAT && isinf(v.real))
        return v.real > 0 ? buf_append(out, "Infinity", 8) : buf_append(out, "-Infinity", 9);
    return repr(v, 1, out);
}

static int json_key(struct value key, const struct json_style *style, struct buf *out) {
    if (key.kind != JV_STR) {
        if (key.kind != JV_NONE && !value_is_number(key)) return ERR_FIELD;
        buf_append(out, "\"", 1);
        json_scalar(key, out);
        buf_append(out, "\"", 1);
    } else {
        json_quote(key.text, style->ascii, out);
    }
    return buf_append(out, style->pair.data, style->pair.len);
}

/* The i-th pair, in the order of keys where that is asked for; keys are few, so it looks for it. */
static int nth_pair(const struct jinja_dict *d, bool sorted, uint32_t i, uint32_t *out) {
    *out = i;
    for (uint32_t k = 0; sorted && k < d->n; k++) {
        uint32_t below = 0;
        for (uint32_t j = 0; j < d->n; j++) {
            int sign;
            uint64_t steps = 0;
            if (value_order(&steps, d->pairs[j].key, d->pairs[k].key, &sign) != 0) return ERR_FIELD;
            below += sign < 0;
        }
        if (below == i) *out = k;
    }
    return 0;
}

static int json_dict(const struct jinja_dict *d, const struct json_style *style, unsigned depth,
                     struct buf *out) {
    if (style->sorted && d->n > 256) return ERR_LIMIT;
    int rc = buf_append(out, "{", 1);
    for (uint32_t i = 0; rc == 0 && i < d->n; i++) {
        uint32_t at;
        if (i) buf_append(out, style->item.data, style->item.len);
        line(style, depth, out);
        if ((rc = nth_pair(d, style->sorted, i, &at)) != 0 ||
            (rc = json_key(d->pairs[at].key, style, out)) != 0)
            return rc;
        rc = json(d->pairs[at].value, style, depth, out);
    }
    if (rc == 0 && d->n) line(style, depth - 1, out);
    return rc == 0 ? buf_append(out, "}", 1) : rc;
}

static int json(struct value v, const struct json_style *style, unsigned depth, struct buf *out) {
    if (depth > JINJA_NEST_MAX) return ERR_LIMIT;
    if (v.kind == JV_STR) {
        json_quote(v.text, style->ascii, out);
        return out->error;
    }
    if (v.kind == JV_DICT) return json_dict(v.dict, style, depth + 1, out);
    if (v.kind == JV_NONE || value_is_number(v)) return json_scalar(v, out);
    if (v.kind != JV_LIST && v.kind != JV_TUPLE) return ERR_FIELD;
    int rc = buf_append(out, "[", 1);
    for (uint32_t i = 0; rc == 0 && i < v.seq->n; i++) {
        if (i) buf_append(out, style->item.data, style->item.len);
        line(style, depth + 1, out);
        rc = json(v.seq->items[i], style, depth + 1, out);
    }
    if (rc == 0 && v.seq->n) line(style, depth, out);
    return rc == 0 ? buf_append(out, "]", 1) : rc;
}

int print_json(struct value v, const struct json_style *style, struct buf *out) {
    return json(v, style, 1, out);
}
