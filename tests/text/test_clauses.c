#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "tests/text/help.h"
#include "workers/encode/clauses.h"
#include "workers/encode/clauses_pack.h"
#include "workers/encode/marker.h"
#include "workers/encode/unicode.h"

struct split {
    struct arena arena;
    struct clauses cs;
    struct bytes text;
};

/* Every clause: in order, apart, trimmed, and its character offsets are those of its bytes. */
static void spans_are_exact(const struct split *s) {
    const char *all = s->text.data;
    uint32_t end = 0;
    for (uint32_t i = 0; i < s->cs.n; i++) {
        const struct clause *c = &s->cs.at[i];
        cr_assert(c->begin >= end && c->begin < c->end && c->end <= s->text.len, "clause %u", i);
        cr_assert_eq(unicode_count(bytes_of(all, c->begin)), c->char_begin, "clause %u", i);
        cr_assert_eq(unicode_count(bytes_of(all, c->end)), c->char_end, "clause %u", i);
        cr_assert_eq(utf8_check(all + c->begin, c->end - c->begin), c->end - c->begin);
        const char *first = all + c->begin, *start;
        cr_assert_not(unicode_is_space(unicode_next(&first)), "clause %u begins with a blank", i);
        cr_assert_not(unicode_is_space(unicode_before(all + c->end, &start)), "clause %u", i);
        end = c->end;
    }
}

static void split_begin(struct split *s, struct bytes text) {
    s->text = text;
    arena_init(&s->arena, 1u << 28);
    cr_assert_eq(clauses_split(text, &s->arena, &s->cs), 0);
    spans_are_exact(s);
}

static void split_end(struct split *s) {
    arena_fini(&s->arena);
}

static struct bytes span(const struct split *s, uint32_t begin, uint32_t end) {
    return bytes_of((const char *)s->text.data + begin, end - begin);
}

static void clause_is(const struct split *s, uint32_t i, const char *number, const char *heading,
                      const char *text) {
    cr_assert_lt(i, s->cs.n, "only %u clauses", s->cs.n);
    const struct clause *c = &s->cs.at[i];
    struct bytes t = span(s, c->begin, c->end);
    cr_assert(bytes_is(t, text), "clause %u: '%.*s'", i, (int)t.len, (const char *)t.data);
    t = span(s, c->number.begin, c->number.end);
    cr_assert(bytes_is(t, number), "clause %u: number '%.*s'", i, (int)t.len, (const char *)t.data);
    t = span(s, c->heading.begin, c->heading.end);
    cr_assert(bytes_is(t, heading), "clause %u: heading '%.*s'", i, (int)t.len,
              (const char *)t.data);
}

/* Nothing is lost: outside clauses and headings there is only white space, marks and numbers. */
static void example_is_covered(const char *path, uint32_t clauses_min) {
    void *data;
    size_t bytes;
    char err[256] = "";
    struct split s;
    cr_assert_eq(file_read(path, 1u << 20, &data, &bytes, err, sizeof err), 0, "%s", err);
    split_begin(&s, bytes_of(data, bytes));
    cr_assert_geq(s.cs.n, clauses_min);
    char *left = malloc(bytes + 1);
    memcpy(left, data, bytes + 1);
    for (uint32_t i = 0; i < s.cs.n; i++) {
        const struct clause *c = &s.cs.at[i];
        memset(left + c->begin, ' ', c->end - c->begin);
        memset(left + c->heading.begin, ' ', c->heading.end - c->heading.begin);
    }
    for (char *line = strtok(left, "\n"); line; line = strtok(NULL, "\n")) {
        size_t n = strlen(line);
        while (n > 0 && line[n - 1] == ' ') n--;
        size_t blank = strspn(line, " ");
        if (blank >= n) continue;
        struct marker m = marker_read(bytes_of(line + blank, n - blank), true);
        cr_assert(m.heading_only || m.number_bytes == n - blank, "left over: '%s'", line);
    }
    free(left);
    free(data);
    split_end(&s);
}

Test(clauses, the_english_example_is_covered_by_exact_clauses) {
    example_is_covered("examples/contract-en.txt", 35);
}

Test(clauses, the_chinese_example_is_covered_by_exact_clauses) {
    example_is_covered("examples/contract-zh.txt", 30);
}

