/* gen_text.h - one text while it is written: its history, what is drawn next, what comes out of it.
 *
 * The history of a text is its prompt followed by the ids it has written. Its cache holds the first
 * seq_len tokens of it; what is missing can be fed in steps of any size, with the same bits, so a
 * text that gave its cache back goes on by reading its history anew.
 *
 * Units: tokens, bytes.  Owner: gen_text_new gives it to gen_text_free; the gen and the tokenizer
 * are borrowed.  Memory: the ids seen, where there are penalties.  Errors: in the gen.
 * Threads: the caller of its loop. */
#ifndef PENSTOCK_WORKERS_INFER_GEN_TEXT_H
#define PENSTOCK_WORKERS_INFER_GEN_TEXT_H

#include "kernels/ops.h"
#include "workers/infer/generate.h"
#include "workers/infer/speculate.h"

struct model_info;
struct token_stream;

struct gen_text {
    struct gen *gen;
    struct seq *seq; /* NULL: it waits */
    struct token_stream *stream;
    struct sample_seen *seen; /* [n_seen] ids ascending, when there are penalties */
    uint32_t n_seen;
    size_t emitted; /* bytes of gen->text handed out */

    /* The loop's: */
    uint64_t order;        /* its age: the lower is the older */
    uint32_t rows;         /* of the step that is being made */
    bool begun;            /* it waits no more for the cache of the text with the same prompt */
    struct guesses guess;  /* that stand behind the rows */
    struct gen_text *next; /* that waits */
};
struct gen_text *gen_text_new(struct gen *g, const struct tokenizer *t); /* NULL: no memory */
void gen_text_free(struct gen_text *s);                                  /* NULL is fine */
void gen_text_fail(struct gen *g, int error, const char *why);

/* Tokens of its history. */
static inline uint32_t gen_text_known(const struct gen_text *s) {
    return s->gen->prompt_tokens + s->gen->tokens;
}
static inline uint32_t gen_text_id(const struct gen_text *s, uint32_t at) {
    const struct gen *g = s->gen;
    return at < g->prompt_tokens ? g->prompt[at] : g->ids[at - g->prompt_tokens];
}
/* What the text asks for of the token that follows `position` tokens of history. */
struct sample_row gen_text_settings(const struct gen_text *s, uint32_t position);
/* The one place where a token is drawn: the same with the guide's mask, which is of the next. */
struct sample_row gen_text_row(const struct gen_text *s, uint32_t position);
/* That token was drawn: it is written, or ends the text; top [gen->top_n], read where the gen has
 * room for it. */
void gen_text_take(struct gen_text *s, const struct model_info *info, uint32_t id, float logprob,
                   const struct sample_top *top);

#endif
