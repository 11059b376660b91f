/* image_warp.h - what a translation leaves over: a small affine map from reference to part.
 *
 * A board that lies a little turned, nearer or farther drifts out of register towards its edges.
 * From the translation, Gauss-Newton steps on the gray values of a pyramid find the affine map of
 * least (Huber-weighted) difference. It is taken only when it explains the part clearly better,
 * so that parts which a translation explains come through untouched.
 *
 * Units: pixels.  Owner: images are borrowed; results lie in the arena.  Memory: one image, and
 * two thirds of both in the search.  Errors: -ENOMEM.  Threads: any. Sums run in a fixed order in
 * doubles: the same images give the same map. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_WARP_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_WARP_H

#include <stdbool.h>

#include "workers/encode/image_align.h"

/* Part position of reference (x, y): (x0 + xx x + xy y, y0 + yx x + yy y). */
struct image_map {
    double x0, xx, xy, y0, yx, yy;
};
struct image_map image_map_shift(const struct image_shift *s);
/* Of gray images; starts from *map. false: it was kept, since no affine map was clearly better or
 * sane, which is one that moves no corner by more than 2 % of the longer side, or 2 pixels if that
 * is more. */
int image_refine(const struct image *reference, const struct image *part, struct image_map *map,
                 bool *refined, struct arena *a);

/* The part as seen from the reference, bilinear, gray or RGB as both are; where the part shows
 * nothing, the reference. */
int image_warp(const struct image *reference, const struct image *part, const struct image_map *map,
               struct arena *a, struct image *out);

#endif
