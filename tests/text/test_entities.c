#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "tests/text/help.h"
#include "workers/encode/unicode.h"
#include "workers/post/entities.h"
#include "workers/post/numerals.h"
#include "workers/post/values.h"

static struct grammar *grammar_must_open(void) {
    struct grammar *g;
    char err[512] = "";
    cr_assert_eq(grammar_open(&g, err, sizeof err), 0, "%s", err);
    return g;
}

/* "type place=value; ..." of everything found. */
static void say(const struct entity *e, const char *text, struct buf *out) {
    buf_printf(out, "%s%s '%.*s'", out->len ? "; " : "", entity_type_name(e->type),
               (int)(e->end - e->begin), text + e->begin);
    if (e->iso[0]) buf_printf(out, " %s", e->iso);
    if (e->type == ENTITY_AMOUNT || e->type == ENTITY_PERCENTAGE)
        buf_printf(out, " %.10g", e->number);
    if (e->currency[0]) buf_printf(out, " %s", e->currency);
    if (e->name.len) buf_printf(out, " %.*s", (int)e->name.len, (const char *)e->name.data);
    if (e->role.len) buf_printf(out, "/%.*s", (int)e->role.len, (const char *)e->role.data);
    if (e->business) buf_printf(out, " business");
    if (e->conflict) buf_printf(out, " conflict");
}

static void finds(const struct grammar *g, const char *text, const char *expected) {
    struct arena a;
    struct entities found;
    struct buf said = {0};
    char err[256] = "";
    struct bytes t = bytes_str(text);
    arena_init(&a, 1u << 26);
    cr_assert_eq(entities_find(g, t, GRAMMAR_EN | GRAMMAR_ZH, clauses_language(t), NULL, &a, &found,
                               err, sizeof err),
                 0, "%s", err);
    for (uint32_t i = 0; i < found.n; i++) say(&found.at[i], text, &said);
    cr_expect(bytes_is(buf_bytes(&said), expected), "in: %s\nfound: %.*s\nnot:   %s", text,
              (int)said.len, said.data ? (char *)said.data : "", expected);
    buf_fini(&said);
    arena_fini(&a);
}

Test(entities, english_dates_become_iso_8601) {
    struct grammar *g = grammar_must_open();
    finds(g, "on January 5, 2026.", "date 'January 5, 2026' 2026-01-05");
    finds(g, "this 24t h day of August 2018", "date '24t h day of August 2018' 2018-08-24");
    finds(g, "on JAN. 5th 2026", "date 'JAN. 5th 2026' 2026-01-05");
    finds(g, "the 8th day of May 2014", "date '8th day of May 2014' 2014-05-08");
    finds(g, "the first day of March, 2020", "date 'first day of March, 2020' 2020-03-01");
    finds(g, "this twenty-first day\nof June, 2021",
          "date 'twenty-first day\nof June, 2021' 2021-06-21");
    finds(g, "dated 2024-02-29 and 12/31/2014",
          "date '2024-02-29' 2024-02-29; date '12/31/2014' 2014-12-31");
    finds(g, "31/12/99 or 1-2-2003", "date '31/12/99' 1999-12-31; date '1-2-2003' 2003-01-02");
    finds(g, "since September 2019", "date 'September 2019' 2019-09");
    grammar_close(g);
}

Test(entities, chinese_dates_become_iso_8601) {
    struct grammar *g = grammar_must_open();
    finds(g, "于2026年3月18日签订", "date '2026年3月18日' 2026-03-18");
    finds(g, "二〇二六年十二月三十一日", "date '二〇二六年十二月三十一日' 2026-12-31");
    finds(g, "２０２６年１月５日", "date '２０２６年１月５日' 2026-01-05");
    finds(g, "自 2026 年 10 月 起", "date '2026 年 10 月' 2026-10");
    finds(g, "日期 2026.1.5", "date '2026.1.5' 2026-01-05");
    grammar_close(g);
}

