#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/rng.h"

/* says NULL: it is JSON. The parser is of the same opinion. */
static void checked(const char *text, size_t bytes, const char *says) {
    struct json *j;
    char err[200] = "", parser[200] = "";
    int rc = json_check(text, bytes, err, sizeof err);
    cr_expect(says ? rc == ERR_FIELD && strstr(err, says) != NULL : rc == 0, "%s: %s", text, err);
    int parsed = json_parse(&j, text, bytes, parser, sizeof parser);
    cr_expect_eq(parsed == 0, rc == 0, "%.40s: %s", text, parser);
    json_free(j);
}

Test(json_check, what_is_checked_is_what_is_parsed) {
    static const char *const good[] = {"1",
                                       " -0.5e+3 ",
                                       "\"\"",
                                       "\"\\u00e9\\n\\\\\"",
                                       "[]",
                                       "{ }",
                                       "[1, [2, {\"a\": [true, null]}], false]",
                                       "{\"a\": {\"b\": []}, \"c\": \"\xE4\xB8\x89\"}\n",
                                       "0",
                                       "-1E9",
                                       "[[[]],[{}]]",
                                       "123456789012345678901234567890"};
    static const char *const bad[][2] = {{"", "line 1, column 1"},
                                         {"[1, ", "line 1, column 5"},
                                         {"[1,]", "column 4"},
                                         {"{\"a\"}", "colon"},
                                         {"{\"a\":1,}", "name"},
                                         {"{a:1}", "name"},
                                         {"[1 2]", "without its end"},
                                         {"[1}", "without its end"},
                                         {"{\"a\":1]", "without its end"},
                                         {"01", "more behind"},
                                         {"1 2", "more behind"},
                                         {"-", "digits"},
                                         {"1.", "digits"},
                                         {"1e", "digits"},
                                         {"+1", "not a value"},
                                         {".5", "not a value"},
                                         {"nul", "not a value"},
                                         {"\"a", "ends in a string"},
                                         {"\"\\x\"", "escape"},
                                         {"\"\\u12g4\"", "escape"},
                                         {"\"a\nb\"", "control"},
                                         {"[\n\"\xE4\xB8\x89\", x]", "line 2, column 6"},
                                         {"\"\\", "escape"},
                                         {"\"\\u1", "escape"},
                                         {"{", "name"},
                                         {"]", "not a value"},
                                         {"'a'", "not a value"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) checked(good[i], strlen(good[i]), NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        checked(bad[i][0], strlen(bad[i][0]), bad[i][1]);
    checked("1\0", 2, "more behind");
}

Test(json_check, what_is_nested_too_deep_is_refused) {
    enum { DEEP = 2049 };
    static char text[2 * DEEP];
    char err[200];
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    cr_expect_eq(json_check(text, sizeof text, err, sizeof err), ERR_FIELD);
    cr_expect(strstr(err, "too deep"), "%s", err);
    cr_expect_eq(json_check(text + 1, sizeof text - 2, err, sizeof err), 0, "%s", err);
}

Test(json_check, a_text_with_random_errors_is_judged_as_the_parser_judges_it) {
    static const char base[] =
        "{\"a\": [1.5e-3, true, \"x\\u0041\"], \"b\": {\"c\": null}, \"d\": -0}";
    static const char signs[] = "{}[]\",:\\ 0123.eE+-tfnul\n";
    uint64_t dice = 5;
    uint32_t valid = 0;
    for (int i = 0; i < 30000; i++) {
        char text[sizeof base], err[200] = "", why[200] = "";
        memcpy(text, base, sizeof base);
        for (uint64_t n = 1 + rng_next(&dice) % 3; n > 0; n--)
            text[rng_next(&dice) % (sizeof base - 1)] = signs[rng_next(&dice) % (sizeof signs - 1)];
        struct json *j;
        bool parsed = json_parse(&j, text, sizeof base - 1, err, sizeof err) == 0;
        bool good = json_check(text, sizeof base - 1, why, sizeof why) == 0;
        json_free(j);
        valid += parsed;
        /* The two that pass; and a real number beyond all bounds. */
        bool passes = strstr(err, "duplicate") || strstr(err, "Unicode") || strstr(err, "overflow");
        cr_assert(good == parsed || (good && passes), "%s: %s; %s", text, err, why);
    }
    cr_assert_gt(valid, 500);
}
