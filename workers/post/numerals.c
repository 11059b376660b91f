#include "workers/post/numerals.h"

#include <string.h>
#include <strings.h>

#include "workers/encode/unicode.h"

/* ---- English ---- */

static const struct {
    const char *word;
    double value;
} small[] = {{"zero", 0},         {"a", 1},         {"an", 1},          {"one", 1},
             {"first", 1},        {"two", 2},       {"second", 2},      {"three", 3},
             {"third", 3},        {"four", 4},      {"fourth", 4},      {"five", 5},
             {"fifth", 5},        {"six", 6},       {"sixth", 6},       {"seven", 7},
             {"seventh", 7},      {"eight", 8},     {"eighth", 8},      {"nine", 9},
             {"ninth", 9},        {"ten", 10},      {"tenth", 10},      {"eleven", 11},
             {"eleventh", 11},    {"twelve", 12},   {"twelfth", 12},    {"thirteen", 13},
             {"thirteenth", 13},  {"fourteen", 14}, {"fourteenth", 14}, {"fifteen", 15},
             {"fifteenth", 15},   {"sixteen", 16},  {"sixteenth", 16},  {"seventeen", 17},
             {"seventeenth", 17}, {"eighteen", 18}, {"eighteenth", 18}, {"nineteen", 19},
             {"nineteenth", 19},  {"twenty", 20},   {"twentieth", 20},  {"thirty", 30},
             {"thirtieth", 30},   {"forty", 40},    {"fifty", 50},      {"sixty", 60},
             {"seventy", 70},     {"eighty", 80},   {"ninety", 90}};
static const struct {
    const char *word;
    double value;
} large[] = {{"thousand", 1e3}, {"million", 1e6}, {"billion", 1e9}, {"trillion", 1e12},
             {"k", 1e3},        {"m", 1e6},       {"mm", 1e6},      {"bn", 1e9}};

static bool word_is(struct bytes w, const char *text) {
    return w.len == strlen(text) && strncasecmp(w.data, text, w.len) == 0;
}

static bool next_word(struct bytes *rest, struct bytes *word) {
    const char *s = rest->data;
    size_t i = 0, begin;
    while (i < rest->len && ((s[i] | 0x20) < 'a' || (s[i] | 0x20) > 'z')) i++;
    begin = i;
    while (i < rest->len && (s[i] | 0x20) >= 'a' && (s[i] | 0x20) <= 'z') i++;
    *word = bytes_of(s + begin, i - begin);
    *rest = bytes_of(s + i, rest->len - i);
    return word->len > 0;
}

/* "two hundred and fifty thousand": hundreds stay in `part` until a larger word closes them. */
static bool english(struct bytes text, double *out) {
    double total = 0, part = 0;
    bool any = false;
    struct bytes word;
    while (next_word(&text, &word)) {
        size_t i = 0;
        if (word_is(word, "and")) continue;
        if (word_is(word, "hundred")) {
            part = (part > 0 ? part : 1) * 100;
            any = true;
            continue;
        }
        while (i < sizeof small / sizeof *small && !word_is(word, small[i].word)) i++;
        if (i < sizeof small / sizeof *small) {
            part += small[i].value;
            any = true;
            continue;
        }
        i = 0;
        while (i < sizeof large / sizeof *large && !word_is(word, large[i].word)) i++;
        if (i == sizeof large / sizeof *large || word.len < 3) return false;
        total += (part > 0 ? part : 1) * large[i].value;
        part = 0;
        any = true;
    }
    *out = total + part;
    return any;
}

/* ---- Chinese ---- */

static int chinese_digit(uint32_t c) {
    static const char digits[] = "零壹贰叁肆伍陆柒捌玖〇一二三四五六七八九";
    const char *at = digits;
    for (int i = 0; *at; i++)
        if (unicode_next(&at) == c) return i % 10;
    if (c == 0x4E24 || c == 0x5169) return 2; /* 两 兩 */
    return c == 0x25CB ? 0 : -1;              /* ○ */
}

