#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/regex.h"
#include "base/rng.h"
#include "tests/text/help.h"
#include "workers/encode/split.h"
#include "workers/encode/unicode.h"

#define GPT2_SPLIT "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define WORDPIECE                                                                                  \
    "{\"added_tokens\":[{\"id\":1,\"content\":\"[CLS]\",\"special\":true},"                        \
    "{\"id\":2,\"content\":\"[SEP]\",\"special\":true}],"                                          \
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},"                             \
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"                                           \
    "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[CLS]\",1],\"sep\":[\"[SEP]\",2]}" \
    ","                                                                                            \
    "\"decoder\":{\"type\":\"WordPiece\"},"                                                        \
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"max_input_chars_per_word\":8,"    \
    "\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"un\":3,\"##aff\":4,\"##able\":5,\"a\":6,"    \
    "\"##a\":7,\".\":8,\"\xE4\xB8\xAD\":9,\"cafe\":10,\"'\":11,\"s\":12}}}"
/* Like a llama2.c tokenizer: no pre-tokenizer, bytes as <0x..>. */
#define FALLBACK                                                                                   \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"                        \
    "{\"id\":1,\"content\":\"<s>\",\"special\":true}],\"normalizer\":{\"type\":\"Sequence\","      \
    "\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\","  \
    "\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},\"pre_tokenizer\":null,"       \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"   \
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{"    \
    "\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},\"decoder\":{\"type\":"           \
    "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"  \
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","      \
    "\"content\":\" \",\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"unk_token\":"       \
    "\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,"         \
    "\"<0xE4>\":2,\"<0xB8>\":3,\"<0xAD>\":4,\"\xE2\x96\x81\":5,\"a\":6,\"b\":7,\"ab\":8,"          \
    "\"\xE2\x96\x81"                                                                               \
    "ab\":9,\"<0x0A>\":10},\"merges\":[[\"a\",\"b\"],[\"\xE2\x96\x81\",\"ab\"]]}}"

static void expected_ids_hold(const char *name, const char *dir) {
    char path[600], err[256] = "";
    snprintf(path, sizeof path, "%s/expected_ids.json", name);
    struct json *j;
    cr_assert_eq(json_load(&j, path, 1u << 20, err, sizeof err), 0, "%s", err);
    struct tokenizer *t;
    cr_assert_eq(tokenizer_open(&t, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(json_len(j), 25);
    for (size_t i = 0; i < json_len(j); i++) {
        const struct json *text = json_get(json_at(j, i), "text"),
                          *ids = json_get(json_at(j, i), "ids");
        struct arena a;
        struct tokens k;
        arena_init(&a, 1u << 24);
        cr_assert_eq(tokenizer_encode(t, bytes_of(json_str(text), json_str_len(text)), false, 0, &a,
                                      &k, err, sizeof err),
                     0, "%s", err);
        cr_assert_eq(k.n, json_len(ids), "'%s': %u tokens", json_str(text), k.n);
        for (uint32_t n = 0; n < k.n; n++)
            cr_assert_eq((int64_t)k.ids[n], json_int(json_at(ids, n), -1), "'%s' at %u",
                         json_str(text), n);
        arena_fini(&a);
    }
    tokenizer_close(t);
    json_free(j);
}

Test(tokenizer, qwen2_files_give_the_ids_of_the_reference) {
    const char *dir = data_dir("tokenizers/qwen2");
    expected_ids_hold(dir, dir);
}

Test(tokenizer, gpt2_files_give_the_ids_of_the_reference) {
    const char *dir = data_dir("tokenizers/gpt2");
    expected_ids_hold(dir, dir);
}

Test(tokenizer, minilm_gives_the_bert_ids_of_the_reference) {
    const char *model = minilm_dir();
    expected_ids_hold(data_dir("tokenizers/bert-base-uncased"), model);
}

Test(tokenizer, minilm_gives_the_golden_ids_of_fifty_sentences) {
    struct tokenizer *t;
    char err[256] = "", *line = NULL, *golden = NULL;
    size_t line_bytes = 0, golden_bytes = 0, n = 0;
    cr_assert_eq(tokenizer_open(&t, minilm_dir(), err, sizeof err), 0, "%s", err);
    FILE *texts = fopen("tests/golden/minilm/sentences.txt", "r");
    FILE *ids = fopen("tests/golden/minilm/ids.jsonl", "r");
    cr_assert(texts && ids);
    ssize_t got;
    while ((got = getline(&line, &line_bytes, texts)) > 0) {
        cr_assert_gt(getline(&golden, &golden_bytes, ids), 0);
        line[strcspn(line, "\n")] = '\0';
        struct arena a;
        arena_init(&a, 1u << 24);
        char *mine = encode_text(t, &a, line, true, 256);
        for (char *c = golden; *c; c++)
            if (strchr("[],\n", *c)) *c = ' ';
        char *want = golden + 1;
        want[strcspn(want, "\n")] = '\0';
        while (*want && want[strlen(want) - 1] == ' ') want[strlen(want) - 1] = '\0';
        cr_assert_str_eq(mine, want, "line %zu", n + 1);
        arena_fini(&a);
        n++;
    }
    cr_assert_eq(n, 50);
    fclose(texts);
    fclose(ids);
    free(line);
    free(golden);
    tokenizer_close(t);
}

Test(tokenizer, wordpiece_takes_the_longest_piece_first) {
    struct tokenizer *t = tokenizer_must_open(WORDPIECE);
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "unaffable", true, 0),
                     "1 0 2"); /* nine characters: too long */
    cr_assert_str_eq(encode_text(t, &a, "unable.", true, 0), "1 3 5 8 2");
    cr_assert_str_eq(encode_text(t, &a, "unx", false, 0), "0");
    cr_assert_str_eq(encode_text(t, &a, "Caf\xC3\xA9", false, 0), "10");
    cr_assert_str_eq(encode_text(t, &a,
                                 "a\xE4\xB8\xAD\xE4\xB8\xAD"
                                 "a",
                                 false, 0),
                     "6 9 9 6");
    cr_assert_str_eq(encode_text(t, &a, "", true, 0), "1 2");
    cr_assert_str_eq(encode_text(t, &a,
                                 "a[SEP]\ta\x01"
                                 "a",
                                 false, 0),
                     "6 2 6 7");
    arena_fini(&a);
    tokenizer_close(t);
}

