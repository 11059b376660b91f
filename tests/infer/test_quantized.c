/* Models whose weights are quantized: written, read back, and refused when they lie. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/rng.h"
#include "kernels/half.h"
#include "tests/infer/help.h"
#include "workers/infer/convert.h"
#include "workers/infer/quantize.h"
#include "workers/infer/stored.h"

#define MODELS "tests/golden/models/"
#define LLAMA MODELS "llama-tied"
#define UP "model.layers.0.mlp.up_proj.weight"

static struct scratch scratch;
static struct ops *ops;

static void begin(void) {
    scratch_begin(&scratch, NULL);
    ops = help_open_best(2);
}

static void end(void) {
    scratch_end(&scratch);
    ops_close(ops);
}

TestSuite(quantized, .init = begin, .fini = end);

static void convert(const char *dir, enum dtype to) {
    const struct convert_options o = {.to = to, .threads = 2};
    struct convert_report report;
    char err[512] = "";
    cr_assert_eq(convert_model(dir, scratch.dir, &o, &report, err, sizeof err), 0, "%s", err);
    cr_assert(report.matrices > 0 && report.error < (to == DTYPE_W8 ? 0.006 : 0.09), "%f",
              report.error);
}

static float uniform(uint64_t *state) {
    return (float)(rng_next(state) >> 40) * 0x1p-24f - 0.5f;
}

/* Of a sum of uniform numbers: near enough to what weights look like. */
static float *random_matrix(uint32_t n, uint32_t k, float scale) {
    uint64_t state = 7;
    float *w = malloc((size_t)n * k * sizeof *w);
    for (size_t i = 0; i < (size_t)n * k; i++) {
        w[i] = 0;
        for (int j = 0; j < 6; j++) w[i] += uniform(&state) * scale;
    }
    return w;
}

static double error_of(const struct quantized *q, const float *w) {
    double off = 0, all = 0;
    float *row = malloc(q->k * sizeof *row);
    for (uint32_t r = 0; r < q->n; r++) {
        quantized_row_f32(row, q, r);
        for (uint32_t i = 0; i < q->k; i++) {
            double a = (double)w[(size_t)r * q->k + i];
            all += a * a;
            off += (a - (double)row[i]) * (a - (double)row[i]);
        }
    }
    free(row);
    return all > 0 ? sqrt(off / all) : sqrt(off);
}

/* The formats of others on normally distributed weights: Q8_0 0.0054, Q4_0 0.0862. */
Test(quantized, a_matrix_is_no_further_off_than_its_bits_allow) {
    static const struct {
        struct quantize_as as;
        double most;
    } rows[] = {{{DTYPE_W8, 32}, 0.0048}, {{DTYPE_W8, 64}, 0.0054}, {{DTYPE_W8, 128}, 0.0060},
                {{DTYPE_W4, 32}, 0.0745}, {{DTYPE_W4, 64}, 0.086},  {{DTYPE_W4, 128}, 0.095}};
    float *w = random_matrix(48, 960, 0.02f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct quantized q;
        cr_assert_eq(quantize_matrix(&q, 48, 960, w, DTYPE_F32, rows[i].as, NULL, 2), 0);
        double error = error_of(&q, w);
        cr_assert(error < rows[i].most, "row %zu: %f, at most %f", i, error, rows[i].most);
        quantized_fini(&q);
    }
    free(w);
}

Test(quantized, threads_and_ragged_groups_change_no_bit) {
    const struct quantize_as as = {DTYPE_W4, 64};
    const uint32_t n = 67, k = 201;
    float *w = random_matrix(n, k, 1e-6f);
    struct quantized one, four;
    cr_assert_eq(quantize_matrix(&one, n, k, w, DTYPE_F32, as, NULL, 1), 0);
    cr_assert_eq(quantize_matrix(&four, n, k, w, DTYPE_F32, as, NULL, 4), 0);
    cr_assert(memcmp(one.quant.q, four.quant.q, n * quantized_row_bytes(k, DTYPE_W4)) == 0);
    cr_assert(memcmp(one.quant.scale, four.quant.scale, n * quantized_groups(k, 64) * 2) == 0);
    cr_assert(error_of(&one, w) < 0.09, "small weights keep their precision");
    quantized_fini(&one);
    quantized_fini(&four);
    free(w);
}

Test(quantized, constants_zeros_and_huge_weights_stay_what_they_are) {
    static const float values[] = {0, 1, -3.5f, 3e30f, -1e-30f, 1e-42f};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++)
        for (int four = 0; four < 2; four++) {
            float w[96], row[96];
            struct quantized q;
            for (uint32_t i = 0; i < 96; i++) w[i] = values[v];
            cr_assert_eq(quantize_matrix(&q, 1, 96, w, DTYPE_F32,
                                         (struct quantize_as){four ? DTYPE_W4 : DTYPE_W8, 32}, NULL,
                                         1),
                         0);
            quantized_row_f32(row, &q, 0);
            float off = fabsf(row[95] - values[v]);
            cr_assert(off <= fabsf(values[v]) * 0.005f + 1e-29f, "%g became %g", (double)values[v],
                      (double)row[95]);
            quantized_fini(&q);
        }
}

