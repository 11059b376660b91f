#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/limits.h"
#include "pipelines/recipe.h"

static char err[512];

static struct recipe *parse(const char *yaml) {
    struct recipe *r;
    int code = recipe_parse(&r, bytes_str(yaml), "/recipes", "test", err, sizeof err);
    cr_assert_eq(code, 0, "%s", err);
    return r;
}

static void refused(const char *yaml, int code, const char *says) {
    struct recipe *r = NULL;
    int got = recipe_parse(&r, bytes_str(yaml), "/recipes", "test", err, sizeof err);
    cr_assert_eq(got, code, "%s: %d %s", yaml, got, err);
    cr_assert(strstr(err, says), "\"%s\" is not in: %s", says, err);
    cr_assert(strncmp(err, "test: ", 6) == 0, "%s", err);
}

Test(recipe, name_and_version_are_enough) {
    struct recipe *r = parse("name: a\nversion: 7\n");
    cr_assert_str_eq(r->name, "a");
    cr_assert(r->version == 7 && r->reference == NULL && r->n_causes == 0 && r->n_ignore == 0);
    cr_assert(r->affine && r->match_levels && r->color && r->contrast_min == 40);
    cr_assert(r->n_ng == 1 && bytes_is(r->ng[0].name, "defects") && r->ng[0].value == 1);
    cr_assert(r->ng[0].source == RECIPE_IMAGE && r->ng[0].op == RECIPE_GE);
    recipe_free(r);
}

Test(recipe, what_a_recipe_says_is_taken) {
    struct recipe *r = parse(
        "name: a\nversion: 2\nreference: sub/a.png\n"
        "registration: {max_shift_px: 3, map: shift, levels: keep}\n"
        "compare: {color: gray, side_px: 99, tolerance_px: 0, contrast_min: 255, merge_px: 64,\n"
        "          margin_px: 5, ignore: [{x: 1, y: 2, width: 3, height: 4}]}\n"
        "thresholds: {area_min_px: 6, score_min: 0.25, defects_max: 8,\n"
        "             ng: [{feature: image.area_px, op: \">\", value: 10},\n"
        "                  {feature: log.errors, op: ne, value: 0}]}\n"
        "classes: {brighter: hell, darker: 暗}\n"
        "causes:\n"
        "  - {cause: one, describe: something is worn}\n"
        "  - cause: two\n"
        "    rules: [{feature: \"Air temperature [K].mean\", op: \"<=\", value: -1.5e1},\n"
        "            {feature: a.b.count, op: eq, value: 3}]\n");
    cr_assert_str_eq(r->reference, "/recipes/sub/a.png");
    cr_assert(!r->affine && !r->match_levels && !r->color && r->max_shift_px == 3);
    cr_assert(r->side_px == 99 && r->tolerance_px == 0 && r->contrast_min == 255);
    cr_assert(r->merge_px == 64 && r->margin_px == 5 && r->n_ignore == 1);
    cr_assert(r->ignore[0].x == 1 && r->ignore[0].height == 4);
    cr_assert(r->area_min_px == 6 && r->score_min == 0.25 && r->defects_max == 8 && r->n_ng == 2);
    cr_assert(r->ng[1].source == RECIPE_LOG && r->ng[1].op == RECIPE_NE);
    cr_assert_str_eq(r->darker, "暗");
    cr_assert(r->n_causes == 2 && r->causes[0].n_rules == 0 && r->causes[1].describe == NULL);
    const struct recipe_rule *rule = r->causes[1].rules;
    cr_assert(bytes_is(rule->name, "Air temperature [K]") && rule->stat == RECIPE_MEAN);
    cr_assert(rule->source == RECIPE_READING && rule->op == RECIPE_LE && rule->value == -15);
    cr_assert(bytes_is(rule[1].name, "a.b") && rule[1].stat == RECIPE_COUNT);
    cr_assert(strncmp(r->yaml.data, "name: a\n", 8) == 0);
    recipe_free(r);
}

