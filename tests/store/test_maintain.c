#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(maintain, .init = setup, .fini = teardown);

static struct bytes body_of(uint64_t id) {
    uint64_t rng = id;
    return random_bytes(&f.arena, &rng, (size_t[]){150000, 5000, 300}[id % 3]);
}

static void add_jobs(uint64_t first, uint64_t last) {
    for (uint64_t id = first; id <= last; id++) cr_assert_eq(commit_job(&f, id, body_of(id)), 0);
}

static void expect_jobs(struct store *s, uint64_t first, uint64_t last) {
    struct store *mine = f.store;
    f.store = s;
    for (uint64_t id = first; id <= last; id++) {
        struct buf out = {0};
        cr_assert_eq(read_body(&f, id, &out), 0, "job %lu", (unsigned long)id);
        cr_assert(bytes_eq(buf_bytes(&out), body_of(id)));
        buf_fini(&out);
    }
    f.store = mine;
}

static off_t size_of(const char *name) {
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", f.dir, name);
    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return st.st_size;
}

Test(maintain, a_backup_opens_as_a_store_of_its_own) {
    struct store *copy;
    char to[256];
    add_jobs(1, 30);
    snprintf(to, sizeof to, "%s/backup", f.dir);
    cr_assert_eq(store_backup(f.store, to, f.err, sizeof f.err), 0, "%s", f.err);
    add_jobs(31, 40); /* not in it */
    cr_assert_eq(store_backup(f.store, to, f.err, sizeof f.err), -EEXIST, "never overwrites");
    struct store_config c = f.config;
    c.dir = to;
    cr_assert_eq(store_open(&copy, &c, f.err, sizeof f.err), 0, "%s", f.err);
    expect_jobs(copy, 1, 30);
    struct store_usage u;
    cr_assert_eq(store_usage(copy, &u), 0);
    cr_assert_eq(u.jobs, 30);
    cr_assert_eq(store_check(copy, NULL, NULL), 0);
    store_close(copy);
    expect_jobs(f.store, 1, 40);
}

Test(maintain, compacting_gives_space_back_and_loses_nothing) {
    add_jobs(1, 90);
    for (uint64_t id = 1; id <= 80; id++) {
        struct store_write *w;
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(jobs_del(w, id), 0);
        cr_assert_eq(store_commit(w), 0);
    }
    off_t before = size_of("blob/data.mdb");
    cr_assert_eq(store_compact(f.store, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_lt(size_of("blob/data.mdb"), before / 2);
    expect_jobs(f.store, 81, 90);
    add_jobs(91, 120); /* and it goes on */
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    expect_jobs(f.store, 81, 120);
    cr_assert_eq(check_prints_nothing(&f), 0);
    char path[256];
    snprintf(path, sizeof path, "%s/compact", f.dir);
    cr_assert_neq(access(path, F_OK), 0, "nothing is left behind");
}

Test(maintain, a_compaction_that_cannot_copy_leaves_the_store_as_it_was) {
    char path[256];
    add_jobs(1, 10);
    snprintf(path, sizeof path, "%s/compact", f.dir);
    char deeper[300];
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(deeper, sizeof deeper, "%s/meta", path);
    cr_assert_eq(mkdir(deeper, 0700), 0);
    snprintf(deeper, sizeof deeper, "%s/meta/somebody-else", path);
    FILE *in_the_way = fopen(deeper, "w");
    cr_assert_not_null(in_the_way);
    fclose(in_the_way);
    cr_assert_eq(store_compact(f.store, f.err, sizeof f.err), -EEXIST);
    cr_assert(strstr(f.err, "compact"), "%s", f.err);
    expect_jobs(f.store, 1, 10);
    add_jobs(11, 12);
}

Test(maintain, a_store_opened_as_it_is_counts_no_start_and_takes_no_writes) {
    add_jobs(1, 10);
    store_fail_commit(f.store, 1, -EIO); /* leaves a payload that no record names */
    cr_assert_eq(commit_job(&f, 12, body_of(12)), -EIO);
    f.config.as_is = true;
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(store_check(f.store, NULL, NULL), 1, "what a start would sweep is a finding");
    cr_assert_eq(commit_job(&f, 13, body_of(13)), -EIO);
    expect_jobs(f.store, 1, 10);
    f.config.as_is = false;
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(store_epoch(f.store), 2);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(maintain, looking_after_a_store_that_is_not_there_makes_none) {
    struct store *s;
    char dir[256];
    snprintf(dir, sizeof dir, "%s/nothing", f.dir);
    struct store_config c = {.dir = dir, .as_is = true};
    cr_assert_eq(store_open(&s, &c, f.err, sizeof f.err), -ENOENT);
    cr_assert(strstr(f.err, "no store"), "%s", f.err);
    cr_assert_neq(access(dir, F_OK), 0);
}