Test(tokenizer, a_text_is_cut_to_its_limit_with_the_special_tokens_kept) {
    struct tokenizer *t = tokenizer_must_open(WORDPIECE);
    struct arena a;
    struct tokens k;
    char err[256];
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "a a a a a", true, 5), "1 6 6 6 2");
    cr_assert_eq(tokenizer_encode(t, bytes_str("a a a"), true, 5, &a, &k, err, sizeof err), 0);
    cr_assert(!k.truncated && k.n == 5);
    cr_assert_eq(tokenizer_encode(t, bytes_str("a a a a"), true, 5, &a, &k, err, sizeof err), 0);
    cr_assert(k.truncated && k.n == 5);
    cr_assert_str_eq(encode_text(t, &a, "a a a", true, 1),
                     "1 2"); /* never fewer than the specials */
    arena_fini(&a);
    tokenizer_close(t);
}

Test(tokenizer, wordpiece_decodes_words_and_glues_signs) {
    struct tokenizer *t = tokenizer_must_open(WORDPIECE);
    must_decode(t, (uint32_t[]){1, 3, 5, 6, 8, 2}, 6, true, "unable a.");
    must_decode(t, (uint32_t[]){1, 6, 2}, 3, false, "[CLS] a [SEP]");
    must_decode(t, (uint32_t[]){6, 99999, 6}, 3, false, "a a"); /* an id nobody has: no text */
    tokenizer_close(t);
}

Test(tokenizer, bytes_that_are_not_utf8_are_refused_with_their_place) {
    struct tokenizer *t = tokenizer_must_open(WORDPIECE);
    struct arena a;
    struct tokens k;
    char err[256];
    arena_init(&a, 1u << 20);
    cr_assert_lt(tokenizer_encode(t, bytes_str("ab\xC3("), true, 0, &a, &k, err, sizeof err), 0);
    cr_assert(strstr(err, "byte 2"), "%s", err);
    arena_fini(&a);
    tokenizer_close(t);
}

