#include "schemas/walk.h"

#include <stdarg.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"

__attribute__((format(printf, 5, 6))) static int refuse(struct walk_fault *fault, int code,
                                                        const char *word, const char *limit,
                                                        const char *format, ...) {
    if (!fault) return code;
    va_list args;
    va_start(args, format);
    err_vset(fault->what, sizeof fault->what, code, format, args);
    va_end(args);
    fault->code = word;
    fault->limit = limit;
    return code;
}

/* ---- one token ---- */

static uint64_t big(struct reader *r, unsigned width) {
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v = v << 8 | read_u8(r);
    return v;
}

static void take_i64(struct walk_token *t, int64_t v) {
    t->kind = v < 0 ? PACK_I64 : PACK_U64;
    if (v < 0)
        t->i = v;
    else
        t->u = (uint64_t)v;
}

static void take_f32(struct walk_token *t, struct reader *r) {
    uint32_t bits = (uint32_t)big(r, 4);
    float f;
    memcpy(&f, &bits, sizeof f);
    t->kind = PACK_F64;
    t->f = (double)f;
}

static void take_f64(struct walk_token *t, struct reader *r) {
    uint64_t bits = big(r, 8);
    memcpy(&t->f, &bits, sizeof t->f);
    t->kind = PACK_F64;
}

static int take_data(struct walk_token *t, struct reader *r, enum pack_kind kind, uint64_t len,
                     struct walk_fault *fault) {
    t->kind = kind;
    if (!r->bad && len > read_left(r))
        return refuse(fault, ERR_CORRUPT, "malformed", "lengths within the document",
                      "declares %llu bytes, %zu remain", (unsigned long long)len, read_left(r));
    t->data = read_bytes(r, (size_t)len);
    return 0;
}

static int take_count(struct walk_token *t, struct reader *r, enum pack_kind kind, uint64_t n,
                      struct walk_fault *fault) {
    uint64_t least = kind == PACK_MAP ? 2 * n : n; /* each value has one byte at least */
    t->kind = kind;
    t->n = (uint32_t)n;
    if (!r->bad && least > read_left(r))
        return refuse(fault, ERR_CORRUPT, "malformed", "counts within the document",
                      "declares %llu values, %zu bytes remain", (unsigned long long)least,
                      read_left(r));
    return 0;
}

/* The types with a byte of their own, 0xC0 to 0xDF. */
static int take_typed(struct walk_token *t, struct reader *r, uint8_t c, struct walk_fault *fault) {
    switch (c) {
    case 0xC0: t->kind = PACK_NIL; return 0;
    case 0xC2:
    case 0xC3: t->kind = PACK_BOOL, t->b = c == 0xC3; return 0;
    case 0xC4: return take_data(t, r, PACK_BIN, big(r, 1), fault);
    case 0xC5: return take_data(t, r, PACK_BIN, big(r, 2), fault);
    case 0xC6: return take_data(t, r, PACK_BIN, big(r, 4), fault);
    case 0xCA: take_f32(t, r); return 0;
    case 0xCB: take_f64(t, r); return 0;
    case 0xCC: t->kind = PACK_U64, t->u = big(r, 1); return 0;
    case 0xCD: t->kind = PACK_U64, t->u = big(r, 2); return 0;
    case 0xCE: t->kind = PACK_U64, t->u = big(r, 4); return 0;
    case 0xCF: t->kind = PACK_U64, t->u = big(r, 8); return 0;
    case 0xD0: take_i64(t, (int8_t)big(r, 1)); return 0;
    case 0xD1: take_i64(t, (int16_t)big(r, 2)); return 0;
    case 0xD2: take_i64(t, (int32_t)big(r, 4)); return 0;
    case 0xD3: take_i64(t, (int64_t)big(r, 8)); return 0;
    case 0xD9: return take_data(t, r, PACK_STR, big(r, 1), fault);
    case 0xDA: return take_data(t, r, PACK_STR, big(r, 2), fault);
    case 0xDB: return take_data(t, r, PACK_STR, big(r, 4), fault);
    case 0xDC: return take_count(t, r, PACK_ARRAY, big(r, 2), fault);
    case 0xDD: return take_count(t, r, PACK_ARRAY, big(r, 4), fault);
    case 0xDE: return take_count(t, r, PACK_MAP, big(r, 2), fault);
    case 0xDF: return take_count(t, r, PACK_MAP, big(r, 4), fault);
    default:
        return refuse(fault, ERR_CORRUPT, "malformed", "no ext types",
                      "type byte 0x%02X is not accepted", c);
    }
}

