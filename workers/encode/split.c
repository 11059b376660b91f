#include "workers/encode/split.h"

#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/regex.h"
#include "workers/encode/unicode.h"

/* Qwen2's pattern with %s for how digits are counted; Llama-3's differs there only. */
#define MODERN_BEFORE "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
#define MODERN_AFTER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

int splitter_open_regex(struct splitter *s, const char *pattern, char *err, size_t err_bytes) {
    static const struct {
        const char *pattern;
        enum splitter_kind kind;
    } known[] = {{SPLIT_GPT2, SPLITTER_GPT2},
                 {SPLIT_O200K, SPLITTER_O200K},
                 {MODERN_BEFORE MODERN_AFTER, SPLITTER_DIGITS_1},
                 {MODERN_BEFORE "{1,3}" MODERN_AFTER, SPLITTER_DIGITS_3}};
    *s = (struct splitter){.kind = SPLITTER_REGEX};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(pattern, known[i].pattern) != 0) continue;
        s->kind = known[i].kind;
        return 0;
    }
    return regex_open(&s->regex, pattern, "", err, err_bytes);
}

int splitter_open_string(struct splitter *s, struct bytes string) {
    *s = (struct splitter){.kind = SPLITTER_STRING};
    return buf_append(&s->string, string.data, string.len);
}

void splitter_open_sign(struct splitter *s) {
    *s = (struct splitter){.kind = SPLITTER_SIGN};
}

void splitter_fini(struct splitter *s) {
    buf_fini(&s->string);
    regex_close(s->regex);
    *s = (struct splitter){0};
}

/* ---- scanners: the length of the match at `at`, which is at least one character ---- */

static const char *skip_letters(const char *at, const char *end) {
    for (const char *next = at; at < end && unicode_is_letter(unicode_next(&next)); at = next) {
    }
    return at;
}

static const char *skip_digits(const char *at, const char *end, uint32_t max) {
    for (const char *next = at; at < end && max > 0 && unicode_is_number(unicode_next(&next));
         max--)
        at = next;
    return at;
}

/* [^\s\p{L}\p{N}]+ */
static const char *skip_signs(const char *at, const char *end) {
    for (const char *next = at; at < end; at = next) {
        uint32_t c = unicode_next(&next);
        if (unicode_is_space(c) || unicode_is_letter(c) || unicode_is_number(c)) break;
    }
    return at;
}

static const char *skip_newlines(const char *at, const char *end) {
    while (at < end && (*at == '\r' || *at == '\n')) at++;
    return at;
}

/* The run of white space at `at`; `*last` is where its last character begins, `*newline` the end
 * of its last line break, NULL when it has none. */
static const char *skip_spaces(const char *at, const char *end, const char **last,
                               const char **newline) {
    *newline = NULL;
    for (const char *next = at; at < end; at = next) {
        uint32_t c = unicode_next(&next);
        if (!unicode_is_space(c)) break;
        *last = at;
        if (c == '\r' || c == '\n') *newline = next;
    }
    return at;
}

/* 's 't 're 've 'm 'll 'd; NULL when there is none. With fold, capitals match too, and so does the
 * long s (U+017F), whose case-folded form is s. */
static const char *contraction(const char *at, const char *end, bool fold) {
    if (*at != '\'' || end - at < 2) return NULL;
    int mask = fold ? 0xDF : 0xFF, low = fold ? 0x20 : 0;
    int a = (at[1] & mask) | low, b = end - at > 2 ? (at[2] & mask) | low : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
    if (fold && end - at > 2 && memcmp(at + 1, "\xC5\xBF", 2) == 0) return at + 3;
    return NULL;
}

/* \s+(?!\S)|\s+: all of it at the end of the text, else all but the last character,
 * else that one. */
static const char *split_spaces(const char *at, const char *run_end, const char *last,
                                const char *end) {
    return run_end == end || last == at ? run_end : last;
}

static const char *scan_gpt2(const char *at, const char *end) {
    const char *hit = contraction(at, end, false), *last = at, *newline;
    if (hit) return hit;
    const char *word = *at == ' ' ? at + 1 : at;
    if ((hit = skip_letters(word, end)) > word) return hit;
    if ((hit = skip_digits(word, end, UINT32_MAX)) > word) return hit;
    if ((hit = skip_signs(word, end)) > word) return hit;
    hit = skip_spaces(at, end, &last, &newline);
    return split_spaces(at, hit, last, end);
}

