#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/pages/pages_fixture.h"

static struct rig g;
static struct chain a, b;

static void setup(void) {
    rig_make(&g, 2);
    rig_open(&g);
    chain_make(&a, &g, 0x155, 20);
    chain_make(&b, &g, 0x1d5, 20);
}

static void teardown(void) {
    chain_free(&a);
    chain_free(&b);
    rig_remove(&g);
}
TestSuite(pages, .init = setup, .fini = teardown);

static bool same(struct page_key x, struct page_key y) {
    return memcmp(&x, &y, sizeof x) == 0;
}

Test(pages, a_root_differs_with_each_thing_that_makes_pages_differ) {
    struct page_model m[6];
    struct page_key root[9];
    struct bytes none = {NULL, 0}, secret = bytes_str("a tenant's secret");
    for (int i = 0; i < 6; i++) m[i] = g.config.model;
    m[1].model = bytes_str("other weights");
    m[2].rope = bytes_str("other rope");
    m[3].numerics = bytes_str("test-2");
    m[4].dtype++;
    m[5].layout++;
    for (int i = 0; i < 6; i++) page_root(&root[i], &m[i], none, secret);
    page_root(&root[6], &m[0], bytes_str("an adapter"), secret);
    page_root(&root[7], &m[0], none, bytes_str("another's secret"));
    page_root_public(&root[8], &m[0], none);
    for (int i = 0; i < 9; i++)
        for (int j = 0; j < i; j++) cr_assert(!same(root[i], root[j]), "%d and %d", i, j);
    char f[2][PAGE_FINGERPRINT_CHARS];
    page_fingerprint(&m[0], f[0]);
    page_fingerprint(&m[3], f[1]);
    cr_assert_str_neq(f[0], f[1]);
    cr_assert_eq(strlen(f[0]), PAGE_FINGERPRINT_CHARS - 1);
}

Test(pages, a_key_depends_on_every_token_before_it_and_on_what_is_no_text) {
    struct chain c;
    struct page_key k;
    chain_make(&c, &g, 0x155, 20);
    c.tokens[5 * T + 3]++;
    page_chain(c.keys, c.tokens, 20, T);
    for (int i = 0; i <= 20; i++) cr_assert_eq(same(a.keys[i], c.keys[i]), i <= 5, "page %d", i);
    page_next(&k, &a.keys[0], a.tokens, T, bytes_str("digest of an image"));
    cr_assert(!same(k, a.keys[1]));
    chain_free(&c);
}

Test(pages, a_prefix_is_found_after_a_restart_and_by_whoever_begins_alike) {
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    rig_reopen(&g);
    cr_assert_null(pages_remade(g.pages, 0));
    cr_assert_eq(read_chain(&g, &a), 20);
    uint32_t alike = 0;
    while (same(a.keys[alike + 1], b.keys[alike + 1])) alike++;
    cr_assert(alike > 0 && alike < 20);
    struct pages_read r;
    struct pages_hit hit;
    cr_assert_eq(pages_read_begin(g.pages, 0, &r), 0);
    cr_assert_eq(pages_find(&r, 0, b.keys, 20, &hit), 0);
    pages_read_end(&r);
    cr_assert_eq(hit.stored, alike);
    cr_assert_eq(store_chain(&g, &b, 0), 20);
    cr_assert_eq(read_chain(&g, &b), 20);
    cr_assert_eq(pages_stats(g.pages).known, alike, "of a window, those of the other chain's end");
}

Test(pages, a_prefix_whose_window_is_gone_is_shortened_and_reported) {
    struct pages_read r;
    struct pages_hit hit;
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    cr_assert_eq(pages_first_needed(g.pages, 1, 20), 17, "token 320 sees from 281 on: page 17");
    cr_assert_eq(pages_first_needed(g.pages, 0, 20), 0);
    cr_assert_eq(pages_read_begin(g.pages, 0, &r), 0);
    cr_assert_eq(pages_find(&r, 0, a.keys, 20, &hit), 0);
    cr_assert_eq(hit.pages, 20);
    cr_assert_eq(pages_stats(g.pages).shortened, 0);
    /* A text that leaves the chain at page 19 needs window page 16, which was never stored. */
    cr_assert_eq(pages_find(&r, 0, a.keys, 19, &hit), 0);
    cr_assert_eq(hit.stored, 19);
    cr_assert_eq(hit.pages, 0);
    cr_assert_eq(pages_stats(g.pages).shortened, 1);
    pages_read_end(&r);
}

