/* image_align.h - lays a part's image on its reference: levels of gray, then a translation.
 *
 * All arithmetic is in integers, so that the same two images give the same answer on any machine.
 *
 * Units: pixels; gray levels 0 to 255.  Owner: images are borrowed.  Memory: the arena holds two
 * pyramids, two thirds of the two images together.  Errors: -EINVAL for images that are not gray
 * or not of one size (a caller's mistake), -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_ALIGN_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_ALIGN_H

#include "workers/encode/image.h"

/* level[0] is the image, each next one half as wide and high, the mean of four pixels, until a side
 * would fall below side_min; how many there are, at most max; 0 without memory. */
uint32_t image_pyramid(const struct image *im, uint32_t side_min, struct arena *a,
                       struct image *level, uint32_t max);

/* part gray times gain / 256 plus offset lies on the reference's levels. */
struct image_levels {
    int32_t gain_256; /* 171 to 384: beyond 2/3 and 3/2 the light is at fault, not the match */
    int32_t offset;   /* what lifts the mean, within 64 levels of the gain's own */
};
/* Gives a channel of the part the mean and the spread of the reference's, in place. */
struct image_levels image_match_levels(const struct image *reference, struct image *part,
                                       uint32_t channel);

struct image_shift {
    int32_t dx, dy;        /* part (x + dx, y + dy) shows what reference (x, y) shows */
    uint32_t residual_256; /* mean absolute difference where they overlap, 1/256 of a level */
};
/* The shift of at most max_shift_px a side with the least mean absolute difference; of equal ones
 * the shortest. Searches a pyramid from coarse to fine along several candidates, because parts
 * repeat their patterns. */
int image_align(const struct image *reference, const struct image *part, uint32_t max_shift_px,
                struct arena *a, struct image_shift *out);

#endif
