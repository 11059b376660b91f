#include "schemas/field.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "schemas/job.h"
#include "schemas/walk.h"

/* ---- refusals ---- */

void refusal_set(struct refusal *r, const char *code, const char *field, const char *limit,
                 const char *fix, const char *message_format, ...) {
    memset(r, 0, sizeof *r);
    err_set(r->code, sizeof r->code, 0, "%s", code);
    err_set(r->field, sizeof r->field, 0, "%s", field ? field : "");
    err_set(r->limit, sizeof r->limit, 0, "%s", limit ? limit : "");
    err_set(r->fix, sizeof r->fix, 0, "%s", fix ? fix : "");
    va_list args;
    va_start(args, message_format);
    err_vset(r->message, sizeof r->message, 0, message_format, args);
    va_end(args);
}

/* What a field may hold, as its refusals say it. */
static void describe(const struct field *f, char out[64]) {
    unsigned long long min = f->min, max = f->max;
    switch (f->type) {
    case FIELD_U64: snprintf(out, 64, "an integer from %llu to %llu", min, max); break;
    case FIELD_F64: snprintf(out, 64, "a number from %g to %g", f->fmin, f->fmax); break;
    case FIELD_BOOL: snprintf(out, 64, "true or false"); break;
    case FIELD_STR:
        if (f->choices)
            snprintf(out, 64, "one of %s", f->choices);
        else
            snprintf(out, 64, "a string of %llu to %llu bytes", min, max);
        break;
    case FIELD_BIN: snprintf(out, 64, "binary of %llu to %llu bytes", min, max); break;
    case FIELD_ID: snprintf(out, 64, "a job id, %d characters", JOB_ID_CHARS); break;
    case FIELD_STRS:
        snprintf(out, 64, "%llu to %llu strings of at most %llu bytes", min, max,
                 (unsigned long long)f->item_max);
        break;
    case FIELD_PACK: snprintf(out, 64, "a value of at most %llu bytes", max); break;
    }
}

__attribute__((format(printf, 5, 6))) static int refuse(const struct field *f, struct refusal *why,
                                                        int rc, const char *code,
                                                        const char *format, ...) {
    char limit[64], message[192], fix[192];
    va_list args;
    describe(f, limit);
    va_start(args, format);
    err_vset(message, sizeof message, 0, format, args);
    va_end(args);
    err_set(fix, sizeof fix, 0, "give '%s' %s: %s", f->name, limit, f->doc);
    refusal_set(why, code, f->name, limit, fix, "field '%s' %s", f->name, message);
    return rc;
}

static int refuse_document(const struct walk_fault *fault, int rc, struct refusal *why) {
    char key[LIMIT_NAME_BYTES] = "";
    if (fault->key.len) /* checked as UTF-8 before it was remembered */
        err_set(key, sizeof key, 0, "%.*s", (int)utf8_cut(fault->key, sizeof key - 1),
                (const char *)fault->key.data);
    refusal_set(why, fault->code, key[0] ? key : "header or body", fault->limit,
                "encode it with a msgpack library: one map with string keys, UTF-8 strings, no ext "
                "types",
                "not an acceptable msgpack document: at byte %zu: %s", fault->offset, fault->what);
    return rc;
}

/* ---- decoding ---- */

/* One field's value before it is stored; the members are those of enum field_type. */
union value {
    uint64_t u64;
    double f64;
    bool b;
    struct bytes bytes;
    struct field_strs strs;
};

static size_t value_bytes(enum field_type type) {
    switch (type) {
    case FIELD_U64:
    case FIELD_ID: return sizeof(uint64_t);
    case FIELD_F64: return sizeof(double);
    case FIELD_BOOL: return sizeof(bool);
    case FIELD_STRS: return sizeof(struct field_strs);
    default: return sizeof(struct bytes);
    }
}

static void store(const struct field *f, void *out, const union value *v) {
    if (out) memcpy((char *)out + f->offset, v, value_bytes(f->type));
}

