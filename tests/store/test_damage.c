#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "store/state.h"
#include "tests/store/fixture.h"

enum { JOBS = 20, BAD = 7, ENDED = 3 };

static struct fixture f;

static struct bytes body_of(uint64_t id) {
    uint64_t rng = id;
    return random_bytes(&f.arena, &rng, id % 3 == 0 ? 100 : 150000);
}

/* Jobs 1 to JOBS of tenant "t" with a key each; every ENDED-th has ended. */
static void setup(void) {
    fixture_open(&f);
    for (uint64_t id = 1; id <= JOBS; id++) {
        char *key = arena_alloc(&f.arena, 32);
        snprintf(key, 32, "the-key-of-%02u-", (unsigned)id);
        struct job_record r = {.id = id,
                               .state = id % ENDED == 0 ? JOB_DONE : JOB_READY,
                               .kind = bytes_str("test"),
                               .tenant = bytes_str("t"),
                               .key = bytes_str(key),
                               .finished_ms = id % ENDED == 0 ? 1000 : 0};
        struct store_write *w;
        uint64_t existing;
        struct bytes body = body_of(id);
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(store_payload_put(w, id, JOB_SLOT_BODY, &body, 1, &f.arena, &r.body), 0);
        cr_assert_eq(jobs_add(w, &r, &existing), 0);
        cr_assert_eq(store_commit(w), 0);
    }
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(damage, .init = setup, .fini = teardown);

static char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", f.dir, name);
    return path;
}

/* Flips a bit at each place where the file says so; how many there were. */
static int flip_where(const char *name, const char *text) {
    void *data;
    size_t bytes, len = strlen(text);
    cr_assert_eq(file_read(path_of(name), 1u << 28, &data, &bytes, f.err, sizeof f.err), 0);
    int fd = open(path_of(name), O_RDWR), found = 0;
    for (size_t at = 0; at + len <= bytes; at++) {
        const uint8_t *here = (const uint8_t *)data + at;
        if (memcmp(here, text, len) != 0) continue;
        uint8_t flipped = here[len / 2] ^ 0x10;
        cr_assert_eq(pwrite(fd, &flipped, 1, (off_t)(at + len / 2)), 1);
        found++;
    }
    close(fd);
    free(data);
    return found;
}

static void damage_one(void) {
    store_close(f.store);
    f.store = NULL;
    cr_assert_gt(flip_where("meta/data.mdb", "the-key-of-07-"), 0);
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
}

struct seen {
    uint32_t n;
    uint64_t sum;
};
static int see(void *arg, const struct job_record *r) {
    struct seen *s = arg;
    s->n++;
    s->sum += r->id;
    return 0;
}

static void expect_walks(uint64_t damaged, uint32_t live, uint32_t all) {
    struct store_read *t;
    struct seen of_live = {0}, of_all = {0}, of_tenant = {0};
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_walk(t, 0, false, true, &f.arena, see, &of_live), 0);
    cr_assert_eq(store_read_damaged(t), damaged);
    cr_assert_eq(jobs_walk(t, UINT64_MAX, true, false, &f.arena, see, &of_all), 0);
    cr_assert_eq(store_read_damaged(t), 2 * damaged);
    cr_assert_eq(jobs_walk_tenant(t, bytes_str("t"), UINT64_MAX, &f.arena, see, &of_tenant), 0);
    cr_assert_eq(store_read_damaged(t), 3 * damaged);
    cr_assert_eq(of_live.n, live);
    cr_assert_eq(of_all.n, all);
    cr_assert_eq(of_tenant.n, all);
    cr_assert_eq(of_all.sum, JOBS * (JOBS + 1) / 2 - BAD);
    store_read_end(t);
}

Test(damage, a_walk_leaves_out_what_cannot_be_read_and_counts_it) {
    damage_one();
    expect_walks(1, JOBS - JOBS / ENDED - 1, JOBS - 1);
    struct buf out = {0};
    cr_assert_eq(read_body(&f, BAD, &out), ERR_CORRUPT);
    cr_assert_eq(read_body(&f, BAD + 1, &out), 0);
    buf_fini(&out);
    cr_assert_gt(store_check(f.store, NULL, NULL), 0);
}

static int lines;
static void count_lines(void *arg, const char *line) {
    (void)arg;
    cr_log_info("%s", line);
    lines++;
}

