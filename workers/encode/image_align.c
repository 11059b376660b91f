#include "workers/encode/image_align.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS_MAX 8u
#define COARSE_SIDE 64u
#define CANDIDATES 6u            /* followed from level to level */
#define SAD_PIXELS (256u * 1024) /* of a larger level only every nth row is looked at */

/* ---- levels of gray ---- */

struct spread {
    int64_t mean_256, deviation_256;
};

static uint64_t root(uint64_t v) {
    uint64_t r = 0;
    for (uint64_t bit = 1ull << 31; bit; bit >>= 1)
        if ((r + bit) * (r + bit) <= v) r += bit;
    return r;
}

/* Of one channel. */
static struct spread spread_of(const struct image *im, uint32_t channel) {
    uint64_t n = (uint64_t)im->width * im->height, sum = 0, squares = 0;
    uint32_t count[256] = {0};
    for (size_t i = 0; i < n; i++) count[im->pixels[i * im->channels + channel]]++;
    for (uint64_t v = 0; v < 256; v++) {
        sum += count[v] * v;
        squares += count[v] * v * v;
    }
    /* At most 2^25 pixels of 8 bits: sums fit 41 bits; the variance is kept in 1/65536. */
    uint64_t mean = (sum * 256 + n / 2) / n;
    uint64_t power = squares / n * 65536 + squares % n * 65536 / n;
    uint64_t variance = power > mean * mean ? power - mean * mean : 0;
    return (struct spread){(int64_t)mean, (int64_t)root(variance)};
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

struct image_levels image_match_levels(const struct image *reference, struct image *part,
                                       uint32_t channel) {
    struct spread r = spread_of(reference, channel), p = spread_of(part, channel);
    int64_t gain =
        p.deviation_256 > 0 ? (r.deviation_256 * 256 + p.deviation_256 / 2) / p.deviation_256 : 256;
    gain = clamp(gain, 171, 384);
    /* What is left of the means once the gain has turned about mid-gray. */
    int64_t turned = (p.mean_256 - 128 * 256) * gain / 256 + 128 * 256;
    int64_t lift = clamp(r.mean_256 - turned, -64 * 256, 64 * 256);
    int64_t offset_256 = lift + 128 * (256 - gain);
    uint8_t map[256];
    for (int64_t v = 0; v < 256; v++)
        map[v] = (uint8_t)clamp((v * gain + offset_256 + 128) >> 8, 0, 255);
    size_t n = (size_t)part->width * part->height;
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = &part->pixels[i * part->channels + channel];
        *at = map[*at];
    }
    return (struct image_levels){(int32_t)gain, (int32_t)(offset_256 / 256)};
}

/* ---- translation ---- */

struct candidate {
    int32_t dx, dy;
    uint64_t cost; /* mean absolute difference in 1/65536 of a level */
};
struct best {
    struct candidate list[CANDIDATES]; /* by rank, best first */
    uint32_t n;
};

static bool better(const struct candidate *a, const struct candidate *b) {
    if (a->cost != b->cost) return a->cost < b->cost;
    int far_a = abs(a->dx) + abs(a->dy), far_b = abs(b->dx) + abs(b->dy);
    if (far_a != far_b) return far_a < far_b;
    return a->dy != b->dy ? a->dy < b->dy : a->dx < b->dx;
}

static bool near(const struct candidate *a, const struct candidate *b, int32_t apart) {
    return abs(a->dx - b->dx) < apart && abs(a->dy - b->dy) < apart;
}

/* Keeps c when it is better than all within `apart` of it, which it then replaces. */
static void best_offer(struct best *b, struct candidate c, int32_t apart) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (near(&b->list[i], &c, apart) && !better(&c, &b->list[i])) return;
    for (uint32_t i = 0; i < b->n; i++)
        if (!near(&b->list[i], &c, apart)) b->list[kept++] = b->list[i];
    b->n = kept;
    uint32_t at = b->n;
    if (at == CANDIDATES) {
        if (!better(&c, &b->list[at - 1])) return;
        at--;
    } else {
        b->n++;
    }
    for (; at > 0 && better(&c, &b->list[at - 1]); at--) b->list[at] = b->list[at - 1];
    b->list[at] = c;
}

static uint64_t row_sad(const uint8_t *restrict a, const uint8_t *restrict b, uint32_t n) {
    uint32_t sum = 0; /* n is at most LIMIT_IMAGE_SIDE */
    for (uint32_t i = 0; i < n; i++) sum += (uint32_t)abs(a[i] - b[i]);
    return sum;
}

