#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

#define BODY_BYTES 1792
#define LINE_BYTES 4096
enum { EVENTS_MAX = 128, SECOND_MS = 1000 };

/* Written once by log_init and log_write_as before threads exist, read by all of them. */
static const char *log_app = "penstock";
static enum log_level log_lowest = LOG_INFO;
static enum log_format log_as = LOG_LOGFMT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const format_names[] = {"logfmt", "json"};

/* How often each event was written in its second; an event that finds no place has no limit. */
static struct {
    pthread_mutex_t lock;
    struct rate {
        const char *event; /* its text: the callers pass literals */
        int64_t until_ms;
        uint32_t lines;
        uint64_t suppressed;
    } of[EVENTS_MAX];
    uint32_t n;
} rates = {.lock = PTHREAD_MUTEX_INITIALIZER};

void log_init(const char *app, enum log_level level) {
    log_app = app;
    log_lowest = level;
}

void log_write_as(enum log_format format) {
    log_as = format;
}

int log_level_parse(const char *name, enum log_level *out) {
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(name, level_names[i]) != 0) continue;
        *out = (enum log_level)i;
        return 0;
    }
    return -EINVAL;
}

int log_format_parse(const char *name, enum log_format *out) {
    for (int i = LOG_LOGFMT; i <= LOG_JSON; i++) {
        if (strcmp(name, format_names[i]) != 0) continue;
        *out = (enum log_format)i;
        return 0;
    }
    return -EINVAL;
}

/* ---- a line ---- */

struct line {
    char text[LINE_BYTES];
    size_t len;
    bool full; /* something did not fit, and nothing more is added */
};

/* All of it or nothing; what every line ends with always fits. */
static void put(struct line *l, const char *text, size_t len) {
    if (l->full || l->len + len > sizeof l->text - 32) {
        l->full = true;
        return;
    }
    memcpy(l->text + l->len, text, len);
    l->len += len;
}

static void put_text(struct line *l, const char *text) {
    put(l, text, strlen(text));
}

static void put_escaped(struct line *l, unsigned c) {
    char escape[8];
    snprintf(escape, sizeof escape, "\\u%04x", c);
    put(l, escape, 6);
}