Test(tokenizer, merges_run_by_rank_and_from_the_left) {
    char *json = bytelevel_json(GPT2_SPLIT, "", true);
    struct tokenizer *t = tokenizer_must_open(json);
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "hello wor", false, 0), "303 306");
    cr_assert_str_eq(encode_text(t, &a, "aaaaaaa", false, 0), "308 310");
    cr_assert_str_eq(encode_text(t, &a, "hello<end>hello", false, 0), "303 400 303");
    arena_fini(&a);
    tokenizer_close(t);
    free(json);
}

Test(tokenizer, merges_may_be_pairs_or_strings) {
    uint64_t state = test_seed();
    char *pairs = bytelevel_json(GPT2_SPLIT, "", true),
         *strings = bytelevel_json(GPT2_SPLIT, "", false);
    struct tokenizer *a = tokenizer_must_open(pairs), *b = tokenizer_must_open(strings);
    struct buf text = {0};
    for (int i = 0; i < 200; i++) {
        random_text(&state, 40, &text);
        buf_append(&text, "hello wor aaaaa", 16); /* with its NUL */
        struct arena arena;
        arena_init(&arena, 1u << 20);
        cr_assert_str_eq(encode_text(a, &arena, (char *)text.data, false, 0),
                         encode_text(b, &arena, (char *)text.data, false, 0));
        arena_fini(&arena);
    }
    buf_fini(&text);
    tokenizer_close(a);
    tokenizer_close(b);
    free(pairs);
    free(strings);
}

Test(tokenizer, ignore_merges_takes_a_whole_word_that_is_a_token) {
    char *plain = bytelevel_json(GPT2_SPLIT, "", true);
    char *ignore = bytelevel_json(GPT2_SPLIT, ",\"ignore_merges\":true", true);
    struct tokenizer *a = tokenizer_must_open(plain), *b = tokenizer_must_open(ignore);
    struct arena arena;
    arena_init(&arena, 1u << 20);
    cr_assert_str_eq(encode_text(a, &arena, "whole", false, 0), "119 104 111 108 101");
    cr_assert_str_eq(encode_text(b, &arena, "whole", false, 0), "390");
    arena_fini(&arena);
    tokenizer_close(a);
    tokenizer_close(b);
    free(plain);
    free(ignore);
}

Test(tokenizer, byte_level_decoding_undoes_encoding) {
    uint64_t state = test_seed();
    char *json = bytelevel_json(GPT2_SPLIT, "", true);
    struct tokenizer *t = tokenizer_must_open(json);
    struct buf text = {0}, back = {0};
    for (int i = 0; i < 1000; i++) {
        struct arena a;
        struct tokens k;
        char err[256] = "";
        arena_init(&a, 1u << 24);
        random_text(&state, 80, &text);
        cr_assert_eq(tokenizer_encode(t, buf_bytes(&text), false, 0, &a, &k, err, sizeof err), 0,
                     "%s", err);
        buf_clear(&back);
        cr_assert_eq(tokenizer_decode(t, k.ids, k.n, false, &back), 0);
        cr_assert(bytes_eq(buf_bytes(&text), buf_bytes(&back)), "text %d", i);
        arena_fini(&a);
    }
    buf_fini(&text);
    buf_fini(&back);
    tokenizer_close(t);
    free(json);
}

/* Any ids at all: pieces are whole characters, and together what tokenizer_decode gives. */
static void stream_equals_decode(const char *json, uint32_t ids_max) {
    uint64_t state = test_seed();
    struct tokenizer *t = tokenizer_must_open(json);
    for (int i = 0; i < 500; i++) {
        uint32_t ids[24], n = (uint32_t)(rng_next(&state) % 24);
        struct buf whole = {0}, pieces = {0};
        struct token_stream *s = token_stream_new(t, i & 1);
        for (uint32_t k = 0; k < n; k++) {
            ids[k] = (uint32_t)(rng_next(&state) % ids_max);
            cr_assert_eq(token_stream_next(s, ids[k], &pieces), 0);
            cr_assert_eq(utf8_check(pieces.data, pieces.len), pieces.len,
                         "a piece ends in a character");
        }
        cr_assert_eq(token_stream_flush(s, &pieces), 0);
        cr_assert_eq(tokenizer_decode(t, ids, n, i & 1, &whole), 0);
        cr_assert(bytes_eq(buf_bytes(&whole), buf_bytes(&pieces)));
        cr_assert_eq(utf8_check(whole.data, whole.len), whole.len);
        token_stream_free(s);
        buf_fini(&whole);
        buf_fini(&pieces);
    }
    tokenizer_close(t);
}

