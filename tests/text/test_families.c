/* test_families.c - a tokenizer of each family against Hugging Face's tokenizers, string by string:
 * tests/golden/tokenizer_families.py says how the goldens were made. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/text/help.h"

#define GOLDEN "tests/golden/tokenizers"
#define STRINGS 10000u
#define FILE_BYTES_MAX (16u << 20)

static uint32_t fnv(const void *data, size_t bytes) {
    const uint8_t *s = data;
    uint32_t h = 0x811C9DC5u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ s[i]) * 0x01000193u;
    return h;
}

static uint32_t *hashes_of(const char *family, const char *name) {
    char path[256], err[256] = "";
    void *data;
    size_t bytes;
    snprintf(path, sizeof path, GOLDEN "/%s/%s", family, name);
    cr_assert_eq(file_read(path, FILE_BYTES_MAX, &data, &bytes, err, sizeof err), 0, "%s", err);
    cr_assert_eq(bytes, STRINGS * sizeof(uint32_t), "%s", path);
    return data;
}

/* Every string gives the reference's ids, and they give the reference's text. */
static void family_equals_the_reference(const char *family) {
    char dir[256], err[256] = "", *line = NULL;
    size_t room = 0;
    ssize_t got;
    struct tokenizer *t;
    uint32_t *ids = hashes_of(family, "ids.u32"), *texts = hashes_of(family, "text.u32");
    uint32_t n = 0, ids_wrong = 0, texts_wrong = 0;
    struct buf text = {0};
    struct arena a;
    arena_init(&a, 1u << 24);
    snprintf(dir, sizeof dir, GOLDEN "/%s", family);
    cr_assert_eq(tokenizer_open(&t, dir, err, sizeof err), 0, "%s", err);
    FILE *f = fopen(GOLDEN "/strings.jsonl", "r");
    cr_assert(f);
    for (; (got = getline(&line, &room, f)) > 0; n++) {
        struct json *list;
        struct buf wrapped = {0};
        struct tokens k;
        buf_printf(&wrapped, "[%.*s]", (int)got - 1, line);
        cr_assert_eq(json_parse(&list, wrapped.data, wrapped.len, err, sizeof err), 0, "%s", err);
        const struct json *s = json_at(list, 0);
        arena_reset(&a);
        cr_assert_eq(tokenizer_encode(t, bytes_of(json_str(s), json_str_len(s)), true, 0, &a, &k,
                                      err, sizeof err),
                     0, "%s", err);
        if (fnv(k.ids, k.n * sizeof *k.ids) != ids[n] && ids_wrong++ < 3)
            cr_log_error("%s: string %u: %.*s: other ids: %s", family, n + 1, (int)got - 1, line,
                         ids_text(&a, k.ids, k.n));
        buf_clear(&text);
        cr_assert_eq(tokenizer_decode(t, k.ids, k.n, true, &text), 0);
        if (fnv(text.data, text.len) != texts[n] && texts_wrong++ < 3)
            cr_log_error("%s: string %u: %.*s: another text: %.*s", family, n + 1, (int)got - 1,
                         line, (int)text.len, (const char *)text.data);
        buf_fini(&wrapped);
        json_free(list);
    }
    fclose(f);
    cr_expect_eq(n, STRINGS);
    cr_expect_eq(ids_wrong, 0, "%s: %u of %u strings have other ids", family, ids_wrong, n);
    cr_expect_eq(texts_wrong, 0, "%s: %u of %u give another text", family, texts_wrong, n);
    tokenizer_close(t);
    arena_fini(&a);
    buf_fini(&text);
    free(line);
    free(ids);
    free(texts);
}

#define FAMILY(name, folder)                                                                       \
    Test(families, name##_is_as_the_reference) {                                                   \
        family_equals_the_reference(folder);                                                       \
    }
FAMILY(gpt2, "gpt2")
FAMILY(qwen2, "qwen2")
FAMILY(llama3, "llama3")
FAMILY(o200k, "o200k")
FAMILY(bert, "bert")
FAMILY(bert_cased, "bert-cased")
FAMILY(llama2, "llama2")
FAMILY(mistral, "mistral")
FAMILY(gemma, "gemma")
FAMILY(xlmr, "xlmr")
FAMILY(t5, "t5")
FAMILY(words, "words")
