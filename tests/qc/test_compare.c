#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "pipelines/recipe.h"
#include "tests/qc/help.h"
#include "workers/encode/image_inspect.h"

static struct arena arena, files;
static char err[512];

static void begin(void) {
    arena_init(&arena, 1u << 30);
    arena_init(&files, 1u << 30);
}
static void end(void) {
    arena_fini(&arena);
    arena_fini(&files);
}
TestSuite(compare, .init = begin, .fini = end);

static const char plain[] = "name: t\nversion: 1\n"
                            "registration: {max_shift_px: 16}\n"
                            "compare: {tolerance_px: 1, contrast_min: 40}\n"
                            "thresholds: {area_min_px: 4}\n";

static const char keep[] = "name: t\nversion: 1\nregistration: {levels: keep}\n"
                           "compare: {tolerance_px: 1, contrast_min: 40}\n";

static struct recipe *recipe(const char *yaml) {
    struct recipe *r;
    int code = recipe_parse(&r, bytes_str(yaml), NULL, "test", err, sizeof err);
    cr_assert_eq(code, 0, "%s", err);
    return r;
}

static struct inspection inspect_files(struct bytes part, struct bytes reference,
                                       const char *yaml) {
    struct recipe *r = recipe(yaml);
    struct inspection in;
    arena_reset(&arena);
    int code = image_inspect(part, reference, r, &arena, &in, err, sizeof err);
    cr_assert_eq(code, 0, "%s", err);
    recipe_free(r);
    return in;
}

static struct inspection inspect(const struct image *part, const struct image *reference,
                                 const char *yaml) {
    return inspect_files(png_of_picture(&files, part), png_of_picture(&files, reference), yaml);
}

static bool covers(const struct image_box *b, int x, int y, int w, int h, int slack) {
    return (int)b->x >= x - slack && (int)b->y >= y - slack &&
           (int)(b->x + b->width) <= x + w + slack && (int)(b->y + b->height) <= y + h + slack;
}

/* ---- properties ---- */

Test(compare, identical_images_differ_nowhere_at_any_size) {
    static const uint32_t sizes[][2] = {{1, 1},   {1, 9},   {7, 1},    {3, 3},    {17, 64},
                                        {64, 17}, {65, 63}, {127, 90}, {640, 640}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            struct image im = picture_board(&files, sizes[i][0], sizes[i][1], channels, i);
            struct inspection in = inspect(&im, &im, plain);
            cr_assert(in.compared && in.n_all == 0, "%u x %u", sizes[i][0], sizes[i][1]);
            cr_assert(in.shift.dx == 0 && in.shift.dy == 0 && in.shift.residual_256 == 0);
        }
}

Test(compare, a_planted_defect_is_found_at_every_position) {
    struct image reference = picture_board(&files, 160, 120, 1, 21);
    for (int size = 5; size <= 12; size += 7)
        for (int y = 0; y + size <= 120; y += 9)
            for (int x = 0; x + size <= 160; x += 11) {
                struct image part = picture_copy(&files, &reference);
                picture_box(&part, x, y, size, size, 252);
                struct inspection in = inspect(&part, &reference, plain);
                cr_assert_eq(in.n, 1, "size %d at %d, %d: %u regions", size, x, y, in.n);
                cr_assert(covers(&in.regions[0].box, x, y, size, size, 0));
                cr_assert_geq(in.regions[0].area_px, (uint32_t)((size - 2) * (size - 2)));
                cr_assert(in.regions[0].brighter);
                arena_reset(&arena);
            }
}

Test(compare, missing_and_added_structure_are_told_apart) {
    struct image reference = picture_new(&files, 90, 80, 1, 60);
    picture_box(&reference, 20, 20, 6, 30, 200);
    picture_box(&reference, 60, 10, 20, 20, 130);
    struct image part = picture_copy(&files, &reference);
    picture_box(&part, 20, 30, 6, 8, 60);  /* a track is broken */
    picture_box(&part, 40, 60, 9, 7, 200); /* and something lies elsewhere */
    struct inspection in = inspect(&part, &reference, keep);
    cr_assert_eq(in.n, 2);
    bool first = in.regions[0].brighter;
    const struct image_region *added = &in.regions[!first], *missing = &in.regions[first];
    cr_assert(added->brighter && covers(&added->box, 40, 60, 9, 7, 0));
    cr_assert(!missing->brighter && covers(&missing->box, 20, 30, 6, 8, 0));
    cr_assert_eq(added->area_px, 63);
    cr_assert_eq(added->contrast, 140);
}