static double chinese_unit(uint32_t c) {
    switch (c) {
    case 0x5341: /* 十 */
    case 0x62FE: return 10;
    case 0x767E: /* 百 */
    case 0x4F70: return 100;
    case 0x5343: /* 千 */
    case 0x4EDF: return 1000;
    case 0x4E07: /* 万 */
    case 0x842C: return 1e4;
    case 0x4EBF: /* 亿 */
    case 0x5104: return 1e8;
    default: return 0;
    }
}

static bool chinese(struct bytes text, double *out) {
    const char *at = text.data, *end = at + text.len;
    double total = 0, section = 0, number = 0, point = 0;
    bool pending = false, any = false;
    while (at < end) {
        uint32_t c = unicode_next(&at);
        int digit = chinese_digit(c);
        double unit = chinese_unit(c);
        if (c == 0x70B9 && any && point == 0) { /* 点 */
            point = 1;
        } else if (digit >= 0 && point > 0) {
            point /= 10;
            number += digit * point;
        } else if (digit >= 0) {
            number = pending ? number * 10 + digit : digit; /* 二〇二六 is read digit by digit */
            pending = digit != 0 || pending;
        } else if (unit >= 1e4) {
            section += number;
            if (unit == 1e8)
                total = (total + section) * unit;
            else
                total += (section > 0 ? section : 1) * unit;
            section = number = 0;
            pending = false;
        } else if (unit > 0) {
            section += (pending ? number : 1) * unit;
            number = 0;
            pending = false;
        } else {
            return false;
        }
        any = true;
    }
    *out = total + section + number;
    return any;
}

/* ---- figures ---- */

static int figure(uint32_t c) {
    if (c >= '0' && c <= '9') return (int)(c - '0');
    return c >= 0xFF10 && c <= 0xFF19 ? (int)(c - 0xFF10) : -1;
}

static bool figures(struct bytes text, double *out) {
    const char *at = text.data, *end = at + text.len;
    double whole = 0, fraction = 0, scale = 1;
    int group = -1; /* figures since a comma; -1: there was none */
    bool point = false, any = false;
    while (at < end) {
        const char *before = at;
        uint32_t c = unicode_next(&at);
        int digit = figure(c);
        if (digit >= 0 && point) {
            scale /= 10;
            fraction = fraction * 10 + digit;
        } else if (digit >= 0) {
            whole = whole * 10 + digit;
            if (group >= 0) group++;
        } else if ((c == ',' || c == 0xFF0C) && any && !point && (group < 0 || group == 3)) {
            group = 0;
        } else if ((c == '.' || c == 0xFF0E) && any && !point) {
            point = true;
        } else {
            double factor;
            if (!numeral_factor(bytes_of(before, (size_t)(end - before)), &factor) || factor == 1)
                return false;
            whole *= factor;
            fraction *= factor;
            break;
        }
        any = true;
    }
    *out = whole + fraction * scale;
    return any && (group < 0 || group == 3);
}

static struct bytes trim(struct bytes t) {
    const char *at = t.data, *end = at + t.len, *next = at;
    while (at < end && unicode_is_space(unicode_next(&next))) at = next;
    while (end > at && unicode_is_space(unicode_before(end, &next))) end = next;
    return bytes_of(at, (size_t)(end - at));
}

bool numeral_value(struct bytes text, double *out) {
    text = trim(text);
    if (text.len == 0) return false;
    const char *at = text.data;
    uint32_t c = unicode_next(&at);
    if (figure(c) >= 0) return figures(text, out);
    if (c < 0x80) return english(text, out);
    return chinese(text, out);
}

bool numeral_factor(struct bytes text, double *out) {
    text = trim(text);
    *out = 1;
    if (text.len == 0) return true;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        if (!word_is(text, large[i].word)) continue;
        *out = large[i].value;
        return true;
    }
    const char *at = text.data, *end = at + text.len;
    while (at < end) {
        double unit = chinese_unit(unicode_next(&at));
        if (unit == 0) return false;
        *out *= unit;
    }
    return true;
}
