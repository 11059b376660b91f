/* quantize.h - a matrix of floats made into groups of 8- or 4-bit numbers (struct quant).
 *
 * For each group the scale (as bf16 holds it) and the zero point are searched for the least squared
 * error: over ranges narrower than that of the group, because clipping its outliers often pays, and
 * then by alternating the nearest numbers for a given scale and zero point with the least-squares
 * scale and zero point for given numbers (Lloyd 1982, "Least squares quantization in PCM", kept to
 * equal steps). Where the energy of each input column is known, column i counts by energy[i]: then
 * it is the error of the product that is least. The same bits come out at any number of threads and
 * on any processor.
 *
 * Units: elements.  Owner: quantize_matrix fills what quantized_fini frees.  Memory: the result.
 * Errors: -ENOMEM.  Threads: any; the rows are shared among threads of its own. */
#ifndef PENSTOCK_WORKERS_INFER_QUANTIZE_H
#define PENSTOCK_WORKERS_INFER_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

#define QUANTIZE_GROUP_MAX 128u

/* How a matrix is stored: DTYPE_W8 or DTYPE_W4 in groups of 32, 64 or 128; group 0: as floats. */
struct quantize_as {
    enum dtype dtype;
    uint32_t group;
};
struct quantized {
    uint32_t n, k;
    enum dtype dtype; /* DTYPE_W8 or DTYPE_W4 */
    struct quant quant;
    void *owned; /* what quantized_fini frees; NULL: the arrays are borrowed */
};
static inline uint32_t quantized_groups(uint32_t k, uint32_t group) {
    return (k + group - 1) / group;
}
static inline size_t quantized_row_bytes(uint32_t k, enum dtype dtype) {
    return dtype == DTYPE_W8 ? k : ((size_t)k + 1) / 2;
}

/* source: row-major [n][k] of F32, F16 or BF16, all finite; energy: [k], none negative, or NULL:
 * all columns count the same. */
int quantize_matrix(struct quantized *out, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, struct quantize_as as, const float *energy, uint32_t threads);
void quantized_fini(struct quantized *q); /* accepts zeroed memory */
/* Row `row` as the kernels read it: to[k]. */
void quantized_row_f32(float *to, const struct quantized *q, uint32_t row);

#endif
