#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rng.h"
#include "store/blobs.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(payload, .init = setup, .fini = teardown);

Test(payload, sizes_around_the_inline_limit_and_the_chunk_come_back_equal) {
    uint64_t rng = test_seed();
    size_t chunk = blob_data_bytes((uint32_t)sysconf(_SC_PAGESIZE));
    size_t sizes[] = {0,     1,         1023,  1024,      1025,          65535,   65536,
                      65537, chunk - 1, chunk, chunk + 1, 3 * chunk - 1, 3u << 20};
    uint32_t n = sizeof sizes / sizeof *sizes;
    struct bytes body[sizeof sizes / sizeof *sizes];
    for (uint32_t i = 0; i < n; i++) {
        body[i] = random_bytes(&f.arena, &rng, sizes[i]);
        cr_assert_eq(commit_job(&f, i + 1, body[i]), 0, "%zu bytes", sizes[i]);
    }
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    for (uint32_t i = 0; i < n; i++) {
        struct buf out = {0};
        cr_assert_eq(read_body(&f, i + 1, &out), 0);
        cr_assert(bytes_eq(buf_bytes(&out), body[i]), "%zu bytes", sizes[i]);
        buf_fini(&out);
    }
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(payload, up_to_the_inline_limit_no_chunk_is_written) {
    struct store_usage u;
    uint64_t rng = 1;
    cr_assert_eq(commit_job(&f, 1, random_bytes(&f.arena, &rng, LIMIT_INLINE_BYTES)), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, 0);
    cr_assert_eq(commit_job(&f, 2, random_bytes(&f.arena, &rng, LIMIT_INLINE_BYTES + 1)), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, 1);
    cr_assert_eq(u.jobs, 2);
}

Test(payload, a_chunk_fills_its_pages_to_the_last_byte) {
    for (uint32_t page = 4096; page <= 65536; page *= 2) {
        size_t value = blob_value_bytes(page);
        cr_assert_eq((value + 16) % page, 0);
        cr_assert_geq(blob_data_bytes(page), 65536);
        cr_assert_lt(blob_data_bytes(page), 65536 + page);
    }
}

Test(payload, parts_are_joined_inline_and_in_chunks) {
    uint64_t rng = test_seed();
    size_t cases[][3] = {{0, 5, 0}, {300, 0, 724}, {1000, 25, 0}, {70000, 1, 70000}};
    for (uint32_t i = 0; i < 4; i++) {
        struct bytes parts[3];
        struct buf all = {0}, out = {0};
        struct store_write *w;
        struct job_record r = {.id = i + 1, .state = JOB_READY};
        for (int k = 0; k < 3; k++) {
            parts[k] = random_bytes(&f.arena, &rng, cases[i][k]);
            buf_append(&all, parts[k].data, parts[k].len);
        }
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(store_payload_put(w, r.id, JOB_SLOT_BODY, parts, 3, &f.arena, &r.body), 0);
        cr_assert_eq(r.body.crc, crc32c(0, all.data, all.len));
        cr_assert_eq(jobs_put(w, &r), 0);
        cr_assert_eq(store_commit(w), 0);
        cr_assert_eq(read_body(&f, r.id, &out), 0);
        cr_assert(bytes_eq(buf_bytes(&out), buf_bytes(&all)));
        buf_fini(&all);
        buf_fini(&out);
    }
}

Test(payload, more_than_an_output_may_have_is_refused) {
    struct store_write *w;
    struct job_payload p;
    struct bytes parts[LIMIT_PARTS + 1];
    void *frame = calloc(1, LIMIT_FRAME_BYTES);
    for (uint32_t i = 0; i <= LIMIT_PARTS; i++) parts[i] = bytes_of(frame, LIMIT_FRAME_BYTES);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_put(w, 1, 1, parts, LIMIT_PARTS, &f.arena, &p), 0);
    cr_assert_eq(store_payload_put(w, 1, 2, parts, LIMIT_PARTS + 1, &f.arena, &p), ERR_LIMIT);
    store_abort(w);
    free(frame);
}

