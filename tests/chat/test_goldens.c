/* What transformers renders, the engine renders byte by byte; what it refuses, the engine does. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "workers/chat/chat.h"
#include "workers/chat/jinja.h"
#include "workers/encode/tokenizer.h"

#define GOLDEN "tests/golden/chat"
#define FILE_BYTES (16u << 20)
#define A_DAY 1795511107 /* what the goldens were made on: 24 November 2026, 9:05:07 */

/* The lines of a file, parsed one by one. */
struct lines {
    char *text, *at;
    struct json *json;
};

static void lines_begin(struct lines *l, const char *dir, const char *name) {
    char path[512], err[256] = "";
    size_t bytes;
    void *text;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert_eq(file_read(path, FILE_BYTES, &text, &bytes, err, sizeof err), 0, "%s", err);
    *l = (struct lines){.text = text, .at = text};
}

static const struct json *lines_next(struct lines *l) {
    char err[256] = "", *end = strchr(l->at, '\n');
    json_free(l->json);
    l->json = NULL;
    if (!end) return NULL;
    cr_assert_eq(json_parse(&l->json, l->at, (size_t)(end - l->at), err, sizeof err), 0, "%s", err);
    l->at = end + 1;
    return l->json;
}

static void lines_end(struct lines *l) {
    json_free(l->json);
    free(l->text);
}

/* A model's directory with that template. */
static void make_model(const char *dir, const char *golden, const char *template) {
    char command[1024];
    snprintf(command, sizeof command,
             "mkdir -p '%s' && cp '%s/%s.jinja' '%s/chat_template.jinja' && cp '%s/tokenizer.json' "
             "'%s' && echo '{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}}' >'%s/"
             "tokenizer_config.json'",
             dir, golden, template, dir, golden, dir, dir);
    cr_assert_eq(system(command), 0);
}

static void remove_model(const char *dir) {
    char command[512];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    cr_assert_eq(system(command), 0);
}

static uint32_t fnv1a(const uint32_t *ids, uint32_t n) {
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) h = (h ^ (ids[i] >> (8 * k) & 0xFF)) * 16777619u;
    return h;
}

static void same_ids(const struct tokenizer *t, struct arena *a, struct bytes text,
                     const struct json *ids) {
    struct tokens k;
    char err[256] = "";
    cr_assert_eq(tokenizer_encode(t, text, false, 0, a, &k, err, sizeof err), 0, "%s", err);
    cr_assert_eq(k.n, json_int(json_at(ids, 0), -1));
    cr_assert_eq(fnv1a(k.ids, k.n), json_int(json_at(ids, 1), -1));
}

/* Every conversation in that template; ids too. */
static void renders(const char *golden, const char *template) {
    char dir[] = "/tmp/penstock-chat-XXXXXX", name[128], err[512] = "";
    struct lines inputs, expected;
    struct tokenizer *t;
    struct chat *c;
    cr_assert(mkdtemp(dir));
    make_model(dir, golden, template);
    cr_assert_eq(chat_open(&c, dir, err, sizeof err), 0, "%s", err);
    cr_assert_eq(tokenizer_open(&t, dir, err, sizeof err), 0, "%s", err);
    snprintf(name, sizeof name, "%s.jsonl", template);
    lines_begin(&inputs, golden, "inputs.jsonl");
    lines_begin(&expected, golden, name);
    uint32_t lines = 0, texts = 0;
    for (const struct json *in; (in = lines_next(&inputs)); lines++) {
        const struct json *want = lines_next(&expected), *text = json_get(want, "text");
        struct chat_input given = {
            .messages = json_get(in, "messages"), .vars = in, .now_s = A_DAY};
        struct arena a;
        struct bytes got;
        cr_assert(want, "%s: %u lines only", name, lines);
        arena_init(&a, 64u << 20);
        int rc = chat_render(c, &given, &a, &got, err, sizeof err);
        if (text) {
            cr_assert_eq(rc, 0, "%s, line %u: %s", template, lines + 1, err);
            cr_assert(bytes_eq(got, bytes_of(json_str(text), json_str_len(text))),
                      "%s, line %u:\n%.*s\nnot\n%s", template, lines + 1, (int)got.len,
                      (const char *)got.data, json_str(text));
            same_ids(t, &a, got, json_get(want, "ids"));
            texts++;
        } else {
            cr_assert(rc == ERR_FIELD && *err, "%s, line %u is rendered, but: %s", template,
                      lines + 1, json_str(json_get(want, "error")));
        }
        arena_fini(&a);
    }
    cr_assert(lines >= 100 && texts >= 50, "%s: %u lines, %u texts", template, lines, texts);
    lines_end(&inputs);
    lines_end(&expected);
    tokenizer_close(t);
    chat_close(c);
    remove_model(dir);
}

