/* The models against what the reference implementation computed, number by number. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/infer/help.h"

#define RANDOM_MODELS "tests/golden/models/"
#define FEW_TOKENS (HELP_SLOW ? 40 : 120)

/* The largest |got - want| / (1 + |want|). */
static double worst(const float *got, const float *want, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - (double)want[i]) / (1 + fabs((double)want[i]));
        if (!(off <= most)) most = off;
    }
    return most;
}

/* Logits of every position of one sequence, in steps of `chunk` tokens. */
static void logits_by(struct model *m, struct ops *ops, const uint32_t *ids, uint32_t n,
                      uint32_t chunk, float *out) {
    const struct model_info *info = model_info(m);
    struct seq *s = seq_new(m);
    for (uint32_t at = 0; at < n; at += chunk) {
        uint32_t take = n - at < chunk ? n - at : chunk, begin[2] = {0, take};
        const float *logits;
        char err[256] = "";
        cr_assert_eq(model_step(m, 1, &s, begin, ids + at, &logits, err, sizeof err), 0, "%s", err);
        ops->download(ops, out + (size_t)(at + take - 1) * info->vocab, logits,
                      info->vocab * sizeof *out);
    }
    cr_assert_eq(seq_len(s), n);
    seq_free(s);
}

static void check_decoder(const char *name) {
    struct goldens g;
    struct help_backends b;
    char dir[128], ids[160], floats[160];
    snprintf(dir, sizeof dir, RANDOM_MODELS "%s", name);
    snprintf(ids, sizeof ids, "%s/cases.jsonl", dir);
    snprintf(floats, sizeof floats, "%s/expected.f32", dir);
    goldens_load(&g, ids, floats);
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        struct model *m = model_must_open(dir, b.ops[k], NULL);
        uint32_t vocab = model_info(m)->vocab, rows = g.begin[g.cases];
        cr_assert_eq(g.expected_n, (size_t)rows * vocab);
        float *got = calloc(g.expected_n, sizeof *got);
        for (uint32_t c = 0; c < g.cases; c++)
            logits_by(m, b.ops[k], g.ids + g.begin[c], g.begin[c + 1] - g.begin[c], 1,
                      got + (size_t)g.begin[c] * vocab);
        double off = worst(got, g.expected, g.expected_n);
        cr_assert(off < 1e-4, "%s on %s is off by %g", name, b.name[k], off);
        free(got);
        model_close(m);
    }
    backends_close(&b);
    goldens_free(&g);
}

static const char *const decoders[] = {"llama-tied",   "llama-bf16",    "llama3",   "mistral",
                                       "qwen2",        "distill-qwen",  "qwen3",    "gemma3",
                                       "qwen2-window", "gemma3-linear", "llama-fp8"};
#define DECODERS (sizeof decoders / sizeof *decoders)

Test(goldens, every_decoder_gives_the_references_logits) {
    for (size_t i = 0; i < DECODERS; i++) check_decoder(decoders[i]);
}

/* The likeliest next token after each step, as golden.json has them. */
static void check_greedy(const char *name, const struct help_backends *b) {
    char dir[128], path[160], err[256] = "";
    struct json *golden;
    snprintf(dir, sizeof dir, RANDOM_MODELS "%s", name);
    snprintf(path, sizeof path, "%s/golden.json", dir);
    cr_assert_eq(json_load(&golden, path, 1 << 20, err, sizeof err), 0, "%s", err);
    const struct json *prompt = json_get(golden, "prompt"), *wanted = json_get(golden, "new_ids");
    cr_assert(json_len(prompt) == 9 && json_len(wanted) == 128);
    uint32_t turns = 0; /* where another token follows than before */
    for (size_t i = 1; i < 128; i++)
        turns += json_int(json_at(wanted, i), 0) != json_int(json_at(wanted, i - 1), 0);
    cr_assert(strcmp(name, "qwen3") != 0 || turns >= 64, "only %u turns", turns);
    for (uint32_t k = 0; k < b->n; k++) {
        struct model *m = model_must_open(dir, b->ops[k], NULL);
        struct seq *s = seq_new(m);
        uint32_t ids[9], begin[2] = {0, 9}, next;
        for (uint32_t i = 0; i < 9; i++) ids[i] = (uint32_t)json_int(json_at(prompt, i), 0);
        for (size_t i = 0; i < json_len(wanted); i++) {
            cr_assert_eq(model_step(m, 1, &s, begin, ids, NULL, err, sizeof err), 0, "%s", err);
            model_sample(m, 1, &(struct sample_row){.top_p = 1}, &next, NULL, NULL);
            cr_assert_eq(next, json_int(json_at(wanted, i), -1), "%s on %s: token %zu", name,
                         b->name[k], i);
            ids[0] = next;
            begin[1] = 1;
        }
        seq_free(s);
        model_close(m);
    }
    json_free(golden);
}

