#include "workers/infer/speculate.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/gen_text.h"
#include "workers/infer/lookup.h"
#include "workers/infer/model.h"

#define DRAFT_CHUNK 256u   /* of a text's history that its draft model reads in a step */
#define PATIENCE_FIRST 64u /* draws without guesses before a draft model is tried again */
#define PATIENCE_MOST 1024u

bool speculate_mode_of(const char *name, enum speculate_mode *out) {
    bool off = strcmp(name, "off") == 0;
    *out = off ? SPECULATE_OFF : SPECULATE_LOOKUP;
    return off || strcmp(name, "lookup") == 0;
}

/* The first id that does not stand for the same text in both; the number of ids: none. */
static uint32_t first_other(const struct tokenizer *a, const struct tokenizer *b) {
    struct buf one = {0}, other = {0};
    uint32_t n = tokenizer_vocab(a), id = 0;
    bool same = true;
    while (same && id < n) {
        bool differs[2] = {false, false};
        one.len = other.len = 0;
        int kind = tokenizer_piece(a, id, &one, &differs[0]);
        same = tokenizer_piece(b, id, &other, &differs[1]) == kind && differs[0] == differs[1] &&
               one.len == other.len && !one.error && !other.error &&
               (one.len == 0 || memcmp(one.data, other.data, one.len) == 0);
        id += same;
    }
    buf_fini(&one);
    buf_fini(&other);
    return id;
}

static int check_draft(const struct model *m, const char *dir, const struct tokenizer *t, char *err,
                       size_t err_bytes) {
    struct tokenizer *own;
    if (model_info(m)->kind != MODEL_DECODER)
        return err_set(err, err_bytes, ERR_FIELD, "draft model %s: a %s does not write text", dir,
                       model_info(m)->architecture);
    int rc = tokenizer_open(&own, dir, err, err_bytes);
    if (rc != 0) return rc;
    uint32_t n = tokenizer_vocab(t), id = 0;
    if (tokenizer_vocab(own) != n)
        rc =
            err_set(err, err_bytes, ERR_FIELD,
                    "draft model %s: its tokenizer has %u ids, the model's %u; a draft model is of "
                    "the same family",
                    dir, tokenizer_vocab(own), n);
    else if ((id = first_other(t, own)) < n)
        rc = err_set(err, err_bytes, ERR_FIELD,
                     "draft model %s: its token %u is another text than the model's; a draft model "
                     "is of the same family",
                     dir, id);
    tokenizer_close(own);
    return rc;
}

int speculate_draft_open(struct model **out, const char *dir, struct ops *ops,
                         const struct tokenizer *t, char *err, size_t err_bytes) {
    int rc = model_open(out, dir, ops, NULL, err, err_bytes);
    if (rc == 0) rc = check_draft(*out, dir, t, err, err_bytes);
    if (rc == 0) return 0;
    model_close(*out);
    *out = NULL;
    return rc;
}

void guesses_fini(struct guesses *g) {
    lookup_close(g->lookup);
    seq_free(g->seq);
    *g = (struct guesses){0};
}

void guesses_pause(struct guesses *g) {
    seq_free(g->seq);
    g->seq = NULL;
    g->n = 0;
}

/* Whether the step's rows end a text's history, so that it draws. */
static bool draws(const struct gen_text *t) {
    return t->rows > 0 && seq_len(t->seq) + t->rows == gen_text_known(t);
}

/* ---- from the text itself ---- */

/* What the text has got since the last time, and whether it was guessed. */
static void look_up(struct gen_text *t, uint32_t context) {
    struct guesses *g = &t->guess;
    uint64_t most = (uint64_t)t->gen->prompt_tokens + t->gen->tokens_max;
    uint32_t known = gen_text_known(t), guess, match;
    bool fresh = !g->lookup;
    if (most > context + 1ull) most = context + 1ull;
    if (fresh && lookup_open(&g->lookup, (uint32_t)most) != 0) return;
    for (uint32_t at = lookup_len(g->lookup); at < known; at++) {
        uint32_t id = gen_text_id(t, at);
        if (!fresh && (match = lookup_match(g->lookup)) > 0) {
            lookup_guess(g->lookup, 1, &guess);
            draft_odds_note(&g->odds, draft_class(match), guess == id);
        }
        lookup_add(g->lookup, id);
    }
}

static void lookup_odds(struct guesses *g, struct draft_text *to) {
    uint32_t match = g->lookup ? lookup_match(g->lookup) : 0;
    if (match == 0) to->most = 0;
    for (uint32_t i = 0; i < to->most; i++)
        to->odds[i] = draft_odds_of(&g->odds, draft_class(match + i));
}

/* ---- from a draft model ---- */

/* How the last guesses ended; the draft model's cache keeps what the text has. */
static void draft_look_back(struct gen_text *t) {
    struct guesses *g = &t->guess;
    uint32_t known = gen_text_known(t), right = 0;
    while (right < g->n && g->known + right < known &&
           gen_text_id(t, g->known + right) == g->ids[right])
        right++;
    for (uint32_t i = 0; i < g->n && i <= right && g->known + i < known; i++)
        draft_odds_note(&g->odds, DRAFT_MODEL, i < right);
    if (right > 0) g->patience = PATIENCE_FIRST;
    if (g->seq && seq_len(g->seq) > g->known + right) seq_cut(g->seq, g->known + right);
    g->known = known;
}

/* After a while without guesses they are tried again, as if nothing was known. */
static void draft_odds_all(struct speculate *s, struct guesses *g, struct draft_text *to) {
    if (g->patience == 0) g->patience = PATIENCE_FIRST;
    if (g->idle >= g->patience) {
        g->odds = (struct draft_odds){0};
        g->idle = 0;
        s->draft_ns = 0;
        if (g->patience < PATIENCE_MOST) g->patience *= 2;
    }
    for (uint32_t i = 0; i < to->most; i++) to->odds[i] = draft_odds_of(&g->odds, DRAFT_MODEL);
}

