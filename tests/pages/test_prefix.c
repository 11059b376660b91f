#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "workers/infer/prefix.h"

enum { T = 4, CHAINS = 12, LONGEST = 20, CAP = 150 };

static struct prefix p;
static struct page_key keys[CHAINS][LONGEST + 1];

/* Chains k and k + 4 are alike in their first pages, the more the larger k is. */
static void setup(void) {
    for (uint32_t k = 0; k < CHAINS; k++) {
        uint32_t tokens[LONGEST * T];
        for (uint32_t i = 0; i < LONGEST * T; i++)
            tokens[i] = i / T < k ? k % 4 * 1000 + i : k * 1000 + i;
        memset(&keys[k][0], 7, sizeof keys[k][0]);
        page_chain(keys[k], tokens, LONGEST, T);
    }
    cr_assert_eq(prefix_init(&p, CAP), 0);
}

static void teardown(void) {
    prefix_fini(&p);
}
TestSuite(prefix, .init = setup, .fini = teardown);

static uint32_t leading_on(enum prefix_level level, uint32_t chain) {
    struct prefix_place place[LONGEST];
    prefix_find(&p, keys[chain], LONGEST, place);
    uint32_t n = 0;
    while (n < LONGEST && place[n].at[level] != PREFIX_NOWHERE) n++;
    return n;
}

static uint32_t put(enum prefix_level level, uint32_t chain, uint32_t from, uint32_t n,
                    uint32_t first_place) {
    uint32_t place[LONGEST], done;
    for (uint32_t i = 0; i < n; i++) place[i] = first_place + i;
    prefix_put(&p, level, keys[chain] + from, n, place, &done);
    return done;
}

Test(prefix, pages_are_found_where_they_were_put) {
    struct prefix_place place[LONGEST];
    cr_assert_eq(prefix_find(&p, keys[0], LONGEST, place), 0);
    cr_assert_eq(put(PREFIX_DEVICE, 0, 0, 8, 100), 8);
    cr_assert_eq(put(PREFIX_HOST, 0, 8, 4, 500), 4);
    cr_assert_eq(prefix_find(&p, keys[0], LONGEST, place), 12);
    cr_assert_eq(prefix_find(&p, keys[0], LONGEST, NULL), 12);
    for (uint32_t i = 0; i < LONGEST; i++) {
        cr_assert_eq(place[i].at[PREFIX_DEVICE], i < 8 ? 100 + i : PREFIX_NOWHERE);
        cr_assert_eq(place[i].at[PREFIX_HOST], i >= 8 && i < 12 ? 492 + i : PREFIX_NOWHERE);
    }
    cr_assert_eq(p.known, 12);
}

Test(prefix, a_page_that_is_there_keeps_its_place_and_says_so) {
    uint32_t place[3] = {70, 71, 72}, done;
    cr_assert_eq(put(PREFIX_DEVICE, 0, 0, 2, 10), 2);
    cr_assert_eq(prefix_put(&p, PREFIX_DEVICE, keys[0], 3, place, &done), 0);
    cr_assert_eq(place[0], 10);
    cr_assert_eq(place[1], 11);
    cr_assert_eq(place[2], 72);
    cr_assert_eq(p.n[PREFIX_DEVICE], 3);
}

Test(prefix, the_oldest_leaf_goes_first_and_never_one_that_is_held) {
    struct page_key two[2];
    uint32_t place;
    put(PREFIX_DEVICE, 0, 0, 5, 0);
    put(PREFIX_DEVICE, 1, 0, 5, 50);
    cr_assert(prefix_oldest(&p, PREFIX_DEVICE, two, &place));
    cr_assert_eq(place, 4);
    cr_assert_eq(memcmp(two, &keys[0][4], sizeof two), 0);
    prefix_use(&p, keys[0], 5);
    cr_assert(prefix_oldest(&p, PREFIX_DEVICE, two, &place));
    cr_assert_eq(place, 54);
    prefix_hold(&p, PREFIX_DEVICE, keys[1], 5);
    cr_assert(prefix_oldest(&p, PREFIX_DEVICE, two, &place));
    cr_assert_eq(place, 4);
    prefix_hold(&p, PREFIX_DEVICE, keys[0], 5);
    cr_assert(!prefix_oldest(&p, PREFIX_DEVICE, two, &place));
    prefix_release(&p, PREFIX_DEVICE, keys[1], 5);
    cr_assert(prefix_oldest(&p, PREFIX_DEVICE, two, &place));
    cr_assert_eq(place, 54);
}

