/* image_png.c - PNG by libspng: the only door to it.
 *
 * All colour types, 1 to 16 bits, interlaced or not. A chunk whose CRC is wrong is refused whatever
 * it holds; ancillary chunks may unpack to CHUNKS_BYTES_MAX together. */
#include <spng.h>

#include "base/err.h"
#include "workers/encode/image_codec.h"

#define CHUNKS_BYTES_MAX (32u * 1024u * 1024u)

static int fail(const struct image_call *c, int e) {
    int code = e == SPNG_EMEM ? -ENOMEM : ERR_CORRUPT;
    return err_set(c->err, c->err_bytes, code, "PNG: %s; send the file again or save it anew",
                   spng_strerror(e));
}

/* RGBA on white, in place to gray or RGB. */
static void from_rgba(uint8_t *pixels, size_t n, uint32_t channels) {
    uint8_t *to = pixels;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + i * 4;
        uint32_t rgb[3], white = 255u * (255u - p[3]);
        for (uint32_t k = 0; k < 3; k++) rgb[k] = (p[k] * (uint32_t)p[3] + white + 127u) / 255u;
        if (channels == 1)
            *to++ = image_luma(rgb[0], rgb[1], rgb[2]);
        else
            for (uint32_t k = 0; k < 3; k++) *to++ = (uint8_t)rgb[k];
    }
}

static void gray_to_rgb(const uint8_t *gray, uint8_t *rgb, size_t n) {
    for (size_t i = 0; i < n; i++) rgb[i * 3] = rgb[i * 3 + 1] = rgb[i * 3 + 2] = gray[i];
}

/* Gray of up to 8 bits is decoded as it is, transparency as RGBA, all else as RGB. */
static int decode_pixels(const struct image_call *c, spng_ctx *s, const struct spng_ihdr *head) {
    struct spng_trns unused;
    int transparent = spng_get_trns(s, &unused); /* reads up to the pixels */
    if (transparent != 0 && transparent != SPNG_ECHUNKAVAIL) return fail(c, transparent);
    bool gray = head->color_type == SPNG_COLOR_TYPE_GRAYSCALE;
    bool alpha = head->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA ||
                 head->color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA || transparent == 0;
    uint32_t channels = c->want->channels;
    if (channels == 0)
        channels = gray || head->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA ? 1 : 3;
    bool plain = gray && head->bit_depth <= 8 && !alpha;
    uint32_t stored = alpha ? 4 : plain ? 1 : 3;
    size_t n = (size_t)head->width * head->height;
    int code = image_alloc(c, head->width, head->height, stored);
    if (code != 0) return code;
    int format = alpha ? SPNG_FMT_RGBA8 : plain ? SPNG_FMT_G8 : SPNG_FMT_RGB8;
    int e = spng_decode_image(s, c->out->pixels, n * stored, format, alpha ? SPNG_DECODE_TRNS : 0);
    if (e == 0) e = spng_decode_chunks(s); /* those behind the pixels: cut files end here */
    if (e != 0) return fail(c, e);
    if (alpha) {
        from_rgba(c->out->pixels, n, channels);
    } else if (plain && channels == 3) {
        const uint8_t *from = c->out->pixels;
        code = image_alloc(c, head->width, head->height, 3);
        if (code != 0) return code;
        gray_to_rgb(from, c->out->pixels, n);
    } else if (!plain && channels == 1) {
        image_to_gray(c->out);
    }
    c->out->channels = channels;
    return 0;
}

static int decode(const struct image_call *c, spng_ctx *s) {
    struct spng_ihdr head;
    struct spng_exif exif;
    int e = spng_set_png_buffer(s, c->file.data, c->file.len);
    if (e == 0) e = spng_set_crc_action(s, SPNG_CRC_ERROR, SPNG_CRC_ERROR);
    if (e == 0) e = spng_set_chunk_limits(s, CHUNKS_BYTES_MAX, CHUNKS_BYTES_MAX);
    if (e == 0) e = spng_get_ihdr(s, &head);
    if (e != 0) return fail(c, e);
    c->facts->stored_width = head.width;
    c->facts->stored_height = head.height;
    int code = image_check_size(c, head.width, head.height);
    if (code == 0) code = decode_pixels(c, s, &head);
    if (code == 0 && spng_get_exif(s, &exif) == 0)
        c->facts->orientation = image_exif_orientation(bytes_of(exif.data, exif.length));
    return code;
}

int image_png_decode(const struct image_call *c) {
    spng_ctx *s = spng_ctx_new(0);
    c->facts->format = IMAGE_PNG;
    if (!s) return err_set(c->err, c->err_bytes, -ENOMEM, "PNG: no memory for a decoder");
    int code = decode(c, s);
    spng_ctx_free(s);
    return code;
}
