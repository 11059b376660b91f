/* The third promise as a property: the bits of a text's logits, and so its tokens, are those that
 * it gives alone, token by token, on one thread. Random histories break each other's company,
 * order, chunks, cache and threads, and a backend whose sums depend on the number of rows is
 * caught. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/infer/help.h"

#define MODELS "tests/golden/models/"
#define ADAPTERS "tests/golden/lora/"
#define VOCAB_MAX 131
#define TEXTS 6
#define LEN_MAX 96
#define LOGITS_MAX 12 /* rows of a step: as many as the smallest workspace */
#define HISTORIES (HELP_SLOW ? 1 : 2)

struct family {
    const char *dir, *adapter[2];
    uint32_t window;
};
static const struct family families[] = {
    {MODELS "llama-tied", {ADAPTERS "llama-all", ADAPTERS "llama-some"}, 0},
    {MODELS "qwen2", {ADAPTERS "qwen2-late", NULL}, 0},
    {MODELS "gemma3", {ADAPTERS "gemma3-all", NULL}, 8},
    {MODELS "qwen3", {NULL, NULL}, 0},
    {MODELS "mistral", {NULL, NULL}, 12},
    {MODELS "llama-bf16", {NULL, NULL}, 0},
};
#define FAMILIES (sizeof families / sizeof *families)
/* How numbers are kept: weights, and keys and values. */
struct kept {
    enum dtype weights, kv;
};
static const struct kept kinds[] = {{DTYPE_F32, DTYPE_F32}, {DTYPE_BF16, DTYPE_BF16},
                                    {DTYPE_F32, DTYPE_I8},  {DTYPE_BF16, DTYPE_I8},
                                    {DTYPE_W8, DTYPE_F32},  {DTYPE_W4, DTYPE_F32}};
#define KINDS (sizeof kinds / sizeof *kinds)
static const struct ops_config levels[] = {{.backend = "ref"},
                                           {.backend = "cpu", .level = "plain"},
                                           {.backend = "cpu", .level = "avx2"},
                                           {.backend = "cpu", .level = "avx512"},
                                           {.backend = "cpu", .level = "avx512bf16"}};
#define LEVELS (sizeof levels / sizeof *levels)

/* A text and what it gives alone: the tokens that follow its prompt, and every row of logits. */
struct text {
    uint32_t ids[LEN_MAX], prompt, n;
    uint32_t adapter; /* 0: none */
    struct sample_row row;
    float want[LEN_MAX][VOCAB_MAX];
};
/* One of them on its way through a history. */
struct going {
    struct seq *seq;
    uint32_t fed, preempted;
};
struct world {
    struct ops *ops;
    struct model *model;
    const struct adapter *adapter[3]; /* [0] is NULL */
    uint32_t vocab;
    const struct text *text;
    struct going at[TEXTS];
    uint64_t state;
    char broken[200]; /* the first violation */
};

static uint32_t below(uint64_t *state, uint32_t n) {
    return (uint32_t)(rng_next(state) % n);
}

static bool world_open(struct world *w, const struct family *f, const struct ops_config *c,
                       const struct kept *kind, uint32_t rows_max, uint64_t seed) {
    char err[512] = "";
    *w = (struct world){.state = seed};
    if (ops_open(&w->ops, c, err, sizeof err) != 0) return false;
    w->model = model_must_open(
        f->dir, w->ops,
        &(struct model_config){.rows_max = rows_max, .weights = kind->weights, .kv = kind->kv});
    w->vocab = model_info(w->model)->vocab;
    cr_assert(w->vocab <= VOCAB_MAX);
    for (uint32_t i = 0; i < 2; i++)
        if (f->adapter[i])
            cr_assert_eq(
                model_adapter(w->model, f->adapter[i], &w->adapter[i + 1], err, sizeof err), 0,
                "%s", err);
    return true;
}

