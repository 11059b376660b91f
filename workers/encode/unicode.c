#include "workers/encode/unicode.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

uint32_t unicode_next(const char **at) {
    const unsigned char *s = (const unsigned char *)*at;
    uint32_t c = s[0];
    if (c < 0x80) {
        *at += 1;
        return c;
    }
    uint32_t more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    c &= 0x3Fu >> more;
    for (uint32_t i = 1; i <= more; i++) c = c << 6 | (s[i] & 0x3Fu);
    *at += more + 1;
    return c;
}

uint32_t unicode_before(const char *at, const char **start) {
    do at--;
    while (((unsigned char)*at & 0xC0) == 0x80);
    *start = at;
    return unicode_next(&at);
}

uint32_t unicode_put(char out[4], uint32_t c) {
    return (uint32_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

size_t unicode_count(struct bytes text) {
    const unsigned char *s = text.data;
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) n += (s[i] & 0xC0) != 0x80;
    return n;
}

static utf8proc_category_t category(uint32_t c) {
    return utf8proc_category((utf8proc_int32_t)c);
}

/* Ranges of unicode_late.def, in ascending order. */
static const struct {
    uint32_t first, last;
} late[] = {
#define RANGE(first, last) {first, last},
#include "workers/encode/unicode_late.def"
#undef RANGE
};

static bool came_late(uint32_t c) {
    size_t lo = 0, hi = sizeof late / sizeof *late;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > late[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < sizeof late / sizeof *late && c >= late[lo].first;
}

bool unicode_is_letter(uint32_t c) {
    if (c < 0x80) return (c | 0x20) - 'a' < 26;
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool unicode_is_number(uint32_t c) {
    if (c < 0x80) return c - '0' < 10;
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool unicode_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool unicode_is_punct(uint32_t c) {
    if (c < 0x80) return c > ' ' && c < 0x7F && !unicode_is_letter(c) && !unicode_is_number(c);
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO && !came_late(c);
}

bool unicode_is_upper(uint32_t c) {
    if (c < 0x80) return c - 'A' < 26;
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT;
}

bool unicode_is_lower(uint32_t c) {
    if (c < 0x80) return c - 'a' < 26;
    return category(c) == UTF8PROC_CATEGORY_LL;
}

bool unicode_is_mark(uint32_t c) {
    if (c < 0x300) return false;
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool unicode_is_accent(uint32_t c) {
    return c >= 0x300 && category(c) == UTF8PROC_CATEGORY_MN && !came_late(c);
}

bool unicode_is_format(uint32_t c) {
    if (c < 0x80) return c < ' ' || c == 0x7F;
    utf8proc_category_t k = category(c);
    if (k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CO)
        return false;
    return !came_late(c);
}

bool unicode_is_word(uint32_t c) {
    if (c < 0x80) return unicode_is_letter(c) || unicode_is_number(c) || c == '_';
    utf8proc_category_t k = category(c);
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) return true; /* L*, M*, Nd, Nl */
    if (k == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D) return true;
    /* Other_Alphabetic outside of L and M: circled and squared letters */
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool unicode_is_han(uint32_t c) {
    if (c < 0x3400) return false;
    return c <= 0x4DBF || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

const char *unicode_grapheme(const char *at, const char *end) {
    utf8proc_int32_t state = 0;
    uint32_t before = unicode_next(&at);
    for (const char *next = at; at < end; at = next) {
        uint32_t c = unicode_next(&next);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)c, &state))
            break;
        before = c;
    }
    return at;
}

uint32_t unicode_lower(uint32_t c, uint32_t out[2]) {
    out[0] = c;
    if (c < 0x80) {
        if (c - 'A' < 26) out[0] = c | 0x20;
        return 1;
    }
    if (c == 0x130) { /* the one letter whose full mapping differs from its simple one */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

uint32_t unicode_upper(uint32_t c) {
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
}

uint32_t unicode_title(uint32_t c) {
    return (uint32_t)utf8proc_totitle((utf8proc_int32_t)c);
}

bool unicode_is_printable(uint32_t c) {
    if (c < 0x80) return c >= ' ' && c < 0x7F;
    utf8proc_category_t k = category(c);
    return k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS;
}

static int combining_class(int32_t c) {
    return c < 0x300 ? 0 : (int)utf8proc_get_property(c)->combining_class;
}

/* Sorts a run of combining marks by class, stably: merge sort, because utf8proc's own exchange sort
 * is quadratic in the length of a run and the text is the submitter's. */
static void sort_marks(int32_t *marks, int32_t *room, size_t n) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n;
            size_t hi = mid + width < n ? mid + width : n;
            size_t a = lo, b = mid, to = lo;
            while (a < mid || b < hi) {
                bool left =
                    b == hi || (a < mid && combining_class(marks[a]) <= combining_class(marks[b]));
                room[to++] = left ? marks[a++] : marks[b++];
            }
        }
        memcpy(marks, room, n * sizeof *marks);
    }
}

static void order_canonically(int32_t *c, int32_t *room, size_t n) {
    for (size_t i = 0; i < n;) {
        if (combining_class(c[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < n && combining_class(c[end]) != 0) end++;
        if (end - i > 1) sort_marks(c + i, room, end - i);
        i = end;
    }
}

/* Below U+00C0 nothing decomposes canonically, below U+0300 nothing composes any further. */
static bool is_normal_already(enum unicode_form form, struct bytes text) {
    if (form == UNICODE_NFKC || form == UNICODE_NFKD) {
        for (size_t i = 0; i < text.len; i++)
            if (((const unsigned char *)text.data)[i] >= 0x80) return false;
        return true;
    }
    unsigned char lead = form == UNICODE_NFC ? 0xCC : 0xC3; /* of U+0300, of U+00C0 */
    for (size_t i = 0; i < text.len; i++)
        if (((const unsigned char *)text.data)[i] >= lead) return false;
    return true;
}

int unicode_normalize(enum unicode_form form, struct bytes text, struct buf *out) {
    if (is_normal_already(form, text)) return buf_append(out, text.data, text.len);
    bool compose = form == UNICODE_NFC || form == UNICODE_NFKC;
    bool compat = form == UNICODE_NFKC || form == UNICODE_NFKD;
    utf8proc_option_t options =
        (utf8proc_option_t)(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                            (compat ? UTF8PROC_COMPAT : 0));
    utf8proc_option_t split =
        (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0));
    size_t n = 0, cap = text.len * 2 + 32;
    int32_t *c = malloc(cap * sizeof *c), *room = NULL;
    if (!c) return -ENOMEM;
    const char *at = text.data, *end = at + text.len;
    while (at < end) {
        if (cap - n < 32) { /* the longest decomposition has 18 code points */
            cap *= 2;
            int32_t *more = realloc(c, cap * sizeof *c);
            if (!more) goto no_memory;
            c = more;
        }
        int last_class = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(
            (int32_t)unicode_next(&at), c + n, (utf8proc_ssize_t)(cap - n), split, &last_class);
        if (got < 0) goto no_memory;
        n += (size_t)got;
    }
    room = malloc((n + 1) * sizeof *room);
    if (!room) goto no_memory;
    order_canonically(c, room, n);
    if (compose) n = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)n, options);
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        buf_append(out, bytes, unicode_put(bytes, (uint32_t)c[i]));
    }
    free(c);
    free(room);
    return out->error;
no_memory:
    free(c);
    free(room);
    return -ENOMEM;
}
