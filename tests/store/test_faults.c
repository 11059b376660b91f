#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "tests/store/fixture.h"

static struct fixture f;

static void setup(void) {
    fixture_make(&f);
}

static void teardown(void) {
    fixture_close(&f);
}
TestSuite(faults, .init = setup, .fini = teardown);

static void open_store(void) {
    int code = store_open(&f.store, &f.config, f.err, sizeof f.err);
    cr_assert_eq(code, 0, "%s", f.err);
}

static char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", f.dir, name);
    return path;
}

/* The body that job `id` must have: readable from its id alone. */
static struct bytes body_of(uint64_t id, uint8_t *room) {
    size_t len = id % 7 == 0 ? 150000 : id % 3 == 0 ? 5000 : 40;
    uint64_t rng = id;
    for (size_t i = 0; i < len; i++) room[i] = (uint8_t)rng_next(&rng);
    return bytes_of(room, len);
}

/* Writes jobs until it is killed, and says on `fd` which ids are committed. */
static void write_until_killed(int fd, uint64_t first) {
    uint8_t *room = malloc(200000);
    if (store_open(&f.store, &f.config, f.err, sizeof f.err) != 0) _exit(2);
    for (uint64_t id = first;; id++) {
        if (commit_job(&f, id, body_of(id, room)) != 0) _exit(3);
        if (write(fd, &id, sizeof id) != sizeof id) _exit(4);
        if (id > first + 4) { /* deletes and updates are torn apart as well */
            struct job_record r = {
                .id = id - 2, .state = JOB_DONE, .finished_ms = 1, .kind = bytes_str("test")};
            struct store_write *w;
            if (id % 2 == 0 && commit_put(&f, &r) != 0) _exit(5);
            if (id % 5 == 0 && (store_write_begin(f.store, &w) != 0 || jobs_del(w, id - 4) != 0 ||
                                store_commit(w) != 0))
                _exit(6);
        }
        arena_reset(&f.arena);
    }
}

static uint64_t run_and_kill(uint64_t first, int64_t after_us) {
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        close(fds[0]);
        write_until_killed(fds[1], first);
    }
    close(fds[1]);
    usleep((useconds_t)after_us);
    kill(child, SIGKILL);
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the writer ended with %d",
              WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    uint64_t id, last = first - 1;
    while (read(fds[0], &id, sizeof id) == sizeof id) last = id;
    close(fds[0]);
    return last;
}

Test(faults, every_acknowledged_job_survives_kill_9_in_the_middle_of_commits, .timeout = 110) {
    const char *cases = getenv("CASES");
    int rounds = cases ? atoi(cases) : 200;
    uint64_t rng = test_seed(), first = 1, acknowledged = 0;
    uint8_t *room = malloc(200000);
    int64_t stop_ms = clock_mono_ms() + 20000; /* on a slow disk fewer rounds must do */
    for (int i = 0; i < rounds && clock_mono_ms() < stop_ms; i++) {
        uint64_t last = run_and_kill(first, 1000 + (int64_t)(rng_next(&rng) % 30000));
        open_store();
        struct store_read *t;
        cr_assert_eq(store_read_begin(f.store, &t), 0);
        for (uint64_t id = first; id <= last; id++) {
            struct job_record r;
            struct buf out = {0};
            int code = jobs_get(t, id, &r, &f.arena);
            if (code == -ENOENT && (id + 4) % 5 == 0) continue; /* deleted by the writer */
            cr_assert_eq(code, 0, "job %lu is lost", (unsigned long)id);
            if (r.state == JOB_DONE) continue; /* its record gave up the body */
            cr_assert_eq(store_payload_get(t, id, JOB_SLOT_BODY, &r.body, &out), 0);
            cr_assert(bytes_eq(buf_bytes(&out), body_of(id, room)));
            buf_fini(&out);
        }
        uint64_t newest;
        cr_assert_eq(jobs_last_id(t, &newest), 0);
        store_read_end(t);
        cr_assert_eq(check_prints_nothing(&f), 0, "round %d", i);
        acknowledged += last - (first - 1);
        first = (newest > last ? newest : last) + 1;
        struct store_write *w; /* keeps the store small */
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        for (uint64_t id = first > 400 ? first - 400 : 1; id < first; id++)
            cr_assert(jobs_del(w, id) != ERR_CORRUPT);
        cr_assert_eq(store_commit(w), 0);
        store_close(f.store);
        f.store = NULL;
        arena_reset(&f.arena);
    }
    cr_log_info("%lu jobs were acknowledged", (unsigned long)acknowledged);
    cr_assert_gt(acknowledged, 0);
    free(room);
}