static void world_close(struct world *w) {
    model_close(w->model);
    ops_close(w->ops);
}

/* The truth: each text alone, a token a step, drawn greedily or by its seed. */
static void write_alone(struct world *w, struct text *text) {
    for (uint32_t i = 0; i < TEXTS; i++) {
        struct text *t = &text[i];
        *t = (struct text){.prompt = 1 + below(&w->state, 40), .adapter = i % 3};
        if (!w->adapter[t->adapter]) t->adapter = 0;
        t->n = t->prompt + 10 + below(&w->state, LEN_MAX - 10 - t->prompt);
        t->row = (struct sample_row){.temperature = i % 2 ? 0.9f : 0,
                                     .top_p = i == 3 ? 0.8f : 1,
                                     .top_k = i == 5 ? 20 : 0,
                                     .seed = 7 + i,
                                     .stream = i};
        for (uint32_t k = 0; k < t->prompt; k++) t->ids[k] = below(&w->state, w->vocab);
        struct seq *s = seq_new(w->model);
        seq_adapt(s, w->adapter[t->adapter]);
        for (uint32_t k = 0; k < t->n; k++) {
            const float *logits;
            char err[256] = "";
            uint32_t token;
            cr_assert_eq(model_step(w->model, 1, &s, (uint32_t[]){0, 1}, t->ids + k, &logits, err,
                                    sizeof err),
                         0, "%s", err);
            w->ops->download(w->ops, t->want[k], logits, w->vocab * sizeof(float));
            t->row.position = k + 1;
            model_sample(w->model, 1, &t->row, &token, NULL, NULL);
            if (k + 1 >= t->prompt && k + 1 < t->n) t->ids[k + 1] = token;
        }
        seq_free(s);
    }
}

/* A sequence again from nothing, as after a preemption: what it had written is prompt now. Now and
 * then the whole pages of a text that it was before are still there to begin with. */
static void begin_again(struct world *w, uint32_t i) {
    struct going *g = &w->at[i];
    struct seq *old = g->seq;
    g->seq = seq_new(w->model);
    seq_adapt(g->seq, w->adapter[w->text[i].adapter]);
    g->fed = old && below(&w->state, 2) ? seq_share(g->seq, old, g->fed) : 0;
    seq_free(old);
}

/* Things that happen to a text between two steps. */
static void disturb(struct world *w, uint32_t i) {
    struct going *g = &w->at[i];
    uint32_t what = below(&w->state, 12);
    if (!g->seq || (what == 0 && g->preempted < 3)) {
        g->preempted += g->seq != NULL;
        begin_again(w, i);
    } else if (what == 1 && g->fed > 0 && g->preempted < 3) {
        g->preempted++;
        g->fed -= below(&w->state, g->fed < 9 ? g->fed : 9);
        seq_cut(g->seq, g->fed);
    }
}

static void compare(struct world *w, uint32_t i, uint32_t row, const float *got) {
    const float *want = w->text[i].want[row];
    for (uint32_t v = 0; v < w->vocab && !*w->broken; v++)
        if (memcmp(&got[v], &want[v], sizeof *got) != 0)
            snprintf(w->broken, sizeof w->broken, "text %u, row %u, logit %u: %a alone, %a here", i,
                     row, v, (double)want[v], (double)got[v]);
}

