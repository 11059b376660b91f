#include "workers/infer/generate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "workers/infer/gen_text.h"
#include "workers/infer/model.h"

#define ROWS_MIN 16u  /* that prompts get in a step, however slow the machine */
#define ROWS_MAX 512u /* and however fast */
#define ROWS_FIRST 32u
#define AHEAD_TOKENS 64u /* a text is let in with room for so many more than it has */

struct gen_loop {
    struct model *model;
    const struct tokenizer *tokenizer;
    const struct model_info *info;
    struct gen_loop_config config;
    struct gen_text *waiting;              /* who is served first is first */
    struct gen_text *text[MODEL_SEQS_MAX]; /* that run: those of one adapter side by side */
    uint32_t n;
    uint64_t added;
    int64_t row_ns; /* what a row takes in a step of many, smoothed; 0: not known */
    struct gen_loop_stats stats;
    struct speculate speculate;
    uint32_t *ids; /* of a step: [rows_most + 2 MODEL_SEQS_MAX], guesses among them */
};

const char *gen_finish_name(enum gen_finish f) {
    static const char *const names[] = {"running", "stop", "stop", "length", "failed"};
    return names[f];
}

void gen_fini(struct gen *g) {
    buf_fini(&g->text);
}

/* ---- texts come and go ---- */

/* Whether a is served before b. */
static bool before(const struct gen_text *a, const struct gen_text *b) {
    if (a->gen->priority != b->gen->priority) return a->gen->priority < b->gen->priority;
    return a->order < b->order;
}

static void wait_in_line(struct gen_loop *l, struct gen_text *t) {
    struct gen_text **at = &l->waiting;
    while (*at && before(*at, t)) at = &(*at)->next;
    t->next = *at;
    *at = t;
    l->stats.waiting++;
}

/* Checks a request; one that cannot run has ended. */
static void check(struct gen_loop *l, struct gen *g) {
    char why[200];
    g->finish = GEN_RUNNING;
    g->tokens = g->shared_tokens = 0;
    g->begun = false;
    if (g->prompt_tokens == 0) {
        gen_text_fail(g, ERR_FIELD, "the prompt has no tokens");
    } else if (g->prompt_tokens > l->info->context) {
        snprintf(why, sizeof why, "the prompt has %u tokens, the model's limit is %u: shorten it",
                 g->prompt_tokens, l->info->context);
        gen_text_fail(g, ERR_LIMIT, why);
    } else {
        int rc = model_check_ids(l->model, g->prompt_tokens, g->prompt, why, sizeof why);
        if (rc != 0) gen_text_fail(g, rc, why);
    }
    if (g->finish == GEN_RUNNING && g->tokens_max == 0) g->finish = GEN_LENGTH;
}

int gen_loop_add(struct gen_loop *l, struct gen *g) {
    check(l, g);
    struct gen_text *t = gen_text_new(g, l->tokenizer);
    if (!t) return -ENOMEM;
    t->order = l->added++;
    wait_in_line(l, t);
    return 0;
}

/* Out of those that run. */
static void take_out(struct gen_loop *l, struct gen_text *t) {
    uint32_t i = 0;
    while (l->text[i] != t) i++;
    memmove(l->text + i, l->text + i + 1, (--l->n - i) * sizeof(struct gen_text *));
}

/* Gives its pages back; its history is read anew when its turn comes. */
static void pause_text(struct gen_loop *l, struct gen_text *t) {
    take_out(l, t);
    seq_free(t->seq);
    t->seq = NULL;
    guesses_pause(&t->guess);
    t->begun = false;
    l->stats.pauses++;
    wait_in_line(l, t);
}

/* Texts of one adapter stand side by side: a step multiplies them with it at once. */
static void let_in(struct gen_loop *l, struct gen_text *t) {
    uint32_t at = l->n;
    for (uint32_t i = l->n; i > 0; i--)
        if (l->text[i - 1]->gen->adapter == t->gen->adapter) {
            at = i;
            break;
        }
    memmove(l->text + at + 1, l->text + at, (l->n++ - at) * sizeof(struct gen_text *));
    l->text[at] = t;
}

static bool has_ended(struct gen_text *t) {
    struct gen *g = t->gen;
    if (g->finish == GEN_RUNNING && g->cancelled &&
        atomic_load_explicit(g->cancelled, memory_order_relaxed)) {
        char why[64];
        snprintf(why, sizeof why, "cancelled after %u tokens", g->tokens);
        gen_text_fail(g, ERR_CANCELLED, why);
    }
    return g->finish != GEN_RUNNING;
}

