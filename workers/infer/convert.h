/* convert.h - writes the quantized form of a model directory: `penstock model quantize`.
 *
 * Linear weights and the head become what stored.h says, embeddings, norms, biases and the heads of
 * encoders stay as they are; a head that is tied to the embedding is written beside it. All other
 * files that belong to a model are copied, and config.json gains a quantization_config.
 *
 * Units: elements, bytes.  Owner: borrowed arguments.  Memory: one matrix and its quantized form.
 * Errors: -errno, those of reading a model, with err; the new directory is for the caller to
 * remove.
 * Threads: one caller; a matrix is shared among `threads` of its own. */
#ifndef PENSTOCK_WORKERS_INFER_CONVERT_H
#define PENSTOCK_WORKERS_INFER_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

struct convert_options {
    enum dtype to; /* DTYPE_W8 or DTYPE_W4 */
    uint32_t threads;
    void (*on_matrix)(uint32_t done, uint32_t of); /* after each; NULL is fine */
};
struct convert_report {
    uint32_t matrices;
    uint64_t from_bytes, to_bytes; /* of the weights' files */
    double error;                  /* relative L2 of the quantized matrices' elements */
};
/* dir: a model; out: a folder that is there and empty. */
int convert_model(const char *dir, const char *out, const struct convert_options *o,
                  struct convert_report *report, char *err, size_t err_bytes);

#endif