/* Every row whose logits were asked for, and the tokens drawn from them. */
static void check_rows(struct world *w, uint32_t n, const uint32_t *of, const uint32_t *tail,
                       const float *logits) {
    struct sample_row rows[LOGITS_MAX];
    uint32_t at[LOGITS_MAX], from[LOGITS_MAX], row[LOGITS_MAX], tokens[LOGITS_MAX], all = 0;
    float got[VOCAB_MAX];
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t j = 0; j < tail[k]; j++, all++) {
            const struct text *t = &w->text[of[k]];
            at[all] = all;
            from[all] = of[k];
            row[all] = w->at[of[k]].fed - tail[k] + j;
            w->ops->download(w->ops, got, logits + (size_t)all * w->vocab, w->vocab * sizeof *got);
            compare(w, of[k], row[all], got);
            rows[all] = t->row;
            rows[all].position = row[all] + 1;
        }
    for (uint32_t k = all; k > 1; k--) { /* in any order */
        uint32_t other = below(&w->state, k), was = at[k - 1];
        at[k - 1] = at[other];
        at[other] = was;
    }
    struct sample_row shuffled[LOGITS_MAX];
    for (uint32_t k = 0; k < all; k++) shuffled[k] = rows[at[k]];
    model_sample_at(w->model, all, at, shuffled, tokens, NULL, NULL);
    for (uint32_t k = 0; k < all && !*w->broken; k++) {
        const struct text *t = &w->text[from[at[k]]];
        uint32_t next = row[at[k]] + 1;
        if (next >= t->prompt && next < t->n && tokens[k] != t->ids[next])
            snprintf(w->broken, sizeof w->broken, "text %u drew %u at %u, alone it drew %u",
                     from[at[k]], tokens[k], next, t->ids[next]);
    }
}

/* One step over some of the texts in any order, each with a chunk of any size and the logits of
 * some of its rows; false when all are at their ends. */
static bool any_step(struct world *w) {
    struct seq *seqs[TEXTS];
    uint32_t begin[TEXTS + 1] = {0}, of[TEXTS], tail[TEXTS], ids[TEXTS * LEN_MAX], n = 0, rows = 0;
    bool left = false;
    for (uint32_t k = 0, first = below(&w->state, TEXTS); k < TEXTS; k++) {
        uint32_t i = (first + 5 * k) % TEXTS;
        const struct text *t = &w->text[i];
        struct going *g = &w->at[i];
        if (g->seq && g->fed == t->n) continue;
        left = true;
        if (below(&w->state, 3) == 0) continue;
        disturb(w, i);
        uint32_t take = 1 + (below(&w->state, 3) ? below(&w->state, t->n - g->fed) : 0);
        uint32_t room = LOGITS_MAX - rows - (TEXTS - 1 - n); /* one for each that may follow */
        tail[n] = 1 + below(&w->state, take < room ? take : room);
        memcpy(ids + begin[n], t->ids + g->fed, take * sizeof *ids);
        begin[n + 1] = begin[n] + take;
        seqs[n] = g->seq;
        rows += tail[n];
        of[n++] = i;
        g->fed += take;
    }
    if (n > 0) {
        const float *logits;
        char err[256] = "";
        cr_assert_eq(
            model_step_tails(w->model, n, seqs, begin, ids, tail, &logits, err, sizeof err), 0,
            "%s", err);
        check_rows(w, n, of, tail, logits);
    }
    return left;
}

static void history(struct world *w, const struct text *text) {
    w->text = text;
    memset(w->at, 0, sizeof w->at);
    while (!*w->broken && any_step(w)) {
    }
    for (uint32_t i = 0; i < TEXTS; i++) seq_free(w->at[i].seq);
}

/* The property for a family at a level: rows_max, threads and all else differ from the truth's. */
static bool holds(const struct family *f, const struct ops_config *level, const struct kept *kind,
                  uint64_t seed) {
    static const uint32_t rows_max[] = {12, 19, 64, 300};
    struct ops_config c = *level;
    struct world truth, w;
    struct text *text = calloc(TEXTS, sizeof *text);
    c.threads = 1;
    if (!world_open(&truth, f, &c, kind, 64, seed)) {
        free(text);
        return false;
    }
    write_alone(&truth, text);
    for (uint32_t k = 0; k < HISTORIES; k++) {
        c.threads = 1 + (uint32_t)(seed + 2 * k) % 4;
        cr_assert(world_open(&w, f, &c, kind, rows_max[(seed + k) % 4], seed + 1 + k));
        cr_assert_str_eq(model_numerics_id(w.model), model_numerics_id(truth.model));
        history(&w, text);
        cr_assert(!*w.broken, "%s, %s, %u threads, seed %" PRIu64 ": %s", f->dir,
                  model_numerics_id(w.model), c.threads, seed, w.broken);
        world_close(&w);
    }
    world_close(&truth);
    free(text);
    return true;
}

