/* Jobs whose text keeps to a JSON Schema, beside others; what is refused, and with which words. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"
#include "tests/infer/help.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"
#include "workers/infer/guides.h"
#include "workers/infer/models.h"
#include "workers/infer/stages.h"

#define TINY "examples/models/tiny-llama"
#define PART                                                                                       \
    "{\"type\":\"object\",\"properties\":{\"part\":{\"type\":\"string\",\"maxLength\":20},"        \
    "\"ok\":{\"type\":\"boolean\"},\"defects\":{\"type\":\"array\",\"maxItems\":3,\"items\":"      \
    "{\"enum\":[\"scratch\",\"void\"]}}},\"required\":[\"part\",\"ok\",\"defects\"]}"

static const uint32_t press[] = {1022, 267, 958}; /* "The press" */

/* A job of text.generate with its answer. */
struct asked {
    const char *schema; /* NULL: none */
    bool as_map;
    const char *stop;
    uint64_t max_tokens, seed, n;
    double temperature;
    struct buf input, body;
    struct arena arena;
    atomic_bool cancelled;
    struct stage_item item;
    struct pack_doc *doc; /* of what was done; NULL: it failed */
};
static struct ops *ops;
static struct models *models;
static void *self;

static void open_all(void) {
    static const char *const named[] = {"tiny=" TINY};
    char err[512] = "";
    ops = help_open_best(0);
    cr_assert_eq(models_open(&models, ops, NULL, named, 1, err, sizeof err), 0, "%s", err);
    struct stage_context c = {.models = models};
    cr_assert_eq(stage_infer_generate.open(&self, &c, err, sizeof err), 0, "%s", err);
}

static void close_all(void) {
    if (stage_infer_generate.close) stage_infer_generate.close(self);
    models_close(models);
    ops_close(ops);
}

TestSuite(guides, .init = open_all, .fini = close_all);

static void pack_schema(struct packer *p, const struct asked *a) {
    struct json *j;
    char err[256];
    pack_str(p, "schema");
    if (!a->as_map) {
        pack_str(p, a->schema);
        return;
    }
    cr_assert_eq(json_parse(&j, a->schema, strlen(a->schema), err, sizeof err), 0);
    cr_assert_eq(json_to_pack(j, p->out, err, sizeof err), 0);
    json_free(j);
}

static void ask(struct asked *a, uint32_t n) {
    struct stage_item *items[8];
    char err[256] = "";
    cr_assert(n <= 8);
    for (uint32_t i = 0; i < n; i++) {
        struct asked *q = &a[i];
        struct packer p = packer_of(&q->input);
        pack_map(&p, 2);
        pack_kv_str(&p, "model", "tiny");
        pack_str(&p, "ids");
        pack_bin(&p, bytes_of(press, sizeof press));
        p = packer_of(&q->body);
        pack_map(&p, 4u + (q->schema != NULL) + (q->stop != NULL));
        pack_kv_str(&p, "prompt", "The press");
        pack_kv_u64(&p, "max_tokens", q->max_tokens);
        pack_kv_f64(&p, "temperature", q->temperature);
        pack_kv_u64(&p, "n", q->n ? q->n : 1);
        if (q->schema) pack_schema(&p, q);
        if (q->stop) {
            pack_str(&p, "stop");
            pack_array(&p, 1);
            pack_str(&p, q->stop);
        }
        arena_init(&q->arena, 1u << 26);
        q->item = (struct stage_item){.job = i + 1,
                                      .seed = q->seed,
                                      .kind = bytes_str("text.generate"),
                                      .model = bytes_str("tiny"),
                                      .arena = &q->arena,
                                      .input = buf_bytes(&q->input),
                                      .body = buf_bytes(&q->body),
                                      .cancelled = &q->cancelled,
                                      .error = JOB_ERRORS};
        items[i] = &q->item;
    }
    help_run_stage(&stage_infer_generate, self, items, n);
    for (uint32_t i = 0; i < n; i++)
        if (a[i].item.error == JOB_ERROR_NONE)
            cr_assert_eq(pack_parse(&a[i].doc, a[i].item.output, err, sizeof err), 0, "%s", err);
}

static void done(struct asked *a, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        pack_free(a[i].doc);
        buf_fini(&a[i].input);
        buf_fini(&a[i].body);
        arena_fini(&a[i].arena);
    }
}

static const struct pack_val *of_text(const struct asked *a, uint32_t i, const char *key) {
    cr_assert_not_null(a->doc, "%s", a->item.reason);
    return pack_get(pack_at(pack_get(pack_root(a->doc), "texts"), i), key);
}

/* Text i of a job is a value of PART. */
static void is_part(const struct asked *a, uint32_t i) {
    struct bytes text = pack_as_bytes(of_text(a, i, "text"));
    struct json *j;
    char err[256] = "";
    cr_assert_eq(json_parse(&j, text.data, text.len, err, sizeof err), 0, "%s: %.*s", err,
                 (int)text.len, (const char *)text.data);
    cr_assert_eq(json_len(j), 3);
    cr_assert_not_null(json_str(json_get(j, "part")));
    cr_assert_eq(json_kind(json_get(j, "ok")), JSON_BOOL);
    cr_assert_eq(json_kind(json_get(j, "defects")), JSON_ARRAY);
    cr_assert_leq(json_len(json_get(j, "defects")), 3);
    cr_assert(bytes_is(pack_as_bytes(of_text(a, i, "finish")), "stop"));
    cr_assert_leq(pack_as_bytes(of_text(a, i, "ids")).len / 4, a->max_tokens);
    json_free(j);
}

