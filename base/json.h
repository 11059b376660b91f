/* json.h - JSON in and out: the only door to jansson.
 *
 * Reading: json_parse refuses duplicate keys, bad UTF-8 and nesting beyond its limit with the line
 * in err. The getters say in err which path failed ("config.json: hidden_size: missing").
 * Writing: values are built with json_new_*; json_text prints.
 *
 * Units: bytes.  Owner: json_parse and json_new_* give a value that json_free frees, children
 * included; getters borrow until then; json_set and json_push take.  Memory: jansson's, about ten
 * times the text.  Errors: ERR_FIELD, ERR_LIMIT, -ENOMEM with err.  Threads: a value at a time. */
#ifndef PENSTOCK_BASE_JSON_H
#define PENSTOCK_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* jansson exports a function json_real: one of ours with that name would take its place. */
#define json_real json_num

struct json;
enum json_kind { JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STR, JSON_ARRAY, JSON_OBJECT };

int json_parse(struct json **out, const void *text, size_t bytes, char *err, size_t err_bytes);
/* Whether json_parse would find the text to be JSON; allocates nothing. Names that are given twice
 * and halves of surrogate pairs pass. ERR_FIELD with the place in err. */
int json_check(const void *text, size_t bytes, char *err, size_t err_bytes);
int json_load(struct json **out, const char *path, size_t max_bytes, char *err, size_t err_bytes);
void json_free(struct json *j); /* NULL is fine */

enum json_kind json_kind(const struct json *j); /* NULL reads as JSON_NULL */
/* Absent gives NULL, for a member of anything that is not an object too. */
const struct json *json_get(const struct json *object, const char *key);
const struct json *json_at(const struct json *array, size_t i);
size_t json_len(const struct json *j); /* items of an array or members of an object, else 0 */
/* Members in the file's order: it starts at 0; returns false at the end. */
bool json_next(const struct json *object, size_t *it, const char **key, const struct json **value);
const char *json_str(const struct json *j); /* NULL when not a string */
size_t json_str_len(const struct json *j);
bool json_bool(const struct json *j, bool otherwise);
int64_t json_int(const struct json *j, int64_t otherwise); /* integers, and reals that are whole */
double json_num(const struct json *j, double otherwise);   /* integers too */
/* The required ones: ERR_FIELD with "WHERE: key: what is wrong" in err. */
int json_need_int(const struct json *object, const char *where, const char *key, int64_t min,
                  int64_t max, int64_t *out, char *err, size_t err_bytes);
int json_need_str(const struct json *object, const char *where, const char *key, const char **out,
                  char *err, size_t err_bytes);

struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_str(const char *text, size_t bytes); /* bad UTF-8 is replaced by U+FFFD */
struct json *json_new_int(int64_t v);
struct json *json_new_real(double v);
struct json *json_new_bool(bool v);
struct json *json_new_null(void);
/* takes value, even on error */
int json_set(struct json *object, const char *key, struct json *value);
/* takes value, even on error */
int json_push(struct json *array, struct json *value);
/* Printed text, freed with free(); indent 0 is one line. NULL without memory. */
char *json_text(const struct json *j, int indent);
/* The same value, numbers of the same kind; members in any order. */
bool json_same(const struct json *a, const struct json *b);

#endif
