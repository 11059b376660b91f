#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/text/help.h"
#include "workers/encode/layout.h"
#include "workers/encode/unicode.h"
#include "workers/post/flat.h"
#include "workers/post/prov.h"

/* ---- pages made by hand: a line is its place and its text ---- */

struct placed {
    uint32_t page;
    float x, y, size; /* of the line's top left corner; letters are as high as `size` */
    const char *text;
};
struct made {
    struct arena arena;
    struct buf text;
    struct extract_box *boxes;
    struct extract_page *pages;
    struct extracted x;
};

/* Lines in order, as extraction gives them: a line feed behind each, letters half as wide as
 * high. */
static void made_begin(struct made *m, const struct placed *lines, size_t n, uint32_t pages) {
    *m = (struct made){0};
    arena_init(&m->arena, 1u << 26);
    m->pages = arena_calloc(&m->arena, pages, sizeof *m->pages);
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += strlen(lines[i].text) + 1;
    m->boxes = arena_calloc(&m->arena, bytes, sizeof *m->boxes);
    uint32_t at = 0;
    size_t i = 0;
    for (uint32_t p = 0; p < pages; p++) {
        m->pages[p] = (struct extract_page){.number = p + 1,
                                            .width_pt = 595,
                                            .height_pt = 842,
                                            .outcome = EXTRACT_FAILED,
                                            .begin = at,
                                            .reason = bytes_str("no text")};
        for (; i < n && lines[i].page == p + 1; i++) {
            const struct placed *l = &lines[i];
            const char *s = l->text, *end = s + strlen(s);
            for (float x = l->x; s < end; x += l->size / 2, at++)
                if (unicode_next(&s) != ' ')
                    m->boxes[at] = (struct extract_box){x, l->y, x + l->size / 2, l->y + l->size};
            buf_printf(&m->text, "%s\n", l->text);
            at++;
            m->pages[p].outcome = EXTRACT_OK;
            m->pages[p].reason = (struct bytes){NULL, 0};
        }
        m->pages[p].end = at;
        m->x.pages_ok += m->pages[p].outcome == EXTRACT_OK;
        m->x.pages_failed += m->pages[p].outcome == EXTRACT_FAILED;
    }
    m->x.text = buf_bytes(&m->text);
    m->x.chars = at;
    m->x.boxes = m->boxes;
    m->x.pages = m->pages;
    m->x.pages_in = pages;
    m->x.format = "pdf";
    m->x.encoding = "";
}

static void made_end(struct made *m) {
    buf_fini(&m->text);
    arena_fini(&m->arena);
}

#define ARRANGED(m, d, lines, pages)                                                               \
    made_begin(m, lines, sizeof(lines) / sizeof *(lines), pages);                                  \
    cr_assert_eq(layout_document(d, &(m)->x, &(m)->arena), 0)

static void text_is(const struct document *d, const char *expected) {
    cr_assert(bytes_is(d->text, expected), "'%.*s'", (int)d->text.len, (const char *)d->text.data);
    cr_assert_eq(d->chars, unicode_count(d->text));
}

static struct prov_it spanning(const struct document *d, uint32_t begin, uint32_t end) {
    const char *at = d->text.data;
    for (uint32_t i = 0; i < begin; i++) unicode_next(&at);
    return prov_begin(d, (uint32_t)(at - (const char *)d->text.data), begin, end);
}

/* ---- lines to paragraphs ---- */

Test(layout, a_sentence_goes_on_over_running_heads_and_page_numbers) {
    static const struct placed lines[] = {
        {1, 70, 40, 9, "Supply Agreement"},      {1, 70, 100, 10, "The Supplier delivers the"},
        {1, 70, 112, 10, "goods to the buyer"},  {1, 290, 800, 9, "Page 1 of 3"},
        {2, 70, 40, 9, "Supply Agreement"},      {2, 70, 100, 10, "within ten days after"},
        {2, 290, 800, 9, "Page 2 of 3"},         {3, 70, 40, 9, "SUPPLY AGREEMENT"},
        {3, 70, 100, 10, "the order comes in."}, {3, 290, 800, 9, "Page 3 of 3"}};
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 3);
    text_is(&d, "The Supplier delivers the\ngoods to the buyer\fwithin ten days after\f"
                "the order comes in.");
    cr_assert(bytes_is(d.pages[1].running, "Supply Agreement\nPage 2 of 3"));
    cr_assert(d.pages[1].begin == 45 && d.pages[1].end == 66);
    cr_assert_eq(document_page_of(&d, 44), NULL, "the form feed is on no page");
    cr_assert_eq(document_page_of(&d, 45), &d.pages[1]);
    made_end(&m);
}

