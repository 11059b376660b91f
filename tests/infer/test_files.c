/* Model directories that lie, lack something or ask for what the engine has not: refused, by
 * name. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/infer/help.h"
#include "workers/infer/safetensors.h"

#define BERT "tests/golden/models/bert"
#define CLASSES "tests/golden/models/bert-classes"
#define LLAMA "tests/golden/models/llama-tied"
#define FP8 "tests/golden/models/llama-fp8"
#define GEMMA "tests/golden/models/gemma3"
#define XLM_R "tests/golden/models/xlm-roberta"
#define FIRST_UP "model.layers.0.mlp.up_proj.weight"

static struct scratch scratch;
static struct ops *ops;

static void begin(void) {
    scratch_begin(&scratch, NULL);
}

static void end(void) {
    scratch_end(&scratch);
    ops_close(ops);
}

TestSuite(files, .init = begin, .fini = end);

/* Opens the tensors in the scratch directory, which must fail with code and say every word. */
static void tensors_refused(int code, const char *word) {
    struct safetensors *s = NULL;
    char err[512] = "";
    cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), code, "%s", err);
    cr_assert_null(s);
    cr_assert(strstr(err, word), "\"%s\" does not name %s", err, word);
    cr_assert(strstr(err, scratch.dir), "\"%s\" does not name the file", err);
}

static void model_refused(int code, const char *word, const char *second) {
    struct model *m = NULL;
    char err[512] = "";
    if (!ops) ops = help_open_ref();
    cr_assert_eq(model_open(&m, scratch.dir, ops, NULL, err, sizeof err), code, "%s", err);
    cr_assert_null(m);
    cr_assert(strstr(err, word), "\"%s\" does not name %s", err, word);
    cr_assert(strstr(err, second), "\"%s\" does not name %s", err, second);
}

static void copy(const char *model) {
    scratch_end(&scratch);
    scratch_begin(&scratch, model);
}

Test(files, tensors_are_found_by_name_and_point_into_the_map) {
    const float data[] = {1, 2, 3, 4, 5, 6, 7};
    struct safetensors *s = NULL;
    char err[256] = "";
    scratch_tensors(&scratch, "model.safetensors",
                    "{\"__metadata__\":{\"a\":\"b\"},\"m\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                    "\"data_offsets\":[4,"
                    "28]},\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]},\"b\":{"
                    "\"dtype\":\"F32\","
                    "\"shape\":[],\"data_offsets\":[0,4]}}",
                    data, sizeof data);
    cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(safetensors_count(s), 3);
    const struct tensor *m = safetensors_find(s, "m");
    cr_assert(m && m->rank == 2 && m->shape[0] == 2 && m->shape[1] == 3 && m->elements == 6);
    cr_assert_eq(((const float *)m->data)[0], 2.0f);
    cr_assert_eq(safetensors_find(s, "b")->elements, 1,
                 "a tensor without dimensions is one number");
    cr_assert_eq(safetensors_find(s, "e")->elements, 0);
    cr_assert_null(safetensors_find(s, "x"));
    cr_assert_str_eq(safetensors_at(s, 2)->name, "m");
    cr_assert_null(safetensors_at(s, 3));
    safetensors_close(s);
}

struct lie {
    const char *header;
    int code;
    const char *word;
};
static const struct lie lies[] = {
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":\"2\",\"data_offsets\":[0,8]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}",
     ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}",
     ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", -ENOTSUP, "F31"},
    {"{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", ERR_CORRUPT, "tensor w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", ERR_LIMIT,
     "tensor w"},
    {"{\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"w\":{\"dtype\":\"F32\","
     "\"shape\":[1],"
     "\"data_offsets\":[4,8]}}",
     ERR_CORRUPT, "overlaps"},
    {"{\"v\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"w\":{\"dtype\":\"U8\","
     "\"shape\":[4],"
     "\"data_offsets\":[4,8]}}",
     ERR_CORRUPT, "gap"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", ERR_CORRUPT, "no tensor"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"v\":{\"dtype\":\"F32\","
     "\"shape\":[1],"
     "\"data_offsets\":[2,6]},\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[6,8]}}",
     -ENOTSUP, "aligned"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"w\":{\"dtype\":\"F32\","
     "\"shape\":[1],"
     "\"data_offsets\":[4,8]}}",
     ERR_CORRUPT, "w"},
    {"[1, 2, 3]", ERR_CORRUPT, "JSON object"},
    {"{\"w\": ", ERR_CORRUPT, "header"},
};

