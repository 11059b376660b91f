/* models.h - the models of a worker process: found by name, opened once, shared by its stages.
 *
 * A name is a Hugging Face directory: one below --models DIR, or given as --model NAME=DIR. Names
 * are listed at start (the broker must know them); weights are opened at first use and stay open.
 * A directory with adapter_config.json in place of config.json is a LoRA adapter of one of them, of
 * which the broker does not know.
 *
 * Units: none.  Owner: models_open gives a set to models_close; models borrowed from it live until
 * then.  Memory: mapped weights, packed weights, workspaces.  Errors: ERR_UNKNOWN with the names at
 * hand, and everything that opening a model says, with err.  Threads: the compute thread. */
#ifndef PENSTOCK_WORKERS_INFER_MODELS_H
#define PENSTOCK_WORKERS_INFER_MODELS_H

#include <stdbool.h>

#include "base/bytes.h"
#include "kernels/ops.h"
#include "workers/infer/speculate.h"

#define MODELS_COUNT_MAX 256u

struct chat;            /* workers/chat/chat.h */
struct adapter;         /* workers/infer/adapter.h */
struct gen_loop_config; /* workers/infer/generate.h */
struct guides;          /* workers/infer/guides.h */
struct model;           /* workers/infer/model.h */
struct tokenizer;       /* workers/encode/tokenizer.h */
struct model_config;
struct models;

/* Whether a directory is a model or an adapter. */
bool models_is_one(const char *dir);
/* dir may be NULL; named are "NAME=DIR" strings, n of them. Does not read weights. */
int models_open(struct models **out, struct ops *ops, const char *dir, const char *const *named,
                uint32_t n, char *err, size_t err_bytes);
/* How texts are guessed (speculate.h); drafts are "MODEL=DRAFT" strings, n of them: by name, the
 * models that guess for others. ERR_FIELD, ERR_UNKNOWN. */
int models_speculate(struct models *m, enum speculate_mode mode, const char *const *drafts,
                     uint32_t n, char *err, size_t err_bytes);
/* Before the first model is opened: how models are (the defaults of model.h without). */
void models_configure(struct models *m, const struct model_config *c);
void models_close(struct models *m); /* NULL is fine */
uint32_t models_count(const struct models *m);
const char *models_name(const struct models *m, uint32_t i);
const char *models_dir(const struct models *m, struct bytes name); /* NULL: unknown */

/* Opened at first use. */
int models_get(struct models *m, struct bytes name, struct model **out, char *err,
               size_t err_bytes);
/* The adapter of that name, opened for a model of the set. */
int models_adapter(struct models *m, struct model *model, struct bytes name,
                   const struct adapter **out, char *err, size_t err_bytes);
int models_tokenizer(struct models *m, struct bytes name, struct tokenizer **out, char *err,
                     size_t err_bytes);
int models_chat(struct models *m, struct bytes name, struct chat **out, char *err,
                size_t err_bytes);
/* Of its schemas; its tokenizer and model too are opened at first use. */
int models_guides(struct models *m, struct bytes name, struct guides **out, char *err,
                  size_t err_bytes);
/* What the loop of its texts is told of guesses: its draft model too is opened at first use. */
int models_guessing(struct models *m, struct bytes name, struct gen_loop_config *c, char *err,
                    size_t err_bytes);
struct ops *models_ops(struct models *m);

#endif
