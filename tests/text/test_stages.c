#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "kernels/ops.h"
#include "schemas/json_schema.h"
#include "schemas/pack.h"
#include "tests/text/help.h"
#include "workers/encode/stages.h"
#include "workers/infer/models.h"
#include "workers/post/stages.h"

struct one {
    struct stage_item item;
    struct arena arena;
    struct buf input;
    struct pack_doc *doc; /* of the output */
};

static void one_begin(struct one *o, const char *kind) {
    *o = (struct one){.item.kind = bytes_str(kind), .item.error = JOB_ERROR_TRANSIENT};
    arena_init(&o->arena, 1u << 26);
    o->item.arena = &o->arena;
}

static void one_run(struct one *o, const struct stage_program *p, void *self) {
    struct stage_item *items[] = {&o->item};
    char err[256] = "";
    o->item.input = buf_bytes(&o->input);
    p->run_batch(self, items, 1);
    if (o->item.error == JOB_ERROR_NONE)
        cr_assert_eq(pack_parse(&o->doc, o->item.output, err, sizeof err), 0, "%s", err);
}

static void one_end(struct one *o) {
    pack_free(o->doc);
    buf_fini(&o->input);
    arena_fini(&o->arena);
}

static void put_vectors(struct buf *out, const float *v, uint32_t n, uint32_t dim, uint32_t marks) {
    struct packer p = packer_of(out);
    pack_map(&p, 6);
    pack_kv_str(&p, "model", "m");
    pack_kv_u64(&p, "dim", dim);
    pack_str(&p, "vectors");
    pack_bin(&p, bytes_of(v, (size_t)n * dim * sizeof *v));
    pack_str(&p, "tokens");
    pack_array(&p, marks);
    for (uint32_t i = 0; i < marks; i++) pack_u64(&p, 7 + i);
    pack_str(&p, "truncated");
    pack_array(&p, marks);
    for (uint32_t i = 0; i < marks; i++) pack_bool(&p, i == 1);
    pack_str(&p, "keep");
    pack_nil(&p);
}

Test(post, embeddings_keep_every_bit_of_their_vectors) {
    static const float v[] = {0.25f, -1.5f, 3e-7f, 1, 0, -0.0f};
    struct one o;
    one_begin(&o, "text.embed");
    put_vectors(&o.input, v, 2, 3, 2);
    one_run(&o, &stage_post_embed, NULL);
    cr_assert_eq(o.item.error, JOB_ERROR_NONE, "%s", o.item.reason);
    const struct pack_val *root = pack_root(o.doc), *rows = pack_get(root, "embeddings");
    cr_assert_eq(pack_as_u64(pack_get(root, "dim"), 0), 3);
    cr_assert(bytes_is(pack_as_bytes(pack_get(root, "model")), "m"));
    for (uint32_t i = 0; i < 6; i++)
        cr_assert_eq((float)pack_as_f64(pack_at(pack_at(rows, i / 3), i % 3), 9), v[i]);
    cr_assert_eq(pack_as_u64(pack_at(pack_get(root, "tokens"), 1), 0), 8);
    cr_assert(pack_as_bool(pack_at(pack_get(root, "truncated"), 1), false));
    cr_assert_not(pack_as_bool(pack_at(pack_get(root, "truncated"), 0), true));
    one_end(&o);
}

Test(post, vectors_that_do_not_fit_their_counts_fail_the_job) {
    static const float v[6];
    struct one o;
    one_begin(&o, "text.embed");
    put_vectors(&o.input, v, 2, 3, 1);
    one_run(&o, &stage_post_embed, NULL);
    cr_assert_eq(o.item.error, JOB_ERROR_PERMANENT);
    cr_assert(strstr(o.item.reason, "2 rows"), "%s", o.item.reason);
    one_end(&o);
    one_begin(&o, "text.embed");
    buf_append(&o.input, "\xC1", 1);
    one_run(&o, &stage_post_embed, NULL);
    cr_assert_eq(o.item.error, JOB_ERROR_PERMANENT);
    one_end(&o);
}