static uint64_t cost_of(const struct image *r, const struct image *p, int32_t dx, int32_t dy) {
    uint32_t x0 = dx < 0 ? (uint32_t)-dx : 0, x1 = dx > 0 ? r->width - (uint32_t)dx : r->width;
    uint32_t y0 = dy < 0 ? (uint32_t)-dy : 0, y1 = dy > 0 ? r->height - (uint32_t)dy : r->height;
    uint32_t step = 1 + (uint32_t)((uint64_t)r->width * r->height / SAD_PIXELS);
    uint64_t sum = 0, rows = 0;
    for (uint32_t y = y0; y < y1; y += step, rows++) {
        const uint8_t *from = r->pixels + (size_t)y * r->width + x0;
        const uint8_t *to = p->pixels + (size_t)((int64_t)y + dy) * p->width;
        sum += row_sad(from, to + ((int64_t)x0 + dx), x1 - x0);
    }
    return sum * 65536 / (rows * (x1 - x0));
}

/* Half the size, each pixel the mean of up to four; false without memory. */
static bool halve(const struct image *from, struct arena *a, struct image *to) {
    void *copy = arena_copy(a, from->pixels, (size_t)from->width * from->height);
    if (!copy) return false;
    *to = (struct image){copy, from->width, from->height, 1};
    image_shrink(to, 2);
    return true;
}

uint32_t image_pyramid(const struct image *im, uint32_t side_min, struct arena *a,
                       struct image *level, uint32_t max) {
    uint32_t n = 1;
    for (level[0] = *im; n < max; n++) {
        const struct image *last = &level[n - 1];
        uint32_t shorter = last->width < last->height ? last->width : last->height;
        if (shorter / 2 < side_min) break;
        if (!halve(last, a, &level[n])) return 0;
    }
    return n;
}

/* Everything within `reach` of a center, in the bounds of the level. */
static void search(const struct image *r, const struct image *p, int32_t cx, int32_t cy,
                   int32_t reach, int32_t max_x, int32_t max_y, int32_t apart, struct best *b) {
    for (int32_t dy = cy - reach; dy <= cy + reach; dy++)
        for (int32_t dx = cx - reach; dx <= cx + reach; dx++) {
            if (abs(dx) > max_x || abs(dy) > max_y) continue;
            best_offer(b, (struct candidate){dx, dy, cost_of(r, p, dx, dy)}, apart);
        }
}

static int32_t bound(uint32_t max_shift, uint32_t level, uint32_t side) {
    uint32_t shift = (max_shift + (1u << level) - 1) >> level;
    uint32_t half = (side - 1) / 2; /* at least half of a side must overlap */
    return (int32_t)(shift < half ? shift : half);
}

/* A shift can look good because it moves a defect out of sight. Where it is true, undoing it (in
 * one direction or both) costs about what it costs to move the reference against itself; where
 * undoing costs twice that, the reference has nothing there to be laid on, and it is undone. */
static struct candidate believed(const struct image *r, const struct image *p,
                                 struct candidate best) {
    const int32_t undo[3][2] = {{best.dx, best.dy}, {best.dx, 0}, {0, best.dy}};
    for (int i = 0; i < 3; i++) {
        int32_t dx = best.dx - undo[i][0], dy = best.dy - undo[i][1];
        if (undo[i][0] == 0 && undo[i][1] == 0) continue;
        uint64_t cost = cost_of(r, p, dx, dy), own = cost_of(r, r, undo[i][0], undo[i][1]);
        if (cost <= best.cost || cost - best.cost > 2 * own)
            return (struct candidate){dx, dy, cost};
    }
    return best;
}

int image_align(const struct image *reference, const struct image *part, uint32_t max_shift_px,
                struct arena *a, struct image_shift *out) {
    struct image r[LEVELS_MAX], p[LEVELS_MAX];
    if (reference->channels != 1 || part->channels != 1 || reference->width != part->width ||
        reference->height != part->height || reference->width == 0 || reference->height == 0)
        return -EINVAL;
    uint32_t n = image_pyramid(reference, COARSE_SIDE, a, r, LEVELS_MAX);
    if (n == 0 || image_pyramid(part, COARSE_SIDE, a, p, LEVELS_MAX) == 0) return -ENOMEM;
    struct best best = {.n = 0};
    for (uint32_t level = n; level-- > 0;) {
        int32_t max_x = bound(max_shift_px, level, r[level].width);
        int32_t max_y = bound(max_shift_px, level, r[level].height);
        int32_t apart = level == 0 ? 1 : 2;
        struct best next = {.n = 0};
        if (level == n - 1) {
            int32_t reach = max_x > max_y ? max_x : max_y;
            search(&r[level], &p[level], 0, 0, reach, max_x, max_y, apart, &next);
        }
        for (uint32_t i = 0; i < best.n; i++)
            search(&r[level], &p[level], best.list[i].dx * 2, best.list[i].dy * 2, 1, max_x, max_y,
                   apart, &next);
        best = next;
    }
    struct candidate found = believed(reference, part, best.list[0]);
    *out = (struct image_shift){found.dx, found.dy, (uint32_t)(found.cost / 256)};
    return 0;
}
