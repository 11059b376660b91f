/* LoRA adapters: against what peft computed with them, and refused where they do not fit. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "tests/infer/help.h"
#include "workers/infer/adapter.h"

#define ADAPTERS "tests/golden/lora/"
#define MODELS "tests/golden/models/"
#define FIRST_Q "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

static const char *const decoders[] = {"llama-all", "llama-some", "qwen2-late", "gemma3-all"};

/* The largest |got - want| over the largest |want|. */
static double worst(const float *got, const float *want, size_t n) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - (double)want[i]);
        if (!(off <= most)) most = off;
        if (fabs((double)want[i]) > largest) largest = fabs((double)want[i]);
    }
    return most / largest;
}

/* One adapter's golden, and its model on one backend with it. */
struct lab {
    char dir[128];
    struct json *golden;
    struct model *model;
    const struct adapter *adapter;
};

static void lab_begin(struct lab *l, const char *name, struct ops *ops) {
    char path[160], err[512] = "";
    snprintf(l->dir, sizeof l->dir, ADAPTERS "%s", name);
    snprintf(path, sizeof path, "%s/golden.json", l->dir);
    cr_assert_eq(json_load(&l->golden, path, 1 << 20, err, sizeof err), 0, "%s", err);
    snprintf(path, sizeof path, MODELS "%s", json_str(json_get(l->golden, "base")));
    l->model = model_must_open(path, ops, NULL);
    cr_assert_eq(model_adapter(l->model, l->dir, &l->adapter, err, sizeof err), 0, "%s", err);
}

static void lab_end(struct lab *l) {
    model_close(l->model);
    json_free(l->golden);
}

static void lab_cases(const struct lab *l, struct goldens *g) {
    char ids[160], floats[160];
    snprintf(ids, sizeof ids, "%s/cases.jsonl", l->dir);
    snprintf(floats, sizeof floats, "%s/expected.f32", l->dir);
    goldens_load(g, ids, floats);
}

static void check_logits(const char *name, const char *backend, struct ops *ops) {
    struct lab l;
    struct goldens g;
    char err[256] = "";
    lab_begin(&l, name, ops);
    lab_cases(&l, &g);
    uint32_t vocab = model_info(l.model)->vocab;
    cr_assert_eq(g.expected_n, (size_t)g.begin[g.cases] * vocab);
    float *got = calloc(g.expected_n, sizeof *got);
    for (uint32_t c = 0; c < g.cases; c++) {
        struct seq *s = seq_new(l.model);
        seq_adapt(s, l.adapter);
        for (uint32_t at = g.begin[c]; at < g.begin[c + 1]; at++) {
            const float *logits;
            cr_assert_eq(model_step(l.model, 1, &s, (uint32_t[]){0, 1}, g.ids + at, &logits, err,
                                    sizeof err),
                         0, "%s", err);
            ops->download(ops, got + (size_t)at * vocab, logits, vocab * sizeof *got);
        }
        seq_free(s);
    }
    double off = worst(got, g.expected, g.expected_n);
    cr_assert(off < 2e-5, "%s on %s is off by %g", name, backend, off);
    free(got);
    goldens_free(&g);
    lab_end(&l);
}

Test(adapters, every_adapter_gives_the_logits_that_peft_gives) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++)
        for (size_t i = 0; i < sizeof decoders / sizeof *decoders; i++)
            check_logits(decoders[i], b.name[k], b.ops[k]);
    backends_close(&b);
}

static void check_greedy(const char *name, const char *backend, struct ops *ops) {
    struct lab l;
    uint32_t ids[9], begin[2] = {0, 9}, next;
    char err[256] = "";
    lab_begin(&l, name, ops);
    const struct json *prompt = json_get(l.golden, "prompt"),
                      *wanted = json_get(l.golden, "new_ids");
    cr_assert(json_len(prompt) == 9 && json_len(wanted) == 128);
    struct seq *s = seq_new(l.model);
    seq_adapt(s, l.adapter);
    for (uint32_t i = 0; i < 9; i++) ids[i] = (uint32_t)json_int(json_at(prompt, i), 0);
    for (size_t i = 0; i < json_len(wanted); i++) {
        cr_assert_eq(model_step(l.model, 1, &s, begin, ids, NULL, err, sizeof err), 0, "%s", err);
        model_sample(l.model, 1, &(struct sample_row){.top_p = 1}, &next, NULL, NULL);
        cr_assert_eq(next, json_int(json_at(wanted, i), -1), "%s on %s: token %zu", name, backend,
                     i);
        ids[0] = next;
        begin[1] = 1;
    }
    seq_free(s);
    lab_end(&l);
}

