/* Payloads of up to 32 KiB: chunks of one page in a table of their own, and stores of before it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rng.h"
#include "store/blobs.h"
#include "store/state.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(small, .init = setup, .fini = teardown);

static size_t page_bytes(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t chunks(void) {
    struct store_usage u;
    cr_assert_eq(store_usage(f.store, &u), 0);
    return u.chunks;
}

static uint64_t live_bytes(void) {
    struct store_usage u;
    cr_assert_eq(store_usage(f.store, &u), 0);
    return u.blob_bytes;
}

static void expect_body(uint64_t id, struct bytes body) {
    struct buf out = {0};
    cr_assert_eq(read_body(&f, id, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), body), "job %llu", (unsigned long long)id);
    buf_fini(&out);
}

static void delete_job(uint64_t id) {
    struct store_write *w;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(jobs_del(w, id), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_write_begin(f.store, &w), 0); /* what was dropped goes with the next one */
    cr_assert_eq(store_commit(w), 0);
}

Test(small, sizes_around_a_page_and_the_classes_border_come_back_from_as_few_pages_as_hold_them) {
    uint64_t rng = test_seed();
    size_t data = page_bytes() - 48;
    size_t sizes[] = {1025, data - 1, data, data + 1, 3 * data, BLOB_SMALL_MAX_BYTES};
    for (uint32_t i = 0; i < 6; i++) {
        uint64_t before = chunks();
        struct bytes body = random_bytes(&f.arena, &rng, sizes[i] > 1024 ? sizes[i] : 1025);
        cr_assert_eq(commit_job(&f, i + 1, body), 0);
        cr_assert_eq(chunks() - before, (body.len + data - 1) / data, "%zu bytes", body.len);
        expect_body(i + 1, body);
    }
    uint64_t before = chunks();
    cr_assert_eq(commit_job(&f, 9, random_bytes(&f.arena, &rng, BLOB_SMALL_MAX_BYTES + 1)), 0);
    cr_assert_eq(chunks() - before, 1, "of the large class");
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(small, a_payload_of_2_KiB_takes_a_page_and_its_share_of_the_tree) {
    uint64_t rng = test_seed(), before = live_bytes();
    enum { JOBS = 500 };
    for (uint32_t i = 0; i < JOBS; i++) {
        arena_reset(&f.arena);
        cr_assert_eq(commit_job(&f, i + 1, random_bytes(&f.arena, &rng, 2048)), 0);
    }
    cr_assert_lt(live_bytes() - before, JOBS * page_bytes() * 11 / 10);
    cr_assert_geq(blob_room_bytes(2048) * JOBS, live_bytes() - before,
                  "what is reserved is enough");
}

Test(small, the_pages_of_both_classes_are_used_again) {
    uint64_t rng = test_seed(), after_warm_up = 0;
    enum { LIVE = 40, CYCLES = 600 };
    char path[256];
    snprintf(path, sizeof path, "%s/blob/data.mdb", f.dir);
    for (uint32_t i = 0; i < CYCLES; i++) {
        arena_reset(&f.arena);
        size_t bytes = rng_next(&rng) % 4 ? 1100 + rng_next(&rng) % 30000 : 66000;
        cr_assert_eq(commit_job(&f, i + 1, random_bytes(&f.arena, &rng, bytes)), 0, "cycle %u", i);
        if (i >= LIVE) delete_job(i + 1 - LIVE);
        FILE *file = i == CYCLES / 3 || i == CYCLES - 1 ? fopen(path, "re") : NULL;
        if (!file) continue;
        fseek(file, 0, SEEK_END);
        uint64_t size = (uint64_t)ftell(file);
        fclose(file);
        if (i < CYCLES - 1) after_warm_up = size;
        cr_assert_leq(size, after_warm_up + after_warm_up / 2);
    }
    cr_assert_eq(check_prints_nothing(&f), 0);
}

/* A job as a store of layout 1 has it: its payload is one large chunk, whatever its length. */
static void commit_old(uint64_t id, struct bytes body) {
    struct store_write *w;
    struct job_record r = {.id = id, .state = JOB_READY, .kind = bytes_str("test")};
    r.body = (struct job_payload){
        .bytes = body.len, .crc = crc32c(0, body.data, body.len), .in_blob = true};
    struct blob_id name = {id, JOB_SLOT_BODY, r.body.crc};
    static const uint8_t one[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(blob_put_at(&w->view.blob, name, body.len, 0, &body, 1), 0);
    cr_assert_eq(jobs_put(w, &r), 0);
    cr_assert_eq(
        env_put(&w->view.meta, META_INFO, bytes_str("version"), bytes_of(one, 8), ENV_REPLACE), 0);
    cr_assert_eq(store_commit(w), 0);
}

Test(small, a_store_of_before_is_read_checked_and_emptied_with_new_payloads_beside_the_old) {
    uint64_t rng = test_seed();
    struct bytes old = random_bytes(&f.arena, &rng, 3000), new = random_bytes(&f.arena, &rng, 3001);
    struct bytes again = random_bytes(&f.arena, &rng, 3002);
    commit_old(1, old);
    commit_old(2, old);
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(chunks(), 2, "nothing was swept");
    cr_assert_eq(commit_job(&f, 3, new), 0);
    expect_body(1, old);
    expect_body(3, new);
    cr_assert_eq(check_prints_nothing(&f), 0);
    struct store_write *w; /* a new version of an old one */
    struct job_record r = {.id = 2, .state = JOB_READY, .kind = bytes_str("test")};
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_put(w, 2, JOB_SLOT_BODY, &again, 1, &f.arena, &r.body), 0);
    cr_assert_eq(jobs_put(w, &r), 0);
    cr_assert_eq(store_commit(w), 0);
    expect_body(2, again);
    for (uint64_t id = 1; id <= 3; id++) delete_job(id);
    cr_assert_eq(chunks(), 0);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(small, a_store_of_a_later_layout_is_refused_and_left_as_it_is) {
    struct store_write *w;
    static const uint8_t later[8] = {0, 0, 0, 0, 0, 0, 0, 3};
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(
        env_put(&w->view.meta, META_INFO, bytes_str("version"), bytes_of(later, 8), ENV_REPLACE),
        0);
    cr_assert_eq(store_commit(w), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(fixture_reopen(&f), ERR_VERSION);
        cr_assert(strstr(f.err, "layout 3; this program reads up to 2"), "%s", f.err);
    }
}

Test(small, a_compaction_keeps_both_classes) {
    uint64_t rng = test_seed();
    struct bytes body[3] = {random_bytes(&f.arena, &rng, 5000), random_bytes(&f.arena, &rng, 70000),
                            random_bytes(&f.arena, &rng, 2000)};
    for (uint64_t i = 0; i < 2; i++) cr_assert_eq(commit_job(&f, i + 1, body[i]), 0);
    commit_old(3, body[2]);
    store_close(f.store);
    f.config.as_is = true;
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(store_compact(f.store, f.err, sizeof f.err), 0, "%s", f.err);
    store_close(f.store);
    f.config.as_is = false;
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    for (uint64_t i = 0; i < 3; i++) expect_body(i + 1, body[i]);
    cr_assert_eq(check_prints_nothing(&f), 0);
}
