/* pages_fixture.h - a cache of pages in a folder of its own, and chains of random conversations.
 *
 * A page's bytes follow from its key alone, so that whatever a cache gives can be checked.
 *
 * Units: tokens, pages.  Owner: make gives, remove takes.  Memory: the caller's.
 * Errors: asserts.  Threads: one. */
#ifndef PENSTOCK_TESTS_PAGES_PAGES_FIXTURE_H
#define PENSTOCK_TESTS_PAGES_PAGES_FIXTURE_H

#include "store/pages.h"

enum { T = 16, DATA = 9000, CHAIN_MAX = 64, WINDOW = 40, CAP = 3 << 20 };

struct rig {
    char dir[128];
    struct pages_group_config groups[2];
    struct pages_config config;
    struct pages *pages;
    char err[512];
};
void rig_make(struct rig *g, uint32_t n_groups); /* the folder and the config, not opened */
void rig_open(struct rig *g);
void rig_reopen(struct rig *g);
void rig_remove(struct rig *g);

/* A conversation: which tokens it has follows from its number; those of two numbers are alike up to
 * where the numbers' low bits are. */
struct chain {
    uint32_t tokens[CHAIN_MAX * T];
    struct page_key keys[CHAIN_MAX + 1];
    uint8_t *data[CHAIN_MAX];
    uint32_t pages;
};
void chain_make(struct chain *c, const struct rig *g, uint32_t number, uint32_t pages);
void chain_free(struct chain *c);
void page_bytes_of(const struct page_key *key, uint32_t group, uint8_t out[DATA]);

/* Stores pages first..pages-1 of both groups; how many of group 0 are there then. */
uint32_t store_chain(struct rig *g, struct chain *c, uint32_t first);
/* Reads the longest prefix and compares every byte of it; how long it is. */
uint32_t read_chain(struct rig *g, const struct chain *c);
/* Of the first group: no page of these chains is there without its parent. How many are there. */
uint32_t expect_parents(struct rig *g, const struct chain *chains, uint32_t n);
uint64_t data_file_bytes(const struct rig *g, const char *group);
uint64_t pages_seed(void); /* $PENSTOCK_SEED, or the clock; printed */

#endif
