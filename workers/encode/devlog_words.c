#include "workers/encode/devlog_words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/limits.h"
#include "workers/encode/devlog_time.h"

#define NUMBER_BYTES 48u /* longer strings of digits are no measured values */
#define UNIT_BYTES 12u

static bool digit(char c) {
    return c >= '0' && c <= '9';
}
static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}
static bool hex_digit(char c) {
    return digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static void put(struct devlog_words *w, const char *text, size_t len) {
    size_t room = sizeof w->text - w->len;
    if (len > room) len = utf8_cut(bytes_of(text, len), room);
    memcpy(w->text + w->len, text, len);
    w->len += len;
}
static void put_str(struct devlog_words *w, const char *text) {
    put(w, text, strlen(text));
}

/* ---- numbers ---- */

/* Bytes of the number that s begins with: [+-] digits [. digits] [e [+-] digits]; 0: none. */
static size_t number_len(const char *s, size_t n) {
    size_t i = n > 0 && (s[0] == '+' || s[0] == '-') ? 1 : 0, begin = i;
    while (i < n && digit(s[i])) i++;
    size_t whole = i - begin;
    if (i + 1 < n && s[i] == '.' && digit(s[i + 1])) {
        for (i++; i < n && digit(s[i]);) i++;
    } else if (whole == 0) {
        return 0;
    }
    if (i + 1 < n && (s[i] == 'e' || s[i] == 'E')) {
        size_t k = i + 1 + (s[i + 1] == '+' || s[i + 1] == '-' ? 1 : 0);
        if (k < n && digit(s[k])) {
            while (k < n && digit(s[k])) k++;
            if (k == n || !letter(s[k])) i = k;
        }
    }
    return i;
}

static bool number_value(const char *s, size_t n, double *out) {
    char copy[NUMBER_BYTES + 1];
    if (n == 0 || n > NUMBER_BYTES) return false;
    memcpy(copy, s, n);
    copy[n] = '\0';
    *out = strtod(copy, NULL);
    return isfinite(*out);
}

bool devlog_number(struct bytes text, double *out) {
    const char *s = text.data;
    size_t n = text.len;
    while (n > 0 && (*s == ' ' || *s == '\t')) s++, n--;
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t')) n--;
    return n > 0 && number_len(s, n) == n && number_value(s, n, out);
}

/* A unit: "mm", "%", "mm/s", "°C"; no digits. */
static bool is_unit(const char *s, size_t n) {
    if (n > UNIT_BYTES) return false;
    for (size_t i = 0; i < n; i++)
        if (!letter(s[i]) && !strchr("%/^*", s[i])) return false;
    return true;
}

/* A number and its unit; *len is the number's. */
static bool is_measure(const char *s, size_t n, size_t *len) {
    *len = number_len(s, n);
    return *len > 0 && is_unit(s + *len, n - *len);
}

/* ---- what a word is ---- */

static bool is_ip(const char *s, size_t n) {
    int dots = 0;
    size_t run = 0, i = 0;
    for (; i < n && (digit(s[i]) || s[i] == '.'); i++) {
        if (s[i] == '.' && run == 0) return false;
        run = s[i] == '.' ? 0 : run + 1;
        dots += s[i] == '.';
        if (run > 3) return false;
    }
    if (dots != 3 || run == 0) return false;
    if (i < n && s[i] != ':' && s[i] != '/') return false; /* a port, a mask */
    for (i += i < n; i < n; i++)
        if (!digit(s[i])) return false;
    return true;
}

static bool is_path(const char *s, size_t n) {
    size_t slashes = 0;
    for (size_t i = 0; i < n; i++) slashes += s[i] == '/' || s[i] == '\\';
    if (n >= 3 && letter(s[0]) && s[1] == ':' && (s[2] == '\\' || s[2] == '/')) return true;
    if (memmem(s, n, "://", 3)) return true;
    return (n >= 2 && s[0] == '/' && letter(s[1])) || slashes >= 2;
}

static bool is_uuid(const char *s, size_t n) {
    if (n != 36) return false;
    for (size_t i = 0; i < n; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !hex_digit(s[i])) return false;
    return true;
}

static bool is_hex(const char *s, size_t n) {
    bool prefix = n > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    size_t digits = 0;
    if (!prefix && n < 6) return false;
    for (size_t i = prefix ? 2 : 0; i < n; i++) {
        if (!hex_digit(s[i])) return false;
        digits += digit(s[i]);
    }
    return prefix || (digits >= 2 && digits < n);
}

/* Only digits and what stands between them: 12/34, 1,234.5, 10:32. */
static bool is_digits(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!digit(s[i]) && !strchr(".,:/x-+*", s[i])) return false;
    return true;
}

static size_t count_digits(const char *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += digit(s[i]);
    return count;
}

/* R12, axis2: what it is stays, which one does not. */
static void put_numbered(struct devlog_words *w, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t begin = i;
        while (i < n && !digit(s[i])) i++;
        put(w, s + begin, i - begin);
        begin = i;
        while (i < n && digit(s[i])) i++;
        if (i > begin) put_str(w, "<num>");
    }
}