Test(post, a_generated_text_comes_with_its_tokens_and_seed) {
    struct one o;
    one_begin(&o, "text.generate");
    struct packer p = packer_of(&o.input);
    pack_map(&p, 3);
    pack_kv_str(&p, "model", "m");
    pack_kv_u64(&p, "prompt_tokens", 4);
    pack_str(&p, "texts");
    pack_array(&p, 1);
    pack_map(&p, 3);
    pack_str(&p, "ids");
    pack_bin(&p, bytes_of("\x01\x00\x00\x00\x02\x01\x00\x00", 8));
    pack_kv_str(&p, "finish", "length");
    pack_kv_str(&p, "text", "ab");
    o.item.seed = UINT64_MAX;
    one_run(&o, &stage_post_generate, NULL);
    cr_assert_eq(o.item.error, JOB_ERROR_NONE, "%s", o.item.reason);
    const struct pack_val *root = pack_root(o.doc);
    cr_assert_eq(pack_as_u64(pack_at(pack_get(root, "tokens"), 1), 0), 258);
    cr_assert_eq(pack_as_u64(pack_get(root, "completion_tokens"), 0), 2);
    cr_assert_eq(pack_as_u64(pack_get(root, "prompt_tokens"), 0), 4);
    cr_assert_eq(pack_as_u64(pack_get(root, "seed"), 0), UINT64_MAX);
    cr_assert(bytes_is(pack_as_bytes(pack_get(root, "finish_reason")), "length"));
    one_end(&o);
}

static void collect(void *arg, const struct stage_item *i, const char *type, struct bytes data) {
    buf_printf(arg, "%llu %s %zu;", (unsigned long long)i->job, type, data.len);
}

Test(item, events_go_to_the_emitter_that_the_worker_set) {
    struct buf seen = {0};
    struct stage_emitter emitter = {collect, &seen};
    struct stage_item i = {.job = 5};
    item_emit(&i, "token", bytes_str("abc")); /* nobody listens */
    i.emit_to = &emitter;
    item_emit(&i, "progress", bytes_str("abcd"));
    cr_assert(bytes_is(buf_bytes(&seen), "5 progress 4;"));
    buf_fini(&seen);
}

Test(item, a_reason_is_cut_between_characters) {
    char text[LIMIT_REASON_BYTES * 2] = "x";
    struct stage_item i = {0};
    for (size_t n = 1; n + 4 < sizeof text; n += 3) memcpy(text + n, "\xE4\xB8\xAD", 4);
    item_fail(&i, JOB_ERROR_PERMANENT, "%s", text);
    size_t len = strlen(i.reason);
    cr_assert(len > LIMIT_REASON_BYTES - 5 && utf8_check(i.reason, len) == len);
}

Test(item, an_output_beyond_its_limit_fails_the_job) {
    struct one o;
    one_begin(&o, "text.embed");
    struct buf out = {.max_bytes = 10};
    buf_append(&out, "123456789012", 12);
    item_done_buf(&o.item, &out);
    cr_assert_eq(o.item.error, JOB_ERROR_PERMANENT);
    cr_assert(strstr(o.item.reason, "10 bytes"), "%s", o.item.reason);
    buf_fini(&out);
    one_end(&o);
}

/* ---- encode.texts, encode.prompt ---- */

struct encoder {
    struct ops *ops;
    struct models *models;
    void *self;
};

static void encoder_open(struct encoder *e, const char *dir) {
    char named[600], err[512] = "";
    const char *list[] = {named};
    struct ops_config config = {.backend = "ref"};
    snprintf(named, sizeof named, "m=%s", dir);
    cr_assert_eq(ops_open(&e->ops, &config, err, sizeof err), 0, "%s", err);
    cr_assert_eq(models_open(&e->models, e->ops, NULL, list, 1, err, sizeof err), 0, "%s", err);
    struct stage_context context = {.models = e->models};
    cr_assert_eq(encode_open(&e->self, &context, err, sizeof err), 0, "%s", err);
}

static void encoder_close(struct encoder *e) {
    encode_close(e->self);
    models_close(e->models);
    ops_close(e->ops);
}

static void put_texts(struct buf *body, const char *const *texts, uint32_t n) {
    struct packer p = packer_of(body);
    pack_map(&p, 1);
    pack_str(&p, "texts");
    pack_array(&p, n);
    for (uint32_t i = 0; i < n; i++) pack_str(&p, texts[i]);
}

static uint32_t id_at(struct bytes bin, uint32_t i) {
    struct reader r = reader_of(bin);
    for (uint32_t k = 0; k < i; k++) read_u32le(&r);
    return read_u32le(&r);
}

