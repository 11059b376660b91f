#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/qc/help.h"
#include "workers/post/qc.h"

static struct arena arena;
static char err[512];
static struct recipe *recipe;
static struct part_facts facts;

static void begin(void) {
    arena_init(&arena, 1u << 26);
    recipe = NULL;
    facts = (struct part_facts){.image = {.compared = true, .width = 640, .height = 480}};
}
static void end(void) {
    recipe_free(recipe);
    arena_fini(&arena);
}
TestSuite(judge, .init = begin, .fini = end);

static void use(const char *yaml) {
    int code = recipe_parse(&recipe, bytes_str(yaml), NULL, "test", err, sizeof err);
    cr_assert_eq(code, 0, "%s", err);
}

static struct qc_verdict judge(const float *vectors, uint32_t n, uint32_t dim) {
    struct qc_verdict v;
    int code = qc_judge(recipe, &facts, vectors, n, dim, &arena, &v, err, sizeof err);
    cr_assert_eq(code, 0, "%s", err);
    return v;
}

static struct image_region region(uint32_t x, uint32_t area, uint32_t contrast, bool brighter) {
    return (struct image_region){{x, 1, 9, 9}, area, contrast, brighter};
}

static struct part_line line(uint32_t n, const char *text) {
    return (struct part_line){n, DEVLOG_NO_TIME, bytes_str(text)};
}

/* ---- OK and NG ---- */

Test(judge, a_part_without_regions_is_ok) {
    use("name: a\nversion: 1\n");
    struct qc_verdict v = judge(NULL, 0, 0);
    cr_assert(!v.ng && v.n_defects == 0 && v.score == 0 && v.n_causes == 0);
}

Test(judge, regions_below_a_threshold_are_no_defects_but_show_in_the_score) {
    struct image_region regions[] = {region(10, 100, 255, true), region(20, 19, 255, false)};
    facts.image.regions = regions;
    facts.image.n = 2;
    use("name: a\nversion: 1\nthresholds: {area_min_px: 20}\n"
        "classes: {brighter: more, darker: less}\n");
    struct qc_verdict v = judge(NULL, 0, 0);
    cr_assert(v.ng && v.n_defects == 1 && v.defects[0].box.x == 10);
    cr_assert_str_eq(v.defects[0].class, "more");
    cr_assert_float_eq(v.defects[0].score, 100.0 / 120, 1e-12);
    regions[0].area_px = 15;
    v = judge(NULL, 0, 0);
    cr_assert(!v.ng && v.n_defects == 0);
    cr_assert_float_eq(v.score, 19.0 / 39, 1e-12);
}

Test(judge, scores_rise_with_area_and_contrast_and_stay_below_one) {
    use("name: a\nversion: 1\n");
    double last = 0;
    for (uint32_t i = 20; i < 200000; i = i * 3) {
        struct image_region one = region(0, i, 200, true);
        facts.image.regions = &one;
        facts.image.n = 1;
        struct qc_verdict v = judge(NULL, 0, 0);
        cr_assert(v.score > last && v.score < 1);
        last = v.score;
        one.contrast = 150;
        cr_assert_lt(judge(NULL, 0, 0).score, last);
    }
}

Test(judge, defects_come_worst_first_and_capped_but_all_are_counted) {
    struct image_region regions[100];
    for (uint32_t i = 0; i < 100; i++) regions[i] = region(i, 30 + i * 7 % 100, 100, i % 2);
    facts.image.regions = regions;
    facts.image.n = 100;
    use("name: a\nversion: 1\nthresholds: {defects_max: 10, ng: [{feature: image.defects, op: eq, "
        "value: 100}]}\n");
    struct qc_verdict v = judge(NULL, 0, 0);
    cr_assert(v.ng && v.n_defects == 10 && v.n_defects_all == 100);
    for (uint32_t i = 1; i < 10; i++) cr_assert_leq(v.defects[i].score, v.defects[i - 1].score);
}

