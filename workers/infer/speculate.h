/* speculate.h - guesses at the next tokens of texts, to be computed in the step that draws them.
 *
 * Guesses stand behind a text's own rows in a step. The token that is drawn from each row says
 * whether the guess behind it was right; the first that was not ends the text's share of the step,
 * and what was computed beyond it is cut off the cache. So a text's tokens, and their bits, are
 * those that it writes without guesses: only how many come of a step differs.
 *
 * Guesses come from the text itself (lookup.h), or from a smaller model of the same vocabulary,
 * which draws by the text's own settings, seed and positions.
 *
 * Units: tokens, nanoseconds.  Owner: the caller's; a draft model is closed after the loop that it
 * guesses for.  Memory: lookup.h a text, or a cache of the draft model.  Errors: none that end a
 * text: without memory or pages there are no guesses.  Threads: the loop's. */
#ifndef PENSTOCK_WORKERS_INFER_SPECULATE_H
#define PENSTOCK_WORKERS_INFER_SPECULATE_H

#include <stddef.h>

#include "workers/infer/draft.h"

struct gen_text;
struct lookup;
struct model;
struct model_info;
struct ops;
struct seq;
struct tokenizer;

enum speculate_mode { SPECULATE_LOOKUP, SPECULATE_OFF, SPECULATE_DRAFT };
/* "lookup" or "off"; false: another name. */
bool speculate_mode_of(const char *name, enum speculate_mode *out);
/* Opens a model that guesses for another one. ERR_FIELD unless it is a decoder whose ids stand for
 * the same text: t is the other one's tokenizer. */
int speculate_draft_open(struct model **out, const char *dir, struct ops *ops,
                         const struct tokenizer *t, char *err, size_t err_bytes);

struct guesses {                /* of one text */
    uint32_t ids[DRAFT_MAX], n; /* that stand behind its rows of this step */
    struct draft_odds odds;
    struct lookup *lookup;   /* NULL before its first draw, or without memory */
    struct seq *seq;         /* of the draft model: history, then guesses; NULL: none */
    uint32_t known;          /* tokens of history that these guesses stand behind */
    uint32_t idle, patience; /* draws without a guess; of a draft model, before one is tried */
};
void guesses_fini(struct guesses *g); /* accepts zeroed memory */
/* The text waits, without a cache. */
void guesses_pause(struct guesses *g);

struct speculate {
    enum speculate_mode mode;
    struct model *draft; /* SPECULATE_DRAFT; borrowed */
    uint32_t fixed;      /* guesses of a text, whether or not they pay; 0: as planned */
    struct draft_pace pace;
    double draft_ns; /* a row of guesses of the draft model, smoothed; 0: not known */
    uint64_t proposed, accepted;
};
/* Guesses for the n texts of a step whose rows are planned, in whole pages of kv_free tokens and
 * within the rows of logits that a step has; info is the model's that writes. */
void speculate_plan(struct speculate *s, const struct model_info *info, uint32_t kv_free,
                    struct gen_text *const *text, uint32_t n);

#endif