Test(files, a_header_that_lies_is_refused_and_the_tensor_named) {
    static const char data[8];
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        scratch_tensors(&scratch, "model.safetensors", lies[i].header, data, sizeof data);
        tensors_refused(lies[i].code, lies[i].word);
    }
}

Test(files, a_file_cut_anywhere_is_refused) {
    struct safetensors *s;
    char err[256];
    copy(LLAMA);
    for (uint32_t times = 0; times < 40; times++) {
        scratch_truncate(&scratch, "model.safetensors", 1 + times * 731 % 9000);
        cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), ERR_CORRUPT, "%s", err);
        cr_assert(strstr(err, "model.safetensors"), "%s", err);
    }
    scratch_write(&scratch, "model.safetensors", "\377\377\377\377\377\377\377\177{}", 10);
    tensors_refused(ERR_CORRUPT, "truncated");
    scratch_write(&scratch, "model.safetensors", "\2\0\0", 3);
    tensors_refused(ERR_CORRUPT, "truncated");
}

Test(files, a_header_beyond_its_limit_is_refused_before_it_is_read) {
    size_t bytes = SAFETENSORS_HEADER_BYTES_MAX + 9;
    uint8_t *file = calloc(1, bytes);
    memcpy(file, "\1\0\0\1", 4); /* 16 MiB and one */
    scratch_write(&scratch, "model.safetensors", file, bytes);
    free(file);
    tensors_refused(ERR_LIMIT, "16777217");
}

Test(files, a_directory_without_weights_is_refused_with_the_file_named) {
    struct safetensors *s = NULL;
    char err[512] = "";
    cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), -ENOENT, "%s", err);
    cr_assert(strstr(err, "model.safetensors"), "%s", err);
}

static void two_shards(const char *map) {
    const float one[] = {1, 2}, two[] = {3, 4};
    scratch_tensors(&scratch, "a.safetensors",
                    "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", one,
                    sizeof one);
    scratch_tensors(&scratch, "b.safetensors",
                    "{\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", two,
                    sizeof two);
    scratch_text(&scratch, "model.safetensors.index.json", map);
}

Test(files, shards_are_read_through_their_index) {
    struct safetensors *s = NULL;
    char err[512] = "";
    two_shards(
        "{\"metadata\":{},\"weight_map\":{\"w\":\"a.safetensors\",\"v\":\"b.safetensors\"}}");
    cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(((const float *)safetensors_find(s, "v")->data)[1], 4.0f);
    cr_assert(strstr(safetensors_path(s, safetensors_find(s, "v")), "/b.safetensors"));
    safetensors_close(s);
}

Test(files, an_index_that_does_not_fit_its_shards_is_refused) {
    two_shards("{\"weight_map\":{\"w\":\"a.safetensors\",\"v\":\"a.safetensors\"}}");
    tensors_refused(ERR_CORRUPT, "tensor v");
    two_shards("{\"weight_map\":{\"w\":\"../a.safetensors\"}}");
    tensors_refused(ERR_CORRUPT, "../a.safetensors");
    two_shards("{\"weight_map\":{}}");
    tensors_refused(ERR_CORRUPT, "weight_map");
    two_shards("{\"weight_map\":{\"w\":\"c.safetensors\"}}");
    tensors_refused(-ENOENT, "c.safetensors");
}

Test(files, a_missing_tensor_is_named) {
    copy(LLAMA);
    scratch_header_replace(&scratch, "\"" FIRST_UP "\"", "\"another\"");
    model_refused(ERR_FIELD, FIRST_UP, "missing");
}

Test(files, a_tensor_of_another_shape_is_named_with_both_shapes) {
    copy(LLAMA);
    scratch_replace(&scratch, "config.json", "\"intermediate_size\": 88",
                    "\"intermediate_size\": 89");
    model_refused(ERR_FIELD, "model.layers.0.mlp.gate_proj.weight: shape [88, 72]", "[89, 72]");
}

