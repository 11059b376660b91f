/* The same input gives the same bits: whatever the batch, the steps, the threads. And the limits
 * of a step. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "tests/infer/help.h"

#define BERT "tests/golden/models/bert"
#define TIED "tests/golden/models/llama-tied"
#define BF16 "tests/golden/models/llama-bf16"
#define GEMMA "tests/golden/models/gemma3"
#define WINDOW "tests/golden/models/mistral"
#define ADAPTERS "tests/golden/lora/"
#define VOCAB_MAX 131
#define ROUNDS (HELP_SLOW ? 3 : 20)

static void fill(uint32_t *ids, uint32_t n, uint32_t vocab, uint64_t *state) {
    for (uint32_t i = 0; i < n; i++) ids[i] = (uint32_t)(rng_next(state) % vocab);
}

/* Every sentence alone, then in random batches, with a workspace that forces several steps. */
static void check_embeddings(const char *dir, struct ops *ops, uint32_t len_max, uint32_t n_seq) {
    struct model *m = model_must_open(dir, ops, &(struct model_config){.rows_max = 1});
    const struct model_info *info = model_info(m);
    uint64_t state = 77;
    char err[256] = "";
    uint32_t *begin = calloc(n_seq + 1, sizeof *begin),
             *ids = malloc(n_seq * len_max * sizeof *ids);
    float *alone = malloc(n_seq * info->dim * sizeof *alone),
          *together = malloc(n_seq * info->dim * sizeof *alone);
    for (uint32_t s = 0; s < n_seq; s++)
        begin[s + 1] = begin[s] + 1 + (uint32_t)(rng_next(&state) % len_max);
    fill(ids, begin[n_seq], info->vocab, &state);
    for (uint32_t s = 0; s < n_seq; s++) {
        uint32_t cut[2] = {0, begin[s + 1] - begin[s]};
        cr_assert_eq(model_embed(m, 1, cut, ids + begin[s], alone + s * info->dim, err, sizeof err),
                     0, "%s", err);
    }
    for (uint32_t first = 0; first < n_seq; first += n_seq / 3) {
        uint32_t n = n_seq - first, *cut = malloc((n + 1) * sizeof *cut);
        for (uint32_t s = 0; s <= n; s++) cut[s] = begin[first + s] - begin[first];
        cr_assert_eq(model_embed(m, n, cut, ids + begin[first], together, err, sizeof err), 0, "%s",
                     err);
        cr_assert_arr_eq(together, alone + first * info->dim, n * info->dim * sizeof *alone,
                         "a vector depends on its batch on %s", ops->numerics_id);
        free(cut);
    }
    free(begin), free(ids), free(alone), free(together);
    model_close(m);
}

Test(bits, an_embedding_is_the_same_alone_and_in_any_batch) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) check_embeddings(BERT, b.ops[k], 64, 23);
    backends_close(&b);
}

Test(bits, a_minilm_embedding_is_the_same_alone_and_in_any_batch) {
    const char *dir = minilm_dir();
    struct ops *ops = help_open_best(0);
    check_embeddings(dir, ops, strcmp(ops->backend, "ref") == 0 || HELP_SLOW ? 8 : 120, 9);
    ops_close(ops);
}

Test(bits, the_number_of_threads_does_not_change_a_bit) {
    uint32_t ids[50], cut[] = {0, 13, 50};
    float one[2 * 48], three[2 * 48];
    char err[256] = "";
    uint64_t state = 5;
    fill(ids, 50, 100, &state);
    for (int i = 0; i < 2; i++) {
        struct ops *ops = help_open_best(i == 0 ? 1 : 3);
        struct model *m = model_must_open(BERT, ops, NULL);
        cr_assert_eq(model_embed(m, 2, cut, ids, i == 0 ? one : three, err, sizeof err), 0, "%s",
                     err);
        model_close(m);
        ops_close(ops);
    }
    cr_assert_arr_eq(one, three, sizeof one);
}

#define TEXTS 5
struct text {
    uint32_t ids[120], n, fed;
    struct seq *seq;
    const struct adapter *adapter;
    float want[120][VOCAB_MAX]; /* logits after each token, computed one token at a time, alone */
    bool known[120];
};

static void step_one(struct model *m, struct ops *ops, struct text *t, float *out) {
    uint32_t cut[] = {0, 1};
    const float *logits;
    char err[256] = "";
    cr_assert_eq(model_step(m, 1, &t->seq, cut, t->ids + t->fed, &logits, err, sizeof err), 0, "%s",
                 err);
    ops->download(ops, out, logits, model_info(m)->vocab * sizeof *out);
    t->fed++;
}

/* Feeds all texts in random chunks, a random selection of them in each step, and compares every row
 * of logits with what the text gave alone. */
