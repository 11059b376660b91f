/* model_facts.h - what a model's directory says about itself, for people: `penstock model ls|show`.
 *
 * Reads config, headers of weights, manifest, tokenizer's type and the card's licence; no weight.
 *
 * Units: elements, bytes, tokens.  Owner: model_facts_fini after model_facts_read, failed or not.
 * Memory: the manifest, classes.  Errors: those of what is read, with err.  Threads: one. */
#ifndef PENSTOCK_WORKERS_INFER_MODEL_FACTS_H
#define PENSTOCK_WORKERS_INFER_MODEL_FACTS_H

#include "workers/infer/config.h"
#include "workers/infer/labels.h"
#include "workers/infer/manifest.h"

struct model_facts {
    const char *dir; /* borrowed */
    struct config config;
    struct manifest manifest;        /* n 0: it has none */
    struct labels labels;            /* of an encoder's head; n 0: it has none */
    uint64_t parameters;             /* elements of all tensors that can be weights */
    uint64_t file_bytes;             /* of the weights */
    char stored[64];                 /* their types: "BF16", "F32 I64" */
    enum dtype quantized;            /* DTYPE_W8 or DTYPE_W4; DTYPE_F32: it is not */
    uint32_t matrices[2];            /* of 8 bits and of 4 */
    char head[16];                   /* how a quantized model's head is stored: "w8/64" */
    uint64_t weight_bytes;           /* of quantized matrices, scales and zero points included */
    char tokenizer[64], licence[64]; /* empty: not said */
    char chat[320];                  /* of its template: "supported", why not, or empty: none */
};
int model_facts_read(struct model_facts *f, const char *dir, char *err, size_t err_bytes);
void model_facts_fini(struct model_facts *f); /* accepts zeroed memory */
/* Both print to stdout. */
int model_facts_show(const struct model_facts *f, bool json);
int model_facts_list(const char *root, bool json, char *err, size_t err_bytes);
bool model_facts_has_tokenizer(const char *dir);

#endif