Test(files, a_weight_that_is_not_a_number_is_refused_and_the_tensor_named) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        copy(LLAMA);
        scratch_patch(&scratch, "model.safetensors", scratch_tensor_at(&scratch, FIRST_UP) + 8,
                      &bad[i], sizeof bad[i]);
        model_refused(ERR_CORRUPT, FIRST_UP, "element 2 is a NaN or an infinity");
    }
    copy("tests/golden/models/llama-bf16");
    scratch_patch(&scratch, "model.safetensors",
                  scratch_tensor_at(&scratch, "model.norm.weight") + 20, "\200\377", 2);
    model_refused(ERR_CORRUPT, "model.norm.weight", "element 10 is a NaN or an infinity");
}

Test(files, weights_of_a_type_that_is_no_number_to_compute_with_are_refused_by_name) {
    static const char *const types[] = {"I32", "U32"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char to[16];
        copy(LLAMA);
        snprintf(to, sizeof to, "\"%s\"", types[i]);
        scratch_header_replace(&scratch, "\"F32\"", to);
        model_refused(-ENOTSUP, "model.safetensors", types[i]);
    }
}

Test(files, a_tensor_of_more_dimensions_or_none_is_refused_with_both_shapes) {
    copy(LLAMA);
    scratch_header_replace(&scratch, "\"shape\":[88,72]", "\"shape\":[8,11,72]");
    model_refused(ERR_FIELD, "[8, 11, 72]", "[88, 72]");
}

Test(files, an_index_that_is_no_object_or_too_large_is_refused) {
    static const char *const bad[] = {"[]", "{\"weight_map\":[]}", "{\"weight_map\":{\"w\":1}}",
                                      "{"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct safetensors *s;
        char err[512] = "";
        two_shards(bad[i]);
        cr_assert(safetensors_open(&s, scratch.dir, err, sizeof err) < 0);
        cr_assert(strstr(err, "model.safetensors.index.json"), "%s", err);
    }
    two_shards("{\"weight_map\":{\"w\":\"a.safetensors\",\"v\":\"b.safetensors\"}}");
    scratch_tensors(&scratch, "b.safetensors",
                    "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"v\":{"
                    "\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
                    (const float[]){1, 2}, 8);
    tensors_refused(ERR_CORRUPT, "tensor w is ");
}

Test(files, a_config_of_megabytes_is_refused_with_the_limit) {
    size_t bytes = (4u << 20) + 1;
    char *text = malloc(bytes);
    memset(text, ' ', bytes);
    text[0] = '{';
    text[bytes - 1] = '}';
    copy(LLAMA);
    scratch_write(&scratch, "config.json", text, bytes);
    free(text);
    model_refused(ERR_LIMIT, "config.json", "4194304");
}

