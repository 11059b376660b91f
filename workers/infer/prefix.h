/* prefix.h - where the pages of known prefixes lie: in the device's pool, in the host's, or in
 * both.
 *
 * A page is known by its key (store/page_key.h) while it has a place on a level, and a level orders
 * its pages by use. Whoever uses a page uses all before it, so that on each level
 *
 *   a page stands nearer to the new end than every page that continues it:
 *
 * the oldest page that nobody holds is a leaf, and may go without making others unreachable.
 * prefix_put keeps this by itself. A holder of a page holds all before it too, which keeps pages in
 * the order that they were taken and given back.
 *
 * This module copies nothing: it says which page goes, and the engine moves it a level down (puts
 * it there with its new place, then takes it away here) or lets it go. Pages that are in neither
 * place may still be in the store (store/pages.h).
 *
 * Units: pages.  Owner: prefix_init to prefix_fini; places mean what the caller says.
 * Memory: all at init, about 160 bytes a page.  Errors: -ENOMEM, ERR_FULL.
 * Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_PREFIX_H
#define PENSTOCK_WORKERS_INFER_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "store/pages.h"

#define PREFIX_NOWHERE UINT32_MAX

enum prefix_level { PREFIX_DEVICE, PREFIX_HOST, PREFIX_LEVELS };
struct prefix_entry;
struct prefix {
    struct prefix_entry *entry; /* [cap] */
    uint32_t *bucket;           /* [buckets] the first entry of a chain */
    uint32_t cap, buckets, free, known;
    uint32_t newest[PREFIX_LEVELS], oldest[PREFIX_LEVELS], n[PREFIX_LEVELS];
};
struct prefix_place {
    uint32_t at[PREFIX_LEVELS]; /* PREFIX_NOWHERE: not on this level */
};

int prefix_init(struct prefix *p, uint32_t pages_max); /* -ENOMEM */
void prefix_fini(struct prefix *p);                    /* accepts zeroed memory */

/* Where pages 0..n-1 of a chain are (keys[i + 1] is page i's key); how many leading ones are
 * somewhere. place may be NULL. */
uint32_t prefix_find(const struct prefix *p, const struct page_key *keys, uint32_t n,
                     struct prefix_place *place);
/* n pages that follow one another are on that level: page i, whose key is keys[i + 1], at place[i].
 * They are used now, and so are all before them (keys[0]: a root or the page before). One that is
 * there already keeps its place, which is written to place[i]: what the caller brought for it is
 * the caller's to free. ERR_FULL: from page *done on there is no room. */
int prefix_put(struct prefix *p, enum prefix_level level, const struct page_key *keys, uint32_t n,
               uint32_t *place, uint32_t *done);
/* Marks a chain as used now, on all levels. */
void prefix_use(struct prefix *p, const struct page_key *keys, uint32_t n);
/* Held pages are not the oldest of that level; all n are on it. */
void prefix_hold(struct prefix *p, enum prefix_level level, const struct page_key *keys,
                 uint32_t n);
void prefix_release(struct prefix *p, enum prefix_level level, const struct page_key *keys,
                    uint32_t n);
/* The page that should go first, with the key before it in keys[0] and its own in keys[1]; false:
 * all are held. */
bool prefix_oldest(const struct prefix *p, enum prefix_level level, struct page_key keys[2],
                   uint32_t *place);
/* The page is on that level no more. */
void prefix_remove(struct prefix *p, enum prefix_level level, const struct page_key *key);

#endif