Test(pages, other_tokens_under_the_same_key_are_a_miss_with_a_counter) {
    struct pages_read r;
    struct bytes data;
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    cr_assert_eq(pages_read_begin(g.pages, 0, &r), 0);
    cr_assert_eq(pages_get(&r, 0, 0, a.keys, 3, a.tokens, &data), 0);
    a.tokens[3 * T + 15] ^= 1;
    cr_assert_eq(pages_get(&r, 0, 0, a.keys, 3, a.tokens, &data), ERR_STALE);
    a.keys[4].b[0] ^= 1;
    cr_assert_eq(pages_get(&r, 0, 0, a.keys, 4, a.tokens, &data), ERR_STALE, "another parent");
    cr_assert_eq(pages_get(&r, 0, 0, b.keys, 19, b.tokens, &data), -ENOENT);
    struct pages_stats s = pages_stats(g.pages);
    cr_assert_eq(s.foreign, 2);
    cr_assert_eq(s.absent, 1);
    cr_assert_eq(s.hits, 1);
    pages_read_end(&r);
}

Test(pages, a_read_ends_after_its_time_and_its_pages) {
    struct pages_read r;
    struct pages_hit hit;
    struct bytes data;
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    cr_assert_eq(pages_read_begin(g.pages, 1000, &r), 0);
    cr_assert_eq(pages_get(&r, 1000 + PAGES_READ_MS, 0, a.keys, 0, a.tokens, &data), 0);
    cr_assert_eq(pages_get(&r, 1001 + PAGES_READ_MS, 0, a.keys, 0, a.tokens, &data), ERR_LIMIT);
    cr_assert_eq(pages_find(&r, 1001 + PAGES_READ_MS, a.keys, 20, &hit), ERR_LIMIT);
    for (uint32_t i = 1; i < PAGES_READ_PAGES; i++)
        cr_assert_eq(pages_get(&r, 1000, 0, a.keys, i % 20, a.tokens, &data), 0);
    cr_assert_eq(pages_get(&r, 1000, 0, a.keys, 0, a.tokens, &data), ERR_LIMIT);
    pages_read_end(&r);
}

Test(pages, a_page_is_not_stored_without_its_parent) {
    struct pages_save s = {.first = 5, .pages = 6, .keys = a.keys, .tokens = a.tokens}, *one = &s;
    const void *data = a.data[5];
    s.data = &data;
    pages_write(g.pages, &one, 1);
    cr_assert_eq(s.code, -ENOENT);
    cr_assert_eq(s.stored, 0);
    cr_assert_eq(pages_stats(g.pages).orphaned, 1);
}

Test(pages, the_least_recently_used_leaves_go_first_and_the_cap_is_held) {
    enum { CHAINS = 40 };
    static struct chain c[CHAINS];
    struct page_group_usage u;
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    for (uint32_t i = 0; i < CHAINS; i++) {
        chain_make(&c[i], &g, 0x1000 + i * 0x100, 20);
        cr_assert_eq(store_chain(&g, &c[i], 0), 20);
        cr_assert_eq(store_chain(&g, &a, 20), 0, "no page is new; all are used");
        cr_assert_eq(read_chain(&g, &a), 20, "what is used stays");
        expect_parents(&g, c, i + 1);
        cr_assert_eq(pages_usage(g.pages, 0, &u), 0);
        cr_assert_leq(u.pages, u.pages_max);
        cr_assert_leq(data_file_bytes(&g, "global"), CAP);
        cr_assert_leq(data_file_bytes(&g, "window"), CAP);
    }
    cr_assert_gt(pages_stats(g.pages).evicted, 100);
    cr_assert_eq(pages_stats(g.pages).no_room, 0);
    cr_assert_lt(read_chain(&g, &c[0]), 20, "what is not goes");
    cr_assert_eq(read_chain(&g, &c[CHAINS - 1]), 20);
    for (uint32_t i = 0; i < CHAINS; i++) chain_free(&c[i]);
}

