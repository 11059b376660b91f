#include "workers/infer/gen_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/model.h"

void gen_text_fail(struct gen *g, int error, const char *why) {
    g->finish = GEN_FAILED;
    g->error = err_set(g->err, sizeof g->err, error, "%s", why);
}

/* Hands out the text up to `end`. */
static void emit(struct gen_text *s, size_t end) {
    struct gen *g = s->gen;
    if (end > s->emitted && g->on_text)
        g->on_text(g, bytes_of(g->text.data + s->emitted, end - s->emitted));
    if (end > s->emitted) s->emitted = end;
}

/* Where the first stop string begins in the text that is not out yet, or SIZE_MAX. */
static size_t stop_at(const struct gen_text *s) {
    const struct gen *g = s->gen;
    size_t first = SIZE_MAX;
    for (uint32_t i = 0; i < g->n_stop && g->text.data; i++) {
        const uint8_t *from = g->text.data + s->emitted, *hit = NULL;
        if (g->stop[i].len > 0)
            hit = memmem(from, g->text.len - s->emitted, g->stop[i].data, g->stop[i].len);
        if (hit && (size_t)(hit - g->text.data) < first) first = (size_t)(hit - g->text.data);
    }
    return first;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t held_back(const struct gen_text *s) {
    const struct gen *g = s->gen;
    size_t left = g->text.len - s->emitted, most = 0;
    for (uint32_t i = 0; i < g->n_stop; i++) {
        size_t longest = g->stop[i].len > 0 ? g->stop[i].len - 1 : 0;
        for (size_t n = longest < left ? longest : left; n > most; n--)
            if (memcmp(g->text.data + g->text.len - n, g->stop[i].data, n) == 0) most = n;
    }
    return most;
}

/* The text has grown: stop, or hand out what is certain. */
static void text_grew(struct gen_text *s) {
    struct gen *g = s->gen;
    if (g->text.error) {
        gen_text_fail(g, g->text.error, "no memory for the text");
        return;
    }
    size_t stop = stop_at(s);
    if (stop != SIZE_MAX) {
        g->text.len = stop;
        g->finish = GEN_STOP;
        emit(s, stop);
    } else {
        emit(s, g->text.len - held_back(s));
    }
}

/* Ends a text that was not stopped: what the detokenizer holds comes out, which may still be a stop
 * string. */
static void finish(struct gen_text *s, enum gen_finish how) {
    struct gen *g = s->gen;
    int rc = token_stream_flush(s->stream, &g->text);
    if (rc != 0) gen_text_fail(g, rc, "the text cannot be detokenized");
    if (rc != 0) return;
    text_grew(s);
    if (g->finish != GEN_RUNNING) return;
    emit(s, g->text.len);
    g->finish = how;
}

static bool has_penalties(const struct gen *g) {
    return (g->repetition > 0 && g->repetition != 1) || g->presence != 0 || g->frequency != 0;
}

/* Notes a token of the prompt (times 0) or of the text (1). */
static void note_seen(struct gen_text *s, uint32_t id, uint32_t times) {
    uint32_t low = 0, high = s->n_seen;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->seen[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == s->n_seen || s->seen[low].id != id) {
        memmove(s->seen + low + 1, s->seen + low, (s->n_seen - low) * sizeof *s->seen);
        s->seen[low] = (struct sample_seen){id, 0};
        s->n_seen++;
    }
    s->seen[low].count += times;
}

static int by_id(const void *a, const void *b) {
    const struct sample_seen *left = a, *right = b;
    return (left->id > right->id) - (left->id < right->id);
}

/* Room for every id of the text, and those of its prompt. */
static bool note_prompt(struct gen_text *s) {
    const struct gen *g = s->gen;
    if (!has_penalties(g)) return true;
    s->seen = calloc((size_t)g->prompt_tokens + g->tokens_max + 1, sizeof *s->seen);
    if (!s->seen) return false;
    for (uint32_t i = 0; i < g->prompt_tokens; i++) s->seen[i].id = g->prompt[i];
    qsort(s->seen, g->prompt_tokens, sizeof *s->seen, by_id);
    for (uint32_t i = 0; i < g->prompt_tokens; i++)
        if (s->n_seen == 0 || s->seen[s->n_seen - 1].id != s->seen[i].id)
            s->seen[s->n_seen++] = s->seen[i];
    return true;
}

struct gen_text *gen_text_new(struct gen *g, const struct tokenizer *t) {
    struct gen_text *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->gen = g;
    s->stream = token_stream_new(t, true);
    if (s->stream && note_prompt(s)) return s;
    gen_text_free(s);
    return NULL;
}

void gen_text_free(struct gen_text *s) {
    if (!s) return;
    seq_free(s->seq);
    guesses_fini(&s->guess);
    if (s->stream) token_stream_free(s->stream);
    free(s->seen);
    free(s);
}

struct sample_row gen_text_settings(const struct gen_text *s, uint32_t position) {
    const struct gen *g = s->gen;
    return (struct sample_row){.position = position,
                               .temperature = g->temperature,
                               .top_k = g->top_k,
                               .top_p = g->top_p,
                               .min_p = g->min_p,
                               .seed = g->seed,
                               .stream = g->stream,
                               .seen = s->seen,
                               .n_seen = s->n_seen,
                               .repetition = g->repetition,
                               .presence = g->presence,
                               .frequency = g->frequency,
                               .top_n = g->top ? g->top_n : 0};
}

struct sample_row gen_text_row(const struct gen_text *s, uint32_t position) {
    const struct gen *g = s->gen;
    struct sample_row row = gen_text_settings(s, position);
    if (g->guide) row.mask = g->guide->mask(g->guide->self, g->tokens_max - g->tokens);
    return row;
}

void gen_text_take(struct gen_text *s, const struct model_info *info, uint32_t id, float logprob,
                   const struct sample_top *top) {
    struct gen *g = s->gen;
    if (id == OPS_NO_TOKEN) {
        gen_text_fail(
            g, ERR_CORRUPT,
            g->guide ? "no token may come next: the guide leaves none, or the logits are no numbers"
                     : "the model's logits are not numbers: its weights do not fit its "
                       "config.json");
        return;
    }
    for (uint32_t i = 0; i < info->n_eos; i++)
        if (id == info->eos[i]) {
            finish(s, GEN_EOS);
            return;
        }
    if (g->logprob) g->logprob[g->tokens] = logprob;
    if (g->top) memcpy(g->top + (size_t)g->tokens * g->top_n, top, g->top_n * sizeof *top);
    if (s->seen) note_seen(s, id, 1);
    g->ids[g->tokens++] = id;
    bool complete = g->guide && !g->guide->take(g->guide->self, id);
    int rc = token_stream_next(s->stream, id, &g->text);
    if (rc != 0) {
        gen_text_fail(g, rc,
                      "a token cannot be detokenized: tokenizer.json does not fit the model");
        return;
    }
    text_grew(s);
    if (g->finish != GEN_RUNNING) return;
    if (complete)
        finish(s, GEN_EOS);
    else if (g->tokens == g->tokens_max || gen_text_known(s) > info->context)
        finish(s, GEN_LENGTH);
}