static void report(struct gen_text *t) {
    struct gen *g = t->gen;
    gen_text_free(t);
    if (g->on_end) g->on_end(g);
}

/* Reports what has ended, or was cancelled. */
static void sweep(struct gen_loop *l) {
    for (uint32_t i = l->n; i > 0; i--) {
        struct gen_text *t = l->text[i - 1];
        if (!has_ended(t)) continue;
        take_out(l, t);
        report(t);
    }
    for (struct gen_text **at = &l->waiting; *at;) {
        struct gen_text *t = *at;
        if (!has_ended(t)) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        l->stats.waiting--;
        report(t);
    }
}

/* ---- admission ---- */

static uint32_t pages_for(const struct gen_loop *l, uint64_t tokens) {
    uint32_t page = l->info->kv_page_tokens;
    return (uint32_t)((tokens + page - 1) / page);
}

/* Pages of what a text has and a little more, as far as it can come. */
static uint32_t claim(const struct gen_loop *l, const struct gen_text *t) {
    uint64_t most = (uint64_t)t->gen->prompt_tokens + t->gen->tokens_max;
    uint64_t soon = (uint64_t)gen_text_known(t) + AHEAD_TOKENS;
    if (most > l->info->context) most = l->info->context;
    return pages_for(l, soon < most ? soon : most);
}

/* Whether t can run beside those that run of priorities up to `lowest`. */
static bool fits(const struct gen_loop *l, const struct gen_text *t, uint32_t lowest) {
    uint64_t pages = claim(l, t);
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->text[i]->gen->priority > lowest) continue;
        pages += claim(l, l->text[i]);
        n++;
    }
    return n == 0 || (n < l->info->seqs_max && pages <= pages_for(l, l->info->kv_tokens));
}

static struct gen_text *served_last(const struct gen_loop *l) {
    struct gen_text *last = l->text[0];
    for (uint32_t i = 1; i < l->n; i++)
        if (before(last, l->text[i])) last = l->text[i];
    return last;
}

/* Lets waiting texts in, in their order. Who comes before some that run pushes these out, if that
 * makes the room. */
static void admit(struct gen_loop *l) {
    for (struct gen_text *t; (t = l->waiting);) {
        if (!fits(l, t, t->gen->priority)) return;
        while (!fits(l, t, UINT32_MAX)) pause_text(l, served_last(l));
        l->waiting = t->next; /* whoever was pushed out comes behind it */
        l->stats.waiting--;
        t->next = NULL;
        t->seq = seq_new(l->model);
        if (t->seq) {
            seq_adapt(t->seq, t->gen->adapter);
            t->gen->begun = true;
            let_in(l, t);
        } else {
            gen_text_fail(t->gen, -ENOMEM, "no memory for a sequence");
            report(t);
        }
    }
}

/* ---- a step ---- */

/* What is missing in its cache. */
static uint32_t missing(const struct gen_text *t) {
    return gen_text_known(t) - seq_len(t->seq);
}

/* Whether a text can go on: one that shares its prompt waits until the other has it in its cache,
 * and takes it from there; it computes it by itself when the other does not run. */
static bool may_begin(struct gen_loop *l, struct gen_text *t) {
    struct gen *g = t->gen;
    if (t->begun) return true;
    for (uint32_t i = 0; g->same_prompt && i < l->n; i++) {
        const struct gen_text *other = l->text[i];
        if (other->gen != g->same_prompt) continue;
        if (seq_len(other->seq) < g->prompt_tokens) return false;
        g->shared_tokens = seq_share(t->seq, other->seq, g->prompt_tokens - 1);
    }
    return t->begun = true;
}

/* Rows that prompts may have beside n texts that decode. */
static uint32_t rows_for_prompts(const struct gen_loop *l, uint32_t n) {
    uint64_t rows = ROWS_FIRST;
    if (l->config.step_rows) return l->config.step_rows;
    if (l->row_ns > 0) rows = l->config.step_ms * 1000000ull / (uint64_t)l->row_ns;
    rows = rows > n ? rows - n : 0;
    return rows < ROWS_MIN ? ROWS_MIN : rows > ROWS_MAX ? ROWS_MAX : (uint32_t)rows;
}

static void give(struct gen_text *t, uint32_t most, uint32_t *budget) {
    uint32_t want = missing(t) - t->rows, rows = want < most ? want : most;
    t->rows += rows;
    *budget -= rows;
}

