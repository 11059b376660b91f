#include "workers/encode/image_inspect.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/err.h"
#include "base/limits.h"

/* Decoding may take several bytes a pixel: only the finished image leaves the scratch. */
static int decode(struct bytes file, const struct recipe *r, struct arena *scratch, struct arena *a,
                  struct image *out, struct image_facts *facts, char *err, size_t err_bytes) {
    struct image_want want = {.channels = r->color ? 0 : 1, .side_px = r->side_px};
    int code = image_decode(file, &want, scratch, out, facts, err, err_bytes);
    if (code == 0) {
        size_t bytes = (size_t)out->width * out->height * out->channels;
        out->pixels = arena_copy(a, out->pixels, bytes);
        if (!out->pixels)
            code = err_set(err, err_bytes, -ENOMEM, "no memory for %u x %u pixels", out->width,
                           out->height);
    }
    arena_reset(scratch);
    return code;
}

/* Finds the map on gray copies, which the scratch keeps. */
static int lay_on(const struct image *part, const struct image *reference, const struct recipe *r,
                  struct arena *scratch, struct inspection *out) {
    size_t bytes = (size_t)part->width * part->height * part->channels;
    struct image p = *part, ref = *reference;
    if (part->channels == 3) {
        p.pixels = arena_copy(scratch, part->pixels, bytes);
        ref.pixels = arena_copy(scratch, reference->pixels, bytes);
        if (!p.pixels || !ref.pixels) return -ENOMEM;
        image_to_gray(&p);
        image_to_gray(&ref);
    }
    int code = image_align(&ref, &p, r->max_shift_px, scratch, &out->shift);
    if (code != 0) return code;
    out->map = image_map_shift(&out->shift);
    return r->affine ? image_refine(&ref, &p, &out->map, &out->refined, scratch) : 0;
}

static uint32_t within(double v, uint32_t most) {
    return v <= 0 ? 0 : v >= most ? most : (uint32_t)v;
}

/* From compared pixels of the reference to full pixels of the part, with the recipe's margin. */
static void place(struct image_box *box, const struct inspection *in, uint32_t margin) {
    double left = 0, top = 0, right = 0, bottom = 0;
    for (int corner = 0; corner < 4; corner++) {
        double x = box->x + (corner & 1 ? (double)box->width - 1 : 0);
        double y = box->y + (corner & 2 ? (double)box->height - 1 : 0);
        double u = in->map.x0 + in->map.xx * x + in->map.xy * y;
        double v = in->map.y0 + in->map.yx * x + in->map.yy * y;
        if (corner == 0 || u < left) left = u;
        if (corner == 0 || u > right) right = u;
        if (corner == 0 || v < top) top = v;
        if (corner == 0 || v > bottom) bottom = v;
    }
    double scale = in->facts.shrink, more = margin;
    uint32_t x0 = within((floor(left + 0.5) - more) * scale, in->width - 1);
    uint32_t y0 = within((floor(top + 0.5) - more) * scale, in->height - 1);
    uint32_t x1 = within((floor(right + 0.5) + 1 + more) * scale, in->width);
    uint32_t y1 = within((floor(bottom + 0.5) + 1 + more) * scale, in->height);
    *box = (struct image_box){x0, y0, x1 > x0 ? x1 - x0 : 1, y1 > y0 ? y1 - y0 : 1};
}

static int compare(struct image *part, struct image *reference, const struct recipe *r,
                   struct arena *scratch, struct arena *a, struct inspection *out) {
    struct image warped;
    struct image_box ignore[RECIPE_IGNORE_MAX];
    struct image_diff_config config = {.tolerance_px = r->tolerance_px,
                                       .contrast_min = r->contrast_min,
                                       .merge_px = r->merge_px,
                                       .ignore = ignore,
                                       .n_ignore = r->n_ignore};
    if (part->channels != reference->channels) {
        image_to_gray(part);
        image_to_gray(reference);
    }
    for (uint32_t i = 0; i < r->n_ignore; i++)
        ignore[i] = (struct image_box){r->ignore[i].x, r->ignore[i].y, r->ignore[i].width,
                                       r->ignore[i].height};
    out->levels = (struct image_levels){256, 0};
    for (uint32_t k = part->channels; r->match_levels && k-- > 0;)
        out->levels = image_match_levels(reference, part, k);
    int code = lay_on(part, reference, r, scratch, out);
    arena_reset(scratch);
    if (code == 0) code = image_warp(reference, part, &out->map, scratch, &warped);
    struct image_region *regions;
    if (code == 0)
        code = image_diff(reference, &warped, &config, RECIPE_DEFECTS_MAX, scratch, &regions,
                          &out->n, &out->n_all);
    if (code != 0) return code;
    out->regions = arena_copy(a, regions, ((size_t)out->n + 1) * sizeof *regions);
    if (!out->regions) return -ENOMEM;
    for (uint32_t i = 0; i < out->n; i++) {
        place(&out->regions[i].box, out, r->margin_px);
        out->regions[i].area_px *= out->facts.shrink * out->facts.shrink;
    }
    out->compared = true;
    return 0;
}

int image_inspect(struct bytes part, struct bytes reference, const struct recipe *r,
                  struct arena *a, struct inspection *out, char *err, size_t err_bytes) {
    struct arena scratch;
    struct image p, ref;
    struct image_facts ref_facts;
    char why[384];
    *out = (struct inspection){.compared = false};
    arena_init(&scratch, LIMIT_ARENA_BYTES);
    int code = decode(part, r, &scratch, a, &p, &out->facts, err, err_bytes);
    bool turned = out->facts.orientation >= 5;
    out->width = turned ? out->facts.stored_height : out->facts.stored_width;
    out->height = turned ? out->facts.stored_width : out->facts.stored_height;
    if (code != 0 || reference.len == 0) goto done;
    code = decode(reference, r, &scratch, a, &ref, &ref_facts, why, sizeof why);
    if (code != 0) {
        err_set(err, err_bytes, code, "reference: %s", why);
        goto done;
    }
    if (p.width != ref.width || p.height != ref.height) {
        code = err_set(err, err_bytes, ERR_FIELD,
                       "the part has %u x %u compared pixels, its reference %u x %u: take both "
                       "with the same camera and resolution",
                       p.width, p.height, ref.width, ref.height);
        goto done;
    }
    code = compare(&p, &ref, r, &scratch, a, out);
    if (code != 0)
        err_set(err, err_bytes, code, "no memory to compare %u x %u pixels", p.width, p.height);
done:
    arena_fini(&scratch);
    return code;
}