Test(faults, a_failed_commit_refuses_writes_until_the_store_was_reopened) {
    uint8_t room[200000];
    open_store();
    cr_assert_eq(commit_job(&f, 1, body_of(1, room)), 0);
    store_fail_commit(f.store, 3, -EIO);
    cr_assert_eq(commit_job(&f, 2, body_of(2, room)), 0);
    cr_assert_eq(commit_job(&f, 3, body_of(3, room)), 0);
    struct store_usage u;
    cr_assert_eq(store_usage(f.store, &u), 0);
    uint64_t chunks = u.chunks;
    cr_assert_gt(chunks, 0);
    cr_assert_eq(commit_job(&f, 7, body_of(7, room)), -EIO, "the third one");
    cr_assert_eq(commit_job(&f, 8, body_of(8, room)), -EIO, "poisoned");
    struct buf out = {0};
    cr_assert_eq(read_body(&f, 3, &out), 0, "reads go on");
    cr_assert_eq(read_body(&f, 7, &out), -ENOENT, "what failed was not half done");
    cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(store_epoch(f.store), 1, "a reopen is not a start");
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, chunks, "the payload of job 7 was swept, that of 3 is there");
    cr_assert_eq(commit_job(&f, 7, body_of(7, room)), 0);
    cr_assert_eq(check_prints_nothing(&f), 0);
    buf_fini(&out);
}

Test(faults, a_commit_that_fails_at_every_point_of_a_history_loses_nothing_acknowledged) {
    uint8_t *room = malloc(200000);
    open_store();
    for (uint32_t nth = 1; nth <= 12; nth++) {
        uint64_t base = nth * 100, ok = 0;
        store_fail_commit(f.store, nth, -ENOSPC);
        for (uint64_t id = base; id < base + 12; id++) {
            if (commit_job(&f, id, body_of(id, room)) != 0) break;
            ok++;
        }
        cr_assert_eq(ok, nth - 1);
        cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), 0, "%s", f.err);
        for (uint64_t id = base; id < base + ok; id++) {
            struct buf out = {0};
            cr_assert_eq(read_body(&f, id, &out), 0);
            cr_assert(bytes_eq(buf_bytes(&out), body_of(id, room)));
            buf_fini(&out);
        }
        cr_assert_eq(check_prints_nothing(&f), 0);
    }
    free(room);
}

Test(faults, a_data_file_that_lost_its_end_is_refused_with_a_clear_error) {
    static const char *const files[] = {"meta/data.mdb", "blob/data.mdb"};
    uint8_t room[200000];
    open_store();
    for (uint64_t id = 1; id < 60; id++) cr_assert_eq(commit_job(&f, id, body_of(id, room)), 0);
    store_close(f.store);
    f.store = NULL;
    for (int i = 0; i < 2; i++) {
        struct stat st;
        char *path = path_of(files[i]);
        cr_assert_eq(stat(path, &st), 0);
        off_t cuts[] = {0, 1, 4096, 8192, 20000, 40000};
        int fd = open(path, O_RDWR);
        uint8_t *all = malloc((size_t)st.st_size);
        cr_assert_eq(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
        for (int k = 0; k < 6; k++) {
            cr_assert_eq(ftruncate(fd, cuts[k]), 0);
            int code = store_open(&f.store, &f.config, f.err, sizeof f.err);
            cr_assert_eq(code, ERR_CORRUPT, "%s cut to %ld: %d", files[i], (long)cuts[k], code);
            cr_assert(strstr(f.err, i == 0 ? "meta/data.mdb" : "blob/data.mdb"), "%s", f.err);
            cr_assert_eq(pwrite(fd, all, (size_t)st.st_size, 0), st.st_size);
        }
        close(fd);
        free(all);
    }
    open_store();
    cr_assert_eq(check_prints_nothing(&f), 0);
}

Test(faults, a_store_that_lost_a_whole_environment_is_not_taken_for_a_new_one) {
    uint8_t room[200000];
    open_store();
    cr_assert_eq(commit_job(&f, 1, body_of(1, room)), 0);
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(unlink(path_of("meta/data.mdb")), 0);
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), ERR_CORRUPT);
    cr_assert(strstr(f.err, "missing"), "%s", f.err);
}