Test(adapters, every_adapter_writes_the_128_tokens_that_peft_writes) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++)
        for (size_t i = 0; i < sizeof decoders / sizeof *decoders; i++)
            check_greedy(decoders[i], b.name[k], b.ops[k]);
    backends_close(&b);
}

Test(adapters, an_encoder_gives_the_vectors_that_peft_gives) {
    struct help_backends b;
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        struct lab l;
        struct goldens g;
        float got[4 * 48];
        char err[256] = "";
        lab_begin(&l, "bert-all", b.ops[k]);
        lab_cases(&l, &g);
        const struct adapter *of[] = {l.adapter, l.adapter, l.adapter, l.adapter};
        cr_assert(g.cases == 4 && g.expected_n == 4 * 48);
        cr_assert_eq(model_embed_with(l.model, 4, g.begin, g.ids, of, got, err, sizeof err), 0,
                     "%s", err);
        double off = worst(got, g.expected, 4 * 48);
        cr_assert(off < 2e-5, "%s is off by %g", b.name[k], off);
        goldens_free(&g);
        lab_end(&l);
    }
    backends_close(&b);
}

Test(adapters, an_adapter_is_opened_once) {
    struct ops *ops = help_open_ref();
    struct lab l;
    const struct adapter *again = NULL;
    char err[256] = "";
    lab_begin(&l, "llama-all", ops);
    cr_assert_eq(model_adapter(l.model, l.dir, &again, err, sizeof err), 0, "%s", err);
    cr_assert_eq(again, l.adapter);
    cr_assert_str_eq(again->base, "llama-tied");
    lab_end(&l);
    ops_close(ops);
}

Test(adapters, one_of_another_model_is_refused_with_both_before_the_tensor) {
    struct ops *o = help_open_ref();
    struct model *m = model_must_open(MODELS "bert", o, NULL);
    const struct adapter *a;
    char err[512] = "";
    cr_assert_eq(model_adapter(m, ADAPTERS "tiny-quiet", &a, err, sizeof err), -ENOTSUP);
    cr_assert(strstr(err, ADAPTERS "tiny-quiet: is an adapter of tiny-llama and does not fit this "
                                   "BertModel: adapter_model.safetensors: tensor "),
              "%s", err);
    model_close(m);
    ops_close(o);
}

Test(adapters, one_that_says_it_is_of_another_model_is_noted, .init = cr_redirect_stderr) {
    struct ops *o = help_open_ref();
    struct model *m = model_must_open(MODELS "llama-tied", o, NULL);
    const struct adapter *a;
    char err[256] = "", line[1024] = "", path[300];
    struct scratch s;
    scratch_begin(&s, NULL);
    scratch_copy(&s, ADAPTERS "llama-all", "adapter_config.json");
    scratch_copy(&s, ADAPTERS "llama-all", "adapter_model.safetensors");
    cr_assert_eq(model_adapter(m, ADAPTERS "llama-all", &a, err, sizeof err), 0, "%s", err);
    scratch_replace(&s, "adapter_config.json", "\"llama-tied\"", "\"org/llama-tied/\"");
    cr_assert_eq(model_adapter(m, s.dir, &a, err, sizeof err), 0, "%s", err);
    scratch_replace(&s, "adapter_config.json", "org/llama-tied/", "org/other");
    snprintf(path, sizeof path, "%s/.", s.dir);
    cr_assert_eq(model_adapter(m, path, &a, err, sizeof err), 0, "%s", err);
    fflush(stderr);
    FILE *f = cr_get_redirected_stderr();
    line[fread(line, 1, sizeof line - 1, f)] = '\0';
    cr_assert(strstr(line, "event=adapter_of_another_model") && strstr(line, "org/other"), "%s",
              line);
    cr_assert_eq(strstr(strstr(line, "event=") + 1, "event="), NULL, "%s", line);
    scratch_end(&s);
    model_close(m);
    ops_close(o);
}

/* What is refused: a copy of llama-all with something changed. */
static struct scratch scratch;
static struct ops *ops;
static struct model *model;

#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

static void begin(void) {
    scratch_begin(&scratch, NULL);
    scratch_copy(&scratch, ADAPTERS "llama-all", CONFIG);
    scratch_copy(&scratch, ADAPTERS "llama-all", WEIGHTS);
    ops = help_open_ref();
    model = model_must_open(MODELS "llama-tied", ops, NULL);
}

static void end(void) {
    model_close(model);
    ops_close(ops);
    scratch_end(&scratch);
}

TestSuite(bad_adapters, .init = begin, .fini = end);