Test(encode, texts_are_cut_to_the_context_of_the_model_and_marked) {
    char *longest = calloc(4001, 1);
    memset(longest, 'a', 4000);
    for (int i = 3; i < 4000; i += 4) longest[i] = ' ';
    const char *const texts[] = {"hello world", longest, ""};
    struct encoder e;
    struct one o;
    struct buf body = {0};
    encoder_open(&e, minilm_dir());
    one_begin(&o, "text.embed");
    put_texts(&body, texts, 3);
    o.item.body = buf_bytes(&body);
    o.item.model = bytes_str("m");
    one_run(&o, &stage_encode_texts, e.self);
    cr_assert_eq(o.item.error, JOB_ERROR_NONE, "%s", o.item.reason);
    const struct pack_val *root = pack_root(o.doc), *seqs = pack_get(root, "seqs");
    cr_assert_eq(pack_len(seqs), 3);
    cr_assert_eq(pack_as_bytes(pack_at(seqs, 0)).len, 4 * 4);
    cr_assert_eq(id_at(pack_as_bytes(pack_at(seqs, 0)), 1), 7592); /* hello */
    cr_assert_eq(pack_as_bytes(pack_at(seqs, 1)).len, 256 * 4);
    cr_assert_eq(id_at(pack_as_bytes(pack_at(seqs, 1)), 255), 102); /* [SEP] is kept */
    cr_assert_eq(pack_as_bytes(pack_at(seqs, 2)).len, 2 * 4);
    cr_assert(pack_as_bool(pack_at(pack_get(root, "truncated"), 1), false));
    cr_assert_not(pack_as_bool(pack_at(pack_get(root, "truncated"), 0), true));
    one_end(&o);
    atomic_bool cancelled = true;
    one_begin(&o, "text.embed");
    o.item.body = buf_bytes(&body);
    o.item.model = bytes_str("m");
    o.item.cancelled = &cancelled;
    one_run(&o, &stage_encode_texts, e.self);
    cr_assert_eq(o.item.error, JOB_ERROR_CANCELLED);
    one_end(&o);
    one_begin(&o, "text.embed");
    o.item.body = buf_bytes(&body);
    o.item.model = bytes_str("nobody");
    one_run(&o, &stage_encode_texts, e.self);
    cr_assert_eq(o.item.error, JOB_ERROR_PERMANENT);
    cr_assert(strstr(o.item.reason, "nobody"), "%s", o.item.reason);
    one_end(&o);
    buf_fini(&body);
    free(longest);
    encoder_close(&e);
}

/* Runs encode.prompt in a directory with a golden decoder's config, a small tokenizer and, where it
 * is not NULL, a chat template. */