Test(prefix, a_full_index_keeps_the_beginning_of_a_chain) {
    prefix_fini(&p);
    cr_assert_eq(prefix_init(&p, 7), 0);
    uint32_t place[LONGEST] = {0}, done;
    cr_assert_eq(prefix_put(&p, PREFIX_DEVICE, keys[3], 10, place, &done), ERR_FULL);
    cr_assert_eq(done, 7);
    cr_assert_eq(prefix_find(&p, keys[3], LONGEST, NULL), 7);
}

/* What a level has of each chain has no holes, and the places are distinct. */
static void expect_whole(enum prefix_level level, const bool *taken) {
    uint32_t seen = 0;
    for (uint32_t k = 0; k < CHAINS; k++) {
        struct prefix_place place[LONGEST];
        uint32_t n = leading_on(level, k);
        prefix_find(&p, keys[k], LONGEST, place);
        for (uint32_t i = n; level == PREFIX_DEVICE && i < LONGEST; i++)
            cr_assert_eq(place[i].at[level], PREFIX_NOWHERE, "page %u of %u without %u", i, k, n);
        for (uint32_t i = 0; i < LONGEST; i++)
            if (place[i].at[level] != PREFIX_NOWHERE) {
                cr_assert(taken[place[i].at[level]]);
                seen++;
            }
    }
    cr_assert_geq(seen, p.n[level]);
}

Test(prefix, random_use_moves_the_oldest_leaves_down_and_then_out) {
    enum { DEVICE = 60, HOST = 80 };
    bool taken[PREFIX_LEVELS][DEVICE + HOST] = {{false}};
    const char *text = getenv("PENSTOCK_SEED");
    uint64_t rng = text ? strtoull(text, NULL, 10) : (uint64_t)clock_wall_ms();
    cr_log_info("PENSTOCK_SEED=%llu", (unsigned long long)rng);
    for (uint32_t step = 0; step < 4000; step++) {
        uint32_t k = (uint32_t)(rng_next(&rng) % CHAINS);
        uint32_t n = 1 + (uint32_t)(rng_next(&rng) % LONGEST), have = leading_on(PREFIX_DEVICE, k);
        if (have > n) have = n;
        prefix_use(&p, keys[k], have);
        prefix_hold(&p, PREFIX_DEVICE, keys[k], have);
        for (uint32_t i = have; i < n; i++) {
            struct page_key two[2];
            uint32_t at, done, down = PREFIX_NOWHERE;
            while (p.n[PREFIX_DEVICE] == DEVICE) {
                if (p.n[PREFIX_HOST] == HOST) {
                    cr_assert(prefix_oldest(&p, PREFIX_HOST, two, &at));
                    prefix_remove(&p, PREFIX_HOST, &two[1]);
                    taken[PREFIX_HOST][at] = false;
                }
                cr_assert(prefix_oldest(&p, PREFIX_DEVICE, two, &at));
                for (down = 0; taken[PREFIX_HOST][down];) down++;
                uint32_t to = down;
                cr_assert_eq(prefix_put(&p, PREFIX_HOST, two, 1, &to, &done), 0);
                taken[PREFIX_HOST][to] = true;
                prefix_remove(&p, PREFIX_DEVICE, &two[1]);
                taken[PREFIX_DEVICE][at] = false;
            }
            for (at = 0; taken[PREFIX_DEVICE][at];) at++;
            taken[PREFIX_DEVICE][at] = true;
            cr_assert_eq(prefix_put(&p, PREFIX_DEVICE, keys[k] + i, 1, &at, &done), 0);
            prefix_hold(&p, PREFIX_DEVICE, keys[k] + i, 1);
        }
        prefix_release(&p, PREFIX_DEVICE, keys[k], n);
        cr_assert_eq(leading_on(PREFIX_DEVICE, k) >= n, true);
        if (step % 20 == 0) {
            expect_whole(PREFIX_DEVICE, taken[PREFIX_DEVICE]);
            expect_whole(PREFIX_HOST, taken[PREFIX_HOST]);
        }
        cr_assert_leq(p.known, p.n[PREFIX_DEVICE] + p.n[PREFIX_HOST]);
    }
    cr_assert_eq(p.n[PREFIX_DEVICE], DEVICE);
    cr_assert_leq(p.n[PREFIX_HOST], HOST);
    cr_assert_gt(p.n[PREFIX_HOST], HOST / 2);
}
