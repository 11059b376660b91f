/* backend.c - opening a backend, its memory, and the team of threads behind it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/level.h"
#include "kernels/cpu/team.h"
#include "tests/kernels/lab.h"

TestSuite(backend, .init = lab_start, .fini = lab_free);

Test(backend, auto_takes_the_best_level_and_says_which_bits_it_makes) {
    struct ops *o;
    char err[256] = "", best[64];
    uint32_t l = 1;
#if defined(__x86_64__)
    if (LEVEL_AVX512BF16.supported() && !LEVEL_AVX512BF16.preferred()) l = 2;
#endif
    cr_assert_eq(ops_open(&o, &(struct ops_config){0}, err, sizeof err), 0, "%s", err);
    cr_assert_str_eq(o->backend, "cpu");
    snprintf(best, sizeof best, "cpu-%s-f32-1", lab_level[l]);
    cr_assert_str_eq(o->numerics_id, best);
    cr_assert_eq(o->threads, team_processors());
    ops_close(o);
}

Test(backend, levels_have_distinct_numerics) {
    for (uint32_t l = 0; l < lab_levels; l++)
        for (uint32_t m = 0; m < l; m++) {
            struct ops *a = lab_open(lab_level[l], 1), *b = lab_open(lab_level[m], 1);
            cr_assert_str_neq(a->numerics_id, b->numerics_id);
            ops_close(a);
            ops_close(b);
        }
}

Test(backend, impossible_configurations_are_refused_with_what_to_use) {
    struct ops *o;
    char err[256] = "";
    cr_assert_eq(
        ops_open(&o, &(struct ops_config){.backend = "cpu", .level = "mmx"}, err, sizeof err),
        -EINVAL);
    cr_assert(strstr(err, "mmx") && strstr(err, "avx2") && !o, "%s", err);
    cr_assert_eq(
        ops_open(&o, &(struct ops_config){.backend = "cpu", .threads = 100000}, err, sizeof err),
        -EINVAL);
    cr_assert(strstr(err, "100000"), "%s", err);
#if defined(__x86_64__)
    if (!LEVEL_AVX512BF16.supported()) {
        cr_assert_eq(ops_open(&o, &(struct ops_config){"cpu", "avx512bf16", 1}, err, sizeof err),
                     -ENOTSUP);
        cr_assert(strstr(err, "auto"), "%s", err);
    }
#endif
}

Test(backend, buffers_are_aligned_and_zeroed_at_any_size) {
    struct ops *o = lab_open(lab_level[1], 1);
    const size_t sizes[4] = {0, 1, 1000, 5 << 20};
    for (int i = 0; i < 4; i++) {
        unsigned char *p = o->alloc(o, sizes[i]);
        cr_assert(p && (uintptr_t)p % 64 == 0);
        for (size_t j = 0; j < sizes[i]; j += 97) cr_assert_eq(p[j], 0);
        o->free(o, p);
    }
    cr_assert_null(o->alloc(o, SIZE_MAX - 100));
    cr_assert_null(o->alloc(o, SIZE_MAX / 2));
    ops_close(o);
}

struct tally {
    _Atomic uint32_t calls[8];
    _Atomic uint32_t sum;
    uint32_t parts;
};

static void count_part(void *arg, uint32_t part, uint32_t parts) {
    struct tally *t = arg;
    atomic_fetch_add(&t->calls[part], 1);
    atomic_fetch_add(&t->sum, 1);
    if (part == 0) t->parts = parts;
}

Test(backend, a_team_runs_every_part_once_and_returns_when_all_are_done) {
    for (uint32_t threads = 1; threads <= 8; threads++) {
        struct team *team;
        struct tally t = {{0}, 0, 0};
        cr_assert_eq(team_new(&team, threads), 0);
        for (uint32_t round = 1; round <= 3000; round++) {
            team_run(team, count_part, &t);
            cr_assert_eq(t.sum, round * threads, "a run returned before its parts were done");
        }
        for (uint32_t i = 0; i < 8; i++) cr_assert_eq(t.calls[i], i < threads ? 3000 : 0);
        cr_assert_eq(t.parts, threads);
        team_free(team);
    }
    team_free(NULL);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(backend, an_idle_team_sleeps_and_still_wakes) {
    struct team *team;
    struct tally t = {{0}, 0, 0};
    cr_assert_eq(team_new(&team, 4), 0);
    for (int i = 0; i < 5; i++) {
        team_run(team, count_part, &t);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        double before = processor_seconds();
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        cr_assert_lt(processor_seconds() - before, 0.02, "three idle threads used %g s of 0.1 s",
                     processor_seconds() - before);
    }
    cr_assert_eq(t.sum, 20);
    team_free(team);
}

Test(backend, shares_cover_everything_once_and_evenly) {
    for (uint32_t count = 0; count < 50; count++)
        for (uint32_t parts = 1; parts < 9; parts++) {
            uint32_t next = 0;
            for (uint32_t i = 0; i < parts; i++) {
                uint32_t begin, end;
                team_share(count, i, parts, &begin, &end);
                cr_assert(begin == next && end >= begin && end - begin <= count / parts + 1);
                next = end;
            }
            cr_assert_eq(next, count);
        }
}
