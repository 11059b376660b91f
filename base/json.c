#include "base/json.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
/* jansson has constants with the names of enum json_kind's; they get a prefix here. */
#undef json_real
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_REAL JANSSON_REAL
#define JSON_NULL JANSSON_NULL
#include <jansson.h>
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_REAL
#undef JSON_NULL

#include "base/bytes.h"
#include "base/err.h"
#include "base/file.h"

/* struct json is never defined: a pointer to it is a pointer to jansson's value. */
static json_t *in(const struct json *j) {
    return (json_t *)(uintptr_t)j;
}
static struct json *out_of(json_t *j) {
    return (struct json *)j;
}

int json_parse(struct json **out, const void *text, size_t bytes, char *err, size_t err_bytes) {
    size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    *out = NULL;
    if (bytes && memchr(text, 0, bytes)) /* jansson would read it as the end */
        return err_set(err, err_bytes, ERR_FIELD, "not valid JSON: line 1: holds a NUL byte");
    json_error_t why;
    json_t *j = json_loadb(text ? text : "", bytes, flags, &why);
    /* Files in the wild carry "no limit" as an integer of thirty digits: read those as reals. */
    if (!j && json_error_code(&why) == json_error_numeric_overflow)
        j = json_loadb(text, bytes, flags | JSON_DECODE_INT_AS_REAL, &why);
    *out = out_of(j);
    if (j) return 0;
    int code = json_error_code(&why) == json_error_stack_overflow  ? ERR_LIMIT
               : json_error_code(&why) == json_error_out_of_memory ? -ENOMEM
                                                                   : ERR_FIELD;
    return err_set(err, err_bytes, code, "not valid JSON: line %d, column %d: %s", why.line,
                   why.column, why.text);
}

int json_load(struct json **out, const char *path, size_t max_bytes, char *err, size_t err_bytes) {
    *out = NULL;
    void *text;
    size_t bytes;
    int rc = file_read(path, max_bytes, &text, &bytes, err, err_bytes);
    if (rc < 0) return rc;
    char why[256];
    rc = json_parse(out, text, bytes, why, sizeof why);
    free(text);
    return rc < 0 ? err_set(err, err_bytes, rc, "%s: %s", path, why) : 0;
}

void json_free(struct json *j) {
    json_decref(in(j));
}

enum json_kind json_kind(const struct json *j) {
    if (!j) return JSON_NULL;
    switch (json_typeof(in(j))) {
    case JANSSON_OBJECT: return JSON_OBJECT;
    case JANSSON_ARRAY: return JSON_ARRAY;
    case JSON_STRING: return JSON_STR;
    case JSON_INTEGER: return JSON_INT;
    case JANSSON_REAL: return JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_BOOL;
    default: return JSON_NULL;
    }
}

/* ---- reading (jansson's getters answer NULL or 0 for a value of another type) ---- */

const struct json *json_get(const struct json *object, const char *key) {
    return out_of(json_object_get(in(object), key));
}

const struct json *json_at(const struct json *array, size_t i) {
    return out_of(json_array_get(in(array), i));
}

size_t json_len(const struct json *j) {
    return json_kind(j) == JSON_ARRAY ? json_array_size(in(j)) : json_object_size(in(j));
}

bool json_next(const struct json *object, size_t *it, const char **key, const struct json **value) {
    if (json_kind(object) != JSON_OBJECT) return false;
    void *at = *it ? json_object_iter_next(in(object), (void *)*it) : json_object_iter(in(object));
    *it = (size_t)at;
    if (!at) return false;
    *key = json_object_iter_key(at);
    *value = out_of(json_object_iter_value(at));
    return true;
}

const char *json_str(const struct json *j) {
    return json_string_value(in(j));
}

size_t json_str_len(const struct json *j) {
    return json_string_length(in(j));
}

bool json_bool(const struct json *j, bool otherwise) {
    return json_kind(j) == JSON_BOOL ? json_typeof(in(j)) == JSON_TRUE : otherwise;
}

int64_t json_int(const struct json *j, int64_t otherwise) {
    if (json_kind(j) == JSON_INT) return json_integer_value(in(j));
    if (json_kind(j) != JSON_REAL) return otherwise;
    double v = json_real_value(in(j));
    return v == floor(v) && fabs(v) <= 0x1p53 ? (int64_t)v : otherwise;
}

double json_num(const struct json *j, double otherwise) {
    bool number = json_kind(j) == JSON_INT || json_kind(j) == JSON_REAL;
    return number ? json_number_value(in(j)) : otherwise;
}

int json_need_int(const struct json *object, const char *where, const char *key, int64_t min,
                  int64_t max, int64_t *out, char *err, size_t err_bytes) {
    const struct json *j = json_get(object, key);
    if (!j) return err_set(err, err_bytes, ERR_FIELD, "%s: %s: missing", where, key);
    int64_t v = json_int(j, INT64_MIN);
    if (json_int(j, INT64_MAX) != v)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %s: not an integer", where, key);
    if (v < min || v > max)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %s: %lld is not from %lld to %lld", where,
                       key, (long long)v, (long long)min, (long long)max);
    *out = v;
    return 0;
}

int json_need_str(const struct json *object, const char *where, const char *key, const char **out,
                  char *err, size_t err_bytes) {
    const struct json *j = json_get(object, key);
    if (!j) return err_set(err, err_bytes, ERR_FIELD, "%s: %s: missing", where, key);
    if (json_kind(j) != JSON_STR)
        return err_set(err, err_bytes, ERR_FIELD, "%s: %s: not a string", where, key);
    *out = json_str(j);
    return 0;
}

/* ---- writing ---- */

struct json *json_new_object(void) {
    return out_of(json_object());
}

struct json *json_new_array(void) {
    return out_of(json_array());
}

struct json *json_new_str(const char *text, size_t bytes) {
    if (utf8_check(text, bytes) == bytes) return out_of(json_stringn(text ? text : "", bytes));
    struct buf b = {0};
    for (size_t at = 0; at < bytes;) {
        size_t good = utf8_check(text + at, bytes - at);
        buf_append(&b, text + at, good);
        at += good;
        if (at == bytes) break;
        buf_append(&b, "\xEF\xBF\xBD", 3);
        at++;
    }
    json_t *j = b.error ? NULL : json_stringn((const char *)b.data, b.len);
    buf_fini(&b);
    return out_of(j);
}

struct json *json_new_int(int64_t v) {
    return out_of(json_integer(v));
}

struct json *json_new_real(double v) {
    return out_of(isfinite(v) ? json_real(v) : json_null()); /* JSON has no NaN */
}

struct json *json_new_bool(bool v) {
    return out_of(json_boolean(v));
}

struct json *json_new_null(void) {
    return out_of(json_null());
}

int json_set(struct json *object, const char *key, struct json *value) {
    if (!value) return -ENOMEM;
    return json_object_set_new(in(object), key, in(value)) == 0 ? 0 : -ENOMEM;
}

int json_push(struct json *array, struct json *value) {
    if (!value) return -ENOMEM;
    return json_array_append_new(in(array), in(value)) == 0 ? 0 : -ENOMEM;
}

bool json_same(const struct json *a, const struct json *b) {
    return json_equal(in(a), in(b));
}

char *json_text(const struct json *j, int indent) {
    assert(indent >= 0 && indent <= 31);
    /* 16 digits: the 17th would print 0.3 as 0.29999999999999999. */
    return json_dumps(in(j), JSON_ENCODE_ANY | JSON_REAL_PRECISION(16) |
                                 (indent ? JSON_INDENT((size_t)indent) : 0));
}