Test(clauses, english_numbers_and_headings_are_found) {
    struct split s;
    split_begin(&s,
                bytes_str("MASTER AGREEMENT\n\nArticle I\n\n1. Term\n\n1.1 It runs for a year.\n"
                          "(a) from today;\n(ii) until then.\n2. Payment. The buyer pays.\n\n"
                          "Section 3.2 Notices\nThey are sent by post.\n\nConfidentiality\n\n"
                          "Both keep it secret. The 3.5% rate of Section 2 of this deal holds.\n"));
    cr_assert_eq(s.cs.n, 6);
    clause_is(&s, 0, "1.1", "Term", "1.1 It runs for a year.");
    clause_is(&s, 1, "(a)", "Term", "(a) from today;");
    clause_is(&s, 2, "(ii)", "Term", "(ii) until then.");
    clause_is(&s, 3, "2.", "Payment", "2. Payment. The buyer pays.");
    clause_is(&s, 4, "Section 3.2", "Notices", "They are sent by post.");
    clause_is(&s, 5, "", "Confidentiality",
              "Both keep it secret. The 3.5% rate of Section 2 of this deal holds.");
    cr_assert(s.cs.at[0].level == 2 && s.cs.at[1].level == 3 && s.cs.at[3].level == 1);
    split_end(&s);
}

Test(clauses, chinese_numbers_and_headings_are_found) {
    struct split s;
    split_begin(
        &s,
        bytes_str("买卖合同\n\n第一章 总则\n第一条 标的\n甲方购买设备。\n（一）十台；\n(2)备件。\n"
                  "二、付款\n1、甲方付款。\n2.乙方开票。\n第十二条 交货：乙方发货。\n①先交货\n"));
    cr_assert_eq(s.cs.n, 7);
    clause_is(&s, 0, "第一条", "标的", "甲方购买设备。");
    clause_is(&s, 1, "（一）", "标的", "（一）十台；");
    clause_is(&s, 2, "(2)", "标的", "(2)备件。");
    clause_is(&s, 3, "1、", "付款", "1、甲方付款。");
    clause_is(&s, 4, "2.", "付款", "2.乙方开票。");
    clause_is(&s, 5, "第十二条", "交货", "第十二条 交货：乙方发货。");
    clause_is(&s, 6, "①", "交货", "①先交货");
    split_end(&s);
}

Test(clauses, wrapped_lines_are_one_paragraph) {
    struct split s;
    split_begin(&s, bytes_str("The first party delivers the goods within the time of Section\n"
                              "4.2 and the second party pays for them at the end of the month.\n"
                              "This sentence begins on a line of its own and goes on: in the\n"
                              "same paragraph.\n"
                              "Here a new one begins, because the line above was short.\n"));
    cr_assert_eq(s.cs.n, 2);
    cr_assert_eq(s.cs.at[0].number.end, s.cs.at[0].number.begin);
    split_end(&s);
}

Test(clauses, line_ends_tabs_form_feeds_and_marks_make_no_difference) {
    struct split a, b;
    split_begin(&a, bytes_str("1. One thing.\n\n2. Another thing that\ngoes on here.\n3. Third."));
    split_begin(&b, bytes_str("\xEF\xBB\xBF"
                              "1. One thing.\r\n\r\n2. Another thing that\r\n\f\tgoes on "
                              "here.\xC2\xA0\r\n\xE3\x80\x80"
                              "3. Third.\t\n\n"));
    cr_assert_eq(a.cs.n, 3);
    cr_assert_eq(b.cs.n, 3);
    cr_assert_eq(b.cs.at[0].char_begin, 1); /* the mark is a character of the text */
    cr_assert_eq(b.cs.at[0].begin, 3);
    split_end(&a);
    split_end(&b);
}

Test(clauses, a_long_paragraph_is_cut_at_sentence_ends) {
    struct buf text = {0};
    for (int i = 0; i < 40; i++)
        buf_printf(&text, "Sentence number %d was written by Acme Inc. for No. 5 of this test. ",
                   i);
    struct split s;
    split_begin(&s, buf_bytes(&text));
    cr_assert_gt(s.cs.n, 2);
    for (uint32_t i = 0; i < s.cs.n; i++) {
        struct bytes t = span(&s, s.cs.at[i].begin, s.cs.at[i].end);
        cr_assert_leq(t.len, CLAUSE_COST_MAX);
        cr_assert(memcmp(t.data, "Sentence", 8) == 0, "clause %u begins in a sentence", i);
    }
    split_end(&s);
    buf_clear(&text);
    for (int i = 0; i < 200; i++) buf_printf(&text, "乙方应当按时交付第%d批货物。", i);
    split_begin(&s, buf_bytes(&text));
    cr_assert_gt(s.cs.n, 8);
    for (uint32_t i = 0; i < s.cs.n; i++)
        cr_assert_leq(s.cs.at[i].char_end - s.cs.at[i].char_begin, CLAUSE_COST_MAX / 3);
    split_end(&s);
    buf_fini(&text);
}

Test(clauses, a_paragraph_without_any_sentence_is_cut_all_the_same) {
    struct buf text = {0};
    while (text.len < 700000) buf_append(&text, "\xE5\xAD\x97", 3);
    struct split s;
    split_begin(&s, buf_bytes(&text));
    cr_assert_gt(s.cs.n, 900);
    uint32_t chars = 0;
    for (uint32_t i = 0; i < s.cs.n; i++) chars += s.cs.at[i].char_end - s.cs.at[i].char_begin;
    cr_assert_eq(chars, text.len / 3, "nothing is lost");
    split_end(&s);
    buf_fini(&text);
}