static void refused(int code, const char *file, const char *word, const char *second) {
    const struct adapter *a = NULL;
    char err[700] = "";
    cr_assert_eq(model_adapter(model, scratch.dir, &a, err, sizeof err), code, "%s", err);
    cr_assert_null(a);
    cr_assert(strstr(err, scratch.dir) && strstr(err, file), "\"%s\" does not name %s", err, file);
    cr_assert(strstr(err, word), "\"%s\" does not name %s", err, word);
    cr_assert(strstr(err, second), "\"%s\" does not name %s", err, second);
}

static void with_config(const char *text) {
    scratch_text(&scratch, CONFIG, text);
}

Test(bad_adapters, an_adapter_as_it_was_saved_is_taken_again_and_again) {
    const struct adapter *a = NULL;
    char err[700] = "";
    scratch_replace(&scratch, CONFIG, "\"r\": 5", "\"r\": 6");
    for (int i = 0; i < 3; i++) refused(ERR_FIELD, WEIGHTS, "lora_A", "[6, 72]");
    scratch_replace(&scratch, CONFIG, "\"r\": 6", "\"r\": 5");
    cr_assert_eq(model_adapter(model, scratch.dir, &a, err, sizeof err), 0, "%s", err);
}

Test(bad_adapters, a_directory_without_one_of_the_two_files) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", scratch.dir, WEIGHTS);
    cr_assert_eq(remove(path), 0);
    refused(-ENOENT, WEIGHTS, "No such file", "");
    scratch_text(&scratch, "adapter_model.bin", "PK");
    refused(-ENOTSUP, "adapter_model.bin", "pickled", "save_pretrained");
    snprintf(path, sizeof path, "%s/%s", scratch.dir, CONFIG);
    cr_assert_eq(remove(path), 0);
    refused(-ENOENT, CONFIG, "No such file", "");
}

Test(bad_adapters, features_that_the_engine_lacks_are_named) {
    static const char *const features[] = {"\"use_dora\": true",
                                           "\"modules_to_save\": [\"lm_head\"]",
                                           "\"lora_bias\": true",
                                           "\"layer_replication\": [[0, 1]]",
                                           "\"trainable_token_indices\": [1]",
                                           "\"bias\": \"lora_only\"",
                                           "\"init_lora_weights\": \"pissa\"",
                                           "\"peft_type\": \"LOHA\"",
                                           "\"use_what_is_not_there_yet\": 3"};
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        char text[400], key[64];
        snprintf(text, sizeof text,
                 "{%s, \"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8, \"target_modules\":"
                 " [\"q_proj\"]}",
                 features[i]);
        if (strstr(features[i], "peft_type"))
            snprintf(text, sizeof text, "{%s, \"r\": 5, \"lora_alpha\": 8}", features[i]);
        snprintf(key, sizeof key, "%.*s", (int)strcspn(features[i] + 1, "\""), features[i] + 1);
        with_config(text);
        refused(-ENOTSUP, CONFIG, key, "merge");
    }
}

Test(bad_adapters, a_config_that_is_no_json_or_lacks_what_it_needs) {
    with_config("{\"r\": 5,");
    refused(ERR_FIELD, CONFIG, "not valid JSON", "line 1");
    with_config("{\"peft_type\": \"LORA\", \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"]}");
    refused(ERR_FIELD, CONFIG, "r", "");
    with_config("{\"peft_type\": \"LORA\", \"r\": 5, \"target_modules\": [\"q_proj\"]}");
    refused(ERR_FIELD, CONFIG, "lora_alpha", "number");
    with_config("{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8}");
    refused(ERR_FIELD, CONFIG, "target_modules", "");
    with_config("{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8, \"target_modules\": [7]}");
    refused(ERR_FIELD, CONFIG, "target_modules", "element 0");
    with_config(
        "{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8, \"target_modules\": \"(\"}");
    refused(ERR_FIELD, CONFIG, "target_modules", "");
    with_config("{\"peft_type\": \"LORA\", \"r\": 100000, \"lora_alpha\": 8}");
    refused(ERR_FIELD, CONFIG, "r", "512");
}

Test(bad_adapters, a_pattern_that_takes_for_ever_is_given_up) {
    with_config("{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8, \"target_modules\":"
                " \"(?:(?:[a-z_.0-9]+)+)+[XY]\"}");
    refused(ERR_LIMIT, CONFIG, "target_modules", "q_proj");
}

Test(bad_adapters, a_rank_by_pattern_that_is_none) {
    scratch_replace(&scratch, CONFIG, "\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 0}");
    refused(ERR_FIELD, CONFIG, "rank_pattern", "512");
    scratch_replace(&scratch, CONFIG, "\"q_proj\": 0", "\"q_proj\": \"5\"");
    refused(ERR_FIELD, CONFIG, "rank_pattern", "q_proj");
}

