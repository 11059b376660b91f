#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "kernels/half.h"
#include "kernels/ref/ref.h"
#include "kernels/source.h"

size_t ref_quant_bytes(const struct weight *w, size_t rows) {
    size_t groups = w->group ? quant_groups(w->k, w->group) : 0;
    return rows * (groups * (w->zeros ? 3 : 2) + w->k);
}

int ref_quant_pack(struct weight *w, uint32_t parts, const uint32_t *n, uint32_t k,
                   const void *const *source, enum dtype dtype, char *err, size_t err_bytes) {
    *w = (struct weight){.k = k, .dtype = dtype};
    int rc = source_check_quant(parts, source, &w->group, &w->zeros, err, err_bytes);
    if (rc) return rc;
    size_t rows = 0, groups = quant_groups(k, w->group);
    for (uint32_t i = 0; i < parts; i++) rows += n[i];
    w->n = (uint32_t)rows;
    w->bytes = ref_quant_bytes(w, rows);
    w->data = w->owned = malloc(w->bytes);
    if (!w->owned)
        return err_set(err, err_bytes, -ENOMEM, "no memory to pack a weight of %u x %u (%zu bytes)",
                       w->n, k, w->bytes);
    uint16_t *scale = w->owned;
    uint8_t *zero = (uint8_t *)(scale + rows * groups), *q = zero + (w->zeros ? rows * groups : 0);
    for (uint32_t i = 0; i < parts; i++)
        for (uint32_t row = 0; row < n[i]; row++, scale += groups, q += k) {
            const struct quant *s = source[i];
            memcpy(scale, s->scale + row * groups, groups * sizeof *scale);
            if (w->zeros)
                for (uint32_t g = 0; g < groups; g++)
                    *zero++ = quant_zero(s, row, (uint32_t)groups, g);
            source_quant(q, s, dtype, row, k, 0, k);
        }
    return 0;
}

/* Multiplies one group of a row of x, quantized on the way, with one of w. */
static float add_group(float sum, const float *x, const uint8_t *q, uint32_t count, int32_t zero,
                       float scale) {
    float most = 0;
    for (uint32_t i = 0; i < count; i++)
        if (isnan(x[i]) || fabsf(x[i]) > most) most = fabsf(x[i]); /* once NaN, always NaN */
    if (most <= 0x1p-100f) return fmaf(0, scale * 0, sum);
    if (!isfinite(most)) return fmaf(1, scale * most, sum);
    float unit = 127 / most;
    int32_t dot = 0;
    for (uint32_t i = 0; i < count; i++) dot += (int32_t)rintf(x[i] * unit) * (q[i] - zero);
    return fmaf((float)dot, scale * (most / 127), sum);
}

void ref_quant_dots(double *sum, const float *x, uint32_t rows, const struct weight *w, size_t n) {
    size_t groups = quant_groups(w->k, w->group), all = (size_t)w->n * (w->pair ? 2 : 1);
    const uint16_t *scale = w->data;
    const uint8_t *zero = (const uint8_t *)(scale + all * groups);
    const uint8_t *q = zero + (w->zeros ? all * groups : 0) + n * w->k;
    for (uint32_t r = 0; r < rows; r++) {
        float y = 0;
        for (uint32_t k = 0; k < w->k; k += w->group) {
            size_t g = n * groups + k / w->group;
            y = add_group(y, x + (size_t)r * w->k + k, q + k,
                          w->k - k < w->group ? w->k - k : w->group, w->zeros ? zero[g] : 128,
                          float_of_bf16(scale[g]));
        }
        sum[r] = (double)y;
    }
}