static void body_gives(struct bytes body, const char *chat, const uint32_t *ids, uint32_t n,
                       const char *fails_with) {
    struct folder f;
    struct encoder e;
    struct one o;
    void *config;
    size_t bytes;
    char err[256] = "",
         *json = bytelevel_json("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "", true);
    folder_begin(&f);
    cr_assert_eq(file_read("tests/golden/models/llama-tied/config.json", 1u << 20, &config, &bytes,
                           err, sizeof err),
                 0, "%s", err);
    folder_write(&f, "config.json", config, bytes);
    folder_write(&f, "tokenizer.json", json, strlen(json));
    if (chat) folder_write(&f, "chat_template.jinja", chat, strlen(chat));
    encoder_open(&e, f.dir);
    one_begin(&o, "text.generate");
    o.item.body = body;
    o.item.job = 1600000000000ull << 20; /* of September 2020 */
    o.item.model = bytes_str("m");
    one_run(&o, &stage_encode_prompt, e.self);
    if (fails_with) {
        cr_assert_eq(o.item.error, JOB_ERROR_PERMANENT);
        cr_assert(strstr(o.item.reason, fails_with), "%s", o.item.reason);
    } else {
        cr_assert_eq(o.item.error, JOB_ERROR_NONE, "%s", o.item.reason);
        struct bytes bin = pack_as_bytes(pack_get(pack_root(o.doc), "ids"));
        cr_assert_eq(bin.len, n * 4);
        for (uint32_t i = 0; i < n; i++) cr_assert_eq(id_at(bin, i), ids[i]);
    }
    one_end(&o);
    encoder_close(&e);
    folder_end(&f);
    free(config);
    free(json);
}

static void prompt_gives(const char *prompt, const uint32_t *ids, uint32_t n,
                         const char *fails_with) {
    struct buf body = {0};
    struct packer p = packer_of(&body);
    pack_map(&p, 1);
    pack_kv_str(&p, "prompt", prompt);
    body_gives(buf_bytes(&body), NULL, ids, n, fails_with);
    buf_fini(&body);
}

Test(encode, a_prompt_becomes_ids) {
    prompt_gives("hello wor", (uint32_t[]){303, 306}, 2, NULL);
}

Test(encode, a_prompt_that_fills_the_context_is_refused) {
    char *words = calloc(200001, 1);
    for (int i = 0; i < 200000; i++) words[i] = i % 2 ? '!' : 'x';
    prompt_gives(words, NULL, 0, "shorten");
    free(words);
}

Test(encode, an_empty_prompt_begins_with_the_models_own_token) {
    prompt_gives("", (uint32_t[]){1}, 1, NULL);
}

/* A body of this JSON; as_text sends its messages as their JSON text. */
static void json_gives(const char *json, bool as_text, const char *chat, const uint32_t *ids,
                       uint32_t n, const char *fails_with) {
    struct json *j;
    struct buf body = {0};
    char err[256] = "";
    cr_assert_eq(json_parse(&j, json, strlen(json), err, sizeof err), 0, "%s", err);
    if (as_text) {
        char *text = json_text(json_get(j, "messages"), 0);
        cr_assert_eq(json_set(j, "messages", json_new_str(text, strlen(text))), 0);
        free(text);
    }
    cr_assert_eq(json_to_pack(j, &body, err, sizeof err), 0, "%s", err);
    body_gives(buf_bytes(&body), chat, ids, n, fails_with);
    buf_fini(&body);
    json_free(j);
}

#define HELLO "{\"messages\": [{\"role\": \"user\", \"content\": \"hello wor\"}]"
#define EACH "{% for m in messages %}{{ m.content }}<end>{% endfor %}"

Test(encode, messages_become_the_ids_of_their_template_with_special_tokens_and_none_added) {
    json_gives(HELLO "}", false, EACH, (uint32_t[]){303, 306, 400}, 3, NULL);
    json_gives(HELLO "}", true, EACH, (uint32_t[]){303, 306, 400}, 3, NULL);
    json_gives(HELLO ", \"tools\": [{\"name\": \"<end>\"}]}", false,
               EACH "{% for t in tools %}{{ t.name }}{% endfor %}",
               (uint32_t[]){303, 306, 400, 400}, 4, NULL);
    json_gives(HELLO ", \"template_vars\": {\"more\": true}}", false,
               EACH "{% if more and add_generation_prompt %}<end>{% endif %}",
               (uint32_t[]){303, 306, 400, 400}, 4, NULL);
}

Test(encode, the_date_in_a_template_is_that_of_the_job) {
    json_gives(HELLO "}", false, "{% if strftime_now('%Y-%m') == '2020-09' %}hello wor{% endif %}",
               (uint32_t[]){303, 306}, 2, NULL);
}

Test(encode, messages_that_cannot_be_are_refused_with_what_to_do) {
    json_gives(HELLO "}", false, NULL, NULL, 0, "no chat template: send a prompt instead");
    json_gives(HELLO "}", false, "{% include 'x' %}", NULL, 0, "line 1: the tag {% include %}");
    json_gives(HELLO "}", false, "{{ raise_exception('no ' + messages[0].role) }}", NULL, 0,
               "messages: chat template: line 1: the template refuses these messages: no user");
    json_gives("{\"messages\": [{}]}", false, EACH, NULL, 0, "messages[0].role: must be a string");
    json_gives("{\"messages\": \"[1, \"}", false, EACH, NULL, 0, "'messages': not valid JSON");
    json_gives("{\"messages\": 3}", false, EACH, NULL, 0, "messages: must be a list");
    json_gives("{\"messages\": [], \"prompt\": \"x\"}", false, EACH, NULL, 0, "both 'prompt' and");
    json_gives("{}", false, EACH, NULL, 0, "none of 'prompt', 'messages' is given");
    json_gives("{\"prompt\": \"x\", \"tools\": []}", false, EACH, NULL, 0, "go with 'messages'");
}