static struct bytes first_choice(const struct field *f) {
    const char *end = f->choices ? strchrnul(f->choices, '|') : NULL;
    return bytes_of(f->choices, end ? (size_t)(end - f->choices) : 0);
}

static bool is_choice(const struct field *f, struct bytes text) {
    for (const char *at = f->choices; *at;) {
        const char *end = strchrnul(at, '|');
        if (bytes_eq(bytes_of(at, (size_t)(end - at)), text)) return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

static void store_default(const struct field *f, void *out) {
    union value v;
    memset(&v, 0, sizeof v);
    if (!f->required) {
        if (f->type == FIELD_U64) v.u64 = f->def_u64;
        if (f->type == FIELD_F64) v.f64 = f->def_f64;
        if (f->type == FIELD_BOOL) v.b = f->def_u64 != 0;
        if (f->type == FIELD_STR && f->choices) v.bytes = first_choice(f);
    }
    store(f, out, &v);
}

static int check_bytes(const struct field *f, struct bytes b, struct refusal *why) {
    if (f->choices && !is_choice(f, b))
        return refuse(f, why, ERR_FIELD, "choice", "is '%.*s'", (int)utf8_cut(b, 32),
                      (const char *)b.data);
    if (b.len < f->min || b.len > f->max)
        return refuse(f, why, ERR_LIMIT, "limit", "has %zu bytes", b.len);
    return 0;
}

static int check_u64(const struct field *f, uint64_t v, struct refusal *why) {
    if (v >= f->min && v <= f->max) return 0;
    return refuse(f, why, ERR_LIMIT, "limit", "is %llu", (unsigned long long)v);
}

static int check_f64(const struct field *f, double v, struct refusal *why) {
    if (v >= f->fmin && v <= f->fmax) return 0; /* NaN is in no range */
    return refuse(f, why, ERR_LIMIT, "limit", "is %g", v);
}

/* The items of a list; r stands behind its head, and the document has been checked. */
static int check_items(const struct field *f, struct reader *r, uint32_t n, struct refusal *why) {
    if (n < f->min || n > f->max) return refuse(f, why, ERR_LIMIT, "limit", "has %u strings", n);
    for (uint32_t i = 0; i < n; i++) {
        struct walk_token t;
        if (walk_token(r, &t, NULL) < 0 || t.kind != PACK_STR)
            return refuse(f, why, ERR_FIELD, "type", "holds something else than a string at %u", i);
        if (t.data.len > f->item_max)
            return refuse(f, why, ERR_LIMIT, "limit", "has %zu bytes in string %u", t.data.len, i);
    }
    return 0;
}

static const char *kind_word(enum pack_kind kind) {
    static const char *const words[] = {"nil",      "a boolean", "an integer", "a negative integer",
                                        "a number", "a string",  "binary",     "a list",
                                        "a map"};
    return words[kind];
}

/* Reads the value at r (head token t, value's bytes `whole`) as the row asks. */
static int take(const struct field *f, struct reader *r, const struct walk_token *t,
                struct bytes whole, union value *v, struct refusal *why) {
    switch (f->type) {
    case FIELD_U64:
        if (t->kind == PACK_I64)
            return refuse(f, why, ERR_LIMIT, "limit", "is %lld", (long long)t->i);
        if (t->kind != PACK_U64) break;
        v->u64 = t->u;
        return check_u64(f, t->u, why);
    case FIELD_F64:
        if (t->kind == PACK_F64)
            v->f64 = t->f;
        else if (t->kind == PACK_U64)
            v->f64 = (double)t->u;
        else if (t->kind == PACK_I64)
            v->f64 = (double)t->i;
        else
            break;
        return check_f64(f, v->f64, why);
    case FIELD_BOOL:
        if (t->kind != PACK_BOOL) break;
        v->b = t->b;
        return 0;
    case FIELD_STR:
    case FIELD_BIN:
        if (t->kind != PACK_STR && (t->kind != PACK_BIN || f->type == FIELD_STR)) break;
        v->bytes = t->data;
        if (f->choices && !f->required && t->data.len == 0) v->bytes = first_choice(f);
        return check_bytes(f, v->bytes, why);
    case FIELD_ID:
        if (t->kind != PACK_STR) break;
        if (job_id_parse(t->data, &v->u64) == 0) return 0;
        return refuse(f, why, ERR_FIELD, "limit", "is '%.*s'", (int)utf8_cut(t->data, 32),
                      (const char *)t->data.data);
    case FIELD_STRS:
        if (t->kind != PACK_ARRAY) break;
        v->strs = (struct field_strs){whole, t->n};
        return check_items(f, r, t->n, why);
    case FIELD_PACK:
        if (whole.len > f->max)
            return refuse(f, why, ERR_LIMIT, "limit", "has %zu bytes", whole.len);
        v->bytes = whole;
        return 0;
    }
    return refuse(f, why, ERR_FIELD, "type", "is %s", kind_word(t->kind));
}

/* Names are a few letters long. */
static inline bool is_name(const char *name, struct bytes key) {
    const char *at = key.data;
    size_t i = 0;
    while (i < key.len && name[i] && name[i] == at[i]) i++;
    return i == key.len && !name[i];
}

/* The row of this name, n when there is none. Most writers keep to the order of the rows, so the
 * search begins behind the last one that was seen. */
static uint32_t row_of(const struct field *fields, uint32_t n, uint64_t seen, struct bytes name) {
    uint32_t from = seen ? 64u - (uint32_t)__builtin_clzll(seen) : 0;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = from + k < n ? from + k : from + k - n;
        if (is_name(fields[i].name, name)) return i;
    }
    return n;
}

/* The value of row i, with its head token t; `value` stands behind that. */
static int take_field(const struct field *fields, uint32_t i, struct reader *value,
                      const struct walk_token *t, struct bytes whole, uint64_t *seen, void *out,
                      struct refusal *why) {
    const struct field *f = &fields[i];
    if (*seen >> i & 1) return refuse(f, why, ERR_FIELD, "duplicate", "is given twice");
    if (t->kind == PACK_NIL && f->type != FIELD_PACK) return 0; /* nil is absent */
    union value v;
    memset(&v, 0, sizeof v);
    int rc = take(f, value, t, whole, &v, why);
    if (rc < 0) return rc;
    *seen |= 1ull << i;
    store(f, out, &v);
    return 0;
}

/* One key and its value. `seen` has a bit for each row that was given already. */
static int take_member(const struct field *fields, uint32_t n, struct reader *r, uint64_t *seen,
                       void *out, struct refusal *why) {
    struct walk_token key, t;
    walk_token(r, &key, NULL);
    uint32_t i = row_of(fields, n, *seen, key.data);
    const uint8_t *start = r->at;
    walk_token(r, &t, NULL);
    struct reader value = *r; /* behind the head */
    uint64_t inside = t.kind == PACK_ARRAY ? t.n : t.kind == PACK_MAP ? 2ull * t.n : 0;
    for (; inside > 0; inside--)
        if (walk_skip(r) < 0) return 0;
    if (i == n) return 0; /* unknown keys are for newer readers */
    return take_field(fields, i, &value, &t, bytes_of(start, (size_t)(r->at - start)), seen, out,
                      why);
}

/* A map of plain values, as most headers are, is checked while it is read: true when all of it is
 * as it should be. Whatever else there is to say of a document is for those who read it twice. */
static bool decode_flat(const struct field *fields, uint32_t n, struct bytes document, void *out,
                        uint64_t *seen, struct refusal *why) {
    struct reader r = reader_of(document);
    struct walk_token root, key, t;
    if (walk_token(&r, &root, NULL) < 0 || root.kind != PACK_MAP) return false;
    for (uint32_t left = root.n; left > 0; left--) {
        if (walk_token(&r, &key, NULL) < 0 || key.kind != PACK_STR) return false;
        const uint8_t *start = r.at;
        uint32_t i = row_of(fields, n, *seen, key.data);
        if (i == n && utf8_check(key.data.data, key.data.len) != key.data.len) return false;
        if (walk_token(&r, &t, NULL) < 0 || t.kind == PACK_ARRAY || t.kind == PACK_MAP ||
            (t.kind == PACK_STR && utf8_check(t.data.data, t.data.len) != t.data.len))
            return false;
        struct bytes whole = bytes_of(start, (size_t)(r.at - start));
        if (i < n && take_field(fields, i, &r, &t, whole, seen, out, why) < 0) return false;
    }
    return read_left(&r) == 0;
}

/* Of the fields that say so exactly one is given; `given` has a bit for each row. */
static int check_one_of(const struct field *fields, uint32_t n, uint64_t given,
                        struct refusal *why) {
    uint64_t rows = 0;
    for (uint32_t i = 0; i < n; i++) rows |= (uint64_t)fields[i].one_of << i;
    if (!rows) return 0;
    char names[64] = "", fix[192];
    size_t len = 0;
    const struct field *found = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (!(rows >> i & 1)) continue;
        int w =
            snprintf(names + len, sizeof names - len, "%s'%s'", len ? ", " : "", fields[i].name);
        assert(w > 0 && (size_t)w < sizeof names - len);
        len += (size_t)w;
        if (!(given >> i & 1)) continue;
        if (found) {
            refusal_set(why, "conflict", fields[i].name, "exactly one of them",
                        "leave one of the two out", "both '%s' and '%s' are given", found->name,
                        fields[i].name);
            return ERR_FIELD;
        }
        found = &fields[i];
    }
    if (found) return 0;
    err_set(fix, sizeof fix, 0, "give one of %s", names);
    refusal_set(why, "missing", fields[__builtin_ctzll(rows)].name, "exactly one of them", fix,
                "none of %s is given", names);
    return ERR_FIELD;
}