/* Flips a byte of `needle` where it lies in a file; returns how often it was there. */
static int flip_in_file(const char *path, const uint8_t *needle, size_t len) {
    int fd = open(path, O_RDWR);
    struct stat st;
    cr_assert(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *all = malloc((size_t)st.st_size);
    cr_assert_eq(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    int hits = 0;
    for (uint8_t *at = all; (at = memmem(at, (size_t)(all + st.st_size - at), needle, len)); at++) {
        uint8_t bad = (uint8_t)(at[len / 2] ^ 0x10);
        cr_assert_eq(pwrite(fd, &bad, 1, at - all + (off_t)(len / 2)), 1);
        hits++;
    }
    close(fd);
    free(all);
    return hits;
}

Test(payload, a_byte_that_changed_on_disk_is_found_by_reading_and_by_check) {
    uint64_t rng = test_seed();
    struct bytes body = random_bytes(&f.arena, &rng, 200000);
    struct buf out = {0};
    char path[256];
    cr_assert_eq(commit_job(&f, 1, body), 0);
    cr_assert_eq(commit_job(&f, 2, random_bytes(&f.arena, &rng, 200000)), 0);
    store_close(f.store);
    f.store = NULL;
    snprintf(path, sizeof path, "%s/blob/data.mdb", f.dir);
    cr_assert_eq(flip_in_file(path, (const uint8_t *)body.data + 100000, 64), 1);
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(read_body(&f, 1, &out), ERR_CORRUPT);
    buf_clear(&out);
    cr_assert_eq(read_body(&f, 2, &out), 0, "its neighbour is whole");
    cr_assert_eq(check_prints_nothing(&f), 1);
    buf_fini(&out);
}

Test(payload, a_new_version_of_a_slot_replaces_the_old_one_only_with_its_record) {
    uint64_t rng = test_seed();
    struct bytes old = random_bytes(&f.arena, &rng, 5000), new = random_bytes(&f.arena, &rng, 6000);
    struct buf out = {0};
    struct store_write *w;
    struct job_record r = {.id = 1, .state = JOB_READY, .kind = bytes_str("test")};
    cr_assert_eq(commit_job(&f, 1, old), 0);
    /* The payload is committed, the record that names it is not. */
    store_fail_commit(f.store, 1, -EIO);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_put(w, 1, JOB_SLOT_BODY, &new, 1, &f.arena, &r.body), 0);
    cr_assert_eq(jobs_put(w, &r), 0);
    cr_assert_eq(store_commit(w), -EIO);
    cr_assert_eq(read_body(&f, 1, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), old), "the old payload is still whole");

    cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_put(w, 1, JOB_SLOT_BODY, &new, 1, &f.arena, &r.body), 0);
    cr_assert_eq(jobs_put(w, &r), 0);
    cr_assert_eq(store_commit(w), 0);
    buf_clear(&out);
    cr_assert_eq(read_body(&f, 1, &out), 0);
    cr_assert(bytes_eq(buf_bytes(&out), new));
    buf_fini(&out);
}

Test(payload, what_no_record_names_is_gone_after_the_next_commit) {
    uint64_t rng = 3;
    struct store_usage u;
    struct store_write *w;
    struct job_record r = {.id = 1, .state = JOB_READY, .kind = bytes_str("test")};
    cr_assert_eq(commit_job(&f, 1, random_bytes(&f.arena, &rng, 200000)), 0);
    cr_assert_eq(commit_put(&f, &r), 0); /* names no payload any more */
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, 0);
}

Test(payload, an_explicit_delete_waits_until_no_record_names_it) {
    uint64_t rng = 4;
    struct buf out = {0};
    struct store_usage u;
    struct store_write *w;
    struct job_record r = {.id = 1, .state = JOB_READY, .kind = bytes_str("test")};
    cr_assert_eq(commit_job(&f, 1, random_bytes(&f.arena, &rng, 5000)), 0);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_del(w, 1, JOB_SLOT_BODY), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(read_body(&f, 1, &out), 0, "its record names it");
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_payload_del(w, 1, JOB_SLOT_BODY), 0);
    cr_assert_eq(jobs_put(w, &r), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, 0);
    buf_fini(&out);
}

static off_t blocks_of(const char *dir) {
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/blob/data.mdb", dir);
    cr_assert_eq(stat(path, &st), 0);
    return st.st_blocks;
}

Test(payload, freed_chunks_are_used_again) {
    uint64_t rng = test_seed();
    enum { LIVE = 20, CYCLES = 300 };
    off_t after_warm_up = 0;
    for (uint32_t i = 0; i < CYCLES; i++) {
        struct store_write *w;
        arena_reset(&f.arena);
        struct bytes body = random_bytes(&f.arena, &rng, 1100 + rng_next(&rng) % 300000);
        cr_assert_eq(commit_job(&f, i + 1, body), 0, "cycle %u", i);
        if (i >= LIVE) {
            cr_assert_eq(store_write_begin(f.store, &w), 0);
            cr_assert_eq(jobs_del(w, i + 1 - LIVE), 0);
            cr_assert_eq(store_commit(w), 0);
        }
        if (i == CYCLES / 3) after_warm_up = blocks_of(f.dir);
    }
    /* About 40 MB were written after the warm-up, into a file of about 6 MB. */
    cr_assert_leq(blocks_of(f.dir), after_warm_up + after_warm_up / 2);
    cr_assert_eq(check_prints_nothing(&f), 0);
}
