#include "workers/encode/image_warp.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS_MAX 8u
#define COARSE_SIDE 64u
#define STEPS 5
#define STEP_MIN_PX 0.1
#define SAMPLES 160000u /* of a larger level only every nth row and column is looked at */
#define HUBER 24.0      /* gray levels beyond which a difference counts linearly */
#define BETTER 0.97     /* of the translation's difference, for the affine map to be taken */
#define PARAMS 6

struct image_map image_map_shift(const struct image_shift *s) {
    return (struct image_map){s->dx, 1, 0, s->dy, 0, 1};
}

/* ---- sampling, in 1/65536 of a pixel ---- */

struct stepper {
    int64_t x, y, x_right, y_right; /* where a row begins, and what a step right adds */
};

static int64_t fixed(double v) {
    return (int64_t)floor(v * 65536 + 0.5);
}

static struct stepper row_of(const struct image_map *m, uint32_t y) {
    return (struct stepper){fixed(m->x0 + m->xy * y), fixed(m->y0 + m->yy * y), fixed(m->xx),
                            fixed(m->yx)};
}

/* Where a sample comes from: the top left of four pixels, and the weights of 1/256. */
struct tap {
    size_t at, right, down; /* pixels */
    uint32_t fx, fy;
};

/* false outside. */
static bool tap_of(const struct image *im, int64_t x, int64_t y, struct tap *t) {
    if (x < 0 || y < 0) return false;
    uint64_t col = (uint64_t)x >> 16, row = (uint64_t)y >> 16;
    if (col >= im->width || row >= im->height) return false;
    *t = (struct tap){row * im->width + col, col + 1 < im->width ? 1 : 0,
                      row + 1 < im->height ? im->width : 0, (uint32_t)(x & 0xFFFF) >> 8,
                      (uint32_t)(y & 0xFFFF) >> 8};
    return (t->fx == 0 || t->right) && (t->fy == 0 || t->down);
}

static uint8_t blend(const uint8_t *p, const struct tap *t, uint32_t channels) {
    size_t right = t->right * channels, down = t->down * channels;
    uint32_t top = p[0] * (256 - t->fx) + p[right] * t->fx;
    uint32_t low = p[down] * (256 - t->fx) + p[down + right] * t->fx;
    return (uint8_t)((top * (256 - t->fy) + low * t->fy + 32768) >> 16);
}

int image_warp(const struct image *reference, const struct image *part, const struct image_map *map,
               struct arena *a, struct image *out) {
    uint32_t n = part->channels;
    assert(reference->channels == n);
    uint8_t *to = arena_alloc(a, (size_t)reference->width * reference->height * n);
    if (!to) return -ENOMEM;
    *out = (struct image){to, reference->width, reference->height, n};
    const uint8_t *otherwise = reference->pixels;
    for (uint32_t y = 0; y < out->height; y++) {
        struct stepper s = row_of(map, y);
        for (uint32_t x = 0; x < out->width; x++, s.x += s.x_right, s.y += s.y_right) {
            struct tap t;
            bool inside = tap_of(part, s.x, s.y, &t);
            for (uint32_t k = 0; k < n; k++, otherwise++)
                *to++ = inside ? blend(part->pixels + t.at * n + k, &t, n) : *otherwise;
        }
    }
    return 0;
}

/* ---- Gauss-Newton ---- */

/* H step = -g over the parameters (x0 xx xy y0 yx yy), with positions from the center in units of
 * the longer side. */
struct normal {
    double h[PARAMS][PARAMS], g[PARAMS];
    double cost;
    uint32_t n;
};

static void add_pixel(struct normal *s, double gx, double gy, double u, double v, double d) {
    double away = fabs(d), weight = away <= HUBER ? 1 : HUBER / away;
    double j[PARAMS] = {gx, gx * u, gx * v, gy, gy * u, gy * v};
    for (int i = 0; i < PARAMS; i++) {
        double w = weight * j[i];
        s->g[i] += w * d;
        for (int k = i; k < PARAMS; k++) s->h[i][k] += w * j[k];
    }
}

static uint32_t sample_step(const struct image *r) {
    uint32_t step = 1;
    while ((uint64_t)r->width * r->height / (step * step) > SAMPLES) step++;
    return step;
}

static void accumulate(const struct image *r, const struct image *p, const struct image_map *m,
                       bool slopes, struct normal *s) {
    uint32_t w = r->width, h = r->height, step = sample_step(r);
    double side = w > h ? w : h;
    memset(s, 0, sizeof *s);
    for (uint32_t y = 1; y + 1 < h; y += step) {
        struct stepper at = row_of(m, y);
        at.x += at.x_right;
        at.y += at.y_right;
        const uint8_t *row = r->pixels + (size_t)y * w;
        for (uint32_t x = 1; x + 1 < w; x += step) {
            struct tap t;
            bool inside = tap_of(p, at.x, at.y, &t);
            at.x += at.x_right * step;
            at.y += at.y_right * step;
            if (!inside) continue;
            int d = blend(p->pixels + t.at, &t, 1) - row[x];
            int gx = row[x + 1] - row[x - 1], gy = row[x + w] - row[x - (size_t)w];
            s->cost += abs(d);
            s->n++;
            if (!slopes || (gx == 0 && gy == 0)) continue;
            add_pixel(s, gx / 2.0, gy / 2.0, (x - w / 2.0) / side, (y - h / 2.0) / side, d);
        }
    }
}