static int decode_any(const struct field *fields, uint32_t n, struct bytes document, void *out,
                      uint64_t *seen, struct refusal *why) {
    struct walk_fault fault;
    int rc = walk_check(document, &fault);
    if (rc < 0) return refuse_document(&fault, rc, why);
    struct reader r = reader_of(document);
    struct walk_token root;
    walk_token(&r, &root, NULL);
    if (root.kind != PACK_MAP) {
        refusal_set(why, "type", "header or body", "a map", "send a msgpack map of named fields",
                    "the document is %s, not a map", kind_word(root.kind));
        return ERR_FIELD;
    }
    *seen = 0;
    for (uint32_t i = 0; i < root.n; i++) {
        rc = take_member(fields, n, &r, seen, out, why);
        if (rc < 0) return rc;
    }
    return 0;
}

int field_decode(const struct field *fields, uint32_t n, struct bytes document, void *out,
                 struct refusal *why) {
    assert(n <= 64);
    uint64_t seen = 0;
    int rc = decode_flat(fields, n, document, out, &seen, why)
                 ? 0
                 : decode_any(fields, n, document, out, &seen, why);
    if (rc < 0) return rc;
    for (uint32_t i = 0; i < n; i++) {
        if (seen >> i & 1) continue;
        if (fields[i].required) return refuse(&fields[i], why, ERR_FIELD, "missing", "is missing");
        store_default(&fields[i], out);
    }
    return check_one_of(fields, n, seen, why);
}