/* A character of a JSON string; what is not UTF-8 becomes U+FFFD. Returns how many bytes it was. */
static size_t put_char(struct line *l, const char *at, const char *end) {
    unsigned char c = (unsigned char)*at;
    size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (c == '"' || c == '\\') {
        put(l, c == '"' ? "\\\"" : "\\\\", 2);
    } else if (c < 0x20 || c == 0x7f) {
        put_escaped(l, c);
    } else if (n > (size_t)(end - at) || utf8_check(at, n) != n) {
        put_escaped(l, 0xfffd);
        n = 1;
    } else {
        put(l, at, n);
    }
    return n;
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What log_quote made of a text, as JSON; returns where it ends. */
static const char *put_quoted(struct line *l, const char *at, const char *end) {
    put(l, "\"", 1);
    while (at < end && *at != '"') {
        if (*at != '\\' || at + 1 == end) {
            at += put_char(l, at, end);
        } else if (at[1] == 'x' && end - at >= 4 && hex(at[2]) >= 0 && hex(at[3]) >= 0) {
            put_escaped(l, (unsigned)(hex(at[2]) * 16 + hex(at[3])));
            at += 4;
        } else if (at[1] == 'n') {
            put(l, "\\n", 2);
            at += 2;
        } else {
            at += 1 + put_char(l, at + 1, end);
        }
    }
    put(l, "\"", 1);
    return at < end ? at + 1 : at;
}

/* Whether JSON would read it as the number or word that it is here. */
static bool is_plain(const char *at, size_t len) {
    if ((len == 4 && memcmp(at, "true", 4) == 0) || (len == 5 && memcmp(at, "false", 5) == 0))
        return true;
    size_t i = at[0] == '-', digits = 0;
    if (len - i > 1 && at[i] == '0') return false;
    for (; i < len && at[i] >= '0' && at[i] <= '9'; i++) digits++;
    return i == len && digits > 0 && digits <= 15;
}

static const char *put_bare(struct line *l, const char *at, const char *end) {
    const char *stop = at;
    while (stop < end && *stop != ' ') stop++;
    if (stop > at && is_plain(at, (size_t)(stop - at))) {
        put(l, at, (size_t)(stop - at));
        return stop;
    }
    put(l, "\"", 1);
    while (at < stop) at += put_char(l, at, stop);
    put(l, "\"", 1);
    return stop;
}

static bool is_key_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* key=value pairs as members of an object; a word without a key is one of "message". */
static void put_members(struct line *l, const char *at, const char *end) {
    while (at < end) {
        if (*at == ' ') {
            at++;
            continue;
        }
        const char *key = at;
        while (at < end && is_key_char(*at)) at++;
        bool named = at < end && *at == '=' && at > key;
        size_t before = l->len;
        put_text(l, ",\"");
        if (named)
            put(l, key, (size_t)(at - key));
        else
            put_text(l, "message");
        put_text(l, "\":");
        at = named ? at + 1 : key;
        if (at < end && *at == '"')
            at = put_quoted(l, at + 1, end);
        else
            at = put_bare(l, at, end);
        if (l->full) l->len = before; /* no half a member */
    }
}

static void put_head(struct line *l, enum log_level level, const char *event) {
    static const char *const head[] = {"ts=%s.%03dZ level=%s app=%s event=%s",
                                       "{\"ts\":\"%s.%03dZ\",\"level\":\"%s\",\"app\":\"%s\","
                                       "\"event\":\"%s\""};
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm t;
    gmtime_r(&seconds, &t);
    char day[32], text[256];
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(text, sizeof text, head[log_as], day, (int)(now_ms % 1000), level_names[level],
             log_app, event);
    put_text(l, text);
}

static void write_line(enum log_level level, const char *event, char *body, size_t len, bool cut) {
    struct line l;
    l.len = 0;
    l.full = false;
    for (size_t i = 0; i < len; i++)
        if (body[i] == '\n') body[i] = ' '; /* one event, one line */
    while (len > 0 && body[len - 1] == ' ') len--;
    put_head(&l, level, event);
    if (log_as == LOG_JSON) {
        put_members(&l, body, body + len);
        cut |= l.full;
        l.full = false;
        put_text(&l, cut ? ",\"cut\":true}\n" : "}\n");
    } else {
        if (len) put_text(&l, " ");
        put(&l, body, len);
        put_text(&l, cut ? " cut=true\n" : "\n");
    }
    ssize_t written = write(STDERR_FILENO, l.text, l.len);
    (void)written; /* there is nobody left to tell */
}

/* ---- not too many of one event ---- */

static struct rate *rate_of(const char *event) {
    for (uint32_t i = 0; i < rates.n; i++)
        if (rates.of[i].event == event || strcmp(rates.of[i].event, event) == 0)
            return &rates.of[i];
    if (rates.n == EVENTS_MAX) return NULL;
    rates.of[rates.n].event = event;
    return &rates.of[rates.n++];
}

/* False: the line is one too many in this second. *suppressed: how many were before it. */
static bool admit(const char *event, uint64_t *suppressed) {
    bool may = true;
    *suppressed = 0;
    int64_t now_ms = clock_mono_ms();
    pthread_mutex_lock(&rates.lock);
    struct rate *r = rate_of(event);
    if (r) {
        if (now_ms >= r->until_ms) {
            r->until_ms = now_ms + SECOND_MS;
            r->lines = 0;
        }
        may = r->lines < LOG_LINES_A_SECOND;
        if (may) {
            r->lines++;
            *suppressed = r->suppressed;
            r->suppressed = 0;
        } else {
            r->suppressed++;
        }
    }
    pthread_mutex_unlock(&rates.lock);
    return may;
}

void log_event(enum log_level level, const char *event, const char *format, ...) {
    uint64_t suppressed;
    if (level < log_lowest || !admit(event, &suppressed)) return;
    int saved = errno;
    char body[BODY_BYTES];
    size_t room = sizeof body - 40; /* for what is said of the suppressed ones */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(body, room, format, args);
    va_end(args);
    bool cut = n >= 0 && (size_t)n >= room;
    size_t len = n < 0 ? 0 : cut ? room - 1 : (size_t)n;
    if (suppressed)
        len += (size_t)snprintf(body + len, sizeof body - len, " suppressed=%llu",
                                (unsigned long long)suppressed);
    write_line(level, event, body, len, cut);
    errno = saved;
}

void log_flush(void) {
    int64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < EVENTS_MAX; i++) {
        char body[160] = "";
        pthread_mutex_lock(&rates.lock);
        struct rate *r = &rates.of[i];
        if (i < rates.n && r->suppressed && now_ms >= r->until_ms) {
            snprintf(body, sizeof body, "of=%.100s lines=%llu", r->event,
                     (unsigned long long)r->suppressed);
            r->suppressed = 0;
        }
        bool last = i + 1 >= rates.n;
        pthread_mutex_unlock(&rates.lock);
        if (body[0] && log_lowest <= LOG_INFO)
            write_line(LOG_INFO, "log_suppressed", body, strlen(body), false);
        if (last) return;
    }
}

const char *log_quote(char *buf, size_t buf_bytes, const char *text) {
    if (buf_bytes < 3) {
        if (buf_bytes) buf[0] = '\0';
        return buf;
    }
    size_t n = 0, room = buf_bytes - 2; /* the closing quote and the NUL */
    buf[n++] = '"';
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        char esc[5] = {(char)*p, 0};
        if (*p == '"' || *p == '\\')
            snprintf(esc, sizeof esc, "\\%c", *p);
        else if (*p == '\n')
            snprintf(esc, sizeof esc, "\\n");
        else if (*p < 0x20 || *p == 0x7f)
            snprintf(esc, sizeof esc, "\\x%02x", *p);
        size_t len = strlen(esc);
        if (n + len > room) break;
        memcpy(buf + n, esc, len);
        n += len;
    }
    buf[n++] = '"';
    buf[n] = '\0';
    return buf;
}