Test(faults, meta_and_blob_of_different_stores_are_refused) {
    struct fixture other;
    char from[256], to[256];
    open_store();
    fixture_open(&other);
    store_close(f.store);
    store_close(other.store);
    f.store = other.store = NULL;
    snprintf(from, sizeof from, "%s/blob/data.mdb", other.dir);
    snprintf(to, sizeof to, "%s/blob/data.mdb", f.dir);
    cr_assert_eq(rename(from, to), 0);
    cr_assert_eq(store_open(&f.store, &f.config, f.err, sizeof f.err), ERR_CORRUPT);
    cr_assert(strstr(f.err, "same store"), "%s", f.err);
    fixture_close(&other);
}

Test(faults, a_second_opener_is_told_who_has_the_store) {
    struct store *second = NULL;
    char pid[32];
    open_store();
    cr_assert_eq(store_open(&second, &f.config, f.err, sizeof f.err), -EBUSY);
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    cr_assert(strstr(f.err, pid), "%s", f.err);
    cr_assert_null(second);
    uint8_t room[64];
    cr_assert_eq(commit_job(&f, 1, body_of(1, room)), 0, "the first one goes on");
}

Test(faults, each_start_counts_one_epoch) {
    open_store();
    cr_assert_eq(store_epoch(f.store), 1);
    for (uint64_t i = 2; i < 6; i++) {
        cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
        cr_assert_eq(store_epoch(f.store), i);
    }
}

Test(faults, payloads_that_a_crash_left_without_a_record_are_swept_at_open) {
    uint8_t room[200000];
    struct store_usage u;
    open_store();
    cr_assert_eq(commit_job(&f, 3, body_of(3, room)), 0);
    cr_assert_eq(store_usage(f.store, &u), 0);
    uint64_t chunks = u.chunks;
    cr_assert_gt(chunks, 0);
    store_fail_commit(f.store, 1, -EIO); /* blob is committed, meta is not: as if it died between */
    cr_assert_eq(commit_job(&f, 7, body_of(7, room)), -EIO);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, chunks + 3);
    cr_assert_eq(fixture_reopen(&f), 0, "%s", f.err);
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.chunks, chunks);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

/* Adds jobs until the store refuses; returns how many it took. */
static uint64_t fill(uint64_t first, size_t body_bytes, uint64_t *soft_at) {
    uint64_t rng = first, n = 0;
    int code = 0;
    *soft_at = 0;
    for (; n < 100000; n++) {
        arena_reset(&f.arena);
        code = commit_job(&f, first + n, random_bytes(&f.arena, &rng, body_bytes));
        if (code != 0) break;
        if (*soft_at == 0 && !store_has_room(f.store, (struct store_room){0})) *soft_at = n + 1;
    }
    cr_assert_eq(code, ERR_FULL, "%d", code);
    return n;
}

static void delete_all(uint64_t first, uint64_t n) {
    for (uint64_t id = first; id < first + n; id++) {
        struct store_write *w;
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(jobs_del(w, id), 0, "job %lu", (unsigned long)id);
        cr_assert_eq(store_commit(w), 0);
    }
}

static void expect_full_store_works(size_t body_bytes) {
    uint64_t soft_at, soft_again;
    uint64_t n = fill(1, body_bytes, &soft_at);
    cr_assert(soft_at > n / 2 && soft_at < n, "soft at %lu of %lu", (unsigned long)soft_at,
              (unsigned long)n);
    struct buf out = {0};
    for (uint64_t id = 1; id <= n; id++) {
        buf_clear(&out);
        cr_assert_eq(read_body(&f, id, &out), 0, "still readable");
        cr_assert_eq(out.len, body_bytes);
    }
    cr_assert_eq(check_prints_nothing(&f), 0);
    delete_all(1, n);
    struct store_write *w;
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    cr_assert_eq(store_commit(w), 0);
    cr_assert(store_has_room(f.store, (struct store_room){0}), "deleting made room");
    uint64_t again = fill(n + 1, body_bytes, &soft_again);
    cr_assert_geq(again, n - n / 10, "%lu fit, then %lu", (unsigned long)n, (unsigned long)again);
    buf_fini(&out);
}

