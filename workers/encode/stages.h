/* stages.h - the encode stages of the worker, and what they share.
 *
 * Units: tokens.  Owner: as workers/stage.h says.  Memory: the items' arenas; an encoder_texts
 * keeps a name and a number for each model.  Errors: each item carries its own.  Threads: the
 * compute thread. */
#ifndef PENSTOCK_WORKERS_ENCODE_STAGES_H
#define PENSTOCK_WORKERS_ENCODE_STAGES_H

#include "schemas/pack.h"
#include "workers/encode/tokenizer.h"
#include "workers/stage.h"

extern const struct stage_program stage_encode_texts;    /* text.embed -> tokens */
extern const struct stage_program stage_encode_prompt;   /* text.generate -> prompt */
extern const struct stage_program stage_encode_document; /* contract.analyze -> document */
extern const struct stage_program stage_encode_contract; /* document -> tokens */
extern const struct stage_program stage_encode_part;     /* qc.inspect -> tokens */

/* self of the encode stages: which model takes how many tokens, read once from its config. Weights
 * stay closed, so that encoding may run where they do not fit. */
struct encode_self;
int encode_open(void **self, const struct stage_context *c, char *err, size_t err_bytes);
void encode_close(void *self);

/* The tokenizer of the item's model, the tokens a text may have, and the id that begins a text (-1:
 * none; may be NULL). False: the item has failed. */
bool encode_model(struct encode_self *s, struct stage_item *i, struct tokenizer **t,
                  uint32_t *context, int64_t *bos);
struct chat; /* workers/chat/chat.h */
/* The chat template of the item's model. False: the item has failed. */
bool encode_chat(struct encode_self *s, struct stage_item *i, struct chat **chat);
/* The item's body as the struct of the kind that the stage is for. False: the item has failed. */
bool encode_body(struct stage_item *i, const char *kind, void *out);
/* Three pairs of a map: model, seqs, truncated. */
void encode_pack(struct packer *p, struct bytes model, const struct tokens *seqs, uint32_t n);
/* An id list as a bin. */
void encode_pack_ids(struct packer *p, const uint32_t *ids, uint32_t n);

#endif
