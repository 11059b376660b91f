/* model.h - a Hugging Face directory as something that can be run.
 *
 * config.json decides the architecture (a row of arch.c that composes kernels/ops.h calls), the
 * weights are mapped safetensors, checked (shape, dtype, bounds, finite) before they are packed.
 * Encoders turn token sequences into one vector each; decoders run sequences over a paged KV cache.
 *
 * The bits of a result depend on its own tokens only: not on the batch around it, the steps it was
 * cut into, or the number of threads.
 *
 * Units: tokens, elements.  Owner: model_open gives a model to model_close; ops is borrowed until
 * then; sequences go to seq_free before it.  Memory: packed weights, a workspace for rows_max rows,
 * a KV pool of kv_tokens; nothing more after open.  Errors: ERR_FIELD, ERR_CORRUPT, ERR_LIMIT,
 * -ENOMEM, -ENOTSUP with err naming file and tensor or field.  Threads: one caller at a time. */
#ifndef PENSTOCK_WORKERS_INFER_MODEL_H
#define PENSTOCK_WORKERS_INFER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

#define MODEL_TOP_MAX 20u  /* most likely tokens whose logprobs are told */
#define MODEL_SEQS_MAX 64u /* sequences of one decoder step: as many as a worker holds leases */

struct model;
struct adapter;
struct model_config {
    uint32_t rows_max;  /* token rows of one step; 0 takes 2048; encoders: at least their context */
    uint32_t kv_tokens; /* decoders: size of the KV pool; 0 takes 4 contexts, at least 4096 tokens
                           and at most kv_bytes */
    enum dtype weights; /* how linear weights are packed: DTYPE_F32, DTYPE_BF16, or DTYPE_W8,
                           DTYPE_W4, which quantizes them; quantized ones stay as they are, */
    bool widen;         /* unless this makes them `weights` too */
    bool cache;         /* keep what was packed with the models of this user (packed.h) */
    /* Decoders: how keys and values are kept. DTYPE_F32 goes by the weights: float32 beside float32
     * ones, else bf16. DTYPE_BF16; DTYPE_I8, which takes half of that and is less exact. */
    enum dtype kv;
    uint64_t kv_bytes; /* of the pool where kv_tokens is 0, at most; 0 takes 1 GiB */
};
/* What --weights takes: "f32", "bf16", "w8a8", "w4a8"; false for other texts. Fills in weights and
 * widen. */
bool model_weights_parse(const char *text, struct model_config *c);
/* What --memory-efficient means: keys and values in int8, steps of at most 256 rows, a KV pool of
 * at most 256 MiB. It writes other texts than the default, by the rounding of the cache. */
void model_config_lean(struct model_config *c);
enum model_kind { MODEL_ENCODER, MODEL_DECODER };
struct model_info {
    enum model_kind kind;
    const char *architecture; /* "BertModel", "LlamaForCausalLM" */
    uint32_t vocab, dim, layers, heads, kv_heads, head_dim;
    uint32_t context; /* the longest sequence; decoders: what the KV pool holds, if that is less */
    uint32_t text_context; /* encoders: max_seq_length of sentence_bert_config, else context */
    uint32_t labels;       /* classes of an encoder's head; 0: it has none */
    bool labels_of_tokens; /* they are those of each token, not of the text */
    uint32_t kv_tokens, kv_page_tokens; /* decoders: size of the KV pool and of its pages */
    uint64_t kv_bytes;                  /* of the whole pool */
    uint32_t seqs_max;                  /* decoders: sequences of one step */
    uint64_t parameters;
    uint64_t weight_bytes;  /* packed linear weights */
    bool cached;            /* they came from the cache of packed weights */
    uint32_t eos[8], n_eos; /* of generation_config, else of config */
    int64_t bos;            /* -1: none */
};
int model_open(struct model **out, const char *dir, struct ops *ops, const struct model_config *c,
               char *err, size_t err_bytes);
void model_close(struct model *m); /* NULL is fine */
const struct model_info *model_info(const struct model *m);
/* What class i of the head is called in id2label, else LABEL_i; i below labels of model_info. */
const char *model_label(const struct model *m, uint32_t i);
const char *model_numerics_id(const struct model *m); /* backend, weights and KV */
/* A PEFT LoRA adapter of this model by its directory, opened at first use; it lives as long as the
 * model. adapter.h says what is refused; one that says it was made of another model is noted in the
 * log. */
