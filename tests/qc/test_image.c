#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/rng.h"
#include "tests/qc/help.h"

static struct arena arena;
static char err[512];

static void begin(void) {
    arena_init(&arena, 1u << 30);
}
static void end(void) {
    arena_fini(&arena);
}
TestSuite(image, .init = begin, .fini = end);

static int decode(struct bytes file, uint32_t channels, uint32_t side_px, struct image *out,
                  struct image_facts *facts) {
    struct image_want want = {channels, side_px};
    err[0] = '\0';
    return image_decode(file, &want, &arena, out, facts, err, sizeof err);
}

static struct image must(struct bytes file, uint32_t channels) {
    struct image out;
    cr_assert_eq(decode(file, channels, 0, &out, NULL), 0, "%s", err);
    return out;
}

static void refused(struct bytes file, int code, const char *says) {
    struct image out;
    int got = decode(file, 1, 0, &out, NULL);
    cr_assert_eq(got, code, "%s: %d %s", says, got, err);
    cr_assert(strstr(err, says), "\"%s\" is not in: %s", says, err);
}

/* ---- PNG ---- */

Test(image, a_png_of_every_size_comes_back_as_it_was) {
    for (uint32_t w = 1; w < 40; w += 3)
        for (uint32_t h = 1; h < 20; h += 5)
            for (uint32_t channels = 1; channels <= 3; channels += 2) {
                struct image im = picture_new(&arena, w, h, channels, 0);
                picture_noise(&im, 127, w * 100 + h);
                struct image back = must(png_of_picture(&arena, &im), 0);
                cr_assert(picture_equal(&im, &back), "%u x %u x %u", w, h, channels);
            }
}

Test(image, one_bit_pixels_become_black_and_white) {
    static const uint8_t rows[] = {0xA5, 0x80, 0x0F, 0x00}; /* 9 x 2 */
    struct bytes png = png_of(&arena, 9, 2, (struct png_kind){1, 0, false}, rows, sizeof rows);
    struct image im = must(png, 1);
    static const uint8_t expected[] = {255, 0, 255, 0, 0,   255, 0,   255, 255,
                                       0,   0, 0,   0, 255, 255, 255, 255, 0};
    cr_assert_arr_eq(im.pixels, expected, sizeof expected);
}

Test(image, two_and_four_bit_gray_spans_black_to_white) {
    static const uint8_t two[] = {0x1B}, four[] = {0x0F, 0x80};
    struct image im = must(png_of(&arena, 4, 1, (struct png_kind){2, 0, false}, two, 1), 0);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){0, 85, 170, 255}), 4);
    im = must(png_of(&arena, 3, 1, (struct png_kind){4, 0, false}, four, 2), 0);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){0, 255, 136}), 3);
}

Test(image, sixteen_bit_samples_keep_their_high_byte) {
    uint16_t gray[] = {0x0000, 0x12FF, 0xABCD, 0xFFFF}, rgb[] = {0x1000, 0x80FF, 0xFF00};
    struct image im =
        must(png_of(&arena, 4, 1, (struct png_kind){16, 0, false}, gray, sizeof gray), 1);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){0x00, 0x12, 0xAB, 0xFF}), 4);
    im = must(png_of(&arena, 1, 1, (struct png_kind){16, 2, false}, rgb, sizeof rgb), 3);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){0x10, 0x80, 0xFF}), 3);
}

Test(image, a_palette_becomes_its_colors) {
    static const uint8_t index[] = {0, 3, 200};
    struct bytes png = png_of(&arena, 3, 1, (struct png_kind){8, 3, false}, index, 3);
    struct image im = must(png, 0);
    cr_assert_eq(im.channels, 3);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){0, 255, 0, 3, 252, 21, 200, 55, (uint8_t)(200 * 7)}),
                     9);
    im = must(png, 1);
    cr_assert_eq(im.pixels[0], image_luma(0, 255, 0));
}

