/* image_diff.h - where a part differs from its reference, once the two lie on each other.
 *
 * A pixel differs when no pixels of the reference within tolerance_px explain its gray or colors,
 * or none of the part within tolerance_px the reference's: edges may be a little off, added and
 * missing structure may not. From these seeds a difference takes in the plain differences next to
 * it, so that its box is not thinner than what a person sees. Differences closer than merge_px are
 * one region.
 *
 * Units: pixels; gray levels 0 to 255.  Owner: images are borrowed; regions lie in the arena.
 * Memory: two bytes a pixel and two a sample, from the arena.  Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_DIFF_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_DIFF_H

#include <stdbool.h>

#include "base/limits.h"
#include "workers/encode/image.h"

struct image_box {
    uint32_t x, y, width, height;
};

struct image_diff_config {
    uint32_t tolerance_px; /* 0 to IMAGE_TOLERANCE_MAX */
    uint32_t contrast_min; /* gray levels that two pixels must be apart to differ, at least 1 */
    uint32_t merge_px;
    const struct image_box *ignore; /* [n_ignore] */
    uint32_t n_ignore;
};
#define IMAGE_TOLERANCE_MAX 16u
#define IMAGE_MERGE_MAX 64u

struct image_region {
    struct image_box box;
    uint32_t area_px;  /* pixels that differ */
    uint32_t contrast; /* mean difference of them, without sign */
    bool brighter;     /* than the reference, on the whole */
};

/* How far apart two images are at a pixel: the most of any channel. */
static inline int image_contrast(const struct image *r, const struct image *p, size_t pixel) {
    int most = 0;
    for (uint32_t k = 0; k < r->channels; k++) {
        size_t at = pixel * r->channels + k;
        int d = p->pixels[at] - r->pixels[at];
        if (d < 0) d = -d;
        if (d > most) most = d;
    }
    return most;
}

/* part lies on the reference already, has its size and its channels. Regions by area, largest
 * first, then from top to bottom; at most max of the n_all found. */
int image_diff(const struct image *reference, const struct image *part,
               const struct image_diff_config *c, uint32_t max, struct arena *a,
               struct image_region **regions, uint32_t *n, uint32_t *n_all);

#endif
