#include "workers/infer/generate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/model.h"

/* Rows of a pass: about what keeps a small machine busy for 100 ms, within which a cancelled
 * text must be noticed. */
#define STEP_ROWS 256u

/* A text that runs: its cache, its decoder of ids, and how far its pieces are out. */
struct slot {
    struct gen *gen;
    struct seq *seq;
    struct token_stream *stream;
    uint32_t fed;             /* prompt tokens in the cache */
    uint32_t next;            /* the token to feed once the prompt is in */
    uint32_t reserved;        /* KV tokens that it may come to need */
    bool begun;               /* it waits no more for the cache of the text with the same prompt */
    struct sample_seen *seen; /* [n_seen] ids ascending, when there are penalties */
    uint32_t n_seen;
    size_t emitted; /* bytes of gen->text handed out */
};
struct run {
    struct model *model;
    const struct tokenizer *tokenizer;
    const struct model_info *info;
    struct gen **waiting;
    uint32_t n_waiting;
    struct slot slot[MODEL_SEQS_MAX];
    uint32_t n, reserved;
    uint32_t ids[STEP_ROWS + MODEL_SEQS_MAX];
};

const char *gen_finish_name(enum gen_finish f) {
    static const char *const names[] = {"running", "stop", "stop", "length", "failed"};
    return names[f];
}

void gen_fini(struct gen *g) {
    buf_fini(&g->text);
}

static void fail(struct gen *g, int error, const char *why) {
    g->finish = GEN_FAILED;
    g->error = err_set(g->err, sizeof g->err, error, "%s", why);
}

static void cancel(struct gen *g) {
    char why[64];
    snprintf(why, sizeof why, "cancelled after %u tokens", g->tokens);
    fail(g, ERR_CANCELLED, why);
}

static bool is_cancelled(const struct gen *g) {
    return g->cancelled && atomic_load_explicit(g->cancelled, memory_order_relaxed);
}

/* Hands out the text up to `end`. */
static void emit(struct slot *s, size_t end) {
    struct gen *g = s->gen;
    if (end > s->emitted && g->on_text)
        g->on_text(g, bytes_of(g->text.data + s->emitted, end - s->emitted));
    if (end > s->emitted) s->emitted = end;
}

