/* stages.h - the post stages of the worker: from numbers to the result a job was submitted for.
 *
 * text.embed       {model, adapter?, dim, embeddings: [[f32]], tokens: [n], truncated: [bool]}
 * text.generate    {model, adapter?, text, tokens: [ids], prompt_tokens, completion_tokens,
 *                  finish_reason, seed}
 * contract.analyze see result.h
 *
 * Units: tokens.  Owner: as workers/stage.h says.  Memory: the items' arenas.  Errors: each item
 * carries its own.  Threads: the compute thread. */
#ifndef PENSTOCK_WORKERS_POST_STAGES_H
#define PENSTOCK_WORKERS_POST_STAGES_H

#include "schemas/pack.h"
#include "workers/stage.h"

extern const struct stage_program stage_post_embed;
extern const struct stage_program stage_post_generate;
extern const struct stage_program stage_post_qc;
extern const struct stage_program stage_post_contract;

/* What infer.embed hands over, read and checked: vectors hold n x dim floats. */
struct vectors_in {
    struct bytes model, adapter; /* adapter empty: without */
    uint32_t dim, n;
    const float *vectors;                             /* [n][dim], in the item's arena */
    const struct pack_val *tokens, *truncated, *keep; /* borrowed from the document */
};
/* False: the item has failed. */
bool vectors_read(struct stage_item *i, const struct pack_val *root, struct vectors_in *out);

#endif
