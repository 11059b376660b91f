#include <criterion/criterion.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "store/ended.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(jobs, .init = setup, .fini = teardown);

static void expect_stored(const struct job_record *r) {
    struct store_read *t;
    struct job_record got;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_get(t, r->id, &got, &f.arena), 0);
    expect_same_record(r, &got);
    store_read_end(t);
}

Test(jobs, a_record_survives_a_restart_and_an_update_replaces_it) {
    uint64_t rng = test_seed(), existing;
    for (uint64_t id = 1; id <= 50; id++) {
        struct job_record r = random_record(&f.arena, &rng, id * 1000);
        cr_assert_eq(commit_add(&f, &r, &existing), 0);
        struct job_record next = random_record(&f.arena, &rng, id * 1000);
        next.key = r.key;
        next.tenant = r.tenant;
        cr_assert_eq(commit_put(&f, &next), 0);
        cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
        expect_stored(&next);
    }
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(jobs, a_job_that_is_not_there_is_said_to_be_absent) {
    struct store_read *t;
    struct store_write *w;
    struct job_record r;
    uint64_t id;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_get(t, 5, &r, &f.arena), -ENOENT);
    cr_assert_eq(jobs_by_key(t, bytes_str("a"), bytes_str("b"), &id), -ENOENT);
    cr_assert_eq(jobs_last_id(t, &id), 0);
    cr_assert_eq(id, 0);
    store_read_end(t);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(jobs_del(w, 5), -ENOENT);
    store_abort(w);
}

Test(jobs, the_same_key_of_the_same_tenant_is_the_same_job) {
    struct job_record r = {.id = 10, .state = JOB_READY};
    uint64_t existing = 0;
    r.tenant = bytes_str("ab");
    r.key = bytes_str("c");
    cr_assert_eq(commit_add(&f, &r, &existing), 0);
    r.id = 11;
    cr_assert_eq(commit_add(&f, &r, &existing), -EEXIST);
    cr_assert_eq(existing, 10);
    /* The same letters, divided otherwise between tenant and key, are another key. */
    r.tenant = bytes_str("a");
    r.key = bytes_str("bc");
    cr_assert_eq(commit_add(&f, &r, &existing), 0);
    /* A job without a key never meets another. */
    r.key = bytes_str("");
    r.id = 12;
    cr_assert_eq(commit_add(&f, &r, &existing), 0);
    r.id = 13;
    cr_assert_eq(commit_add(&f, &r, &existing), 0);
    r.id = 13;
    cr_assert_eq(commit_add(&f, &r, &existing), -EEXIST, "an id is used once");
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(jobs, two_submits_of_one_key_in_one_transaction_meet) {
    struct store_write *w;
    struct job_record r = {.id = 10, .state = JOB_READY, .key = bytes_str("k")};
    uint64_t existing = 0;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(jobs_add(w, &r, &existing), 0);
    r.id = 11;
    cr_assert_eq(jobs_add(w, &r, &existing), -EEXIST);
    cr_assert_eq(existing, 10);
    cr_assert_eq(store_commit(w), 0, "a duplicate does not spoil the transaction");
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(jobs, the_payload_of_a_refused_duplicate_is_freed) {
    uint64_t rng = 1, existing;
    struct bytes body = random_bytes(&f.arena, &rng, 5000);
    struct job_record r = {.id = 10, .state = JOB_READY, .key = bytes_str("k")};
    struct store_usage u;
    struct store_write *w;
    cr_assert_eq(commit_add(&f, &r, &existing), 0);
    r.id = 11;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_put(w, 11, JOB_SLOT_BODY, &body, 1, &f.arena, &r.body), 0);
    cr_assert_eq(jobs_add(w, &r, &existing), -EEXIST);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, 0);
}

Test(jobs, a_terminal_job_stays_terminal) {
    struct job_record r = {.id = 1, .state = JOB_DONE, .finished_ms = 5};
    cr_assert_eq(commit_put(&f, &r), 0);
    r.state = JOB_READY;
    cr_assert_eq(commit_put(&f, &r), -EINVAL);
    r.state = JOB_DONE;
    r.key = bytes_str("another");
    cr_assert_eq(commit_put(&f, &r), -EINVAL, "its key is part of what it is");
}

Test(jobs, deleting_a_job_frees_its_key_its_indexes_and_its_payloads) {
    uint64_t rng = 2, existing;
    struct store_write *w;
    struct store_usage u;
    for (int terminal = 0; terminal < 2; terminal++) {
        struct bytes body = random_bytes(&f.arena, &rng, 100000);
        struct job_record r = {.id = 7, .state = terminal ? JOB_FAILED : JOB_READY};
        r.key = bytes_str("k");
        r.finished_ms = 99;
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(store_payload_put(w, 7, JOB_SLOT_BODY, &body, 1, &f.arena, &r.body), 0);
        cr_assert_eq(store_payload_put(w, 7, JOB_SLOT_RESULT, &body, 1, &f.arena, &r.result), 0);
        cr_assert_eq(jobs_add(w, &r, &existing), 0);
        cr_assert_eq(store_commit(w), 0);
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(jobs_del(w, 7), 0);
        cr_assert_eq(store_commit(w), 0);
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(store_commit(w), 0);
        cr_assert_eq(store_usage(f.store, &u), 0);
        cr_assert(u.jobs == 0 && u.chunks == 0);
        cr_assert_eq(check_prints_nothing(&f), 0);
    }
}

