#include "workers/encode/image_regions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct run {
    uint32_t begin, end; /* columns, end not included */
    uint32_t parent;     /* union-find; a root is its own parent and the first of its region */
};

static uint32_t find(struct run *runs, uint32_t i) {
    while (runs[i].parent != i) {
        runs[i].parent = runs[runs[i].parent].parent;
        i = runs[i].parent;
    }
    return i;
}

static void unite(struct run *runs, uint32_t a, uint32_t b) {
    a = find(runs, a);
    b = find(runs, b);
    if (a < b) runs[b].parent = a;
    if (b < a) runs[a].parent = b;
}

/* The runs of a row behind `x`; false at its end. */
static bool next_run(const uint8_t *row, uint32_t width, uint32_t x, struct run *out) {
    const uint8_t *at = x < width ? memchr(row + x, 255, width - x) : NULL;
    if (!at) return false;
    out->begin = (uint32_t)(at - row);
    at = memchr(at, 0, width - out->begin);
    out->end = at ? (uint32_t)(at - row) : width;
    return true;
}

/* All runs of all rows; row_first[y] is the first of row y, row_first[height] their number. */
static int find_runs(const uint8_t *mask, uint32_t w, uint32_t h, struct arena *a,
                     struct run **runs, uint32_t **row_first) {
    struct run r;
    uint32_t n = 0;
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; next_run(mask + (size_t)y * w, w, x, &r); x = r.end) n++;
    *runs = arena_alloc(a, ((size_t)n + 1) * sizeof **runs);
    *row_first = arena_alloc(a, ((size_t)h + 1) * sizeof **row_first);
    if (!*runs || !*row_first) return -ENOMEM;
    n = 0;
    for (uint32_t y = 0; y < h; y++) {
        (*row_first)[y] = n;
        for (uint32_t x = 0; next_run(mask + (size_t)y * w, w, x, &r); x = r.end) {
            r.parent = n;
            (*runs)[n++] = r;
        }
    }
    (*row_first)[h] = n;
    return 0;
}

/* Joins each run with those of the row above that touch it, corners included. */
static void join_rows(struct run *runs, const uint32_t *row_first, uint32_t height) {
    for (uint32_t y = 1; y < height; y++) {
        uint32_t above = row_first[y - 1];
        for (uint32_t i = row_first[y]; i < row_first[y + 1]; i++) {
            while (above < row_first[y] && runs[above].end < runs[i].begin) above++;
            for (uint32_t k = above; k < row_first[y] && runs[k].begin <= runs[i].end; k++)
                unite(runs, k, i);
        }
    }
}

struct tally {
    uint32_t x0, y0, x1, y1, area;
    uint64_t contrast;
    int64_t sign;
};

static void measure_run(struct tally *t, const struct run *r, uint32_t y, const uint8_t *differ,
                        const struct image *reference, const struct image *part) {
    size_t row = (size_t)y * part->width;
    for (uint32_t x = r->begin; x < r->end; x++) {
        size_t pixel = row + x;
        if (!differ[pixel]) continue;
        if (t->area == 0) *t = (struct tally){x, y, x, y, 0, 0, 0};
        if (x < t->x0) t->x0 = x;
        if (x > t->x1) t->x1 = x;
        t->y1 = y;
        t->area++;
        t->contrast += (uint32_t)image_contrast(reference, part, pixel);
        for (uint32_t k = 0; k < part->channels; k++)
            t->sign += part->pixels[pixel * part->channels + k] -
                       reference->pixels[pixel * part->channels + k];
    }
}

static int by_area(const void *a, const void *b) {
    const struct image_region *p = a, *q = b;
    if (p->area_px != q->area_px) return p->area_px > q->area_px ? -1 : 1;
    if (p->box.y != q->box.y) return p->box.y < q->box.y ? -1 : 1;
    return p->box.x < q->box.x ? -1 : p->box.x > q->box.x;
}

int image_regions(const uint8_t *joined, const uint8_t *differ, const struct image *reference,
                  const struct image *part, uint32_t max, struct arena *a,
                  struct image_region **regions, uint32_t *n, uint32_t *n_all) {
    uint32_t height = part->height;
    struct run *runs;
    uint32_t *row_first, roots = 0;
    int code = find_runs(joined, part->width, height, a, &runs, &row_first);
    if (code != 0) return code;
    join_rows(runs, row_first, height);
    uint32_t n_runs = row_first[height];
    uint32_t *number = arena_alloc(a, ((size_t)n_runs + 1) * sizeof *number);
    if (!number) return -ENOMEM;
    for (uint32_t i = 0; i < n_runs; i++)
        number[i] = find(runs, i) == i ? roots++ : number[find(runs, i)];
    struct tally *tally = arena_calloc(a, (size_t)roots + 1, sizeof *tally);
    struct image_region *out = arena_calloc(a, (size_t)roots + 1, sizeof *out);
    if (!tally || !out) return -ENOMEM;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t i = row_first[y]; i < row_first[y + 1]; i++)
            measure_run(&tally[number[i]], &runs[i], y, differ, reference, part);
    uint32_t count = 0;
    for (uint32_t i = 0; i < roots; i++) {
        const struct tally *t = &tally[i];
        if (t->area == 0) continue;
        out[count++] = (struct image_region){{t->x0, t->y0, t->x1 - t->x0 + 1, t->y1 - t->y0 + 1},
                                             t->area,
                                             (uint32_t)((t->contrast + t->area / 2) / t->area),
                                             t->sign > 0};
    }
    qsort(out, count, sizeof *out, by_area);
    *regions = out;
    *n_all = count;
    *n = count < max ? count : max;
    return 0;
}
