/* source.h - a weight matrix as a model file holds it, read row by row while packing.
 *
 * Units: elements.  Owner: the caller keeps the source.  Memory: none.
 * Errors: source_check says -EINVAL or -ENOTSUP with err.  Threads: any. */
#ifndef PENSTOCK_KERNELS_SOURCE_H
#define PENSTOCK_KERNELS_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* What every backend can pack: f32, f16 or bf16, stored as f32 or bf16, or W8 and W4 as they are,
 * neither side empty. */
int source_check(uint32_t parts, const uint32_t *n, uint32_t k, enum dtype dtype, enum dtype want,
                 char *err, size_t err_bytes);

/* Of quantized parts beyond source_check: one group, 32, 64 or 128. `zeros` says whether any part
 * has zero points. */
int source_check_quant(uint32_t parts, const void *const *source, uint32_t *group, bool *zeros,
                       char *err, size_t err_bytes);

/* What the caller of weight_borrow says of an image of `bytes`, against the bytes that the backend
 * has for it; -EINVAL. */
int source_check_image(const struct weight *w, const void *image, size_t bytes, size_t expected,
                       char *err, size_t err_bytes);

/* Row `row` of a [n][k] matrix, widened exactly or rounded to nearest even. */
void source_row_f32(float *to, const void *source, enum dtype dtype, size_t row, uint32_t k);
void source_row_bf16(uint16_t *to, const void *source, enum dtype dtype, size_t row, uint32_t k);

/* Q of `count` elements of a row of a quantized matrix, from k0 (even) on; and a zero point. */
void source_quant(uint8_t *to, const struct quant *s, enum dtype dtype, size_t row, uint32_t k,
                  uint32_t k0, uint32_t count);
static inline uint32_t quant_groups(uint32_t k, uint32_t group) {
    return (k + group - 1) / group;
}
static inline uint8_t quant_zero(const struct quant *s, size_t row, uint32_t groups, uint32_t g) {
    return s->zero ? s->zero[row * groups + g] : 128;
}

/* Element i of a table. */
float source_element(const void *source, enum dtype dtype, size_t i);

#endif