/* ---- encoding ---- */

static bool is_default(const struct field *f, const union value *v) {
    switch (f->type) {
    case FIELD_U64: return v->u64 == f->def_u64;
    case FIELD_F64: return !(v->f64 < f->def_f64 || v->f64 > f->def_f64);
    case FIELD_BOOL: return v->b == (f->def_u64 != 0);
    case FIELD_ID: return v->u64 == 0;
    case FIELD_STR: return v->bytes.len == 0 || (f->choices && bytes_eq(v->bytes, first_choice(f)));
    case FIELD_STRS: return v->strs.count == 0;
    default: return v->bytes.len == 0;
    }
}

static int check_strs(const struct field *f, struct field_strs s, struct refusal *why) {
    if (s.count == 0 && f->min == 0) return 0;
    struct walk_fault fault;
    struct reader r = reader_of(s.raw);
    struct walk_token t;
    if (walk_check(s.raw, &fault) < 0 || walk_token(&r, &t, NULL) < 0 || t.kind != PACK_ARRAY ||
        t.n != s.count)
        return ERR_CORRUPT;
    return check_items(f, &r, t.n, why);
}

/* What a peer would refuse is an error of the sender, found here. */
static int check_value(const struct field *f, const union value *v) {
    struct refusal why;
    struct walk_fault fault;
    switch (f->type) {
    case FIELD_U64: return check_u64(f, v->u64, &why);
    case FIELD_F64: return check_f64(f, v->f64, &why);
    case FIELD_STR:
        if (utf8_check(v->bytes.data, v->bytes.len) != v->bytes.len) return ERR_CORRUPT;
        return check_bytes(f, v->bytes, &why);
    case FIELD_BIN: return check_bytes(f, v->bytes, &why);
    case FIELD_STRS: return check_strs(f, v->strs, &why);
    case FIELD_PACK:
        if (v->bytes.len > f->max) return ERR_LIMIT;
        return v->bytes.len ? walk_check(v->bytes, &fault) : 0;
    default: return 0;
    }
}

