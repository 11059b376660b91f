#include "workers/extract/text.h"

#include <errno.h>
#include <iconv.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define CONTROLS_SHARE 100u /* more than one control character in so many is not a text */

static iconv_t gb18030 = (iconv_t)-1;

void text_init(void) {
    gb18030 = iconv_open("UTF-8", "GB18030");
}

/* ---- what is not a text ---- */

static const struct {
    const char *mark;
    size_t bytes;
    const char *is;
} marks[] = {{"PK\003\004", 4, "a ZIP container, as DOCX and XLSX are"},
             {"\320\317\021\340", 4, "an old Office document"},
             {"{\\rtf", 5, "an RTF document"},
             {"\211PNG", 4, "a PNG image"},
             {"\377\330\377", 3, "a JPEG image"},
             {"GIF8", 4, "a GIF image"},
             {"II*\0", 4, "a TIFF image"},
             {"MM\0*", 4, "a TIFF image"},
             {"\037\213", 2, "a gzip file"},
             {"\177ELF", 4, "a program"},
             {"\377\376\0\0", 4, "a text in UTF-32"},
             {"\0\0\376\377", 4, "a text in UTF-32"}};

static const char *foreign(struct bytes d) {
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (d.len >= marks[i].bytes && memcmp(d.data, marks[i].mark, marks[i].bytes) == 0)
            return marks[i].is;
    return NULL;
}

static bool is_control(uint32_t c) {
    return (c < 0x20 && !(c >= '\t' && c <= '\r') && c != 0x1a && c != 0x1b) || c == 0x7f;
}

/* ---- UTF-16 ---- */

static uint32_t unit_at(struct bytes d, size_t i, bool big) {
    const uint8_t *p = (const uint8_t *)d.data + i;
    return big ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}

/* Whether a code unit is of the kind that fills texts in European languages and in Chinese; what
 * lies beyond 16 bits is checked when it is decoded. */
static bool is_usual(uint32_t u) {
    return (u >= 0x20 && u < 0x250 && u != 0x7f) || (u >= '\t' && u <= '\r') ||
           (u >= 0x370 && u < 0x530) || (u >= 0x2000 && u < 0x2700) ||
           (u >= 0x3000 && u < 0x3100) || (u >= 0x4e00 && u < 0xa000) ||
           (u >= 0xd800 && u < 0xe000) || (u >= 0xff00 && u < 0xfff0);
}

static bool is_letter_pair(uint32_t u) {
    return u >> 8 >= 0x20 && u >> 8 < 0x7f && (u & 0xff) >= 0x20 && (u & 0xff) < 0x7f;
}

/* At least nineteen of twenty code units are usual, and at most half of them could be two letters
 * of eight bits: of Chinese about a fifth is, of an English text with a stray zero byte all. */
static bool looks_utf16(struct bytes d, bool big) {
    size_t usual = 0, pairs = 0, units = d.len / 2;
    for (size_t i = 0; i + 1 < d.len; i += 2) {
        uint32_t u = unit_at(d, i, big);
        usual += is_usual(u);
        pairs += is_letter_pair(u);
    }
    return units > 0 && d.len % 2 == 0 && usual * 20 >= units * 19 && pairs * 2 <= units;
}