static const char *scan_modern(const char *at, const char *end, uint32_t digits) {
    const char *hit = contraction(at, end, true), *last = at, *newline, *behind = at;
    if (hit) return hit;
    uint32_t c = unicode_next(&behind);
    if (unicode_is_letter(c)) return skip_letters(behind, end);
    if (unicode_is_number(c)) return skip_digits(at, end, digits);
    if (c != '\r' && c != '\n' && (hit = skip_letters(behind, end)) > behind) return hit;
    const char *sign = c == ' ' ? behind : at;
    if ((hit = skip_signs(sign, end)) > sign) return skip_newlines(hit, end);
    hit = skip_spaces(at, end, &last, &newline);
    return newline ? newline : split_spaces(at, hit, last, end);
}

/* Letters that are neither capital nor small, and marks: they go with both. */
static bool caseless(uint32_t c) {
    if (c < 0x80) return false;
    return (unicode_is_letter(c) && !unicode_is_upper(c) && !unicode_is_lower(c)) ||
           unicode_is_mark(c);
}

/* Capitals, then small letters: U*l+, else U+ when `capitals`; NULL when that does not match at
 * `at`. U* gives a caseless letter back where no small one follows. */
static const char *skip_cased(const char *at, const char *end, bool capitals) {
    const char *begin = at, *shared = NULL, *next = at;
    for (; at < end; at = next) {
        uint32_t c = unicode_next(&next);
        if (caseless(c))
            shared = next;
        else if (!unicode_is_upper(c))
            break;
    }
    const char *small = at;
    for (next = at; at < end; at = next) {
        uint32_t c = unicode_next(&next);
        if (!unicode_is_lower(c) && !caseless(c)) break;
    }
    if (at > small) return at;
    if (shared) return shared;
    return capitals && small > begin ? small : NULL;
}

static const char *scan_o200k(const char *at, const char *end) {
    const char *hit = NULL, *last = at, *newline, *behind = at;
    uint32_t c = unicode_next(&behind);
    if (unicode_is_letter(c)) {
        hit = skip_cased(at, end, true);
    } else if (c != '\r' && c != '\n' && !unicode_is_number(c)) {
        hit = skip_cased(behind, end, false);
        if (!hit && unicode_is_mark(c)) hit = skip_cased(at, end, false);
        if (!hit) hit = skip_cased(behind, end, true);
    }
    if (hit) {
        const char *more = hit < end ? contraction(hit, end, true) : NULL;
        return more ? more : hit;
    }
    if (unicode_is_number(c)) return skip_digits(at, end, 3);
    const char *sign = c == ' ' ? behind : at;
    if ((hit = skip_signs(sign, end)) > sign) {
        while (hit < end && (*hit == '\r' || *hit == '\n' || *hit == '/')) hit++;
        return hit;
    }
    hit = skip_spaces(at, end, &last, &newline);
    return newline ? newline : split_spaces(at, hit, last, end);
}

static int find_regex(const struct regex *r, struct bytes text, size_t from, size_t *begin,
                      size_t *end) {
    struct regex_span spans[REGEX_GROUPS];
    for (;;) {
        int rc = regex_find(r, text.data, text.len, from, spans);
        if (rc != 1) return rc;
        if (spans[0].end > spans[0].begin) break;
        if (spans[0].end == text.len) return 0;
        const char *next = (const char *)text.data + spans[0].end; /* skip an empty match */
        unicode_next(&next);
        from = (size_t)(next - (const char *)text.data);
    }
    *begin = spans[0].begin;
    *end = spans[0].end;
    return 1;
}

int splitter_find(const struct splitter *s, struct bytes text, size_t from, size_t *begin,
                  size_t *end) {
    if (from >= text.len) return 0;
    const char *all = text.data, *at = all + from, *stop = all + text.len, *hit;
    *begin = from;
    switch (s->kind) {
    case SPLITTER_GPT2: *end = (size_t)(scan_gpt2(at, stop) - all); return 1;
    case SPLITTER_DIGITS_1: *end = (size_t)(scan_modern(at, stop, 1) - all); return 1;
    case SPLITTER_DIGITS_3: *end = (size_t)(scan_modern(at, stop, 3) - all); return 1;
    case SPLITTER_O200K: *end = (size_t)(scan_o200k(at, stop) - all); return 1;
    case SPLITTER_SIGN:
        for (hit = at; hit < stop; at = hit) {
            if (!unicode_is_punct(unicode_next(&hit))) continue;
            *begin = (size_t)(at - all);
            *end = (size_t)(hit - all);
            return 1;
        }
        return 0;
    case SPLITTER_STRING:
        hit = memmem(at, text.len - from, s->string.data, s->string.len);
        if (!hit) return 0;
        *begin = (size_t)(hit - all);
        *end = *begin + s->string.len;
        return 1;
    default: return find_regex(s->regex, text, from, begin, end);
    }
}