Test(layout, what_stands_at_an_edge_once_or_without_counting_along_stays) {
    static const struct placed lines[] = {
        {1, 70, 80, 10, "Section 4"},         {1, 70, 300, 10, "is about delivery."},
        {1, 70, 800, 10, "Sum 12"},           {2, 70, 80, 10, "Section 9"},
        {2, 70, 300, 10, "is about money."},  {2, 290, 400, 9, "- ii -"},
        {2, 290, 800, 9, "Source: a filing"}, {3, 290, 800, 9, "Source: a filing"}};
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 3);
    text_is(&d, "Section 4\nis about delivery.\nSum 12\fSection 9\nis about money.");
    cr_assert(bytes_is(d.pages[1].running, "- ii -\nSource: a filing"),
              "a page number alone needs no company");
    made_end(&m);
}

Test(layout, paragraphs_and_headings_are_set_apart_by_blank_lines) {
    static const struct placed lines[] = {
        {1, 70, 100, 14, "Delivery"},
        {1, 70, 124, 10, "The goods are brought to the place of"},
        {1, 70, 136, 10, "the Buyer within thirty days, or later if"},
        {1, 70, 148, 10, "both agree on it."},
        {1, 70, 168, 10, "A second paragraph begins here, which also"},
        {1, 70, 180, 10, "has two lines."},
        {1, 320, 100, 10, "A second column goes on."}};
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 1);
    text_is(&d,
            "Delivery\n\nThe goods are brought to the place of\nthe Buyer within thirty days, or "
            "later if\nboth agree on it.\n\nA second paragraph begins here, which also\nhas two "
            "lines.\nA second column goes on.");
    made_end(&m);
}

Test(layout, a_title_that_later_pages_repeat_at_their_edge_stays) {
    static const struct placed lines[] = {
        {1, 200, 80, 18, "Supply Agreement"}, {1, 70, 300, 10, "is made today."},
        {2, 70, 40, 9, "Supply Agreement"},   {2, 70, 300, 10, "It ends tomorrow."},
        {3, 70, 40, 9, "Supply Agreement"},   {3, 70, 300, 10, "Signed"}};
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 3);
    text_is(&d, "Supply Agreement\nis made today.\fIt ends tomorrow.\fSigned");
    made_end(&m);
}

Test(layout, cells_of_a_table_that_stand_apart_are_parted) {
    static const struct placed lines[] = {{1, 70, 100, 10, "By: A"}, {1, 70, 130, 10, "Name: B"}};
    struct made m;
    struct document d;
    struct prov p;
    made_begin(&m, lines, 2, 1);
    for (int i = 4; i < 5; i++) m.boxes[i].x0 += 200, m.boxes[i].x1 += 200; /* the A */
    memcpy(m.text.data, "By:xA", 5); /* no blank where the gap is */
    m.boxes[3] = (struct extract_box){85, 100, 90, 110};
    cr_assert_eq(layout_document(&d, &m.x, &m.arena), 0);
    text_is(&d, "By:x\tA\nName: B");
    struct prov_it it = spanning(&d, 0, 6);
    cr_assert(prov_next(&it, &p) && p.begin == 0 && p.end == 6, "one line, one box");
    made_end(&m);
}

Test(layout, pages_without_text_are_kept_with_their_reasons) {
    static const struct placed lines[] = {{2, 70, 100, 10, "Only here."}};
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 3);
    text_is(&d, "Only here.");
    cr_assert(d.n_pages == 3 && d.pages_ok == 1 && d.pages_failed == 2);
    cr_assert(bytes_is(d.pages[2].reason, "no text"));
    cr_assert(d.pages[0].begin == d.pages[0].end && d.pages[2].begin == d.pages[2].end);
    made_end(&m);
}

