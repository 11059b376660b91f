#include "workers/chat/jinja_lex.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "workers/chat/jinja_text.h"
#include "workers/encode/unicode.h"

#define BRACES_MAX 128u
#define NUMBER_BYTES 64u

struct lexer {
    struct arena *arena;
    const char *text; /* [len], line ends are LF */
    size_t len, at;
    uint32_t line;
    struct buf tokens; /* struct jinja_token */
    char open[BRACES_MAX];
    uint32_t n_open;
    char *err;
    size_t err_bytes;
};

static int fail(struct lexer *x, const char *what, struct bytes shown) {
    size_t n = utf8_cut(shown, 40);
    return err_set(x->err, x->err_bytes, ERR_FIELD, "line %u: %s%s%.*s", x->line, what,
                   n ? ": " : "", (int)n, n ? (const char *)shown.data : "");
}

static struct jinja_token *put(struct lexer *x, enum jinja_token_kind kind, struct bytes text) {
    struct jinja_token *t = buf_extend(&x->tokens, sizeof *t);
    if (t) *t = (struct jinja_token){.kind = kind, .line = x->line, .text = text};
    return t;
}

/* Moves on to `to` and counts the lines between. */
static void advance(struct lexer *x, size_t to) {
    for (; x->at < to; x->at++) x->line += x->text[x->at] == '\n';
}

static struct bytes span(const struct lexer *x, size_t from, size_t to) {
    return bytes_of(x->text + from, to - from);
}