int model_adapter(struct model *m, const char *dir, const struct adapter **out, char *err,
                  size_t err_bytes);
/* Compares ids with the vocabulary: ERR_FIELD with the place of the first that is too large. */
int model_check_ids(const struct model *m, uint32_t n, const uint32_t *ids, char *err,
                    size_t err_bytes);

/* Encoders: ids laid end to end, begin[n_seq + 1]; out [n_seq][dim]: pooled and normalized as the
 * directory's modules say. Splits into steps of rows_max; a sequence beyond text_context is
 * refused. */
int model_embed(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                float *out, char *err, size_t err_bytes);
/* The same, each sequence with an adapter of the model or without: adapter [n_seq] of them or NULL.
 * A vector has the bits that its sequence gets alone. */
int model_embed_with(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                     const struct adapter *const *adapter, float *out, char *err, size_t err_bytes);
/* Encoders with a head: the scores (before any softmax) of its classes, [n_seq][labels], or
 * [rows][labels] where it sorts tokens. As model_embed otherwise; -EINVAL without a head. */
int model_classify(struct model *m, uint32_t n_seq, const uint32_t *begin, const uint32_t *ids,
                   float *out, char *err, size_t err_bytes);
/* Encoders, for tests: the last hidden state [rows][dim] of one sequence. */
int model_hidden(struct model *m, uint32_t rows, const uint32_t *ids, float *out, char *err,
                 size_t err_bytes);

/* Decoders. A sequence holds the pages of its cache. */
struct seq;
struct seq *seq_new(struct model *m); /* NULL: no memory */
void seq_free(struct seq *s);         /* NULL is fine */
/* Before its first step: the sequence runs with an adapter of its model (NULL: without). A step may
 * mix sequences of several adapters and without; each gets the bits that it gets alone. */
void seq_adapt(struct seq *s, const struct adapter *a);
uint32_t seq_len(const struct seq *s); /* tokens in the cache */
/* Tokens of the KV pool in pages that no sequence holds. */
uint32_t model_kv_free(const struct model *m);
/* One step over n different sequences together (at most MODEL_SEQS_MAX): the tokens of sequence i
 * are ids[begin[i] .. begin[i + 1] - 1], at least one, appended to its cache. More rows than
 * rows_max run as several passes. logits [n][vocab], of the last token of each, are the backend's
 * buffer (ops->download reads it) and valid until the next step. ERR_FULL: the pool has no pages
 * for it; ERR_LIMIT: beyond the context; on any error nothing was changed. */
int model_step(struct model *m, uint32_t n, struct seq **seqs, const uint32_t *begin,
               const uint32_t *ids, const float **logits, char *err, size_t err_bytes);
/* The same with logits of the last tail[i] tokens of sequence i, 1 to all that it gets: those of a
 * sequence stand together, in the order of its tokens. At most seqs_max of model_info in all
 * (ERR_LIMIT). A row has the bits that it has alone. */
int model_step_tails(struct model *m, uint32_t n, struct seq **seqs, const uint32_t *begin,
                     const uint32_t *ids, const uint32_t *tail, const float **logits, char *err,
                     size_t err_bytes);
/* Forgets the tokens of the cache from `len` on. A page that another sequence holds too is not cut
 * through: cut behind what was shared. */
void seq_cut(struct seq *s, uint32_t len);
/* Lets an empty sequence hold the whole pages of the first `tokens` of another one too, as far as
 * that one has them; returns the tokens it then has. */
uint32_t seq_share(struct seq *to, const struct seq *from, uint32_t tokens);
/* Draws one token for each of the n sequences of the last step, with logprobs where they are
 * wanted: logprob [n] or NULL, top [n][MODEL_TOP_MAX] or NULL, of which row[i].top_n are filled. */
void model_sample(struct model *m, uint32_t n, const struct sample_row *row, uint32_t *tokens,
                  float *logprob, struct sample_top *top);
/* The same from n of the rows of logits: at [n] says which. */
void model_sample_at(struct model *m, uint32_t n, const uint32_t *at, const struct sample_row *row,
                     uint32_t *tokens, float *logprob, struct sample_top *top);

#endif
