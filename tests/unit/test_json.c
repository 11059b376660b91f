#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"

static int parse(struct json **j, const char *text, char *err) {
    return json_parse(j, text, strlen(text), err, 256);
}

Test(json, getters_read_what_is_there_and_fall_back_otherwise) {
    struct json *j;
    char err[256];
    cr_assert_eq(parse(&j,
                       "{\"i\":-3,\"r\":2.5,\"w\":7.0,\"s\":\"x\\u0000y\",\"b\":true,"
                       "\"a\":[1,2],\"n\":null}",
                       err),
                 0);
    cr_assert_eq(json_kind(j), JSON_OBJECT);
    cr_assert_eq(json_len(j), 7);
    cr_assert_eq(json_int(json_get(j, "i"), 0), -3);
    cr_assert_eq(json_int(json_get(j, "r"), 9), 9);
    cr_assert_eq(json_int(json_get(j, "w"), 9), 7);
    cr_assert_float_eq(json_num(json_get(j, "i"), 0), -3, 0);
    cr_assert_float_eq(json_num(json_get(j, "s"), 4), 4, 0);
    cr_assert_eq(json_str_len(json_get(j, "s")), 3);
    cr_assert(json_bool(json_get(j, "b"), false));
    cr_assert(json_bool(json_get(j, "i"), true));
    cr_assert_eq(json_int(json_at(json_get(j, "a"), 1), 0), 2);
    cr_assert_null(json_at(json_get(j, "a"), 2));
    cr_assert_null(json_get(json_get(j, "a"), "x"));
    cr_assert_null(json_get(NULL, "x"));
    cr_assert_eq(json_kind(json_get(j, "n")), JSON_NULL);
    cr_assert_null(json_str(json_get(j, "i")));
    json_free(j);
    json_free(NULL);
}

Test(json, members_come_in_the_order_of_the_file) {
    struct json *j;
    char err[256], order[16] = "";
    cr_assert_eq(parse(&j, "{\"z\":1,\"a\":2,\"m\":3}", err), 0);
    size_t it = 0;
    const char *key;
    const struct json *value;
    while (json_next(j, &it, &key, &value)) strcat(order, key);
    cr_assert_str_eq(order, "zam");
    it = 0;
    cr_assert_not(json_next(json_get(j, "z"), &it, &key, &value));
    json_free(j);
}

Test(json, what_is_wrong_is_refused_with_its_line) {
    const char *const bad[] = {
        "",    "{",  "{\"a\":1,\"a\":2}", "[1,]",    "\"\xFF\"",  "[1] 2", "{'a':1}",
        "nul", "01", "\"\\ud800\"",       "[1e999]", "{\"a\" 1}", "+1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct json *j = (void *)1;
        char err[256] = "";
        cr_assert_lt(parse(&j, bad[i], err), 0, "'%s'", bad[i]);
        cr_assert_null(j);
        cr_assert(strstr(err, "line 1"), "'%s': %s", bad[i], err);
    }
}

Test(json, nesting_has_a_limit) {
    size_t n = 100000;
    char *text = malloc(n), err[256];
    memset(text, '[', n);
    struct json *j;
    cr_assert_eq(json_parse(&j, text, n, err, sizeof err), ERR_LIMIT);
    free(text);
}

Test(json, an_integer_of_thirty_digits_does_not_spoil_the_file) {
    struct json *j;
    char err[256];
    cr_assert_eq(parse(&j, "{\"max\":1000000000000000019884624838656,\"dim\":384}", err), 0);
    cr_assert_eq(json_int(json_get(j, "dim"), 0), 384);
    cr_assert_eq(json_int(json_get(j, "max"), -1), -1);
    cr_assert_float_eq(json_num(json_get(j, "max"), 0) / 1e30, 1, 1e-9);
    json_free(j);
}

