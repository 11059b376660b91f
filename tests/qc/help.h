/* help.h - what the inspection tests share: pictures drawn and written, and outside data.
 *
 * Units: pixels, bytes.  Owner: pictures and files lie in the arena given.  Memory: the arena.
 * Errors: a failed helper fails the test.  Threads: one. */
#ifndef PENSTOCK_TESTS_QC_HELP_H
#define PENSTOCK_TESTS_QC_HELP_H

#include "base/arena.h"
#include "workers/encode/image.h"

/* ---- pictures ---- */
struct image picture_new(struct arena *a, uint32_t width, uint32_t height, uint32_t channels,
                         uint8_t level);
void picture_box(struct image *im, int x, int y, int width, int height, uint8_t level);
/* A board: pads, traces and chips without a repeated pattern; the same for the same seed. */
struct image picture_board(struct arena *a, uint32_t width, uint32_t height, uint32_t channels,
                           uint64_t seed);
/* Moved by (dx, dy), its edge repeated; and with noise of -amount to amount. */
struct image picture_moved(struct arena *a, const struct image *im, int dx, int dy);
void picture_noise(struct image *im, int amount, uint64_t seed);
struct image picture_copy(struct arena *a, const struct image *im);
bool picture_equal(const struct image *x, const struct image *y);
/* The greatest difference of a sample. */
int picture_distance(const struct image *x, const struct image *y);

/* ---- files ---- */
struct png_kind {
    uint8_t depth, color; /* as in IHDR: color 0 gray, 2 RGB, 3 palette, 4 gray + alpha, 6 RGBA */
    bool interlaced;
};
/* samples: rows as PNG packs them at that depth. Palette entry i is (i, 255 - i, 7 i). */
struct bytes png_of(struct arena *a, uint32_t width, uint32_t height, struct png_kind kind,
                    const void *samples, size_t bytes);
struct bytes png_of_picture(struct arena *a, const struct image *im);
/* Recomputed CRCs, so that a changed chunk is what it says. */
struct bytes png_with_chunk(struct arena *a, struct bytes png, const char *name, struct bytes data);
struct bytes jpeg_of_picture(struct arena *a, const struct image *im, int quality,
                             bool progressive);
/* Four samples a pixel, stored as they are. */
struct bytes jpeg_of_cmyk(struct arena *a, const struct image *im);
/* The file with an APP1 segment behind SOI that gives this orientation. */
struct bytes jpeg_with_orientation(struct arena *a, struct bytes jpeg, unsigned orientation,
                                   bool big_endian);
/* A TIFF block with only that tag. */
struct bytes exif_block(struct arena *a, unsigned orientation, bool big_endian);
struct bytes file_of(struct arena *a, const char *path);

/* A folder below PENSTOCK_DATA; skips the test when it is unset or the folder is not there. */
const char *data_dir(const char *below);
uint64_t test_seed(void); /* printed, so that a failure can be run again: SEED=N */

#endif
