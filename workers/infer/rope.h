/* rope.h - how a family turns queries and keys by their positions: the tables of cos and sin.
 *
 * The base frequencies theta^(-2i / head_dim) and what rope_scaling makes of them are computed in
 * float32, and so are the angles, as the reference implementation does: far into a long context the
 * rounding of the two is part of what the model was trained with.
 *
 * Source: Su et al. 2021, "RoFormer", section 3.2.2; transformers, modeling_rope_utils.py, the
 * types "linear" and "llama3".
 *
 * Units: tokens, elements.  Owner: rope_tables allocates what rope_drop frees.  Memory: the tables.
 * Errors: ERR_FIELD, -ENOTSUP with file and field in err; -ENOMEM.  Threads: any. */
#ifndef PENSTOCK_WORKERS_INFER_ROPE_H
#define PENSTOCK_WORKERS_INFER_ROPE_H

#include "kernels/ops.h"

struct json;

enum rope_scaling { ROPE_AS_TRAINED, ROPE_LINEAR, ROPE_LLAMA3 };
struct rope_plan {
    double theta;
    enum rope_scaling scaling;
    double factor;              /* linear, llama3: frequencies are divided by it */
    double low, high, original; /* llama3: low_freq_factor, high_freq_factor, trained context */
};

/* Reads rope_type, rope_theta and what belongs to the type from an object of `file`; NULL leaves
 * the plan as it is, which is checked. `key` names the object in messages. */
int rope_plan_read(struct rope_plan *p, const struct json *object, const char *file,
                   const char *key, char *err, size_t err_bytes);
/* Tables for the positions 0 .. positions-1; head_dim is even. */
int rope_tables(struct rope *out, struct ops *ops, const struct rope_plan *p, uint32_t head_dim,
                uint32_t positions);
void rope_drop(struct rope *r, struct ops *ops); /* accepts zeroed memory */

#endif