/* How many rows of its history each text feeds. */
static void plan_rows(struct gen_loop *l) {
    struct gen_text *prompt[MODEL_SEQS_MAX], *first = NULL;
    uint32_t n = 0, decodes = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        struct gen_text *t = l->text[i];
        t->rows = 0;
        if (!may_begin(l, t)) continue;
        if (missing(t) == 1) {
            t->rows = 1;
            decodes++;
        } else {
            prompt[n++] = t;
            if (!first || before(t, first)) first = t;
        }
    }
    uint32_t budget = rows_for_prompts(l, decodes);
    if (first) give(first, budget - budget / 2, &budget);
    while (n > 0 && budget > 0) { /* the shortest, then the next */
        uint32_t k = 0;
        for (uint32_t i = 1; i < n; i++)
            if (missing(prompt[i]) < missing(prompt[k])) k = i;
        give(prompt[k], budget, &budget);
        prompt[k] = prompt[--n];
    }
}

/* Pages that the step takes beyond those that its texts hold. */
static uint32_t pages_wanted(const struct gen_loop *l) {
    uint32_t pages = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        const struct gen_text *t = l->text[i];
        uint32_t len = seq_len(t->seq);
        pages += pages_for(l, (uint64_t)len + t->rows) - pages_for(l, len);
    }
    return pages;
}

/* A text of the step: its rows, and those of its logits. */
struct drawn {
    struct gen_text *text;
    uint32_t known, first, taken;
    bool draws; /* a token more, from logits first + taken */
};

/* Draws one token for each text that can have another; a guess that it confirms lets the text draw
 * from the row behind it too. */
static void draw_one_each(struct gen_loop *l, struct drawn *d, uint32_t n) {
    struct sample_row rows[MODEL_SEQS_MAX];
    struct sample_top top[MODEL_SEQS_MAX * MODEL_TOP_MAX];
    float logprob[MODEL_SEQS_MAX];
    uint32_t tokens[MODEL_SEQS_MAX], at[MODEL_SEQS_MAX];
    bool logprobs = false, tops = false;
    for (uint32_t k = 0; k < n; k++) {
        rows[k] = gen_text_row(d[k].text, d[k].known + d[k].taken);
        at[k] = d[k].first + d[k].taken;
        logprobs |= d[k].text->gen->logprob != NULL;
        tops |= rows[k].top_n > 0;
    }
    model_sample_at(l->model, n, at, rows, tokens, logprobs ? logprob : NULL, tops ? top : NULL);
    for (uint32_t k = 0; k < n; k++) {
        struct gen_text *t = d[k].text;
        uint32_t i = d[k].taken++;
        gen_text_take(t, l->info, tokens[k], logprobs ? logprob[k] : 0,
                      top + (size_t)k * MODEL_TOP_MAX);
        l->stats.tokens++;
        bool right = i < t->guess.n && tokens[k] == t->guess.ids[i];
        l->speculate.accepted += right;
        d[k].draws = right && !has_ended(t);
    }
}

/* Draws for each of the n texts of the step whose history is in. */
static void draw(struct gen_loop *l, struct drawn *d, uint32_t n) {
    struct drawn some[MODEL_SEQS_MAX];
    for (;;) {
        uint32_t m = 0;
        for (uint32_t k = 0; k < n; k++)
            if (d[k].draws) some[m++] = d[k];
        if (m == 0) return;
        draw_one_each(l, some, m);
        for (uint32_t k = 0, i = 0; k < n; k++)
            if (d[k].draws) d[k] = some[i++];
    }
}

/* Computes the rows of every text, and draws. A text's rows are the ids of its history from seq_len
 * on, and its guesses behind them; of these the cache keeps what was right. */
static void compute(struct gen_loop *l) {
    struct seq *seqs[MODEL_SEQS_MAX];
    struct drawn d[MODEL_SEQS_MAX];
    uint32_t begin[MODEL_SEQS_MAX + 1] = {0}, tail[MODEL_SEQS_MAX] = {0}, n = 0, logits = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        struct gen_text *t = l->text[i];
        if (t->rows == 0) continue;
        uint32_t from = seq_len(t->seq), known = gen_text_known(t), *ids = l->ids + begin[n];
        for (uint32_t k = 0; k < t->rows; k++) ids[k] = gen_text_id(t, from + k);
        memcpy(ids + t->rows, t->guess.ids, t->guess.n * sizeof *ids);
        begin[n + 1] = begin[n] + t->rows + t->guess.n;
        tail[n] = 1 + t->guess.n;
        d[n] = (struct drawn){t, known, logits, 0, from + t->rows == known};
        logits += tail[n];
        seqs[n++] = t->seq;
    }
    char err[256];
    int rc = model_step_tails(l->model, n, seqs, begin, l->ids, tail, NULL, err, sizeof err);
    for (uint32_t k = 0; rc != 0 && k < n; k++) gen_text_fail(d[k].text->gen, rc, err);
    if (rc == 0) draw(l, d, n);
    for (uint32_t k = 0; rc == 0 && k < n; k++)
        if (d[k].taken > 0) seq_cut(seqs[k], d[k].known + d[k].taken - 1);
    l->stats.rows += begin[n];
}