Test(faults, a_full_meta_says_so_and_can_be_read_and_emptied) {
    f.config.meta_cap_bytes = 4u << 20;
    open_store();
    expect_full_store_works(900);
}

Test(faults, a_full_blob_says_so_and_can_be_read_and_emptied) {
    f.config.blob_cap_bytes = 16u << 20;
    open_store();
    expect_full_store_works(100000);
}

Test(faults, a_transaction_with_a_failed_write_cannot_be_committed) {
    struct store_write *w;
    uint64_t existing, id = 1;
    f.config.meta_cap_bytes = 2u << 20;
    open_store();
    cr_assert_eq(store_write_begin(f.store, &w), 0);
    uint64_t rng = 1;
    for (int code = 0; code == 0; id++) {
        struct job_record r = random_record(&f.arena, &rng, id);
        r.key = bytes_str("");
        code = jobs_add(w, &r, &existing);
        cr_assert(code == 0 || code == ERR_FULL);
    }
    cr_assert_eq(store_commit(w), ERR_FULL);
    struct store_usage u;
    cr_assert_eq(store_usage(f.store, &u), 0);
    cr_assert_eq(u.jobs, 0);
    uint8_t room[64];
    cr_assert_eq(commit_job(&f, 1, body_of(1, room)), 0, "nothing was flushed: writes go on");
}

Test(faults, a_disk_without_space_is_not_taken_for_recovered) {
    static uint8_t room[3 << 20];
    struct rlimit all, some;
    signal(SIGXFSZ, SIG_IGN);
    f.config.blob_cap_bytes = 256u << 20;
    open_store();
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
    some = (struct rlimit){.rlim_cur = 24u << 20, .rlim_max = all.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &some), 0);
    uint64_t id = 1;
    int code = 0;
    while (code == 0 && id < 100) {
        memset(room, (int)id, sizeof room);
        code = commit_job(&f, id++, bytes_of(room, sizeof room));
    }
    cr_assert_eq(code, -ENOSPC, "%d", code);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), -ENOSPC, "%s", f.err);
        cr_assert(strstr(f.err, "trial"), "%s", f.err);
        cr_assert_eq(commit_job(&f, 200, bytes_str("b")), -EIO);
    }
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    cr_assert_eq(store_reopen(f.store, f.err, sizeof f.err), 0, "%s", f.err);
    cr_assert_eq(commit_job(&f, 200, bytes_of(room, sizeof room)), 0);
    cr_assert_eq(check_prints_nothing(&f), 0);
}

struct reading {
    pthread_t thread;
    atomic_bool stop;
    uint64_t seed, reads;
    int code;
};

static void *read_thread_main(void *arg) {
    struct reading *r = arg;
    struct arena arena;
    arena_init(&arena, 1u << 20);
    while (!atomic_load(&r->stop) && r->code == 0) {
        struct store_read *t;
        struct job_record job;
        uint64_t last;
        struct buf out = {0};
        r->code = store_read_begin(f.store, &t);
        if (r->code != 0) break;
        r->code = jobs_last_id(t, &last);
        if (r->code == 0 && last > 0) r->code = jobs_get(t, last, &job, &arena);
        if (r->code == 0 && last > 0)
            r->code = store_payload_get(t, last, JOB_SLOT_BODY, &job.body, &out);
        store_read_end(t);
        buf_fini(&out);
        arena_reset(&arena);
        r->reads++;
    }
    arena_fini(&arena);
    return NULL;
}

Test(faults, readers_never_see_a_record_without_its_payload) {
    struct reading r = {.code = 0};
    uint8_t room[200000];
    open_store();
    cr_assert_eq(pthread_create(&r.thread, NULL, read_thread_main, &r), 0);
    for (uint64_t id = 1; id <= 300; id++) {
        struct store_write *w;
        cr_assert_eq(commit_job(&f, id, body_of(id * 3, room)), 0);
        cr_assert_eq(store_write_begin(f.store, &w), 0);
        cr_assert_eq(jobs_del(w, id), 0);
        cr_assert_eq(store_commit(w), 0);
        arena_reset(&f.arena);
    }
    atomic_store(&r.stop, true);
    pthread_join(r.thread, NULL);
    cr_assert_eq(r.code, 0, "%s", err_text(r.code));
    cr_assert_gt(r.reads, 0);
}