Test(goldens, every_decoder_writes_the_references_128_tokens) {
    struct help_backends b;
    backends_open(&b);
    for (size_t i = 0; i < DECODERS; i++) check_greedy(decoders[i], &b);
    backends_close(&b);
}

/* Runs the cases of an encoder one by one: vectors, scores, or hidden states where `hidden`. */
static size_t run_encoder(struct model *m, const struct goldens *g, bool vectors, float *out) {
    const struct model_info *info = model_info(m);
    size_t at = 0;
    for (uint32_t c = 0; c < g->cases; c++) {
        uint32_t n = g->begin[c + 1] - g->begin[c], begin[2] = {0, n};
        const uint32_t *ids = g->ids + g->begin[c];
        char err[256] = "";
        int rc;
        if (info->labels) {
            rc = model_classify(m, 1, begin, ids, out + at, err, sizeof err);
            at += (size_t)info->labels * (info->labels_of_tokens ? n : 1);
        } else if (vectors) {
            rc = model_embed(m, 1, begin, ids, out + at, err, sizeof err);
            at += info->dim;
        } else {
            rc = model_hidden(m, n, ids, out + at, err, sizeof err);
            at += (size_t)info->dim * n;
        }
        cr_assert_eq(rc, 0, "%s", err);
    }
    return at;
}

static void check_encoder(const char *name, bool vectors) {
    struct goldens g;
    struct help_backends b;
    char dir[128], ids[160], floats[160];
    snprintf(dir, sizeof dir, RANDOM_MODELS "%s", name);
    snprintf(ids, sizeof ids, "%s/cases.jsonl", dir);
    snprintf(floats, sizeof floats, "%s/expected.f32", dir);
    goldens_load(&g, ids, floats);
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        struct model *m = model_must_open(dir, b.ops[k], NULL);
        float *got = calloc(g.expected_n + 1, sizeof *got);
        cr_assert_eq(run_encoder(m, &g, vectors, got), g.expected_n, "%s", name);
        double off = worst(got, g.expected, g.expected_n);
        cr_assert(off < 1e-5, "%s on %s is off by %g", name, b.name[k], off);
        free(got);
        model_close(m);
    }
    backends_close(&b);
    goldens_free(&g);
}

Test(goldens, encoders_give_the_references_hidden_states) {
    check_encoder("bert", false);
    check_encoder("xlm-roberta", false);
}

Test(goldens, the_vector_of_a_text_is_what_its_modules_say) {
    check_encoder("bge", true);
}

Test(goldens, heads_score_texts_and_tokens_as_the_reference_does) {
    check_encoder("bert-tokens", false);
    check_encoder("bert-classes", false);
    check_encoder("xlm-roberta-tokens", false);
    check_encoder("xlm-roberta-classes", false);
}

Test(goldens, classes_have_the_names_of_the_config_or_their_number) {
    static const struct {
        const char *model;
        uint32_t n;
        const char *first, *last;
    } heads[] = {{"bert-classes", 3, "no", "open"},
                 {"bert-tokens", 5, "O", "S"},
                 {"xlm-roberta-classes", 1, "LABEL_0", "LABEL_0"},
                 {"xlm-roberta-tokens", 2, "LABEL_0", "LABEL_1"}};
    struct ops *ops = help_open_ref();
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        char dir[128];
        snprintf(dir, sizeof dir, RANDOM_MODELS "%s", heads[i].model);
        struct model *m = model_must_open(dir, ops, NULL);
        cr_assert_eq(model_info(m)->labels, heads[i].n, "%s", dir);
        cr_assert_str_eq(model_label(m, 0), heads[i].first);
        cr_assert_str_eq(model_label(m, heads[i].n - 1), heads[i].last);
        model_close(m);
    }
    ops_close(ops);
}

Test(goldens, texts_scored_together_get_what_each_gets_alone) {
    static const char *const names[] = {"bert-tokens", "xlm-roberta-classes"};
    struct ops *ops = help_open_best(0);
    for (int i = 0; i < 2; i++) {
        char dir[128], ids[160], floats[160], err[256] = "";
        struct goldens g;
        snprintf(dir, sizeof dir, RANDOM_MODELS "%s", names[i]);
        snprintf(ids, sizeof ids, "%s/cases.jsonl", dir);
        snprintf(floats, sizeof floats, "%s/expected.f32", dir);
        goldens_load(&g, ids, floats);
        struct model *m = model_must_open(dir, ops, &(struct model_config){.rows_max = 40});
        float *alone = calloc(g.expected_n, sizeof *alone);
        float *together = calloc(g.expected_n, sizeof *together);
        run_encoder(m, &g, false, alone);
        cr_assert_eq(model_classify(m, g.cases, g.begin, g.ids, together, err, sizeof err), 0, "%s",
                     err);
        cr_assert_arr_eq(alone, together, g.expected_n * sizeof *alone, "%s", names[i]);
        free(alone);
        free(together);
        model_close(m);
        goldens_free(&g);
    }
    struct model *plain = model_must_open(RANDOM_MODELS "bert", ops, NULL);
    char err[256] = "";
    cr_assert_eq(model_classify(plain, 0, (uint32_t[]){0}, NULL, NULL, err, sizeof err), -EINVAL);
    cr_assert(strstr(err, "no classes"), "%s", err);
    model_close(plain);
    ops_close(ops);
}

