/* adapter.h - a PEFT LoRA adapter, checked against its model and packed for a backend.
 *
 * Reads adapter_config.json and adapter_model.safetensors of a directory. Every tensor must belong
 * to a matrix of the model's layers that the config targets, have the shape that the matrix and the
 * rank ask for, and be finite; every targeted matrix must have its two tensors. The products of one
 * block (q, k and v; gate and up) are stacked: their A below each other, their B on the diagonal of
 * one matrix, scaled.
 *
 * Units: elements.  Owner: adapter_open gives an adapter to adapter_close; ops is borrowed until
 * then, config for the call.  Memory: the packed matrices, in float32.  Errors: ERR_FIELD,
 * ERR_CORRUPT, ERR_LIMIT, -ENOTSUP, -ENOMEM, -errno with file and field or tensor in err.
 * Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_ADAPTER_H
#define PENSTOCK_WORKERS_INFER_ADAPTER_H

#include <limits.h>

#include "kernels/ops.h"
#include "workers/infer/config.h"

/* What x is multiplied with in turn: a [rank][k], b [n][rank]; a.n 0: nothing. */
struct adapter_pair {
    struct weight a, b;
};
enum adapter_block { ADAPTER_QKV, ADAPTER_O, ADAPTER_UP, ADAPTER_DOWN, ADAPTER_BLOCKS };
struct adapter {
    struct ops *ops;
    struct adapter_pair (*layer)[ADAPTER_BLOCKS]; /* [layers] */
    uint32_t layers, rank_max;                    /* the largest of any pair */
    char dir[PATH_MAX], base[256]; /* base: the model that it says it is of, "" when it does not */
    float **kept;                  /* [n_kept] sources that packed ones borrow */
    uint32_t n_kept;
};

int adapter_open(struct adapter **out, struct ops *ops, const struct config *c, const char *dir,
                 char *err, size_t err_bytes);
void adapter_close(struct adapter *a); /* NULL is fine */

#endif
