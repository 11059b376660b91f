/* PDF text: letters with their boxes where the page shows them. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "tests/extract/help.h"

static struct arena a;

static void setup(void) {
    arena_init(&a, 512u << 20);
}

static void teardown(void) {
    arena_fini(&a);
}

TestSuite(pdf, .init = setup, .fini = teardown);

static struct extract_box box_around(const struct extracted *x, uint32_t begin, uint32_t end) {
    struct extract_box u = x->boxes[begin];
    for (uint32_t i = begin; i < end; i++) {
        u.x0 = fminf(u.x0, x->boxes[i].x0);
        u.y0 = fminf(u.y0, x->boxes[i].y0);
        u.x1 = fmaxf(u.x1, x->boxes[i].x1);
        u.y1 = fmaxf(u.y1, x->boxes[i].y1);
    }
    return u;
}

/* The characters of a page whose middle lies in the box, in the text's order, are exactly these. */
static bool box_holds_just(const struct extracted *x, const struct extract_page *p, uint32_t begin,
                           uint32_t end) {
    struct extract_box u = box_around(x, begin, end);
    uint32_t next = begin;
    for (uint32_t i = p->begin; i < p->end; i++) {
        const struct extract_box *b = &x->boxes[i];
        float mx = (b->x0 + b->x1) / 2, my = (b->y0 + b->y1) / 2;
        bool drawn = b->x1 > b->x0;
        if (!drawn || mx < u.x0 || mx > u.x1 || my < u.y0 || my > u.y1) continue;
        if (i != next++) return false;
    }
    return next == end;
}

Test(pdf, a_letter_has_the_box_that_the_page_gives_it) {
    struct pdf_page page = {.content = "BT /F1 20 Tf 100 700 Td (Hi) Tj ET"};
    struct extracted x = must_extract(&a, pdf_of_pages(&a, &page, 1));
    cr_assert(bytes_is(x.text, "Hi\n") && x.chars == 3);
    cr_assert_str_eq(x.format, "pdf");
    cr_assert_str_eq(x.encoding, "");
    cr_assert(x.pages[0].width_pt == 595 && x.pages[0].height_pt == 842);
    /* Helvetica's H is 0.722 wide; its box begins at the pen and holds the baseline. */
    cr_assert_float_eq(x.boxes[0].x0, 100, 0.1);
    cr_assert_float_eq(x.boxes[0].x1, 100 + 20 * 0.722, 0.1);
    cr_assert_float_eq(x.boxes[1].x0, x.boxes[0].x1, 0.1);
    cr_assert(x.boxes[0].y0 > 842 - 700 - 20 && x.boxes[0].y0 < 842 - 700 - 10);
    cr_assert(x.boxes[0].y1 >= 842 - 700 && x.boxes[0].y1 < 842 - 700 + 8);
}

Test(pdf, boxes_are_of_the_page_as_it_is_shown) {
    static const char content[] = "BT /F1 20 Tf 100 700 Td (Hi) Tj ET";
    struct pdf_page pages[] = {{.content = content, .keys = "/CropBox [50 300 450 800]"},
                               {.content = content, .keys = "/Rotate 90"},
                               {.content = content, .keys = "/Rotate 180"},
                               {.content = content, .keys = "/Rotate 270"},
                               {.content = content, .media = "[-100 -100 495 742]"}};
    struct extracted x = must_extract(&a, pdf_of_pages(&a, pages, 5));
    cr_assert_eq(x.pages_ok, 5);
    const struct extract_box *b[5];
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert(bytes_is(page_text(&x, i), "Hi\n"), "page %u", i + 1);
        b[i] = &x.boxes[x.pages[i].begin];
    }
    cr_assert(x.pages[0].width_pt == 400 && x.pages[0].height_pt == 500);
    cr_assert_float_eq(b[0]->x0, 50, 0.1);
    cr_assert(b[0]->y0 > 80 && b[0]->y1 < 108, "%g %g", (double)b[0]->y0, (double)b[0]->y1);
    /* A quarter turn clockwise: what was 700 above the bottom is 700 from the left. */
    cr_assert(x.pages[1].width_pt == 842 && x.pages[1].height_pt == 595);
    cr_assert(b[1]->x0 < 702 && b[1]->x1 > 700 && b[1]->x1 < 720);
    cr_assert_float_eq(b[1]->y0, 100, 0.1);
    cr_assert_float_eq(b[2]->x1, 595 - 100, 0.1);
    cr_assert(b[2]->y0 < 702 && b[2]->y1 > 700);
    cr_assert(b[3]->x0 < 142 && b[3]->x1 > 140);
    cr_assert_float_eq(b[3]->y1, 595 - 100, 0.1);
    cr_assert_float_eq(b[4]->x0, 200, 0.1);
}