Test(quantized, columns_that_are_used_more_are_kept_better) {
    const struct quantize_as as = {DTYPE_W4, 64};
    float *w = random_matrix(32, 256, 1), energy[256];
    struct quantized plain, weighted;
    double off[2] = {0, 0};
    float a[256], b[256];
    for (uint32_t i = 0; i < 256; i++) energy[i] = i % 8 == 0 ? 50 : 0.1f;
    cr_assert_eq(quantize_matrix(&plain, 32, 256, w, DTYPE_F32, as, NULL, 1), 0);
    cr_assert_eq(quantize_matrix(&weighted, 32, 256, w, DTYPE_F32, as, energy, 1), 0);
    for (uint32_t r = 0; r < 32; r++) {
        quantized_row_f32(a, &plain, r);
        quantized_row_f32(b, &weighted, r);
        for (uint32_t i = 0; i < 256; i++) {
            double x = (double)w[r * 256 + i];
            off[0] += (double)energy[i] * pow(x - (double)a[i], 2);
            off[1] += (double)energy[i] * pow(x - (double)b[i], 2);
        }
    }
    cr_assert(off[1] < 0.7 * off[0], "%f is not much less than %f", off[1], off[0]);
    quantized_fini(&plain);
    quantized_fini(&weighted);
    free(w);
}

/* Logits of a few tokens, or the hidden states of an encoder; the caller frees. */
static float *run(struct model *m, size_t *n) {
    static const uint32_t ids[] = {5, 17, 3, 40, 8, 22, 9}, begin[] = {0, 7};
    const struct model_info *info = model_info(m);
    char err[256] = "";
    float *out;
    if (info->kind == MODEL_ENCODER) {
        *n = 7 * info->dim;
        out = malloc(*n * sizeof *out);
        cr_assert_eq(model_hidden(m, 7, ids, out, err, sizeof err), 0, "%s", err);
    } else {
        const float *logits;
        struct seq *s = seq_new(m);
        *n = info->vocab;
        out = malloc(*n * sizeof *out);
        cr_assert_eq(model_step(m, 1, &s, begin, ids, &logits, err, sizeof err), 0, "%s", err);
        memcpy(out, logits, *n * sizeof *out);
        seq_free(s);
    }
    return out;
}

static double distance(const float *a, const float *b, size_t n) {
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += pow((double)a[i] - (double)b[i], 2);
        all += pow((double)b[i], 2);
    }
    return sqrt(off / all);
}

/* Opens dir as `c` says, runs it, closes it. */
static float *run_dir(const char *dir, const struct model_config *c, size_t *n, char id[96]) {
    struct model *m = model_must_open(dir, ops, c);
    float *out = run(m, n);
    if (id) snprintf(id, 96, "%s", model_numerics_id(m));
    model_close(m);
    return out;
}

static void round_trip(const char *dir, enum dtype to) {
    const struct model_config as_stored = {0}, widened = {.widen = true}, at_load = {.weights = to};
    char stored_id[96], load_id[96];
    size_t n;
    convert(dir, to);
    float *exact = run_dir(dir, NULL, &n, NULL);
    float *stored = run_dir(scratch.dir, &as_stored, &n, stored_id);
    float *wide = run_dir(scratch.dir, &widened, &n, NULL);
    float *loaded = run_dir(dir, &at_load, &n, load_id);
    cr_assert(memcmp(stored, loaded, n * sizeof *stored) == 0,
              "%s: quantized at load is not what was stored", dir);
    cr_assert_str_eq(stored_id, load_id);
    cr_assert(strstr(stored_id, to == DTYPE_W8 ? "+w-w8a8.1" : "+w-w4a8.1"), "%s", stored_id);
    /* The same weights in float32: what is left is the rounding of the activations. */
    double rounding = distance(stored, wide, n), all = distance(stored, exact, n);
    cr_assert(rounding < 0.08, "%s: %f from its own weights in float32", dir, rounding);
    cr_assert(all < (to == DTYPE_W8 ? 0.15 : 0.7), "%s: %f from the model", dir, all);
    free(exact);
    free(stored);
    free(wide);
    free(loaded);
}

