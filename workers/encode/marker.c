#include "workers/encode/marker.h"

#include <string.h>

#include "workers/encode/unicode.h"

#define HEADING_CHARS_MAX 80u
#define HEADING_HAN_MAX 24u /* Han characters of a Chinese heading */

static bool starts(struct bytes text, const char *with) {
    size_t n = strlen(with);
    return text.len >= n && memcmp(text.data, with, n) == 0;
}

static struct bytes skip(struct bytes text, size_t n) {
    return bytes_of((const char *)text.data + n, text.len - n);
}

static bool next_is(struct bytes text, bool (*is)(uint32_t)) {
    const char *at = text.data;
    return text.len > 0 && is(unicode_next(&at));
}

/* ---- numerals ---- */

size_t marker_digits(struct bytes text) {
    const char *s = text.data;
    size_t n = 0;
    while (n < text.len && s[n] >= '0' && s[n] <= '9') n++;
    return n;
}

size_t marker_chinese_number(struct bytes text) {
    static const char numerals[] = "零〇一二三四五六七八九十百千两";
    size_t n = 0;
    while (text.len - n >= 3) {
        const char *at = (const char *)text.data + n;
        const char *hit = memmem(numerals, sizeof numerals - 1, at, 3);
        if (!hit || (hit - numerals) % 3 != 0) break;
        n += 3;
    }
    return n;
}

static size_t roman(struct bytes text, bool upper) {
    const char *set = upper ? "IVXLC" : "ivxlc", *s = text.data;
    size_t n = 0;
    while (n < text.len && n < 8 && strchr(set, s[n])) n++;
    return n;
}

/* Blanks, tabs, ideographic and no-break spaces. */
static size_t blanks(struct bytes text) {
    const char *at = text.data, *end = at + text.len, *next = at;
    while (at < end && unicode_is_space(unicode_next(&next))) at = next;
    return (size_t)(at - (const char *)text.data);
}

/* One of the strings of a NULL-ended list at the beginning. */
static size_t any_of(struct bytes text, const char *const *list) {
    for (; *list; list++)
        if (starts(text, *list)) return strlen(*list);
    return 0;
}

/* ---- numbers ---- */

/* 第三条, 第2章 */
static size_t number_ordinal(struct bytes line, uint32_t *level) {
    static const char *const units[] = {"编", "章", "节", "条", "款", "项", NULL};
    static const uint32_t levels[] = {1, 1, 2, 1, 2, 3};
    if (!starts(line, "第")) return 0;
    struct bytes rest = skip(line, 3);
    rest = skip(rest, blanks(rest));
    size_t n = marker_chinese_number(rest);
    if (n == 0) n = marker_digits(rest);
    if (n == 0) return 0;
    rest = skip(rest, n);
    rest = skip(rest, blanks(rest));
    for (int i = 0; units[i]; i++) {
        if (!starts(rest, units[i])) continue;
        *level = levels[i];
        return line.len - rest.len + strlen(units[i]);
    }
    return 0;
}

/* ARTICLE IV, Section 2.3, Schedule B, § 5 */
static size_t number_word(struct bytes line, uint32_t *level) {
    static const char *const words[] = {
        "ARTICLE", "Article", "SECTION",  "Section",  "CLAUSE", "Clause", "SCHEDULE", "Schedule",
        "EXHIBIT", "Exhibit", "APPENDIX", "Appendix", "ANNEX",  "Annex",  "§",        NULL};
    size_t word = any_of(line, words);
    if (word == 0) return 0;
    struct bytes rest = skip(line, word);
    size_t gap = blanks(rest);
    if (gap == 0 && !starts(line, "§")) return 0;
    rest = skip(rest, gap);
    size_t n = marker_digits(rest);
    *level = 1;
    if (n > 0) {
        while (n + 1 < rest.len && ((const char *)rest.data)[n] == '.' &&
               marker_digits(skip(rest, n + 1)) > 0) {
            n += 1 + marker_digits(skip(rest, n + 1));
            ++*level;
        }
    } else {
        n = roman(rest, true);
        if (n == 0 && next_is(rest, unicode_is_upper)) n = 1;
        if (n == 0 || next_is(skip(rest, n), unicode_is_letter)) return 0;
    }
    rest = skip(rest, n);
    /* "Section 2 of this Agreement" is a sentence, not a number */
    struct bytes after = skip(rest, blanks(rest));
    const char *at = after.data;
    if (after.len > 0 && after.len < rest.len) {
        uint32_t c = unicode_next(&at);
        if (unicode_is_letter(c) && !unicode_is_upper(c) && !unicode_is_han(c)) return 0;
    }
    if (starts(rest, ".") || starts(rest, ":")) rest = skip(rest, 1);
    return line.len - rest.len;
}