Test(tokenizer, a_byte_level_stream_holds_unfinished_characters_back) {
    char *json = bytelevel_json(GPT2_SPLIT, "", true);
    stream_equals_decode(json, 410);
    struct tokenizer *t = tokenizer_must_open(json);
    struct token_stream *s = token_stream_new(t, true);
    struct buf out = {0};
    token_stream_next(s, 0xE4, &out);
    token_stream_next(s, 0xB8, &out);
    cr_assert_eq(out.len, 0);
    token_stream_next(s, 0xAD, &out);
    cr_assert(bytes_is(buf_bytes(&out), "\xE4\xB8\xAD"));
    buf_clear(&out);
    token_stream_next(s, 0xE4, &out);
    token_stream_next(s, 'x', &out); /* it goes wrong: one replacement, then the x */
    cr_assert(bytes_is(buf_bytes(&out), "\xEF\xBF\xBDx"));
    buf_fini(&out);
    token_stream_free(s);
    tokenizer_close(t);
    free(json);
}

Test(tokenizer, byte_fallback_spells_what_is_not_in_the_vocabulary) {
    struct tokenizer *t = tokenizer_must_open(FALLBACK);
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "ab\xE4\xB8\xAD\nzz b", true, 0), "1 9 2 3 4 10 0 5 7");
    cr_assert_str_eq(encode_text(t, &a, "", true, 0), "1");
    must_decode(t, (uint32_t[]){1, 9, 2, 3, 4, 10, 7}, 7, true, "ab\xE4\xB8\xAD\nb");
    must_decode(t, (uint32_t[]){5, 5, 6}, 3, true, " a"); /* one blank goes */
    must_decode(t, (uint32_t[]){2, 3, 6}, 3, true,
                "\xEF\xBF\xBD\xEF\xBF\xBD"
                "a");
    arena_fini(&a);
    tokenizer_close(t);
    stream_equals_decode(FALLBACK, 12);
}

Test(tokenizer, a_document_without_spaces_is_one_word_and_still_merges_in_time) {
    struct tokenizer *t = tokenizer_must_open(FALLBACK);
    struct arena a;
    struct tokens k;
    char err[256] = "", *text = malloc(600000);
    arena_init(&a, 1u << 26);
    for (uint32_t i = 0; i < 600000; i++) text[i] = i % 2 ? 'b' : 'a';
    cr_assert_eq(tokenizer_encode(t, bytes_of(text, 600000), false, 0, &a, &k, err, sizeof err), 0,
                 "%s", err);
    cr_assert_eq(k.n, 300000);
    arena_fini(&a);
    free(text);
    tokenizer_close(t);
}

Test(tokenizer, added_tokens_take_the_space_they_ask_for) {
    char *json = bytelevel_json(GPT2_SPLIT, "", true);
    static const char added[] =
        "\"added_tokens\":[{\"id\":401,\"content\":\"<m>\",\"lstrip\":true,\"rstrip\":true,"
        "\"normalized\":false},"
        "{\"id\":402,\"content\":\"hell\",\"single_word\":true,\"normalized\":false},"
        "{\"id\":403,\"content\":\"<m><m>\",\"normalized\":false},";
    struct buf b = {0};
    buf_printf(&b, "{%s%s", added, json + strlen("{\"added_tokens\":["));
    buf_u8(&b, 0);
    struct tokenizer *t = tokenizer_must_open((char *)b.data);
    struct arena a;
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "a \n<m>  b", false, 0), "97 401 98");
    cr_assert_str_eq(encode_text(t, &a, "hello", false, 0), "303");
    cr_assert_str_eq(encode_text(t, &a, "hell.hell", false, 0),
                     "302 46 302");                                         /* the model's own id */
    cr_assert_str_eq(encode_text(t, &a, "<m><m><m>", false, 0), "403 401"); /* the longest wins */
    cr_assert_eq(tokenizer_id(t, "<m>"), 401);
    cr_assert_eq(tokenizer_id(t, "nobody"), -1);
    cr_assert_eq(tokenizer_vocab(t), 404);
    arena_fini(&a);
    tokenizer_close(t);
    buf_fini(&b);
    free(json);
}

