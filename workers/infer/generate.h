/* generate.h - texts written together by one decoder: prefill and decode in one loop.
 *
 * A loop is stepped by its owner; texts join it while others run, and each is reported by its
 * on_end in the step that ends it. What a text says depends on its prompt, its settings and its
 * seed alone, not on its company, nor on when it joined or had to pause.
 *
 * A step feeds every text the tokens of its history (the prompt, then what it has written) that are
 * not in its cache yet: one where it decodes, a chunk where its prompt is read. Those that decode
 * go first; the rest of the step's rows goes half to the text that is served first, half to the
 * shortest prompts, so that a long prompt neither delays the others nor starves. Rows are as many
 * as fit in the time that a step may take, by the time that rows took before.
 *
 *   gen_loop_add -> waiting --admit--> runs --> on_end
 *                      ^---- pause ------'      cancelled at any time: on_end at the next step
 *
 * The lower priority is served first, of one priority the older text. A text is let in when the KV
 * pool can hold what every text has and some more. Should it come short nevertheless, the text that
 * is served last gives its pages back and waits; later its history is read as its prompt was. The
 * text that is served first never pauses, and nobody overtakes the first that waits: each text of
 * a priority has its turn when those before it have ended.
 *
 * Texts of one prompt that differ in `stream` alone name the first as `same_prompt`: its prompt is
 * computed once, and the others begin with the whole pages of its cache.
 *
 * Guesses at the tokens that come next are computed in the same step, behind a text's own rows: a
 * step then gives a text all tokens up to the first that was guessed wrong (speculate.h).
 *
 * A text ends at an id of the model's eos list, before a stop string, after tokens_max tokens, or
 * at the end of the context. Pieces are handed out as soon as they can no longer become part of a
 * stop string.
 *
 * Units: tokens, bytes.  Owner: the caller owns every struct gen and what its in-members point
 * to, from gen_loop_add to its on_end; `text` is freed by gen_fini.  Memory: KV pages of the model,
 * text buffers.  Errors: each gen carries its own, with `err`.  Threads: one caller at a time a
 * model; `cancelled` may be set from any. */
#ifndef PENSTOCK_WORKERS_INFER_GENERATE_H
#define PENSTOCK_WORKERS_INFER_GENERATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "workers/infer/speculate.h"

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
    uint32_t priority;             /* 0 is served first */
    const struct gen *same_prompt; /* one that was added before; NULL: none */
    const struct gen_guide *guide; /* NULL: any text */
    const struct adapter *adapter; /* of the model; NULL: without */
    struct bytes stop[GEN_STOPS_MAX];
    uint32_t n_stop;
    const atomic_bool *cancelled;                       /* NULL: never */
    void (*on_text)(struct gen *g, struct bytes piece); /* NULL: nobody listens */
    void (*on_end)(struct gen *g); /* NULL: nobody waits; the gen is the caller's again */
    void *user;

    /* Out. ids has room for tokens_max and is the caller's; it leaves the eos out. */
    uint32_t *ids, tokens;
    float *logprob; /* [tokens_max] of each token before penalties and mask; NULL: unwanted */
    struct sample_top *top; /* [tokens_max][top_n], or NULL */
    uint32_t shared_tokens; /* of the prompt, taken from same_prompt's cache */
    bool begun;             /* it was let in */
    struct buf text;        /* detokenized, without special tokens, cut before the stop string */
    enum gen_finish finish;
    int error;
    char err[256];
};
void gen_fini(struct gen *g); /* accepts zeroed memory */

struct gen_loop;
struct gen_loop_config {
    uint32_t step_rows; /* token rows of a step beside one a text; 0: as step_ms allows */
    uint32_t step_ms;   /* what a step may take; 0: GEN_STEP_MS */
    enum speculate_mode speculate; /* 0: by lookup */
    uint32_t guesses;              /* of a text in a step, at most DRAFT_MAX; 0: as many as pay */
    struct model
        *draft; /* SPECULATE_DRAFT: of the same vocabulary; borrowed, and the loop's alone */
};
#define GEN_STEP_MS 80u /* a cancelled text must be noticed within 100 ms of work */

int gen_loop_open(struct gen_loop **out, struct model *m, const struct tokenizer *t,
                  const struct gen_loop_config *c); /* c may be NULL; -ENOMEM */
void gen_loop_close(struct gen_loop *l);            /* forgets what runs; NULL is fine */
/* The text joins at the next step. */
int gen_loop_add(struct gen_loop *l, struct gen *g); /* -ENOMEM: it was not taken */
/* Ends what was cancelled, lets texts in, computes one step; false: nothing is left to do. */
bool gen_loop_step(struct gen_loop *l);

struct gen_loop_stats {
    uint32_t running, waiting;       /* texts now */
    uint32_t kv_pages, kv_pages_max; /* in use now, and of the pool */
    uint64_t steps, step_ns;         /* and the time that they took */
    uint64_t rows, tokens;           /* computed, and written */
    uint64_t guesses, guesses_right; /* computed, and confirmed: speculate.h */
    uint64_t pauses;                 /* of texts that gave their pages back */
};
struct gen_loop_stats gen_loop_stats(const struct gen_loop *l);

/* Runs all n to their ends. */
void generate(struct model *m, const struct tokenizer *t, struct gen **gens, uint32_t n);
/* The same by a loop of this config, and what it did. */
struct gen_loop_stats generate_with(struct model *m, const struct tokenizer *t,
                                    const struct gen_loop_config *c, struct gen **gens, uint32_t n);

#endif