/* 1. 1.2 1.2.3 1、 1) 3．; a blank or a letter follows, so that 3.5% is none. */
static size_t number_decimal(struct bytes line, uint32_t *level) {
    static const char *const marks[] = {".", "、", "．", ")", "）", NULL};
    size_t n = marker_digits(line);
    if (n == 0 || n > 3) return 0;
    uint32_t parts = 1;
    struct bytes rest = skip(line, n);
    while ((starts(rest, ".") || starts(rest, "．")) && parts < 6) {
        size_t dot = starts(rest, ".") ? 1 : 3, digits = marker_digits(skip(rest, dot));
        if (digits == 0 || digits > 3) break;
        rest = skip(rest, dot + digits);
        parts++;
    }
    size_t mark = any_of(rest, marks);
    struct bytes after = skip(rest, mark);
    bool blank = blanks(after) > 0, end = after.len == 0;
    if (mark == 0 && !(blank && parts > 1)) return 0;
    if (mark > 0 && !blank && !end && !next_is(after, unicode_is_letter)) return 0;
    if (starts(rest, ")") || starts(rest, "）")) parts += 2; /* an item of a list */
    *level = parts;
    return line.len - after.len;
}

/* (a) (iv) (1) （一） （1） */
static size_t number_bracket(struct bytes line, uint32_t *level) {
    size_t open = starts(line, "(") ? 1 : starts(line, "（") ? 3 : 0;
    if (open == 0) return 0;
    struct bytes rest = skip(line, open);
    size_t n = marker_chinese_number(rest);
    *level = n > 0 ? 2 : 3;
    if (n == 0) n = marker_digits(rest);
    if (n == 0) n = roman(rest, false);
    if (n == 0 || (!starts(skip(rest, n), ")") && !starts(skip(rest, n), "）")))
        n = next_is(rest, unicode_is_letter) && !next_is(rest, unicode_is_han) ? 1 : n;
    rest = skip(rest, n < rest.len ? n : rest.len);
    size_t close = starts(rest, ")") ? 1 : starts(rest, "）") ? 3 : 0;
    return n == 0 || n > 12 || close == 0 ? 0 : open + n + close;
}

/* 一、 十二、 */
static size_t number_comma(struct bytes line, uint32_t *level) {
    size_t n = marker_chinese_number(line);
    if (n == 0) return 0;
    struct bytes rest = skip(line, n);
    *level = 1;
    return starts(rest, "、") || starts(rest, "．") ? n + 3 : 0;
}

/* ① to ⑳; a) b) */
static size_t number_small(struct bytes line, uint32_t *level) {
    const char *at = line.data;
    if (line.len == 0) return 0;
    uint32_t c = unicode_next(&at);
    *level = 3;
    if (c >= 0x2460 && c <= 0x2473) return 3;
    if (c < 'a' || c > 'z' || line.len < 3) return 0;
    return at[0] == ')' && (at[1] == ' ' || at[1] == '\t') ? 2 : 0;
}

static size_t number_of(struct bytes line, uint32_t *level) {
    static size_t (*const kinds[])(struct bytes, uint32_t *) = {
        number_ordinal, number_word, number_decimal, number_bracket, number_comma, number_small};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = kinds[i](line, level);
        if (n > 0) return n;
    }
    *level = 0;
    return 0;
}

/* ---- headings ---- */

struct shape {
    uint32_t chars, han, letters, lower, words, capital_words;
    bool stop;    /* ends with a mark that ends a sentence or a part of one */
    bool comma;   /* has an inner comma or semicolon */
    bool capital; /* the first letter is a capital one */
};

static struct shape shape_of(struct bytes text) {
    struct shape s = {0};
    const char *at = text.data, *end = at + text.len;
    bool inside = false;
    while (at < end) {
        uint32_t c = unicode_next(&at);
        bool letter = unicode_is_letter(c);
        s.chars++;
        if (unicode_is_han(c)) s.han++;
        if (letter && !unicode_is_han(c)) {
            if (s.letters == 0) s.capital = unicode_is_upper(c);
            s.letters++;
            s.lower += !unicode_is_upper(c);
            if (!inside) s.words++, s.capital_words += unicode_is_upper(c);
        }
        inside = letter || c == '\'' || c == 0x2019;
        s.stop = c == '.' || c == ';' || c == ',' || c == 0x3002 || c == 0xFF1B || c == 0xFF0C ||
                 c == 0x3001;
        if (at < end) s.comma |= c == ',' || c == ';' || c == 0x3002 || c == 0xFF0C || c == 0xFF1B;
    }
    return s;
}

/* A line that is a heading as a whole, its number left out. */
static bool is_heading(struct bytes text, bool numbered, bool alone) {
    struct shape s = shape_of(text);
    if (s.chars == 0 || s.chars > HEADING_CHARS_MAX) return false;
    if (s.han > 0)
        return s.han <= HEADING_HAN_MAX && (numbered || alone) && !s.stop && !s.comma &&
               !memmem(text.data, text.len, "：", 3);
    if (s.letters < 2) return false;
    if (s.lower == 0 && !s.stop) return true; /* ALL CAPITALS */
    if (s.stop && ((const char *)text.data)[text.len - 1] != '.') return false;
    if (s.stop && !numbered) return false;
    if (memchr(text.data, ':', text.len) || memchr(text.data, '_', text.len)) return false;
    /* Title Case: small words (of, and, the) may be lower case */
    if (!(numbered || alone) || !s.capital || s.words > 10) return false;
    return s.capital_words * 2 >= s.words + (s.words > 1);
}

