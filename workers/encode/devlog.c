#include "workers/encode/devlog.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/charset.h"
#include "workers/encode/devlog_build.h"

static const char *const format_names[] = {"auto", "text", "csv", "jsonl"};

const char *devlog_format_name(enum devlog_format f) {
    return format_names[f];
}

int devlog_format_parse(struct bytes name, enum devlog_format *out) {
    for (int f = DEVLOG_AUTO; f <= DEVLOG_JSONL; f++)
        if (bytes_is(name, format_names[f])) {
            *out = (enum devlog_format)f;
            return 0;
        }
    return -EINVAL;
}

/* ---- bytes to text ---- */

static bool is_control(uint8_t c) {
    return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F;
}

/* Bytes at p that are UTF-8 without control characters; 0: the first is not. Looks ahead only so
 * far that noise costs no more than text. */
static size_t good_len(const uint8_t *p, size_t len) {
    size_t n = 0;
    while (n < len && n < 256 && !is_control(p[n])) n++;
    return utf8_check(p, n);
}

/* The log as UTF-8: each run of other bytes, and of control characters, becomes one U+FFFD. */
static int clean(struct bytes log, struct arena *a, struct bytes *out) {
    const uint8_t *p = log.data, *end = p + log.len;
    uint8_t *text = arena_alloc(a, log.len * 2 + 3), *to = text;
    bool bad = false;
    if (!text) return -ENOMEM;
    while (p < end) {
        size_t good = good_len(p, (size_t)(end - p));
        if (good > 0) {
            memcpy(to, p, good);
            to += good;
            p += good;
        } else {
            if (!bad) to = (uint8_t *)mempcpy(to, "\xEF\xBF\xBD", 3);
            p++;
        }
        bad = good == 0;
    }
    *out = bytes_of(text, (size_t)(to - text));
    return 0;
}

/* ---- lines ---- */

static struct bytes next_line(const char **at, const char *end) {
    const char *begin = *at, *newline = memchr(begin, '\n', (size_t)(end - begin));
    size_t len = (size_t)((newline ? newline : end) - begin);
    *at = newline ? newline + 1 : end;
    if (len > 0 && begin[len - 1] == '\r') len--;
    return bytes_of(begin, len);
}

static bool blank(struct bytes line) {
    const char *s = line.data;
    for (size_t i = 0; i < line.len; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r') return false;
    return true;
}

static uint32_t count_lines(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 0;
    while (at < end) n += !blank(next_line(&at, end));
    return n;
}

static int sniff(struct bytes text, struct arena *a, enum devlog_format *format, char *delimiter) {
    const char *s = text.data, *end = s + text.len;
    while (s < end && strchr(" \t\r\n", *s)) s++;
    if (*format == DEVLOG_AUTO && s < end && *s == '{') *format = DEVLOG_JSONL;
    if (*format != DEVLOG_AUTO && *format != DEVLOG_CSV) return 0;
    int code = devlog_csv_sniff(text, a, delimiter);
    if (*format == DEVLOG_AUTO) *format = *delimiter ? DEVLOG_CSV : DEVLOG_TEXT;
    if (*delimiter == 0) *delimiter = ',';
    return code;
}

static void read_lines(struct devlog_build *b, struct bytes text, bool json) {
    const char *at = text.data, *end = at + text.len;
    uint32_t line = 0;
    while (at < end) {
        struct bytes l = next_line(&at, end);
        line++;
        if (blank(l)) continue;
        if (!json)
            build_text(b, line, l, false);
        else if (!devlog_json_line(b, line, l))
            build_text(b, line, l, true);
    }
    b->out->lines = line;
}

int devlog_parse(struct bytes log, enum devlog_format format, struct arena *a, struct devlog *out,
                 char *err, size_t err_bytes) {
    struct bytes text;
    char delimiter = 0;
    memset(out, 0, sizeof *out);
    if (log.len > LIMIT_BODY_BYTES)
        return err_set(err, err_bytes, ERR_LIMIT, "the log has %zu bytes; it may have %u", log.len,
                       LIMIT_BODY_BYTES);
    struct devlog_build *b = arena_alloc(a, sizeof *b);
    int code = b ? charset_to_utf8(log, a, &text) : -ENOMEM;
    if (code == 0) code = clean(text, a, &text);
    if (code == 0) code = sniff(text, a, &format, &delimiter);
    if (code == 0) code = build_init(b, out, count_lines(text), a);
    out->format = format;
    if (code == 0 && format == DEVLOG_CSV) code = devlog_csv_read(b, text, delimiter);
    if (code == 0 && format != DEVLOG_CSV) read_lines(b, text, format == DEVLOG_JSONL);
    if (code != 0)
        return err_set(err, err_bytes, code, "no memory for a log of %zu bytes", log.len);
    return 0;
}

const struct devlog_feature *devlog_feature(const struct devlog *d, struct bytes name) {
    for (uint32_t i = 0; i < d->n_features; i++)
        if (bytes_eq(d->features[i].name, name)) return &d->features[i];
    return NULL;
}