Test(compare, a_defect_on_a_blank_part_is_not_moved_out_of_sight) {
    struct image reference = picture_new(&files, 200, 160, 1, 120);
    static const int at[][2] = {{0, 70}, {192, 3}, {3, 150}, {100, 0}};
    for (int i = 0; i < 4; i++) {
        for (int striped = 0; striped < 2; striped++) {
            struct image whole = picture_copy(&files, &reference);
            if (striped) picture_box(&whole, 0, 40, 200, 20, 200);
            struct image part = picture_copy(&files, &whole);
            picture_box(&part, at[i][0], at[i][1], 8, 8, 10);
            struct inspection in = inspect(&part, &whole, keep);
            cr_assert(in.shift.dx == 0 && in.shift.dy == 0);
            cr_assert_eq(in.n, 1, "at %d, %d", at[i][0], at[i][1]);
        }
    }
}

Test(compare, any_shift_within_the_limit_is_found_and_taken_back) {
    struct image reference = picture_board(&files, 200, 150, 1, 22);
    uint64_t seed = test_seed();
    for (int round = 0; round < 60; round++) {
        int dx = (int)(rng_next(&seed) % 33) - 16, dy = (int)(rng_next(&seed) % 33) - 16;
        struct image part = picture_moved(&files, &reference, dx, dy);
        picture_box(&part, 90 + dx, 70 + dy, 10, 8, 253);
        struct inspection in = inspect(&part, &reference, plain);
        cr_assert(in.shift.dx == dx && in.shift.dy == dy, "%d, %d found as %d, %d", dx, dy,
                  in.shift.dx, in.shift.dy);
        cr_assert_eq(in.n, 1, "%d, %d: %u regions", dx, dy, in.n);
        cr_assert(covers(&in.regions[0].box, 90 + dx, 70 + dy, 10, 8, 0));
        arena_reset(&files);
        reference = picture_board(&files, 200, 150, 1, 22);
    }
}

Test(compare, a_pattern_that_repeats_does_not_trap_the_search) {
    struct image reference = picture_new(&files, 320, 320, 1, 60);
    for (int y = 8; y < 312; y += 16)
        for (int x = 8; x < 312; x += 16) picture_box(&reference, x, y, 7, 7, 200);
    picture_box(&reference, 130, 150, 33, 21, 20); /* what tells one place from the next */
    for (int dx = -15; dx <= 15; dx += 5) {
        struct image part = picture_moved(&files, &reference, dx, 7);
        struct inspection in = inspect(&part, &reference, plain);
        cr_assert(in.shift.dx == dx && in.shift.dy == 7, "%d found as %d, %d", dx, in.shift.dx,
                  in.shift.dy);
    }
}