static void put_masked(struct devlog_words *w, const char *s, size_t n) {
    int64_t unused;
    size_t number, digits = count_digits(s, n);
    if (digits == 0 && !is_path(s, n))
        put(w, s, n);
    else if (is_measure(s, n, &number))
        put_str(w, "<num>"), put(w, s + number, n - number);
    else if (devlog_time(s, n, &unused) == n)
        put_str(w, "<time>");
    else if (is_ip(s, n))
        put_str(w, "<ip>");
    else if (is_uuid(s, n))
        put_str(w, "<id>");
    else if (is_hex(s, n))
        put_str(w, "<hex>");
    else if (is_digits(s, n))
        put_str(w, "<num>");
    else if (is_path(s, n))
        put_str(w, "<path>");
    else if (digits >= 3)
        put_str(w, "<id>");
    else
        put_numbered(w, s, n);
}

/* ---- names, severity, words ---- */

static bool is_name(const char *s, size_t n) {
    if (n == 0 || n > LIMIT_NAME_BYTES || !letter(s[0])) return false;
    for (size_t i = 1; i < n; i++)
        if (!letter(s[i]) && !digit(s[i]) && !strchr("_-.[]()/", s[i])) return false;
    return true;
}

static const char *after_name(const char *s, size_t n) {
    const char *equals = memchr(s, '=', n), *colon = memchr(s, ':', n);
    size_t number;
    if (equals && is_name(s, (size_t)(equals - s))) return equals;
    if (colon && is_name(s, (size_t)(colon - s)) &&
        is_measure(colon + 1, n - 1 - (size_t)(colon - s), &number))
        return colon;
    return NULL;
}

static void reading(struct devlog_words *w, const char *name, size_t name_len, const char *value,
                    size_t len) {
    size_t number;
    double v;
    if (!w->reading || !is_name(name, name_len) || !is_measure(value, len, &number)) return;
    if (number_value(value, number, &v)) w->reading(w->arg, bytes_of(name, name_len), v);
}

static enum devlog_severity severity_of(const char *s, size_t n) {
    static const struct {
        const char *word;
        enum devlog_severity severity;
    } words[] = {{"error", DEVLOG_ERROR},    {"err", DEVLOG_ERROR},       {"fatal", DEVLOG_ERROR},
                 {"crit", DEVLOG_ERROR},     {"critical", DEVLOG_ERROR},  {"alarm", DEVLOG_ERROR},
                 {"fault", DEVLOG_ERROR},    {"fail", DEVLOG_ERROR},      {"failed", DEVLOG_ERROR},
                 {"failure", DEVLOG_ERROR},  {"emergency", DEVLOG_ERROR}, {"warn", DEVLOG_WARNING},
                 {"warning", DEVLOG_WARNING}};
    static const char *const chinese[] = {"错误", "报警", "故障", "失败", "异常"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n == strlen(words[i].word) && strncasecmp(s, words[i].word, n) == 0)
            return words[i].severity;
    for (size_t i = 0; i < sizeof chinese / sizeof *chinese; i++)
        if (memmem(s, n, chinese[i], strlen(chinese[i]))) return DEVLOG_ERROR;
    return memmem(s, n, "警告", strlen("警告")) ? DEVLOG_WARNING : DEVLOG_PLAIN;
}

/* One word, with its punctuation. A name and colon before it make a number its reading. */
static void word(struct devlog_words *w, const char *s, size_t n, struct bytes before) {
    size_t lead = 0, tail = 0;
    while (lead < n && strchr("([{<\"'`", s[lead])) lead++;
    while (tail < n - lead && strchr(")]}>\"'`,;:!?.", s[n - 1 - tail])) tail++;
    const char *core = s + lead;
    size_t len = n - lead - tail;
    enum devlog_severity severity = severity_of(core, len);
    if (severity > w->severity) w->severity = severity;
    if (before.len > 0) reading(w, before.data, before.len, core, len);
    put(w, s, lead);
    const char *at = after_name(core, len);
    if (at) {
        size_t name = (size_t)(at - core), quote = 0, rest = len - name - 1;
        if (rest > 0 && (at[1] == '"' || at[1] == '\'')) quote = 1;
        reading(w, core, name, at + 1 + quote, rest - quote);
        put(w, core, name + 1 + quote);
        put_masked(w, at + 1 + quote, rest - quote);
    } else {
        put_masked(w, core, len);
    }
    put(w, s + n - tail, tail);
}

void devlog_words(struct devlog_words *w, struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    struct bytes before = {NULL, 0};
    while (at < end) {
        size_t n = 0;
        int64_t unused;
        if (*at == ' ' || *at == '\t') {
            at++;
            continue;
        }
        if (w->len > 0) put_str(w, " ");
        size_t time = devlog_time(at, (size_t)(end - at), &unused);
        if (time > 0 && memchr(at, ' ', time)) { /* times with spaces are one word */
            put_str(w, "<time>");
            at += time;
            before = (struct bytes){NULL, 0};
            continue;
        }
        while (at + n < end && at[n] != ' ' && at[n] != '\t') n++;
        word(w, at, n, before);
        bool named = n > 1 && at[n - 1] == ':' && is_name(at, n - 1);
        before = named ? bytes_of(at, n - 1) : (struct bytes){NULL, 0};
        at += n;
    }
}
