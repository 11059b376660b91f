#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "store/sources.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(sources, .init = setup, .fini = teardown);

static int add(const char *tenant, const char *name, uint64_t dropped, uint64_t sampled,
               bool keep) {
    struct store_write *w;
    struct source_record r = {bytes_str(tenant), bytes_str(name), dropped, sampled};
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    int e = sources_add(w, &r);
    if (e == 0 && keep)
        cr_assert_eq(store_commit(w), 0);
    else
        store_abort(w);
    return e;
}

static int collect(void *arg, const struct source_record *r) {
    char *at = (char *)arg + strlen(arg);
    snprintf(at, 64, "%.*s/%.*s %u %u;", (int)r->tenant.len, (const char *)r->tenant.data,
             (int)r->name.len, (const char *)r->name.data, (unsigned)r->dropped,
             (unsigned)r->sampled);
    return 0;
}

static void expect(const char *text) {
    char all[512] = "";
    struct store_read *t;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(sources_walk(t, collect, all), 0);
    store_read_end(t);
    cr_assert_str_eq(all, text);
}

static int stop(void *arg, const struct source_record *r) {
    (void)r;
    return ++*(int *)arg;
}

Test(sources, counts_add_up_by_tenant_and_name_and_outlive_the_process) {
    expect("");
    add("a", "gate", 1, 0, true);
    add("a", "gate", 2, 5, true);
    add("a", "door", 0, 7, true);
    add("b", "gate", 9, 0, true);
    add("b", "gate", 100, 100, false);
    cr_assert_eq(fixture_reopen(&f), 0);
    expect("a/door 0 7;a/gate 3 5;b/gate 9 0;");
    int n = 0;
    struct store_read *t;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(sources_walk(t, stop, &n), 1, "what stops the walk is returned");
    store_read_end(t);
    cr_assert_eq(n, 1);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(sources, names_beyond_the_limit_are_refused_and_the_longest_are_kept) {
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'n', sizeof name);
    name[LIMIT_NAME_BYTES + 1] = '\0';
    cr_assert_eq(add("a", name, 1, 0, true), ERR_LIMIT);
    cr_assert_eq(add("", "gate", 1, 0, true), ERR_LIMIT);
    cr_assert_eq(add("a", "", 1, 0, true), ERR_LIMIT);
    name[LIMIT_NAME_BYTES] = '\0';
    cr_assert_eq(add(name, name, 1, 2, true), 0);
    int n = 0;
    struct store_read *t;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(sources_walk(t, stop, &n), 1);
    store_read_end(t);
}