/* Gaussian elimination with a ridge, which keeps directions that no edge fixes where they are. */
static bool solve(struct normal *s, double step[PARAMS]) {
    double a[PARAMS][PARAMS + 1], trace = 0;
    for (int i = 0; i < PARAMS; i++) trace += s->h[i][i];
    if (trace <= 0) return false;
    for (int i = 0; i < PARAMS; i++) {
        for (int k = 0; k < PARAMS; k++) a[i][k] = i <= k ? s->h[i][k] : s->h[k][i];
        a[i][i] += trace * 1e-4;
        a[i][PARAMS] = -s->g[i];
    }
    for (int i = 0; i < PARAMS; i++) /* positive definite: no pivoting needed */
        for (int k = i + 1; k < PARAMS; k++) {
            double f = a[k][i] / a[i][i];
            for (int c = i; c <= PARAMS; c++) a[k][c] -= f * a[i][c];
        }
    for (int i = PARAMS - 1; i >= 0; i--) {
        step[i] = a[i][PARAMS];
        for (int k = i + 1; k < PARAMS; k++) step[i] -= a[i][k] * step[k];
        step[i] /= a[i][i];
    }
    return true;
}

/* Returns how far, in pixels, the step moves a corner at most. */
static double apply(struct image_map *m, const double step[PARAMS], const struct image *r) {
    double side = r->width > r->height ? r->width : r->height;
    double cx = r->width / 2.0, cy = r->height / 2.0;
    m->xx += step[1] / side;
    m->xy += step[2] / side;
    m->x0 += step[0] - (step[1] * cx + step[2] * cy) / side;
    m->yx += step[4] / side;
    m->yy += step[5] / side;
    m->y0 += step[3] - (step[4] * cx + step[5] * cy) / side;
    double far_x = fabs(step[0]) + (fabs(step[1]) + fabs(step[2])) / 2;
    double far_y = fabs(step[3]) + (fabs(step[4]) + fabs(step[5])) / 2;
    return far_x > far_y ? far_x : far_y;
}

/* The same map between images of twice (or half) the size: pixel centers lie half a pixel in. */
static struct image_map rescale(struct image_map m, double factor) {
    double half = 0.5 * (factor - 1);
    m.x0 = m.x0 * factor + half * (1 - m.xx - m.xy);
    m.y0 = m.y0 * factor + half * (1 - m.yx - m.yy);
    return m;
}

static double difference(const struct image *r, const struct image *p, const struct image_map *m) {
    struct normal s;
    accumulate(r, p, m, false, &s);
    return s.n > 0 ? s.cost / s.n : 255;
}

static bool sane(const struct image_map *m, const struct image_map *from, const struct image *r) {
    double side = r->width > r->height ? r->width : r->height;
    double most = side * 0.02 > 2 ? side * 0.02 : 2;
    for (int corner = 0; corner < 4; corner++) {
        double x = corner & 1 ? r->width : 0, y = corner & 2 ? r->height : 0;
        double dx = (m->x0 - from->x0) + (m->xx - from->xx) * x + (m->xy - from->xy) * y;
        double dy = (m->y0 - from->y0) + (m->yx - from->yx) * x + (m->yy - from->yy) * y;
        if (!(fabs(dx) <= most && fabs(dy) <= most)) return false;
    }
    return true;
}

int image_refine(const struct image *reference, const struct image *part, struct image_map *map,
                 bool *refined, struct arena *a) {
    struct image r[LEVELS_MAX], p[LEVELS_MAX];
    uint32_t n = image_pyramid(reference, COARSE_SIDE, a, r, LEVELS_MAX);
    *refined = false;
    if (n == 0 || image_pyramid(part, COARSE_SIDE, a, p, LEVELS_MAX) == 0) return -ENOMEM;
    double before = difference(reference, part, map);
    if (before == 0) return 0;
    struct image_map m = *map;
    for (uint32_t k = 1; k < n; k++) m = rescale(m, 0.5);
    for (uint32_t level = n; level-- > 0;) {
        for (int k = 0; k < STEPS; k++) {
            struct normal s;
            double step[PARAMS];
            accumulate(&r[level], &p[level], &m, true, &s);
            if (!solve(&s, step)) return 0;
            if (apply(&m, step, &r[level]) < STEP_MIN_PX) break;
        }
        if (level > 0) m = rescale(m, 2);
    }
    if (!sane(&m, map, reference) || difference(reference, part, &m) > before * BETTER) return 0;
    *map = m;
    *refined = true;
    return 0;
}