static void random_history(struct model *m, struct ops *ops, struct text *texts, uint64_t *state) {
    uint32_t vocab = model_info(m)->vocab;
    for (uint32_t i = 0; i < TEXTS; i++) {
        texts[i].fed = 0;
        texts[i].seq = seq_new(m);
        seq_adapt(texts[i].seq, texts[i].adapter);
    }
    for (;;) {
        struct seq *seqs[TEXTS];
        uint32_t begin[TEXTS + 1] = {0}, of[TEXTS], ids[TEXTS * 120], n = 0;
        bool left = false;
        for (uint32_t i = 0; i < TEXTS; i++) {
            struct text *t = &texts[i];
            left |= t->fed < t->n;
            if (t->fed == t->n || rng_next(state) % 3 == 0) continue;
            uint32_t take =
                rng_next(state) % 2 ? 1 : 1 + (uint32_t)(rng_next(state) % (t->n - t->fed));
            memcpy(ids + begin[n], t->ids + t->fed, take * sizeof *ids);
            begin[n + 1] = begin[n] + take;
            seqs[n] = t->seq;
            of[n++] = i;
            t->fed += take;
        }
        if (!left) break;
        if (n == 0) continue;
        const float *logits;
        char err[256] = "";
        float got[VOCAB_MAX];
        cr_assert_eq(model_step(m, n, seqs, begin, ids, &logits, err, sizeof err), 0, "%s", err);
        for (uint32_t k = 0; k < n; k++) {
            const struct text *t = &texts[of[k]];
            ops->download(ops, got, logits + k * vocab, vocab * sizeof *got);
            cr_assert_arr_eq(got, t->want[t->fed - 1], vocab * sizeof *got,
                             "the logits of text %u at %u depend on its company on %s", of[k],
                             t->fed, ops->numerics_id);
        }
    }
    for (uint32_t i = 0; i < TEXTS; i++) seq_free(texts[i].seq);
}

/* adapter: of every second text in turn, or NULL. */
static void check_steps(const char *dir, struct ops *ops, enum dtype weights,
                        const char *const adapter[2]) {
    /* 19 rows a pass: longer chunks run as several, and passes end in the middle of a text. */
    struct model *m =
        model_must_open(dir, ops, &(struct model_config){.rows_max = 19, .weights = weights});
    struct text *texts = calloc(TEXTS, sizeof *texts);
    uint64_t state = 20240229;
    for (uint32_t i = 0; i < TEXTS; i++) {
        struct text *t = &texts[i];
        t->n = 20 + 25 * i;
        fill(t->ids, t->n, model_info(m)->vocab, &state);
        t->seq = seq_new(m);
        char err[256] = "";
        if (adapter && i % 2)
            cr_assert_eq(model_adapter(m, adapter[i / 2], &t->adapter, err, sizeof err), 0, "%s",
                         err);
        seq_adapt(t->seq, t->adapter);
        while (t->fed < t->n) step_one(m, ops, t, t->want[t->fed]);
        seq_free(t->seq);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) random_history(m, ops, texts, &state);
    free(texts);
    model_close(m);
}

Test(bits, logits_are_the_same_for_any_chunking_and_any_company) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        check_steps(TIED, b.ops[k], DTYPE_F32, NULL);
        check_steps(BF16, b.ops[k], DTYPE_BF16, NULL);
    }
    backends_close(&b);
}

Test(bits, logits_of_layers_with_windows_are_the_same_for_any_chunking_and_any_company) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        check_steps(GEMMA, b.ops[k], DTYPE_F32, NULL);
        check_steps(WINDOW, b.ops[k], DTYPE_BF16, NULL);
    }
    backends_close(&b);
}

Test(bits, two_adapters_and_the_plain_model_in_one_batch_each_give_what_they_give_alone) {
    static const char *const of_tied[2] = {ADAPTERS "llama-all", ADAPTERS "llama-some"};
    static const char *const of_gemma[2] = {ADAPTERS "gemma3-all", ADAPTERS "gemma3-all"};
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        check_steps(TIED, b.ops[k], DTYPE_F32, of_tied);
        check_steps(TIED, b.ops[k], DTYPE_BF16, of_tied);
        check_steps(GEMMA, b.ops[k], DTYPE_F32, of_gemma);
    }
    backends_close(&b);
}