struct change {
    const char *model, *from, *to;
    int code;
    const char *word, *second;
};
static const struct change changes[] = {
    {BERT, "BertModel", "MambaForCausalLM", -ENOTSUP, "MambaForCausalLM",
     "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM"},
    {BERT, "\"architectures\"", "\"x\"", ERR_FIELD, "architectures", "config.json"},
    {BERT, "\"hidden_size\": 48", "\"hidden_size\": 0", ERR_FIELD, "hidden_size", "config.json"},
    {BERT, "\"hidden_size\": 48", "\"hidden_size\": \"48\"", ERR_FIELD, "hidden_size",
     "config.json"},
    {BERT, "\"hidden_size\": 48", "\"hidden_size\": 49", ERR_FIELD, "hidden_size",
     "num_attention_heads"},
    {BERT, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", ERR_FIELD, "encoder.layer.2",
     "missing"},
    {BERT, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99999999", ERR_FIELD,
     "num_hidden_layers", "config.json"},
    {BERT, "\"gelu\"", "\"mish\"", -ENOTSUP, "hidden_act", "mish"},
    {BERT, "\"absolute\"", "\"relative_key\"", -ENOTSUP, "position_embedding_type", "relative_key"},
    {BERT, "\"vocab_size\": 100", "\"vocab_size\": 100, \"is_decoder\": true", -ENOTSUP,
     "is_decoder", "true"},
    {BERT, "\"vocab_size\": 100", "\"vocab_size\": 4294967396", ERR_FIELD, "vocab_size",
     "config.json"},
    {LLAMA, "\"rope_scaling\": null",
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}", ERR_FIELD, "rope_scaling",
     "low_freq_factor"},
    {LLAMA, "\"rope_scaling\": null",
     "\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 8.0}", -ENOTSUP, "rope_scaling",
     "dynamic"},
    {LLAMA, "\"rope_scaling\": null", "\"rope_parameters\": {\"rope_type\": \"yarn\"}", -ENOTSUP,
     "rope_parameters", "yarn"},
    {LLAMA, "\"mlp_bias\": false", "\"mlp_bias\": true", -ENOTSUP, "mlp_bias", "true"},
    {LLAMA, "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 2", ERR_FIELD,
     "num_key_value_heads", "num_attention_heads"},
    {LLAMA, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", ERR_FIELD,
     "lm_head.weight", "missing"},
    {LLAMA, "\"attention_bias\": false", "\"attention_bias\": true", ERR_FIELD, "bias", "missing"},
    {LLAMA, "\"eos_token_id\": 2", "\"eos_token_id\": [2, 999]", ERR_FIELD, "eos_token_id",
     "config.json"},
    {LLAMA, "\"rope_theta\": 10000.0", "\"rope_theta\": 0", ERR_FIELD, "rope_theta", "config.json"},
    {LLAMA, "\"vocab_size\": 101", "\"vocab_size\": 101, \"quantization_config\": {}", -ENOTSUP,
     "quantization_config", "config.json"},
    {FP8, "\"quant_method\": \"fp8\"", "\"quant_method\": \"awq\"", -ENOTSUP, "quantization_config",
     "awq"},
    {FP8, "\n      16,", "\n      0,", ERR_FIELD, "weight_block_size", "config.json"},
    {FP8, "\n      16,", "\n      10,", ERR_FIELD, "q_proj.weight_scale_inv", "blocks of 10 x 32"},
    {CLASSES, "\"2\": \"open\"", "\"7\": \"open\"", ERR_FIELD, "id2label: 7", "one of 3 classes"},
    {CLASSES, "\"2\": \"open\"", "\"2\": 5", ERR_FIELD, "id2label: 2", "config.json"},
    {CLASSES, "\"2\": \"open\"", "\"-1\": \"open\"", ERR_FIELD, "id2label: -1", "config.json"},
    {XLM_R, "\"pad_token_id\": 1", "\"pad_token_id\": 39", ERR_FIELD, "pad_token_id", "40"},
    {GEMMA, "\n    \"full_attention\",", "", ERR_FIELD, "layer_types", "2 words for 3 layers"},
    {GEMMA, "\n    \"full_attention\",", "\n    \"chunked_attention\",", -ENOTSUP, "layer_types",
     "chunked_attention"},
    {GEMMA, "\"sliding_window\": 8", "\"sliding_window\": null", ERR_FIELD, "sliding_window",
     "layer 0"},
    {GEMMA, "\"head_dim\": 16", "\"head_dim\": 512", ERR_FIELD, "head_dim", "config.json"},
    {GEMMA, "\"final_logit_softcapping\": null", "\"final_logit_softcapping\": 30.0", -ENOTSUP,
     "final_logit_softcapping", "config.json"},
    {GEMMA, "\"query_pre_attn_scalar\": 24", "\"query_pre_attn_scalar\": 0", ERR_FIELD,
     "query_pre_attn_scalar", "config.json"},
};

Test(files, a_config_that_asks_for_what_is_not_there_is_refused_by_name) {
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const struct change *c = &changes[i];
        copy(c->model);
        scratch_replace(&scratch, "config.json", c->from, c->to);
        model_refused(c->code, c->word, c->second);
    }
}

Test(files, fp8_that_is_not_a_number_is_refused_and_so_are_its_scales) {
    static const char first_q[] = "model.layers.0.self_attn.q_proj.weight";
    const float bad = NAN;
    copy(FP8);
    scratch_patch(&scratch, "model.safetensors", scratch_tensor_at(&scratch, first_q) + 3, "\377",
                  1);
    model_refused(ERR_CORRUPT, first_q, "element 3 is a NaN or an infinity");
    copy(FP8);
    scratch_patch(&scratch, "model.safetensors",
                  scratch_tensor_at(&scratch, "model.layers.1.mlp.up_proj.weight_scale") + 4, &bad,
                  sizeof bad);
    model_refused(ERR_CORRUPT, "up_proj.weight_scale", "element 1 is a NaN or an infinity");
}

Test(files, newer_files_may_give_theta_as_a_rope_parameter) {
    struct model *m;
    char err[256] = "";
    copy(LLAMA);
    scratch_replace(&scratch, "config.json", "\"rope_scaling\": null",
                    "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}");
    ops = help_open_ref();
    cr_assert_eq(model_open(&m, scratch.dir, ops, NULL, err, sizeof err), 0, "%s", err);
    model_close(m);
}

