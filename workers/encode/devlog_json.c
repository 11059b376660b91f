/* devlog_json.c - one JSON object a line: members with numbers are readings, the others words. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "workers/encode/devlog_build.h"
#include "workers/encode/devlog_time.h"

#define DEPTH_MAX 4

static void member(struct devlog_build *b, const char *path, const struct json *value, int depth);

static void members(struct devlog_build *b, const char *prefix, const struct json *object,
                    int depth) {
    size_t it = 0;
    const char *key;
    const struct json *value;
    while (json_next(object, &it, &key, &value)) {
        char path[LIMIT_NAME_BYTES * 2];
        int n = snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (n < 0) continue;
        if ((size_t)n >= sizeof path) path[utf8_cut(bytes_str(path), sizeof path - 1)] = '\0';
        path[utf8_check(path, strlen(path))] = '\0'; /* a name cut inside a character */
        if (*path) member(b, path, value, depth);
    }
}

/* A number of seconds or milliseconds since 1970, or a text. */
static int64_t time_of(const struct json *value) {
    char text[32];
    int64_t ms = DEVLOG_NO_TIME;
    if (json_kind(value) == JSON_STR) {
        devlog_time(json_str(value), json_str_len(value), &ms);
        return ms;
    }
    double number = json_num(value, 0);
    if (!(number >= 0 && number < 1e14)) return ms; /* no time, and more digits than text holds */
    int n = snprintf(text, sizeof text, "%.3f", number);
    if (n > 4 && strcmp(text + n - 4, ".000") == 0) n -= 4;
    if (n > 0) devlog_time(text, (size_t)n, &ms);
    return ms;
}

static void member(struct devlog_build *b, const char *path, const struct json *value, int depth) {
    struct bytes name = bytes_str(path);
    double number;
    if (devlog_is_time_name(name) &&
        (json_kind(value) == JSON_STR || json_kind(value) == JSON_INT ||
         json_kind(value) == JSON_REAL)) {
        int64_t ms = time_of(value);
        build_time(b, ms);
        if (ms != DEVLOG_NO_TIME) return;
    }
    switch (json_kind(value)) {
    case JSON_INT:
    case JSON_REAL: build_reading(b, name, json_num(value, 0)); break;
    case JSON_STR: {
        struct bytes text = bytes_of(json_str(value), json_str_len(value));
        if (devlog_number(text, &number))
            build_reading(b, name, number);
        else
            build_named_words(b, name, text);
        break;
    }
    case JSON_BOOL:
        build_named_words(b, name, bytes_str(json_bool(value, false) ? "true" : "false"));
        break;
    case JSON_OBJECT:
        if (depth < DEPTH_MAX) members(b, path, value, depth + 1);
        break;
    case JSON_ARRAY:
    case JSON_NULL: break;
    }
}

bool devlog_json_line(struct devlog_build *b, uint32_t line, struct bytes text) {
    struct json *j = NULL;
    if (json_parse(&j, text.data, text.len, NULL, 0) != 0) return false;
    bool object = json_kind(j) == JSON_OBJECT;
    if (object) {
        build_begin(b, line, text);
        if (!b->skip) members(b, "", j, 0);
        build_end(b);
    }
    json_free(j);
    return object;
}
