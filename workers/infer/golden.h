/* golden.h - whether a model gives what its reference implementation gave: golden.jsonl.
 *
 * One JSON object a line, in any order but the first (tests/golden/README.md has the format):
 *   {"golden": 1, "architecture", "numerics": {"logits", "cosine"}, ...}
 *   {"tensor", "dtype", "shape", "sha256"}           a tensor's bytes as stored
 *   {"text" (or none), "ids", "new_ids", "logits": {"at", "value", "max"}}      of a decoder
 *   {"text" (or none), "ids", "embedding"}                                      of an encoder
 * Tensors are compared first, so that a wrong weight is named rather than the token that it spoils.
 *
 * Units: elements, tokens.  Owner: what is passed is borrowed.  Memory: the file, a vector.
 * Errors: ERR_CORRUPT for the first tensor or token that differs, ERR_FIELD for a line that cannot
 * be read, with err naming it.  Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_GOLDEN_H
#define PENSTOCK_WORKERS_INFER_GOLDEN_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

struct model;
struct tokenizer;
struct safetensors;

struct golden_model {
    struct ops *ops;
    struct model *model;
    const struct tokenizer *tokenizer; /* NULL: texts are not compared with their ids */
    const struct safetensors *tensors;
};
struct golden_report {
    uint32_t tensors, texts, tokens; /* compared, and equal */
    double error, cosine;            /* the worst of logits and of embeddings; cosine starts at 1 */
};
int golden_check(const char *path, const struct golden_model *m, struct golden_report *out,
                 char *err, size_t err_bytes);

#endif