/* The last element of the last tensor: v_proj's B in layer 1. */
static void set_last(uint32_t bits) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", scratch.dir, WEIGHTS);
    FILE *f = fopen(path, "r+b");
    cr_assert(f && fseek(f, -4, SEEK_END) == 0);
    cr_assert_eq(fwrite(&bits, 4, 1, f), 1);
    fclose(f);
}

Test(bad_adapters, a_scale_that_overflows) {
    scratch_replace(&scratch, CONFIG, "\"lora_alpha\": 8", "\"lora_alpha\": 1e300");
    refused(ERR_FIELD, CONFIG, "lora_alpha", "1e+300");
    scratch_replace(&scratch, CONFIG, "1e300", "1e39");
    set_last(0x40000000); /* 2 */
    refused(ERR_FIELD, CONFIG, "lora_B", "too large for the scale");
}

Test(bad_adapters, a_tensor_of_another_shape) {
    char path[300], err[512] = "";
    const struct adapter *a = NULL;
    snprintf(path, sizeof path, MODELS "qwen2");
    struct model *other = model_must_open(path, ops, NULL);
    cr_assert_eq(model_adapter(other, scratch.dir, &a, err, sizeof err), ERR_FIELD, "%s", err);
    cr_assert(strstr(err, FIRST_Q) && strstr(err, "[5, 72]") && strstr(err, "[5, 48]"), "%s", err);
    model_close(other);
}

Test(bad_adapters, half_a_pair_is_missing) {
    scratch_replace(&scratch, WEIGHTS, "layers.0.self_attn.q_proj.lora_A",
                    "layers.0.self_attn.q_proj.lora_X");
    refused(ERR_FIELD, WEIGHTS, FIRST_Q, "missing");
}

Test(bad_adapters, a_targeted_matrix_without_tensors) {
    scratch_replace(&scratch, WEIGHTS, "layers.1.mlp.up_proj.lora_A",
                    "layers.7.mlp.up_proj.lora_A");
    scratch_replace(&scratch, WEIGHTS, "layers.1.mlp.up_proj.lora_B",
                    "layers.7.mlp.up_proj.lora_B");
    refused(ERR_FIELD, WEIGHTS, "layers.1.mlp.up_proj.lora_A", "missing");
}

Test(bad_adapters, a_tensor_that_nothing_targets) {
    scratch_replace(&scratch, CONFIG, "\"q_proj\"", "\"Q_proj\"");
    refused(ERR_FIELD, WEIGHTS, FIRST_Q, "target_modules");
}

Test(bad_adapters, a_tensor_of_no_matrix_in_the_layers) {
    scratch_replace(&scratch, CONFIG, "\"layers_to_transform\": null",
                    "\"layers_to_transform\": [0]");
    scratch_replace(&scratch, WEIGHTS, "layers.1.mlp.up_proj.lora_A",
                    "layers.7.mlp.up_proj.lora_A");
    refused(ERR_FIELD, WEIGHTS, "layers.1", "target_modules");
    scratch_replace(&scratch, CONFIG, "\"layers_to_transform\": [0]",
                    "\"layers_to_transform\": null");
    scratch_replace(&scratch, CONFIG, "\"up_proj\"", "\"0.mlp.up_proj\"");
    scratch_replace(&scratch, WEIGHTS, "layers.1.mlp.up_proj.lora_B",
                    "layers.7.mlp.up_proj.lora_B");
    refused(-ENOTSUP, WEIGHTS, "layers.7.mlp.up_proj.lora_A", "2 layers");
}

Test(bad_adapters, nan_and_infinity_are_found) {
    static const uint32_t bits[] = {0x7fc00000, 0xff800000};
    for (int i = 0; i < 2; i++) {
        set_last(bits[i]);
        refused(ERR_CORRUPT, WEIGHTS, "layers.1.self_attn.v_proj.lora_B", "NaN");
    }
}

Test(bad_adapters, a_truncated_file) {
    scratch_truncate(&scratch, WEIGHTS, 10);
    refused(ERR_CORRUPT, WEIGHTS, "", "");
}

Test(bad_adapters, exclude_modules_leaves_matrices_to_the_plain_model) {
    scratch_replace(&scratch, CONFIG, "\"exclude_modules\": null",
                    "\"exclude_modules\": [\"k_proj\"]");
    refused(ERR_FIELD, WEIGHTS, "layers.0.self_attn.k_proj.lora_A", "target_modules");
}