Test(entities, dates_that_cannot_be_are_no_dates) {
    struct grammar *g = grammar_must_open();
    finds(g, "on February 30, 2026 or 2023-02-29 or 2026-13-01", "");
    finds(g, "2026年2月30日", "");
    finds(g, "on February 29, 2024", "date 'February 29, 2024' 2024-02-29");
    finds(g, "part 1-2-3 of version 2.10.2000.4 costs", "");
    grammar_close(g);
}

Test(entities, english_amounts_have_a_currency_and_a_value) {
    struct grammar *g = grammar_must_open();
    finds(g, "pay USD 1,250.50 now", "amount 'USD 1,250.50' 1250.5 USD");
    finds(g, "up to $2.5 million in", "amount '$2.5 million' 2500000 USD");
    finds(g, "five hundred thousand dollars ($500,000)",
          "amount 'five hundred thousand dollars ($500,000)' 500000 USD");
    finds(g, "five hundred thousand dollars ($50,000)",
          "amount 'five hundred thousand dollars ($50,000)' 500000 USD conflict");
    finds(g, "one million two hundred and fifty thousand euros",
          "amount 'one million two hundred and fifty thousand euros' 1250000 EUR");
    finds(g, "HK$300 or £20 or 75 euros",
          "amount 'HK$300' 300 HKD; amount '£20' 20 GBP; amount '75 euros' 75 EUR");
    grammar_close(g);
}

Test(entities, chinese_amounts_have_a_currency_and_a_value) {
    struct grammar *g = grammar_must_open();
    finds(g, "人民币壹佰捌拾陆万元整（¥1,860,000.00）",
          "amount '人民币壹佰捌拾陆万元整（¥1,860,000.00）' 1860000 CNY");
    finds(g, "总价3.5亿元", "amount '3.5亿元' 350000000 CNY");
    finds(g, "支付100万美元整", "amount '100万美元整' 1000000 USD");
    finds(g, "￥12,000",
          "amount '￥12,000' 12000 JPY"); /* no Han character says that it is Chinese */
    finds(g, "价格￥12,000", "amount '￥12,000' 12000 CNY");
    finds(g, "人民币贰拾元伍角整", "amount '人民币贰拾元伍角整' 20.5 CNY");
    finds(g, "人民币二十万元（￥20,000）",
          "amount '人民币二十万元（￥20,000）' 200000 CNY conflict");
    grammar_close(g);
}

Test(entities, durations_become_iso_8601) {
    struct grammar *g = grammar_must_open();
    finds(g, "within thirty (30) days' notice", "duration 'thirty (30) days' P30D");
    finds(g, "sixty (30) days", "duration 'sixty (30) days' P60D conflict");
    finds(g, "ten (10) business days", "duration 'ten (10) business days' P10D business");
    finds(g, "a 36-month term, two years", "duration '36-month' P36M; duration 'two years' P2Y");
    finds(g, "one hundred and twenty days", "duration 'one hundred and twenty days' P120D");
    finds(g, "两年内，36个月，三十个工作日，半年",
          "duration '两年' P2Y; duration '36个月' P36M; "
          "duration '三十个工作日' P30D business; duration '半年' P6M");
    finds(g, "三十（30）日", "duration '三十（30）日' P30D");
    finds(g, "第三年的2026年度每年一次", "");
    grammar_close(g);
}

Test(entities, percentages_are_numbers) {
    struct grammar *g = grammar_must_open();
    finds(g, "five percent (5%) or 0.5% or 7 per cent",
          "percentage 'five percent (5%)' 5; percentage '0.5%' 0.5; "
          "percentage '7 per cent' 7");
    finds(g, "one and one-half percent (1.5%)", "percentage 'one and one-half percent (1.5%)' 1.5");
    finds(g, "百分之十五、千分之三、万分之五和12.5％",
          "percentage '百分之十五' 15; percentage '千分之三' 0.3; "
          "percentage '万分之五' 0.05; percentage '12.5％' 12.5");
    finds(g, "百分之零点五", "percentage '百分之零点五' 0.5");
    grammar_close(g);
}