int walk_token(struct reader *r, struct walk_token *out, struct walk_fault *fault) {
    *out = (struct walk_token){.kind = PACK_NIL};
    uint8_t c = read_u8(r);
    int rc = 0;
    if (r->bad)
        rc = 0;
    else if (c < 0x80)
        out->kind = PACK_U64, out->u = c;
    else if (c < 0x90)
        rc = take_count(out, r, PACK_MAP, c & 0x0Fu, fault);
    else if (c < 0xA0)
        rc = take_count(out, r, PACK_ARRAY, c & 0x0Fu, fault);
    else if (c < 0xC0)
        rc = take_data(out, r, PACK_STR, c & 0x1Fu, fault);
    else if (c >= 0xE0)
        take_i64(out, (int8_t)c);
    else
        rc = take_typed(out, r, c, fault);
    if (r->bad)
        return refuse(fault, ERR_CORRUPT, "malformed", "a whole document", "the document is cut");
    return rc;
}

int walk_skip(struct reader *r) {
    struct walk_token t;
    for (uint64_t pending = 1; pending > 0; pending--) {
        int rc = walk_token(r, &t, NULL);
        if (rc < 0) return rc;
        if (t.kind == PACK_ARRAY) pending += t.n;
        if (t.kind == PACK_MAP) pending += 2ull * t.n;
    }
    return 0;
}

/* ---- a whole document ---- */

struct level {
    uint64_t left; /* values still to come; of a map, keys and values alternate */
    bool map;
};

struct walk {
    struct reader r;
    struct level level[LIMIT_PACK_DEPTH];
    uint32_t depth, items;
};

static int open_level(struct walk *w, const struct walk_token *t, struct walk_fault *fault) {
    uint64_t n = t->kind == PACK_MAP ? 2ull * t->n : t->n;
    if (n > LIMIT_PACK_ITEMS - w->items)
        return refuse(fault, ERR_LIMIT, "limit", "at most 1048576 values in a document",
                      "declares %llu values more", (unsigned long long)n);
    if (w->depth == LIMIT_PACK_DEPTH)
        return refuse(fault, ERR_LIMIT, "limit", "at most 16 levels of nesting",
                      "is nested more than %u levels deep", LIMIT_PACK_DEPTH);
    w->items += (uint32_t)n;
    w->level[w->depth++] = (struct level){n, t->kind == PACK_MAP};
    return 0;
}
_Static_assert(LIMIT_PACK_ITEMS == 1048576 && LIMIT_PACK_DEPTH == 16, "the sentences say so");

/* One value or map key and what it opens. */
static int check_one(struct walk *w, struct walk_fault *fault) {
    struct level *l = w->depth ? &w->level[w->depth - 1] : NULL;
    bool key = l && l->map && l->left % 2 == 0;
    if (key && w->depth == 1) fault->key = (struct bytes){NULL, 0};
    struct walk_token t;
    int rc = walk_token(&w->r, &t, fault);
    if (rc < 0) return rc;
    if (l) l->left--;
    if (key && t.kind != PACK_STR)
        return refuse(fault, ERR_CORRUPT, "malformed", "map keys are strings",
                      "a map key is not a string");
    size_t good = t.kind == PACK_STR ? utf8_check(t.data.data, t.data.len) : t.data.len;
    if (good != t.data.len)
        return refuse(fault, ERR_CORRUPT, "utf8", "strings are UTF-8",
                      "byte %zu of the string is not UTF-8", good);
    if (key && w->depth == 1) fault->key = t.data;
    if (t.kind == PACK_ARRAY || t.kind == PACK_MAP) return open_level(w, &t, fault);
    return 0;
}

int walk_check(struct bytes document, struct walk_fault *fault) {
    struct walk w = {.r = reader_of(document)};
    *fault = (struct walk_fault){.code = "", .limit = ""};
    const uint8_t *start = w.r.at;
    int rc;
    do {
        const uint8_t *at = w.r.at;
        rc = check_one(&w, fault);
        if (rc < 0) {
            fault->offset = (size_t)(at - start);
            return rc;
        }
        while (w.depth > 0 && w.level[w.depth - 1].left == 0) w.depth--;
    } while (w.depth > 0);
    if (read_left(&w.r) == 0) return 0;
    fault->offset = (size_t)(w.r.at - start);
    fault->key = (struct bytes){NULL, 0};
    return refuse(fault, ERR_CORRUPT, "malformed", "one document",
                  "%zu bytes follow behind the document", read_left(&w.r));
}
