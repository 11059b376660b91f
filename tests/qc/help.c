#include "tests/qc/help.h"

#include <criterion/criterion.h>
#include <math.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>

#include "base/file.h"
#include "base/rng.h"

/* ---- pictures ---- */

struct image picture_new(struct arena *a, uint32_t width, uint32_t height, uint32_t channels,
                         uint8_t level) {
    size_t bytes = (size_t)width * height * channels;
    struct image im = {arena_alloc(a, bytes), width, height, channels};
    cr_assert_not_null(im.pixels);
    memset(im.pixels, level, bytes);
    return im;
}

void picture_box(struct image *im, int x, int y, int width, int height, uint8_t level) {
    for (int v = y < 0 ? 0 : y; v < y + height && v < (int)im->height; v++)
        for (int u = x < 0 ? 0 : x; u < x + width && u < (int)im->width; u++)
            for (uint32_t k = 0; k < im->channels; k++)
                im->pixels[((size_t)v * im->width + (size_t)u) * im->channels + k] = level;
}

struct image picture_board(struct arena *a, uint32_t width, uint32_t height, uint32_t channels,
                           uint64_t seed) {
    struct image im = picture_new(a, width, height, channels, 70);
    for (uint32_t i = 0; i < width * height / 600; i++) {
        int x = (int)(rng_next(&seed) % width), y = (int)(rng_next(&seed) % height);
        int w = 4 + (int)(rng_next(&seed) % 30), h = 4 + (int)(rng_next(&seed) % 12);
        if (rng_next(&seed) % 2) {
            int t = w;
            w = h;
            h = t;
        }
        picture_box(&im, x, y, w, h, (uint8_t)(20 + rng_next(&seed) % 4 * 60));
    }
    for (size_t i = 0; channels == 3 && i < (size_t)width * height; i++)
        im.pixels[i * 3 + 2] = (uint8_t)(im.pixels[i * 3 + 2] / 2);
    return im;
}

struct image picture_copy(struct arena *a, const struct image *im) {
    struct image out = *im;
    out.pixels = arena_copy(a, im->pixels, (size_t)im->width * im->height * im->channels);
    cr_assert_not_null(out.pixels);
    return out;
}

struct image picture_moved(struct arena *a, const struct image *im, int dx, int dy) {
    struct image out = picture_copy(a, im);
    int w = (int)im->width, h = (int)im->height;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            int u = x - dx < 0 ? 0 : x - dx >= w ? w - 1 : x - dx;
            int v = y - dy < 0 ? 0 : y - dy >= h ? h - 1 : y - dy;
            memcpy(out.pixels + ((size_t)y * im->width + (size_t)x) * im->channels,
                   im->pixels + ((size_t)v * im->width + (size_t)u) * im->channels, im->channels);
        }
    return out;
}

