#include "workers/encode/clauses_pack.h"

#include <errno.h>

#include "base/err.h"

#define NUMBERS 9u /* of a clause */

void clauses_pack(struct packer *p, enum clause_language language, const struct clauses *cs,
                  struct bytes document) {
    struct buf b = {0};
    for (uint32_t i = 0; i < cs->n; i++) {
        const struct clause *c = &cs->at[i];
        const uint32_t v[NUMBERS] = {c->begin,         c->end,          c->char_begin,
                                     c->char_end,      c->number.begin, c->number.end,
                                     c->heading.begin, c->heading.end,  c->level};
        for (uint32_t k = 0; k < NUMBERS; k++) buf_u32le(&b, v[k]);
    }
    if (b.error && !p->out->error) p->out->error = b.error;
    pack_map(p, 3);
    pack_kv_str(p, "language", clause_language_name(language));
    pack_str(p, "clauses");
    pack_bin(p, buf_bytes(&b));
    pack_str(p, "document");
    pack_raw(p, document);
    buf_fini(&b);
}

/* A span of whole characters inside the text. */
static bool fits(struct bytes text, uint32_t begin, uint32_t end) {
    const unsigned char *s = text.data;
    if (begin > end || end > text.len) return false;
    return (begin == text.len || (s[begin] & 0xC0) != 0x80) &&
           (end == text.len || (s[end] & 0xC0) != 0x80);
}

int clauses_unpack(const struct pack_val *keep, struct bytes text, struct arena *a,
                   enum clause_language *language, struct clauses *out, char *err,
                   size_t err_bytes) {
    struct bytes raw = pack_as_bytes(pack_get(keep, "clauses"));
    *language =
        bytes_is(pack_as_bytes(pack_get(keep, "language")), "zh") ? LANGUAGE_ZH : LANGUAGE_EN;
    *out = (struct clauses){.n = (uint32_t)(raw.len / (NUMBERS * 4))};
    if (raw.len == 0 || raw.len % (NUMBERS * 4) != 0 || out->n > CLAUSES_MAX)
        return err_set(err, err_bytes, ERR_CORRUPT, "keep.clauses: %zu bytes are not clauses",
                       raw.len);
    out->at = arena_calloc(a, out->n, sizeof *out->at);
    if (!out->at) return err_set(err, err_bytes, -ENOMEM, "no memory for %u clauses", out->n);
    struct reader r = reader_of(raw);
    uint32_t end = 0, char_end = 0;
    for (uint32_t i = 0; i < out->n; i++) {
        struct clause *c = &out->at[i];
        uint32_t v[NUMBERS];
        for (uint32_t k = 0; k < NUMBERS; k++) v[k] = read_u32le(&r);
        *c = (struct clause){v[0], v[1], v[2], v[3], {v[4], v[5]}, {v[6], v[7]}, v[8]};
        if (!fits(text, v[0], v[1]) || !fits(text, v[4], v[5]) || !fits(text, v[6], v[7]) ||
            v[0] < end || v[2] < char_end || v[2] > v[3])
            return err_set(err, err_bytes, ERR_CORRUPT,
                           "keep.clauses: clause %u is not in the text", i);
        end = v[1];
        char_end = v[3];
    }
    return 0;
}
