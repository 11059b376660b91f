/* image_inspect.h - a part's image file against its reference's, as a recipe says: what differs.
 *
 * Decode, scale, match the levels of gray, lay one on the other, compare. Judging what was found is
 * the post stage's work.
 *
 * Units: pixels of the upright part at its full size, unless said otherwise.  Owner: results lie in
 * the arena.  Memory: scratch up to LIMIT_ARENA_BYTES, freed on return; the arena holds the two
 * images and the regions.  Errors: as image_decode, the reference's with "reference: " before;
 * ERR_FIELD when the two are not of one size.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_INSPECT_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_INSPECT_H

#include "pipelines/recipe.h"
#include "workers/encode/image_diff.h"
#include "workers/encode/image_warp.h"

struct inspection {
    struct image_facts facts;
    uint32_t width, height;     /* of the upright part */
    bool compared;              /* false: there was no reference, and nothing below counts */
    struct image_levels levels; /* of gray, or of red */
    struct image_shift shift;   /* in compared pixels: 1 / facts.shrink of a part's */
    struct image_map map;       /* the same, with what the affine map added */
    bool refined;
    struct image_region *regions; /* by area, largest first */
    uint32_t n, n_all;            /* at most RECIPE_DEFECTS_MAX of all */
};
/* reference {NULL, 0}: the part is decoded only. */
int image_inspect(struct bytes part, struct bytes reference, const struct recipe *r,
                  struct arena *a, struct inspection *out, char *err, size_t err_bytes);

#endif