void picture_noise(struct image *im, int amount, uint64_t seed) {
    for (size_t i = 0; i < (size_t)im->width * im->height * im->channels; i++) {
        int v = im->pixels[i] + (int)(rng_next(&seed) % (2u * (unsigned)amount + 1)) - amount;
        im->pixels[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

bool picture_equal(const struct image *x, const struct image *y) {
    return x->width == y->width && x->height == y->height && x->channels == y->channels &&
           memcmp(x->pixels, y->pixels, (size_t)x->width * x->height * x->channels) == 0;
}

int picture_distance(const struct image *x, const struct image *y) {
    int most = 0;
    cr_assert(x->width == y->width && x->height == y->height && x->channels == y->channels);
    for (size_t i = 0; i < (size_t)x->width * x->height * x->channels; i++) {
        int d = abs(x->pixels[i] - y->pixels[i]);
        if (d > most) most = d;
    }
    return most;
}

/* ---- PNG ---- */

struct bytes png_of(struct arena *a, uint32_t width, uint32_t height, struct png_kind kind,
                    const void *samples, size_t bytes) {
    spng_ctx *s = spng_ctx_new(SPNG_CTX_ENCODER);
    struct spng_ihdr head = {.width = width,
                             .height = height,
                             .bit_depth = kind.depth,
                             .color_type = kind.color,
                             .interlace_method = kind.interlaced};
    struct spng_plte palette = {.n_entries = 1u << (kind.depth < 8 ? kind.depth : 8)};
    size_t len = 0;
    int e = 0;
    for (uint32_t i = 0; i < palette.n_entries; i++) {
        palette.entries[i].red = (uint8_t)i;
        palette.entries[i].green = (uint8_t)(255 - i);
        palette.entries[i].blue = (uint8_t)(i * 7);
    }
    spng_set_option(s, SPNG_ENCODE_TO_BUFFER, 1);
    cr_assert_eq(spng_set_ihdr(s, &head), 0);
    if (kind.color == SPNG_COLOR_TYPE_INDEXED) cr_assert_eq(spng_set_plte(s, &palette), 0);
    e = spng_encode_image(s, samples, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    cr_assert_eq(e, 0, "%s", spng_strerror(e));
    void *data = spng_get_png_buffer(s, &len, &e);
    cr_assert_not_null(data);
    void *copy = arena_copy(a, data, len);
    free(data);
    spng_ctx_free(s);
    return bytes_of(copy, len);
}

struct bytes png_of_picture(struct arena *a, const struct image *im) {
    struct png_kind kind = {8, im->channels == 3 ? 2 : 0, false};
    return png_of(a, im->width, im->height, kind, im->pixels,
                  (size_t)im->width * im->height * im->channels);
}

static uint32_t png_crc(const uint8_t *p, size_t n) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static uint8_t *put_be32(uint8_t *to, uint32_t v) {
    for (int k = 3; k >= 0; k--) *to++ = (uint8_t)(v >> (8 * k));
    return to;
}

struct bytes png_with_chunk(struct arena *a, struct bytes png, const char *name,
                            struct bytes data) {
    const size_t head = 8 + 25; /* signature, IHDR */
    uint8_t *out = arena_alloc(a, png.len + data.len + 12), *at = out;
    cr_assert_not_null(out);
    at = (uint8_t *)mempcpy(at, png.data, head);
    at = put_be32(at, (uint32_t)data.len);
    uint8_t *from = at;
    at = (uint8_t *)mempcpy(at, name, 4);
    if (data.len > 0) at = (uint8_t *)mempcpy(at, data.data, data.len);
    at = put_be32(at, png_crc(from, data.len + 4));
    memcpy(at, (const uint8_t *)png.data + head, png.len - head);
    return bytes_of(out, png.len + data.len + 12);
}

/* ---- JPEG ---- */

static struct bytes compress(struct arena *a, const struct image *im, int format, int sampling,
                             int quality, int flags) {
    tjhandle h = tjInitCompress();
    unsigned char *data = NULL;
    unsigned long len = 0;
    int e = tjCompress2(h, im->pixels, (int)im->width, 0, (int)im->height, format, &data, &len,
                        sampling, quality, flags);
    cr_assert_eq(e, 0, "%s", tjGetErrorStr2(h));
    void *copy = arena_copy(a, data, len);
    tjFree(data);
    tjDestroy(h);
    return bytes_of(copy, len);
}

struct bytes jpeg_of_picture(struct arena *a, const struct image *im, int quality,
                             bool progressive) {
    bool gray = im->channels == 1;
    return compress(a, im, gray ? TJPF_GRAY : TJPF_RGB, gray ? TJSAMP_GRAY : TJSAMP_444, quality,
                    progressive ? TJFLAG_PROGRESSIVE : 0);
}

struct bytes jpeg_of_cmyk(struct arena *a, const struct image *im) {
    return compress(a, im, TJPF_CMYK, TJSAMP_444, 98, 0);
}

struct bytes exif_block(struct arena *a, unsigned orientation, bool big_endian) {
    uint8_t little[26] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0};
    uint8_t big[26] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1};
    little[18] = big[19] = (uint8_t)orientation;
    little[19] = big[18] = (uint8_t)(orientation >> 8);
    return bytes_of(arena_copy(a, big_endian ? big : little, sizeof big), sizeof big);
}

struct bytes jpeg_with_orientation(struct arena *a, struct bytes jpeg, unsigned orientation,
                                   bool big_endian) {
    struct bytes tiff = exif_block(a, orientation, big_endian);
    uint8_t head[10] = {0xFF, 0xE1, 0, (uint8_t)(tiff.len + 8), 'E', 'x', 'i', 'f', 0, 0};
    uint8_t *out = arena_alloc(a, jpeg.len + sizeof head + tiff.len), *at = out;
    cr_assert_not_null(out);
    at = (uint8_t *)mempcpy(at, jpeg.data, 2);
    at = (uint8_t *)mempcpy(at, head, sizeof head);
    at = (uint8_t *)mempcpy(at, tiff.data, tiff.len);
    memcpy(at, (const uint8_t *)jpeg.data + 2, jpeg.len - 2);
    return bytes_of(out, jpeg.len + sizeof head + tiff.len);
}

/* ---- outside ---- */

struct bytes file_of(struct arena *a, const char *path) {
    void *data;
    size_t len;
    char err[256];
    cr_assert_eq(file_read(path, 64u << 20, &data, &len, err, sizeof err), 0, "%s", err);
    void *copy = arena_copy(a, data, len);
    free(data);
    return bytes_of(copy, len);
}

const char *data_dir(const char *below) {
    static char dir[512];
    struct stat st;
    const char *data = getenv("PENSTOCK_DATA");
    if (!data || !*data) cr_skip_test("PENSTOCK_DATA is not set: no %s", below);
    snprintf(dir, sizeof dir, "%s/%s", data, below);
    if (stat(dir, &st) != 0) cr_skip_test("%s is not there", dir);
    return dir;
}

uint64_t test_seed(void) {
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 20261123;
    cr_log_info("SEED=%llu", (unsigned long long)seed);
    return seed;
}