Test(json, a_needed_member_is_named_when_it_is_wrong) {
    struct json *j;
    char err[256];
    int64_t v;
    const char *s;
    cr_assert_eq(parse(&j, "{\"n\":5,\"s\":\"t\"}", err), 0);
    cr_assert_eq(json_need_int(j, "config.json", "n", 1, 10, &v, err, sizeof err), 0);
    cr_assert_eq(v, 5);
    cr_assert_eq(json_need_int(j, "config.json", "n", 6, 10, &v, err, sizeof err), ERR_FIELD);
    cr_assert_str_eq(err, "config.json: n: 5 is not from 6 to 10");
    cr_assert_eq(json_need_int(j, "config.json", "s", 0, 9, &v, err, sizeof err), ERR_FIELD);
    cr_assert_str_eq(err, "config.json: s: not an integer");
    cr_assert_eq(json_need_int(j, "config.json", "x", 0, 9, &v, err, sizeof err), ERR_FIELD);
    cr_assert_str_eq(err, "config.json: x: missing");
    cr_assert_eq(json_need_str(j, "config.json", "s", &s, err, sizeof err), 0);
    cr_assert_str_eq(s, "t");
    cr_assert_eq(json_need_str(j, "config.json", "n", &s, err, sizeof err), ERR_FIELD);
    json_free(j);
}

Test(json, what_is_built_is_printed_and_bad_utf8_is_replaced) {
    struct json *j = json_new_object(), *list = json_new_array();
    cr_assert_eq(json_push(list, json_new_int(1)), 0);
    cr_assert_eq(json_push(list, json_new_bool(false)), 0);
    cr_assert_eq(json_push(list, json_new_null()), 0);
    cr_assert_eq(json_push(list, json_new_str("a\xFF\xE5\x90\x88", 5)), 0);
    cr_assert_eq(json_push(list, json_new_real(0.5)), 0);
    cr_assert_eq(json_set(j, "list", list), 0);
    cr_assert_lt(json_set(j, "none", NULL), 0);
    char *text = json_text(j, 0);
    cr_assert_str_eq(text, "{\"list\": [1, false, null, \"a\xEF\xBF\xBD\xE5\x90\x88\", 0.5]}");
    free(text);
    json_free(j);
}

Test(json, a_file_is_loaded_under_a_cap) {
    char path[] = "/tmp/penstock-json-XXXXXX", err[256];
    cr_assert_geq(mkstemp(path), 0);
    cr_assert_eq(file_replace(path, "{\"a\":1}", 7, err, sizeof err), 0);
    struct json *j;
    cr_assert_eq(json_load(&j, path, 100, err, sizeof err), 0);
    json_free(j);
    cr_assert_eq(json_load(&j, path, 6, err, sizeof err), ERR_LIMIT);
    cr_assert_eq(file_replace(path, "{", 1, err, sizeof err), 0);
    cr_assert_lt(json_load(&j, path, 100, err, sizeof err), 0);
    cr_assert(strstr(err, path), "%s", err);
    remove(path);
    cr_assert_eq(json_load(&j, path, 100, err, sizeof err), -ENOENT);
    cr_assert_null(j);
}

/* With PENSTOCK_DATA: a published suite of what must, must not and may be accepted. */
Test(json, the_published_suite_is_judged_as_it_asks) {
    const char *data = getenv("PENSTOCK_DATA");
    if (!data) cr_skip("PENSTOCK_DATA is unset: no JSONTestSuite");
    char command[512], path[512];
    snprintf(command, sizeof command, "ls %s/suites/JSONTestSuite/test_parsing/*.json", data);
    FILE *list = popen(command, "r");
    int judged = 0;
    while (fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = '\0';
        const char *name = strrchr(path, '/') + 1;
        struct json *j;
        char err[256] = "";
        int rc = json_load(&j, path, 1u << 20, err, sizeof err);
        /* Stricter than the suite: a key given twice or holding a NUL is refused. */
        if (name[0] == 'y' && !strstr(name, "duplicated") && !strstr(name, "null_in_key"))
            cr_expect_eq(rc, 0, "%s: %s", name, err);
        if (name[0] == 'n') cr_expect_lt(rc, 0, "%s was accepted", name);
        judged++;
        json_free(j);
    }
    pclose(list);
    cr_assert_gt(judged, 200);
}
