#include "schemas/kinds.h"

#include <string.h>

#include "base/err.h"
#include "schemas/rows.h"

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

int kind_decode(const struct kind_desc *k, struct bytes body, void *out, struct refusal *why) {
    if (out) memset(out, 0, k->struct_bytes);
    return field_decode(k->fields, k->n, body, out, why);
}
