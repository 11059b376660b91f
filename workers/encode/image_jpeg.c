/* image_jpeg.c - JPEG by TurboJPEG: the only door to it.
 *
 * Baseline and progressive, Huffman and arithmetic coding, 8 bits a sample; the library refuses
 * the rest (12-bit, lossless), and its reason is passed on. A warning is an error, since it means
 * that pixels are missing or wrong. A file may have 500 scans: more of them only burn time. */
#include <turbojpeg.h>

#include "base/err.h"
#include "workers/encode/image_codec.h"

static int fail(const struct image_call *c, tjhandle h) {
    return err_set(c->err, c->err_bytes, ERR_CORRUPT,
                   "JPEG: %s; send a complete 8-bit baseline or progressive JPEG, or a PNG",
                   tjGetErrorStr2(h));
}

/* CMYK as Adobe's programs store it, each ink inverted, in place to gray or RGB. */
static void from_cmyk(uint8_t *pixels, size_t n, uint32_t channels) {
    uint8_t *to = pixels;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + i * 4;
        uint32_t r = p[0] * p[3] / 255u, g = p[1] * p[3] / 255u, b = p[2] * p[3] / 255u;
        if (channels == 1) {
            *to++ = image_luma(r, g, b);
        } else {
            *to++ = (uint8_t)r;
            *to++ = (uint8_t)g;
            *to++ = (uint8_t)b;
        }
    }
}

static int decode(const struct image_call *c, tjhandle h) {
    int width, height, subsampling, space;
    const unsigned char *data = c->file.data;
    if (tjDecompressHeader3(h, data, c->file.len, &width, &height, &subsampling, &space) != 0)
        return fail(c, h);
    if (width <= 0 || height <= 0)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT,
                       "JPEG: the file ends before its image; send it again");
    c->facts->stored_width = (uint32_t)width;
    c->facts->stored_height = (uint32_t)height;
    int code = image_check_size(c, (uint32_t)width, (uint32_t)height);
    if (code != 0) return code;
    uint32_t shrink = image_shrink_for((uint32_t)width, (uint32_t)height, c->want->side_px);
    tjscalingfactor scale = {1, (int)shrink};
    uint32_t w = (uint32_t)TJSCALED(width, scale), hgt = (uint32_t)TJSCALED(height, scale);
    bool cmyk = space == TJCS_CMYK || space == TJCS_YCCK;
    uint32_t channels = c->want->channels;
    if (channels == 0) channels = space == TJCS_GRAY ? 1 : 3;
    code = image_alloc(c, w, hgt, cmyk ? 4 : channels);
    if (code != 0) return code;
    int format = cmyk ? TJPF_CMYK : channels == 1 ? TJPF_GRAY : TJPF_RGB;
    if (tjDecompress2(h, data, c->file.len, c->out->pixels, (int)w, 0, (int)hgt, format,
                      TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) != 0)
        return fail(c, h);
    if (cmyk) from_cmyk(c->out->pixels, (size_t)w * hgt, channels);
    c->out->channels = channels;
    c->facts->shrink = shrink;
    c->facts->orientation = image_exif_orientation(image_exif_find(c->file));
    return 0;
}

int image_jpeg_decode(const struct image_call *c) {
    tjhandle h = tjInitDecompress();
    c->facts->format = IMAGE_JPEG;
    if (!h) return err_set(c->err, c->err_bytes, -ENOMEM, "JPEG: no memory for a decoder");
    int code = decode(c, h);
    tjDestroy(h);
    return code;
}