Test(bits, an_embedding_with_an_adapter_is_the_same_alone_and_beside_plain_ones) {
    enum { N = 6, LEN = 11, DIM = 48 };
    struct help_backends b;
    uint32_t begin[N + 1], ids[N * LEN], cut[2] = {0, LEN};
    uint64_t state = 31;
    backends_open(&b);
    for (uint32_t s = 0; s <= N; s++) begin[s] = s * LEN;
    fill(ids, N * LEN, 100, &state);
    for (uint32_t k = 0; k < b.n; k++) {
        struct model *m = model_must_open(BERT, b.ops[k], NULL);
        const struct adapter *a, *of[N] = {0};
        float together[N * DIM], alone[DIM], plain[DIM];
        char err[256] = "";
        cr_assert_eq(model_adapter(m, ADAPTERS "bert-all", &a, err, sizeof err), 0, "%s", err);
        of[1] = of[2] = of[5] = a;
        cr_assert_eq(model_embed_with(m, N, begin, ids, of, together, err, sizeof err), 0, "%s",
                     err);
        for (uint32_t s = 0; s < N; s++) {
            const uint32_t *own = ids + begin[s];
            cr_assert_eq(model_embed_with(m, 1, cut, own, &of[s], alone, err, sizeof err), 0);
            cr_assert_arr_eq(together + s * DIM, alone, sizeof alone, "text %u on %s", s,
                             b.name[k]);
            cr_assert_eq(model_embed(m, 1, cut, own, plain, err, sizeof err), 0);
            cr_assert_eq(memcmp(plain, alone, sizeof plain) == 0, !of[s]);
        }
        model_close(m);
    }
    backends_close(&b);
}

Test(bits, a_sample_depends_on_its_seed_and_position_not_on_its_row) {
    struct ops *ops = help_open_best(0);
    struct model *m = model_must_open(TIED, ops, NULL);
    uint32_t prompt[] = {3, 1, 4, 1, 5}, others[12], cut1[] = {0, 5}, cut3[] = {0, 4, 9, 12}, token,
             tokens[3];
    char err[256] = "";
    uint32_t seen = 0, last = UINT32_MAX;
    uint64_t state = 9;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sample_row row = {.temperature = 1.5f, .top_p = 0.95f, .seed = seed, .position = 5};
        struct sample_row rows[3] = {{.temperature = 1, .seed = 1}, row, {.temperature = 0}};
        struct seq *s = seq_new(m), *three[] = {seq_new(m), seq_new(m), seq_new(m)};
        cr_assert_eq(model_step(m, 1, &s, cut1, prompt, NULL, err, sizeof err), 0, "%s", err);
        model_sample(m, 1, &row, &token, NULL, NULL);
        fill(others, 12, 101, &state);
        memcpy(others + 4, prompt, sizeof prompt);
        cr_assert_eq(model_step(m, 3, three, cut3, others, NULL, err, sizeof err), 0, "%s", err);
        model_sample(m, 3, rows, tokens, NULL, NULL);
        cr_assert_eq(tokens[1], token, "seed %lu", (unsigned long)seed);
        seen += token != last;
        last = token;
        seq_free(s);
        for (int i = 0; i < 3; i++) seq_free(three[i]);
    }
    cr_assert(seen > 5, "forty seeds draw more than one token");
    model_close(m);
    ops_close(ops);
}

Test(bits, a_step_that_does_not_fit_says_so_and_changes_nothing) {
    struct ops *ops = help_open_ref();
    struct model *m = model_must_open(TIED, ops, &(struct model_config){.kv_tokens = 100});
    const struct model_info *info = model_info(m);
    uint32_t ids[300], cut[] = {0, 60}, state_cut[] = {0, 1};
    uint64_t state = 3;
    char err[256] = "";
    const float *logits;
    float want[VOCAB_MAX], got[VOCAB_MAX];
    cr_assert_eq(info->kv_tokens, 112, "whole pages of 16");
    cr_assert_eq(info->context, 100, "a sequence cannot be longer than the pool");
    fill(ids, 300, info->vocab, &state);
    struct seq *a = seq_new(m), *b = seq_new(m);
    cr_assert_eq(model_step(m, 1, &a, cut, ids, NULL, err, sizeof err), 0, "%s", err);
    cr_assert_eq(model_step(m, 1, &b, cut, ids, NULL, err, sizeof err), ERR_FULL);
    cr_assert(strstr(err, "pages"), "%s", err);
    cr_assert_eq(seq_len(b), 0);
    cr_assert_eq(model_step(m, 1, &a, cut, ids, NULL, err, sizeof err), ERR_LIMIT);
    cr_assert(strstr(err, "100"), "%s", err);
    cr_assert_eq(seq_len(a), 60);
    ids[7] = info->vocab;
    cr_assert_eq(model_step(m, 1, &a, (uint32_t[]){0, 8}, ids, NULL, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "token 7"), "%s", err);
    ids[7] = 0;
    cr_assert_eq(model_step(m, 1, &a, state_cut, ids, &logits, err, sizeof err), 0, "%s", err);
    ops->download(ops, got, logits, info->vocab * sizeof *got);
    seq_free(a);
    cr_assert_eq(model_step(m, 1, &b, cut, ids, NULL, err, sizeof err), 0,
                 "the pages came back: %s", err);
    seq_free(b);
    b = seq_new(m);
    fill(ids, 300, info->vocab, (uint64_t[]){3});
    cr_assert_eq(model_step(m, 1, &b, cut, ids, NULL, err, sizeof err), 0, "%s", err);
    cr_assert_eq(model_step(m, 1, &b, state_cut, ids, &logits, err, sizeof err), 0, "%s", err);
    ops->download(ops, want, logits, info->vocab * sizeof *want);
    cr_assert_arr_eq(got, want, info->vocab * sizeof *want, "refused steps left a trace");
    seq_free(b);
    model_close(m);
    ops_close(ops);
}