struct seen {
    uint64_t id[64];
    uint32_t n, stop_after;
};

static int see(void *arg, const struct job_record *r) {
    struct seen *s = arg;
    s->id[s->n++] = r->id;
    return s->stop_after > 0 && s->n == s->stop_after ? 42 : 0;
}

static struct seen walk(uint64_t from, bool down, bool live_only, uint32_t stop_after) {
    struct seen s = {.stop_after = stop_after};
    struct store_read *t;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    int code = jobs_walk(t, from, down, live_only, &f.arena, see, &s);
    cr_assert_eq(code, stop_after > 0 && s.n == stop_after ? 42 : 0);
    store_read_end(t);
    return s;
}

static void expect_ids(struct seen s, uint32_t n, const uint64_t *ids) {
    cr_assert_eq(s.n, n, "saw %u jobs", s.n);
    cr_assert_arr_eq(s.id, ids, n * sizeof *ids);
}

Test(jobs, walks_go_both_ways_from_any_id_and_over_live_jobs_alone) {
    cr_assert_eq(walk(0, false, false, 0).n, 0, "an empty store");
    cr_assert_eq(walk(UINT64_MAX, true, true, 0).n, 0);
    for (uint64_t id = 10; id <= 50; id += 10) {
        struct job_record r = {.id = id, .state = id % 20 == 0 ? JOB_DONE : JOB_READY};
        cr_assert_eq(commit_put(&f, &r), 0);
    }
    expect_ids(walk(0, false, false, 0), 5, (uint64_t[]){10, 20, 30, 40, 50});
    expect_ids(walk(20, false, false, 0), 4, (uint64_t[]){20, 30, 40, 50});
    expect_ids(walk(21, false, false, 0), 3, (uint64_t[]){30, 40, 50});
    expect_ids(walk(UINT64_MAX, true, false, 0), 5, (uint64_t[]){50, 40, 30, 20, 10});
    expect_ids(walk(39, true, false, 0), 3, (uint64_t[]){30, 20, 10});
    expect_ids(walk(40, true, false, 2), 2, (uint64_t[]){40, 30});
    expect_ids(walk(0, false, true, 0), 3, (uint64_t[]){10, 30, 50});
    expect_ids(walk(49, true, true, 0), 2, (uint64_t[]){30, 10});
    cr_assert_eq(walk(9, true, false, 0).n, 0);
    cr_assert_eq(walk(51, false, false, 0).n, 0);
}

Test(jobs, a_short_body_that_an_update_does_not_bring_stays_as_it_was) {
    struct job_record r = {.id = 7, .state = JOB_READY}, got, other;
    struct store_read *t;
    r.body = (struct job_payload){4, crc32c(0, "body", 4), false, bytes_str("body")};
    cr_assert_eq(commit_put(&f, &r), 0);
    r.state = JOB_DONE;
    r.body.inlined = bytes_of(NULL, 0);
    cr_assert_eq(commit_put(&f, &r), 0);
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_get(t, 7, &got, &f.arena), 0);
    cr_assert(got.state == JOB_DONE && bytes_is(got.body.inlined, "body"));
    store_read_end(t);
    other = r;
    other.body.crc++;
    cr_assert_eq(commit_put(&f, &other), ERR_LIMIT, "another body has to come with its bytes");
    other = r;
    other.id = 8;
    cr_assert_eq(commit_put(&f, &other), ERR_LIMIT, "and so has a new job's");
}

Test(jobs, a_walk_of_any_length_needs_no_more_memory_than_one_record) {
    uint64_t rng = 5;
    struct store_write *w;
    struct store_read *t;
    struct seen s = {0};
    struct arena small;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    for (uint64_t id = 1; id <= 60; id++) {
        struct job_record r = random_record(&f.arena, &rng, id);
        cr_assert_eq(jobs_put(w, &r), 0);
    }
    cr_assert_eq(store_commit(w), 0);
    arena_init(&small, 8192 * 2);
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_walk(t, 0, false, false, &small, see, &s), 0);
    cr_assert_eq(s.n, 60);
    store_read_end(t);
    arena_fini(&small);
}