static uint32_t count_drawn(struct bytes text) {
    const char *at = text.data, *end = at + text.len;
    uint32_t n = 0;
    while (at < end) n += !unicode_is_space(unicode_next(&at));
    return n;
}

Test(layout, whatever_the_boxes_say_no_character_is_lost) {
    static const char *const pieces[] = {"a", "7", " ", "第", "-", "\n", "Page ", "iv", ".", "\t"};
    uint64_t state = test_seed();
    for (int round = 0; round < 300; round++) {
        char text[3][200];
        struct placed lines[3];
        for (uint32_t p = 0; p < 3; p++) {
            text[p][0] = '\0';
            for (uint64_t k = rng_next(&state) % 30; k > 0; k--)
                strcat(text[p], pieces[rng_next(&state) % (sizeof pieces / sizeof *pieces)]);
            lines[p] = (struct placed){p + 1, 70, 100, 10, text[p]};
        }
        struct made m;
        struct document d, back;
        struct buf packed = {0};
        struct pack_doc *doc;
        made_begin(&m, lines, 3, 3);
        for (uint32_t i = 0; i < m.x.chars; i++) {
            float x = (float)(rng_next(&state) % 590), y = (float)(rng_next(&state) % 830);
            uint64_t kind = rng_next(&state) % 8;
            if (kind == 0) m.boxes[i] = (struct extract_box){x, y, x + 5, y + 12};
            if (kind == 1) m.boxes[i] = (struct extract_box){0, 0, 0, 0};
            if (kind == 2) m.boxes[i] = (struct extract_box){0, 0, 595, 842};
            if (kind == 3) m.boxes[i] = (struct extract_box){x, y, x, y};
        }
        cr_assert_eq(layout_document(&d, &m.x, &m.arena), 0);
        uint32_t kept = count_drawn(d.text);
        for (uint32_t p = 0; p < 3; p++) kept += count_drawn(d.pages[p].running);
        cr_assert_eq(kept, count_drawn(m.x.text), "round %d", round);
        cr_assert_eq(d.chars, unicode_count(d.text));
        struct packer p = packer_of(&packed);
        char err[256] = "";
        document_pack(&p, &d);
        cr_assert_eq(pack_parse(&doc, buf_bytes(&packed), err, sizeof err), 0, "%s", err);
        cr_assert_eq(document_read(&back, pack_root(doc), &m.arena, err, sizeof err), 0, "%s", err);
        pack_free(doc);
        buf_fini(&packed);
        made_end(&m);
    }
}

/* ---- boxes of spans ---- */

Test(prov, a_span_has_a_box_for_each_line_and_page) {
    static const struct placed lines[] = {
        {1, 70, 100, 10, "ab cd"}, {1, 70, 112, 10, "ef"}, {2, 50, 90, 20, "gh"}};
    struct made m;
    struct document d;
    struct prov p;
    ARRANGED(&m, &d, lines, 2);
    text_is(&d, "ab cd\nef\fgh");
    struct prov_it it = spanning(&d, 2, 11);
    cr_assert(prov_next(&it, &p));
    cr_assert(p.page->number == 1 && p.begin == 3 && p.end == 5, "white space belongs to no box");
    cr_assert_float_eq(p.box.x0, 85, 0.02);
    cr_assert_float_eq(p.box.x1, 95, 0.02);
    cr_assert_float_eq(p.box.y0, 100, 0.02);
    cr_assert_float_eq(p.box.y1, 110, 0.02);
    cr_assert(prov_next(&it, &p) && p.page->number == 1 && p.begin == 6 && p.end == 8);
    cr_assert(prov_next(&it, &p) && p.page->number == 2 && p.begin == 9 && p.end == 11);
    cr_assert_float_eq(p.box.y1, 110, 0.02);
    cr_assert(!prov_next(&it, &p) && !prov_next(&it, &p));
    it = spanning(&d, 2, 3);
    cr_assert(!prov_next(&it, &p), "a blank alone has no box");
    made_end(&m);
}

/* For random lines and spans: the characters whose centers lie in the boxes are those of the
 * span. */
