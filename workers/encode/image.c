#include "workers/encode/image.h"

#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "workers/encode/image_codec.h"

const char *image_format_name(enum image_format f) {
    return f == IMAGE_JPEG ? "jpeg" : "png";
}

int image_check_size(const struct image_call *c, uint32_t width, uint32_t height) {
    if (width == 0 || height == 0)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT, "the image declares %u x %u pixels",
                       width, height);
    if (width > LIMIT_IMAGE_SIDE || height > LIMIT_IMAGE_SIDE)
        return err_set(c->err, c->err_bytes, ERR_LIMIT,
                       "the image declares %u x %u pixels; a side may have %u", width, height,
                       LIMIT_IMAGE_SIDE);
    if ((uint64_t)width * height > LIMIT_IMAGE_PIXELS)
        return err_set(c->err, c->err_bytes, ERR_LIMIT,
                       "the image declares %u x %u pixels; together they may be %u: send it "
                       "smaller or cut to the part",
                       width, height, LIMIT_IMAGE_PIXELS);
    return 0;
}

int image_alloc(const struct image_call *c, uint32_t width, uint32_t height, uint32_t channels) {
    size_t bytes = (size_t)width * height * channels;
    *c->out = (struct image){arena_alloc(c->arena, bytes), width, height, channels};
    if (c->out->pixels) return 0;
    return err_set(c->err, c->err_bytes, -ENOMEM, "no memory for %u x %u pixels", width, height);
}

uint32_t image_shrink_for(uint32_t width, uint32_t height, uint32_t side_px) {
    uint32_t longer = width > height ? width : height, factor = 1;
    if (side_px == 0) return 1;
    while (factor < 8 && (longer + 2 * factor - 1) / (2 * factor) >= side_px) factor *= 2;
    return factor;
}

void image_shrink(struct image *im, uint32_t factor) {
    uint32_t w = (im->width + factor - 1) / factor, h = (im->height + factor - 1) / factor;
    uint32_t n = im->channels;
    if (factor <= 1) return;
    /* Block (x, y) is read before its one output pixel is written, and outputs lie before inputs
     * that are still to be read. */
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++) {
            uint32_t x1 = x * factor + factor, y1 = y * factor + factor, sum[3] = {0};
            if (x1 > im->width) x1 = im->width;
            if (y1 > im->height) y1 = im->height;
            uint32_t count = (x1 - x * factor) * (y1 - y * factor);
            for (uint32_t v = y * factor; v < y1; v++) {
                const uint8_t *at = im->pixels + ((size_t)v * im->width + x * factor) * n;
                for (uint32_t u = x * factor; u < x1; u++)
                    for (uint32_t k = 0; k < n; k++) sum[k] += *at++;
            }
            for (uint32_t k = 0; k < n; k++)
                im->pixels[((size_t)y * w + x) * n + k] = (uint8_t)((sum[k] + count / 2) / count);
        }
    im->width = w;
    im->height = h;
}

void image_to_gray(struct image *im) {
    size_t n = im->channels == 3 ? (size_t)im->width * im->height : 0;
    for (size_t i = 0; i < n; i++)
        im->pixels[i] = image_luma(im->pixels[i * 3], im->pixels[i * 3 + 1], im->pixels[i * 3 + 2]);
    im->channels = 1;
}

int image_orient(struct image *im, uint32_t orientation, struct arena *a) {
    if (orientation <= 1 || orientation > 8) return 0;
    int64_t w = im->width, h = im->height, n = im->channels;
    bool swap = orientation >= 5;
    /* Source offsets in pixels: where output (0, 0) comes from, and what a step right and a step
     * down move there (EXIF 2.3, tag 0x0112). */
    const struct {
        int64_t origin, right, down;
    } walk[9] = {{0, 1, w},
                 {0, 1, w},
                 {w - 1, -1, w},
                 {h * w - 1, -1, -w},
                 {(h - 1) * w, 1, -w},
                 {0, w, 1},
                 {(h - 1) * w, -w, 1},
                 {h * w - 1, -w, -1},
                 {w - 1, w, -1}};
    uint8_t *to = arena_alloc(a, (size_t)(w * h * n));
    if (!to) return -ENOMEM;
    struct image out = {to, swap ? im->height : im->width, swap ? im->width : im->height,
                        im->channels};
    for (uint32_t y = 0; y < out.height; y++) {
        int64_t at = walk[orientation].origin + (int64_t)y * walk[orientation].down;
        for (uint32_t x = 0; x < out.width; x++, at += walk[orientation].right)
            for (int64_t k = 0; k < n; k++) *to++ = im->pixels[at * n + k];
    }
    *im = out;
    return 0;
}

int image_decode(struct bytes file, const struct image_want *want, struct arena *a,
                 struct image *out, struct image_facts *facts, char *err, size_t err_bytes) {
    static const uint8_t jpeg[3] = {0xFF, 0xD8, 0xFF};
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    assert(want->channels == 0 || want->channels == 1 || want->channels == 3);
    struct image_facts unused;
    if (!facts) facts = &unused;
    struct image_call c = {file, want, a, out, facts, err, err_bytes};
    int code;
    *facts = (struct image_facts){.orientation = 1, .shrink = 1};
    *out = (struct image){0};
    if (file.len >= sizeof jpeg && memcmp(file.data, jpeg, sizeof jpeg) == 0)
        code = image_jpeg_decode(&c);
    else if (file.len >= sizeof png && memcmp(file.data, png, sizeof png) == 0)
        code = image_png_decode(&c);
    else
        return err_set(err, err_bytes, -ENOTSUP,
                       "the image is neither JPEG nor PNG: it begins with neither's signature");
    if (code != 0) return code;
    uint32_t shrink = image_shrink_for(facts->stored_width, facts->stored_height, want->side_px);
    if (facts->shrink != shrink) image_shrink(out, shrink);
    facts->shrink = shrink;
    if (image_orient(out, facts->orientation, a) != 0)
        return err_set(err, err_bytes, -ENOMEM, "no memory to turn %u x %u pixels", out->width,
                       out->height);
    return 0;
}