Test(pdf, a_span_of_text_is_what_its_box_holds_on_random_pages) {
    uint64_t seed = test_seed();
    static const int turns[] = {0, 90, 180, 270};
    for (int round = 0; round < 12; round++) {
        struct buf c = {0};
        char keys[96];
        buf_printf(&c, "BT /F1 1 Tf ");
        for (int row = 0; row < 12; row++)
            for (int column = 0; column < 4; column++) {
                char word[9];
                uint32_t len = 1 + (uint32_t)(rng_next(&seed) % 8);
                for (uint32_t i = 0; i < len; i++)
                    word[i] = (char)('a' + (char)(rng_next(&seed) % 26));
                word[len] = '\0';
                double size = 6 + (double)(rng_next(&seed) % 12);
                buf_printf(&c, "%g 0 0 %g %d %d Tm (%s) Tj ", size, size, 30 + column * 140,
                           60 + row * 60, word);
            }
        buf_printf(&c, "ET");
        buf_u8(&c, 0);
        snprintf(keys, sizeof keys, "/Rotate %d /CropBox [%u %u 580 820]", turns[round % 4],
                 (unsigned)(rng_next(&seed) % 20), (unsigned)(rng_next(&seed) % 40));
        struct pdf_page page = {.content = (char *)c.data, .keys = keys};
        struct extracted x = must_extract(&a, pdf_of_pages(&a, &page, 1));
        cr_assert(x.pages_ok == 1 && x.chars > 100);
        uint32_t words = 0, begin = 0;
        for (uint32_t i = 0; i < x.chars; i++) {
            uint8_t u = ((const uint8_t *)x.text.data)[i]; /* all ASCII */
            if (u != ' ' && u != '\n') continue;
            if (i > begin) {
                words++;
                cr_assert(box_holds_just(&x, &x.pages[0], begin, i), "round %d, at %u", round, i);
            }
            begin = i + 1;
        }
        cr_assert_eq(words, 48, "%u: %.*s", words, (int)x.text.len, (const char *)x.text.data);
        buf_fini(&c);
    }
}

Test(pdf, letters_of_a_chinese_font_without_a_map_come_from_poppler_data) {
    struct pdf p;
    pdf_begin(&p, 7);
    pdf_object(&p, 1, "<< /Type /Catalog /Pages 2 0 R >>");
    pdf_object(&p, 2, "<< /Type /Pages /Count 1 /Kids [3 0 R] >>");
    pdf_object(&p, 3,
               "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
               "/Resources << /Font << /F1 5 0 R >> >> >>");
    pdf_stream(&p, 4, "", bytes_str("BT /F1 20 Tf 100 700 Td <BACFCDAC> Tj ET"));
    pdf_object(&p, 5,
               "<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /GBK-EUC-H "
               "/DescendantFonts [6 0 R] >>");
    pdf_object(&p, 6,
               "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo "
               "<< /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> /FontDescriptor 7 0 R >>");
    pdf_object(
        &p, 7,
        "<< /Type /FontDescriptor /FontName /STSong-Light /Flags 4 /ItalicAngle 0 "
        "/FontBBox [-25 -254 1000 880] /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >>");
    struct extracted x = must_extract(&a, pdf_end(&p, &a, ""));
    cr_assert(bytes_is(x.text, "合同\n"), "%.*s", (int)x.text.len, (const char *)x.text.data);
    cr_assert_float_eq(x.boxes[0].x0, 100, 0.1);
    cr_assert_float_eq(x.boxes[1].x0, 120, 0.1);
    page_is(&x, 0, EXTRACT_OK, NULL);
}

