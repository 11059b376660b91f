#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/limits.h"
#include "pipelines/pipeline.h"
#include "schemas/pack.h"

static char dir[64];
static char err[1024];
static struct pipelines set;

static void setup(void) {
    strcpy(dir, "/tmp/penstock-pipelines-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void teardown(void) {
    pipelines_free(&set);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
TestSuite(pipeline, .init = setup, .fini = teardown);

static char *write_file(const char *name, const char *text) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static int load_text(const char *text) {
    err[0] = '\0';
    return pipeline_load(&set, write_file("p.yaml", text), err, sizeof err);
}

#define HEAD "name: mine\nkind: text.embed\n"
#define STAGES "stages:\n  - {name: infer, run: infer.embed}\n"

/* The text is refused with this code, and the message has each of the words. */
static void expect_refused(const char *text, int code, const char *const *words) {
    int got = load_text(text);
    cr_assert_eq(got, code, "%s gave %d: %s", text, got, err);
    cr_assert(strstr(err, "p.yaml"), "%s", err);
    for (; *words; words++) cr_assert(strstr(err, *words), "\"%s\" lacks \"%s\"", err, *words);
    cr_assert_eq(set.n, 0);
}
#define REFUSED(text, code, ...) expect_refused(text, code, (const char *[]){__VA_ARGS__, NULL})

Test(pipeline, the_files_of_this_repository_load) {
    cr_assert_eq(pipelines_load(&set, "pipelines", err, sizeof err), 0, "%s", err);
    cr_assert_geq(set.n, 3);
    const char *const names[] = {"text.embed", "text.generate", "contract.analyze"};
    const char *const runs[][4] = {
        {"encode.texts", "infer.embed", "post.embed"},
        {"encode.prompt", "infer.generate", "post.generate"},
        {"encode.document", "encode.contract", "infer.embed", "post.contract"}};
    static const uint32_t n_stages[] = {3, 3, 4};
    for (int i = 0; i < 3; i++) {
        const struct pipeline *p = pipeline_find(&set, bytes_str(names[i]));
        cr_assert_not_null(p, "%s", names[i]);
        cr_assert_str_eq(p->kind, names[i]);
        cr_assert_eq(p->n_stages, n_stages[i]);
        for (uint32_t k = 0; k < p->n_stages; k++) {
            cr_assert_str_eq(p->stages[k].run, runs[i][k]);
            cr_assert_eq(p->stages[k].checkpoint, i == 2 && k == 2);
        }
    }
    cr_assert_null(pipeline_find(&set, bytes_str("text")));
}

Test(pipeline, what_a_file_leaves_out_has_its_default) {
    cr_assert_eq(load_text(HEAD STAGES), 0, "%s", err);
    const struct pipeline *p = pipeline_find(&set, bytes_str("mine"));
    cr_assert_not_null(p);
    cr_assert(p->tries_max == 3 && p->deaths_max == 3 && p->queue_max == 100000);
    cr_assert(p->backoff_ms == 200 && p->backoff_max_ms == 10000);
    const struct pipeline_stage *s = &p->stages[0];
    cr_assert(s->timeout_ms == 60000 && s->batch_max == 1 && s->batch_delay_ms == 0);
    cr_assert(!s->model && !s->adapter && !s->checkpoint);
}

Test(pipeline, what_a_file_says_is_taken) {
    int code = load_text(HEAD "timeout_ms: 7000\nqueue_max: 5\n"
                              "retry: {max: 2, backoff_ms: 10, backoff_max_ms: 20, deaths_max: 1}\n"
                              "stages:\n"
                              "  - {name: a, run: x.y, model: m-1, adapter: l, timeout_ms: 9,\n"
                              "     batch: {max: 8, delay_ms: 3}, checkpoint: true}\n"
                              "  - {name: b, run: z, timeout_ms: 0, batch: {slo_ms: 80}}\n");
    cr_assert_eq(code, 0, "%s", err);
    const struct pipeline *p = set.items[0];
    cr_assert(p->tries_max == 2 && p->deaths_max == 1 && p->queue_max == 5);
    cr_assert(p->backoff_ms == 10 && p->backoff_max_ms == 20);
    cr_assert_str_eq(p->stages[0].model, "m-1");
    cr_assert_str_eq(p->stages[0].adapter, "l");
    cr_assert(p->stages[0].timeout_ms == 9 && p->stages[0].batch_max == 8);
    cr_assert(p->stages[0].batch_delay_ms == 3 && p->stages[0].checkpoint);
    cr_assert_eq(p->stages[1].timeout_ms, 7000, "0 takes the pipeline's");
    cr_assert(p->stages[0].batch_slo_ms == 0 && p->stages[1].batch_slo_ms == 80);
}

Test(pipeline, a_key_that_nobody_knows_is_refused_with_its_name_and_line) {
    REFUSED(HEAD STAGES "retries: 3\n", ERR_FIELD, "retries", "line: 5", "retry");
    REFUSED(HEAD "stages:\n  - {name: a, run: b, batchs: {max: 3}}\n", ERR_FIELD, "batchs",
            "line: 4");
    REFUSED(HEAD "stages:\n  - {name: a, run: b, batch: {most: 3}}\n", ERR_FIELD, "most");
}

Test(pipeline, a_missing_field_is_named) {
    REFUSED("kind: text.embed\n" STAGES, ERR_FIELD, "name", "needs");
    REFUSED("name: mine\n" STAGES, ERR_FIELD, "kind");
    REFUSED(HEAD, ERR_FIELD, "stages");
    REFUSED(HEAD "stages:\n  - {name: infer}\n", ERR_FIELD, "run");
    REFUSED(HEAD "stages: []\n", ERR_FIELD, "1 to 16 stages");
}

Test(pipeline, a_number_is_one_to_its_last_character) {
    static const char *const no[] = {"60s", "12abc", "1.9e3", "1.5", "0x10", "010", "+5", "5-"};
    char text[512], quoted[32];
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        snprintf(text, sizeof text, HEAD "stages:\n  - {name: a, run: b, timeout_ms: %s}\n", no[i]);
        snprintf(quoted, sizeof quoted, "is \"%s\"", no[i]);
        REFUSED(text, ERR_FIELD, "timeout_ms", quoted, "line: 4");
    }
    REFUSED(HEAD "stages:\n  - {name: a, run: b, batch: {slo_ms: 0.5}}\n", ERR_FIELD, "slo_ms",
            "whole number");
}

Test(pipeline, a_number_out_of_its_bounds_is_refused_with_the_bounds) {
    REFUSED(HEAD STAGES "timeout_ms: 0\n", ERR_LIMIT, "timeout_ms is 0", "1 to 86400000");
    REFUSED(HEAD STAGES "queue_max: 99999999\n", ERR_LIMIT, "queue_max", "1 to 1000000");
    REFUSED(HEAD STAGES "retry: {max: 0}\n", ERR_LIMIT, "retry: max is 0");
    REFUSED(HEAD STAGES "retry: {backoff_ms: 500, backoff_max_ms: 100}\n", ERR_LIMIT,
            "backoff_max_ms is 100", "500 to");
    REFUSED(HEAD "stages:\n  - {name: infer, run: r, batch: {max: 65}}\n", ERR_LIMIT, "stage infer",
            "batch: max is 65", "1 to 64");
    REFUSED(HEAD "stages:\n  - {name: infer, run: r, batch: {delay_ms: 99999}}\n", ERR_LIMIT,
            "delay_ms");
    REFUSED(HEAD "stages:\n  - {name: infer, run: r, batch: {slo_ms: -1}}\n", ERR_LIMIT, "slo_ms");
    REFUSED(HEAD "stages:\n  - {name: infer, run: r, batch: {slo_ms: 50, delay_ms: 2}}\n",
            ERR_FIELD, "leave one");
    REFUSED(HEAD STAGES "timeout_ms: -5\n", ERR_LIMIT, "timeout_ms is -5", "1 to");
    REFUSED(HEAD STAGES "timeout_ms: soon\n", ERR_FIELD, "soon", "line: 5");
    REFUSED(HEAD STAGES "timeout_ms: 99999999999999999999999\n", ERR_FIELD, "line: 5");
}

Test(pipeline, names_are_checked) {
    REFUSED("name: my pipe\nkind: text.embed\n" STAGES, ERR_FIELD, "my pipe", "letters");
    REFUSED("name: mine\nkind: text.embedd\n" STAGES, ERR_UNKNOWN, "text.embedd",
            "text.embed, text.generate");
    REFUSED(HEAD "stages:\n  - {name: a, run: r}\n  - {name: a, run: s}\n", ERR_FIELD, "stage a",
            "two stages");
    REFUSED(HEAD "stages:\n  - {name: a, run: r, adapter: l}\n", ERR_FIELD, "adapter", "model");
    char text[400] = "kind: text.embed\n" STAGES "name: ";
    memset(text + strlen(text), 'n', LIMIT_NAME_BYTES + 1);
    REFUSED(text, ERR_FIELD, "1 to 64");
}

Test(pipeline, seventeen_stages_are_one_too_many) {
    char text[2048] = HEAD "stages:\n";
    for (int i = 0; i < 17; i++) {
        if (i == 16) {
            cr_assert_eq(load_text(text), 0, "%s", err);
            pipelines_free(&set);
        }
        char line[64];
        snprintf(line, sizeof line, "  - {name: s%d, run: r}\n", i);
        strcat(text, line);
    }
    REFUSED(text, ERR_FIELD, "1 to 16 stages");
}

Test(pipeline, what_is_not_a_pipeline_file_is_refused) {
    REFUSED("", ERR_FIELD, "p.yaml");
    REFUSED("just words\n", ERR_FIELD, "p.yaml");
    REFUSED("name: [unclosed\n", ERR_FIELD, "line: ");
    REFUSED("name: &n mine\nkind: *n\n" STAGES, ERR_FIELD, "alias");
    char *big = malloc(70000);
    memset(big, '#', 70000 - 1);
    big[70000 - 1] = '\0';
    REFUSED(big, ERR_LIMIT, "p.yaml");
    free(big);
    cr_assert_eq(pipeline_load(&set, "/nonexistent/p.yaml", err, sizeof err), -ENOENT);
}

Test(pipeline, a_name_in_two_files_is_refused_and_the_set_is_empty_then) {
    write_file("a.yaml", HEAD STAGES);
    write_file("b.yaml", HEAD STAGES);
    cr_assert_eq(pipelines_load(&set, dir, err, sizeof err), -EEXIST);
    cr_assert(strstr(err, "b.yaml") && strstr(err, "mine"), "%s", err);
    cr_assert_eq(set.n, 0);
}

Test(pipeline, a_folder_without_pipelines_is_an_error_and_other_files_are_left_alone) {
    write_file("README.txt", "not yaml");
    write_file(".hidden.yaml", "not: this");
    cr_assert_eq(pipelines_load(&set, dir, err, sizeof err), -ENOENT);
    write_file("a.yaml", HEAD STAGES);
    cr_assert_eq(pipelines_load(&set, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(set.n, 1);
}

Test(pipeline, a_plan_rebuilds_its_pipeline_and_knows_it_again) {
    const struct pipeline *found;
    struct pipelines other = {0};
    cr_assert_eq(pipelines_load(&set, "pipelines", err, sizeof err), 0, "%s", err);
    for (uint32_t i = 0; i < set.n; i++) {
        const struct pipeline *p = set.items[i];
        cr_assert_eq(pack_check(p->plan, err, sizeof err), 0, "%s", err);
        cr_assert_eq(pipeline_from_plan(&set, p->plan, &found, err, sizeof err), 0, "%s", err);
        cr_assert_eq(found, p, "the loaded one is found, not a copy");
        cr_assert_eq(pipeline_from_plan(&other, p->plan, &found, err, sizeof err), 0, "%s", err);
        cr_assert_eq(found->version, p->version);
        cr_assert(bytes_eq(found->plan, p->plan));
        cr_assert_eq(found->n_stages, p->n_stages);
        for (uint32_t k = 0; k < p->n_stages; k++) {
            const struct pipeline_stage *a = &p->stages[k], *b = &found->stages[k];
            cr_assert_str_eq(a->name, b->name);
            cr_assert_str_eq(a->run, b->run);
            cr_assert((a->model == NULL) == (b->model == NULL));
            if (a->model) cr_assert_str_eq(a->model, b->model);
            cr_assert(a->timeout_ms == b->timeout_ms && a->batch_max == b->batch_max &&
                      a->batch_delay_ms == b->batch_delay_ms &&
                      a->batch_slo_ms == b->batch_slo_ms && a->checkpoint == b->checkpoint);
        }
        cr_assert(found->retired && !p->retired);
        cr_assert_null(pipeline_find(&other, bytes_str(p->name)), "it takes no new jobs");
    }
    pipelines_free(&other);
}

Test(pipeline, a_changed_file_has_another_version) {
    struct pipelines other = {0};
    const struct pipeline *found;
    cr_assert_eq(load_text(HEAD STAGES), 0, "%s", err);
    cr_assert_eq(pipeline_load(&other, write_file("q.yaml", HEAD STAGES "timeout_ms: 60001\n"), err,
                               sizeof err),
                 0);
    cr_assert_neq(set.items[0]->version, other.items[0]->version);
    cr_assert_eq(pipeline_from_plan(&set, other.items[0]->plan, &found, err, sizeof err), 0);
    cr_assert_eq(set.n, 2);
    cr_assert_eq(pipeline_find(&set, bytes_str("mine")), set.items[0], "new jobs take the file's");
    pipelines_free(&other);
}

Test(pipeline, a_damaged_plan_is_refused) {
    const struct pipeline *found;
    cr_assert_eq(load_text(HEAD STAGES), 0, "%s", err);
    struct bytes plan = set.items[0]->plan;
    uint8_t *copy = malloc(plan.len);
    for (size_t len = 0; len < plan.len; len++) {
        memcpy(copy, plan.data, plan.len);
        int code = pipeline_from_plan(&set, bytes_of(copy, len), &found, err, sizeof err);
        cr_assert_lt(code, 0, "cut to %zu", len);
    }
    uint32_t refused = 0;
    for (size_t i = 0; i < plan.len; i++) {
        struct pipelines other = {0};
        memcpy(copy, plan.data, plan.len);
        copy[i] ^= 0x21;
        refused +=
            pipeline_from_plan(&other, bytes_of(copy, plan.len), &found, err, sizeof err) < 0;
        pipelines_free(&other);
    }
    cr_assert_gt(refused, plan.len / 2);
    free(copy);
}

Test(pipeline, several_folders_are_read_as_one) {
    struct pipelines own, more;
    cr_assert_eq(pipelines_load(&own, "pipelines", err, sizeof err), 0, "%s", err);
    cr_assert_eq(pipelines_load(&more, "pipelines:examples/rules", err, sizeof err), 0, "%s", err);
    cr_assert_eq(more.n, own.n + 1);
    const struct pipeline *p = pipeline_find(&more, bytes_str("contract.rules"));
    cr_assert(p && strcmp(p->kind, "contract.analyze") == 0 && p->n_stages == 5);
    pipelines_free(&more);
    cr_assert_eq(pipelines_load(&more, "pipelines:pipelines", err, sizeof err), -EEXIST);
    cr_assert_eq(more.n, 0);
    pipelines_free(&own);
}

Test(pipeline, the_folder_is_the_one_that_was_named) {
    char out[4096];
    cr_assert_eq(pipelines_dir(dir, out, sizeof out, err, sizeof err), 0);
    cr_assert_str_eq(out, dir);
    cr_assert_eq(pipelines_dir("/nonexistent", out, sizeof out, err, sizeof err), -ENOENT);
    cr_assert(strstr(err, "/nonexistent"), "%s", err);
    char two[8192], list[4200];
    snprintf(list, sizeof list, "%s:pipelines", dir);
    cr_assert_eq(pipelines_dir(list, two, sizeof two, err, sizeof err), 0);
    cr_assert_str_eq(two, list);
    cr_assert_eq(pipelines_dir(list, two, strlen(list), err, sizeof err), -ENOENT);
    cr_assert_eq(pipelines_dir("pipelines:/nonexistent", two, sizeof two, err, sizeof err),
                 -ENOENT);
    cr_assert_eq(pipelines_dir(":pipelines", two, sizeof two, err, sizeof err), 0);
    cr_assert(two[0] == '/' && strstr(two, "/pipelines:pipelines"), "%s", two);
    setenv("PENSTOCK_PIPELINES", dir, 1);
    cr_assert_eq(pipelines_dir(NULL, out, sizeof out, err, sizeof err), 0);
    cr_assert_str_eq(out, dir);
    unsetenv("PENSTOCK_PIPELINES");
}
