/* guides.h - the JSON Schemas that texts of one model keep to, compiled once and kept.
 *
 * A schema is known by the hash of its text. The GUIDES_KEPT used last are kept with their masks,
 * as long as these have at most GUIDES_BYTES_MAX together, besides those in use.
 *
 * A guided text may end where it is a whole value, and only there: the model's end tokens are legal
 * then, and no other tokens when there are not more to come. It always ends whole: with the tokens
 * that are left it is led to its end. A model without end tokens ends it as soon as it may.
 *
 * Units: tokens, bytes.  Owner: guides_close, after the last guide_free.  Memory: the vocabulary's
 * trie (about 12 MB at 150,000 tokens), masks.h a schema.  Errors: ERR_FIELD and ERR_LIMIT with the
 * place in the schema, ERR_LIMIT for too few tokens, -ENOMEM; err always.  Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_GUIDES_H
#define PENSTOCK_WORKERS_INFER_GUIDES_H

#include "workers/infer/generate.h"

#define GUIDES_KEPT 32u
#define GUIDES_BYTES_MAX (128u * 1024u * 1024u)

struct guides;
struct guide;
struct model_info; /* workers/infer/model.h */

/* Borrows both. */
int guides_open(struct guides **out, const struct tokenizer *t, const struct model_info *info,
                char *err, size_t err_bytes);
void guides_close(struct guides *s); /* NULL is fine */
/* A guide of one text: schema is JSON, and the text has at most tokens_max. */
int guide_new(struct guides *s, struct bytes schema, uint32_t tokens_max, struct guide **out,
              char *err, size_t err_bytes);
void guide_free(struct guide *g); /* NULL is fine */
const struct gen_guide *guide_of(struct guide *g);

#endif
