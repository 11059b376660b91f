#include "schemas/pack.h"

#include <assert.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "schemas/walk.h"

int pack_check(struct bytes document, char *err, size_t err_bytes) {
    struct walk_fault fault;
    int rc = walk_check(document, &fault);
    if (rc == 0) return 0;
    return err_set(err, err_bytes, rc, "msgpack, byte %zu%s%.*s: %s (%s)", fault.offset,
                   fault.key.len ? ", in " : "", (int)(fault.key.len < 64 ? fault.key.len : 64),
                   fault.key.len ? (const char *)fault.key.data : "", fault.what, fault.limit);
}

/* ---- writing ---- */

enum { FIXINT_MAX = 0x80, FIXSTR = 0xA0, FIXSTR_MAX = 32 };

static int write_out(void *data, const char *bytes, size_t len) {
    return buf_append(data, bytes, len);
}

/* msgpack-c's packer is two words: it is made anew for each call. */
static msgpack_packer on(struct packer *p) {
    msgpack_packer m;
    msgpack_packer_init(&m, p->out, write_out);
    return m;
}

/* A length that msgpack cannot write is an error of the buffer, like running out of it. */
static bool fits(struct packer *p, size_t len) {
    if (len <= UINT32_MAX) return true;
    if (!p->out->error) p->out->error = ERR_LIMIT;
    return false;
}

struct packer packer_of(struct buf *out) {
    return (struct packer){out};
}

void pack_map(struct packer *p, uint32_t pairs) {
    msgpack_packer m = on(p);
    msgpack_pack_map(&m, pairs);
}

void pack_array(struct packer *p, uint32_t items) {
    msgpack_packer m = on(p);
    msgpack_pack_array(&m, items);
}

void pack_nil(struct packer *p) {
    msgpack_packer m = on(p);
    msgpack_pack_nil(&m);
}

void pack_bool(struct packer *p, bool v) {
    msgpack_packer m = on(p);
    if (v)
        msgpack_pack_true(&m);
    else
        msgpack_pack_false(&m);
}

void pack_u64(struct packer *p, uint64_t v) {
    if (v < FIXINT_MAX) {
        buf_u8(p->out, (uint8_t)v);
        return;
    }
    msgpack_packer m = on(p);
    msgpack_pack_uint64(&m, v);
}

void pack_i64(struct packer *p, int64_t v) {
    msgpack_packer m = on(p);
    msgpack_pack_int64(&m, v);
}

void pack_f32(struct packer *p, float v) {
    msgpack_packer m = on(p);
    msgpack_pack_float(&m, v);
}

void pack_f64(struct packer *p, double v) {
    msgpack_packer m = on(p);
    msgpack_pack_double(&m, v);
}

void pack_strn(struct packer *p, struct bytes text) {
    if (text.len < FIXSTR_MAX) { /* as almost all are: with its head in one */
        uint8_t *at = buf_extend(p->out, 1 + text.len);
        if (!at) return;
        *at = (uint8_t)(FIXSTR | text.len);
        if (text.len) memcpy(at + 1, text.data, text.len);
        return;
    }
    if (!fits(p, text.len)) return;
    msgpack_packer m = on(p);
    msgpack_pack_str(&m, text.len);
    if (text.len) msgpack_pack_str_body(&m, text.data, text.len);
}

void pack_str(struct packer *p, const char *text) {
    pack_strn(p, bytes_str(text));
}

void pack_bin(struct packer *p, struct bytes data) {
    if (!fits(p, data.len)) return;
    msgpack_packer m = on(p);
    msgpack_pack_bin(&m, data.len);
    if (data.len) msgpack_pack_bin_body(&m, data.data, data.len);
}

void pack_raw(struct packer *p, struct bytes document) {
    buf_append(p->out, document.data, document.len);
}

void pack_kv_str(struct packer *p, const char *key, const char *text) {
    pack_str(p, key);
    pack_str(p, text);
}

void pack_kv_u64(struct packer *p, const char *key, uint64_t v) {
    pack_str(p, key);
    pack_u64(p, v);
}

void pack_kv_f64(struct packer *p, const char *key, double v) {
    pack_str(p, key);
    pack_f64(p, v);
}

void pack_kv_bool(struct packer *p, const char *key, bool v) {
    pack_str(p, key);
    pack_bool(p, v);
}

/* ---- reading: struct pack_val is never defined, it is a msgpack_object ---- */

struct pack_doc {
    msgpack_unpacked u;
};

static const msgpack_object *in(const struct pack_val *v) {
    return (const void *)v;
}

static const struct pack_val *val(const msgpack_object *o) {
    return (const void *)o;
}