Test(entities, parties_come_with_their_role) {
    struct grammar *g = grammar_must_open();
    finds(g,
          "between Acme Tools, Inc., a Delaware corporation (\"Supplier\"), and Jane Doe (the "
          "\"Buyer\")",
          "party 'Acme Tools, Inc.' Acme Tools, Inc./Supplier; party 'Jane Doe' Jane Doe/Buyer");
    finds(g, "This Supply Agreement (the \"Agreement\") of the Effective Date (\"Effective Date\")",
          "");
    finds(g, "registered under the Investment Company Act of 1940 (the \"1940 Act\")", "");
    finds(g, "甲方（采购方）：青禾制造有限公司\n乙 方： 远岫科技股份有限公司，住所：北岭\n",
          "party '青禾制造有限公司' 青禾制造有限公司/甲方; party '远岫科技股份有限公司' "
          "远岫科技股份有限公司/乙 方");
    finds(g, "甲方（盖章）：              乙方（盖章）：\n", "");
    finds(g, "由青禾制造有限公司（以下简称“甲方”）与",
          "party '青禾制造有限公司' 青禾制造有限公司/甲方");
    grammar_close(g);
}

Test(entities, the_governing_law_is_a_place) {
    struct grammar *g = grammar_must_open();
    finds(g, "shall be governed by and construed under the laws of the State of New York, without",
          "governing_law 'the State of New York' New York");
    finds(g, "governed by the laws of England and Wales. The",
          "governing_law 'England and Wales' England and Wales");
    finds(g, "California law governs this", "governing_law 'California' California");
    finds(g, "governed by English law, and", "governing_law 'English' English");
    finds(g, "the law of the State of Ohio shall govern it",
          "governing_law 'the State of Ohio' Ohio");
    finds(g, "a company organized under the laws of England", "");
    finds(g, "governed by the laws of the People's Republic of China.",
          "governing_law 'the People's Republic of China' People's Republic of China");
    finds(g, "本合同适用中华人民共和国法律。", "governing_law '中华人民共和国' 中华人民共和国");
    finds(g, "应当适用有关法律", "");
    grammar_close(g);
}

Test(entities, the_example_contracts_give_what_they_say) {
    static const struct {
        const char *path;
        uint32_t least[ENTITY_TYPES];
    } examples[] = {{"examples/contract-en.txt", {3, 15, 3, 5, 2, 1}},
                    {"examples/contract-zh.txt", {6, 16, 3, 8, 2, 1}}};
    struct grammar *g = grammar_must_open();
    for (int k = 0; k < 2; k++) {
        void *data;
        size_t bytes;
        char err[256] = "";
        struct arena a;
        struct entities found;
        uint32_t count[ENTITY_TYPES] = {0};
        cr_assert_eq(file_read(examples[k].path, 1u << 20, &data, &bytes, err, sizeof err), 0, "%s",
                     err);
        arena_init(&a, 1u << 24);
        entities_find(g, bytes_of(data, bytes), 3, k ? LANGUAGE_ZH : LANGUAGE_EN, NULL, &a, &found,
                      err, sizeof err);
        for (uint32_t i = 0; i < found.n; i++) {
            count[found.at[i].type]++;
            cr_assert_not(found.at[i].conflict);
        }
        for (int t = 0; t < ENTITY_TYPES; t++)
            cr_assert_geq(count[t], examples[k].least[t], "%s: %s", examples[k].path,
                          entity_type_name((enum entity_type)t));
        arena_fini(&a);
        free(data);
    }
    grammar_close(g);
}

