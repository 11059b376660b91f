/* generate.h - texts written together by one decoder: prefill and decode in one loop.
 *
 * Each pass of the loop feeds every running text one token and spends what is left of a fixed token
 * budget on prompts that are not all in the cache yet, so a long prompt neither delays the others
 * nor itself. A text waits until the KV pool can hold all that it may become; no text is ever
 * pushed out. What a text says depends on its prompt, its settings and its seed alone, not on its
 * company.
 *
 * Texts of one prompt that differ in `stream` alone name the first as `same_prompt`: its prompt is
 * computed once, and the others begin with the whole pages of its cache.
 *
 * A text ends at an id of the model's eos list, before a stop string, after tokens_max tokens, or
 * at the end of the context. Pieces are handed out as soon as they can no longer become part of a
 * stop string.
 *
 * Units: tokens, bytes.  Owner: the caller owns every struct gen and what its in-members point
 * to; `text` is freed by gen_fini.  Memory: KV pages of the model, text buffers.  Errors: each
 * gen carries its own, with `err`.  Threads: one caller at a time a model; `cancelled` may be
 * set from any. */
#ifndef PENSTOCK_WORKERS_INFER_GENERATE_H
#define PENSTOCK_WORKERS_INFER_GENERATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/bytes.h"

#define GEN_STOPS_MAX 8u

/* What limits a text to a language, token by token. */
struct gen_guide {
    /* One bit a token, 1 legal, valid until the next call; NULL: all are. `left` counts the tokens
     * that may still be written, the one about to be drawn among them. */
    const uint32_t *(*mask)(void *self, uint32_t left);
    /* A token was drawn (never the end token); false: the text is complete, and ends here. */
    bool (*take)(void *self, uint32_t id);
    void *self;
};

struct sample_seen; /* kernels/ops.h */
struct sample_top;
struct adapter;   /* workers/infer/adapter.h */
struct model;     /* workers/infer/model.h */
struct tokenizer; /* workers/encode/tokenizer.h */

enum gen_finish {
    GEN_RUNNING,
    GEN_EOS,    /* "stop": the model ended its text */
    GEN_STOP,   /* "stop": a stop string */
    GEN_LENGTH, /* "length": tokens_max, or the end of the context */
    GEN_FAILED  /* error and err say why; ERR_CANCELLED among others */
};
const char *gen_finish_name(enum gen_finish f);

struct gen {
    /* In. */
    const uint32_t *prompt;
    uint32_t prompt_tokens;
    uint32_t tokens_max;
    float temperature, top_p; /* as struct sample_row */
    uint32_t top_k;
    float min_p, repetition, presence, frequency;
    uint64_t seed, stream;         /* which sample of this seed */
    uint32_t top_n;                /* likely tokens told beside each, at most MODEL_TOP_MAX */
    const struct gen *same_prompt; /* an earlier one of the same call; NULL: none */
    const struct gen_guide *guide; /* NULL: any text */
    const struct adapter *adapter; /* of the model; NULL: without */
    struct bytes stop[GEN_STOPS_MAX];
    uint32_t n_stop;
    const atomic_bool *cancelled;                       /* NULL: never */
    void (*on_text)(struct gen *g, struct bytes piece); /* NULL: nobody listens */
    void *user;

    /* Out. ids has room for tokens_max and is the caller's; it leaves the eos out. */
    uint32_t *ids, tokens;
    float *logprob; /* [tokens_max] of each token before penalties and mask; NULL: unwanted */
    struct sample_top *top; /* [tokens_max][top_n], or NULL */
    uint32_t shared_tokens; /* of the prompt, taken from same_prompt's cache */
    struct buf text;        /* detokenized, without special tokens, cut before the stop string */
    enum gen_finish finish;
    int error;
    char err[256];
};
void gen_fini(struct gen *g); /* accepts zeroed memory */

/* Runs all n to their ends. */
void generate(struct model *m, const struct tokenizer *t, struct gen **gens, uint32_t n);

#endif