Test(recipe, what_is_wrong_is_named_with_its_limit) {
    refused("version: 1\n", ERR_FIELD, "name");
    refused("name: a\n", ERR_FIELD, "version");
    refused("name: a\nversion: x\n", ERR_FIELD, "line: 2");
    refused("name: a\nversion: -1\n", ERR_LIMIT, "version is -1; it must be 0 to 4294967295");
    refused("name: a\nversion: 1\ncolour: x\n", ERR_FIELD, "colour, line: 3; fields are");
    refused("name: a\nversion: 1\ncompare: {tolerance_px: 17}\n", ERR_LIMIT, "it must be 0 to 16");
    refused("name: a\nversion: 1\ncompare: {contrast_min: 0}\n", ERR_LIMIT, "it must be 1 to 255");
    refused("name: a\nversion: 1\ncompare: {color: hsv}\n", ERR_FIELD, "it is rgb or gray");
    refused("name: a\nversion: 1\nregistration: {map: warp}\n", ERR_FIELD, "it is affine or shift");
    refused("name: a\nversion: 1\nthresholds: {score_min: 2}\n", ERR_LIMIT, "it must be 0 to 1");
    refused("name: a\nversion: 1\nthresholds: {score_min: .nan}\n", ERR_FIELD,
            "Invalid FLOAT value");
    refused("- a\n- b\n", ERR_FIELD, "test: ");
    refused("", ERR_FIELD, "test: ");
    refused("name: [\n", ERR_FIELD, "test: ");
    refused("name: &x a\nversion: 1\nreference: *x\n", ERR_FIELD, "anchors");
}

Test(recipe, rules_name_a_feature_an_op_and_a_value) {
#define RULE(feature, op, value)                                                                   \
    "name: a\nversion: 1\nthresholds:\n  ng: [{feature: " feature ", op: " op ", value: " value    \
    "}]\n"
    refused(RULE("image.color", "gt", "1"), ERR_FIELD, "behind image. may stand: defects");
    refused(RULE("image.def", "gt", "1"), ERR_FIELD, "behind image. may stand");
    refused(RULE("image.", "gt", "1"), ERR_FIELD, "behind image. may stand");
    refused(RULE("log.lines", "gt", "1"), ERR_FIELD, "behind log. may stand: events");
    refused(RULE("temperature", "gt", "1"), ERR_FIELD, ".min, .mean, .max, .last or .count");
    refused(RULE("temperature.median", "gt", "1"), ERR_FIELD, ".min, .mean");
    refused(RULE(".max", "gt", "1"), ERR_FIELD, ".min, .mean");
    refused(RULE("t.max", "about", "1"), ERR_FIELD, "an op is one of");
    refused(RULE("t.max", "gt", "1e999"), ERR_FIELD, "");
    refused(RULE("t.max", "gt", "hot"), ERR_FIELD, "numbers are numbers");
    refused(RULE("t.max", "gt", ".inf"), ERR_FIELD, "Invalid FLOAT value");
    refused("name: a\nversion: 1\ncauses: [{cause: x}]\n", ERR_FIELD, "neither a description");
    refused("name: a\nversion: 1\ncauses: [{cause: x, describe: y}, {cause: x, describe: z}]\n",
            ERR_FIELD, "two causes are named x");
}

Test(recipe, comparisons_hold_as_their_signs_say) {
    cr_assert(recipe_op_holds(RECIPE_GT, 2, 1) && !recipe_op_holds(RECIPE_GT, 1, 1));
    cr_assert(recipe_op_holds(RECIPE_GE, 1, 1) && !recipe_op_holds(RECIPE_GE, 0, 1));
    cr_assert(recipe_op_holds(RECIPE_LT, 0, 1) && !recipe_op_holds(RECIPE_LT, 1, 1));
    cr_assert(recipe_op_holds(RECIPE_LE, 1, 1) && !recipe_op_holds(RECIPE_LE, 2, 1));
    cr_assert(recipe_op_holds(RECIPE_EQ, 1, 1) && !recipe_op_holds(RECIPE_EQ, 2, 1));
    cr_assert(recipe_op_holds(RECIPE_NE, 2, 1) && !recipe_op_holds(RECIPE_NE, 1, 1));
    cr_assert_str_eq(recipe_op_text(RECIPE_LE), "<=");
}