/* "Confidentiality." or "Payment Terms:" in front of the text of a numbered line. */
static size_t inline_heading(struct bytes text) {
    const char *s = text.data;
    for (size_t i = 0; i < text.len && i < HEADING_CHARS_MAX; i++) {
        bool wide =
            i + 3 <= text.len && (memcmp(s + i, "：", 3) == 0 || memcmp(s + i, "。", 3) == 0);
        if (!wide && s[i] != '.' && s[i] != ':') continue;
        if (!wide && i + 1 < text.len && s[i + 1] != ' ' && s[i + 1] != '\t') return 0;
        struct bytes head = bytes_of(s, i);
        struct shape h = shape_of(head);
        bool good = h.han > 0
                        ? h.han <= 12 && !h.comma && s[i] != '.' && memcmp(s + i, "：", 3) == 0
                        : is_heading(head, true, false) && h.words <= 8;
        return good && i + 1 < text.len ? i : 0;
    }
    return 0;
}

/* 第一条 合同标的 甲方向乙方……: a short run of Han characters between the number and a blank. */
static size_t spaced_heading(struct bytes text) {
    const char *at = text.data, *end = at + text.len, *next = at;
    while (at < end && !unicode_is_space(unicode_next(&next))) at = next;
    if (at == end) return 0;
    struct bytes head = bytes_of(text.data, (size_t)(at - (const char *)text.data));
    struct shape s = shape_of(head);
    return s.han >= 2 && s.han == s.letters + s.han && s.han <= 12 && s.chars == s.han ? head.len
                                                                                       : 0;
}

struct marker marker_read(struct bytes line, bool alone) {
    struct marker m = {0};
    size_t n = number_of(line, &m.level);
    struct bytes rest = skip(line, n);
    size_t gap = blanks(rest);
    rest = skip(rest, gap);
    m.number_bytes = (uint32_t)n;
    m.heading_begin = m.heading_end = (uint32_t)(n + gap);
    if (rest.len == 0 && n > 0 && m.level == 1) {
        m.heading_only = true; /* "ARTICLE I" on a line of its own */
        m.heading_begin = 0;
        m.heading_end = (uint32_t)n;
    } else if ((n == 0 || m.level <= 2) && is_heading(rest, n > 0, alone)) {
        m.heading_only = true;
        m.heading_end = (uint32_t)line.len;
    } else if (n > 0) {
        size_t head = inline_heading(rest);
        if (head == 0 && starts(line, "第")) head = spaced_heading(rest);
        m.heading_end += (uint32_t)head;
    }
    return m;
}

/* ---- sentences ---- */

static bool abbreviation(const char *text, size_t dot) {
    static const char *const list[] = {"Inc", "Ltd",    "Co",  "Corp", "No", "Nos",   "Art",
                                       "Sec", "Mr",     "Mrs", "Ms",   "Dr", "vs",    "e.g",
                                       "i.e", "U.S",    "L.P", "St",   "Jr", "U.S.A", "cf",
                                       "etc", "approx", "P.R", "S.A"};
    size_t begin = dot;
    while (begin > 0 && (text[begin - 1] == '.' || (uint32_t)((text[begin - 1] | 0x20) - 'a') < 26))
        begin--;
    size_t n = dot - begin;
    if (n == 1) return true; /* an initial: J. Smith */
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (strlen(list[i]) == n && memcmp(text + begin, list[i], n) == 0) return true;
    return false;
}

size_t sentence_end(struct bytes text, size_t from) {
    const char *all = text.data, *at = all + from, *end = all + text.len;
    while (at < end) {
        const char *mark = at;
        uint32_t c = unicode_next(&at);
        bool wide = c == 0x3002 || c == 0xFF01 || c == 0xFF1F || c == 0xFF1B; /* 。！？； */
        bool narrow = c == '.' || c == '!' || c == '?' || c == ';';
        if (!wide && !narrow) continue;
        const char *next = at;
        while (at < end) { /* closing quotes and brackets belong to the sentence */
            uint32_t q = unicode_next(&next);
            if (q != '"' && q != '\'' && q != ')' && q != 0x201D && q != 0x2019 && q != 0xFF09)
                break;
            at = next;
        }
        if (at == end) return text.len;
        next = at;
        if (narrow && !unicode_is_space(unicode_next(&next))) continue;
        if (c == '.' && abbreviation(all, (size_t)(mark - all))) continue;
        return (size_t)(at - all);
    }
    return text.len;
}