Test(compare, noise_and_light_are_no_defects) {
    struct image reference = picture_board(&files, 300, 200, 3, 23);
    for (int round = 0; round < 8; round++) {
        struct image part = picture_moved(&files, &reference, round - 3, 2);
        int light = 85 + round * 4, lift = round * 3 - 10;
        for (size_t i = 0; i < 300 * 200 * 3; i++) {
            int v = part.pixels[i] * light / 100 + lift;
            part.pixels[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
        picture_noise(&part, 8, (uint64_t)round);
        struct inspection in = inspect(&part, &reference, plain);
        cr_assert_eq(in.n_all, 0, "light %d %%, lift %d: %u regions", light, lift, in.n_all);
    }
}

Test(compare, edges_that_are_a_pixel_off_are_tolerated_and_more_is_not) {
    struct image reference = picture_new(&files, 120, 100, 1, 60), part;
    picture_box(&reference, 30, 30, 40, 20, 200);
    for (int off = 1; off <= 3; off++) {
        part = picture_new(&files, 120, 100, 1, 60);
        picture_box(&part, 30 - off, 30 - off, 40 + 2 * off, 20 + 2 * off, 200);
        struct inspection in = inspect(&part, &reference,
                                       "name: t\nversion: 1\nregistration: {levels: keep}\n"
                                       "compare: {tolerance_px: 2, contrast_min: 40}\n");
        cr_assert_eq(in.n_all > 0, off > 2, "%d pixels: %u regions", off, in.n_all);
    }
}

/* The part as a camera sees it that is turned and nearer: reference (x, y) moved by a map. */
static struct image seen_through(const struct image *im, struct image_map m) {
    struct image out;
    double det = m.xx * m.yy - m.xy * m.yx;
    struct image_map back = {(m.xy * m.y0 - m.yy * m.x0) / det, m.yy / det,  -m.xy / det,
                             (m.yx * m.x0 - m.xx * m.y0) / det, -m.yx / det, m.xx / det};
    cr_assert_eq(image_warp(im, im, &back, &files, &out), 0);
    return out;
}

Test(compare, a_part_that_is_turned_and_scaled_a_little_still_fits) {
    struct image reference = picture_board(&files, 400, 320, 1, 24);
    static const char loose[] = "name: t\nversion: 1\n";
    static const struct image_map maps[] = {{3, 1.006, 0, -2, 0, 1.004},
                                            {-2, 1, 0.006, 3, -0.006, 1},
                                            {4, 0.994, -0.004, 1, 0.004, 0.995},
                                            {0.5, 1, 0, 0.5, 0, 1}};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        struct image part = seen_through(&reference, maps[i]);
        struct inspection in = inspect(&part, &reference, loose);
        cr_assert(in.refined, "map %zu", i);
        double x = in.map.x0 + in.map.xx * 350 + in.map.xy * 40;
        double wanted = maps[i].x0 + maps[i].xx * 350 + maps[i].xy * 40;
        cr_assert_float_eq(x, wanted, 0.35, "map %zu: %g instead of %g", i, x, wanted);
        /* At its edges the part shows what the camera's own edge left, not the board. */
        for (uint32_t k = 0; k < in.n; k++)
            cr_assert(in.regions[k].area_px < 12 ||
                          !covers(&in.regions[k].box, 10, 10, 380, 300, 0),
                      "map %zu", i);
        picture_box(&part, 200, 150, 12, 12, 253);
        in = inspect(&part, &reference, loose);
        bool found = false;
        for (uint32_t k = 0; k < in.n; k++)
            found = found || covers(&in.regions[k].box, 200, 150, 12, 12, 2);
        cr_assert(found, "map %zu", i);
        arena_reset(&arena);
    }
}

Test(compare, a_wrong_part_does_not_bend_the_map) {
    struct image reference = picture_board(&files, 200, 200, 1, 25);
    struct image part = picture_board(&files, 200, 200, 1, 26);
    struct inspection in = inspect(&part, &reference, plain);
    for (int corner = 0; corner < 4; corner++) {
        double x = corner & 1 ? 200 : 0, y = corner & 2 ? 200 : 0;
        double u = in.map.x0 + in.map.xx * x + in.map.xy * y - x;
        double v = in.map.y0 + in.map.yx * x + in.map.yy * y - y;
        cr_assert(u >= -21 && u <= 21 && v >= -21 && v <= 21);
    }
    cr_assert_gt(in.n, 0);
}

Test(compare, the_same_images_give_the_same_answer) {
    struct image reference = picture_board(&files, 333, 217, 3, 27);
    struct image part = seen_through(&reference, (struct image_map){2, 1.003, 0.002, 1, 0, 0.998});
    picture_noise(&part, 30, 3);
    struct bytes p = png_of_picture(&files, &part), r = png_of_picture(&files, &reference);
    struct inspection a = inspect_files(p, r, plain);
    struct image_region *kept = arena_copy(&files, a.regions, (a.n + 1) * sizeof *kept);
    struct inspection b = inspect_files(p, r, plain);
    cr_assert_eq(a.n, b.n);
    cr_assert_eq(memcmp(&a.map, &b.map, sizeof a.map), 0);
    for (uint32_t i = 0; i < a.n; i++) {
        cr_assert_eq(kept[i].area_px, b.regions[i].area_px);
        cr_assert_eq(kept[i].box.x, b.regions[i].box.x);
    }
}

/* ---- color, turning, scaling, ignoring ---- */

Test(compare, a_change_of_color_alone_is_seen_unless_gray_is_asked_for) {
    struct image reference = picture_new(&files, 100, 80, 3, 90);
    picture_box(&reference, 10, 10, 30, 8, 160);
    struct image part = picture_copy(&files, &reference);
    for (int y = 40; y < 52; y++)
        for (int x = 60; x < 75; x++) {
            uint8_t *p = part.pixels + (y * 100 + x) * 3;
            p[0] = 176, p[1] = 57, p[2] = 33; /* luma 90 */
        }
    cr_assert_eq(image_luma(176, 57, 33), 90);
    struct inspection in = inspect(&part, &reference, plain);
    cr_assert_eq(in.n, 1);
    cr_assert(covers(&in.regions[0].box, 60, 40, 15, 12, 0));
    in = inspect(&part, &reference,
                 "name: t\nversion: 1\ncompare: {color: gray, contrast_min: 40}\n");
    cr_assert_eq(in.n_all, 0);
}

Test(compare, boxes_are_in_the_upright_part_at_its_full_size) {
    struct image reference = picture_board(&files, 320, 200, 1, 28);
    struct image part = picture_copy(&files, &reference);
    picture_box(&part, 100, 60, 32, 24, 254);
    struct image lying = picture_copy(&files, &part);
    image_orient(&lying, 8, &files); /* what orientation 6 turns back */
    struct bytes jpeg =
        jpeg_with_orientation(&files, jpeg_of_picture(&files, &lying, 98, false), 6, true);
    struct bytes ref = jpeg_of_picture(&files, &reference, 98, false);
    struct inspection in = inspect_files(jpeg, ref, plain);
    cr_assert_eq(in.facts.orientation, 6);
    cr_assert(in.width == 320 && in.height == 200);
    cr_assert_geq(in.n, 1);
    cr_assert(covers(&in.regions[0].box, 100, 60, 32, 24, 1));
    in =
        inspect_files(jpeg, ref, "name: t\nversion: 1\ncompare: {side_px: 160, tolerance_px: 1}\n");
    cr_assert_eq(in.facts.shrink, 2);
    cr_assert(in.width == 320 && in.height == 200);
    cr_assert(covers(&in.regions[0].box, 100, 60, 32, 24, 4));
    cr_assert_gt(in.regions[0].area_px, 32 * 24 / 2);
}

Test(compare, what_lies_in_an_ignored_box_is_not_looked_at) {
    struct image reference = picture_board(&files, 120, 90, 1, 29);
    struct image part = picture_copy(&files, &reference);
    picture_box(&part, 10, 10, 20, 12, 0);
    picture_box(&part, 80, 60, 9, 9, 0);
    struct inspection in = inspect(
        &part, &reference,
        "name: t\nversion: 1\ncompare:\n  tolerance_px: 1\n"
        "  ignore: [{x: 8, y: 8, width: 24, height: 16}, {x: 119, y: 80, width: 4000000000, "
        "height: 4000000000}, {x: 500, y: 0, width: 9, height: 9}]\n");
    cr_assert_eq(in.n, 1);
    cr_assert(covers(&in.regions[0].box, 80, 60, 9, 9, 0));
}

Test(compare, differences_near_each_other_are_one_and_far_ones_are_not) {
    struct image reference = picture_new(&files, 100, 60, 1, 50);
    for (int gap = 1; gap <= 12; gap++) {
        struct image part = picture_copy(&files, &reference);
        picture_box(&part, 20, 20, 8, 8, 200);
        picture_box(&part, 28 + gap, 20, 8, 8, 200);
        struct inspection in = inspect(&part, &reference,
                                       "name: t\nversion: 1\nregistration: {levels: keep}\n"
                                       "compare: {tolerance_px: 1, merge_px: 6}\n");
        cr_assert_eq(in.n, gap <= 6 ? 1 : 2, "%d apart", gap);
    }
}

Test(compare, noise_of_a_whole_image_is_counted_and_capped) {
    struct image reference = picture_new(&files, 640, 480, 1, 128), part;
    part = picture_copy(&files, &reference);
    for (int y = 4; y < 476; y += 12)
        for (int x = 4; x < 636; x += 12) picture_box(&part, x, y, 3, 3, 255);
    struct inspection in =
        inspect(&part, &reference, "name: t\nversion: 1\nregistration: {levels: keep}\n");
    cr_assert_eq(in.n_all, 53 * 40);
    cr_assert_eq(in.n, RECIPE_DEFECTS_MAX);
}

/* ---- what cannot be compared ---- */

static void refused(struct bytes part, struct bytes reference, int code, const char *says) {
    struct recipe *r = recipe(plain);
    struct inspection in;
    int got = image_inspect(part, reference, r, &arena, &in, err, sizeof err);
    cr_assert_eq(got, code, "%d: %s", got, err);
    cr_assert(strstr(err, says), "%s", err);
    recipe_free(r);
}

Test(compare, images_of_different_sizes_and_bad_references_are_refused) {
    struct image a = picture_board(&files, 100, 80, 1, 30),
                 b = picture_board(&files, 80, 100, 1, 30);
    struct bytes png = png_of_picture(&files, &a);
    refused(png, png_of_picture(&files, &b), ERR_FIELD, "100 x 80 compared pixels");
    refused(png, bytes_of("GIF89a", 6), -ENOTSUP, "reference: the image is neither");
    refused(bytes_of("GIF89a", 6), png, -ENOTSUP, "the image is neither");
}

Test(compare, without_a_reference_the_part_is_decoded_only) {
    struct image a = picture_board(&files, 50, 40, 3, 31);
    struct inspection in =
        inspect_files(png_of_picture(&files, &a), (struct bytes){NULL, 0}, plain);
    cr_assert(!in.compared && in.n == 0 && in.width == 50 && in.height == 40);
}
