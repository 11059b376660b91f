/* decoder.h - running a decoder: sequences that grow over a paged KV cache, logits, samples.
 *
 * Units: tokens, elements.  Owner: decoder_init allocates what decoder_fini frees, after every
 * sequence is freed; config, weights and ops are borrowed until then.  Memory: the forward
 * workspace, the KV pool, logits of a step.  Errors: -ENOMEM, ERR_FULL, ERR_LIMIT with err.
 * Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_DECODER_H
#define PENSTOCK_WORKERS_INFER_DECODER_H

#include "workers/infer/forward.h"
#include "workers/infer/kvpool.h"

struct decoder {
    struct forward forward;
    struct kvpool pool;
    uint32_t context; /* at most what the pool holds */
    uint32_t seqs;    /* that live */
    float *logits;    /* [seqs_max][vocab]: as many rows as a step may have sequences */
    void *sample_workspace;
    uint32_t *sampled;      /* [seqs_max] */
    float *logprob;         /* [seqs_max] */
    struct sample_top *top; /* [seqs_max][MODEL_TOP_MAX] */
};
struct seq {
    struct decoder *decoder;
    const struct adapter *adapter; /* NULL: the plain model */
    uint32_t len, n_pages;
    uint32_t *pages; /* [n_pages] of room for a whole context */
};

int decoder_init(struct decoder *d, struct ops *ops, const struct config *c,
                 const struct weights *w, uint32_t rows_max, uint32_t kv_tokens, uint64_t kv_bytes,
                 enum dtype kv, char *err, size_t err_bytes);
void decoder_fini(struct decoder *d); /* accepts zeroed memory */
struct seq *decoder_seq_new(struct decoder *d);
void decoder_seq_free(struct seq *s);
/* As model_step_tails and model_sample_at; ids are below the vocabulary. */
int decoder_step(struct decoder *d, uint32_t n, struct seq **seqs, const uint32_t *begin,
                 const uint32_t *ids, const uint32_t *tail, char *err, size_t err_bytes);
void decoder_sample(struct decoder *d, uint32_t n, const uint32_t *at, const struct sample_row *row,
                    uint32_t *tokens, float *logprob, struct sample_top *top);
/* As seq_cut. */
void decoder_cut(struct seq *s, uint32_t len);
/* As seq_share. */
uint32_t decoder_share(struct seq *to, const struct seq *from, uint32_t tokens);

#endif