Test(entities, random_texts_give_exact_spans_in_order) {
    uint64_t state = test_seed();
    static const char *const spice[] = {"thirty (30) days ",
                                        "2026年3月18日",
                                        "$1,000.00",
                                        " January 5, 2026 ",
                                        "%",
                                        "百分之",
                                        "人民币",
                                        "元",
                                        "12",
                                        "(",
                                        "between Acme Inc. (\"A\")",
                                        "甲方：",
                                        "\n",
                                        "年",
                                        "laws of "};
    struct grammar *g = grammar_must_open();
    struct buf text = {0}, piece = {0};
    uint32_t all = 0;
    for (int i = 0; i < 600; i++) {
        buf_clear(&text);
        for (int k = (int)(rng_next(&state) % 40); k >= 0; k--) {
            const char *add = spice[rng_next(&state) % (sizeof spice / sizeof *spice)];
            random_text(&state, 12, &piece);
            buf_append(&text, add, strlen(add));
            buf_append(&text, piece.data, piece.len);
        }
        struct arena a;
        struct entities found;
        char err[256] = "";
        arena_init(&a, 1u << 26);
        cr_assert_eq(
            entities_find(g, buf_bytes(&text), 3, LANGUAGE_EN, NULL, &a, &found, err, sizeof err),
            0);
        for (uint32_t n = 0; n < found.n; n++) {
            const struct entity *e = &found.at[n];
            cr_assert(e->begin < e->end && e->end <= text.len);
            cr_assert(n == 0 || e->begin >= found.at[n - 1].end, "they overlap");
            cr_assert_eq(unicode_count(bytes_of(text.data, e->begin)), e->char_begin);
            cr_assert_eq(unicode_count(bytes_of(text.data, e->end)), e->char_end);
            cr_assert_eq(utf8_check(text.data + e->begin, e->end - e->begin), e->end - e->begin);
        }
        all += found.n;
        arena_fini(&a);
    }
    cr_assert_gt(all, 1000);
    buf_fini(&text);
    buf_fini(&piece);
    grammar_close(g);
}

Test(entities, a_large_text_is_read_in_time_and_up_to_the_limit) {
    struct grammar *g = grammar_must_open();
    struct buf text = {0};
    struct arena a;
    struct entities found;
    char err[256] = "";
    while (text.len < 700000)
        buf_printf(&text, "one hundred and one and one (%u) and Aaa Bbb Ccc, 5%% ", 1u);
    arena_init(&a, 1u << 26);
    cr_assert_eq(
        entities_find(g, buf_bytes(&text), 3, LANGUAGE_EN, NULL, &a, &found, err, sizeof err), 0);
    cr_assert_gt(found.n, 10000);
    arena_fini(&a);
    atomic_bool cancelled = true;
    arena_init(&a, 1u << 26);
    cr_assert_eq(
        entities_find(g, buf_bytes(&text), 3, LANGUAGE_EN, &cancelled, &a, &found, err, sizeof err),
        ERR_CANCELLED);
    arena_fini(&a);
    buf_fini(&text);
    grammar_close(g);
}

Test(numerals, numbers_are_read_in_figures_and_words) {
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1,234.50", 1234.5},
                {"１２", 12},
                {"twenty-four", 24},
                {"two hundred and fifty thousand", 250000},
                {"twenty-first", 21},
                {"one million five hundred thousand", 1500000},
                {"二十四", 24},
                {"十", 10},
                {"壹佰捌拾陆万", 1860000},
                {"二〇二六", 2026},
                {"3.5亿", 350000000},
                {"一百零五", 105},
                {"一亿二千万", 120000000},
                {"两千", 2000},
                {"零点五", 0.5},
                {" 30 ", 30}};
    static const char *const bad[] = {"",      " ",   "1,5", "twenty dogs", "二十狗",
                                      "1.2.3", "12a", ",",   "and"};
    double v;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_expect(numeral_value(bytes_str(good[i].text), &v), "%s", good[i].text);
        cr_expect(fabs(v - good[i].value) < 1e-9, "%s: %g", good[i].text, v);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(numeral_value(bytes_str(bad[i]), &v), "'%s': %g", bad[i], v);
}