Test(judge, every_image_feature_can_decide) {
    struct image_region regions[] = {region(1, 50, 90, true), region(30, 70, 60, true)};
    static const struct {
        const char *name;
        double value;
    } features[] = {{"defects", 2},   {"area_px", 120}, {"largest_px", 70},
                    {"contrast", 90}, {"shift_px", 5},  {"residual", 1.5}};
    facts.image.regions = regions;
    facts.image.n = 2;
    facts.image.shift_x = 3, facts.image.shift_y = -4, facts.image.residual = 1.5;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        char yaml[300];
        for (int over = 0; over < 2; over++) {
            snprintf(yaml, sizeof yaml,
                     "name: a\nversion: 1\nthresholds: {ng: [{feature: image.%s, op: gt, value: "
                     "%g}]}\n",
                     features[i].name, features[i].value - 0.5 + over);
            recipe_free(recipe);
            use(yaml);
            struct qc_verdict v = judge(NULL, 0, 0);
            cr_assert_eq(v.ng, !over, "%s", yaml);
            cr_assert_float_eq(v.rules[0].value, features[i].value, 1e-9);
        }
    }
}

Test(judge, readings_of_the_log_can_decide) {
    struct part_reading readings[] = {
        {bytes_str("t"), 4, 1, 2.5, 4, 3, line(7, "low"), line(8, "high"), line(9, "end")}};
    static const char *const holds[] = {
        "t.min, op: eq, value: 1",        "t.mean, op: eq, value: 2.5",
        "t.max, op: eq, value: 4",        "t.last, op: eq, value: 3",
        "t.count, op: eq, value: 4",      "log.errors, op: eq, value: 6",
        "log.malformed, op: eq, value: 5"};
    static const uint32_t lines[] = {7, 8, 8, 9, 9, 0, 0};
    facts.has_log = true;
    facts.log =
        (struct part_log){.readings = readings, .n_readings = 1, .errors = 6, .malformed = 5};
    for (size_t i = 0; i < sizeof holds / sizeof *holds; i++) {
        char yaml[300];
        snprintf(yaml, sizeof yaml, "name: a\nversion: 1\nthresholds: {ng: [{feature: %s}]}\n",
                 holds[i]);
        recipe_free(recipe);
        use(yaml);
        struct qc_verdict v = judge(NULL, 0, 0);
        cr_assert(v.ng && v.rules[0].measured, "%s", holds[i]);
        cr_assert_eq(v.rules[0].at.line, lines[i], "%s: line %u", holds[i], v.rules[0].at.line);
    }
}

Test(judge, a_rule_that_was_not_measured_does_not_hold_and_none_measured_is_refused) {
    struct qc_verdict v;
    use("name: a\nversion: 1\nthresholds: {ng: [{feature: image.defects, op: ge, value: 1}, "
        "{feature: missing.max, op: ne, value: 1}]}\n");
    v = judge(NULL, 0, 0);
    cr_assert(!v.ng && v.rules[0].measured && !v.rules[1].measured && !v.rules[1].holds);
    facts.image.compared = false;
    cr_assert_eq(qc_judge(recipe, &facts, NULL, 0, 0, &arena, &v, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "give a reference image"), "%s", err);
}

/* ---- causes ---- */

static const char three[] =
    "name: a\nversion: 1\nthresholds: {ng: [{feature: image.defects, op: ge, "
    "value: 0}]}\n"
    "causes:\n"
    "  - {cause: first, describe: d}\n"
    "  - cause: ruled\n"
    "    rules: [{feature: t.max, op: gt, value: 3}, {feature: t.min, op: "
    "gt, value: 3}]\n"
    "  - {cause: second, describe: d}\n"
    "  - cause: both\n"
    "    describe: d\n"
    "    rules: [{feature: t.max, op: gt, value: 3}]\n";

/* Two axes: causes along them, events between. */
static const float axes[] = {
    1,    0,    /* first */
    0,    1,    /* second */
    0,    1,    /* both */
    0.6f, 0.8f, /* event 0, an error */
    1,    0,    /* event 1, plain */
    -1,   0     /* event 2 */
};

static void with_log(void) {
    static struct part_event events[3];
    static struct part_reading readings[1];
    events[0] = (struct part_event){.severity = DEVLOG_ERROR, .first = line(11, "e0")};
    events[1] = (struct part_event){.severity = DEVLOG_PLAIN, .first = line(12, "e1")};
    events[2] = (struct part_event){.severity = DEVLOG_PLAIN, .first = line(13, "e2")};
    readings[0] = (struct part_reading){
        bytes_str("t"), 2, 1, 2.5, 4, 4, line(21, "low"), line(22, "high"), line(22, "high")};
    facts.has_log = true;
    facts.log =
        (struct part_log){.readings = readings, .n_readings = 1, .chosen = events, .n_chosen = 3};
}