Test(goldens, a_template_like_deepseek_r1s_renders_as_in_transformers) {
    renders(GOLDEN, "r1");
}
Test(goldens, a_template_like_qwen2_5s_renders_as_in_transformers) {
    renders(GOLDEN, "chatml-tools");
}
Test(goldens, a_template_like_qwen3s_renders_as_in_transformers) {
    renders(GOLDEN, "chatml-think");
}
Test(goldens, a_template_like_llama_3s_renders_as_in_transformers) {
    renders(GOLDEN, "llama3");
}
Test(goldens, a_template_like_llama_3_1s_renders_as_in_transformers) {
    renders(GOLDEN, "llama31");
}
Test(goldens, a_template_like_mistrals_renders_as_in_transformers) {
    renders(GOLDEN, "turns");
}
Test(goldens, a_template_like_gemma_3s_renders_as_in_transformers) {
    renders(GOLDEN, "parts");
}
Test(goldens, a_template_of_macros_that_call_themselves_renders_as_in_transformers) {
    renders(GOLDEN, "macros");
}

/* The variables that short templates are rendered with. */
static void read_variables(struct arena *a, struct value *out) {
    struct lines l;
    lines_begin(&l, GOLDEN, "expressions.jsonl");
    cr_assert_eq(value_of_json(a, json_get(lines_next(&l), "variables"), out), 0);
    lines_end(&l);
}

/* Whether a short template gives what its line says; *refused: it does not, but says so. */
static bool as_said(const struct json *row, struct value vars, bool *refused) {
    const struct json *source = json_get(row, "source"), *text = json_get(row, "text");
    struct buf out = {.max_bytes = 1u << 20};
    struct jinja *t = NULL;
    struct arena a;
    char err[512] = "";
    arena_init(&a, 64u << 20);
    int rc = jinja_open(&t, bytes_of(json_str(source), json_str_len(source)), err, sizeof err);
    if (rc == 0) rc = jinja_render(t, &a, vars, A_DAY, &out, err, sizeof err);
    *refused = text && rc < 0;
    bool same =
        rc < 0 ? !text
               : text && bytes_eq(buf_bytes(&out), bytes_of(json_str(text), json_str_len(text)));
    if (!same)
        fprintf(stderr, "%s\n  gives: %.*s\n  not:   %s\n", json_str(source),
                rc == 0 ? (int)out.len : (int)strlen(err), rc == 0 ? (char *)out.data : err,
                json_str(text ? text : json_get(row, "error")));
    arena_fini(&a);
    jinja_close(t);
    buf_fini(&out);
    return same;
}

Test(goldens, each_construct_gives_what_it_gives_in_transformers) {
    struct lines l;
    struct arena given;
    struct value vars;
    uint32_t lines = 0, wrong = 0;
    bool refused;
    arena_init(&given, 16u << 20);
    read_variables(&given, &vars);
    lines_begin(&l, GOLDEN, "expressions.jsonl");
    lines_next(&l);
    for (const struct json *row; (row = lines_next(&l)); lines++)
        wrong += !as_said(row, vars, &refused);
    cr_assert(lines >= 150 && wrong == 0, "%u lines, %u differ", lines, wrong);
    arena_fini(&given);
    lines_end(&l);
}

Test(goldens, random_templates_give_what_they_give_in_transformers_or_are_refused) {
    struct lines l;
    struct arena given;
    struct value vars;
    uint32_t lines = 0, texts = 0, wrong = 0, refusals = 0;
    bool refused;
    arena_init(&given, 16u << 20);
    read_variables(&given, &vars);
    lines_begin(&l, GOLDEN, "random.jsonl");
    for (const struct json *row; (row = lines_next(&l)); lines++) {
        texts += json_get(row, "text") != NULL;
        wrong += !as_said(row, vars, &refused) && !refused;
        refusals += refused;
    }
    cr_assert(lines >= 2000 && texts >= 800, "%u lines, %u texts", lines, texts);
    cr_assert_eq(wrong, 0, "%u differ", wrong);
    cr_assert(refusals * 10 < texts, "%u of %u refused", refusals, texts);
    arena_fini(&given);
    lines_end(&l);
}

Test(goldens, published_templates_of_outside_data_render_as_in_transformers) {
    static const char *const names[] = {"deepseek-r1", "qwen2.5",  "qwen3",
                                        "llama3",      "llama3.1", "llama3.2"};
    const char *data = getenv("PENSTOCK_DATA");
    char dir[400], path[512];
    uint32_t there = 0;
    if (!data || !*data) cr_skip_test("PENSTOCK_DATA is not set");
    snprintf(dir, sizeof dir, "%.300s/templates", data);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s.jsonl", dir, names[i]);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        fclose(f);
        renders(dir, names[i]);
        there++;
    }
    if (there == 0) cr_skip_test("%s has no templates with goldens (tests/golden/chat.py)", dir);
}
