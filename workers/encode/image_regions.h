/* image_regions.h - connected regions of a mask, each with its box and what lies in it.
 *
 * Regions are found on one mask (`joined`, in which near ones touch) and measured on another
 * (`differ`), pixel by pixel with the two images. Neighbours are the eight around a pixel.
 *
 * Units: pixels.  Owner: masks are borrowed; regions lie in the arena.  Memory: 12 bytes a run of
 * set pixels, from the arena.  Errors: -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_REGIONS_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_REGIONS_H

#include "workers/encode/image_diff.h"

/* All four have the same size; a mask's pixel is 0 or 255. Order and max as image_diff. */
int image_regions(const uint8_t *joined, const uint8_t *differ, const struct image *reference,
                  const struct image *part, uint32_t max, struct arena *a,
                  struct image_region **regions, uint32_t *n, uint32_t *n_all);

#endif
