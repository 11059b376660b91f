/* test_schema.c - texts written under a mask by random choice, with tokenizers of each family;
 * validate.py has python3-jsonschema judge them. SEED=N draws others. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/json.h"
#include "base/rng.h"
#include "workers/encode/tokenizer.h"
#include "workers/schema/compile.h"
#include "workers/schema/writer.h"

#define TOKENS_MAX 160u /* beyond what the shortest text needs */

/* Under a sanitizer the work takes ten times as long: three of the families are enough. */
#if defined(__SANITIZE_ADDRESS__)
#define EVERY 4
#else
#define EVERY 1
#endif

/* Of 200 schemas those that the small vocabularies have the bytes for. */
static const struct {
    const char *name;
    uint32_t least;
} families[] = {{"gpt2", 150},  {"llama2", 150}, {"llama3", 150}, {"mistral", 150}, {"o200k", 150},
                {"gemma", 150}, {"qwen2", 150},  {"t5", 20},      {"xlmr", 20}};

static uint32_t chosen(uint64_t *random, const uint32_t *bits, uint32_t vocab) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) n += bits[i / 32] >> (i % 32) & 1;
    if (n == 0) return UINT32_MAX;
    uint32_t k = (uint32_t)(rng_next(random) % n);
    for (uint32_t i = 0;; i++)
        if ((bits[i / 32] >> (i % 32) & 1) && k-- == 0) return i;
}

/* Writes one text with at most `most` tokens; it must end as an instance. */
static void write_text(const struct masks *m, const struct tokenizer *t, uint32_t most,
                       uint64_t *random, const char *schema, FILE *out) {
    const struct lexicon *l = m->l;
    struct writer w;
    struct buf text = {0};
    char err[256] = "";
    uint32_t *ids = calloc(most + 1, sizeof *ids), n = 0,
             *bits = calloc(l->vocab / 32 + 1, sizeof *bits);
    cr_assert_eq(writer_init(&w, m, most, err, sizeof err), 0, "%s: %s", schema, err);
    while (!writer_must_end(&w)) {
        if (writer_may_end(&w) && (n == most || rng_next(random) % 4 == 0)) break;
        cr_assert_eq(writer_mask(&w, bits), 0);
        for (uint32_t i = (uint32_t)rng_next(random) % 61; i < l->vocab; i += 61)
            cr_assert_eq(writer_allows(&w, i), bits[i / 32] >> (i % 32) & 1,
                         "%s: token %u behind %u", schema, i, n);
        uint32_t id = chosen(random, bits, l->vocab);
        if (id == UINT32_MAX && writer_may_end(&w)) break;
        cr_assert_neq(id, UINT32_MAX, "%s: nothing is legal after %u of %u tokens", schema, n,
                      most);
        cr_assert_lt(n, most, "%s", schema);
        ids[n++] = id;
        cr_assert_eq(writer_take(&w, id), 0, "%s", schema);
    }
    cr_assert(writer_may_end(&w), "%s", schema);
    cr_assert_eq(tokenizer_decode(t, ids, n, true, &text), 0);
    struct json *j;
    cr_assert_eq(json_parse(&j, text.data, text.len, err, sizeof err), 0, "%s: %s: %.*s", schema,
                 err, (int)text.len, (const char *)text.data);
    json_free(j);
    if (out) {
        struct json *line = json_new_array();
        json_push(line, json_new_str(schema, strlen(schema)));
        json_push(line, json_new_str((const char *)text.data, text.len));
        char *printed = json_text(line, 0);
        fprintf(out, "%s\n", printed);
        free(printed);
        json_free(line);
    }
    buf_fini(&text);
    free(bits);
    free(ids);
    writer_fini(&w);
}

/* Writes texts of a schema; false when the vocabulary has not the bytes for it. */
static bool schema_with(const char *schema, const struct lexicon *l, const struct tokenizer *t,
                        uint64_t *random, FILE *out) {
    struct grammar g;
    char err[400] = "";
    cr_assert_eq(schema_compile(&g, bytes_str(schema), err, sizeof err), 0, "%s", err);
    struct masks m;
    int rc = masks_init(&m, &g, l, err, sizeof err);
    if (rc == ERR_FIELD && strstr(err, "lacks a byte")) {
        grammar_fini(&g);
        return false;
    }
    cr_assert_eq(rc, 0, "%s: %s", schema, err);
    uint32_t least = writer_shortest(&m);
    struct writer w;
    if (least > 0) {
        cr_assert_eq(writer_init(&w, &m, least - 1, err, sizeof err), ERR_LIMIT);
        char number[24];
        snprintf(number, sizeof number, " %u tokens", least);
        cr_assert(strstr(err, number), "%s", err);
    }
    for (uint32_t i = 0; i < 3; i++) {
        write_text(&m, t, least, random, schema, out);
        write_text(&m, t, least + 10, random, schema, out);
        write_text(&m, t, least + TOKENS_MAX, random, schema, out);
    }
    masks_fini(&m);
    grammar_fini(&g);
    return true;
}