Test(image, transparent_pixels_lie_on_white) {
    static const uint8_t rgba[] = {10, 20, 30, 255, 10, 20, 30, 0, 100, 100, 100, 128};
    static const uint8_t ga[] = {40, 255, 40, 0};
    struct image im = must(png_of(&arena, 3, 1, (struct png_kind){8, 6, false}, rgba, 12), 3);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){10, 20, 30, 255, 255, 255, 177, 177, 177}), 9);
    im = must(png_of(&arena, 2, 1, (struct png_kind){8, 4, false}, ga, 4), 0);
    cr_assert_eq(im.channels, 1);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){40, 255}), 2);
}

Test(image, an_interlaced_png_is_the_same_picture) {
    for (uint32_t side = 1; side < 20; side++) {
        struct image im = picture_new(&arena, side, 21 - side, 3, 0);
        picture_noise(&im, 127, side);
        struct bytes png = png_of(&arena, im.width, im.height, (struct png_kind){8, 2, true},
                                  im.pixels, (size_t)im.width * im.height * 3);
        struct image back = must(png, 3);
        cr_assert(picture_equal(&im, &back), "%u", side);
    }
}

Test(image, a_png_with_a_flipped_bit_anywhere_is_refused_or_the_same) {
    struct image im = picture_board(&arena, 61, 43, 1, 5);
    struct bytes png = png_of_picture(&arena, &im);
    uint8_t *copy = arena_copy(&arena, png.data, png.len);
    uint32_t refusals = 0;
    for (size_t i = 8; i < png.len; i++) {
        struct image out;
        copy[i] = (uint8_t)(copy[i] ^ 1u << (i % 8));
        if (decode(bytes_of(copy, png.len), 1, 0, &out, NULL) == 0)
            cr_assert(picture_equal(&im, &out), "byte %zu changed the picture", i);
        else
            refusals++;
        copy[i] = (uint8_t)(copy[i] ^ 1u << (i % 8));
    }
    cr_assert_gt(refusals, png.len - 40);
}

Test(image, a_png_with_a_bad_crc_is_refused_with_that_reason) {
    struct image im = picture_board(&arena, 50, 50, 1, 6);
    struct bytes png = png_of_picture(&arena, &im);
    uint8_t *copy = arena_copy(&arena, png.data, png.len);
    copy[png.len - 12 - 1] ^= 0x10; /* of the last IDAT, before IEND */
    refused(bytes_of(copy, png.len), ERR_CORRUPT, "checksum");
    memcpy(copy, png.data, png.len);
    copy[8 + 25 - 1] ^= 1; /* IHDR's own */
    refused(bytes_of(copy, png.len), ERR_CORRUPT, "checksum");
}

Test(image, a_png_cut_anywhere_is_refused) {
    struct image im = picture_board(&arena, 40, 30, 3, 7);
    struct bytes png = png_of_picture(&arena, &im);
    for (size_t len = 0; len + 12 < png.len; len++) {
        struct image out;
        cr_assert_lt(decode(bytes_of(png.data, len), 1, 0, &out, NULL), 0, "%zu of %zu", len,
                     png.len);
        cr_assert_neq(err[0], '\0');
    }
}

/* ---- caps ---- */

