#include "workers/chat/jinja_text.h"

#include <errno.h>

#include "base/err.h"
#include "workers/encode/unicode.h"

static struct bytes cut(struct bytes s, size_t from, size_t to) {
    return bytes_of((const char *)s.data + from, to - from);
}

bool text_is_space(uint32_t c) {
    return unicode_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

static bool among(struct bytes chars, uint32_t c) {
    if (!chars.data) return text_is_space(c);
    const char *p = chars.data, *end = p + chars.len;
    while (p < end)
        if (unicode_next(&p) == c) return true;
    return false;
}

struct bytes text_strip(struct bytes s, struct bytes chars, bool left, bool right) {
    const char *begin = s.data, *end = begin + s.len;
    while (left && begin < end) {
        const char *p = begin;
        if (!among(chars, unicode_next(&p))) break;
        begin = p;
    }
    while (right && begin < end) {
        const char *start;
        if (!among(chars, unicode_before(end, &start))) break;
        end = start;
    }
    return bytes_of(begin, (size_t)(end - begin));
}

int64_t text_find(struct bytes s, struct bytes needle, bool last) {
    if (needle.len > s.len) return -1;
    if (needle.len == 0) return last ? (int64_t)s.len : 0;
    const char *d = s.data;
    if (!last) {
        const char *at = memmem(d, s.len, needle.data, needle.len);
        return at ? at - d : -1;
    }
    for (size_t i = s.len - needle.len + 1; i-- > 0;)
        if (memcmp(d + i, needle.data, needle.len) == 0) return (int64_t)i;
    return -1;
}

size_t text_offset(struct bytes s, uint32_t index) {
    const char *p = s.data, *end = p + s.len;
    while (p < end && index-- > 0) unicode_next(&p);
    return (size_t)(p - (const char *)s.data);
}

/* ---- split ---- */

static void reverse(struct jinja_seq *s) {
    for (uint32_t i = 0; i < s->n / 2; i++) {
        struct value v = s->items[i];
        s->items[i] = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = v;
    }
}

/* The end of the first word of s, which begins with none but word characters; or, from the right,
 * where the last one begins. */
static size_t word(struct bytes s, bool last) {
    const char *begin = s.data, *end = begin + s.len, *p = last ? end : begin;
    while (last ? p > begin : p < end) {
        const char *q = p;
        uint32_t c = last ? unicode_before(p, &q) : unicode_next(&q);
        if (text_is_space(c)) break;
        p = q;
    }
    return (size_t)(p - begin);
}

static int split_words(struct arena *a, struct bytes s, int64_t max, bool last, struct value *out) {
    int rc = 0;
    for (s = text_strip(s, (struct bytes){0}, !last, last); rc == 0 && s.len > 0;
         s = text_strip(s, (struct bytes){0}, !last, last)) {
        size_t at = word(s, last);
        if (max-- == 0) return value_push(a, *out, value_text(s)); /* the rest as it is */
        rc = value_push(a, *out, value_text(last ? cut(s, at, s.len) : cut(s, 0, at)));
        s = last ? cut(s, 0, at) : cut(s, at, s.len);
    }
    return rc;
}

int text_split(struct arena *a, struct bytes s, struct bytes sep, int64_t max, bool last,
               struct value *out) {
    int rc = value_seq(a, JV_LIST, 0, out);
    if (rc == 0 && !sep.data) {
        rc = split_words(a, s, max, last, out);
    } else if (rc == 0) {
        int64_t at;
        while (rc == 0 && max-- != 0 && (at = text_find(s, sep, last)) >= 0) {
            size_t begin = (size_t)at, end = begin + sep.len;
            rc = value_push(a, *out, value_text(last ? cut(s, end, s.len) : cut(s, 0, begin)));
            s = last ? cut(s, 0, begin) : cut(s, end, s.len);
        }
        if (rc == 0) rc = value_push(a, *out, value_text(s));
    }
    if (rc == 0 && last) reverse(out->seq);
    return rc;
}

static bool ends_line(uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

int text_lines(struct arena *a, struct bytes s, struct value *out) {
    int rc = value_seq(a, JV_LIST, 0, out);
    const char *from = s.data, *p = from, *end = from + s.len;
    while (rc == 0 && p < end) {
        const char *at = p;
        uint32_t c = unicode_next(&p);
        if (!ends_line(c)) continue;
        if (c == '\r' && p < end && *p == '\n') p++;
        rc = value_push(a, *out, value_text(bytes_of(from, (size_t)(at - from))));
        from = p;
    }
    if (rc == 0 && from < end)
        rc = value_push(a, *out, value_text(bytes_of(from, (size_t)(end - from))));
    return rc;
}

/* ---- replace ---- */

static void spread(struct bytes s, struct bytes with, int64_t max, struct buf *out) {
    const char *p = s.data, *end = p + s.len;
    while (max != 0) {
        buf_append(out, with.data, with.len);
        if (max > 0) max--;
        if (p == end || out->error) return;
        const char *at = p;
        unicode_next(&p);
        buf_append(out, at, (size_t)(p - at));
    }
    buf_append(out, p, (size_t)(end - p));
}

int text_replace(struct bytes s, struct bytes old, struct bytes with, int64_t max,
                 struct buf *out) {
    if (old.len == 0) {
        spread(s, with, max, out);
        return out->error;
    }
    int64_t at;
    while (!out->error && max != 0 && (at = text_find(s, old, false)) >= 0) {
        buf_append(out, s.data, (size_t)at);
        buf_append(out, with.data, with.len);
        s = cut(s, (size_t)at + old.len, s.len);
        if (max > 0) max--;
    }
    return buf_append(out, s.data, s.len);
}

/* ---- case ---- */

/* Letters that become several in upper case (SpecialCasing.txt of Unicode), and their blocks. */
static bool grows(uint32_t c) {
    return c == 0xDF || c == 0x149 || c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 ||
           (c >= 0x1E96 && c <= 0x1E9A) || (c >= 0x1F50 && c <= 0x1FFF) ||
           (c >= 0xFB00 && c <= 0xFB17);
}

enum letter { LETTER_UP, LETTER_DOWN, LETTER_FIRST };

static int put_letter(struct buf *out, uint32_t c, enum letter to) {
    char room[8];
    uint32_t lower[2], n;
    if (to == LETTER_DOWN) {
        if (c == 0x3A3) return ERR_FIELD; /* depends on what stands around it */
        n = unicode_lower(c, lower);
        uint32_t bytes = unicode_put(room, lower[0]);
        if (n == 2) bytes += unicode_put(room + bytes, lower[1]);
        return buf_append(out, room, bytes);
    }
    if (grows(c)) return ERR_FIELD;
    return buf_append(out, room,
                      unicode_put(room, to == LETTER_UP ? unicode_upper(c) : unicode_title(c)));
}

int text_case(struct bytes s, enum text_case to, struct buf *out) {
    const char *p = s.data, *end = p + s.len;
    bool inside = false; /* of a word */
    int rc = 0;
    while (rc == 0 && p < end) {
        uint32_t c = unicode_next(&p);
        enum letter how = LETTER_DOWN;
        if (to == TEXT_UPPER || (to == TEXT_WORDS && !inside)) how = LETTER_UP;
        if ((to == TEXT_CAPITAL || to == TEXT_TITLE) && !inside) how = LETTER_FIRST;
        rc = put_letter(out, c, how);
        if (to == TEXT_TITLE)
            inside = unicode_is_upper(c) || unicode_is_lower(c);
        else if (to == TEXT_WORDS)
            inside =
                !(text_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<');
        else
            inside = true;
    }
    return rc;
}