static bool here(const struct lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return x->len - at >= n && memcmp(x->text + at, what, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t at) {
    while (at < x->len) {
        const char *p = x->text + at;
        if (!text_is_space(unicode_next(&p))) break;
        at = (size_t)(p - x->text);
    }
    return at;
}

/* ---- text and what ends it ---- */

/* Text from `from` in front of a tag at `to`, which has this sign, less what is stripped. */
static void put_text(struct lexer *x, size_t from, size_t to, char sign, bool print) {
    size_t end = to;
    if (sign == '-') {
        end = from + text_strip(span(x, from, to), (struct bytes){0}, false, true).len;
    } else if (sign != '+' && !print) {
        size_t line = to;
        while (line > from && x->text[line - 1] != '\n') line--;
        bool begins = line > from || from == 0 || x->text[from - 1] == '\n';
        if (begins && skip_space(x, line) >= to) end = line;
    }
    if (end > from) put(x, JT_TEXT, span(x, from, end));
    advance(x, to);
}

static char sign_at(const struct lexer *x, size_t at) {
    return at < x->len && (x->text[at] == '-' || x->text[at] == '+') ? x->text[at] : 0;
}

/* Where the text goes on behind an end tag of two bytes at `at`, whose sign is in front of it. */
static size_t behind(const struct lexer *x, size_t at, char sign, bool trim) {
    size_t next = at + 2;
    if (sign == '-') return skip_space(x, next);
    return trim && sign != '+' && next < x->len && x->text[next] == '\n' ? next + 1 : next;
}

/* {# ... #}; x->at is behind its sign. */
static int comment(struct lexer *x) {
    for (size_t at = x->at; at + 1 < x->len; at++) {
        if (!here(x, at, "#}")) continue;
        char sign = at > x->at ? sign_at(x, at - 1) : 0;
        advance(x, behind(x, at, sign, true));
        return 0;
    }
    if (x->at == x->len) return 0; /* as Jinja has it: nothing is lost */
    return fail(x, "a comment has no end", (struct bytes){0});
}

/* Whether {% at `at` is the tag of that name alone, with its signs; *end is the end tag's place. */
static bool tag_alone(const struct lexer *x, size_t at, const char *name, char *before, char *after,
                      size_t *end) {
    *before = sign_at(x, at + 2);
    size_t p = skip_space(x, at + 2 + (*before != 0));
    if (!here(x, p, name)) return false;
    p = skip_space(x, p + strlen(name));
    *after = sign_at(x, p);
    p += *after != 0;
    *end = p;
    return here(x, p, "%}");
}

/* {% raw %} ... {% endraw %}; true when it was one. */
static int raw(struct lexer *x, size_t from, size_t tag, bool *was) {
    char before, after;
    size_t end;
    *was = tag_alone(x, tag, "raw", &before, &after, &end) && after != '+';
    if (!*was) return 0;
    put_text(x, from, tag, before, false);
    advance(x, behind(x, end, after, false));
    for (size_t at = x->at; at + 1 < x->len; at++) {
        if (!here(x, at, "{%") || !tag_alone(x, at, "endraw", &before, &after, &end)) continue;
        put_text(x, x->at, at, before, false);
        advance(x, behind(x, end, after, true));
        return 0;
    }
    if (x->at == x->len) return 0;
    return fail(x, "raw has no endraw", (struct bytes){0});
}

/* ---- inside a tag ---- */

static uint32_t hex_digits(struct bytes s, size_t at, size_t n, bool *ok) {
    uint32_t v = 0;
    *ok = at + n <= s.len;
    for (size_t i = at; *ok && i < at + n; i++) {
        unsigned char c = ((const unsigned char *)s.data)[i];
        if (!isxdigit(c)) *ok = false;
        v = v * 16 + (uint32_t)(isdigit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    return v;
}

/* One escape of Python's string literals; i is behind the backslash and moves behind the escape. */
static int unescape(struct lexer *x, struct bytes s, size_t *i, char **to) {
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    const char *d = s.data;
    char c = d[(*i)++];
    if (c == '\n') return 0;
    for (const char *p = plain; *p; p += 2) {
        if (*p != c) continue;
        *(*to)++ = p[1];
        return 0;
    }
    uint32_t v = 0;
    if (c >= '0' && c <= '7') {
        v = (uint32_t)(c - '0');
        for (int k = 0; k < 2 && *i < s.len && d[*i] >= '0' && d[*i] <= '7'; k++)
            v = v * 8 + (uint32_t)(d[(*i)++] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        bool ok;
        v = hex_digits(s, *i, n, &ok);
        if (!ok || v > 0x10FFFF || (v >= 0xD800 && v <= 0xDFFF))
            return fail(x, "a bad escape in a string", s);
        *i += n;
    } else if (c == 'N') {
        return fail(x, "\\N{...} in a string is not supported", s);
    } else {
        *(*to)++ = '\\';
        *(*to)++ = c;
        return 0;
    }
    *to += unicode_put(*to, v);
    return 0;
}

static int string(struct lexer *x) {
    char quote = x->text[x->at];
    size_t end = x->at + 1;
    while (end < x->len && x->text[end] != quote) end += x->text[end] == '\\' ? 2 : 1;
    if (end >= x->len) return fail(x, "a string has no end", span(x, x->at, x->len));
    struct bytes s = span(x, x->at + 1, end);
    char *room = arena_alloc(x->arena, s.len + 1), *to = room;
    if (!room) return -ENOMEM;
    for (size_t i = 0; i < s.len;) {
        char c = ((const char *)s.data)[i++];
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        int rc = unescape(x, s, &i, &to);
        if (rc < 0) return rc;
    }
    put(x, JT_STR, bytes_of(room, (size_t)(to - room)));
    advance(x, end + 1);
    return 0;
}

/* Digits with single underscores between them; the place behind. */
static size_t digits(const struct lexer *x, size_t at, int base) {
    size_t from = at;
    for (; at < x->len; at++) {
        unsigned char c = (unsigned char)x->text[at];
        bool digit = base == 16 ? isxdigit(c) != 0 : isdigit(c) && c < '0' + base;
        if (digit) continue;
        if (c != '_' || at == from || at + 1 >= x->len || x->text[at - 1] == '_') break;
        unsigned char next = (unsigned char)x->text[at + 1];
        if (!(base == 16 ? isxdigit(next) != 0 : isdigit(next) && next < '0' + base)) break;
    }
    return at;
}

static int number(struct lexer *x) {
    size_t from = x->at, at = from;
    char plain[NUMBER_BYTES];
    int base = 10;
    bool real = false;
    if (x->text[at] == '0' && at + 1 < x->len) {
        char c = (char)(x->text[at + 1] | 32);
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
    }
    at = digits(x, base == 10 ? at : at + 2, base);
    if (base == 10 && (from == 0 || x->text[from - 1] != '.')) {
        size_t p = at;
        if (p + 1 < x->len && x->text[p] == '.' && isdigit((unsigned char)x->text[p + 1]))
            p = digits(x, p + 1, 10);
        real = p > at;
        at = p;
        if (p < x->len && (x->text[p] | 32) == 'e') {
            p++;
            p += p < x->len && (x->text[p] == '+' || x->text[p] == '-');
            if (p < x->len && isdigit((unsigned char)x->text[p])) {
                at = digits(x, p, 10);
                real = true;
            }
        }
    }
    size_t n = 0;
    for (size_t i = base == 10 ? from : from + 2; i < at; i++) {
        if (n + 1 == sizeof plain) return fail(x, "a number of too many digits", span(x, from, at));
        if (x->text[i] != '_') plain[n++] = x->text[i];
    }
    plain[n] = 0;
    struct jinja_token *t = put(x, real ? JT_FLOAT : JT_INT, span(x, from, at));
    if (!t) return -ENOMEM;
    errno = 0;
    if (real)
        t->real = strtod(plain, NULL);
    else
        t->number = strtoll(plain, NULL, base);
    if (n == 0 || (!real && base == 10 && n > 1 && plain[0] == '0' && t->number != 0))
        return fail(x, "a bad number", span(x, from, at));
    if (errno == ERANGE && !real)
        return fail(x, "a number beyond 64 bits is not supported", span(x, from, at));
    advance(x, at);
    return 0;
}

/* Brackets must close what they opened: an end tag inside one is not an end tag. */
static int bracket(struct lexer *x, char c) {
    static const char pairs[] = "()[]{}";
    const char *p = strchr(pairs, c);
    if (!p) return 0;
    if ((p - pairs) % 2 == 0) {
        if (x->n_open == BRACES_MAX)
            return fail(x, "too many brackets in each other", (struct bytes){0});
        x->open[x->n_open++] = p[1];
        return 0;
    }
    if (x->n_open == 0 || x->open[--x->n_open] != c)
        return fail(x, "a bracket that was not opened", bytes_of(&c, 1));
    return 0;
}

static int sign(struct lexer *x) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (here(x, x->at, two[i])) n = 2;
    char c = x->text[x->at];
    if (n == 1 && !strchr("+-/*%~[](){}><=.:|,;", c)) {
        const char *p = x->text + x->at;
        unicode_next(&p);
        return fail(x, "a sign that has no meaning here", span(x, x->at, (size_t)(p - x->text)));
    }
    int rc = n == 1 ? bracket(x, c) : 0;
    if (rc < 0) return rc;
    put(x, JT_OP, span(x, x->at, x->at + n));
    x->at += n;
    return 0;
}

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* The tokens of one tag up to its end, which is put too. */
static int tag(struct lexer *x, bool print) {
    const char *end = print ? "}}" : "%}";
    x->n_open = 0;
    for (;;) {
        advance(x, skip_space(x, x->at));
        if (x->at == x->len)
            return fail(x, print ? "{{ has no end" : "{% has no end", (struct bytes){0});
        char s = sign_at(x, x->at);
        if (print && s == '+') s = 0;
        size_t at = x->at + (s != 0);
        if (x->n_open == 0 && here(x, at, end)) {
            put(x, print ? JT_PRINT_END : JT_BLOCK_END, span(x, at, at + 2));
            advance(x, behind(x, at, s, !print));
            return 0;
        }
        char c = x->text[x->at];
        int rc = 0;
        if (isdigit((unsigned char)c)) {
            rc = number(x);
        } else if (is_word(c)) {
            size_t to = x->at;
            while (to < x->len && is_word(x->text[to])) to++;
            put(x, JT_NAME, span(x, x->at, to));
            x->at = to;
        } else {
            rc = c == '"' || c == '\'' ? string(x) : sign(x);
        }
        if (rc == 0) rc = x->tokens.error;
        if (rc < 0) return rc;
    }
}

static int root(struct lexer *x) {
    size_t from = x->at, at = from;
    bool was = false;
    while (at + 1 < x->len &&
           !(x->text[at] == '{' && strchr("{%#", x->text[at + 1]) && x->text[at + 1]))
        at++;
    if (at + 1 >= x->len) {
        put(x, JT_TEXT, span(x, from, x->len));
        advance(x, x->len);
        return 0;
    }
    char c = x->text[at + 1], s = sign_at(x, at + 2);
    int rc = c == '%' ? raw(x, from, at, &was) : 0;
    if (rc < 0 || was) return rc;
    put_text(x, from, at, s, c == '{');
    if (c != '#') put(x, c == '{' ? JT_PRINT : JT_BLOCK, span(x, at, at + 2));
    x->at += 2u + (s != 0);
    return c == '#' ? comment(x) : tag(x, c == '{');
}

/* Line ends as LF, less one at the very end. */
static char *normal(struct arena *a, struct bytes source, size_t *len) {
    char *text = arena_alloc(a, source.len + 1);
    const char *s = source.data;
    size_t n = 0;
    for (size_t i = 0; text && i < source.len; i++) {
        if (s[i] == '\r' && i + 1 < source.len && s[i + 1] == '\n') continue;
        text[n++] = s[i] == '\r' ? '\n' : s[i];
    }
    if (n > 0 && text[n - 1] == '\n') n--;
    if (text) text[n] = 0;
    *len = n;
    return text;
}

int jinja_lex(struct arena *a, struct bytes source, struct jinja_token **out, uint32_t *n,
              char *err, size_t err_bytes) {
    struct lexer x = {.arena = a, .line = 1, .err = err, .err_bytes = err_bytes};
    x.tokens.max_bytes = a->max_bytes;
    int rc = 0;
    if (!(x.text = normal(a, source, &x.len))) rc = -ENOMEM;
    while (rc == 0 && x.at < x.len) {
        rc = root(&x);
        if (rc == 0) rc = x.tokens.error;
    }
    if (rc == 0 && !put(&x, JT_END, (struct bytes){0})) rc = x.tokens.error;
    if (rc == 0) {
        *n = (uint32_t)(x.tokens.len / sizeof **out);
        *out = arena_copy(a, x.tokens.data, x.tokens.len);
        if (!*out) rc = -ENOMEM;
    }
    buf_fini(&x.tokens);
    return rc;
}