Test(determinism, bits_depend_on_a_text_alone_in_every_family_at_every_level) {
    uint32_t seen = 0;
    for (size_t level = 0; level < LEVELS; level++)
        for (size_t t = 0; t < KINDS; t++)
            for (size_t f = 0; f < FAMILIES; f++) {
                /* Every family at every level, with some of the kinds. */
                if ((level + t + f) % (HELP_SLOW ? 7 : 5)) continue;
                seen += holds(&families[f], &levels[level], &kinds[t], 1000 * t + 10 * level + f);
            }
    cr_assert(seen >= (HELP_SLOW ? 3 : FAMILIES), "%u cases ran", seen);
}

/* ---- a planted violation ---- */

static void (*honest_linear)(struct ops *o, const struct linear_args *a);

/* Beyond eight rows the sum over k is cut in two halves, which are added at the end. */
static void split_linear(struct ops *o, const struct linear_args *a) {
    if (a->rows <= 8 || a->act != OPS_ACT_NONE || a->add) {
        honest_linear(o, a);
        return;
    }
    uint32_t k = a->w->k, n = a->w->n;
    float *half = calloc((size_t)a->rows * k, sizeof *half),
          *sum = calloc((size_t)a->rows * n, sizeof *sum), *to = a->y_f32 ? a->y_f32 : a->y;
    float *part = calloc((size_t)a->rows * n, sizeof *part);
    cr_assert(half && sum && part && o->act == DTYPE_F32);
    for (uint32_t side = 0; side < 2; side++) {
        memset(half, 0, (size_t)a->rows * k * sizeof *half);
        for (uint32_t r = 0; r < a->rows; r++)
            for (uint32_t i = side ? k / 2 : 0; i < (side ? k : k / 2); i++)
                half[(size_t)r * k + i] = ((const float *)a->x)[(size_t)r * k + i];
        honest_linear(o, &(struct linear_args){.rows = a->rows, .x = half, .w = a->w, .y = part});
        for (size_t i = 0; i < (size_t)a->rows * n; i++) sum[i] += part[i];
    }
    for (uint32_t r = 0; r < a->rows; r++)
        for (uint32_t i = 0; i < n; i++) {
            size_t at = (size_t)r * n + i;
            float y = a->bias ? sum[at] + a->bias[i] : sum[at];
            to[at] = a->residual ? y + ((const float *)a->residual)[at] : y;
        }
    free(half), free(sum), free(part);
}

Test(determinism, sums_whose_order_depends_on_the_number_of_rows_are_caught) {
    for (size_t level = 0; level < LEVELS; level++) {
        struct ops_config c = levels[level];
        struct world truth, w;
        struct text *text = calloc(TEXTS, sizeof *text);
        c.threads = 1;
        if (world_open(&truth, &families[0], &c, kinds, 64, 5)) {
            write_alone(&truth, text);
            cr_assert(world_open(&w, &families[0], &c, kinds, 64, 6));
            honest_linear = w.ops->linear;
            w.ops->linear = split_linear;
            history(&w, text);
            cr_assert(*w.broken, "a planted violation went unnoticed on %s", w.ops->numerics_id);
            world_close(&w);
            world_close(&truth);
        }
        free(text);
    }
}

/* ---- what a cut leaves ---- */

