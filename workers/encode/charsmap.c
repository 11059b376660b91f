#include "workers/encode/charsmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/unicode.h"

#define GRAPHEME_BYTES_MAX 5u /* longer ones are not looked up as a whole */

/* ---- reading ---- */

static int digit(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The bytes that base64 stands for, into room for three quarters of it; -1: it is not base64. */
static int64_t decode(struct bytes base64, uint8_t *out) {
    const uint8_t *s = base64.data;
    size_t n = base64.len, to = 0;
    if (n % 4 != 0) return -1;
    for (int i = 0; i < 2 && n > 0 && s[n - 1] == '='; i++) n--;
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        int v = digit(s[i]);
        if (v < 0) return -1;
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 != 0) out[to++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    return (int64_t)to;
}

int charsmap_read(struct charsmap *m, struct bytes base64, const char *where, char *err,
                  size_t err_bytes) {
    *m = (struct charsmap){0};
    uint8_t *data = malloc(base64.len / 4 * 3 + sizeof(uint32_t));
    if (!data) return -ENOMEM;
    m->data = data;
    int64_t bytes = decode(base64, data);
    uint32_t units = 0;
    if (bytes >= 4) memcpy(&units, data, sizeof units); /* their bytes, little-endian */
    if (bytes < 4 || units < 4 || units % 4 != 0 || units > bytes - 4)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: Precompiled: precompiled_charsmap: not a base64 of a table", where);
    uint8_t *text = data + 4 + units;
    m->units = (const uint32_t *)(void *)(data + 4);
    m->n_units = units / 4;
    m->replacements = bytes_of(text, (size_t)(data + bytes - text));
    if (m->replacements.len == 0 || text[m->replacements.len - 1] != 0)
        return err_set(err, err_bytes, ERR_FIELD,
                       "%s: Precompiled: precompiled_charsmap: its text does not end", where);
    return 0;
}

void charsmap_fini(struct charsmap *m) {
    free(m->data);
    *m = (struct charsmap){0};
}

/* ---- running: a unit of the double array is a label, an offset, and whether a key ends ---- */

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The replacement of the shortest key that text begins with: false when there is none. */
static bool lookup(const struct charsmap *m, struct bytes text, struct bytes *out) {
    const uint8_t *s = text.data;
    uint32_t node = offset_of(m->units[0]);
    for (size_t i = 0; i < text.len && s[i] != 0; i++) {
        node ^= s[i];
        if (node >= m->n_units) return false;
        uint32_t unit = m->units[node];
        if ((unit & (1u << 31 | 0xFF)) != s[i]) return false;
        node ^= offset_of(unit);
        if (node >= m->n_units) return false;
        if (!(unit >> 8 & 1)) continue;
        uint32_t at = m->units[node] & ((1u << 31) - 1);
        if (at >= m->replacements.len) return false;
        const char *begin = (const char *)m->replacements.data + at;
        size_t bytes = strlen(begin);
        if (utf8_check(begin, bytes) != bytes) return false;
        *out = bytes_of(begin, bytes);
        return true;
    }
    return false;
}

int charsmap_run(const struct charsmap *m, struct bytes text, struct buf *out) {
    const char *at = text.data, *end = at + text.len;
    struct bytes to;
    while (at < end) {
        const char *stop = unicode_grapheme(at, end);
        struct bytes grapheme = bytes_of(at, (size_t)(stop - at));
        if (grapheme.len <= GRAPHEME_BYTES_MAX && lookup(m, grapheme, &to)) {
            buf_append(out, to.data, to.len);
            at = stop;
        }
        while (at < stop) {
            const char *next = at;
            unicode_next(&next);
            struct bytes one = bytes_of(at, (size_t)(next - at));
            if (!lookup(m, one, &to)) to = one;
            buf_append(out, to.data, to.len);
            at = next;
        }
    }
    return out->error;
}