Test(judge, causes_are_ranked_by_likeness_and_rules_with_their_lines) {
    with_log();
    use(three);
    struct qc_verdict v = judge(axes, 6, 2);
    cr_assert_eq(v.n_causes, 3);
    cr_assert_str_eq(v.causes[0].cause, "both"); /* (0.8 + 1) / 2 */
    cr_assert_float_eq(v.causes[0].score, 0.9, 1e-6);
    cr_assert_str_eq(v.causes[1].cause, "first"); /* plain events count 0.85 */
    cr_assert_float_eq(v.causes[1].score, 0.85, 1e-6);
    cr_assert_str_eq(v.causes[2].cause, "second");
    cr_assert_float_eq(v.causes[2].score, 0.8, 1e-6);
    cr_assert(v.causes[0].n_evidence == 2 && v.causes[0].evidence[0].line.line == 11);
    cr_assert(v.causes[0].evidence[1].line.line == 22 && v.causes[0].evidence[1].rule);
    cr_assert(v.causes[1].n_evidence == 1 && v.causes[1].evidence[0].line.line == 12);
}

Test(judge, without_vectors_only_rules_rank) {
    with_log();
    use(three);
    struct qc_verdict v = judge(NULL, 0, 0);
    cr_assert_eq(v.n_causes, 2);
    cr_assert_str_eq(v.causes[0].cause, "both");
    cr_assert_float_eq(v.causes[0].score, 1, 0);
    cr_assert_str_eq(v.causes[1].cause, "ruled");
    cr_assert_float_eq(v.causes[1].score, 0.5, 0);
}

Test(judge, a_good_part_has_no_causes) {
    with_log();
    use("name: a\nversion: 1\ncauses: [{cause: first, describe: d}]\n");
    struct qc_verdict v = judge(axes, 6, 2);
    cr_assert(!v.ng && v.n_causes == 0);
}

Test(judge, vectors_that_are_not_as_many_as_the_texts_are_refused) {
    struct qc_verdict v;
    with_log();
    use(three);
    cr_assert_eq(qc_judge(recipe, &facts, axes, 5, 2, &arena, &v, err, sizeof err), ERR_CORRUPT);
}

/* ---- facts on their way ---- */

Test(judge, facts_arrive_as_they_were_sent) {
    struct image_region regions[] = {region(10, 100, 255, true), region(20, 19, 25, false)};
    struct part_facts back;
    struct pack_doc *doc;
    with_log();
    facts.recipe = bytes_str("name: a\n");
    facts.image = (struct part_image){
        bytes_str("png"), 640, 480, 2, 6, true, true, 1.5, -2.25, 0.5, 1.25, -3, regions, 2, 9};
    facts.log.format = bytes_str("csv");
    facts.log.time_first_ms = -5;
    facts.log.time_last_ms = DEVLOG_NO_TIME;
    facts.log.events = 77;
    facts.log.templates = 3;
    struct buf b = {0};
    struct packer p = packer_of(&b);
    part_facts_pack(&p, &facts);
    cr_assert_eq(pack_parse(&doc, buf_bytes(&b), err, sizeof err), 0, "%s", err);
    cr_assert_eq(part_facts_read(&back, pack_root(doc), &arena), 0);
    cr_assert(bytes_is(back.recipe, "name: a\n") && back.has_log &&
              bytes_is(back.log.format, "csv"));
    cr_assert(back.image.n == 2 && back.image.n_all == 9 && back.image.orientation == 6);
    cr_assert(back.image.shift_y == -2.25 && back.image.refined && back.image.offset == -3);
    cr_assert(back.image.regions[0].brighter && back.image.regions[1].box.x == 20);
    cr_assert(back.log.time_first_ms == -5 && back.log.time_last_ms == DEVLOG_NO_TIME);
    cr_assert(back.log.events == 77 && back.log.templates == 3 && back.log.n_chosen == 3);
    cr_assert(back.log.chosen[1].first.line == 12 && back.log.chosen[0].severity == DEVLOG_ERROR);
    cr_assert(back.log.readings[0].at_max.line == 22 && back.log.readings[0].mean == 2.5);
    for (size_t cut = 0; cut < b.len; cut++) { /* what another version or a fault may send */
        struct pack_doc *other;
        uint8_t kept = b.data[cut];
        b.data[cut] = 0xC0;
        if (pack_parse(&other, buf_bytes(&b), err, sizeof err) == 0) {
            int code = part_facts_read(&back, pack_root(other), &arena);
            cr_assert(code == 0 || code == ERR_CORRUPT, "byte %zu: %d", cut, code);
            pack_free(other);
        }
        b.data[cut] = kept;
    }
    pack_free(doc);
    buf_fini(&b);
}