Test(tokenizer, what_is_not_supported_is_refused_by_name) {
    tokenizer_must_refuse("{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "WordLevel");
    tokenizer_must_refuse("{\"normalizer\":{\"type\":\"Nmt\"},\"model\":{}}", "Nmt");
    tokenizer_must_refuse("{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{}}",
                          "UnicodeScripts");
    tokenizer_must_refuse("{\"decoder\":{\"type\":\"CTC\"},\"model\":{}}", "CTC");
    tokenizer_must_refuse("{\"post_processor\":{\"type\":\"Other\"},\"model\":{}}", "Other");
    tokenizer_must_refuse("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},"
                          "\"behavior\":\"Contiguous\"},\"model\":{}}",
                          "Contiguous");
    char *json = bytelevel_json(GPT2_SPLIT, ",\"end_of_word_suffix\":\"</w>\"", true);
    tokenizer_must_refuse(json, "end_of_word_suffix");
    free(json);
    json = bytelevel_json(GPT2_SPLIT, ",\"dropout\":0.1", true);
    tokenizer_must_refuse(json, "dropout");
    free(json);
    json = bytelevel_json(
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}", "", true);
    tokenizer_must_refuse(json, "offset");
    free(json);
}

Test(tokenizer, damaged_files_are_refused_with_the_place) {
    tokenizer_must_refuse("", "not valid JSON");
    tokenizer_must_refuse("[]", "model");
    tokenizer_must_refuse("{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "model.vocab");
    tokenizer_must_refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
                          "id");
    tokenizer_must_refuse(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "id");
    tokenizer_must_refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"a b\"]}}",
                          "item 0");
    tokenizer_must_refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[[\"a\"]]}}",
                          "item 0");
    tokenizer_must_refuse("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{},\"unk_token\":\"u\"}}",
                          "unk_token");
    struct buf deep = {0}; /* a Sequence in a Sequence, a hundred times */
    buf_printf(&deep, "{\"normalizer\":");
    for (int i = 0; i < 100; i++) buf_printf(&deep, "{\"type\":\"Sequence\",\"normalizers\":[");
    buf_printf(&deep, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 100; i++) buf_printf(&deep, "]}");
    buf_printf(&deep, ",\"model\":{}}");
    buf_u8(&deep, 0);
    tokenizer_must_refuse((char *)deep.data, "deeper");
    buf_fini(&deep);
}

/* Empty tokens, merges that make what they are made of, and patterns that match nothing would run
 * for ever in a program that trusts them. */
Test(tokenizer, files_that_go_in_circles_come_to_an_end, .timeout = 60) {
    static const char *const files[] = {
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[["
        "\"\",\"a\"],"
        "[\"a\",\"\"],[\"\",\"\"],[\"a\",\"b\"]]}}",
        "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"\",\"vocab\":{\"\":0,\"##\":1,\"a\":2}}"
        "}",
        "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"\",0],[\"a\",0],[\"\",1]]}}",
        "{\"added_tokens\":[{\"id\":3,\"content\":\"\"},{\"id\":3,\"content\":\"b\"},{\"id\":2,"
        "\"content\":\"b\"}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
        "\"Replace\",\"pattern\":{\"Regex\":\"\"},\"content\":\"a\"},{\"type\":\"Replace\","
        "\"pattern\":"
        "{\"String\":\"a\"},\"content\":\"aab\"}]},\"pre_tokenizer\":{\"type\":\"Split\","
        "\"pattern\":"
        "{\"Regex\":\"x*\"},\"behavior\":\"Isolated\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
        "\"a\":0},"
        "\"merges\":[]}}"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct tokenizer *t = tokenizer_must_open(files[i]);
        struct arena a;
        struct tokens k;
        struct buf text = {0};
        char err[256] = "";
        arena_init(&a, 1u << 24);
        cr_assert_eq(
            tokenizer_encode(t, bytes_str("abba a\n##ab"), true, 0, &a, &k, err, sizeof err), 0,
            "%s", err);
        cr_assert(k.n > 0 && k.n < 1000, "%u tokens", k.n);
        cr_assert_eq(tokenizer_decode(t, k.ids, k.n, false, &text), 0);
        buf_fini(&text);
        arena_fini(&a);
        tokenizer_close(t);
    }
}

Test(tokenizer, a_normalizer_that_multiplies_the_text_is_stopped_at_a_limit) {
    struct buf json = {0};
    buf_printf(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 2; i++) { /* an a becomes 20,000 b, each b 20,000 c */
        buf_printf(&json, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"%c\"},\"content\":\"",
                   i ? "," : "", 'a' + i);
        for (int n = 0; n < 20000; n++) buf_u8(&json, (uint8_t)('b' + i));
        buf_printf(&json, "\"}");
    }
    buf_printf(&json, "]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    buf_u8(&json, 0);
    struct tokenizer *t = tokenizer_must_open((char *)json.data);
    struct arena a;
    struct tokens k;
    char err[256] = "";
    arena_init(&a, 1u << 20);
    cr_assert_eq(tokenizer_encode(t, bytes_str("a"), false, 0, &a, &k, err, sizeof err), ERR_LIMIT);
    cr_assert(strstr(err, "limit"), "%s", err);
    arena_fini(&a);
    tokenizer_close(t);
    buf_fini(&json);
}

Test(tokenizer, a_file_too_large_to_be_one_is_refused_with_the_limit) {
    struct folder f;
    struct tokenizer *t;
    char path[400], err[512] = "";
    folder_begin(&f);
    folder_write(&f, "tokenizer.json", "{", 1);
    snprintf(path, sizeof path, "%s/tokenizer.json", f.dir);
    cr_assert_eq(truncate(path, (256 << 20) + 1), 0); /* a hole */
    cr_assert_eq(tokenizer_open(&t, f.dir, err, sizeof err), ERR_LIMIT);
    cr_assert(strstr(err, path) && strstr(err, "268435456"), "%s", err);
    folder_end(&f);
}

Test(tokenizer, a_file_cut_or_changed_anywhere_never_crashes) {
    uint64_t state = test_seed();
    char *json = bytelevel_json(GPT2_SPLIT, "", true);
    void *unigram;
    size_t unigram_bytes;
    cr_assert_eq(file_read("tests/golden/tokenizers/xlmr/tokenizer.json", 1u << 20, &unigram,
                           &unigram_bytes, NULL, 0),
                 0);
    const char *files[] = {json, WORDPIECE, FALLBACK, unigram};
    const size_t sizes[] = {strlen(json), strlen(WORDPIECE), strlen(FALLBACK), unigram_bytes};
    uint32_t opened = 0, refused = 0;
    struct folder f;
    folder_begin(&f);
    for (int i = 0; i < 800; i++) {
        size_t n = sizes[i / 2 % 4], at = rng_next(&state) % n;
        char *bad = bytes_dup(bytes_of(files[i / 2 % 4], n)), err[256];
        struct tokenizer *t;
        if (i % 2)
            n = at;
        else
            for (int k = 0; k < 3; k++)
                bad[rng_next(&state) % n] = (char)(32 + rng_next(&state) % 95);
        folder_write(&f, "tokenizer.json", bad, n);
        if (tokenizer_open(&t, f.dir, err, sizeof err) == 0) {
            struct arena a;
            struct tokens k;
            arena_init(&a, 1u << 20);
            tokenizer_encode(t, bytes_str("hello \xE4\xB8\xAD <end>."), true, 8, &a, &k, err,
                             sizeof err);
            arena_fini(&a);
            tokenizer_close(t);
            opened++;
        } else {
            cr_assert_neq(err[0], '\0');
            refused++;
        }
        free(bad);
    }
    folder_end(&f);
    cr_assert(opened > 0 && refused > 400, "%u opened, %u refused", opened, refused);
    free(json);
    free(unigram);
}

Test(tokenizer, a_directory_with_vocab_txt_is_a_bert_tokenizer) {
    struct folder f;
    struct tokenizer *t;
    struct arena a;
    char err[256] = "";
    static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\r\n[SEP]\nhe\n##llo\n.\n";
    folder_begin(&f);
    cr_assert_eq(tokenizer_open(&t, f.dir, err, sizeof err), -ENOENT);
    cr_assert(strstr(err, "vocab.txt"), "%s", err);
    folder_write(&f, "vocab.txt", vocab, sizeof vocab - 1);
    cr_assert_eq(tokenizer_open(&t, f.dir, err, sizeof err), 0, "%s", err);
    arena_init(&a, 1u << 20);
    cr_assert_str_eq(encode_text(t, &a, "Hello. x[SEP]", true, 0), "2 4 5 6 1 3 3");
    arena_fini(&a);
    tokenizer_close(t);
    folder_end(&f);
}

/* The scanners are checked against the patterns they stand for, run by PCRE2. */
static void scanner_equals_pattern(const char *pattern) {
    uint64_t state = test_seed();
    struct splitter scanner, regex;
    char err[256] = "", wrapped[512];
    struct buf text = {0};
    snprintf(wrapped, sizeof wrapped, "(?:%s)", pattern);
    cr_assert_eq(splitter_open_regex(&scanner, pattern, err, sizeof err), 0);
    cr_assert_neq(scanner.kind, SPLITTER_REGEX);
    cr_assert_eq(splitter_open_regex(&regex, wrapped, err, sizeof err), 0, "%s", err);
    cr_assert_eq(regex.kind, SPLITTER_REGEX);
    for (int i = 0; i < 2000; i++) {
        static const char *const spice[] = {"'s",        "'LL",  "'re ",    " 'T",
                                            "\r\n\r\n ", "  \n", "123456 ", "'\xC5\xBF"};
        random_text(&state, 60, &text);
        buf_append(&text, spice[i % 8], strlen(spice[i % 8]));
        size_t at = 0, b1, e1, b2, e2;
        while (at < text.len) {
            cr_assert_eq(splitter_find(&scanner, buf_bytes(&text), at, &b1, &e1), 1);
            cr_assert_eq(splitter_find(&regex, buf_bytes(&text), at, &b2, &e2), 1);
            cr_assert(b1 == b2 && e1 == e2, "%zu: [%zu,%zu) and [%zu,%zu) in '%.*s'", at, b1, e1,
                      b2, e2, (int)text.len, (char *)text.data);
            at = e1;
        }
    }
    buf_fini(&text);
    splitter_fini(&scanner);
    splitter_fini(&regex);
}

Test(split, the_gpt2_scanner_equals_its_pattern) {
    scanner_equals_pattern(SPLIT_GPT2);
}

#define MODERN(digits)                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

Test(split, the_qwen2_scanner_equals_its_pattern) {
    scanner_equals_pattern(MODERN("\\p{N}"));
}

Test(split, the_llama3_scanner_equals_its_pattern) {
    scanner_equals_pattern(MODERN("\\p{N}{1,3}"));
}

Test(split, the_o200k_scanner_equals_its_pattern) {
    scanner_equals_pattern(SPLIT_O200K);
}

Test(unicode, a_long_run_of_marks_is_ordered_and_composed) {
    /* 300,000 marks of two classes, alternating: an exchange sort would take hours. */
    struct buf in = {0}, out = {0};
    buf_append(&in, "e", 1);
    for (int i = 0; i < 150000; i++)
        buf_append(&in, "\xCC\x81\xCC\xA3", 4); /* above (230), below (220) */
    cr_assert_eq(unicode_normalize(UNICODE_NFC, buf_bytes(&in), &out), 0);
    cr_assert_eq(unicode_count(buf_bytes(&out)), 300000);
    cr_assert_eq(memcmp(out.data, "\xE1\xBA\xB9\xCC\xA3", 5),
                 0); /* e with dot below, then the others */
    buf_clear(&in);
    buf_append(&in, out.data, out.len);
    buf_clear(&out);
    cr_assert_eq(unicode_normalize(UNICODE_NFC, buf_bytes(&in), &out), 0);
    cr_assert(bytes_eq(buf_bytes(&in), buf_bytes(&out)), "a normal form stays as it is");
    buf_fini(&in);
    buf_fini(&out);
}

Test(unicode, signs_that_came_after_unicode_8_are_as_letters_to_bert) {
    cr_assert(unicode_is_punct(0x2E42) && !unicode_is_punct(0x2E43)); /* Unicode 7.0, 9.0 */
    cr_assert(unicode_is_accent(0x0301) && !unicode_is_accent(0x1DF6));
    cr_assert(unicode_is_format(0x200B) && !unicode_is_format(0x08E2));
    cr_assert(unicode_is_punct('$') && unicode_is_punct(0x3002) && !unicode_is_punct('a'));
}