Test(clauses, more_clauses_than_the_limit_are_refused) {
    struct buf text = {0};
    struct arena a;
    struct clauses cs;
    for (uint32_t i = 0; i < CLAUSES_MAX + 1; i++) buf_append(&text, "x.\n\n", 4);
    arena_init(&a, 1u << 28);
    cr_assert_eq(clauses_split(buf_bytes(&text), &a, &cs), ERR_LIMIT);
    cr_assert_eq(clauses_split(bytes_of(text.data, CLAUSES_MAX * 4), &a, &cs), 0);
    cr_assert_eq(cs.n, CLAUSES_MAX);
    arena_fini(&a);
    buf_fini(&text);
}

Test(clauses, random_texts_have_exact_spans_that_survive_packing) {
    uint64_t state = test_seed();
    static const char *const spice[] = {
        "\n\n",         "\r\n", "\n1.2 ",         "\n第三条 ",    "。",     ". ",
        "\n（一）",     "\f",   "\nARTICLE IV\n", "\xEF\xBB\xBF", "\n(a) ", "\t",
        "\xE2\x80\xA8", "1.",   "\n二、"};
    struct buf text = {0}, piece = {0}, packed = {0};
    for (int i = 0; i < 1500; i++) {
        buf_clear(&text);
        for (int k = (int)(rng_next(&state) % 30); k >= 0; k--) {
            const char *add = spice[rng_next(&state) % (sizeof spice / sizeof *spice)];
            random_text(&state, 60, &piece);
            buf_append(&text, add, strlen(add));
            buf_append(&text, piece.data, piece.len);
        }
        struct split s;
        split_begin(&s, buf_bytes(&text));
        if (s.cs.n == 0) {
            split_end(&s);
            continue;
        }
        struct pack_doc *doc;
        struct clauses back;
        enum clause_language language;
        char err[256] = "";
        buf_clear(&packed);
        struct packer p = packer_of(&packed);
        clauses_pack(&p, LANGUAGE_ZH, &s.cs, bytes_of("\xC0", 1));
        cr_assert_eq(pack_parse(&doc, buf_bytes(&packed), err, sizeof err), 0, "%s", err);
        cr_assert_eq(
            clauses_unpack(pack_root(doc), s.text, &s.arena, &language, &back, err, sizeof err), 0,
            "%s", err);
        cr_assert(language == LANGUAGE_ZH && back.n == s.cs.n);
        cr_assert_eq(memcmp(back.at, s.cs.at, back.n * sizeof *back.at), 0);
        cr_assert_lt(clauses_unpack(pack_root(doc),
                                    bytes_of(text.data, s.cs.at[s.cs.n - 1].end - 1), &s.arena,
                                    &language, &back, err, sizeof err),
                     0, "offsets beyond the text are refused");
        pack_free(doc);
        split_end(&s);
    }
    buf_fini(&text);
    buf_fini(&piece);
    buf_fini(&packed);
}

Test(clauses, lines_of_small_print_are_joined_and_paragraphs_that_are_lines_are_not) {
    struct buf text = {0};
    for (uint32_t i = 0; i < 40; i++) /* a paragraph of three full lines and a short one */
        buf_printf(&text, "%.*s%s\n", i % 4 == 3 ? 40 : 140 + (int)(i % 4),
                   "The Supplier delivers the goods that are listed in the annex to the place "
                   "which the Buyer has named in the order, at its own cost and risk, and the "
                   "Buyer pays the price for them without delay.",
                   i % 4 == 3 ? "." : "");
    struct split s;
    split_begin(&s, buf_bytes(&text));
    cr_assert_eq(s.cs.at[0].end, 141 + 142 + 143 + 41, "the first paragraph ends at %u",
                 s.cs.at[0].end);
    split_end(&s);
    buf_clear(&text);
    for (uint32_t i = 0; i < 40; i++) {
        for (uint32_t k = 0; k < 4 + i * 7 % 40; k++) buf_printf(&text, "word%u ", k);
        buf_printf(&text, "ends.\n");
    }
    split_begin(&s, buf_bytes(&text));
    cr_assert_eq(s.cs.n, 40, "%u clauses of 40 lines that are paragraphs", s.cs.n);
    split_end(&s);
    buf_fini(&text);
}

Test(clauses, the_language_follows_the_script) {
    cr_assert_eq(clauses_language(bytes_str("This agreement is made by the parties.")),
                 LANGUAGE_EN);
    cr_assert_eq(clauses_language(bytes_str("甲方 Acme Sensors Inc. 与乙方签订本合同。")),
                 LANGUAGE_ZH);
    cr_assert_eq(clauses_language(bytes_str("Made with 北京 Company Limited in Beijing.")),
                 LANGUAGE_EN);
    cr_assert_eq(clauses_language(bytes_str("")), LANGUAGE_EN);
}
