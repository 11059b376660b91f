#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "store/scrub.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_open(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(scrub, .init = setup, .fini = teardown);

static void add_jobs(uint64_t first, uint64_t last) {
    for (uint64_t id = first; id <= last; id++) {
        uint64_t rng = id;
        struct bytes body = random_bytes(&f.arena, &rng, id % 2 ? 150000 : 300);
        cr_assert_eq(commit_job(&f, id, body), 0);
    }
}

/* Flips a bit of the first bytes that job `id` has as a body, wherever the file has them. */
static void flip_body(const char *name, uint64_t id) {
    char path[256];
    void *data;
    size_t bytes;
    uint64_t rng = id;
    struct bytes body = random_bytes(&f.arena, &rng, 300);
    snprintf(path, sizeof path, "%s/%s/data.mdb", f.dir, name);
    cr_assert_eq(file_read(path, 1u << 28, &data, &bytes, f.err, sizeof f.err), 0, "%s", f.err);
    int fd = open(path, O_RDWR), found = 0;
    for (size_t at = 0; at + 64 <= bytes; at++) {
        const uint8_t *here = (const uint8_t *)data + at;
        if (memcmp(here, body.data, 64) != 0) continue;
        uint8_t flipped = here[7] ^ 1;
        cr_assert_eq(pwrite(fd, &flipped, 1, (off_t)at + 7), 1);
        found++;
    }
    close(fd);
    free(data);
    cr_assert_gt(found, 0);
}

static struct scrub_stats after_rounds(struct scrub *s, uint64_t rounds) {
    int64_t until_ms = clock_mono_ms() + 60000;
    while (scrub_stats(s).rounds < rounds && clock_mono_ms() < until_ms) usleep(1000);
    return scrub_stats(s);
}

Test(scrub, a_round_reads_everything_and_finds_nothing_in_a_sound_store) {
    struct scrub *s;
    add_jobs(1, 40);
    cr_assert_eq(scrub_start(&s, f.store, UINT64_C(1) << 30), 0);
    struct scrub_stats stats = after_rounds(s, 1);
    cr_assert_eq(stats.rounds, 1);
    cr_assert_eq(stats.damaged, 0);
    cr_assert_geq(stats.bytes, 20 * 3 * 65536u + 20 * 300);
    scrub_stop(s);
}

Test(scrub, a_round_counts_damaged_records_and_damaged_chunks) {
    struct scrub *s;
    add_jobs(1, 40);
    store_close(f.store);
    f.store = NULL;
    flip_body("meta", 4);
    flip_body("meta", 40);
    flip_body("blob", 7);
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(scrub_start(&s, f.store, UINT64_C(1) << 30), 0);
    cr_assert_eq(after_rounds(s, 1).damaged, 3);
    scrub_stop(s);
}

Test(scrub, commits_go_on_while_it_reads_and_it_ends_at_once) {
    struct scrub *s;
    add_jobs(1, 40);
    cr_assert_eq(scrub_start(&s, f.store, 1u << 20), 0);
    add_jobs(41, 80);
    cr_assert_leq(scrub_stats(s).bytes, UINT64_C(1) << 30);
    scrub_stop(s);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(scrub, without_a_rate_it_reads_nothing) {
    struct scrub *s;
    add_jobs(1, 4);
    cr_assert_eq(scrub_start(&s, f.store, 0), 0);
    usleep(20000);
    cr_assert_eq(scrub_stats(s).bytes, 0);
    scrub_stop(s);
}
