#include "schemas/kinds.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "schemas/rows.h"
#include "schemas/walk.h"

#define KIND_STRUCT_BYTES 512u /* no kind's struct is larger; an assertion holds it */
#define PACK_NIL_BYTE 0xC0u

/* As in msg.c: a function a kind, so that row_struct can stand for its struct. */
#define KIND(name, wire, text)                                                                     \
    static const struct kind_desc *desc_##name(void) {                                             \
        typedef struct kind_##name row_struct;                                                     \
        static const char title[] = wire, doc[] = text;                                            \
        static const struct field rows[] = {
#define END(name)                                                                                  \
    }                                                                                              \
    ;                                                                                              \
    static const struct kind_desc row = {title, rows, sizeof rows / sizeof *rows,                  \
                                         sizeof(row_struct), doc};                                 \
    return &row;                                                                                   \
    }
/* clang-format off */
#include "schemas/kinds.def"
#undef KIND
#undef END
#undef U64
#undef F64
#undef BOOL
#undef STR
#undef BIN
#undef STRS
#undef PACK

#define U64(...)
#define F64(...)
#define BOOL(...)
#define STR(...)
#define BIN(...)
#define STRS(...)
#define PACK(...)
#define END(name)
static const struct kind_desc *(*const kinds[])(void) = {
#define KIND(name, ...) desc_##name,
#include "schemas/kinds.def"
#undef KIND
};
/* clang-format on */

const struct kind_desc *kind_at(uint32_t i) {
    return i < sizeof kinds / sizeof *kinds ? kinds[i]() : NULL;
}

const struct kind_desc *kind_find(struct bytes name) {
    const struct kind_desc *k;
    for (uint32_t i = 0; (k = kind_at(i)); i++)
        if (bytes_is(name, k->name)) return k;
    return NULL;
}

/* ---- what the fields of a body have to do with each other ---- */

/* A field that needs another, or does not go with it. */
static const struct rule {
    const char *kind, *field, *other;
    bool needs;
    const char *message, *limit, *fix;
} rules[] = {
    {"text.generate", "tools", "messages", true, "'tools' go with 'messages', not with a prompt",
     "with messages only", "leave it out, or send messages"},
    {"text.generate", "template_vars", "messages", true,
     "'template_vars' go with 'messages', not with a prompt", "with messages only",
     "leave it out, or send messages"},
    {"text.generate", "stop", "schema", false,
     "'stop' is not taken together with 'schema', which says where a text ends", "one of them",
     "leave one of the two out"},
};

/* Of the fields that rules name; nil is absent. */
static bool is_given(const struct kind_desc *k, const char *name, const void *body) {
    const struct field *f = field_find(k->fields, k->n, name);
    const char *at = (const char *)body + f->offset;
    if (f->type == FIELD_STRS) return ((const struct field_strs *)(const void *)at)->count > 0;
    const struct bytes *raw = (const struct bytes *)(const void *)at;
    return raw->len > 1 || (raw->len == 1 && *(const uint8_t *)raw->data != PACK_NIL_BYTE);
}

/* A value that is given as a text is JSON. */
static int check_json(const struct field *f, struct bytes raw, struct refusal *why) {
    struct reader r = reader_of(raw);
    struct walk_token t;
    char err[160];
    if (!raw.data || walk_token(&r, &t, NULL) < 0 || t.kind != PACK_STR) return 0;
    int rc = json_check(t.data.data, t.data.len, err, sizeof err);
    if (rc < 0)
        refusal_set(why, "malformed", f->name, "a value, or its JSON text",
                    "send a map or a list, or mend its text", "'%s': %s", f->name, err);
    return rc;
}

static int check_body(const struct kind_desc *k, const void *body, struct refusal *why) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct rule *r = &rules[i];
        if (strcmp(r->kind, k->name) != 0 || !is_given(k, r->field, body) ||
            is_given(k, r->other, body) == r->needs)
            continue;
        refusal_set(why, r->needs ? "missing" : "conflict", r->field, r->limit, r->fix, "%s",
                    r->message);
        return ERR_FIELD;
    }
    for (uint32_t i = 0; i < k->n; i++) {
        const struct field *f = &k->fields[i];
        const char *at = (const char *)body + f->offset;
        int rc =
            f->type == FIELD_PACK ? check_json(f, *(const struct bytes *)(const void *)at, why) : 0;
        if (rc < 0) return rc;
    }
    return 0;
}

int kind_decode(const struct kind_desc *k, struct bytes body, void *out, struct refusal *why) {
    _Alignas(16) unsigned char room[KIND_STRUCT_BYTES];
    assert(k->struct_bytes <= sizeof room);
    if (!out) out = room;
    memset(out, 0, k->struct_bytes);
    int rc = field_decode(k->fields, k->n, body, out, why);
    return rc < 0 ? rc : check_body(k, out, why);
}
