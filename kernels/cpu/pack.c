#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/packing.h"
#include "kernels/half.h"
#include "kernels/source.h"

enum { STRETCH = 64 }; /* steps of k that are read row by row and written panel by panel */

bool packing_source(const struct packing *p, uint32_t panel, uint32_t lane, uint32_t *part,
                    uint32_t *row) {
    *part = p->pair ? panel % 2 : 0;
    *row = (p->pair ? panel / 2 : panel) * PANEL + lane;
    if (p->pair) return *row < p->n[*part];
    while (*part < p->parts && *row >= p->n[*part]) *row -= p->n[(*part)++];
    return *part < p->parts;
}

/* Element (row, k) of a part for k .. k+count-1. */
static void read_f32(float *to, const struct packing *p, uint32_t part, uint32_t row, uint32_t k,
                     uint32_t count) {
    size_t at = (size_t)row * p->w->k + k;
    if (p->dtype == DTYPE_F32)
        memcpy(to, (const float *)p->source[part] + at, count * sizeof *to);
    else
        for (uint32_t i = 0; i < count; i++)
            to[i] = source_element(p->source[part], p->dtype, at + i);
}

static void pack_panel(const struct packing *p, uint32_t panel) {
    uint32_t k = p->w->k, part, row;
    char *to = p->to + panel * panel_bytes(k, p->w->dtype);
    float lane[PANEL][STRETCH];
    for (uint32_t from = 0; from < k; from += STRETCH) {
        uint32_t count = k - from < STRETCH ? k - from : STRETCH;
        memset(lane, 0, sizeof lane);
        for (uint32_t j = 0; j < PANEL; j++)
            if (packing_source(p, panel, j, &part, &row))
                read_f32(lane[j], p, part, row, from, count);
        if (p->w->dtype == DTYPE_F32) {
            float *f = (float *)(void *)to + (size_t)from * PANEL;
            for (uint32_t i = 0; i < count; i++)
                for (uint32_t j = 0; j < PANEL; j++) *f++ = lane[j][i];
        } else {
            uint16_t *h = (uint16_t *)(void *)to + (size_t)from * PANEL;
            for (uint32_t i = 0; i < count; i += 2)
                for (uint32_t j = 0; j < PANEL; j++) {
                    *h++ = bf16_of_float(lane[j][i]);
                    *h++ = bf16_of_float(lane[j][i + 1]);
                }
        }
    }
}

static void pack_part(void *arg, uint32_t part, uint32_t parts) {
    const struct packing *p = arg;
    uint32_t begin, end;
    team_share(p->panels, part, parts, &begin, &end);
    for (uint32_t panel = begin; panel < end; panel++)
        if (dtype_quantized(p->dtype))
            pack_panel_quant(p, panel);
        else
            pack_panel(p, panel);
}

static uint32_t packed_panels(const struct weight *w) {
    return panels_of(w->n) * (w->pair ? 2 : 1);
}

static size_t packed_bytes(const struct weight *w) {
    size_t each = dtype_quantized(w->dtype) ? quant_panel(w->k, w->dtype, w->group, w->zeros).bytes
                                            : panel_bytes(w->k, w->dtype);
    return packed_panels(w) * each;
}

static int pack(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n, uint32_t k,
                const void *const *source, bool pair, enum dtype dtype, enum dtype want, char *err,
                size_t err_bytes) {
    int rc = source_check(parts, n, k, dtype, want, err, err_bytes);
    if (rc) return rc;
    if (k > GEMM_K_MAX)
        return err_set(err, err_bytes, -ENOTSUP, "a weight with %u inputs is too wide: %d at most",
                       k, GEMM_K_MAX);
    uint32_t rows = 0;
    for (uint32_t i = 0; i < parts; i++) rows += n[i];
    *w = (struct weight){.n = pair ? n[0] : rows, .k = k, .dtype = want, .pair = pair};
    if (dtype_quantized(dtype)) {
        rc = source_check_quant(parts, source, &w->group, &w->zeros, err, err_bytes);
        if (rc) return rc;
    }
    w->bytes = packed_bytes(w);
    void *data = cpu_alloc(o, w->bytes);
    if (!data)
        return err_set(err, err_bytes, -ENOMEM, "no memory to pack a weight of %u x %u (%zu bytes)",
                       rows, k, w->bytes);
    w->data = w->owned = data;
    struct packing p = {w, parts, packed_panels(w), pair, n, source, dtype, data};
    cpu_run(cpu_of(o), (uint64_t)rows * k, pack_part, &p);
    return 0;
}

int cpu_weight_borrow(struct ops *o, struct weight *w, const void *image, size_t bytes, char *err,
                      size_t err_bytes) {
    (void)o;
    int rc = source_check_image(w, image, bytes, packed_bytes(w), err, err_bytes);
    if (rc) return rc;
    w->bytes = bytes;
    w->data = image;
    w->owned = NULL;
    return 0;
}

int cpu_weight_pack_stack(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n,
                          uint32_t k, const void *const *source, enum dtype dtype, enum dtype want,
                          char *err, size_t err_bytes) {
    return pack(o, w, parts, n, k, source, false, dtype, want, err, err_bytes);
}

int cpu_weight_pack(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, enum dtype want, char *err, size_t err_bytes) {
    return pack(o, w, 1, &n, k, &source, false, dtype, want, err, err_bytes);
}

int cpu_weight_pack_pair(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *gate,
                         const void *up, enum dtype dtype, enum dtype want, char *err,
                         size_t err_bytes) {
    return pack(o, w, 2, (const uint32_t[]){n, n}, k, (const void *const[]){gate, up}, true, dtype,
                want, err, err_bytes);
}

void cpu_weight_free(struct ops *o, struct weight *w) {
    cpu_free(o, w->owned);
    *w = (struct weight){0};
}