static int repair(void) {
    store_close(f.store);
    f.store = NULL;
    f.config.as_is = true;
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    lines = 0;
    int changes = store_repair(f.store, count_lines, NULL, f.err, sizeof f.err);
    cr_assert_eq(changes, lines, "%d: %s", changes, f.err);
    f.config.as_is = false;
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(check_prints_nothing(&f), 0);
    return changes;
}

Test(damage, a_repair_moves_the_record_and_its_payload_and_frees_its_key) {
    struct store_read *t;
    uint64_t id;
    char name[96];
    void *data;
    size_t bytes;
    struct bytes key = bytes_str("the-key-of-07-");
    damage_one();
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_by_key(t, bytes_str("t"), key, &id), ERR_CORRUPT, "not free before");
    store_read_end(t);
    cr_assert_eq(repair(), 4, "the record, and the indexes of keys, live jobs and tenants");
    expect_walks(0, JOBS - JOBS / ENDED - 1, JOBS - 1);
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_by_key(t, bytes_str("t"), key, &id), -ENOENT);
    store_read_end(t);
    struct bytes body = body_of(BAD);
    char text[JOB_ID_CHARS + 1];
    job_id_text(BAD, text);
    snprintf(name, sizeof name, "quarantine/%s.payload-0-%08x", text,
             crc32c(0, body.data, body.len));
    cr_assert_eq(file_read(path_of(name), 1u << 28, &data, &bytes, f.err, sizeof f.err), 0, "%s",
                 f.err);
    cr_assert(bytes_eq(body, bytes_of(data, bytes)), "nothing of what was sound is lost");
    free(data);
    snprintf(name, sizeof name, "quarantine/%s.job", text);
    cr_assert_eq(access(path_of(name), F_OK), 0);
    cr_assert_eq(repair(), 0, "a sound store is not changed");
}

Test(damage, a_repair_writes_indexes_that_lost_entries_anew) {
    struct store_write *w;
    uint8_t key[FINISHED_KEY_BYTES], tenant[TENANT_KEY_BYTES], hash[KEY_HASH_BYTES];
    key_hash(hash, bytes_str("t"), bytes_str("the-key-of-05-"));
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(env_del(&w->view.meta, META_LIVE, num_key(key, 1)), 0);
    cr_assert_eq(env_del(&w->view.meta, META_FINISHED, finished_key(key, 1000, ENDED)), 0);
    cr_assert_eq(env_del(&w->view.meta, META_KEYS, bytes_of(hash, sizeof hash)), 0);
    cr_assert_eq(env_del(&w->view.meta, META_TENANTS, tenant_key(tenant, bytes_str("t"), 9)), 0);
    cr_assert_eq(env_put(&w->view.meta, META_LIVE, num_key(key, 99), bytes_of("", 0), ENV_NEW), 0,
                 "and one that leads nowhere");
    cr_assert_eq(env_put(&w->view.meta, META_LIVE, num_key(key, 98), bytes_of("", 0), ENV_NEW), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert_geq(store_check(f.store, NULL, NULL), 8, "four are missing, four counts wrong");
    cr_assert_eq(repair(), 4);
    uint64_t id;
    struct store_read *t;
    cr_assert_eq(store_read_begin(f.store, &t), 0);
    cr_assert_eq(jobs_by_key(t, bytes_str("t"), bytes_str("the-key-of-05-"), &id), 0);
    cr_assert_eq(id, 5);
    store_read_end(t);
}

Test(damage, a_destroyed_first_page_names_the_file_and_what_to_do) {
    static const char *const names[] = {"meta/data.mdb", "blob/data.mdb"};
    static const uint8_t zeros[8192];
    uint8_t was[8192];
    store_close(f.store);
    f.store = NULL;
    for (int i = 0; i < 2; i++) {
        int fd = open(path_of(names[i]), O_RDWR);
        cr_assert_eq(pread(fd, was, sizeof was, 0), sizeof was);
        for (int how = 0; how < 3; how++) { /* either of the two, or both */
            cr_assert_eq(pwrite(fd, zeros, how == 2 ? 8192 : 4096, how == 1 ? 4096 : 0),
                         how == 2 ? 8192 : 4096);
            cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), ERR_CORRUPT);
            cr_assert(strstr(f.err, names[i]) && strstr(f.err, "penstock store backup"), "%s",
                      f.err);
            cr_assert_eq(pwrite(fd, was, sizeof was, 0), sizeof was);
        }
        close(fd);
    }
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(check_prints_nothing(&f), 0);
}
