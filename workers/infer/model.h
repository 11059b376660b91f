/* model.h - a Hugging Face directory as something that can be run.
 *
 * config.json decides the architecture (a table that composes kernels/ops.h calls), the weights are
 * mapped safetensors, checked (shape, dtype, bounds, finite) before they are packed. Encoders turn
 * token sequences into one vector each; decoders run sequences over a paged KV cache.
 *
 * Units: tokens, elements.  Owner: model_open gives a model to model_close; sequences to seq_free.
 * Memory: packed weights, a workspace for rows_max rows, a KV pool of kv_tokens.  Errors:
 * ERR_FIELD, ERR_CORRUPT, ERR_LIMIT, -ENOMEM, -ENOTSUP with err naming file and tensor or field.
 * Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_MODEL_H
#define PENSTOCK_WORKERS_INFER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

struct model;
struct model_config {
    uint32_t rows_max; /* token rows of one step; 0 takes 2048 */
    /* decoders: size of the KV pool; 0 takes 4 times the context, at least 4096 */
    uint32_t kv_tokens;
    enum dtype weights; /* DTYPE_F32 or DTYPE_BF16: how linear weights are packed */
};
enum model_kind { MODEL_ENCODER, MODEL_DECODER };
struct model_info {
    enum model_kind kind;
    const char *architecture; /* "BertModel", "LlamaForCausalLM" */
    uint32_t vocab, dim, layers, heads, kv_heads, head_dim, context;
    uint32_t text_context; /* encoders: max_seq_length of sentence_bert_config, else context */
    uint64_t parameters;
    uint32_t eos[8], n_eos; /* generation_config, config */
    int64_t bos;            /* -1: none */
};
int model_open(struct model **out, const char *dir, struct ops *ops, const struct model_config *c,
               char *err, size_t err_bytes);
void model_close(struct model *m);
const struct model_info *model_info(const struct model *m);
const char *model_numerics_id(const struct model *m); /* the backend's and the weights' type */

/* Encoders: ids laid end to end, begin[n_seq + 1]; out [n_seq][dim]: pooled and normalized as the
 * directory's modules say. Splits into steps of rows_max; a sequence beyond text_context is
 * refused. */
int model_embed(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                float *out, char *err, size_t err_bytes);
/* Encoders, for tests: the last hidden state [rows][dim] of one sequence. */
int model_hidden(struct model *m, uint32_t rows, const uint32_t *ids, float *out, char *err,
                 size_t err_bytes);

/* Decoders. A sequence holds the pages of its cache. */
struct seq;
struct seq *seq_new(struct model *m); /* NULL: no memory */
void seq_free(struct seq *s);
uint32_t seq_len(const struct seq *s); /* tokens in the cache */
/* One step over several sequences together: tokens of sequence i are ids[begin[i] .. begin[i+1]-1],
 * appended to its cache; logits [n][vocab] of the last token of each. ERR_FULL: the pool has no
 * pages for it (nothing was changed); ERR_LIMIT: beyond the context. */
int model_step(struct model *m, uint32_t n, struct seq **seqs, const uint32_t *begin,
               const uint32_t *ids, const float **logits, char *err, size_t err_bytes);

#endif