Test(prov, the_boxes_hold_exactly_the_characters_of_the_span) {
    uint64_t state = test_seed();
    char words[40][48];
    struct placed lines[40];
    for (uint32_t i = 0; i < 40; i++) {
        for (uint32_t k = 0; k < 47; k++) words[i][k] = "abc 12.,"[rng_next(&state) % 8];
        words[i][0] = 'x';
        words[i][20 + rng_next(&state) % 28] = '\0';
        words[i][47] = '\0';
        lines[i] = (struct placed){1 + i / 20, 40, 120 + 13 * (float)(i % 20), 12, words[i]};
    }
    struct made m;
    struct document d;
    ARRANGED(&m, &d, lines, 2);
    for (int round = 0; round < 200; round++) {
        uint32_t begin = (uint32_t)(rng_next(&state) % d.chars);
        uint32_t end = begin + (uint32_t)(rng_next(&state) % (d.chars - begin) + 1);
        struct prov_it it = spanning(&d, begin, end);
        struct prov p[64];
        uint32_t n = 0;
        while (prov_next(&it, &p[n])) n++;
        for (uint32_t i = 0; i < d.chars; i++) {
            struct extract_box b;
            const struct document_page *page = document_page_of(&d, i);
            bool inside = false;
            if (!page || !document_box(&d, page, i, &b)) continue;
            for (uint32_t k = 0; k < n; k++) {
                float x = (b.x0 + b.x1) / 2, y = (b.y0 + b.y1) / 2;
                inside |= p[k].page == page && x > p[k].box.x0 && x < p[k].box.x1 &&
                          y > p[k].box.y0 && y < p[k].box.y1;
            }
            cr_assert_eq(inside, i >= begin && i < end, "character %u of [%u, %u)", i, begin, end);
        }
    }
    made_end(&m);
}

/* ---- between processes ---- */

static void read_back(const struct document *d, struct document *out, struct buf *packed,
                      struct pack_doc **doc, struct arena *a) {
    char err[256] = "";
    struct packer p = packer_of(packed);
    document_pack(&p, d);
    cr_assert_eq(pack_parse(doc, buf_bytes(packed), err, sizeof err), 0, "%s", err);
    cr_assert_eq(document_read(out, pack_root(*doc), a, err, sizeof err), 0, "%s", err);
}

Test(document, it_is_read_back_as_it_was_packed) {
    static const struct placed lines[] = {{1, 70, 100, 10, "第一条 ab"}, {1, 70, 800, 10, "1"}};
    struct made m;
    struct document d, back;
    struct buf packed = {0};
    struct pack_doc *doc;
    ARRANGED(&m, &d, lines, 2);
    read_back(&d, &back, &packed, &doc, &m.arena);
    cr_assert(bytes_eq(back.text, d.text) && back.chars == d.chars && back.n_pages == 2);
    cr_assert(back.pages_ok == 1 && back.pages_failed == 1 && back.pages_in == 2);
    cr_assert_eq(memcmp(back.boxes, d.boxes, d.chars * 8u), 0);
    cr_assert(bytes_is(back.pages[0].running, "1") && bytes_is(back.pages[1].reason, "no text"));
    cr_assert_float_eq(back.pages[0].height_pt, 842, 0);
    pack_free(doc);
    buf_fini(&packed);
    made_end(&m);
}

Test(document, a_text_has_no_pages_but_counts_them) {
    struct document d, back;
    struct buf packed = {0};
    struct pack_doc *doc;
    struct arena a;
    arena_init(&a, 1u << 20);
    document_of_text(&d, bytes_str("One page.\fAnother."));
    read_back(&d, &back, &packed, &doc, &a);
    cr_assert(back.n_pages == 0 && back.pages_in == 2 && back.pages_ok == 2 && !back.boxes);
    pack_free(doc);
    buf_fini(&packed);
    arena_fini(&a);
}

