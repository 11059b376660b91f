#include "tests/extract/pdf.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pdf_begin(struct pdf *p, uint32_t objects) {
    *p = (struct pdf){.objects = objects, .offset = calloc(objects + 1, sizeof *p->offset)};
    cr_assert(p->offset);
    buf_printf(&p->out, "%%PDF-1.4\n");
}

static void begin_object(struct pdf *p, uint32_t number) {
    cr_assert(number >= 1 && number <= p->objects);
    p->offset[number] = (uint32_t)p->out.len;
    buf_printf(&p->out, "%u 0 obj\n", number);
}

void pdf_object(struct pdf *p, uint32_t number, const char *format, ...) {
    va_list args;
    char *text;
    begin_object(p, number);
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    cr_assert(n >= 0);
    buf_append(&p->out, text, (size_t)n);
    free(text);
    buf_printf(&p->out, "\nendobj\n");
}

void pdf_stream(struct pdf *p, uint32_t number, const char *dict, struct bytes data) {
    begin_object(p, number);
    buf_printf(&p->out, "<< /Length %zu %s >>\nstream\n", data.len, dict);
    buf_append(&p->out, data.data, data.len);
    buf_printf(&p->out, "\nendstream\nendobj\n");
}

struct bytes pdf_end(struct pdf *p, struct arena *a, const char *extra) {
    size_t at = p->out.len;
    buf_printf(&p->out, "xref\n0 %u\n0000000000 65535 f \n", p->objects + 1);
    for (uint32_t i = 1; i <= p->objects; i++)
        buf_printf(&p->out, "%010u %05u %c \n", p->offset[i], p->offset[i] ? 0u : 65535u,
                   p->offset[i] ? 'n' : 'f');
    buf_printf(&p->out, "trailer\n<< /Size %u /Root 1 0 R %s >>\nstartxref\n%zu\n%%%%EOF\n",
               p->objects + 1, extra, at);
    cr_assert_eq(p->out.error, 0);
    struct bytes b = bytes_of(arena_copy(a, p->out.data, p->out.len), p->out.len);
    cr_assert(b.data);
    buf_fini(&p->out);
    free(p->offset);
    return b;
}

/* ---- documents ---- */

enum { CATALOG = 1, PAGES, FONT, FIRST };

