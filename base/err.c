#include "base/err.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

const char *err_text(int code) {
    switch (code) {
    case 0: return "success";
    case ERR_CORRUPT: return "corrupt data";
    case ERR_VERSION: return "a version that this build does not speak";
    case ERR_LIMIT: return "beyond a limit";
    case ERR_FIELD: return "a field is missing or wrong";
    case ERR_UNKNOWN: return "unknown name";
    case ERR_FULL: return "full, try again later";
    case ERR_STALE: return "stale: another attempt owns it";
    case ERR_CLOSED: return "closed";
    case ERR_CANCELLED: return "cancelled";
    default: break;
    }
    /* glibc's static table; strerror may return a shared buffer for unknown numbers. */
    const char *text = strerrordesc_np(code < 0 ? -code : code);
    return text ? text : "unknown error";
}

/* What leaves this function goes into messages that must be UTF-8 and into log lines: bytes of a
 * file name or a cut character are made harmless here, once. */
static void clean(char *text) {
    size_t len = strlen(text), at = 0;
    while ((at += utf8_check(text + at, len - at)) < len) text[at] = '?';
    for (char *p = text; *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
}

int err_vset(char *err, size_t err_bytes, int code, const char *format, va_list args) {
    assert(err || err_bytes == 0);
    if (err_bytes == 0) return code;
    int n = vsnprintf(err, err_bytes, format, args);
    if (n < 0) {
        err[0] = '\0';
        return code;
    }
    size_t len = strlen(err);
    if ((size_t)n >= err_bytes) len = utf8_cut(bytes_of(err, len), len); /* not in mid-character */
    err[len] = '\0';
    clean(err);
    return code;
}

void err_speak_of(char *err, size_t err_bytes, const char *path, const char *name) {
    size_t from = strlen(path), to = strlen(name);
    if (from == 0 || err_bytes == 0) return;
    for (char *at = err; (at = strstr(at, path));) {
        size_t room = err_bytes - 1 - (size_t)(at - err), rest = strlen(at + from);
        if (to > room) to = room;
        if (rest > room - to) rest = utf8_cut(bytes_of(at + from, rest), room - to);
        memmove(at + to, at + from, rest);
        memcpy(at, name, to);
        at += to;
        at[rest] = '\0';
    }
}

int err_set(char *err, size_t err_bytes, int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err_vset(err, err_bytes, code, format, args);
    va_end(args);
    return code;
}
