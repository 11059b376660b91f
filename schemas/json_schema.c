#include "schemas/json_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "schemas/pack.h"

/* ---- a kind as JSON Schema ---- */

static struct json *text(const char *t) {
    return json_new_str(t, strlen(t));
}

/* JSON integers are int64 here; a bound beyond that is no bound. */
static int set_bound(struct json *j, const char *key, uint64_t v) {
    return v <= INT64_MAX ? json_set(j, key, json_new_int((int64_t)v)) : 0;
}

static int set_choices(struct json *j, const char *choices) {
    struct json *list = json_new_array();
    int rc = 0;
    for (const char *at = choices; *at;) {
        const char *end = strchrnul(at, '|');
        rc |= list ? json_push(list, json_new_str(at, (size_t)(end - at))) : -ENOMEM;
        if (at == choices) rc |= json_set(j, "default", json_new_str(at, (size_t)(end - at)));
        at = *end ? end + 1 : end;
    }
    rc |= json_set(j, "enum", list);
    return rc ? -ENOMEM : 0;
}

/* JSON Schema counts characters where the engine counts bytes, so maxLength is necessary, not
 * sufficient; the description says what counts. */
static int set_string(struct json *j, uint64_t min, uint64_t max) {
    int rc = json_set(j, "type", text("string"));
    if (min > 0) rc |= json_set(j, "minLength", json_new_int(1));
    return rc | set_bound(j, "maxLength", max);
}

static int set_type(struct json *j, const struct field *f) {
    int rc = 0;
    struct json *items;
    switch (f->type) {
    case FIELD_U64:
        rc |= json_set(j, "type", text("integer"));
        rc |= set_bound(j, "minimum", f->min) | set_bound(j, "maximum", f->max);
        return f->required ? rc : rc | set_bound(j, "default", f->def_u64);
    case FIELD_F64:
        rc |= json_set(j, "type", text("number"));
        rc |= json_set(j, "minimum", json_new_real(f->fmin));
        rc |= json_set(j, "maximum", json_new_real(f->fmax));
        return f->required ? rc : rc | json_set(j, "default", json_new_real(f->def_f64));
    case FIELD_BOOL:
        rc |= json_set(j, "type", text("boolean"));
        return rc | json_set(j, "default", json_new_bool(f->def_u64 != 0));
    case FIELD_STR:
        if (!f->choices) return set_string(j, f->min, f->max);
        return json_set(j, "type", text("string")) | set_choices(j, f->choices);
    case FIELD_BIN:
        rc |= json_set(j, "type", text("string"));
        return rc | json_set(j, "contentEncoding", text("base64"));
    case FIELD_ID:
        rc |= json_set(j, "type", text("string"));
        return rc | json_set(j, "pattern", text("^[0-9A-Za-z]{13}$"));
    case FIELD_STRS:
        items = json_new_object();
        rc |= items ? set_string(items, 0, f->item_max) : -ENOMEM;
        rc |= json_set(j, "type", text("array")) | json_set(j, "items", items);
        return rc | set_bound(j, "minItems", f->min) | set_bound(j, "maxItems", f->max);
    case FIELD_PACK: return 0;
    }
    return -EINVAL;
}

static struct json *describe(const struct field *f) {
    struct json *j = json_new_object();
    if (!j) return NULL;
    char doc[512];
    if (f->type == FIELD_STR && !f->choices)
        snprintf(doc, sizeof doc, "%s (at most %" PRIu64 " bytes of UTF-8)", f->doc, f->max);
    else if (f->type == FIELD_STRS)
        snprintf(doc, sizeof doc, "%s (each at most %" PRIu64 " bytes of UTF-8)", f->doc,
                 f->item_max);
    else
        snprintf(doc, sizeof doc, "%s", f->doc);
    if ((json_set(j, "description", text(doc)) | set_type(j, f)) == 0) return j;
    json_free(j);
    return NULL;
}

/* Appends {"required": [name]}: the branch of oneOf in which this field is given. */
static int push_branch(struct json *branches, const char *name) {
    struct json *branch = json_new_object(), *list = json_new_array();
    int rc = branch && list ? json_push(list, text(name)) : -ENOMEM;
    if (rc < 0) {
        json_free(list);
        json_free(branch);
        return rc;
    }
    rc = json_set(branch, "required", list);
    return rc | json_push(branches, branch);
}

int json_schema(const struct kind_desc *kind, struct json **out) {
    struct json *j = json_new_object(), *fields = json_new_object(), *required = json_new_array();
    struct json *one_of = json_new_array();
    int rc = j && fields && required && one_of ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < kind->n; i++) {
        const struct field *f = &kind->fields[i];
        rc = json_set(fields, f->name, describe(f));
        if (rc == 0 && f->required) rc = json_push(required, text(f->name));
        if (rc == 0 && f->one_of) rc = push_branch(one_of, f->name);
    }
    if (rc == 0) {
        rc |= json_set(j, "$schema", text("https://json-schema.org/draft/2020-12/schema"));
        rc |= json_set(j, "title", text(kind->name));
        rc |= json_set(j, "description", text(kind->doc));
        rc |= json_set(j, "type", text("object"));
        rc |= json_set(j, "properties", fields);
        rc |= json_set(j, "required", required);
        fields = required = NULL; /* taken, even on error */
    }
    if (rc == 0 && json_len(one_of) > 0) {
        rc = json_set(j, "oneOf", one_of);
        one_of = NULL;
    }
    json_free(one_of);
    if (rc == 0) {
        *out = j;
        return 0;
    }
    json_free(fields);
    json_free(required);
    json_free(j);
    *out = NULL;
    return -ENOMEM;
}

