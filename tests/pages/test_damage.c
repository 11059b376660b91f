#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/rng.h"
#include "store/tree.h"
#include "tests/pages/pages_fixture.h"

enum { CHAINS = 12 };
static struct rig g;
static struct chain c[CHAINS];

static void setup(void) {
    rig_make(&g, 2);
    for (uint32_t i = 0; i < CHAINS; i++) chain_make(&c[i], &g, 0x51 + i * 0x35, 6 + i);
}

static void teardown(void) {
    for (uint32_t i = 0; i < CHAINS; i++) chain_free(&c[i]);
    rig_remove(&g);
}
TestSuite(pages_damage, .init = setup, .fini = teardown, .timeout = 120);

static const char *path_of(const char *group, const char *name) {
    static char path[512], fingerprint[PAGE_FINGERPRINT_CHARS];
    page_fingerprint(&g.config.model, fingerprint);
    snprintf(path, sizeof path, "%s/%s/%s/%s", g.dir, fingerprint, group, name);
    return path;
}

static void fill(void) {
    for (uint32_t i = 0; i < CHAINS; i++) store_chain(&g, &c[i], 0);
}

static uint32_t read_all(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < CHAINS; i++) n += read_chain(&g, &c[i]);
    return n;
}

static void flip(const char *group, uint64_t at, uint8_t bits) {
    uint8_t byte;
    int fd = open(path_of(group, "data.mdb"), O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= bits;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static uint64_t file_bytes(const char *group) {
    struct stat st;
    cr_assert_eq(stat(path_of(group, "data.mdb"), &st), 0);
    return (uint64_t)st.st_size;
}

/* Where the file says so first; 0: nowhere. */
static uint64_t find_text(const char *group, const void *text, size_t len) {
    void *data;
    size_t bytes;
    uint64_t at = 0;
    cr_assert_eq(file_read(path_of(group, "data.mdb"), 1u << 28, &data, &bytes, g.err, 512), 0);
    for (size_t i = 0; i + len <= bytes && at == 0; i++)
        if (memcmp((uint8_t *)data + i, text, len) == 0) at = i;
    free(data);
    return at;
}

Test(pages_damage, a_flipped_bit_of_a_page_is_a_miss_and_the_page_is_stored_again) {
    rig_open(&g);
    fill();
    uint32_t all = read_all();
    cr_assert_eq(read_chain(&g, &c[5]), c[5].pages);
    pages_close(g.pages);
    uint64_t at = find_text("global", c[5].data[4] + 500, 32);
    cr_assert_gt(at, 0);
    flip("global", at + 7, 0x10);
    rig_open(&g);
    cr_assert_null(pages_remade(g.pages, 0));
    cr_assert_eq(read_chain(&g, &c[5]), 4);
    cr_assert_eq(pages_stats(g.pages).torn, 1);
    store_chain(&g, &c[5], 4);
    cr_assert_eq(read_chain(&g, &c[5]), c[5].pages);
    cr_assert_eq(pages_stats(g.pages).torn, 1);
    cr_assert_eq(read_all(), all);
}

Test(pages_damage, a_file_that_was_cut_off_or_is_no_environment_begins_anew) {
    for (int how = 0; how < 4; how++) {
        rig_open(&g);
        fill();
        cr_assert_gt(read_all(), 0);
        pages_close(g.pages);
        uint64_t bytes = file_bytes("global");
        if (how == 0) cr_assert_eq(truncate(path_of("global", "data.mdb"), (off_t)bytes / 8), 0);
        if (how == 1) cr_assert_eq(truncate(path_of("global", "data.mdb"), 100), 0);
        if (how == 2) cr_assert_eq(truncate(path_of("global", "data.mdb"), 0), 0);
        if (how == 3) flip("global", 16, 0xff);
        rig_open(&g);
        cr_assert_eq(pages_remade(g.pages, 0) != NULL, how != 2, "%d", how);
        cr_assert_eq(read_all(), 0);
        fill();
        cr_assert_eq(read_chain(&g, &c[0]), c[0].pages);
        rig_reopen(&g);
        cr_assert_null(pages_remade(g.pages, 0));
        cr_assert_eq(read_chain(&g, &c[0]), c[0].pages);
        pages_close(g.pages);
        g.pages = NULL;
        file_remove_tree(g.dir);
    }
}

/* Puts back what `sound` holds, for the next damage. */
static void put_back(const char *group, const void *sound, size_t bytes) {
    unlink(path_of(group, "damaged"));
    unlink(path_of(group, "lock.mdb"));
    int fd = open(path_of(group, "data.mdb"), O_RDWR | O_TRUNC | O_CREAT, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, sound, bytes), (ssize_t)bytes);
    close(fd);
}

Test(pages_damage, random_bytes_anywhere_give_never_a_wrong_page_and_no_crash) {
    enum { ROUNDS = 150 };
    uint64_t rng = pages_seed(), sound_bytes, remade = 0, torn = 0;
    void *sound;
    size_t bytes;
    rig_open(&g);
    fill();
    for (uint32_t i = 0; i < CHAINS; i += 2) store_chain(&g, &c[i], 0); /* some are free again */
    pages_close(g.pages);
    g.pages = NULL;
    sound_bytes = file_bytes("global");
    cr_assert_eq(file_read(path_of("global", "data.mdb"), 1u << 28, &sound, &bytes, g.err, 512), 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t flips = 1u << rng_next(&rng) % 5;
        put_back("global", sound, bytes);
        for (uint32_t i = 0; i < flips; i++) {
            uint64_t at = rng_next(&rng) % sound_bytes;
            /* Half of them where LMDB keeps its trees: pages that begin with a small number. */
            for (int tries = 0; i % 2 == 0 && tries < 2000; tries++) {
                const uint8_t *p = (const uint8_t *)sound + at / 4096 * 4096;
                uint64_t number;
                memcpy(&number, p, sizeof number);
                if (number == at / 4096 && p[10] != 4 && p[11] == 0) break;
                at = rng_next(&rng) % sound_bytes;
            }
            flip("global", at, (uint8_t)(1u << rng_next(&rng) % 8));
        }
        rig_open(&g);
        remade += pages_remade(g.pages, 0) != NULL;
        read_all();
        for (int i = 0; i < 6; i++) store_chain(&g, &c[rng_next(&rng) % CHAINS], 0);
        read_all();
        torn += pages_stats(g.pages).torn;
        pages_close(g.pages);
        g.pages = NULL;
    }
    cr_log_info("%d rounds: made anew %llu times, %llu torn pages", ROUNDS,
                (unsigned long long)remade, (unsigned long long)torn);
    cr_assert_gt(remade, ROUNDS / 8);
    cr_assert_lt(remade, ROUNDS);
    cr_assert_gt(torn, 0);
    free(sound);
}

/* field: what of the head is damaged. */
static void damage_head(uint32_t field) {
    rig_open(&g);
    fill();
    pages_close(g.pages);
    uint64_t at = find_text("global", c[3].data[2], 64);
    cr_assert_gt(at, 64);
    cr_assert_eq(at % 4096, 64);
    flip("global", at - 64 + field, 4);
    flip("global", at + 100, 1); /* a page that is dropped */
    rig_open(&g);
    cr_assert_eq(read_chain(&g, &c[3]), 2);
    cr_assert_eq(store_chain(&g, &c[3], 2), 0);
    cr_assert_eq(read_chain(&g, &c[3]), 0, "the group is off");
    cr_assert_gt(pages_stats(g.pages).failed, 0);
    rig_reopen(&g);
    cr_assert_not_null(pages_remade(g.pages, 0));
    store_chain(&g, &c[3], 0);
    cr_assert_eq(read_chain(&g, &c[3]), c[3].pages);
    pages_close(g.pages);
    g.pages = NULL;
    file_remove_tree(g.dir);
}

Test(pages_damage, a_run_whose_head_is_damaged_is_not_freed_and_the_group_begins_anew) {
    damage_head(0);  /* its number */
    damage_head(10); /* its kind */
    damage_head(12); /* how many pages it has */
}

Test(pages_damage, a_writer_that_is_killed_leaves_what_it_committed) {
    uint64_t rng = pages_seed();
    uint32_t most = 0;
    for (int round = 0; round < 25; round++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            struct rig mine = g;
            if (pages_open(&mine.pages, &g.config, mine.err, sizeof mine.err) != 0) _exit(3);
            for (uint32_t i = 0;; i++) store_chain(&mine, &c[(i * 5 + 1) % CHAINS], 0);
        }
        usleep(3000 + (useconds_t)(rng_next(&rng) % 60000));
        kill(child, SIGKILL);
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFSIGNALED(status), "the writer ended by itself: %d", WEXITSTATUS(status));
        rig_open(&g);
        cr_assert_null(pages_remade(g.pages, 0), "%s", pages_remade(g.pages, 0));
        uint32_t n = read_all();
        if (n > most) most = n;
        expect_parents(&g, c, CHAINS);
        cr_assert_eq(pages_stats(g.pages).torn, 0);
        pages_close(g.pages);
        g.pages = NULL;
        if (round % 5 == 4) file_remove_tree(g.dir);
    }
    cr_assert_gt(most, 20);
}