/* A step of few rows reads the weights for them alone: it does not tell what one more costs. */
static void learn(struct gen_loop *l, uint32_t rows, int64_t ns) {
    draft_pace_note(&l->speculate.pace, rows, ns);
    l->stats.steps++;
    l->stats.step_ns += (uint64_t)ns;
    if (rows < ROWS_MIN) return;
    int64_t row_ns = ns / (int64_t)rows + 1;
    l->row_ns = l->row_ns ? (3 * l->row_ns + row_ns) / 4 : row_ns;
}

bool gen_loop_step(struct gen_loop *l) {
    sweep(l);
    admit(l);
    if (l->n == 0) return false;
    uint64_t rows = l->stats.rows;
    plan_rows(l);
    while (l->n > 1 &&
           pages_wanted(l) > pages_for(l, model_kv_free(l->model))) /* by the history's growth */
        pause_text(l, served_last(l));
    speculate_plan(&l->speculate, l->info,
                   model_kv_free(l->model) - pages_wanted(l) * l->info->kv_page_tokens, l->text,
                   l->n);
    int64_t began = clock_mono_ns();
    compute(l);
    learn(l, (uint32_t)(l->stats.rows - rows), clock_mono_ns() - began);
    sweep(l);
    return l->n > 0 || l->waiting;
}

/* ---- the object ---- */

int gen_loop_open(struct gen_loop **out, struct model *m, const struct tokenizer *t,
                  const struct gen_loop_config *c) {
    struct gen_loop *l = calloc(1, sizeof *l);
    assert(model_info(m)->kind == MODEL_DECODER);
    if (!l) return -ENOMEM;
    if (c) l->config = *c;
    if (l->config.step_ms == 0) l->config.step_ms = GEN_STEP_MS;
    uint32_t rows = l->config.step_rows ? l->config.step_rows : ROWS_MAX;
    l->ids = malloc((rows + 2 * MODEL_SEQS_MAX) * sizeof *l->ids);
    if (!l->ids) {
        free(l);
        return -ENOMEM;
    }
    l->model = m;
    l->tokenizer = t;
    l->info = model_info(m);
    l->speculate = (struct speculate){
        .mode = l->config.speculate, .draft = l->config.draft, .fixed = l->config.guesses};
    *out = l;
    return 0;
}

void gen_loop_close(struct gen_loop *l) {
    if (!l) return;
    for (uint32_t i = 0; i < l->n; i++) gen_text_free(l->text[i]);
    for (struct gen_text *t; (t = l->waiting);) {
        l->waiting = t->next;
        gen_text_free(t);
    }
    free(l->ids);
    free(l);
}

struct gen_loop_stats gen_loop_stats(const struct gen_loop *l) {
    struct gen_loop_stats s = l->stats;
    s.running = l->n;
    s.guesses = l->speculate.proposed;
    s.guesses_right = l->speculate.accepted;
    s.kv_pages_max = pages_for(l, l->info->kv_tokens);
    s.kv_pages = s.kv_pages_max - pages_for(l, model_kv_free(l->model));
    return s;
}

void generate(struct model *m, const struct tokenizer *t, struct gen **gens, uint32_t n) {
    generate_with(m, t, NULL, gens, n);
}

struct gen_loop_stats generate_with(struct model *m, const struct tokenizer *t,
                                    const struct gen_loop_config *c, struct gen **gens,
                                    uint32_t n) {
    struct gen_loop_stats did = {0};
    struct gen_loop *l;
    int rc = gen_loop_open(&l, m, t, c);
    for (uint32_t i = 0; i < n; i++) {
        int e = rc ? rc : gen_loop_add(l, gens[i]);
        if (e != 0) gen_text_fail(gens[i], e, "no memory for a text");
    }
    if (rc != 0) return did;
    while (gen_loop_step(l)) continue;
    did = gen_loop_stats(l);
    gen_loop_close(l);
    return did;
}