/* Schemas of which texts were written with a family's tokenizer. */
static uint32_t family(const char *name, uint64_t *random, FILE *out) {
    char dir[128], err[256] = "", *line = NULL;
    size_t room = 0;
    uint32_t written = 0;
    struct tokenizer *t;
    struct lexicon l;
    snprintf(dir, sizeof dir, "tests/golden/tokenizers/%s", name);
    cr_assert_eq(tokenizer_open(&t, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(lexicon_init(&l, t, tokenizer_vocab(t), err, sizeof err), 0, "%s", err);
    FILE *in = fopen("tests/schema/schemas.jsonl", "r");
    cr_assert_not_null(in);
    for (ssize_t got; (got = getline(&line, &room, in)) > 0;) {
        line[got - 1] = 0;
        written += schema_with(line, &l, t, random, out);
    }
    free(line);
    fclose(in);
    lexicon_fini(&l);
    tokenizer_close(t);
    return written;
}

/* Under uniform choice among the legal tokens, which is what random logits give. */
Test(schema, what_is_written_under_a_mask_validates, .timeout = 600) {
    char path[] = "/tmp/schema-texts-XXXXXX", command[128];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    FILE *out = fdopen(fd, "w");
    uint64_t random = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1;
    for (uint32_t f = 0; f < sizeof families / sizeof *families; f += EVERY) {
        uint32_t written = family(families[f].name, &random, out);
        cr_assert_geq(written, families[f].least, "%s: %u schemas", families[f].name, written);
    }
    fclose(out);
    snprintf(command, sizeof command, "/usr/bin/python3 tests/schema/validate.py %s", path);
    int status = system(command);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        cr_skip_test("python3-jsonschema is not installed: ops/setup test");
    cr_assert_eq(status, 0, "see %s", path);
    unlink(path);
}

static void refused(const char *schema, const char *says) {
    struct grammar g;
    char err[400] = "";
    cr_assert_lt(schema_compile(&g, bytes_str(schema), err, sizeof err), 0, "%s", schema);
    cr_assert(strstr(err, says), "%s: %s", schema, err);
}

Test(schema, choices_that_multiply_are_refused_at_once) {
    static char text[65536]; /* 20 choices of 20 choices of ..., 12 deep, that start nothing */
    size_t n = (size_t)snprintf(text, sizeof text, "{\"$ref\":\"#/$defs/a\",\"$defs\":{");
    for (char d = 'a'; d < 'm'; d++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "\"%c\":{\"anyOf\":[", d);
        for (int i = 0; i < 20; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s{\"$ref\":\"#/$defs/%c\"}",
                                  i ? "," : "", d + 1);
        n += (size_t)snprintf(text + n, sizeof text - n, "]},");
    }
    snprintf(text + n, sizeof text - n, "\"m\":{\"anyOf\":[false]}}}");
    refused(text, "too many alternatives");
}

Test(schema, what_is_not_supported_is_refused_with_its_name_and_place) {
    refused("{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}", "#/properties/a: not");
    refused("{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", "back reference");
    refused("{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "looks around");
    refused("{\"type\":\"string\",\"pattern\":\"[\\\\d-x]\"}", "a class as its end");
    refused("{\"type\":\"string\",\"pattern\":\"[a-\\\\d]\"}", "a class as its end");
    refused("{\"type\":\"string\",\"pattern\":\"[\\\\w-\\\\s]\"}", "a class as its end");
    refused("{\"type\":\"string\",\"format\":\"uri\"}", "format");
    refused("{\"enum\":[0.5,0.30000000000000004]}", "#: enum has a number of more than 16 digits");
    refused("{\"const\":{\"a\":[12345678901234567890]}}", "#: const has a number of more than 16");
    refused("{\"const\":1.7976931348623157e308}", "#: const has a number");
    refused("{\"type\":\"number\",\"multipleOf\":0.1}", "multipleOf");
    refused("{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":3}]}", "#: allOf");
    refused("{\"enum\":[1],\"minimum\":3}", "#: minimum");
    refused("{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "oneOf");
    refused("{\"$ref\":\"#\"}", "leads back to itself");
    refused("{}", "any value");
    refused("false", "no value");
    refused("{\"type\":\"integer\",\"exclusiveMinimum\":1,\"exclusiveMaximum\":2}", "no value");
    refused("{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#\"}}", "no value");
    refused("{\"type\":\"string\",\"pattern\":\"((((a{1000}){1000}){1000}))\"}", "too large");
    refused("true", "any value");
    refused("[]", "schema: #: this is no schema");
    refused("{\"type\":\"strng\"}", "schema: #: type \"strng\" is none of null, boolean, integer");
    refused("{\"type\":[\"null\",\"x\"]}", "type \"x\" is none of");
    refused("{\"type\":5}", "type that is no string is none of");
    refused("[1", "schema: not valid JSON");
}