/* How alike any two sentences are, which is what vectors are made for: as the reference has it. */
static void check_pairs(const float *got, const float *expected, uint32_t n, uint32_t dim) {
    double off = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = i + 1; k < n; k++) {
            size_t a = (size_t)i * dim, b = (size_t)k * dim;
            double d =
                fabs(cosine(got + a, got + b, dim) - cosine(expected + a, expected + b, dim));
            if (!(d <= off)) off = d; /* a NaN stays */
        }
    cr_assert(off <= 1e-4, "the cosine of two of %u sentences is off by %g", n, off);
    printf("cosines of %u pairs: at most %.2g off\n", n * (n - 1) / 2, off);
}

Test(goldens, minilm_agrees_with_the_reference_on_fifty_sentences) {
    const char *dir = minilm_dir();
    struct goldens g;
    struct help_backends b;
    char err[256] = "";
    goldens_load(&g, "tests/golden/minilm/ids.jsonl", "tests/golden/minilm/embeddings.f32");
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        struct model *m = model_must_open(dir, b.ops[k], NULL);
        const struct model_info *info = model_info(m);
        cr_assert_eq(info->text_context, 256);
        cr_assert_eq(g.expected_n, (size_t)g.cases * info->dim);
        float *got = calloc(g.expected_n, sizeof *got);
        uint32_t cases = g.cases; /* all of them on the fastest, the first few on the others */
        bool few = HELP_SLOW || k + 1 < b.n;
        while (few && g.begin[cases] > FEW_TOKENS) cases--;
        cr_assert_eq(model_embed(m, cases, g.begin, g.ids, got, err, sizeof err), 0, "%s", err);
        double least = 1;
        for (uint32_t c = 0; c < cases; c++) {
            double near =
                cosine(got + (size_t)c * info->dim, g.expected + (size_t)c * info->dim, info->dim);
            if (!(near >= least)) least = near;
        }
        check_pairs(got, g.expected, cases, info->dim);
        printf("MiniLM on %s: least cosine of %u sentences 1 - %.2g\n", b.name[k], cases,
               1 - least);
        cr_assert(least >= 0.999999, "cosine %.9f on %s", least, b.name[k]);
        free(got);
        model_close(m);
    }
    backends_close(&b);
    goldens_free(&g);
}

Test(goldens, a_models_numerics_id_names_its_backend_its_weights_and_its_cache) {
    struct ops *ops = help_open_best(0);
    struct model *plain = model_must_open(RANDOM_MODELS "bert", ops, NULL);
    struct model *packed =
        model_must_open(RANDOM_MODELS "bert", ops, &(struct model_config){.weights = DTYPE_BF16});
    size_t n = strlen(ops->numerics_id);
    cr_assert(strncmp(model_numerics_id(plain), ops->numerics_id, n) == 0);
    cr_assert_str_eq(model_numerics_id(plain) + n, "+w-f32");
    cr_assert_str_eq(model_numerics_id(packed) + n, "+w-bf16");
    cr_assert_eq(model_info(plain)->parameters,
                 48u * (100 + 64 + 2) + 2 * 48 +
                     2u * (4 * (48 * 48 + 48) + 2 * 48 * 96 + 96 + 48 + 4 * 48));
    model_close(plain);
    model_close(packed);
    const struct {
        struct model_config config;
        const char *ends;
    } caches[] = {{{.weights = DTYPE_F32}, "+w-f32"},
                  {{.weights = DTYPE_BF16}, "+w-bf16+kv-bf16"},
                  {{.kv = DTYPE_BF16}, "+w-f32+kv-bf16"},
                  {{.weights = DTYPE_BF16, .kv = DTYPE_I8}, "+w-bf16+kv-i8"}};
    for (size_t i = 0; i < sizeof caches / sizeof *caches; i++) {
        struct model *m = model_must_open(RANDOM_MODELS "llama3", ops, &caches[i].config);
        cr_assert_str_eq(model_numerics_id(m) + n, caches[i].ends);
        model_close(m);
    }
    ops_close(ops);
}