/* Writes and reads for a while with its own view of the cache; exit status 0: all was right. */
static void run_beside(uint64_t rng, int64_t until_ms) {
    g.pages = NULL;
    rig_open(&g);
    while (clock_mono_ms() < until_ms) {
        struct chain *one = &c[rng_next(&rng) % CHAINS];
        uint32_t have = read_chain(&g, one);
        store_chain(&g, one, have);
    }
    struct pages_stats s = pages_stats(g.pages);
    if (s.torn + s.foreign + s.failed > 0) _exit(4);
    if (s.stored + s.known == 0) _exit(5);
    pages_close(g.pages);
    _exit(0);
}

Test(pages_damage, processes_share_a_cache_beyond_its_cap) {
    enum { PROCESSES = 3 };
    pid_t child[PROCESSES];
    uint64_t rng = pages_seed();
    g.groups[0].cap_bytes = 1200 << 10; /* not enough for all chains */
    g.config.groups = g.groups;
    for (int i = 0; i < PROCESSES; i++) {
        uint64_t seed = rng_next(&rng);
        child[i] = fork();
        if (child[i] == 0) run_beside(seed, clock_mono_ms() + 1500);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        cr_assert_eq(waitpid(child[i], &status, 0), child[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    }
    rig_open(&g);
    cr_assert_null(pages_remade(g.pages, 0), "%s", pages_remade(g.pages, 0));
    expect_parents(&g, c, CHAINS);
    cr_assert_leq(file_bytes("global"), 1200 << 10);
    cr_assert_gt(read_all(), 0);
}

/* A process that reads, and says so, until it is killed. */
static pid_t start_reader(void) {
    int fd[2];
    char byte;
    cr_assert_eq(pipe(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        struct pages_read r;
        g.pages = NULL;
        rig_open(&g);
        if (pages_read_begin(g.pages, 0, &r) != 0 || write(fd[1], "r", 1) != 1) _exit(1);
        for (;;) pause();
    }
    cr_assert_eq(read(fd[0], &byte, 1), 1);
    close(fd[0]);
    close(fd[1]);
    return child;
}

Test(pages_damage, a_reader_that_hangs_costs_stores_and_never_the_cap) {
    g.groups[0].cap_bytes = 1200 << 10;
    rig_open(&g);
    fill();
    pages_close(g.pages);
    pid_t child = start_reader();
    rig_open(&g);
    for (int i = 0; i < 6; i++) {
        fill();
        cr_assert_leq(file_bytes("global"), 1200 << 10);
        expect_parents(&g, c, CHAINS);
    }
    cr_assert_gt(pages_stats(g.pages).no_room, 0, "what the reader sees is not used again");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    fill();
    cr_assert_gt(pages_stats(g.pages).readers_cleared, 0);
    cr_assert_eq(store_chain(&g, &c[1], 0), c[1].pages);
    cr_assert_eq(read_chain(&g, &c[1]), c[1].pages);
    cr_assert_leq(file_bytes("global"), 1200 << 10);
}

Test(pages_damage, a_map_that_another_process_made_larger_is_taken_over) {
    g.groups[0].cap_bytes = 1200 << 10;
    rig_open(&g);
    store_chain(&g, &c[0], 0);
    pid_t child = fork();
    if (child == 0) {
        g.pages = NULL;
        g.groups[0].cap_bytes = 4 << 20;
        rig_open(&g);
        fill();
        _exit(read_chain(&g, &c[CHAINS - 1]) == c[CHAINS - 1].pages ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_gt(file_bytes("global"), 1200 << 10);
    for (uint32_t i = 0; i < CHAINS; i++) cr_assert_eq(read_chain(&g, &c[i]), c[i].pages);
    fill();
    cr_assert_eq(pages_stats(g.pages).failed, 0);
}

Test(pages_damage, a_disk_that_is_full_costs_stores_and_leaves_what_was_there) {
    struct rlimit before, small = {0};
    rig_open(&g);
    store_chain(&g, &c[0], 0);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 200 << 10;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (uint32_t i = 1; i < CHAINS; i++) store_chain(&g, &c[i], 0);
    cr_assert_gt(pages_stats(g.pages).failed, 0);
    cr_assert_eq(read_chain(&g, &c[0]), c[0].pages);
    expect_parents(&g, c, CHAINS);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    fill();
    cr_assert_eq(read_chain(&g, &c[CHAINS - 1]), c[CHAINS - 1].pages);
    rig_reopen(&g);
    cr_assert_null(pages_remade(g.pages, 0), "%s", pages_remade(g.pages, 0));
    cr_assert_eq(read_chain(&g, &c[CHAINS - 1]), c[CHAINS - 1].pages);
}
