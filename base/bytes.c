#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#endif

#include "base/err.h"

char *bytes_dup(struct bytes a) {
    char *copy = malloc(a.len + 1);
    if (!copy) return NULL;
    if (a.len) memcpy(copy, a.data, a.len);
    copy[a.len] = '\0';
    return copy;
}

int bytes_to_cstr(struct bytes a, char *out, size_t out_bytes) {
    if (a.len >= out_bytes) return ERR_LIMIT;
    if (a.len && memchr(a.data, 0, a.len)) return -EINVAL;
    if (a.len) memcpy(out, a.data, a.len);
    out[a.len] = '\0';
    return 0;
}

/* ---- growing ---- */

void buf_fini(struct buf *b) {
    free(b->data);
    *b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_clear(struct buf *b) {
    b->len = 0;
    b->error = 0;
}

void *buf_grow(struct buf *b, size_t len) {
    if (b->error) return NULL;
    size_t max = b->max_bytes ? b->max_bytes : SIZE_MAX / 2;
    if (len > max || b->len > max - len) {
        b->error = b->max_bytes ? ERR_LIMIT : -ENOMEM;
        return NULL;
    }
    size_t need = b->len + len;
    if (need > b->cap || !b->data) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < need) cap *= 2;
        if (cap > max) cap = max;
        uint8_t *data = realloc(b->data, cap ? cap : 1);
        if (!data) {
            b->error = -ENOMEM;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    void *at = b->data + b->len;
    b->len = need;
    return at;
}

int buf_printf(struct buf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *at = n < 0 ? NULL : buf_extend(b, (size_t)n + 1);
    if (at) {
        vsnprintf(at, (size_t)n + 1, format, again);
        b->len--; /* the NUL stays behind the text, uncounted */
    } else if (n < 0 && !b->error) {
        b->error = -EINVAL;
    }
    va_end(again);
    va_end(args);
    return b->error;
}

int buf_lenbytes(struct buf *b, struct bytes v) {
    if (v.len > UINT32_MAX && !b->error) b->error = ERR_LIMIT;
    buf_u32le(b, (uint32_t)v.len);
    return buf_append(b, v.data, v.len);
}

/* ---- CRC32C ---- */

/* Four bits a step: entry i is i run through the reflected polynomial 0x82F63B78 four times. */
static const uint32_t crc_nibble[16] = {0x00000000u, 0x105ec76fu, 0x20bd8edeu, 0x30e349b1u,
                                        0x417b1dbcu, 0x5125dad3u, 0x61c69362u, 0x7198540du,
                                        0x82f63b78u, 0x92a8fc17u, 0xa24bb5a6u, 0xb21572c9u,
                                        0xc38d26c4u, 0xd3d3e1abu, 0xe330a81au, 0xf36e6f75u};

static uint32_t crc_table(uint32_t crc, const uint8_t *p, size_t len) {
    for (; len; len--) {
        crc ^= *p++;
        crc = crc_nibble[crc & 15] ^ (crc >> 4);
        crc = crc_nibble[crc & 15] ^ (crc >> 4);
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_sse(uint32_t crc, const uint8_t *p,
                                                          size_t len) {
    uint64_t wide = crc;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t eight;
        memcpy(&eight, p, 8);
        wide = _mm_crc32_u64(wide, eight);
    }
    crc = (uint32_t)wide;
    for (; len; len--) crc = _mm_crc32_u8(crc, *p++);
    return crc;
}

/* An instruction takes three clocks and three may run at once, so long data are three parts side by
 * side. CRCs are polynomials modulo P: a part in front of n bytes counts times x^(8n). A product of
 * two reflected numbers that the instruction reduces comes out times x^33, hence the constants. */
#define PART_BYTES 1024u
#define PAST_ONE 0x170076FAu /* x^(8 PART_BYTES - 33) mod P, reflected */
#define PAST_TWO 0xA51B6135u /* x^(16 PART_BYTES - 33) mod P, reflected */

__attribute__((target("sse4.2,pclmul"))) static uint32_t past(uint32_t crc, uint32_t by) {
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)by), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t
crc_sse_long(uint32_t crc, const uint8_t *p, size_t len) {
    for (; len >= 3 * PART_BYTES; len -= 3 * PART_BYTES, p += 3 * PART_BYTES) {
        uint64_t a = crc, b = 0, c = 0;
        for (size_t i = 0; i < PART_BYTES; i += 8) {
            uint64_t eight[3];
            memcpy(&eight[0], p + i, 8);
            memcpy(&eight[1], p + PART_BYTES + i, 8);
            memcpy(&eight[2], p + 2 * PART_BYTES + i, 8);
            a = _mm_crc32_u64(a, eight[0]);
            b = _mm_crc32_u64(b, eight[1]);
            c = _mm_crc32_u64(c, eight[2]);
        }
        crc = past((uint32_t)a, PAST_TWO) ^ past((uint32_t)b, PAST_ONE) ^ (uint32_t)c;
    }
    return crc_sse(crc, p, len);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len) {
    if (!__builtin_cpu_supports("sse4.2")) return crc32c_plain(crc, data, len);
    bool three = len >= 3 * PART_BYTES && __builtin_cpu_supports("pclmul");
    return ~(three ? crc_sse_long(~crc, data, len) : crc_sse(~crc, data, len));
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t len) {
    return crc32c_plain(crc, data, len);
}
#endif

uint32_t crc32c_plain(uint32_t crc, const void *data, size_t len) {
    return ~crc_table(~crc, data, len);
}

/* ---- UTF-8 ---- */

/* Length of the well-formed character at p (Unicode 15, table 3-7), 0 when it is not one. */
static size_t utf8_char(const uint8_t *p, size_t left) {
    uint8_t c = p[0];
    if (c < 0x80) return 1;
    if (c < 0xC2 || c > 0xF4) return 0;
    size_t n = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (left < n) return 0;
    /* The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
    uint8_t low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    uint8_t high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xBF) return 0;
    return n;
}

#define ASCII_NOT UINT64_C(0x8080808080808080)

/* Of fewer than eight bytes. */
static bool short_ascii(const uint8_t *p, size_t len) {
    uint32_t a = 0, b = 0;
    if (len >= 4) {
        memcpy(&a, p, 4);
        memcpy(&b, p + len - 4, 4);
        return ((a | b) & (uint32_t)ASCII_NOT) == 0;
    }
    for (size_t i = 0; i < len; i++) a |= p[i];
    return a < 0x80;
}

size_t utf8_check(const void *data, size_t len) {
    const uint8_t *p = data;
    size_t at = 0;
    while (at < len) {
        uint64_t eight, four[4];
        if (len - at >= 32 && (memcpy(four, p + at, 32), /* plain text */
                               ((four[0] | four[1] | four[2] | four[3]) & ASCII_NOT) == 0)) {
            at += 32;
            continue;
        }
        if (len - at >= 8 && (memcpy(&eight, p + at, 8), (eight & ASCII_NOT) == 0)) {
            at += 8;
            continue;
        }
        if (len - at < 8 && short_ascii(p + at, len - at)) return len;
        size_t n = utf8_char(p + at, len - at);
        if (n == 0) return at;
        at += n;
    }
    return len;
}

size_t utf8_cut(struct bytes text, size_t max) {
    if (text.len < max) max = text.len;
    const uint8_t *p = text.data;
    /* The cut is right when the character before it is whole: step back to its first byte. */
    for (size_t back = 1; back <= 4 && back <= max; back++) {
        uint8_t c = p[max - back];
        if ((c & 0xC0) == 0x80) continue;
        size_t need = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        return need <= back ? max : max - back;
    }
    return max;
}
