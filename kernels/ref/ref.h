/* ref.h - the scalar backend: the oracle that the fast ones are compared with.
 *
 * Plain loops, one thread. Activations and results are float32; every sum over many terms
 * (a dot product, the mean and variance of a norm, a softmax, a pooled mean) is kept in double and
 * rounded once, and exp, erf, tanh come from libm in double. So an operation's error against exact
 * arithmetic on the same float inputs is about one rounding, 6e-8 relative to the sum of its
 * magnitudes, well inside the 2e-4 that separates two float32 implementations of a whole model.
 * bf16 weights are widened exactly; activations are never rounded to bf16 here.
 *
 * Units: elements.  Owner: ref_open gives the table to ops->close.  Memory: weights borrow their
 * source where its type is the wanted one.  Errors: as ops.h.  Threads: as ops.h. */
#ifndef PENSTOCK_KERNELS_REF_REF_H
#define PENSTOCK_KERNELS_REF_REF_H

#include "kernels/ops.h"

int ref_open(struct ops **out, char *err, size_t err_bytes);

/* weights.c: data is row-major [n][k]; a pair is gate [n][k] followed by up [n][k]. */
int ref_weight_pack(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *source,
                    enum dtype dtype, enum dtype want, char *err, size_t err_bytes);
int ref_weight_pack_stack(struct ops *o, struct weight *w, uint32_t parts, const uint32_t *n,
                          uint32_t k, const void *const *source, enum dtype dtype, enum dtype want,
                          char *err, size_t err_bytes);
int ref_weight_pack_pair(struct ops *o, struct weight *w, uint32_t n, uint32_t k, const void *gate,
                         const void *up, enum dtype dtype, enum dtype want, char *err,
                         size_t err_bytes);
void ref_weight_free(struct ops *o, struct weight *w);
int ref_weight_borrow(struct ops *o, struct weight *w, const void *image, size_t bytes, char *err,
                      size_t err_bytes);

/* quant.c: W8 and W4, as ops.h defines them. Data is the scales [n][groups], the zero points
 * [n][groups] where there are any, and Q [n][k], a byte each; a pair has the rows of both. */
int ref_quant_pack(struct weight *w, uint32_t parts, const uint32_t *n, uint32_t k,
                   const void *const *source, enum dtype dtype, char *err, size_t err_bytes);
size_t ref_quant_bytes(const struct weight *w, size_t rows);
/* sum[r] = x[r] . row n of w, for rows of x [rows][w->k]. */
void ref_quant_dots(double *sum, const float *x, uint32_t rows, const struct weight *w, size_t n);

/* linear.c, rows.c, attend.c, sample.c: as in ops.h. */
void ref_linear(struct ops *o, const struct linear_args *a);
void ref_gated(struct ops *o, const struct gated_args *a);
void ref_embed(struct ops *o, const struct embed_args *a);
void ref_norm(struct ops *o, const struct norm_args *a);
void ref_pool(struct ops *o, const struct pool_args *a);
void ref_gather(struct ops *o, const struct gather_args *a);
void ref_qkv(struct ops *o, const struct qkv_args *a);
void ref_attend(struct ops *o, const struct attend_args *a);
size_t ref_sample_bytes(struct ops *o, uint32_t vocab);
void ref_sample(struct ops *o, const struct sample_args *a);

#endif