Test(quantized, what_was_written_runs_as_its_dequantized_weights_do) {
    static const char *const dirs[] = {LLAMA,          MODELS "llama-bf16", MODELS "mistral",
                                       MODELS "qwen2", MODELS "llama-fp8",  MODELS "gemma3",
                                       MODELS "bert",  MODELS "xlm-roberta"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
        for (int four = 0; four < 2; four++) {
            scratch_end(&scratch);
            scratch_begin(&scratch, NULL);
            round_trip(dirs[i], four ? DTYPE_W4 : DTYPE_W8);
        }
}

static void refused(int code, const char *word, const char *second) {
    struct model *m = NULL;
    char err[512] = "";
    cr_assert_eq(model_open(&m, scratch.dir, ops, NULL, err, sizeof err), code, "%s", err);
    cr_assert_null(m);
    cr_assert(strstr(err, word) && strstr(err, second), "\"%s\" lacks \"%s\" or \"%s\"", err, word,
              second);
}

Test(quantized, metadata_that_lies_is_refused) {
    static const struct {
        const char *from, *to, *word, *second;
        int code;
    } rows[] = {
        {"\"penstock.quantized\": \"1\"", "\"penstock.quantized\": \"2\"", "2 is not known",
         "penstock.quantized", ERR_VERSION},
        {"\"penstock.quantized\"", "\"penstock.quantised\"", "missing", "penstock.quantized",
         ERR_FIELD},
        {"\"penstock.to\": \"w4a8\"", "\"penstock.to\": \"w2a8\"", "w2a8", "penstock.to",
         ERR_FIELD},
        {"\"penstock.to\": \"w4a8\"", "\"penstock.to\": \"w8a8\"", "w4/64", "a w8a8 model",
         ERR_FIELD},
        {UP "\": \"w4/64\"", UP "\": \"w4/63\"", UP, "w4/63", ERR_FIELD},
        {UP "\": \"w4/64\"", UP "\": \"w8/64\"", UP "_packed", "shape", ERR_FIELD},
        {UP "\": \"w4/64\"", UP "\": \"w4/32\"", UP "_scale", "shape", ERR_FIELD},
        {UP "\": \"w4/64\"", "model.layers.0.mlp.no_proj.weight\": \"w4/64\"", UP, "missing",
         ERR_FIELD},
        {UP "_zero_point", "model.layers.0.mlp.up_proj.weight_nil_point", UP "_zero_point",
         "missing", ERR_FIELD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        scratch_end(&scratch);
        scratch_begin(&scratch, NULL);
        convert(LLAMA, DTYPE_W4);
        scratch_header_replace(&scratch, rows[i].from, rows[i].to);
        refused(rows[i].code, rows[i].word, rows[i].second);
    }
}

Test(quantized, a_scale_that_is_none_is_refused_by_name) {
    static const uint16_t none[] = {0x7fc0, 0x7f80, 0xbf80, 0x7f7f}; /* NaN, infinite, -1, huge */
    convert(LLAMA, DTYPE_W8);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        scratch_patch(&scratch, "model.safetensors", scratch_tensor_at(&scratch, UP "_scale"),
                      &none[i], 2);
        refused(ERR_CORRUPT, UP "_scale", "element 0 is no scale");
    }
}

Test(quantized, a_quantized_model_is_not_quantized_again_nor_to_another_type) {
    const struct convert_options o = {.to = DTYPE_W4, .threads = 1};
    struct convert_report report;
    struct model *m = NULL;
    char err[512] = "", again[300];
    convert(LLAMA, DTYPE_W8);
    snprintf(again, sizeof again, "%s/again", scratch.dir);
    mkdir(again, 0700);
    cr_assert_eq(convert_model(scratch.dir, again, &o, &report, err, sizeof err), -EINVAL);
    cr_assert(strstr(err, "quantized already"), "%s", err);
    cr_assert_eq(model_open(&m, scratch.dir, ops, &(struct model_config){.weights = DTYPE_W4}, err,
                            sizeof err),
                 -EINVAL);
    cr_assert(strstr(err, "w8a8"), "%s", err);
}

/* The least cosine of the sentences to their float32 vectors. */
static double minilm_least(const char *dir, const struct goldens *g, const struct model_config *c) {
    struct model *m = model_must_open(dir, ops, c);
    uint32_t dim = model_info(m)->dim;
    float *got = malloc(g->expected_n * sizeof *got);
    char err[256] = "";
    double least = 1;
    cr_assert_eq(model_embed(m, g->cases, g->begin, g->ids, got, err, sizeof err), 0, "%s", err);
    for (uint32_t i = 0; i < g->cases; i++) {
        double near = cosine(got + (size_t)i * dim, g->expected + (size_t)i * dim, dim);
        if (!(near >= least)) least = near;
    }
    free(got);
    model_close(m);
    return least;
}

Test(quantized, minilm_in_eight_bits_stays_near_its_float32_vectors) {
    const char *dir = minilm_dir();
    struct goldens g;
    goldens_load(&g, "tests/golden/minilm/ids.jsonl", "tests/golden/minilm/embeddings.f32");
    double eight = minilm_least(dir, &g, &(struct model_config){.weights = DTYPE_W8});
    printf("MiniLM, least cosine of %u sentences: w8a8 %.5f\n", g.cases, eight);
    cr_assert(eight >= 0.998, "%f", eight);
    goldens_free(&g);
}