static void put_head(struct pdf *p, uint32_t n, uint32_t step) {
    struct buf kids = {0};
    for (uint32_t i = 0; i < n; i++) buf_printf(&kids, "%u 0 R ", FIRST + step * i);
    buf_u8(&kids, 0);
    pdf_object(p, CATALOG, "<< /Type /Catalog /Pages %u 0 R >>", PAGES);
    pdf_object(p, PAGES, "<< /Type /Pages /Count %u /Kids [ %s] >>", n, (char *)kids.data);
    pdf_object(p, FONT, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>");
    buf_fini(&kids);
}

static void put_page(struct pdf *p, uint32_t number, uint32_t content, const char *media,
                     const char *keys) {
    pdf_object(p, number,
               "<< /Type /Page /Parent %u 0 R /MediaBox %s /Contents %u 0 R "
               "/Resources << /Font << /F1 %u 0 R >> >> %s >>",
               PAGES, media ? media : "[0 0 595 842]", content, FONT, keys ? keys : "");
}

struct bytes pdf_of_pages(struct arena *a, const struct pdf_page *pages, uint32_t n) {
    struct pdf p;
    pdf_begin(&p, FIRST + 2 * n);
    put_head(&p, n, 2);
    for (uint32_t i = 0; i < n; i++) {
        put_page(&p, FIRST + 2 * i, FIRST + 2 * i + 1, pages[i].media, pages[i].keys);
        pdf_stream(&p, FIRST + 2 * i + 1, "", bytes_str(pages[i].content));
    }
    return pdf_end(&p, a, "");
}

struct bytes pdf_good(struct arena *a, uint32_t n) {
    struct pdf_page *pages = arena_calloc(a, n, sizeof *pages);
    cr_assert(pages);
    for (uint32_t i = 0; i < n; i++)
        pages[i].content =
            arena_printf(a, "BT /F1 12 Tf 72 700 Td (Page %u of the good document) Tj ET", i + 1);
    return pdf_of_pages(a, pages, n);
}

struct bytes pdf_of_many(struct arena *a, uint32_t n) {
    struct pdf p;
    pdf_begin(&p, FIRST + n);
    put_head(&p, n, 1);
    for (uint32_t i = 0; i < n; i++) put_page(&p, FIRST + i, FIRST + n, NULL, NULL);
    pdf_stream(&p, FIRST + n, "", bytes_str("BT /F1 12 Tf 72 700 Td (One of many) Tj ET"));
    return pdf_end(&p, a, "");
}

struct bytes pdf_with_middle(struct arena *a, const char *dict, struct bytes data) {
    struct pdf p;
    pdf_begin(&p, FIRST + 6);
    put_head(&p, 3, 2);
    for (uint32_t i = 0; i < 3; i++) {
        put_page(&p, FIRST + 2 * i, FIRST + 2 * i + 1, NULL, NULL);
        if (i == 1)
            pdf_stream(&p, FIRST + 2 * i + 1, dict, data);
        else
            pdf_stream(&p, FIRST + 2 * i + 1, "",
                       bytes_str("BT /F1 12 Tf 72 700 Td (A good page) Tj ET"));
    }
    return pdf_end(&p, a, "");
}

/* ---- what inflates ---- */

/* Deflate's bits (RFC 1951): values from the lowest bit, Huffman codes from the highest. */
struct bits {
    struct buf out;
    uint32_t acc, n;
};

static void put_bits(struct bits *b, uint32_t value, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        b->acc |= (value >> i & 1) << b->n;
        if (++b->n < 8) continue;
        buf_u8(&b->out, (uint8_t)b->acc);
        b->acc = b->n = 0;
    }
}

static void put_code(struct bits *b, uint32_t code, uint32_t count) {
    for (uint32_t i = count; i-- > 0;) put_bits(b, code >> i & 1, 1);
}

struct bytes flate_of(struct arena *a, struct bytes data, uint32_t distance, uint32_t repeats) {
    struct bits b = {0};
    cr_assert(distance == 4 || distance == 13);
    buf_u8(&b.out, 0x78);
    buf_u8(&b.out, 0x01);
    put_bits(&b, 1, 1); /* the last block */
    put_bits(&b, 1, 2); /* fixed codes */
    for (size_t i = 0; i < data.len; i++) {
        uint8_t c = ((const uint8_t *)data.data)[i];
        if (c < 144)
            put_code(&b, 0x30u + c, 8);
        else
            put_code(&b, 0x190u + c - 144, 9);
    }
    for (uint32_t i = 0; i < repeats; i++) {
        put_code(&b, 0xc5, 8); /* length 258 */
        put_code(&b, distance == 4 ? 3 : 7, 5);
        if (distance == 13) put_bits(&b, 0, 2);
    }
    put_code(&b, 0, 7); /* the end of the block */
    put_bits(&b, 0, 7);
    for (int i = 0; i < 4; i++) buf_u8(&b.out, 0); /* a checksum, which readers of PDF pass over */
    struct bytes out = bytes_of(arena_copy(a, b.out.data, b.out.len), b.out.len);
    cr_assert(out.data);
    buf_fini(&b.out);
    return out;
}

struct bytes flate_bomb(struct arena *a, uint32_t repeats) {
    /* Eight matches of 13 bits are 13 bytes: the deflated data repeats itself every 13 bytes. */
    struct bytes inner = flate_of(a, bytes_str("q Q "), 4, 64);
    const uint8_t *p = inner.data;
    struct bytes head = bytes_of(p, 6 + 4 * 13 + 13);
    return flate_of(a, head, 13, repeats / 158);
}