static void put_utf8(struct buf *b, uint32_t c) {
    if (c < 0x80) {
        buf_u8(b, (uint8_t)c);
        return;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    buf_u8(b, (uint8_t)(lead[more] | c >> (6 * more)));
    while (more-- > 0) buf_u8(b, (uint8_t)(0x80 | (c >> (6 * more) & 0x3f)));
}

/* The offset of the first bad unit, or the length when all is well. */
static size_t from_utf16(struct bytes d, bool big, struct buf *out) {
    size_t i = 0;
    for (; i + 1 < d.len; i += 2) {
        uint32_t u = unit_at(d, i, big);
        if (u >= 0xdc00 && u < 0xe000) return i;
        if (u >= 0xd800 && u < 0xdc00) {
            uint32_t low = i + 3 < d.len ? unit_at(d, i + 2, big) : 0;
            if (low < 0xdc00 || low >= 0xe000) return i;
            u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
            i += 2;
        }
        put_utf8(out, u);
    }
    return i;
}

/* ---- GB18030 ---- */

static size_t from_gb18030(struct bytes d, struct buf *out) {
    char chunk[16384], *in = (char *)(uintptr_t)d.data;
    size_t left = d.len;
    iconv(gb18030, NULL, NULL, NULL, NULL);
    while (left > 0) {
        char *to = chunk;
        size_t room = sizeof chunk;
        size_t rc = iconv(gb18030, &in, &left, &to, &room);
        buf_append(out, chunk, sizeof chunk - room);
        if (rc == (size_t)-1 && errno != E2BIG) break;
    }
    return d.len - left;
}

/* Of Chinese, hardly a character's second byte is a letter of ASCII; of a European text in another
 * encoding, whose accented letters are taken for first bytes, nearly all are. */
static bool looks_foreign(struct bytes d) {
    const uint8_t *p = d.data;
    size_t pairs = 0, letters = 0;
    for (size_t i = 0; i + 1 < d.len; i++) {
        if (p[i] < 0x80) continue;
        uint8_t second = p[++i];
        if (second >= '0' && second <= '9') { /* a character of four bytes */
            i += 2;
            continue;
        }
        pairs++;
        letters += second < 0x80;
    }
    return letters * 2 > pairs;
}

/* ---- all ---- */

static void refuse(struct output *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct output *o, const char *format, ...) {
    char reason[256];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    output_bad(o, FRAME_BAD_DOCUMENT, reason);
}

/* The encoding's name, with the text in UTF-8 in *text (borrowed, or in made); NULL: refused. */
static const char *decode(struct output *o, struct bytes d, struct buf *made, struct bytes *text) {
    const uint8_t *p = d.data;
    const uint8_t *zero = memchr(p, 0, d.len);
    bool mark8 = d.len >= 3 && memcmp(p, "\357\273\277", 3) == 0;
    bool little = d.len >= 2 && p[0] == 0xff && p[1] == 0xfe;
    bool big = d.len >= 2 && p[0] == 0xfe && p[1] == 0xff;
    bool mark16 = little || big;
    if (!mark16 && !mark8 && zero) {
        little = looks_utf16(d, false);
        big = !little && looks_utf16(d, true);
    }
    if (little || big) {
        struct bytes units = mark16 ? bytes_of(p + 2, d.len - 2) : d;
        size_t bad = from_utf16(units, big, made);
        *text = buf_bytes(made);
        if (bad == units.len) return big ? "utf-16be" : "utf-16le";
        refuse(o, "not valid UTF-16: byte %zu is no part of a character", bad + (mark16 ? 2 : 0));
        return NULL;
    }
    if (mark8) d = bytes_of(p + 3, d.len - 3);
    size_t bad = utf8_check(d.data, d.len);
    if (zero) {
        refuse(o, "not a text: byte %zu is zero", (size_t)(zero - p));
        return NULL;
    }
    *text = d;
    if (bad == d.len) return "utf-8";
    if (mark8) {
        refuse(o, "not valid UTF-8, though marked as such: byte %zu", bad + 3);
        return NULL;
    }
    if (gb18030 == (iconv_t)-1) {
        refuse(o, "byte %zu is not UTF-8, and this system cannot convert GB18030", bad);
        return NULL;
    }
    size_t bad_gb = from_gb18030(d, made);
    *text = buf_bytes(made);
    if (bad_gb == d.len) return "gb18030";
    refuse(o, "in no known encoding: byte %zu is not UTF-8, byte %zu not GB18030", bad, bad_gb);
    return NULL;
}

static void count(struct bytes text, uint32_t *chars, uint32_t *controls) {
    const uint8_t *p = text.data;
    *chars = *controls = 0;
    for (size_t i = 0; i < text.len; i++) {
        *chars += (p[i] & 0xc0) != 0x80;
        *controls += is_control(p[i]);
    }
}

void text_read(struct output *o, struct bytes d) {
    struct buf made = {0};
    struct bytes text;
    uint32_t chars, controls;
    const char *is = foreign(d);
    if (is) {
        refuse(o, "%s: only PDF and plain text are read", is);
        return;
    }
    const char *encoding = decode(o, d, &made, &text);
    if (!encoding) return;
    count(text, &chars, &controls);
    if (text.len > 0 && memchr(text.data, 0, text.len))
        refuse(o, "not a text: it holds zero characters");
    else if (controls * CONTROLS_SHARE > chars)
        refuse(o, "not a text: %u of its %u characters are control characters", controls, chars);
    else {
        struct extract_page p = {.number = 1, .outcome = EXTRACT_OK};
        if (strcmp(encoding, "gb18030") == 0 && looks_foreign(d)) {
            p.outcome = EXTRACT_PARTIAL;
            p.reason =
                bytes_str("read as GB18030, but it looks like a European text in an encoding "
                          "that is not known here: save it as UTF-8");
        }
        output_hello(o, "txt", encoding, false, 1);
        output_page(o, &p, text, NULL, chars);
        output_end(o);
    }
    buf_fini(&made);
}
