#include "tests/pages/pages_fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"

void rig_make(struct rig *g, uint32_t n_groups) {
    *g = (struct rig){.dir = "/dev/shm/pages-XXXXXX"}; /* where a flush costs nothing */
    if (access("/dev/shm", W_OK) != 0) strcpy(g->dir, "/tmp/pages-XXXXXX");
    cr_assert_not_null(mkdtemp(g->dir));
    g->groups[0] =
        (struct pages_group_config){.name = "global", .data_bytes = DATA, .cap_bytes = CAP};
    g->groups[1] = (struct pages_group_config){
        .name = "window", .data_bytes = DATA, .window_tokens = WINDOW, .cap_bytes = CAP};
    g->config = (struct pages_config){.dir = g->dir,
                                      .about = "a model of tests",
                                      .model = {.model = bytes_str("weights"),
                                                .rope = bytes_str("rope"),
                                                .numerics = bytes_str("test-1"),
                                                .layout = 1,
                                                .dtype = 2,
                                                .page_tokens = T},
                                      .groups = g->groups,
                                      .n_groups = n_groups};
}

void rig_open(struct rig *g) {
    g->config.groups = g->groups;
    int code = pages_open(&g->pages, &g->config, g->err, sizeof g->err);
    cr_assert_eq(code, 0, "%d: %s", code, g->err);
}

void rig_reopen(struct rig *g) {
    pages_close(g->pages);
    rig_open(g);
}

void rig_remove(struct rig *g) {
    pages_close(g->pages);
    file_remove_tree(g->dir);
}

void page_bytes_of(const struct page_key *key, uint32_t group, uint8_t out[DATA]) {
    uint64_t rng;
    memcpy(&rng, key->b, sizeof rng);
    rng += group;
    for (uint32_t i = 0; i + 8 <= DATA; i += 8) {
        uint64_t v = rng_next(&rng);
        memcpy(out + i, &v, sizeof v);
    }
}

void chain_make(struct chain *c, const struct rig *g, uint32_t number, uint32_t pages) {
    *c = (struct chain){.pages = pages};
    page_root(&c->keys[0], &g->config.model, (struct bytes){NULL, 0},
              bytes_str("a tenant's secret"));
    for (uint32_t i = 0; i < pages * T; i++) {
        uint32_t shared = i / T < 8 ? number & ((1u << (i / T)) - 1) : number;
        c->tokens[i] = shared * 7919 + i;
    }
    page_chain(c->keys, c->tokens, pages, T);
    for (uint32_t i = 0; i < pages; i++) {
        c->data[i] = malloc(2 * DATA);
        for (uint32_t group = 0; group < 2; group++)
            page_bytes_of(&c->keys[i + 1], group, c->data[i] + group * DATA);
    }
}

void chain_free(struct chain *c) {
    for (uint32_t i = 0; i < c->pages; i++) free(c->data[i]);
}

uint32_t store_chain(struct rig *g, struct chain *c, uint32_t first) {
    const void *data[2][CHAIN_MAX];
    struct pages_save s[2], *both[2] = {&s[0], &s[1]};
    for (uint32_t k = 0; k < g->config.n_groups; k++) {
        uint32_t from = pages_first_needed(g->pages, k, c->pages);
        if (from < first) from = first;
        for (uint32_t i = from; i < c->pages; i++) data[k][i - from] = c->data[i] + k * DATA;
        s[k] = (struct pages_save){.group = k,
                                   .first = from,
                                   .pages = c->pages,
                                   .keys = c->keys,
                                   .tokens = c->tokens,
                                   .data = data[k]};
    }
    pages_write(g->pages, both, g->config.n_groups);
    return s[0].stored;
}

uint32_t read_chain(struct rig *g, const struct chain *c) {
    struct pages_read r;
    struct pages_hit hit;
    uint8_t want[DATA];
    int64_t now_ms = clock_mono_ms();
    if (pages_read_begin(g->pages, now_ms, &r) != 0) return 0;
    int code = pages_find(&r, now_ms, c->keys, c->pages, &hit);
    cr_assert_eq(code, 0);
    uint32_t end = hit.pages;
    for (uint32_t k = 0; k < g->config.n_groups; k++)
        for (uint32_t i = pages_first_needed(g->pages, k, hit.pages); i < end; i++) {
            struct bytes data;
            if (pages_get(&r, now_ms, k, c->keys, i, c->tokens, &data) != 0) {
                end = i;
                break;
            }
            page_bytes_of(&c->keys[i + 1], k, want);
            cr_assert_eq(data.len, DATA);
            cr_assert_eq((uintptr_t)data.data % 64, 0, "data is aligned for vectors");
            cr_assert_eq(memcmp(data.data, want, DATA / 8 * 8), 0, "never a wrong page");
        }
    pages_read_end(&r);
    return end;
}

uint32_t expect_parents(struct rig *g, const struct chain *chains, uint32_t n) {
    struct pages_read r;
    struct bytes data;
    uint32_t found = 0;
    cr_assert_eq(pages_read_begin(g->pages, 0, &r), 0);
    for (uint32_t k = 0; k < n; k++) {
        const struct chain *c = &chains[k];
        bool before = true;
        for (uint32_t i = 0; i < c->pages; i++) {
            r.pages_left = 2;
            bool here = pages_get(&r, 0, 0, c->keys, i, c->tokens, &data) == 0;
            cr_assert(before || !here, "page %u of chain %u is there without its parent", i, k);
            before = here;
            found += here;
        }
    }
    pages_read_end(&r);
    return found;
}

uint64_t data_file_bytes(const struct rig *g, const char *group) {
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s/data.mdb", pages_dir(g->pages), group);
    cr_assert_eq(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

uint64_t pages_seed(void) {
    const char *text = getenv("PENSTOCK_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)clock_wall_ms();
    cr_log_info("PENSTOCK_SEED=%llu", (unsigned long long)seed);
    return seed;
}
