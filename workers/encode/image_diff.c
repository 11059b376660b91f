#include "workers/encode/image_diff.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/encode/image_regions.h"

#define ROW_BYTES (3 * (LIMIT_IMAGE_SIDE + 2 * IMAGE_MERGE_MAX))

/* ---- the largest or smallest gray in a square window ---- */

static void row_max(uint8_t *restrict to, const uint8_t *restrict from, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) to[i] = from[i] > to[i] ? from[i] : to[i];
}

static void row_min(uint8_t *restrict to, const uint8_t *restrict from, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) to[i] = from[i] < to[i] ? from[i] : to[i];
}

typedef void row_fold(uint8_t *to, const uint8_t *from, uint32_t n);

static void pad(uint8_t *to, const uint8_t *pixel, uint32_t n, uint32_t channels) {
    for (uint32_t i = 0; i < n; i++) memcpy(to + (size_t)i * channels, pixel, channels);
}

/* Folds the rows, then the columns, of (2 t + 1) squares, each channel for itself; windows end at
 * the image's edge. */
static void window(const struct image *in, uint32_t t, row_fold *fold, uint8_t *half,
                   uint8_t *out) {
    uint32_t n = in->channels, w = in->width * n, h = in->height;
    uint8_t padded[ROW_BYTES];
    assert(w + 2 * t * n <= sizeof padded);
    for (uint32_t y = 0; y < h; y++) {
        const uint8_t *row = in->pixels + (size_t)y * w;
        pad(padded, row, t, n);
        memcpy(padded + t * n, row, w);
        pad(padded + t * n + w, row + w - n, t, n);
        memcpy(half + (size_t)y * w, padded, w);
        for (uint32_t k = 1; k <= 2 * t; k++) fold(half + (size_t)y * w, padded + k * n, w);
    }
    for (uint32_t y = 0; y < h; y++) {
        uint32_t first = y > t ? y - t : 0, last = h - 1 - y > t ? y + t : h - 1;
        memcpy(out + (size_t)y * w, half + (size_t)first * w, w);
        for (uint32_t v = first + 1; v <= last; v++)
            fold(out + (size_t)y * w, half + (size_t)v * w, w);
    }
}

/* ---- seeds and their growth ---- */

/* Marks with 255 the pixels of which a channel is at least `by` above (or below) the edge. */
static void mark(uint8_t *restrict seeds, const uint8_t *restrict high, const uint8_t *restrict low,
                 size_t pixels, uint32_t channels, int by) {
    if (channels == 1) {
        for (size_t i = 0; i < pixels; i++) seeds[i] |= high[i] - low[i] >= by ? 255 : 0;
        return;
    }
    for (size_t i = 0; i < pixels; i++, high += 3, low += 3) {
        bool far = high[0] - low[0] >= by || high[1] - low[1] >= by || high[2] - low[2] >= by;
        seeds[i] |= far ? 255 : 0;
    }
}

static void keep_differing(uint8_t *restrict mask, const struct image *r, const struct image *p,
                           int by) {
    size_t pixels = (size_t)r->width * r->height;
    for (size_t i = 0; i < pixels; i++)
        if (mask[i] && image_contrast(r, p, i) < by) mask[i] = 0;
}

/* seeds: pixels of either image that the other's neighbourhood does not explain. */
static void find_seeds(const struct image *r, const struct image *p,
                       const struct image_diff_config *c, uint8_t *half, uint8_t *edge,
                       uint8_t *seeds) {
    size_t pixels = (size_t)r->width * r->height;
    int by = (int)c->contrast_min;
    memset(seeds, 0, pixels);
    for (int side = 0; side < 2; side++) {
        const struct image *one = side ? p : r, *other = side ? r : p;
        window(one, c->tolerance_px, row_max, half, edge);
        mark(seeds, other->pixels, edge, pixels, r->channels, by);
        window(one, c->tolerance_px, row_min, half, edge);
        mark(seeds, edge, other->pixels, pixels, r->channels, by);
    }
}

static void clear_ignored(uint8_t *mask, const struct image *r, const struct image_diff_config *c) {
    for (uint32_t i = 0; i < c->n_ignore; i++) {
        struct image_box b = c->ignore[i];
        if (b.x >= r->width || b.y >= r->height) continue;
        uint32_t w = b.width < r->width - b.x ? b.width : r->width - b.x;
        uint32_t h = b.height < r->height - b.y ? b.height : r->height - b.y;
        for (uint32_t y = b.y; y < b.y + h; y++) memset(mask + (size_t)y * r->width + b.x, 0, w);
    }
}

int image_diff(const struct image *reference, const struct image *part,
               const struct image_diff_config *c, uint32_t max, struct arena *a,
               struct image_region **regions, uint32_t *n, uint32_t *n_all) {
    uint32_t w = part->width, h = part->height, channels = part->channels;
    size_t pixels = (size_t)w * h;
    assert(c->tolerance_px <= IMAGE_TOLERANCE_MAX && c->merge_px <= IMAGE_MERGE_MAX);
    assert(c->contrast_min >= 1 && reference->channels == channels);
    assert(reference->width == w && reference->height == h);
    uint8_t *half = arena_alloc(a, pixels * channels), *edge = arena_alloc(a, pixels * channels);
    uint8_t *seeds = arena_alloc(a, pixels), *mask = arena_alloc(a, pixels);
    if (!half || !edge || !seeds || !mask) return -ENOMEM;
    find_seeds(reference, part, c, half, edge, seeds);
    clear_ignored(seeds, reference, c);
    struct image from = {seeds, w, h, 1};
    window(&from, c->tolerance_px + 1, row_max, half, mask);
    keep_differing(mask, reference, part, (int)c->contrast_min);
    clear_ignored(mask, reference, c);
    uint8_t *joined = seeds; /* which have done their work */
    from.pixels = mask;
    window(&from, (c->merge_px + 1) / 2, row_max, half, joined);
    return image_regions(joined, mask, reference, part, max, a, regions, n, n_all);
}