static void put(struct packer *p, const struct field *f, const union value *v) {
    char id[JOB_ID_CHARS + 1];
    pack_str(p, f->name);
    switch (f->type) {
    case FIELD_U64: pack_u64(p, v->u64); break;
    case FIELD_F64: pack_f64(p, v->f64); break;
    case FIELD_BOOL: pack_bool(p, v->b); break;
    case FIELD_STR: pack_strn(p, v->bytes); break;
    case FIELD_BIN: pack_bin(p, v->bytes); break;
    case FIELD_ID:
        job_id_text(v->u64, id);
        pack_str(p, id);
        break;
    case FIELD_STRS:
        if (v->strs.count)
            pack_raw(p, v->strs.raw);
        else
            pack_array(p, 0);
        break;
    case FIELD_PACK:
        if (v->bytes.len)
            pack_raw(p, v->bytes);
        else
            pack_nil(p);
        break;
    }
}

int field_encode(const struct field *fields, uint32_t n, const void *in, struct buf *out) {
    assert(n <= 64);
    uint64_t give = 0;
    union value v;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&v, (const char *)in + fields[i].offset, value_bytes(fields[i].type));
        if (!fields[i].required && is_default(&fields[i], &v)) continue;
        int rc = check_value(&fields[i], &v);
        if (rc < 0) return rc;
        give |= 1ull << i;
    }
    struct refusal why;
    int one = check_one_of(fields, n, give, &why);
    if (one < 0) return one;
    size_t before = out->len;
    struct packer p = packer_of(out);
    pack_map(&p, (uint32_t)__builtin_popcountll(give));
    for (uint32_t i = 0; i < n; i++) {
        if (!(give >> i & 1)) continue;
        memcpy(&v, (const char *)in + fields[i].offset, value_bytes(fields[i].type));
        put(&p, &fields[i], &v);
    }
    if (out->error) out->len = before;
    return out->error;
}

const struct field *field_find(const struct field *fields, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

/* ---- lists ---- */

struct field_strs_it field_strs_begin(struct field_strs list) {
    struct reader r = reader_of(list.raw);
    struct walk_token t;
    if (list.count == 0 || walk_token(&r, &t, NULL) < 0) return (struct field_strs_it){0};
    return (struct field_strs_it){bytes_of(r.at, read_left(&r)), list.count};
}

bool field_strs_next(struct field_strs_it *it, struct bytes *out) {
    if (it->left == 0) return false;
    struct reader r = reader_of(it->rest);
    struct walk_token t;
    if (walk_token(&r, &t, NULL) < 0) return false;
    *out = t.data;
    *it = (struct field_strs_it){bytes_of(r.at, read_left(&r)), it->left - 1};
    return true;
}
