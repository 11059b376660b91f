/* image_codec.h - what image.c asks of the files that know a format.
 *
 * A codec checks the declared size with image_check_size, then decodes into the arena; facts are
 * filled but for `shrink`, which a codec sets when it has scaled while decoding (else 1).
 *
 * Units, owner, memory, errors, threads: as image.h. */
#ifndef PENSTOCK_WORKERS_ENCODE_IMAGE_CODEC_H
#define PENSTOCK_WORKERS_ENCODE_IMAGE_CODEC_H

#include "workers/encode/image.h"

struct image_call {
    struct bytes file;
    const struct image_want *want;
    struct arena *arena;
    struct image *out;
    struct image_facts *facts;
    char *err;
    size_t err_bytes;
};
int image_jpeg_decode(const struct image_call *c);
int image_png_decode(const struct image_call *c);

/* ERR_LIMIT with size and limit in err. */
int image_check_size(const struct image_call *c, uint32_t width, uint32_t height);
/* Pixels for out, from the arena; -ENOMEM with err. */
int image_alloc(const struct image_call *c, uint32_t width, uint32_t height, uint32_t channels);
/* 1, 2, 4 or 8, as image_want says. */
uint32_t image_shrink_for(uint32_t width, uint32_t height, uint32_t side_px);

/* The TIFF block of a JPEG's first EXIF segment; {NULL, 0}: none. */
struct bytes image_exif_find(struct bytes jpeg);
/* Orientation from a TIFF block: 1 to 8, and 1 when there is none or the block is malformed. */
uint32_t image_exif_orientation(struct bytes tiff);

#endif