static struct bytes png_that_claims(uint32_t width, uint32_t height) {
    struct image im = picture_new(&arena, 1, 1, 1, 9);
    struct bytes png = png_of_picture(&arena, &im);
    uint8_t *copy = arena_copy(&arena, png.data, png.len);
    for (int k = 0; k < 4; k++) {
        copy[16 + k] = (uint8_t)(width >> (24 - 8 * k));
        copy[20 + k] = (uint8_t)(height >> (24 - 8 * k));
    }
    uint32_t crc = ~0u;
    for (int i = 12; i < 29; i++) {
        crc ^= copy[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    for (int k = 0; k < 4; k++) copy[29 + k] = (uint8_t)(~crc >> (24 - 8 * k));
    return bytes_of(copy, png.len);
}

Test(image, a_declared_size_beyond_the_caps_is_refused_before_memory_is_taken) {
    arena_fini(&arena);
    arena_init(&arena, 1u << 20);
    refused(png_that_claims(LIMIT_IMAGE_SIDE + 1, 1), ERR_LIMIT, "a side may have 16384");
    refused(png_that_claims(LIMIT_IMAGE_SIDE, LIMIT_IMAGE_SIDE), ERR_LIMIT, "together");
    refused(png_that_claims(0x7FFFFFFF, 0x7FFFFFFF), ERR_LIMIT, "a side may have");
    refused(png_that_claims(0, 5), ERR_CORRUPT, "PNG");
    refused(png_that_claims(6000, 4000), -ENOMEM, "no memory for 6000 x 4000 pixels");
}

/* Deflate's bits, the first in the lowest place. */
struct bits {
    uint8_t *out;
    size_t n;
    uint64_t held;
    unsigned count;
};
static void put(struct bits *b, uint64_t value, unsigned count) {
    b->held |= value << b->count;
    for (b->count += count; b->count >= 8; b->count -= 8, b->held >>= 8)
        b->out[b->n++] = (uint8_t)b->held;
}

Test(image, a_png_whose_text_would_unpack_beyond_its_cap_harms_nobody) {
    /* A zTXt chunk of 200 kB that says it is 31 MB: a block with fixed codes, a literal 0, then
     * copies of 258 bytes from 1 back (code 285 is 11000101, distance 0 is 00000). */
    struct image im = picture_board(&arena, 20, 20, 1, 8), out;
    const size_t most = 200000;
    struct bits b = {.out = arena_alloc(&arena, most + 16)};
    b.n = (size_t)((uint8_t *)mempcpy(b.out, "c\0\0\x78\x9C", 5) - b.out);
    put(&b, 3, 3);
    put(&b, 0x0C, 8);
    while (b.n < most) put(&b, 0xA3, 13);
    struct bytes png =
        png_with_chunk(&arena, png_of_picture(&arena, &im), "zTXt", bytes_of(b.out, b.n));
    int code = decode(png, 1, 0, &out, NULL);
    cr_assert(code == ERR_CORRUPT || (code == 0 && picture_equal(&im, &out)), "%d %s", code, err);
}

Test(image, what_is_no_image_is_refused_with_what_is_taken) {
    refused(bytes_of("GIF89a", 6), -ENOTSUP, "neither JPEG nor PNG");
    refused(bytes_of("", 0), -ENOTSUP, "neither JPEG nor PNG");
    refused(bytes_of("\xFF\xD8", 2), -ENOTSUP, "neither JPEG nor PNG");
    refused(bytes_of("\xFF\xD8\xFF", 3), ERR_CORRUPT, "JPEG");
    refused(bytes_of("\x89PNG\r\n\x1a\n", 8), ERR_CORRUPT, "PNG");
}

/* ---- JPEG ---- */

Test(image, a_jpeg_comes_back_close_to_what_it_was) {
    for (uint32_t channels = 1; channels <= 3; channels += 2)
        for (int progressive = 0; progressive < 2; progressive++) {
            struct image im = picture_board(&arena, 67, 45, channels, 9);
            struct image back = must(jpeg_of_picture(&arena, &im, 97, progressive), 0);
            cr_assert_eq(back.channels, channels);
            cr_assert_leq(picture_distance(&im, &back), 24);
        }
}

Test(image, gray_and_rgb_are_made_of_either) {
    struct image im = picture_board(&arena, 40, 40, 1, 10);
    struct image rgb = must(jpeg_of_picture(&arena, &im, 97, false), 3);
    struct image again = must(png_of_picture(&arena, &rgb), 1);
    cr_assert_eq(rgb.channels, 3);
    cr_assert_leq(picture_distance(&im, &again), 24);
}

Test(image, a_jpeg_cut_anywhere_is_refused) {
    for (int progressive = 0; progressive < 2; progressive++) {
        struct image im = picture_board(&arena, 90, 70, 3, 11);
        struct bytes jpeg = jpeg_of_picture(&arena, &im, 80, progressive);
        for (size_t len = 3; len + 2 < jpeg.len; len += 7) {
            struct image out;
            cr_assert_lt(decode(bytes_of(jpeg.data, len), 1, 0, &out, NULL), 0, "%zu of %zu", len,
                         jpeg.len);
        }
        refused(bytes_of(jpeg.data, jpeg.len / 2), ERR_CORRUPT, "JPEG: ");
    }
}

Test(image, a_jpeg_with_more_scans_than_any_camera_writes_is_refused) {
    struct image im = picture_board(&arena, 16, 16, 1, 12);
    struct bytes jpeg = jpeg_of_picture(&arena, &im, 80, true);
    const uint8_t *p = jpeg.data;
    size_t scan = 0;
    for (size_t i = 2; i + 1 < jpeg.len; i++)
        if (p[i] == 0xFF && p[i + 1] == 0xDA) scan = i; /* the last scan, to be repeated */
    cr_assert_gt(scan, 0);
    size_t len = jpeg.len - 2 - scan;
    uint8_t *many = arena_alloc(&arena, scan + len * 600 + 2);
    memcpy(many, p, scan);
    for (size_t i = 0; i < 600; i++) memcpy(many + scan + i * len, p + scan, len);
    memcpy(many + scan + len * 600, "\xFF\xD9", 2);
    refused(bytes_of(many, scan + len * 600 + 2), ERR_CORRUPT, "JPEG: ");
}

Test(image, a_cmyk_jpeg_becomes_rgb) {
    /* As Adobe's programs write it: 255 is no ink. */
    struct image ink = picture_new(&arena, 16, 16, 4, 255);
    for (int i = 0; i < 256; i++) ink.pixels[i * 4 + 1] = 0, ink.pixels[i * 4 + 3] = 200;
    struct image rgb = must(jpeg_of_cmyk(&arena, &ink), 0), gray;
    cr_assert_eq(rgb.channels, 3);
    cr_assert(abs(rgb.pixels[0] - 200) < 4 && rgb.pixels[1] < 4 && abs(rgb.pixels[2] - 200) < 4);
    gray = must(jpeg_of_cmyk(&arena, &ink), 1);
    cr_assert(abs(gray.pixels[100] - image_luma(200, 0, 200)) < 4);
}

/* ---- scaling and turning ---- */

Test(image, both_formats_shrink_to_the_same_size) {
    static const uint32_t sizes[][2] = {{640, 480}, {641, 479}, {33, 1000}, {17, 9}, {1000, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct image im = picture_board(&arena, sizes[i][0], sizes[i][1], 1, 13);
        for (uint32_t side = 1; side < 1200; side = side * 3 / 2 + 1) {
            struct image png, jpeg;
            struct image_facts f, g;
            cr_assert_eq(decode(png_of_picture(&arena, &im), 1, side, &png, &f), 0, "%s", err);
            cr_assert_eq(decode(jpeg_of_picture(&arena, &im, 95, false), 1, side, &jpeg, &g), 0);
            uint32_t longer = png.width > png.height ? png.width : png.height;
            uint32_t full = im.width > im.height ? im.width : im.height;
            cr_assert(png.width == jpeg.width && png.height == jpeg.height && f.shrink == g.shrink,
                      "%u x %u, %u x %u", png.width, png.height, jpeg.width, jpeg.height);
            cr_assert(longer >= side || f.shrink == 1);
            cr_assert(longer < 2 * side || f.shrink == 8 || longer == 1, "%u for %u", longer, side);
            cr_assert_eq(longer, (full + f.shrink - 1) / f.shrink);
        }
    }
}

Test(image, shrinking_keeps_the_mean_of_each_block) {
    struct image im = picture_new(&arena, 5, 3, 1, 0);
    for (int i = 0; i < 15; i++) im.pixels[i] = (uint8_t)(i * 10);
    image_shrink(&im, 2);
    cr_assert(im.width == 3 && im.height == 2);
    cr_assert_arr_eq(im.pixels, ((uint8_t[]){30, 50, 65, 105, 125, 140}), 6);
}

/* Where pixel (x, y) of a w x h picture goes when it is shown as the orientation asks, told by
 * turns and mirrors: 6 is a quarter turn clockwise, 8 one back, 3 a half turn. */
static void shown_at(unsigned o, uint32_t w, uint32_t h, uint32_t x, uint32_t y, uint32_t *u,
                     uint32_t *v) {
    bool mirror = o == 2 || o == 4 || o == 5 || o == 7;
    unsigned quarter = o == 6 || o == 7 ? 1 : o == 3 || o == 4 ? 2 : o == 8 || o == 5 ? 3 : 0;
    *u = mirror ? w - 1 - x : x;
    *v = y;
    for (; quarter > 0; quarter--) {
        uint32_t t = *u;
        *u = h - 1 - *v;
        *v = t;
        t = w;
        w = h;
        h = t;
    }
}

Test(image, every_orientation_is_applied) {
    for (unsigned o = 1; o <= 8; o++)
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            struct image im = picture_new(&arena, 7, 4, channels, 0);
            picture_noise(&im, 127, o);
            struct image out = picture_copy(&arena, &im);
            cr_assert_eq(image_orient(&out, o, &arena), 0);
            cr_assert_eq(out.width, o >= 5 ? 4 : 7);
            for (uint32_t y = 0; y < 4; y++)
                for (uint32_t x = 0; x < 7; x++) {
                    uint32_t u, v;
                    shown_at(o, 7, 4, x, y, &u, &v);
                    for (uint32_t k = 0; k < channels; k++)
                        cr_assert_eq(im.pixels[(y * 7 + x) * channels + k],
                                     out.pixels[(v * out.width + u) * channels + k],
                                     "orientation %u at %u, %u", o, x, y);
                }
        }
}

Test(image, a_jpeg_and_a_png_turn_as_their_exif_says) {
    struct image im = picture_board(&arena, 48, 24, 1, 14);
    for (unsigned o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            struct image turned = picture_copy(&arena, &im), out;
            struct image_facts facts;
            image_orient(&turned, o, &arena);
            struct bytes jpeg = jpeg_of_picture(&arena, &im, 98, false);
            cr_assert_eq(decode(jpeg_with_orientation(&arena, jpeg, o, big), 1, 0, &out, &facts),
                         0);
            cr_assert_eq(facts.orientation, o);
            cr_assert_leq(picture_distance(&turned, &out), 24, "jpeg, orientation %u", o);
            struct bytes png = png_with_chunk(&arena, png_of_picture(&arena, &im), "eXIf",
                                              exif_block(&arena, o, big));
            cr_assert_eq(decode(png, 1, 0, &out, &facts), 0, "%s", err);
            cr_assert(picture_equal(&turned, &out), "png, orientation %u", o);
        }
}

Test(image, a_malformed_exif_block_leaves_the_picture_upright) {
    struct image im = picture_board(&arena, 32, 16, 1, 15);
    struct bytes jpeg = jpeg_of_picture(&arena, &im, 98, false);
    uint64_t seed = test_seed();
    for (unsigned o = 0; o < 300; o++) {
        bool wild = o == 0 || o > 8;
        struct image_facts facts;
        struct image out;
        struct bytes file = jpeg_with_orientation(&arena, jpeg, o, o % 2);
        if (!wild) { /* a good value in a broken block */
            uint8_t *p = arena_copy(&arena, file.data, file.len);
            p[12 + rng_next(&seed) % 14] ^= 0xC0;
            file = bytes_of(p, file.len);
        }
        cr_assert_eq(decode(file, 1, 0, &out, &facts), 0, "%s", err);
        if (wild) cr_assert_eq(facts.orientation, 1, "%u", o);
    }
}

/* ---- the outside collection ---- */

Test(image, unusual_files_of_libjpeg_turbo_are_decoded_or_refused_with_a_reason) {
    static const struct {
        const char *name, *says; /* NULL: decodes */
    } files[] = {{"testorig.jpg", NULL},        {"testimgint.jpg", NULL},
                 {"testimgari.jpg", NULL},      {"monkey12.jpg", "precision 12"},
                 {"testorig.png", NULL},        {"monkey16.png", NULL},
                 {"vgl_5674_0098.png", NULL},   {"testorig.ppm", "neither"},
                 {"shira_bird8.bmp", "neither"}};
    const char *dir = data_dir("images/libjpeg-turbo/testimages");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[700];
        struct image out;
        struct image_facts facts;
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        int code = decode(file_of(&arena, path), 0, 0, &out, &facts);
        if (files[i].says)
            cr_assert(code < 0 && strstr(err, files[i].says), "%s: %s", files[i].name, err);
        else
            cr_assert_eq(code, 0, "%s: %s", files[i].name, err);
    }
}