/* Where the first stop string begins in the text that is not out yet, or SIZE_MAX. */
static size_t stop_at(const struct slot *s) {
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
static size_t held_back(const struct slot *s) {
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
static void text_grew(struct slot *s) {
    struct gen *g = s->gen;
    if (g->text.error) {
        fail(g, g->text.error, "no memory for the text");
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
static void finish(struct slot *s, enum gen_finish how) {
    struct gen *g = s->gen;
    int rc = token_stream_flush(s->stream, &g->text);
    if (rc != 0) fail(g, rc, "the text cannot be detokenized");
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
static void note_seen(struct slot *s, uint32_t id, uint32_t times) {
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
static bool note_prompt(struct slot *s) {
    const struct gen *g = s->gen;
    if (!has_penalties(g)) return true;
    s->seen = calloc((size_t)g->prompt_tokens + g->tokens_max, sizeof *s->seen);
    if (!s->seen) return false;
    for (uint32_t i = 0; i < g->prompt_tokens; i++) s->seen[i].id = g->prompt[i];
    qsort(s->seen, g->prompt_tokens, sizeof *s->seen, by_id);
    for (uint32_t i = 0; i < g->prompt_tokens; i++)
        if (s->n_seen == 0 || s->seen[s->n_seen - 1].id != s->seen[i].id)
            s->seen[s->n_seen++] = s->seen[i];
    return true;
}

/* A token was drawn for this text. */
static void take_token(struct run *r, struct slot *s, uint32_t id, float logprob,
                       const struct sample_top *top) {
    struct gen *g = s->gen;
    if (id == OPS_NO_TOKEN) {
        fail(g, ERR_CORRUPT,
             g->guide
                 ? "no token may come next: the guide leaves none, or the logits are no numbers"
                 : "the model's logits are not numbers: its weights do not fit its "
                   "config.json");
        return;
    }
    for (uint32_t i = 0; i < r->info->n_eos; i++)
        if (id == r->info->eos[i]) {
            finish(s, GEN_EOS);
            return;
        }
    if (g->logprob) g->logprob[g->tokens] = logprob;
    if (g->top) memcpy(g->top + (size_t)g->tokens * g->top_n, top, g->top_n * sizeof *top);
    if (s->seen) note_seen(s, id, 1);
    g->ids[g->tokens++] = s->next = id;
    bool complete = g->guide && !g->guide->take(g->guide->self, id);
    int rc = token_stream_next(s->stream, id, &g->text);
    if (rc != 0) {
        fail(g, rc, "a token cannot be detokenized: tokenizer.json does not fit the model");
        return;
    }
    text_grew(s);
    if (g->finish != GEN_RUNNING) return;
    if (complete)
        finish(s, GEN_EOS);
    else if (g->tokens == g->tokens_max || seq_len(s->seq) == r->info->context)
        finish(s, GEN_LENGTH);
}

static void slot_end(struct run *r, uint32_t i) {
    struct slot *s = &r->slot[i];
    seq_free(s->seq);
    token_stream_free(s->stream);
    free(s->seen);
    r->reserved -= s->reserved;
    memmove(s, s + 1, (--r->n - i) * sizeof *s);
}

/* Texts of one adapter stand side by side: a step multiplies them with it at once. */
static void slot_add(struct run *r, const struct slot *s) {
    uint32_t at = r->n;
    for (uint32_t i = r->n; i > 0; i--)
        if (r->slot[i - 1].gen->adapter == s->gen->adapter) {
            at = i;
            break;
        }
    memmove(r->slot + at + 1, r->slot + at, (r->n++ - at) * sizeof *s);
    r->slot[at] = *s;
}

/* Checks a request; false when it has failed. */
static bool acceptable(struct run *r, struct gen *g) {
    char why[200];
    g->finish = GEN_RUNNING;
    g->tokens = g->shared_tokens = 0;
    if (g->prompt_tokens == 0) {
        fail(g, ERR_FIELD, "the prompt has no tokens");
    } else if (g->prompt_tokens > r->info->context) {
        fail(g,
             err_set(why, sizeof why, ERR_LIMIT,
                     "the prompt has %u tokens, the model's limit is %u: shorten it",
                     g->prompt_tokens, r->info->context),
             why);
    } else {
        int rc = model_check_ids(r->model, g->prompt_tokens, g->prompt, why, sizeof why);
        if (rc != 0) fail(g, rc, why);
    }
    if (g->finish == GEN_RUNNING && g->tokens_max == 0) g->finish = GEN_LENGTH;
    return g->finish == GEN_RUNNING;
}

/* Lets waiting texts in, in their order, as long as the pool can hold them to their ends. */
static void admit(struct run *r) {
    while (r->n_waiting > 0 && r->n < r->info->seqs_max) {
        struct gen *g = r->waiting[0];
        if (acceptable(r, g)) {
            uint64_t most = (uint64_t)g->prompt_tokens + g->tokens_max;
            uint32_t page = r->info->kv_page_tokens;
            uint32_t room = most < r->info->context ? (uint32_t)most : r->info->context;
            room = (room + page - 1) / page * page;
            if (r->n > 0 && room > r->info->kv_tokens - r->reserved) return;
            struct slot s = {.gen = g, .seq = seq_new(r->model), .reserved = room};
            s.stream = token_stream_new(r->tokenizer, true);
            if (s.seq && s.stream && note_prompt(&s)) {
                seq_adapt(s.seq, g->adapter);
                slot_add(r, &s);
                r->reserved += room;
            } else {
                seq_free(s.seq);
                if (s.stream) token_stream_free(s.stream);
                free(s.seen);
                fail(g, -ENOMEM, "no memory for a sequence");
            }
        }
        r->waiting++;
        r->n_waiting--;
    }
}

/* Whether a text can go on: one that shares its prompt waits until the other has it in its cache,
 * and takes it from there; it computes it by itself when the other has ended before. */
static bool may_begin(struct run *r, struct slot *s) {
    struct gen *g = s->gen;
    if (s->begun) return true;
    for (uint32_t i = 0; g->same_prompt && i < r->n; i++) {
        const struct slot *other = &r->slot[i];
        if (other->gen != g->same_prompt) continue;
        if (seq_len(other->seq) < g->prompt_tokens) return false;
        s->fed = g->shared_tokens = seq_share(s->seq, other->seq, g->prompt_tokens - 1);
    }
    return s->begun = true;
}

/* The one place where a token is drawn: what the text asks for, and its mask. */
static struct sample_row row_of(const struct slot *s) {
    const struct gen *g = s->gen;
    struct sample_row row = {.position = seq_len(s->seq), .top_p = 1};
    if (s->fed < g->prompt_tokens) return row; /* drawn and not used */
    row.temperature = g->temperature;
    row.top_k = g->top_k;
    row.top_p = g->top_p;
    row.min_p = g->min_p;
    row.seed = g->seed;
    row.stream = g->stream;
    row.seen = s->seen;
    row.n_seen = s->n_seen;
    row.repetition = g->repetition;
    row.presence = g->presence;
    row.frequency = g->frequency;
    row.top_n = g->top ? g->top_n : 0;
    if (g->guide) row.mask = g->guide->mask(g->guide->self, g->tokens_max - g->tokens);
    return row;
}

/* Draws a token for each of the n texts of the step; those whose prompt is in take theirs. */
static void draw(struct run *r, uint32_t n, const uint32_t *of) {
    struct sample_row rows[MODEL_SEQS_MAX];
    struct sample_top top[MODEL_SEQS_MAX * MODEL_TOP_MAX];
    float logprob[MODEL_SEQS_MAX];
    uint32_t tokens[MODEL_SEQS_MAX];
    bool logprobs = false, tops = false;
    for (uint32_t k = 0; k < n; k++) {
        rows[k] = row_of(&r->slot[of[k]]);
        logprobs |= r->slot[of[k]].gen->logprob != NULL;
        tops |= rows[k].top_n > 0;
    }
    model_sample(r->model, n, rows, tokens, logprobs ? logprob : NULL, tops ? top : NULL);
    for (uint32_t k = 0; k < n; k++)
        if (r->slot[of[k]].fed == r->slot[of[k]].gen->prompt_tokens)
            take_token(r, &r->slot[of[k]], tokens[k], logprobs ? logprob[k] : 0,
                       top + (size_t)k * MODEL_TOP_MAX);
}

/* One pass: every text that decodes gives one row, prompts share the rest of the budget. */
static void step(struct run *r) {
    struct seq *seqs[MODEL_SEQS_MAX];
    uint32_t begin[MODEL_SEQS_MAX + 1] = {0}, of[MODEL_SEQS_MAX], n = 0, budget = STEP_ROWS;
    for (uint32_t i = 0; i < r->n; i++) {
        struct slot *s = &r->slot[i];
        if (!may_begin(r, s)) continue;
        uint32_t left = s->gen->prompt_tokens - s->fed, take = left < budget ? left : budget;
        if (left == 0) {
            r->ids[begin[n]] = s->next;
            take = 1;
        } else {
            memcpy(r->ids + begin[n], s->gen->prompt + s->fed, take * sizeof *r->ids);
            s->fed += take;
            budget -= take;
        }
        if (take == 0) continue;
        seqs[n] = s->seq;
        of[n] = i;
        begin[n + 1] = begin[n] + take;
        n++;
    }
    char err[256];
    int rc = model_step(r->model, n, seqs, begin, r->ids, NULL, err, sizeof err);
    if (rc != 0) {
        for (uint32_t k = 0; k < n; k++) fail(r->slot[of[k]].gen, rc, err);
        return;
    }
    draw(r, n, of);
}

void generate(struct model *m, const struct tokenizer *t, struct gen **gens, uint32_t n) {
    struct run r = {
        .model = m, .tokenizer = t, .info = model_info(m), .waiting = gens, .n_waiting = n};
    assert(r.info->kind == MODEL_DECODER);
    for (;;) {
        for (uint32_t i = r.n; i > 0; i--) {
            struct gen *g = r.slot[i - 1].gen;
            if (g->finish == GEN_RUNNING && is_cancelled(g)) cancel(g);
            if (g->finish != GEN_RUNNING) slot_end(&r, i - 1);
        }
        admit(&r);
        if (r.n == 0) return;
        step(&r);
    }
}