Test(recipe, a_reference_stays_below_the_recipes_folder) {
    static const char *const bad[] = {"/etc/passwd", "..", "../a.png", "a/../../b", "a/.."};
    char yaml[200];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(yaml, sizeof yaml, "name: a\nversion: 1\nreference: %s\n", bad[i]);
        refused(yaml, ERR_FIELD, "is not below");
    }
    struct recipe *r = parse("name: a\nversion: 1\nreference: a..b/.c.png\n");
    recipe_free(r);
    int code = recipe_parse(&r, bytes_str("name: a\nversion: 1\nreference: a.png\n"), NULL,
                            "recipe", err, sizeof err);
    cr_assert_eq(code, ERR_FIELD);
    cr_assert(strstr(err, "the job's field reference"), "%s", err);
}

Test(recipe, a_text_that_is_too_long_or_no_text_is_refused) {
    char *text = malloc(LIMIT_RECIPE_BYTES + 1);
    struct recipe *r;
    memset(text, ' ', LIMIT_RECIPE_BYTES + 1);
    cr_assert_eq(
        recipe_parse(&r, bytes_of(text, LIMIT_RECIPE_BYTES + 1), NULL, "x", err, sizeof err),
        ERR_LIMIT);
    free(text);
    cr_assert_eq(recipe_parse(&r, bytes_of("name: \xFF\n", 8), NULL, "x", err, sizeof err),
                 ERR_FIELD);
    cr_assert_eq(recipe_parse(&r, bytes_of("name: a\0b", 9), NULL, "x", err, sizeof err),
                 ERR_FIELD);
}

Test(recipe, recipes_are_found_by_name_and_others_are_listed) {
    char dir[] = "/tmp/penstock-recipe-XXXXXX", path[100];
    struct recipe *r;
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(recipe_load(&r, dir, bytes_str("x"), err, sizeof err), ERR_UNKNOWN);
    cr_assert(strstr(err, "there is none"), "%s", err);
    snprintf(path, sizeof path, "%s/one.yaml", dir);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs("name: one\nversion: 1\nreference: one.png\n", f);
    fclose(f);
    cr_assert_eq(recipe_load(&r, dir, bytes_str("one"), err, sizeof err), 0, "%s", err);
    cr_assert(strstr(r->reference, "/one.png"));
    recipe_free(r);
    cr_assert_eq(recipe_load(&r, dir, bytes_str("two"), err, sizeof err), ERR_UNKNOWN);
    cr_assert(strstr(err, "there are: one"), "%s", err);
    static const char *const bad[] = {"../one", ".one", "", "a/b"};
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(recipe_load(&r, dir, bytes_str(bad[i]), err, sizeof err), ERR_FIELD, "%s",
                     err);
    char found[200];
    setenv("PENSTOCK_RECIPES", dir, 1);
    cr_assert_eq(recipes_dir(NULL, found, sizeof found, err, sizeof err), 0, "%s", err);
    cr_assert_str_eq(found, dir);
    setenv("PENSTOCK_RECIPES", "/nowhere", 1);
    cr_assert_eq(recipes_dir(dir, found, sizeof found, err, sizeof err), 0, "named: %s", err);
    cr_assert_str_eq(found, dir);
    unlink(path);
    rmdir(dir);
    cr_assert_eq(recipes_dir(NULL, found, sizeof found, err, sizeof err), -ENOENT);
    unsetenv("PENSTOCK_RECIPES");
}
