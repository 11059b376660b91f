/* source.h - a weight matrix as a model file holds it, read row by row while packing.
 *
 * Units: elements.  Owner: the caller keeps the source.  Memory: none.
 * Errors: source_check says -EINVAL or -ENOTSUP with err.  Threads: any. */
#ifndef PENSTOCK_KERNELS_SOURCE_H
#define PENSTOCK_KERNELS_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

/* What every backend can pack: f32, f16 or bf16, stored as f32 or bf16, neither side empty. */
int source_check(uint32_t parts, const uint32_t *n, uint32_t k, enum dtype dtype, enum dtype want,
                 char *err, size_t err_bytes);

/* Row `row` of a [n][k] matrix, widened exactly or rounded to nearest even. */
void source_row_f32(float *to, const void *source, enum dtype dtype, size_t row, uint32_t k);
void source_row_bf16(uint16_t *to, const void *source, enum dtype dtype, size_t row, uint32_t k);

/* Element i of a table. */
float source_element(const void *source, enum dtype dtype, size_t i);

#endif
