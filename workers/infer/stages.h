/* stages.h - the inference stages of the worker, and what they share.
 *
 * Units: none.  Owner: as workers/stage.h says.  Memory: the items' arenas.
 * Errors: each item carries its own.  Threads: the compute thread. */
#ifndef PENSTOCK_WORKERS_INFER_STAGES_H
#define PENSTOCK_WORKERS_INFER_STAGES_H

#include "workers/infer/model.h"
#include "workers/stage.h"

extern const struct stage_program stage_infer_embed;    /* tokens -> vectors */
extern const struct stage_program stage_infer_generate; /* prompt -> tokens out */

/* The model that an input document names, which must be what the plan names and of that kind; NULL:
 * the item has failed. */
struct model *infer_model(struct models *models, struct stage_item *i, struct bytes name,
                          enum model_kind kind);
/* The adapter that the job names, or, where it names none, the plan, whose name *name is then; NULL
 * without either. False: the item has failed. */
bool infer_adapter(struct models *models, struct stage_item *i, struct model *m, struct bytes *name,
                   const struct adapter **out);
/* A bin of u32le as ids in the item's arena, each below the vocabulary; `what` names it in the
 * reason. NULL: the item has failed. */
uint32_t *infer_ids(struct stage_item *i, const struct model *m, struct bytes bin, const char *what,
                    uint32_t *n);
/* Shared open and close of both: self is the process's models. */
int infer_open(void **self, const struct stage_context *c, char *err, size_t err_bytes);

#endif