Test(pdf, a_page_whose_letters_are_unknown_is_partial) {
    struct pdf p;
    pdf_begin(&p, 6);
    pdf_object(&p, 1, "<< /Type /Catalog /Pages 2 0 R >>");
    pdf_object(&p, 2, "<< /Type /Pages /Count 1 /Kids [3 0 R] >>");
    pdf_object(&p, 3,
               "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
               "/Resources << /Font << /F1 5 0 R >> >> >>");
    pdf_stream(&p, 4, "", bytes_str("BT /F1 20 Tf 100 700 Td (abcdef) Tj ET"));
    pdf_object(&p, 5, "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>");
    pdf_stream(&p, 6, "",
               bytes_str("1 begincodespacerange <00> <FF> endcodespacerange\n"
                         "1 beginbfrange <61> <66> <E001> endbfrange"));
    struct extracted x = must_extract(&a, pdf_end(&p, &a, ""));
    page_is(&x, 0, EXTRACT_PARTIAL, "6 of 6 characters are unknown");
}

Test(pdf, a_page_without_text_is_a_scan_or_blank) {
    struct pdf_page pages[] = {
        {.content = "q 500 0 0 700 50 50 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x7f EI Q"},
        {.content = "0 0 m 100 100 l S"},
        {.content = "BT /F1 12 Tf 72 700 Td (Text) Tj ET "
                    "q 500 0 0 600 50 50 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x7f EI Q"}};
    struct extracted x = must_extract(&a, pdf_of_pages(&a, pages, 3));
    page_is(&x, 0, EXTRACT_FAILED, "no text: a scan (1 picture)");
    page_is(&x, 1, EXTRACT_OK, "blank");
    page_is(&x, 2, EXTRACT_OK, NULL);
    cr_assert(bytes_is(x.text, "Text\n"));
}

Test(pdf, contracts_of_the_outside_data_are_read_whole_and_words_are_what_their_boxes_hold,
     .timeout = 300) {
    const char *dir = data_dir("contracts/pdf");
    static const char *const names[] = {"01_service_gpaq",    "02_service_reynolds",
                                        "03_service_verizon", "04_service_integrity",
                                        "05_license_gopage",  "06_license_morganstanley"};
    static const uint32_t pages[] = {25, 52, 106, 8, 20, 7};
    for (int i = 0; i < 6; i++) {
        char path[600], err[256];
        void *data;
        size_t bytes;
        snprintf(path, sizeof path, "%s/%s.pdf", dir, names[i]);
        cr_assert_eq(file_read(path, 64u << 20, &data, &bytes, err, sizeof err), 0, "%s", err);
        struct extracted x = must_extract(&a, bytes_of(data, bytes));
        cr_assert_eq(x.pages_in, pages[i], "%s: %u pages", names[i], x.pages_in);
        uint32_t *at =
            arena_calloc(&a, x.chars + 1, sizeof *at); /* where a character's bytes begin */
        cr_assert(at);
        for (uint32_t b = 0, c = 0; b < x.text.len; b++)
            if ((((const uint8_t *)x.text.data)[b] & 0xc0) != 0x80) at[c++] = b;
        uint32_t words = 0, held = 0;
        for (uint32_t k = 0; k < x.pages_in; k++) {
            const struct extract_page *p = &x.pages[k];
            for (uint32_t c = p->begin, begin = c; c < p->end; c++) {
                uint8_t u = ((const uint8_t *)x.text.data)[at[c]];
                if (u != ' ' && u != '\n') continue;
                if (c > begin) {
                    words++;
                    held += box_holds_just(&x, p, begin, c);
                }
                begin = c + 1;
            }
        }
        cr_assert(words > 2000 && held == words, "%s: %u of %u", names[i], held, words);
        free(data);
        arena_reset(&a);
    }
}