static bool same(const struct asked *a, const struct asked *b, uint32_t i) {
    struct bytes x = pack_as_bytes(of_text(a, 0, "ids")), y = pack_as_bytes(of_text(b, i, "ids"));
    return bytes_eq(x, y);
}

Test(guides, a_text_under_a_schema_is_one_value_and_ends_with_it) {
    struct asked a[4] = {{.schema = PART, .max_tokens = 200},
                         {.schema = PART, .max_tokens = 200, .as_map = true},
                         {.schema = PART, .max_tokens = 200, .temperature = 2, .seed = 1},
                         {.schema = PART, .max_tokens = 45, .temperature = 2, .seed = 2}};
    ask(a, 4);
    for (uint32_t i = 0; i < 4; i++) is_part(&a[i], 0);
    cr_assert(same(&a[0], &a[1], 0), "a map says what its text says");
    done(a, 4);
}

Test(guides, the_texts_of_neighbours_without_a_schema_are_what_they_are_alone) {
    struct asked alone[2] = {{.max_tokens = 40, .temperature = 1.1, .seed = 3},
                             {.schema = PART, .max_tokens = 90, .temperature = 1.1, .seed = 4}};
    ask(alone, 1);
    ask(alone + 1, 1);
    struct asked a[4] = {
        {.schema = "{\"type\":\"integer\"}", .max_tokens = 6, .temperature = 2},
        {.max_tokens = 40, .temperature = 1.1, .seed = 3},
        {.schema = PART, .max_tokens = 90, .temperature = 1.1, .seed = 4, .n = 3},
        {.schema = "{\"type\":\"array\",\"items\":{\"type\":\"number\"}}", .max_tokens = 30}};
    ask(a, 4);
    cr_assert(same(&alone[0], &a[1], 0));
    cr_assert(same(&alone[1], &a[2], 0));
    for (uint32_t i = 0; i < 3; i++) is_part(&a[2], i);
    cr_assert(!same(&a[2], &a[2], 1) || !same(&a[2], &a[2], 2), "each text is drawn by itself");
    done(a, 4);
    done(alone, 2);
}

static void refused(const struct asked *a, const char *says) {
    cr_assert_eq(a->item.error, JOB_ERROR_PERMANENT, "%s", a->item.reason);
    cr_assert(strstr(a->item.reason, says), "\"%s\" does not say %s", a->item.reason, says);
}

Test(guides, a_schema_that_cannot_be_kept_to_fails_its_job_with_the_place) {
    struct asked a[7] = {
        {.schema = "{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}", .max_tokens = 9},
        {.schema = "{\"type\":", .max_tokens = 9},
        {.schema = "7", .max_tokens = 9},
        {.schema = "{\"type\":\"string\",\"minLength\":30}", .max_tokens = 9},
        {.schema = "{\"type\":\"string\"}", .max_tokens = 9, .stop = "x"},
        {.schema = "{\"type\":\"string\",\"pattern\":\"[ab]*a[ab]{14}\"}", .max_tokens = 99},
        {.max_tokens = 5}};
    ask(a, 7);
    refused(&a[0], "#/properties/a: not");
    refused(&a[1], "not valid JSON");
    refused(&a[2], "is no schema");
    refused(&a[3], "needs 32 tokens; max_tokens and the context leave 9");
    refused(&a[4], "'stop' is not taken together with 'schema'");
    refused(&a[5], "pattern");
    cr_assert_not_null(a[6].doc, "the others go on");
    done(a, 7);
}

Test(guides, a_schema_is_forgotten_when_there_are_many_and_one_in_use_is_not) {
    struct guides *g;
    struct guide *held, *one;
    struct tokenizer *t;
    struct model *m;
    char err[256] = "", schema[80];
    cr_assert_eq(models_get(models, bytes_str("tiny"), &m, err, sizeof err), 0, "%s", err);
    cr_assert_eq(tokenizer_open(&t, TINY, err, sizeof err), 0, "%s", err);
    cr_assert_eq(guides_open(&g, t, model_info(m), err, sizeof err), 0, "%s", err);
    cr_assert_eq(guide_new(g, bytes_str("{\"const\":1}"), 4, &held, err, sizeof err), 0, "%s", err);
    for (uint32_t i = 0; i < 3 * GUIDES_KEPT; i++) {
        snprintf(schema, sizeof schema, "{\"const\":%u}", i);
        cr_assert_eq(guide_new(g, bytes_str(schema), 9, &one, err, sizeof err), 0, "%s", err);
        guide_free(one);
    }
    const struct gen_guide *gen = guide_of(held);
    uint32_t legal = 0;
    for (uint32_t left = 4; left > 0; left--) {
        const uint32_t *bits = gen->mask(gen->self, left);
        uint32_t id = 0;
        legal = 0;
        for (uint32_t i = 0; i < model_info(m)->vocab; i++)
            if (bits[i / 32] >> (i % 32) & 1) legal++, id = i;
        if (!gen->take(gen->self, id)) break;
    }
    cr_assert_gt(legal, 0);
    guide_free(held);
    guides_close(g);
    tokenizer_close(t);
}
