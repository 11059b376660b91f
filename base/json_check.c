#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define NEST_MAX 2048u /* as jansson has it */

struct scan {
    const char *begin, *at, *end;
    uint8_t in_object[NEST_MAX / 8]; /* a bit for each level that is open */
    uint32_t depth;
    const char *why; /* NULL: nothing is wrong so far */
};

static bool fail(struct scan *s, const char *why) {
    if (!s->why) s->why = why;
    return false;
}

static char look(const struct scan *s) {
    return s->at < s->end ? *s->at : '\0';
}

static void spaces(struct scan *s) {
    while (s->at < s->end && strchr(" \t\r\n", *s->at) && *s->at) s->at++;
}

static bool digits(struct scan *s) {
    const char *from = s->at;
    while (look(s) >= '0' && look(s) <= '9') s->at++;
    return s->at > from || fail(s, "a number without its digits");
}

/* RFC 8259, section 6. */
static bool number(struct scan *s) {
    if (look(s) == '-') s->at++;
    if (look(s) == '0')
        s->at++;
    else if (!digits(s))
        return false;
    if (look(s) == '.') {
        s->at++;
        if (!digits(s)) return false;
    }
    if (look(s) != 'e' && look(s) != 'E') return true;
    s->at++;
    if (look(s) == '+' || look(s) == '-') s->at++;
    return digits(s);
}

static bool string(struct scan *s) {
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++) {
        if ((uint8_t)*s->at < 0x20) return fail(s, "a control character in a string");
        if (*s->at != '\\') continue;
        s->at++;
        if (look(s) == '\0' || !strchr("\"\\/bfnrtu", look(s))) return fail(s, "a bad escape");
        for (int i = 0; i < 4 && *s->at == 'u'; i++) {
            char c = s->end - s->at > i + 1 ? s->at[i + 1] : '\0';
            if (c == '\0' || !strchr("0123456789abcdefABCDEF", c)) return fail(s, "a bad escape");
        }
    }
    if (s->at == s->end) return fail(s, "the text ends in a string");
    s->at++;
    return true;
}

static bool word(struct scan *s, const char *text) {
    size_t n = strlen(text);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, text, n) != 0)
        return fail(s, "not a value of JSON");
    s->at += n;
    return true;
}

static bool open_level(struct scan *s, bool object) {
    if (s->depth == NEST_MAX) return fail(s, "nested too deep");
    uint8_t bit = (uint8_t)(1u << (s->depth % 8)), *byte = &s->in_object[s->depth / 8];
    *byte = (uint8_t)(object ? *byte | bit : *byte & ~bit);
    s->depth++;
    s->at++;
    return true;
}

static bool is_in_object(const struct scan *s) {
    return s->in_object[(s->depth - 1) / 8] >> ((s->depth - 1) % 8) & 1;
}

static bool key(struct scan *s) {
    spaces(s);
    if (look(s) != '"') return fail(s, "a member without its name");
    if (!string(s)) return false;
    spaces(s);
    if (look(s) != ':') return fail(s, "a member without its colon");
    s->at++;
    return true;
}

/* Behind a value: closes what ends here. True when another value follows. */
static bool next(struct scan *s) {
    for (;;) {
        spaces(s);
        if (s->depth == 0) return s->at < s->end && fail(s, "more behind the value");
        bool object = is_in_object(s);
        char c = look(s);
        if (c == ',') {
            s->at++;
            return !object || key(s);
        }
        if (c != (object ? '}' : ']')) return fail(s, "a list or an object without its end");
        s->at++;
        s->depth--;
    }
}

/* One value, or the beginning of a list or an object. True when another value follows. */
static bool value(struct scan *s) {
    spaces(s);
    char c = look(s);
    if (c == '{' || c == '[') {
        if (!open_level(s, c == '{')) return false;
        spaces(s);
        if (look(s) == (c == '{' ? '}' : ']')) return next(s);
        return c == '[' || key(s);
    }
    bool good = c == '"'                             ? string(s)
                : c == '-' || (c >= '0' && c <= '9') ? number(s)
                                                     : word(s, c == 't'   ? "true"
                                                               : c == 'f' ? "false"
                                                                          : "null");
    return good && next(s);
}

int json_check(const void *text, size_t bytes, char *err, size_t err_bytes) {
    struct scan s = {.begin = text ? text : "", .at = text ? text : ""};
    s.end = s.at + (text ? bytes : 0);
    while (value(&s)) continue;
    if (!s.why) return 0;
    int line = 1, column = 1;
    for (const char *p = s.begin; p < s.at; p++) {
        line += *p == '\n';
        column = *p == '\n' ? 1 : column + ((*p & 0xC0) != 0x80);
    }
    return err_set(err, err_bytes, ERR_FIELD, "not valid JSON: line %d, column %d: %s", line,
                   column, s.why);
}