/* ---- msgpack to JSON ---- */

static struct json *base64(struct bytes in) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf b = {0};
    const uint8_t *p = in.data;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t n = in.len - i < 3 ? in.len - i : 3;
        uint32_t v = 0;
        for (size_t k = 0; k < 3; k++) v = v << 8 | (k < n ? p[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            buf_u8(&b, k <= n ? (uint8_t)digits[v >> (18 - 6 * k) & 63] : (uint8_t)'=');
    }
    struct json *j = b.error ? NULL : json_new_str((const char *)b.data, b.len);
    buf_fini(&b);
    return j;
}

/* An integer beyond int64 (a seed may be one) keeps all its digits as a string. */
static struct json *big_int(uint64_t v) {
    char digits[24];
    if (v <= INT64_MAX) return json_new_int((int64_t)v);
    snprintf(digits, sizeof digits, "%" PRIu64, v);
    return text(digits);
}

static struct json *from_val(const struct pack_val *v, char *err, size_t err_bytes);

static struct json *from_list(const struct pack_val *v, char *err, size_t err_bytes) {
    struct json *list = json_new_array();
    for (uint32_t i = 0; list && i < pack_len(v); i++) {
        struct json *item = from_val(pack_at(v, i), err, err_bytes);
        if (item && json_push(list, item) == 0) continue;
        json_free(list);
        return NULL;
    }
    return list;
}

static struct json *from_map(const struct pack_val *v, char *err, size_t err_bytes) {
    struct json *object = json_new_object();
    for (uint32_t i = 0; object && i < pack_len(v); i++) {
        const struct pack_val *value;
        char key[256];
        if (bytes_to_cstr(pack_key_at(v, i, &value), key, sizeof key) == 0) {
            struct json *item = from_val(value, err, err_bytes);
            if (item && json_set(object, key, item) == 0) continue;
        } else {
            err_set(err, err_bytes, ERR_LIMIT, "a map key is too long for JSON (255 bytes)");
        }
        json_free(object);
        return NULL;
    }
    return object;
}

static struct json *from_val(const struct pack_val *v, char *err, size_t err_bytes) {
    struct bytes b = pack_as_bytes(v);
    switch (pack_kind(v)) {
    case PACK_BOOL: return json_new_bool(pack_as_bool(v, false));
    case PACK_U64: return big_int(pack_as_u64(v, 0));
    case PACK_I64: return json_new_int(pack_as_i64(v, 0));
    case PACK_F64: return json_new_real(pack_as_f64(v, 0));
    case PACK_STR: return json_new_str(b.data, b.len);
    case PACK_BIN: return base64(b);
    case PACK_ARRAY: return from_list(v, err, err_bytes);
    case PACK_MAP: return from_map(v, err, err_bytes);
    case PACK_NIL: break;
    }
    return json_new_null();
}

int json_from_pack(struct bytes document, struct json **out, char *err, size_t err_bytes) {
    *out = NULL;
    struct pack_doc *d;
    int rc = pack_parse(&d, document, err, err_bytes);
    if (rc < 0) return rc;
    char why[128] = "out of memory";
    *out = from_val(pack_root(d), why, sizeof why);
    pack_free(d);
    return *out ? 0 : err_set(err, err_bytes, ERR_LIMIT, "%s", why);
}

/* ---- JSON to msgpack ---- */

static int to_pack(const struct json *j, struct packer *p, uint32_t depth) {
    bool nests = json_kind(j) == JSON_ARRAY || json_kind(j) == JSON_OBJECT;
    if (nests && depth == LIMIT_PACK_DEPTH) return ERR_LIMIT;
    if (nests && json_len(j) > LIMIT_PACK_ITEMS) return ERR_LIMIT;
    size_t it = 0;
    const char *key;
    const struct json *value;
    int rc = 0;
    switch (json_kind(j)) {
    case JSON_NULL: pack_nil(p); break;
    case JSON_BOOL: pack_bool(p, json_bool(j, false)); break;
    case JSON_INT: pack_i64(p, json_int(j, 0)); break;
    case JSON_REAL: pack_f64(p, json_num(j, 0)); break;
    case JSON_STR: pack_strn(p, bytes_of(json_str(j), json_str_len(j))); break;
    case JSON_ARRAY:
        pack_array(p, (uint32_t)json_len(j));
        for (size_t i = 0; rc == 0 && i < json_len(j); i++)
            rc = to_pack(json_at(j, i), p, depth + 1);
        break;
    case JSON_OBJECT:
        pack_map(p, (uint32_t)json_len(j));
        while (rc == 0 && json_next(j, &it, &key, &value)) {
            pack_str(p, key);
            rc = to_pack(value, p, depth + 1);
        }
        break;
    }
    return rc ? rc : p->out->error;
}

int json_to_pack(const struct json *in, struct buf *out, char *err, size_t err_bytes) {
    struct packer p = packer_of(out);
    size_t before = out->len;
    int rc = to_pack(in, &p, 0);
    if (rc == 0) return 0;
    out->len = before;
    if (rc == ERR_LIMIT)
        return err_set(err, err_bytes, rc, "too large or nested more than %u levels deep",
                       LIMIT_PACK_DEPTH);
    return err_set(err, err_bytes, rc, "%s", err_text(rc));
}
