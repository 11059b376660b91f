/* tensor_values.h - what stands in a tensor: its element type, whether all of it is finite, and fp8
 * made into float32.
 *
 * Float8 (E4M3, without infinities) is a type of files here: weights are widened and multiplied
 * with the scales that stand beside them as NAME_scale_inv (a block of rows and columns each) or
 * NAME_scale (one for all, or one a row).
 * Source: Micikevicius et al. 2022, "FP8 Formats for Deep Learning", section 3.
 *
 * Units: elements.  Owner: tensor_widen gives memory to free().  Memory: as said.
 * Errors: -ENOTSUP, -ENOMEM, ERR_FIELD, ERR_CORRUPT with file and tensor in err.  Threads: any. */
#ifndef PENSTOCK_WORKERS_INFER_TENSOR_VALUES_H
#define PENSTOCK_WORKERS_INFER_TENSOR_VALUES_H

#include "kernels/ops.h"
#include "workers/infer/safetensors.h"

/* -ENOTSUP for a type that weights cannot have. */
int tensor_dtype(const struct tensor *t, enum dtype *out);
/* Index of the first NaN or infinity; t->elements when there is none. */
uint64_t tensor_first_not_finite(const struct tensor *t, enum dtype dtype);
/* A matrix of fp8 [n][k] as float32; block: rows and columns of a NAME_scale_inv. */
int tensor_widen(float **out, const struct safetensors *st, const struct tensor *t,
                 const uint32_t block[2], char *err, size_t err_bytes);

#endif
