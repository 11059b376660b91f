#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LOG_LINE_BYTES 2048
static const char cut_mark[] = " cut=true\n";

/* Written once by log_init before threads exist, read by all of them. */
static const char *log_app = "penstock";
static enum log_level log_lowest = LOG_INFO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_init(const char *app, enum log_level level) {
    log_app = app;
    log_lowest = level;
}

int log_level_parse(const char *name, enum log_level *out) {
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(name, level_names[i]) != 0) continue;
        *out = (enum log_level)i;
        return 0;
    }
    return -EINVAL;
}

static size_t put_head(char *line, size_t bytes, enum log_level level, const char *event) {
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm t;
    gmtime_r(&seconds, &t);
    char day[32];
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &t);
    int n = snprintf(line, bytes, "ts=%s.%03dZ level=%s app=%s event=%s ", day,
                     (int)(now_ms % 1000), level_names[level], log_app, event);
    return n < 0 ? 0 : (size_t)n < bytes ? (size_t)n : bytes - 1;
}

void log_event(enum log_level level, const char *event, const char *format, ...) {
    if (level < log_lowest) return;
    int saved = errno;
    char line[LOG_LINE_BYTES];
    size_t room = sizeof line - sizeof cut_mark;
    size_t len = put_head(line, room, level, event);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + len, room - len, format, args);
    va_end(args);
    bool cut = n >= 0 && (size_t)n >= room - len;
    len += n < 0 ? 0 : cut ? room - len - 1 : (size_t)n;
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\n') line[i] = ' '; /* one event, one line */
    while (len > 0 && line[len - 1] == ' ') len--;
    const char *end = cut ? cut_mark : "\n";
    memcpy(line + len, end, strlen(end));
    len += strlen(end);
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* there is nobody left to tell */
    errno = saved;
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