Test(determinism, a_cut_gives_pages_back_and_leaves_no_trace) {
    struct world w;
    struct text *text = calloc(TEXTS, sizeof *text);
    struct ops_config c = {.backend = "auto", .level = "auto"};
    char err[256] = "";
    const float *logits;
    float got[VOCAB_MAX];
    cr_assert(world_open(&w, &families[0], &c, kinds, 64, 11));
    write_alone(&w, text);
    world_close(&w);
    /* A pool of four pages, all of which the first sequence takes. */
    cr_assert_eq(ops_open(&w.ops, &c, err, sizeof err), 0, "%s", err);
    w.model = model_must_open(families[0].dir, w.ops, &(struct model_config){.kv_tokens = 64});
    struct seq *a = seq_new(w.model), *b = seq_new(w.model);
    uint32_t wrong[64];
    memcpy(wrong, text[0].ids, 10 * sizeof *wrong);
    for (uint32_t i = 10; i < 64; i++) wrong[i] = (text[0].ids[i % 10] + i) % w.vocab;
    cr_assert_eq(model_step(w.model, 1, &a, (uint32_t[]){0, 64}, wrong, NULL, err, sizeof err), 0,
                 "%s", err);
    cr_assert_eq(model_step(w.model, 1, &b, (uint32_t[]){0, 1}, wrong, NULL, err, sizeof err),
                 ERR_FULL);
    seq_cut(a, 10);
    cr_assert_eq(seq_len(a), 10);
    cr_assert_eq(model_step(w.model, 1, &b, (uint32_t[]){0, 48}, wrong, NULL, err, sizeof err), 0,
                 "three pages came back: %s", err);
    cr_assert_eq(
        model_step(w.model, 1, &a, (uint32_t[]){0, 1}, text[0].ids + 10, &logits, err, sizeof err),
        0, "%s", err);
    w.ops->download(w.ops, got, logits, w.vocab * sizeof *got);
    cr_assert_arr_eq(got, text[0].want[10], w.vocab * sizeof *got, "what was cut off left a trace");
    seq_cut(a, 0);
    seq_cut(b, 48);
    cr_assert_eq(seq_len(b), 48, "a cut at the end changes nothing");
    seq_free(a);
    seq_free(b);
    world_close(&w);
    free(text);
}

Test(determinism, more_rows_of_logits_than_a_step_has_are_refused) {
    struct ops *ops = help_open_best(1);
    struct model *m = model_must_open(families[0].dir, ops, &(struct model_config){.rows_max = 12});
    struct seq *s[2] = {seq_new(m), seq_new(m)};
    uint32_t ids[20] = {0};
    char err[256] = "";
    cr_assert_eq(model_step_tails(m, 2, s, (uint32_t[]){0, 10, 20}, ids, (uint32_t[]){10, 3}, NULL,
                                  err, sizeof err),
                 ERR_LIMIT);
    cr_assert(strstr(err, "13") && strstr(err, "12"), "%s", err);
    cr_assert_eq(seq_len(s[0]) + seq_len(s[1]), 0);
    cr_assert_eq(model_step_tails(m, 2, s, (uint32_t[]){0, 10, 20}, ids, (uint32_t[]){10, 2}, NULL,
                                  err, sizeof err),
                 0, "%s", err);
    for (int i = 0; i < 2; i++) seq_free(s[i]);
    model_close(m);
    ops_close(ops);
}

Test(determinism, every_level_and_every_type_of_numbers_has_a_numerics_id_of_its_own) {
    char id[LEVELS * KINDS][128];
    uint32_t n = 0;
    for (size_t level = 0; level < LEVELS; level++)
        for (size_t t = 0; t < KINDS; t++) {
            struct world w;
            if (!world_open(&w, &families[0], &levels[level], &kinds[t], 12, 1)) continue;
            snprintf(id[n], sizeof id[n], "%s", model_numerics_id(w.model));
            for (uint32_t i = 0; i < n; i++) cr_assert_str_neq(id[i], id[n]);
            n++;
            world_close(&w);
        }
    cr_assert(n >= 2 * KINDS);
}