/* A step of the draft model. */
struct reading {
    struct seq *seqs[MODEL_SEQS_MAX];
    struct gen_text *of[MODEL_SEQS_MAX];
    struct sample_row row[MODEL_SEQS_MAX];
    uint32_t begin[MODEL_SEQS_MAX + 1], ids[DRAFT_CHUNK + MODEL_SEQS_MAX], n;
};

/* What the text's cache lacks of its history and guesses, as far as there is room in the step. */
static void read_on(struct reading *r, struct gen_text *t) {
    struct guesses *g = &t->guess;
    uint32_t from = seq_len(g->seq), take = g->known + g->n - from, at = r->begin[r->n];
    uint32_t room = at < DRAFT_CHUNK ? DRAFT_CHUNK - at : 1;
    if (take > room) take = room;
    for (uint32_t k = from; k < from + take; k++)
        r->ids[at++] = k < g->known ? gen_text_id(t, k) : g->ids[k - g->known];
    r->row[r->n] = gen_text_settings(t, g->known + g->n);
    r->row[r->n].n_seen = 0;
    r->seqs[r->n] = g->seq;
    r->of[r->n++] = t;
    r->begin[r->n] = at;
}

/* Lets those whose share is not complete read what they lack, and guess one token more where they
 * lack nothing. False: nobody did. */
static bool draft_step(struct speculate *s, uint32_t vocab, struct gen_text *const *text,
                       const struct draft_text *share, uint32_t n) {
    struct reading r;
    const struct model_info *info = model_info(s->draft);
    uint32_t tokens[MODEL_SEQS_MAX];
    int64_t began = clock_mono_ns();
    r.n = r.begin[0] = 0;
    for (uint32_t i = 0; i < n && r.n < info->seqs_max; i++) {
        struct guesses *g = &text[i]->guess;
        if (g->n >= share[i].n || g->known + share[i].n > info->context) continue;
        if (!g->seq) g->seq = seq_new(s->draft);
        if (g->seq) read_on(&r, text[i]);
    }
    char err[256];
    if (r.n == 0 || model_step(s->draft, r.n, r.seqs, r.begin, r.ids, NULL, err, sizeof err) != 0)
        return false;
    model_sample(s->draft, r.n, r.row, tokens, NULL, NULL);
    bool more = false;
    for (uint32_t k = 0; k < r.n; k++) {
        struct guesses *g = &r.of[k]->guess;
        if (seq_len(g->seq) < g->known + g->n || tokens[k] >= vocab) continue;
        g->ids[g->n++] = tokens[k];
        more = true;
    }
    double ns = (double)(clock_mono_ns() - began);
    if (r.begin[r.n] <= 2 * r.n)
        s->draft_ns = s->draft_ns > 0 ? s->draft_ns + 0.25 * (ns - s->draft_ns) : ns;
    return more;
}

/* ---- the plan ---- */

/* How many guesses of a text a step may have at most, and their odds. */
static void weigh(struct speculate *s, const struct model_info *info, struct gen_text *t,
                  uint32_t pages, struct draft_text *share) {
    uint32_t known = gen_text_known(t), page = info->kv_page_tokens;
    uint32_t room = (page - known % page) % page + pages * page;
    uint32_t most = t->gen->tokens_max - t->gen->tokens - 1;
    if (most > DRAFT_MAX) most = DRAFT_MAX;
    if (most > room) most = room;
    if (most > info->context - known) most = info->context - known;
    share->most = most;
    if (s->mode == SPECULATE_DRAFT) {
        draft_odds_all(s, &t->guess, share);
    } else {
        look_up(t, info->context);
        lookup_odds(&t->guess, share);
    }
}

void speculate_plan(struct speculate *s, const struct model_info *info, uint32_t kv_free,
                    struct gen_text *const *text, uint32_t n) {
    struct draft_text share[MODEL_SEQS_MAX];
    struct gen_text *of[MODEL_SEQS_MAX];
    uint32_t rows = 0, logits = 0, m = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s->mode == SPECULATE_DRAFT) draft_look_back(text[i]);
        text[i]->guess.n = 0;
        rows += text[i]->rows;
        logits += text[i]->rows > 0;
        if (draws(text[i])) of[m++] = text[i];
    }
    if (s->mode == SPECULATE_OFF || m == 0 || logits >= info->seqs_max) return;
    for (uint32_t i = 0; i < m; i++)
        weigh(s, info, of[i], kv_free / info->kv_page_tokens / m, &share[i]);
    uint32_t room = info->seqs_max - logits;
    if (s->fixed == 0) draft_plan(&s->pace, rows, room, s->draft_ns, share, m);
    for (uint32_t i = 0; s->fixed > 0 && i < m; i++) {
        share[i].n = s->fixed < share[i].most ? s->fixed : share[i].most;
        if (share[i].n > room) share[i].n = room;
        room -= share[i].n;
    }
    for (uint32_t i = 0; i < m; i++) {
        struct guesses *g = &of[i]->guess;
        g->idle = share[i].n ? 0 : g->idle + 1;
        if (s->mode == SPECULATE_LOOKUP && share[i].n > 0)
            g->n = lookup_guess(g->lookup, share[i].n, g->ids);
    }
    while (s->mode == SPECULATE_DRAFT && draft_step(s, info->vocab, of, share, m)) continue;
    for (uint32_t i = 0; i < m; i++) s->proposed += of[i]->guess.n;
}