Test(pages, a_chain_that_is_longer_than_the_cache_keeps_its_beginning) {
    struct page_group_usage u;
    pages_close(g.pages);
    g.groups[0].cap_bytes = 1500u << 10;
    g.config.n_groups = 1;
    g.config.dir = g.dir;
    g.groups[0].name = "small";
    rig_open(&g);
    struct chain c;
    chain_make(&c, &g, 7, CHAIN_MAX);
    cr_assert_eq(pages_usage(g.pages, 0, &u), 0);
    cr_assert_lt(u.pages_max, 2 * CHAIN_MAX);
    for (int i = 0; i < 3; i++) {
        store_chain(&g, &a, 0);
        uint32_t stored = store_chain(&g, &c, 0);
        cr_assert_gt(stored, CHAIN_MAX / 2);
        cr_assert_eq(read_chain(&g, &c), stored);
    }
    chain_free(&c);
}

static atomic_uint done_n;
static void count_done(struct pages_save *s) {
    (void)s;
    atomic_fetch_add(&done_n, 1);
}

Test(pages, what_is_queued_is_stored_behind_and_before_the_cache_closes) {
    const void *data[20];
    for (int i = 0; i < 20; i++) data[i] = a.data[i];
    struct pages_save s[20];
    for (uint32_t i = 0; i < 20; i++) {
        s[i] = (struct pages_save){.first = i,
                                   .pages = i + 1,
                                   .keys = a.keys,
                                   .tokens = a.tokens,
                                   .data = &data[i],
                                   .done = count_done};
        cr_assert_eq(pages_save(g.pages, &s[i]), 0);
        if (i != 9) continue;
        pages_flush(g.pages);
        cr_assert_eq(atomic_load(&done_n), 10);
    }
    rig_reopen(&g);
    cr_assert_eq(atomic_load(&done_n), 20);
    for (int i = 0; i < 20; i++) cr_assert_eq(s[i].code, 0);
    cr_assert_eq(expect_parents(&g, &a, 1), 20);
}

Test(pages, a_cap_that_holds_nothing_is_refused_and_one_that_shrinks_begins_anew) {
    cr_assert_eq(store_chain(&g, &a, 0), 20);
    pages_close(g.pages);
    g.pages = NULL;
    g.groups[0].cap_bytes = 100 << 10;
    cr_assert_eq(pages_open(&g.pages, &g.config, g.err, sizeof g.err), ERR_LIMIT);
    cr_assert_not_null(strstr(g.err, "give it"), "%s", g.err);
    g.groups[0].cap_bytes = 1 << 20;
    rig_open(&g);
    cr_assert_not_null(pages_remade(g.pages, 0));
    cr_assert_null(pages_remade(g.pages, 1));
    cr_assert_eq(pages_stats(g.pages).remade, 1);
    cr_assert_eq(read_chain(&g, &a), 0);
    cr_assert_leq(data_file_bytes(&g, "global"), 1 << 20);
}

Test(pages, random_conversations_are_always_right, .timeout = 120) {
    enum { CHAINS = 24, STEPS = 300 };
    static struct chain c[CHAINS];
    uint64_t rng = pages_seed();
    for (uint32_t i = 0; i < CHAINS; i++)
        chain_make(&c[i], &g, (uint32_t)rng_next(&rng) & 0xffff, 4 + (uint32_t)rng_next(&rng) % 30);
    for (uint32_t step = 0; step < STEPS; step++) {
        struct chain *one = &c[rng_next(&rng) % CHAINS];
        uint64_t what = rng_next(&rng) % 16;
        if (what < 8) {
            uint32_t have = read_chain(&g, one);
            uint32_t stored = store_chain(&g, one, have);
            if (pages_stats(g.pages).no_room == 0) cr_assert_eq(have + stored, one->pages);
        } else if (what < 15) {
            read_chain(&g, one);
        } else {
            rig_reopen(&g);
            cr_assert_null(pages_remade(g.pages, 0), "%s", pages_remade(g.pages, 0));
            cr_assert_null(pages_remade(g.pages, 1), "%s", pages_remade(g.pages, 1));
        }
        if (step % 10 == 0) expect_parents(&g, c, CHAINS);
        cr_assert_leq(data_file_bytes(&g, "global"), CAP);
    }
    cr_assert_eq(pages_stats(g.pages).torn, 0);
    cr_assert_eq(pages_stats(g.pages).failed, 0);
    for (uint32_t i = 0; i < CHAINS; i++) chain_free(&c[i]);
}
