#include "workers/encode/charset.h"

#include <errno.h>
#include <iconv.h>

#define LOOK_BYTES 65536u /* of a text, to tell what it is */

static bool begins(struct bytes in, const char *mark, size_t len) {
    return in.len >= len && memcmp(in.data, mark, len) == 0;
}

/* UTF-16 of a machine's log: most characters are ASCII, each with a zero before or after it. */
static const char *wide(const uint8_t *p, size_t len) {
    size_t zeros[2] = {0, 0}, pairs = (len < LOOK_BYTES ? len : LOOK_BYTES) / 2;
    for (size_t i = 0; i < 2 * pairs; i++) zeros[i % 2] += p[i] == 0;
    if (pairs < 2 || len % 2) return NULL;
    if (zeros[1] * 4 > pairs * 3 && zeros[0] * 50 < pairs) return "UTF-16LE";
    if (zeros[0] * 4 > pairs * 3 && zeros[1] * 50 < pairs) return "UTF-16BE";
    return NULL;
}

/* Characters of GB2312, the common part of GB18030, are two bytes from 0xA1 on. Other bytes among
 * them, one in fifty, are its rare characters. */
static bool chinese(const uint8_t *p, size_t len) {
    size_t pairs = 0, odd = 0;
    for (size_t i = 0; i < len && i < LOOK_BYTES; i++) {
        if (p[i] < 0x80) continue;
        bool pair = p[i] >= 0xA1 && i + 1 < len && p[i + 1] >= 0xA1;
        pairs += pair;
        odd += !pair;
        i++;
    }
    return pairs > 0 && odd * 50 <= pairs;
}

/* All of it or nothing: what does not convert was something else. */
static int convert(const char *from, struct bytes in, struct arena *a, struct bytes *out) {
    size_t room = in.len + in.len / 2 + 4, left = in.len, free_bytes = room;
    char *text = arena_alloc(a, room), *to = text;
    if (!text) return -ENOMEM;
    iconv_t to_utf8 = iconv_open("UTF-8", from);
    if (to_utf8 == (iconv_t)-1) return 0;
    union {
        const void *read;
        char *arg;
    } at = {.read = in.data}; /* iconv does not write there */
    if (iconv(to_utf8, &at.arg, &left, &to, &free_bytes) != (size_t)-1 && left == 0)
        *out = bytes_of(text, (size_t)(to - text));
    iconv_close(to_utf8);
    return 0;
}

int charset_to_utf8(struct bytes in, struct arena *a, struct bytes *out) {
    const uint8_t *p = in.data;
    const char *from = NULL;
    size_t mark = 0;
    if (begins(in, "\xEF\xBB\xBF", 3))
        mark = 3;
    else if (begins(in, "\xFF\xFE", 2))
        mark = 2, from = "UTF-16LE";
    else if (begins(in, "\xFE\xFF", 2))
        mark = 2, from = "UTF-16BE";
    else if (in.len > 0 && (from = wide(p, in.len)) == NULL && utf8_check(p, in.len) < in.len &&
             chinese(p, in.len))
        from = "GB18030";
    *out = in.len > mark ? bytes_of(p + mark, in.len - mark) : bytes_of(p, 0);
    return from ? convert(from, *out, a, out) : 0;
}
