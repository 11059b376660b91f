#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "broker/caps.h"
#include "pipelines/settings.h"

static char path[64], err[1024];
static struct settings *s;

static void setup(void) {
    strcpy(path, "/tmp/penstock-settings-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void teardown(void) {
    settings_free(s);
    unlink(path);
}
TestSuite(settings, .init = setup, .fini = teardown);

static int load(const char *text) {
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
    settings_free(s);
    s = NULL;
    return settings_load(&s, path, err, sizeof err);
}

/* The text is refused with this code, and the message has each of the words. */
static void expect_refused(const char *text, int code, const char *const *words) {
    int got = load(text);
    cr_assert_eq(got, code, "%s gave %d: %s", text, got, err);
    cr_assert(strstr(err, path), "%s", err);
    for (; *words; words++) cr_assert(strstr(err, *words), "\"%s\" lacks \"%s\"", err, *words);
    cr_assert_null(s);
}
#define REFUSED(text, code, ...) expect_refused(text, code, (const char *[]){__VA_ARGS__, NULL})

Test(settings, without_a_file_everybody_has_weight_one_and_nothing_is_bounded) {
    cr_assert_eq(settings_load(&s, NULL, err, sizeof err), 0, "%s", err);
    cr_assert_eq(settings_tenant(s, "any")->weight, 1);
    for (int i = 0; i < SETTINGS_LEVELS; i++)
        cr_assert(s->levels[i].bounds.jobs_max == 0 && s->levels[i].bounds.bytes_max == 0);
    cr_assert_eq(s->n_stages, 0);
    cr_assert_eq(s->dedupe_window_ms, 0);
    cr_assert_eq(load("dedupe_window_s: 86400\n"), 0, "%s", err);
    cr_assert_eq(s->dedupe_window_ms, 86400000);
}

Test(settings, every_part_is_read_and_a_star_is_whoever_is_not_named) {
    int e = load("tenants:\n  - {name: a, weight: 3}\n  - {name: \"*\", weight: 2}\n  - {name: b}\n"
                 "levels:\n  - {level: 9, jobs_max: 5, bytes_max: 70000000000}\n"
                 "stages:\n  - {run: infer.embed, jobs_max: 8}\n  - {run: post.embed}\n");
    cr_assert_eq(e, 0, "%s", err);
    cr_assert_eq(settings_tenant(s, "a")->weight, 3);
    cr_assert_eq(settings_tenant(s, "b")->weight, 1);
    cr_assert_eq(settings_tenant(s, "c")->weight, 2);
    cr_assert(s->levels[9].bounds.jobs_max == 5 && s->levels[9].bounds.bytes_max == 70000000000);
    cr_assert(s->levels[8].bounds.jobs_max == 0);
    cr_assert(s->n_stages == 2 && s->stages[0].bounds.jobs_max == 8);
    cr_assert_str_eq(s->stages[1].run, "post.embed");
}

Test(settings, a_tenant_has_quotas_and_a_burst_of_a_second_if_nothing_else_is_said) {
    int e = load("tenants:\n  - {name: a, jobs_max: 4, bytes_max: 99, rate_per_s: 2.5}\n"
                 "  - {name: b, rate_per_s: 0.25}\n  - {name: c, rate_per_s: 5, burst: 50}\n");
    cr_assert_eq(e, 0, "%s", err);
    const struct settings_tenant *a = settings_tenant(s, "a"), *b = settings_tenant(s, "b");
    cr_assert(a->bounds.jobs_max == 4 && a->bounds.bytes_max == 99 && a->burst == 3);
    cr_assert_float_eq(a->rate_per_s, 2.5, 1e-9);
    cr_assert(b->burst == 1 && b->bounds.jobs_max == 0);
    cr_assert_eq(settings_tenant(s, "c")->burst, 50);
    cr_assert(settings_tenant(s, "d")->rate_per_s == 0.0);
}

Test(settings, sources_and_full_levels_have_policies) {
    int e = load("levels:\n  - {level: 2, jobs_max: 5, full: drop_oldest}\n"
                 "  - {level: 3, jobs_max: 5, full: reject}\n"
                 "sources:\n  - {name: a, policy: block, depth: 7}\n"
                 "  - {name: b, policy: sample, depth: 9, interval_ms: 40}\n"
                 "  - {name: \"*\", policy: drop_oldest, depth: 1}\n"
                 "  - {name: c, policy: sample, depth: 9, above: 0, keep_one_of: 5}\n");
    cr_assert_eq(e, 0, "%s", err);
    cr_assert(s->levels[2].drops && !s->levels[3].drops);
    const struct settings_source *a = settings_source(s, "a"), *b = settings_source(s, "b");
    cr_assert(a->policy == SOURCE_BLOCK && a->depth == 7);
    cr_assert(b->policy == SOURCE_SAMPLE && b->above == 4 && b->interval_ms == 40);
    cr_assert_eq(settings_source(s, "c")->above, 0);
    cr_assert(settings_source(s, "z")->policy == SOURCE_DROP_OLDEST);
    cr_assert_eq(load("tenants: []\n"), 0, "%s", err);
    cr_assert_eq(settings_source(s, "z")->depth, 0, "without a file nothing is bounded");
}

Test(settings, a_source_without_a_whole_policy_is_refused) {
    REFUSED("sources:\n  - {name: a, policy: drop, depth: 1}\n", ERR_FIELD, "sources: a: policy",
            "block, drop_oldest or sample", "line: 2");
    REFUSED("sources:\n  - {name: a, policy: block}\n", ERR_FIELD, "depth", "needs");
    REFUSED("sources:\n  - {name: a, policy: block, depth: 0}\n", ERR_LIMIT, "depth", "1 to 4096");
    REFUSED("sources:\n  - {name: a, policy: sample, depth: 4}\n", ERR_FIELD, "a: policy",
            "keep_one_of or interval_ms", "line: 2");
    REFUSED("sources:\n  - {name: x, policy: block, depth: 4}\n"
            "  - {name: a, policy: sample, depth: 4, keep_one_of: 2, interval_ms: 9}\n",
            ERR_FIELD, "a: policy", "either", "line: 3");
    REFUSED("sources:\n  - {name: a, policy: block, depth: 4, above: 2}\n", ERR_FIELD,
            "not sample");
    REFUSED("sources:\n  - {name: a, policy: sample, depth: 4, above: 5, keep_one_of: 2}\n",
            ERR_LIMIT, "above", "0 to 4");
    REFUSED("levels:\n  - {level: 1, full: explode}\n", ERR_FIELD, "full", "reject or drop_oldest");
}

Test(settings, the_example_is_as_the_broker_reads_it) {
    cr_assert_eq(settings_load(&s, "examples/settings.yaml", err, sizeof err), 0, "%s", err);
    cr_assert_eq(settings_tenant(s, "factory")->weight, 3);
    cr_assert_gt(s->n_stages, 0);
}

Test(settings, a_refusal_names_file_line_field_and_limit) {
    REFUSED("tenants:\n  - {name: a}\n  - {name: b, weight: 0}\n", ERR_LIMIT, "tenants: b: weight",
            "is 0", "1 to 1000", "line: 3");
    REFUSED("# weight: is said below\ntenants:\n  - weight: 1001\n    name: a\n", ERR_LIMIT,
            "tenants: a: weight", "1001", "line: 3");
    REFUSED("levels:\n  - {level: 1, jobs_max: 3}\n  - {level: 2, jobs_max: -3}\n", ERR_LIMIT,
            "levels: 2: jobs_max", "-3", "1 to 1000000", "line: 3");
    REFUSED("tenants:\n  - {name: a, rate_per_s: 0}\n", ERR_LIMIT, "a: rate_per_s", "0.001",
            "line: 2");
    REFUSED("tenants:\n  - {name: a, burst: 4}\n", ERR_FIELD, "a: burst", "rate_per_s");
    REFUSED("tenants: [{name: a, jobs_max: 1000001}]\n", ERR_LIMIT, "jobs_max", "1000000");
    REFUSED("tenants: []\n\ndedupe_window_s: 0\n", ERR_LIMIT, "dedupe_window_s is 0", "1 to",
            "line: 3");
    REFUSED("levels: [{level: 10}]\n", ERR_LIMIT, "level is 10", "0 to 9", "line: 1");
    REFUSED("stages:\n  - {run: x, bytes_max: 0}\n", ERR_LIMIT, "stages: x: bytes_max", "line: 2");
}

Test(settings, a_file_that_says_something_twice_or_nothing_known_is_refused) {
    REFUSED("tenants:\n  - {name: a}\n  - {name: a}\n", ERR_FIELD, "a: name", "twice", "line: 3");
    REFUSED("levels:\n  - {level: 4}\n\n  - {level: 4}\n", ERR_FIELD, "4: level", "twice",
            "line: 4");
    REFUSED("stages:\n  - {run: x}\n  - {run: x}\n", ERR_FIELD, "x: run", "twice", "line: 3");
    REFUSED("tenants:\n  - {name: \"a b\"}\n", ERR_FIELD, "a b: name", "letters", "line: 2");
    REFUSED("stages:\n  - {run: \"*\"}\n", ERR_FIELD, "*: run", "letters");
    REFUSED("tenant:\n  - {name: a}\n", ERR_FIELD, "tenant", "fields are tenants", "line: 1");
    REFUSED("tenants:\n  - {weight: 1}\n", ERR_FIELD, "name", "a tenant needs its name", "line");
    REFUSED("tenants: {a: 1}\n", ERR_FIELD, "lists of maps");
    REFUSED("", ERR_FIELD, "empty");
    unlink(path);
    cr_assert_eq(settings_load(&s, path, err, sizeof err), -ENOENT, "%s", err);
}

/* ---- gauges ---- */

Test(gauge, it_says_when_there_will_be_room_at_the_pace_of_late) {
    struct gauge g = {0};
    int64_t now = 1000;
    for (int i = 0; i < 2000; i++) gauge_take(&g, 500);
    cr_assert_eq(gauge_retry_ms(&g, 1, 0, now), GAUGE_RETRY_UNKNOWN_MS);
    for (int i = 0; i < 1000; i++, now += 20) gauge_give(&g, 500, now); /* 50 a second */
    cr_assert_float_eq((double)gauge_retry_ms(&g, 1, 0, now), 20, 2);
    cr_assert_float_eq((double)gauge_retry_ms(&g, 100, 0, now), 2000, 100);
    cr_assert_float_eq((double)gauge_retry_ms(&g, 0, 50000, now), 2000, 100);
    cr_assert_float_eq((double)gauge_retry_ms(&g, 1, 50000, now), 2000, 100, "the longer one");
    for (int i = 0; i < 500; i++, now += 200) gauge_give(&g, 500, now); /* and now 5 */
    cr_assert_float_eq((double)gauge_retry_ms(&g, 10, 0, now), 2000, 100);
    cr_assert_eq(gauge_retry_ms(&g, 1e9, 0, now), GAUGE_RETRY_MAX_MS);
    cr_assert_eq(gauge_retry_ms(&g, 1, 0, now + 1000000000), GAUGE_RETRY_MAX_MS);
    cr_assert_eq(gauge_retry_ms(&g, 1e-9, 0, now), GAUGE_RETRY_MIN_MS);
    cr_assert(g.jobs == 500 && g.bytes == 250000);
}

Test(gauge, what_is_not_bounded_is_never_full) {
    struct gauge g = {.jobs = 4, .bytes = 100};
    cr_assert_eq(gauge_full(&g, &(struct settings_bounds){0, 0}, 1 << 30), GAUGE_ROOM);
    cr_assert_eq(gauge_full(&g, &(struct settings_bounds){5, 110}, 10), GAUGE_ROOM);
    cr_assert_eq(gauge_full(&g, &(struct settings_bounds){5, 110}, 11), GAUGE_BYTES);
    cr_assert_eq(gauge_full(&g, &(struct settings_bounds){4, 110}, 10), GAUGE_JOBS);
}

/* ---- caps ---- */

static struct pipeline_stage stages[] = {
    {.name = "a", .run = "one"}, {.name = "b", .run = "two"}, {.name = "c", .run = "one"}};
static struct pipeline chain = {.name = "chain", .n_stages = 3, .stages = stages};
static struct settings_stage capped[] = {{.run = "one", .bounds = {.jobs_max = 2}},
                                         {.run = "two", .bounds = {1, 1000}}};
static struct settings two_caps = {.stages = capped, .n_stages = 2};

static struct job *job_at(uint32_t stage, enum job_state state, uint32_t span, uint64_t bytes) {
    struct job *j = job_new(&chain);
    cr_assert_not_null(j);
    j->stage = stage;
    j->state = state;
    j->span = (uint8_t)span;
    j->body.bytes = bytes;
    return j;
}

Test(caps, a_lease_counts_behind_its_span_and_what_is_full_there_shortens_it) {
    struct caps c = {0};
    cr_assert_eq(caps_set(&c, &two_caps), 0);
    struct job *j = job_at(0, JOB_READY, 0, 10), *k = job_at(0, JOB_READY, 0, 10);
    caps_follow(&c, j, 0);
    caps_follow(&c, k, 0);
    cr_assert(c.cap[0].at[0].jobs == 2 && c.cap[0].at[2].jobs == 0);
    cr_assert_eq(caps_span(&c, j, 3), 3);
    j->state = JOB_LEASED;
    j->span = 1;
    caps_follow(&c, j, 0);
    cr_assert(c.cap[1].at[1].jobs == 1, "room at the next stage is kept for it");
    cr_assert_eq(caps_span(&c, k, 3), 0);
    j->state = JOB_READY;
    j->stage = 1;
    caps_follow(&c, j, 0);
    cr_assert(c.cap[0].at[0].jobs == 1 && c.cap[1].at[1].jobs == 1);
    j->state = JOB_LEASED;
    j->span = 2;
    caps_follow(&c, j, 0);
    cr_assert(c.cap[0].at[2].jobs == 1, "the same program at another place counts for itself");
    j->state = JOB_DONE;
    caps_follow(&c, j, 0);
    cr_assert(c.cap[1].at[1].jobs == 0 && c.cap[0].at[2].jobs == 0);
    cr_assert_eq(caps_span(&c, k, 3), 3);
    caps_leave(&c, k, 0);
    cr_assert_eq(c.cap[0].at[0].jobs, 0);
    job_free(j);
    job_free(k);
    caps_fini(&c);
}

Test(caps, bytes_are_bounded_but_one_job_alone_has_room_whatever_its_size) {
    struct caps c = {0};
    enum gauge_full what;
    cr_assert_eq(caps_set(&c, &two_caps), 0);
    capped[1].bounds.jobs_max = 9;
    struct job *big = job_at(0, JOB_READY, 0, 5000), *small = job_at(1, JOB_READY, 0, 700);
    cr_assert_eq(caps_span(&c, big, 1), 1);
    caps_follow(&c, small, 0);
    cr_assert_eq(caps_span(&c, big, 1), 0);
    caps_leave(&c, small, 0);
    big->state = JOB_LEASED;
    big->span = 1;
    caps_follow(&c, big, 0);
    struct job *next = job_at(0, JOB_READY, 0, 1);
    cr_assert_eq(caps_span(&c, next, 1), 0);
    cr_assert_null(caps_entry_full(&c, &chain, 1, &what));
    caps_follow(&c, next, 0);
    cr_assert_eq(caps_entry_full(&c, &chain, 1, &what), &c.cap[0]);
    cr_assert_eq(what, GAUGE_JOBS);
    job_free(big);
    job_free(small);
    job_free(next);
    caps_fini(&c);
}