Test(files, generation_config_replaces_the_ids_that_end_a_text) {
    copy(LLAMA);
    ops = help_open_ref();
    struct model *m = model_must_open(scratch.dir, ops, NULL);
    cr_assert(model_info(m)->n_eos == 1 && model_info(m)->eos[0] == 2 && model_info(m)->bos == 1);
    model_close(m);
    scratch_text(&scratch, "generation_config.json", "{\"eos_token_id\": [5, 7, 9]}");
    m = model_must_open(scratch.dir, ops, NULL);
    cr_assert(model_info(m)->n_eos == 3 && model_info(m)->eos[2] == 9);
    model_close(m);
    scratch_text(&scratch, "generation_config.json",
                 "{\"eos_token_id\": [1, 2, 3, 4, 5, 6, 7, 8, 9]}");
    model_refused(ERR_LIMIT, "eos_token_id", "generation_config.json");
}

static const char modules[] =
    "[{\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
    "{\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"}]";

Test(files, the_modules_beside_an_encoder_choose_its_pooling) {
    const uint32_t ids[] = {5, 9, 11}, cuts[] = {0, 3};
    float hidden[3][48], vector[48];
    char err[256] = "";
    copy(BERT);
    ops = help_open_ref();
    scratch_text(&scratch, "modules.json", modules);
    scratch_text(&scratch, "1_Pooling/config.json",
                 "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}");
    scratch_text(&scratch, "sentence_bert_config.json", "{\"max_seq_length\": 3}");
    struct model *m = model_must_open(scratch.dir, ops, NULL);
    cr_assert_eq(model_info(m)->text_context, 3);
    cr_assert_eq(model_hidden(m, 3, ids, hidden[0], err, sizeof err), 0, "%s", err);
    cr_assert_eq(model_embed(m, 1, cuts, ids, vector, err, sizeof err), 0, "%s", err);
    cr_assert_arr_eq(vector, hidden[0], sizeof vector,
                     "no Normalize module: the first row as it is");
    model_close(m);
    scratch_text(&scratch, "1_Pooling/config.json", "{\"pooling_mode_weightedmean_tokens\": true}");
    model_refused(-ENOTSUP, "pooling_mode_weightedmean_tokens", "1_Pooling/config.json");
    scratch_text(&scratch, "1_Pooling/config.json",
                 "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true}");
    model_refused(-ENOTSUP, "pooling_mode_mean_tokens", "more than one");
    scratch_replace(&scratch, "modules.json", "models.Pooling", "models.Dense");
    model_refused(-ENOTSUP, "Dense", "modules.json");
    scratch_text(&scratch, "modules.json", "[{\"path\":\"../x\",\"type\":\"a.Pooling\"}]");
    model_refused(ERR_FIELD, "path", "modules.json");
    scratch_text(&scratch, "modules.json", modules);
    scratch_text(&scratch, "1_Pooling/config.json", "{\"pooling_mode_cls_token\": true}");
    scratch_text(&scratch, "sentence_bert_config.json", "{\"max_seq_length\": 65}");
    model_refused(ERR_FIELD, "max_seq_length", "sentence_bert_config.json");
}

Test(files, a_bert_saved_within_a_larger_model_is_found_by_its_prefix) {
    copy(BERT);
    char *names[] = {"\"embeddings.", "\"encoder."};
    for (int i = 0; i < 2; i++)
        for (int times = 0; times < 40; times++) {
            char from[64], to[64];
            struct safetensors *s;
            char err[256] = "";
            cr_assert_eq(safetensors_open(&s, scratch.dir, err, sizeof err), 0, "%s", err);
            bool left = false;
            for (uint32_t k = 0; k < safetensors_count(s); k++)
                left |=
                    strncmp(safetensors_at(s, k)->name, names[i] + 1, strlen(names[i]) - 1) == 0;
            safetensors_close(s);
            if (!left) break;
            snprintf(from, sizeof from, "%s", names[i]);
            snprintf(to, sizeof to, "\"bert.%s", names[i] + 1);
            scratch_header_replace(&scratch, from, to);
        }
    ops = help_open_ref();
    struct model *m = model_must_open(scratch.dir, ops, NULL);
    cr_assert_eq(model_info(m)->layers, 2);
    model_close(m);
}
