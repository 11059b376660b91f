#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/regex.h"

static struct regex *compile(const char *pattern, const char *flags) {
    struct regex *r;
    char err[256];
    cr_assert_eq(regex_open(&r, pattern, flags, err, sizeof err), 0, "%s", err);
    return r;
}

Test(regex, groups_and_names_have_their_spans) {
    struct regex *r = compile("(?<year>\\d{4})-(?<month>\\d\\d)(Z)?", "");
    struct regex_span s[REGEX_GROUPS];
    cr_assert_eq(regex_find(r, "on 2024-05 ok", 13, 0, s), 1);
    cr_assert_eq(s[0].begin, 3);
    cr_assert_eq(s[0].end, 10);
    cr_assert_eq(s[regex_group(r, "month")].begin, 8);
    cr_assert_eq(s[3].begin, (size_t)-1, "a group that took no part");
    cr_assert_eq(s[REGEX_GROUPS - 1].end, (size_t)-1);
    cr_assert_eq(regex_group(r, "day"), -1);
    cr_assert_eq(regex_find(r, "on 2024-05 ok", 13, 4, s), 0);
    cr_assert_eq(regex_find(r, "x", 1, 2, s), 0, "from beyond the end");
    cr_assert_eq(regex_find(r, NULL, 0, 0, s), 0);
    regex_close(r);
    regex_close(NULL);
}

Test(regex, chinese_is_matched_by_character) {
    struct regex *r = compile("\\p{Han}{2}(?=\xE5\x85\xAC\xE5\x8F\xB8)", "");
    struct regex_span s[REGEX_GROUPS];
    const char *text = "\xE5\x8C\x97\xE4\xBA\xAC\xE5\x85\xAC\xE5\x8F\xB8";
    cr_assert_eq(regex_find(r, text, strlen(text), 0, s), 1);
    cr_assert_eq(s[0].end - s[0].begin, 6);
    regex_close(r);
}

Test(regex, flags_do_what_they_say) {
    struct regex_span s[REGEX_GROUPS];
    struct regex *r = compile("^ b  C # comment", "imx");
    cr_assert_eq(regex_find(r, "a\nBc", 4, 0, s), 1);
    cr_assert_eq(s[0].begin, 2);
    regex_close(r);
    char err[256];
    cr_assert_eq(regex_open(&r, "a", "g", err, sizeof err), ERR_FIELD);
    cr_assert_null(r);
}

Test(regex, a_bad_pattern_is_refused_with_its_offset) {
    struct regex *r;
    char err[256];
    cr_assert_eq(regex_open(&r, "abc(", "", err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "offset 4"), "%s", err);
    cr_assert_eq(regex_open(&r, "()()()()()()()()()()()()()()()()", "", err, sizeof err),
                 ERR_FIELD);
    cr_assert(strstr(err, "16 groups"), "%s", err);
}

Test(regex, a_pattern_that_explodes_ends_at_the_limit) {
    struct regex *r = compile("(a+)+$", "");
    struct regex_span s[REGEX_GROUPS];
    char text[64];
    memset(text, 'a', 63);
    text[62] = 'b';
    cr_assert_eq(regex_find(r, text, 63, 0, s), ERR_LIMIT);
    regex_close(r);
}
