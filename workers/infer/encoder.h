/* encoder.h - running an encoder: sequences in, one vector each out, or the scores of its classes.
 *
 * Units: tokens, elements.  Owner: encoder_init allocates what encoder_fini frees; config, weights
 * and ops are borrowed until then.  Memory: the forward workspace and a vector for each sequence of
 * a step.  Errors: -ENOMEM, ERR_LIMIT, ERR_FIELD with err.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_ENCODER_H
#define PENSTOCK_WORKERS_INFER_ENCODER_H

#include "workers/infer/forward.h"

struct encoder {
    struct forward forward;
    float *pooled; /* [seqs_max][dim], the backend's */
    float *scores; /* [rows_max or seqs_max][labels], the backend's; NULL: no head */
};

int encoder_init(struct encoder *e, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, char *err, size_t err_bytes);
void encoder_fini(struct encoder *e); /* accepts zeroed memory */
/* As model_embed_with, model_classify and model_hidden; ids are below the vocabulary. */
int encoder_embed(struct encoder *e, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                  const struct adapter *const *adapter, float *out, char *err, size_t err_bytes);
int encoder_classify(struct encoder *e, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                     float *out, char *err, size_t err_bytes);
int encoder_hidden(struct encoder *e, uint32_t rows, const uint32_t *ids, float *out, char *err,
                   size_t err_bytes);

#endif