Test(document, one_whose_numbers_do_not_fit_is_refused) {
    static const struct placed lines[] = {{1, 70, 100, 10, "abc"}};
    struct made m;
    struct document d;
    char err[256];
    ARRANGED(&m, &d, lines, 1);
    struct document_page page = d.pages[0];
    for (int fault = 0; fault < 6; fault++) {
        struct document bad = d, back;
        struct document_page p = page;
        bad.pages = &p;
        if (fault == 0) p.end = 4;
        if (fault == 1) p.begin = 2, p.end = 1;
        if (fault == 2) bad.pages_in = 2;
        if (fault == 3) bad.chars = 2;
        if (fault == 4) p.width_pt = NAN;
        if (fault == 5) p.outcome = (enum extract_outcome)3;
        struct buf packed = {0};
        struct packer pack = packer_of(&packed);
        struct pack_doc *doc;
        document_pack(&pack, &bad);
        cr_assert_eq(pack_parse(&doc, buf_bytes(&packed), err, sizeof err), 0);
        cr_assert_eq(document_read(&back, pack_root(doc), &m.arena, err, sizeof err), ERR_CORRUPT,
                     "fault %d", fault);
        pack_free(doc);
        buf_fini(&packed);
    }
    made_end(&m);
}

/* ---- sentences in one piece ---- */

static void flat_is(const char *text, const char *expected) {
    struct arena a;
    struct clauses cs;
    struct flat f;
    arena_init(&a, 1u << 20);
    cr_assert_eq(clauses_split(bytes_str(text), &a, &cs), 0);
    cr_assert_eq(flat_make(&f, bytes_str(text), &cs, &a), 0);
    cr_assert(bytes_is(f.text, expected), "'%.*s'", (int)f.text.len, (const char *)f.text.data);
    arena_fini(&a);
}

Test(flat, full_lines_of_a_clause_are_joined_and_others_are_not) {
    flat_is(
        "The buyer pays the price within\nthirty days after the receipt.\n\nNext clause, which\n"
        "has short lines",
        "The buyer pays the price within thirty days after the receipt.\n\nNext clause, which\n"
        "has short lines");
    flat_is("甲方每年向乙方采购备件的金额不低于人\n民币二十万元。",
            "甲方每年向乙方采购备件的金额不低于人民币二十万元。");
}

Test(flat, a_divided_word_is_whole_and_a_number_keeps_its_hyphen) {
    flat_is(
        "It ends on the 31st day of Decem-\nber 2027, that is after twenty-\nfour months and five",
        "It ends on the 31st day of December 2027, that is after twenty-four months and five");
}

Test(flat, what_is_found_over_line_ends_is_put_back_to_its_place) {
    static const char text[] =
        "\xE2\x80\x9CThe term ends\xE2\x80\x9D on the 31st of Decem-\nber 2027; the fee of two "
        "hundred\nfifty thousand dollars is due\fwithin ten days. "
        "其金额在任何年度均不低于人\n民币二十万元。";
    static const char *const values[] = {"31st of Decem-\nber 2027",
                                         "two hundred\nfifty thousand dollars", "ten days",
                                         "人\n民币二十万元"};
    struct arena a;
    struct clauses cs;
    struct flat f;
    struct grammar *g;
    struct entities e;
    char err[256] = "";
    arena_init(&a, 1u << 24);
    cr_assert_eq(grammar_open(&g, err, sizeof err), 0, "%s", err);
    cr_assert_eq(clauses_split(bytes_str(text), &a, &cs), 0);
    cr_assert_eq(flat_make(&f, bytes_str(text), &cs, &a), 0);
    cr_assert_eq(entities_find(g, f.text, GRAMMAR_EN | GRAMMAR_ZH, LANGUAGE_EN, NULL, &a, &e, err,
                               sizeof err),
                 0, "%s", err);
    flat_restore(&f, bytes_str(text), &e);
    cr_assert_eq(e.n, 4);
    for (uint32_t i = 0; i < e.n; i++) {
        const struct entity *x = &e.at[i];
        struct bytes value = bytes_of(text + x->begin, x->end - x->begin);
        cr_assert(bytes_is(value, values[i]), "'%.*s'", (int)value.len, (const char *)value.data);
        cr_assert_eq(x->char_begin, unicode_count(bytes_of(text, x->begin)));
        cr_assert_eq(x->char_end, unicode_count(bytes_of(text, x->end)));
    }
    cr_assert_str_eq(e.at[0].iso, "2027-12-31");
    cr_assert_float_eq(e.at[1].number, 250000, 0);
    grammar_close(g);
    arena_fini(&a);
}