int pack_parse(struct pack_doc **out, struct bytes document, char *err, size_t err_bytes) {
    *out = NULL;
    int rc = pack_check(document, err, err_bytes);
    if (rc < 0) return rc;
    struct pack_doc *d = malloc(sizeof *d);
    if (!d) return err_set(err, err_bytes, -ENOMEM, "msgpack: out of memory");
    msgpack_unpacked_init(&d->u);
    size_t at = 0;
    msgpack_unpack_return got = msgpack_unpack_next(&d->u, document.data, document.len, &at);
    if (got == MSGPACK_UNPACK_SUCCESS) {
        *out = d;
        return 0;
    }
    pack_free(d);
    if (got == MSGPACK_UNPACK_NOMEM_ERROR)
        return err_set(err, err_bytes, -ENOMEM, "msgpack: out of memory");
    return err_set(err, err_bytes, ERR_CORRUPT, "msgpack, byte %zu: not a document", at);
}

void pack_free(struct pack_doc *d) {
    if (!d) return;
    msgpack_unpacked_destroy(&d->u);
    free(d);
}

const struct pack_val *pack_root(const struct pack_doc *d) {
    return val(&d->u.data);
}

enum pack_kind pack_kind(const struct pack_val *v) {
    if (!v) return PACK_NIL;
    switch (in(v)->type) {
    case MSGPACK_OBJECT_BOOLEAN: return PACK_BOOL;
    case MSGPACK_OBJECT_POSITIVE_INTEGER: return PACK_U64;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: return PACK_I64;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: return PACK_F64;
    case MSGPACK_OBJECT_STR: return PACK_STR;
    case MSGPACK_OBJECT_BIN: return PACK_BIN;
    case MSGPACK_OBJECT_ARRAY: return PACK_ARRAY;
    case MSGPACK_OBJECT_MAP: return PACK_MAP;
    default: return PACK_NIL; /* ext never passes pack_check */
    }
}

const struct pack_val *pack_get(const struct pack_val *map, const char *key) {
    struct bytes want = bytes_str(key);
    for (uint32_t i = 0, n = pack_kind(map) == PACK_MAP ? pack_len(map) : 0; i < n; i++) {
        const struct pack_val *value;
        if (bytes_eq(pack_key_at(map, i, &value), want)) return value;
    }
    return NULL;
}

const struct pack_val *pack_at(const struct pack_val *array, uint32_t i) {
    if (pack_kind(array) != PACK_ARRAY || i >= in(array)->via.array.size) return NULL;
    return val(&in(array)->via.array.ptr[i]);
}

uint32_t pack_len(const struct pack_val *v) {
    if (pack_kind(v) == PACK_ARRAY) return in(v)->via.array.size;
    return pack_kind(v) == PACK_MAP ? in(v)->via.map.size : 0;
}

struct bytes pack_key_at(const struct pack_val *map, uint32_t i, const struct pack_val **value) {
    assert(pack_kind(map) == PACK_MAP && i < in(map)->via.map.size);
    const msgpack_object_kv *kv = &in(map)->via.map.ptr[i];
    *value = val(&kv->val);
    return bytes_of(kv->key.via.str.ptr, kv->key.via.str.size);
}

uint64_t pack_as_u64(const struct pack_val *v, uint64_t otherwise) {
    return pack_kind(v) == PACK_U64 ? in(v)->via.u64 : otherwise;
}

int64_t pack_as_i64(const struct pack_val *v, int64_t otherwise) {
    if (pack_kind(v) == PACK_I64) return in(v)->via.i64;
    if (pack_kind(v) == PACK_U64 && in(v)->via.u64 <= INT64_MAX) return (int64_t)in(v)->via.u64;
    return otherwise;
}

double pack_as_f64(const struct pack_val *v, double otherwise) {
    switch (pack_kind(v)) {
    case PACK_F64: return in(v)->via.f64;
    case PACK_U64: return (double)in(v)->via.u64;
    case PACK_I64: return (double)in(v)->via.i64;
    default: return otherwise;
    }
}

bool pack_as_bool(const struct pack_val *v, bool otherwise) {
    return pack_kind(v) == PACK_BOOL ? in(v)->via.boolean : otherwise;
}

struct bytes pack_as_bytes(const struct pack_val *v) {
    if (pack_kind(v) == PACK_STR) return bytes_of(in(v)->via.str.ptr, in(v)->via.str.size);
    if (pack_kind(v) == PACK_BIN) return bytes_of(in(v)->via.bin.ptr, in(v)->via.bin.size);
    return (struct bytes){NULL, 0};
}