Test(jobs, retention_lists_what_ended_the_earliest_first_and_goes_on_where_it_was) {
    struct store_read *t;
    struct job_ended out[8];
    uint32_t n;
    int64_t ended[] = {500, 100, 300, 0, 200};
    for (uint32_t i = 0; i < 5; i++) {
        struct job_record r = {.id = i + 1, .state = JOB_DONE, .finished_ms = ended[i]};
        if (ended[i] == 0) r.state = JOB_READY;
        if (ended[i] == 300) r.state = JOB_FAILED;
        cr_assert_eq(commit_put(&f, &r), 0);
    }
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_ended(t, INT64_MIN, 0, out, 3, &n), 0);
    cr_assert_eq(n, 3, "no more than asked for");
    cr_assert(out[0].id == 2 && out[1].id == 5 && out[2].id == 3);
    cr_assert(out[0].finished_ms == 100 && out[0].state == JOB_DONE && out[2].state == JOB_FAILED);
    cr_assert_eq(jobs_ended(t, out[2].finished_ms, out[2].id, out, 8, &n), 0);
    cr_assert(n == 1 && out[0].id == 1);
    cr_assert_eq(jobs_ended(t, 500, 1, out, 8, &n), 0);
    cr_assert_eq(n, 0);
    store_read_end(t);
}

Test(jobs, a_reader_keeps_its_snapshot_while_a_writer_commits) {
    struct store_read *old, *new;
    struct job_record r = {.id = 1, .state = JOB_READY, .tries = 1}, got;
    cr_assert_eq(commit_put(&f, &r), 0);
    cr_assert_eq(store_read_begin(f.store, &old), 0);
    r.tries = 2;
    cr_assert_eq(commit_put(&f, &r), 0);
    cr_assert_eq(store_read_begin(f.store, &new), 0);
    cr_assert_eq(jobs_get(old, 1, &got, &f.arena), 0);
    cr_assert_eq(got.tries, 1);
    cr_assert_eq(jobs_get(new, 1, &got, &f.arena), 0);
    cr_assert_eq(got.tries, 2);
    store_read_end(old);
    store_read_end(new);
}

/* ---- the order of ends ---- */

static int end_job(uint64_t id, int64_t finished_ms) {
    uint64_t rng = id, existing;
    struct job_record r = random_record(&f.arena, &rng, id);
    int e = commit_add(&f, &r, &existing);
    if (e) return e;
    r.state = JOB_DONE;
    r.finished_ms = finished_ms;
    return commit_put(&f, &r);
}

static int delete_job(uint64_t id) {
    struct store_write *w;
    int e = store_write_begin(f.store, &w);
    if (e) return e;
    if ((e = jobs_del(w, id)) == 0) return store_commit(w);
    store_abort(w);
    return e;
}

static uint32_t read_ends(uint64_t after, struct ended *out, uint32_t max, uint64_t *oldest,
                          uint64_t *newest) {
    struct store_read *t;
    uint32_t n;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(ended_after(t, after, out, max, &n), 0);
    cr_assert_eq(ended_bounds(t, oldest, newest), 0);
    store_read_end(t);
    return n;
}

Test(jobs, ends_are_numbered_in_the_order_of_their_commits_and_no_number_is_given_twice) {
    struct ended e[8];
    uint64_t oldest, newest;
    cr_assert_eq(read_ends(0, e, 8, &oldest, &newest), 0);
    cr_assert(oldest == 1 && newest == 0);
    /* Neither ids nor clocks decide: a clock may go back, an old job may end late. */
    cr_assert_eq(end_job(30, 5000), 0);
    cr_assert_eq(end_job(10, 7000), 0);
    cr_assert_eq(end_job(20, 3000), 0);
    cr_assert_eq(read_ends(0, e, 8, &oldest, &newest), 3);
    cr_assert(e[0].job == 30 && e[1].job == 10 && e[2].job == 20);
    cr_assert(e[0].offset == 1 && e[2].offset == 3 && oldest == 1 && newest == 3);
    cr_assert_eq(read_ends(1, e, 1, &oldest, &newest), 1);
    cr_assert_eq(e[0].job, 10);
    cr_assert_eq(read_ends(UINT64_MAX, e, 8, &oldest, &newest), 0);
    cr_assert_eq(delete_job(20), 0, "the newest goes");
    cr_assert_eq(delete_job(30), 0, "and the oldest");
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(read_ends(0, e, 8, &oldest, &newest), 1);
    cr_assert(oldest == 2 && newest == 3 && e[0].job == 10);
    cr_assert_eq(end_job(40, 1000), 0);
    cr_assert_eq(read_ends(2, e, 8, &oldest, &newest), 1);
    cr_assert_eq(e[0].offset, 4);
    cr_assert_eq(delete_job(10) + delete_job(40), 0);
    cr_assert_eq(read_ends(0, e, 8, &oldest, &newest), 0);
    cr_assert(oldest == 5 && newest == 4);
    cr_assert_eq(check_prints_nothing(&f), 0);
}