Test(bits, a_text_beyond_the_limit_and_an_unknown_id_are_refused_by_an_encoder) {
    struct ops *ops = help_open_ref();
    struct model *m = model_must_open(BERT, ops, NULL);
    uint32_t ids[66] = {0};
    float out[2 * 48];
    char err[256] = "";
    cr_assert_eq(model_embed(m, 2, (uint32_t[]){0, 1, 66}, ids, out, err, sizeof err), ERR_LIMIT);
    cr_assert(strstr(err, "sequence 1") && strstr(err, "65") && strstr(err, "64"), "%s", err);
    cr_assert_eq(model_embed(m, 2, (uint32_t[]){0, 1, 1}, ids, out, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "sequence 1 is empty"), "%s", err);
    ids[3] = 100;
    cr_assert_eq(model_embed(m, 1, (uint32_t[]){0, 5}, ids, out, err, sizeof err), ERR_FIELD);
    cr_assert(strstr(err, "token 3") && strstr(err, "100"), "%s", err);
    cr_assert_eq(model_embed(m, 0, (uint32_t[]){0}, ids, out, err, sizeof err), 0,
                 "nothing to do is fine");
    model_close(m);
    m = model_must_open(TIED, ops, NULL);
    cr_assert_eq(model_embed(m, 1, (uint32_t[]){0, 2}, ids, out, err, sizeof err), -EINVAL);
    cr_assert(strstr(err, "LlamaForCausalLM"), "%s", err);
    model_close(m);
    ops_close(ops);
}

/* Logits of the last of 90 tokens, fed in two steps. */
static void logits_with(struct ops *ops, enum dtype kv, float *out, uint64_t *kv_bytes) {
    struct model *m = model_must_open(TIED, ops, &(struct model_config){.kv_tokens = 96, .kv = kv});
    const struct model_info *info = model_info(m);
    uint32_t ids[90];
    char err[256] = "";
    const float *logits;
    *kv_bytes = info->kv_bytes;
    fill(ids, 90, info->vocab, (uint64_t[]){8});
    struct seq *s = seq_new(m);
    cr_assert_eq(model_step(m, 1, &s, (uint32_t[]){0, 70}, ids, NULL, err, sizeof err), 0, "%s",
                 err);
    cr_assert_eq(model_step(m, 1, &s, (uint32_t[]){0, 20}, ids + 70, &logits, err, sizeof err), 0,
                 "%s", err);
    ops->download(ops, out, logits, info->vocab * sizeof *out);
    seq_free(s);
    model_close(m);
}

Test(bits, a_smaller_cache_moves_the_logits_a_little) {
    struct ops *ops[] = {help_open_ref(), help_open_best(0)};
    for (int o = 0; o < 2; o++) {
        float exact[VOCAB_MAX] = {0}, bf16[VOCAB_MAX] = {0}, i8[VOCAB_MAX] = {0};
        uint64_t exact_bytes, bf16_bytes, i8_bytes;
        double size = 0, off_bf16 = 0, off_i8 = 0;
        logits_with(ops[o], DTYPE_F32, exact, &exact_bytes);
        logits_with(ops[o], DTYPE_BF16, bf16, &bf16_bytes);
        logits_with(ops[o], DTYPE_I8, i8, &i8_bytes);
        for (int i = 0; i < VOCAB_MAX; i++) {
            size += (double)(exact[i] * exact[i]);
            off_bf16 += (double)((bf16[i] - exact[i]) * (bf16[i] - exact[i]));
            off_i8 += (double)((i8[i] - exact[i]) * (i8[i] - exact[i]));
        }
        printf("a bf16 cache moves the logits by %.1e, an int8 one by %.1e of their length\n",
               sqrt(off_bf16 / size), sqrt(off_i8 / size));
        cr_assert(off_bf16 > 0 && off_bf16 < size * 0.01 * 0.01);
        cr_assert(off_i8 > 0 && off_i8 < size * 0.02 * 0.02);
        cr_assert_eq(bf16_bytes * 2, exact_bytes);
        cr_assert(i8_bytes < bf16_bytes && i8_bytes > bf16_bytes / 2);
        ops_close(ops[o]);
    }
}
