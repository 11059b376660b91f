/* image.h - a JPEG or PNG file to 8-bit gray or RGB pixels, upright, under caps.
 *
 * The size that a file declares is checked against LIMIT_IMAGE_PIXELS and LIMIT_IMAGE_SIDE before
 * anything is allocated for it. A file that is cut short, fails a checksum, or makes its decoder
 * warn is refused: half a part must not be judged. 16-bit samples keep their high byte, transparent
 * pixels are laid on white, CMYK becomes RGB, an EXIF orientation is applied.
 *
 * Units: pixels, bytes.  Owner: pixels lie in the arena; the file is borrowed for the call.
 * Memory: the arena holds at most 7 bytes for a stored pixel; a decoder's own working memory (up to
 * 6 bytes a pixel for a progressive JPEG) is freed before return.  Errors: ERR_LIMIT, ERR_CORRUPT,
 * -ENOTSUP, -ENOMEM with the reason in err.  Threads: any. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"

struct image {
    uint8_t *pixels; /* [height][width][channels], rows follow each other without gaps */
    uint32_t width, height;
    uint32_t channels; /* 1 gray, 3 red, green, blue */
};

struct image_want {
    uint32_t channels; /* 1 or 3; 0: 1 for a gray file, else 3 */
    uint32_t side_px;  /* the longer side that is enough; 0: every pixel. The image comes at the
                          smallest of 1/1, 1/2, 1/4, 1/8 whose longer side is not below it */
};

enum image_format { IMAGE_JPEG, IMAGE_PNG };
struct image_facts {
    enum image_format format;
    uint32_t stored_width, stored_height; /* as the file declares them, before orientation */
    uint32_t orientation;                 /* EXIF, 1 (upright) to 8; has been applied */
    uint32_t shrink;                      /* 1, 2, 4 or 8: a side of it is the stored side by this,
                                             rounded up */
};

/* facts may be NULL. */
int image_decode(struct bytes file, const struct image_want *want, struct arena *a,
                 struct image *out, struct image_facts *facts, char *err, size_t err_bytes);
const char *image_format_name(enum image_format f); /* "jpeg", "png" */

/* Gray of one pixel: BT.601 luma in integers. */
static inline uint8_t image_luma(uint32_t r, uint32_t g, uint32_t b) {
    return (uint8_t)((77 * r + 150 * g + 29 * b + 128) >> 8);
}
/* Averages blocks of factor x factor pixels in place; the last ones may be smaller. */
void image_shrink(struct image *im, uint32_t factor);
/* RGB to gray, in place. */
void image_to_gray(struct image *im);
/* Turns as EXIF orientation 2 to 8 asks; 1 does nothing. -ENOMEM. */
int image_orient(struct image *im, uint32_t orientation, struct arena *a);

#endif
