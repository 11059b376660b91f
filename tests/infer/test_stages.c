/* infer.embed and infer.generate as the worker calls them: documents in, documents out, each
 * item alone. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/rng.h"
#include "schemas/pack.h"
#include "tests/infer/help.h"
#include "workers/infer/models.h"
#include "workers/infer/stages.h"

#define ITEMS_MAX 8

struct fixture {
    struct ops *ops;
    struct models *models;
    void *self;
    const struct stage_program *program;
    struct stage_item item[ITEMS_MAX];
    struct arena arena[ITEMS_MAX];
    struct buf input[ITEMS_MAX], body[ITEMS_MAX], heard[ITEMS_MAX];
    atomic_bool cancelled[ITEMS_MAX];
    uint32_t n, cancel_after, events;
};
static struct fixture fx;

static void fixture_open(const struct stage_program *program) {
    static const char *const named[] = {
        "tiny=examples/models/tiny-llama", "loud=tests/golden/lora/tiny-loud",
        "quiet=tests/golden/lora/tiny-quiet", "house=tests/golden/lora/bert-all"};
    char err[512] = "";
    fx.program = program;
    fx.ops = help_open_best(0);
    cr_assert_eq(models_open(&fx.models, fx.ops, "tests/golden/models", named, 4, err, sizeof err),
                 0, "%s", err);
    struct stage_context c = {.models = fx.models};
    cr_assert_eq(program->open(&fx.self, &c, err, sizeof err), 0, "%s", err);
}

static void open_embed(void) {
    fixture_open(&stage_infer_embed);
}

static void open_generate(void) {
    fixture_open(&stage_infer_generate);
}

static void clear(void) {
    for (uint32_t i = 0; i < fx.n; i++) {
        arena_fini(&fx.arena[i]);
        buf_fini(&fx.input[i]);
        buf_fini(&fx.body[i]);
        buf_fini(&fx.heard[i]);
    }
    fx.n = fx.events = 0;
}

static void close_all(void) {
    clear();
    if (fx.program->close) fx.program->close(fx.self);
    models_close(fx.models);
    ops_close(fx.ops);
}

TestSuite(stage_embed, .init = open_embed, .fini = close_all);
TestSuite(stage_generate, .init = open_generate, .fini = close_all);

static void hear(void *arg, const struct stage_item *item, const char *type, struct bytes data) {
    struct pack_doc *doc;
    char err[256] = "";
    uint32_t i = (uint32_t)(item - fx.item);
    (void)arg;
    cr_assert_str_eq(type, "token");
    cr_assert_eq(pack_parse(&doc, data, err, sizeof err), 0, "%s", err);
    struct bytes text = pack_as_bytes(pack_get(pack_root(doc), "text"));
    cr_assert(text.len > 0);
    cr_assert(pack_as_u64(pack_get(pack_root(doc), "tokens"), 0) > 0);
    buf_append(&fx.heard[i], text.data, text.len);
    pack_free(doc);
    if (++fx.events == fx.cancel_after) atomic_store(&fx.cancelled[i], true);
}

static struct packer add(const char *kind, const char *model) {
    static const struct stage_emitter emitter = {hear, NULL};
    uint32_t i = fx.n++;
    cr_assert(i < ITEMS_MAX);
    fx.input[i] = fx.body[i] = fx.heard[i] = (struct buf){0};
    arena_init(&fx.arena[i], 1u << 26);
    atomic_store(&fx.cancelled[i], false);
    fx.item[i] = (struct stage_item){.job = i + 1,
                                     .kind = bytes_str(kind),
                                     .model = bytes_str(model),
                                     .arena = &fx.arena[i],
                                     .cancelled = &fx.cancelled[i],
                                     .emit_to = &emitter,
                                     .error = JOB_ERRORS};
    return packer_of(&fx.input[i]);
}

static void run(void) {
    struct stage_item *items[ITEMS_MAX];
    for (uint32_t i = 0; i < fx.n; i++) {
        fx.item[i].input = buf_bytes(&fx.input[i]);
        fx.item[i].body = buf_bytes(&fx.body[i]);
        items[i] = &fx.item[i];
    }
    help_run_stage(fx.program, fx.self, items, fx.n);
}

static void failed(uint32_t i, enum job_error error, const char *word) {
    cr_assert_eq(fx.item[i].error, error, "item %u: %s", i, fx.item[i].reason);
    cr_assert(strstr(fx.item[i].reason, word), "\"%s\" does not say %s", fx.item[i].reason, word);
}

static struct pack_doc *done(uint32_t i) {
    struct pack_doc *doc = NULL;
    char err[256] = "";
    cr_assert_eq(fx.item[i].error, JOB_ERROR_NONE, "item %u: %s", i, fx.item[i].reason);
    cr_assert(fx.item[i].numerics_id && strstr(fx.item[i].numerics_id, fx.ops->numerics_id));
    cr_assert(strstr(fx.item[i].numerics_id, "+w-"), "%s: of which weights?",
              fx.item[i].numerics_id);
    cr_assert_eq(pack_parse(&doc, fx.item[i].output, err, sizeof err), 0, "%s", err);
    return doc;
}

/* --- infer.embed ------------------------------------------------------------------------------ */

#define LEN_MAX 64
struct sentences {
    uint32_t n, len[32], ids[32][LEN_MAX];
};

static void draw(struct sentences *s, uint32_t n, uint64_t seed) {
    s->n = n;
    for (uint32_t i = 0; i < n; i++) {
        s->len[i] = 1 + (uint32_t)(rng_next(&seed) % LEN_MAX);
        for (uint32_t k = 0; k < s->len[i]; k++) s->ids[i][k] = (uint32_t)(rng_next(&seed) % 100);
    }
}

static void add_sentences(const struct sentences *s, const char *model, bool keep) {
    struct packer p = add("text.embed", model);
    pack_map(&p, keep ? 4 : 2);
    pack_kv_str(&p, "model", model);
    pack_str(&p, "seqs");
    pack_array(&p, s->n);
    for (uint32_t i = 0; i < s->n; i++) pack_bin(&p, bytes_of(s->ids[i], s->len[i] * 4));
    if (!keep) return;
    pack_str(&p, "truncated");
    pack_array(&p, s->n);
    for (uint32_t i = 0; i < s->n; i++) pack_bool(&p, i == 1);
    pack_str(&p, "keep");
    pack_map(&p, 1);
    pack_str(&p, "clauses");
    pack_array(&p, 2);
    pack_f64(&p, 0.1);
    pack_strn(&p, bytes_str("§ 1"));
}

/* The vectors of an output against those that the model gives for each sentence alone. */
static void check_vectors(uint32_t item, const struct sentences *s) {
    struct pack_doc *doc = done(item);
    const struct pack_val *root = pack_root(doc);
    struct bytes vectors = pack_as_bytes(pack_get(root, "vectors"));
    struct model *m;
    char err[256] = "";
    float alone[48];
    cr_assert_eq(models_get(fx.models, bytes_str("bert"), &m, err, sizeof err), 0, "%s", err);
    cr_assert_eq(pack_as_u64(pack_get(root, "dim"), 0), 48);
    cr_assert(bytes_is(pack_as_bytes(pack_get(root, "model")), "bert"));
    cr_assert_eq(vectors.len, s->n * sizeof alone);
    cr_assert_eq(pack_len(pack_get(root, "tokens")), s->n);
    cr_assert_eq(pack_len(pack_get(root, "truncated")), s->n);
    for (uint32_t i = 0; i < s->n; i++) {
        cr_assert_eq(pack_as_u64(pack_at(pack_get(root, "tokens"), i), 0), s->len[i]);
        cr_assert_eq(
            model_embed(m, 1, (uint32_t[]){0, s->len[i]}, s->ids[i], alone, err, sizeof err), 0,
            "%s", err);
        cr_assert_arr_eq((const char *)vectors.data + i * sizeof alone, alone, sizeof alone);
    }
    pack_free(doc);
}

Test(stage_embed, the_jobs_of_a_batch_get_the_vectors_they_would_get_alone) {
    struct sentences s[5];
    for (uint32_t i = 0; i < 5; i++) {
        draw(&s[i], 1 + 7 * i, 400 + i);
        add_sentences(&s[i], "bert", i % 2 == 0);
    }
    run();
    for (uint32_t i = 0; i < 5; i++) check_vectors(i, &s[i]);
}

Test(stage_embed, what_is_kept_and_what_was_cut_pass_through_untouched) {
    struct sentences s;
    draw(&s, 3, 1);
    add_sentences(&s, "bert", true);
    run();
    struct pack_doc *doc = done(0);
    const struct pack_val *root = pack_root(doc),
                          *clauses = pack_get(pack_get(root, "keep"), "clauses");
    cr_assert_eq(pack_len(clauses), 2);
    cr_assert(fabs(pack_as_f64(pack_at(clauses, 0), 0) - 0.1) < 1e-17);
    cr_assert(bytes_is(pack_as_bytes(pack_at(clauses, 1)), "§ 1"));
    cr_assert(!pack_as_bool(pack_at(pack_get(root, "truncated"), 0), true));
    cr_assert(pack_as_bool(pack_at(pack_get(root, "truncated"), 1), false));
    pack_free(doc);
}

Test(stage_embed, a_job_without_sequences_gets_no_vectors) {
    struct sentences s = {0};
    add_sentences(&s, "bert", false);
    run();
    check_vectors(0, &s);
}

Test(stage_embed, a_bad_job_fails_alone_and_says_why) {
    struct sentences good, bad;
    draw(&good, 6, 3);
    draw(&bad, 3, 4);
    add_sentences(&good, "bert", false);
    bad.ids[2][0] = 100;
    add_sentences(&bad, "bert", false);
    struct packer p = add("text.embed", "bert");
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "bert");
    pack_str(&p, "seqs");
    pack_array(&p, 1);
    uint32_t many[65] = {0};
    pack_bin(&p, bytes_of(many, sizeof many));
    p = add("text.embed", "bert");
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "bert");
    pack_str(&p, "seqs");
    pack_array(&p, 1);
    pack_bin(&p, bytes_of(many, 7));
    add("text.embed", "bert"); /* no input at all */
    add_sentences(&good, "llama-tied", false);
    add_sentences(&good, "nobody", false);
    add_sentences(&good, "bert", false);
    atomic_store(&fx.cancelled[7], true);
    run();
    check_vectors(0, &good);
    failed(1, JOB_ERROR_PERMANENT, "sequence 2: token 0 has the id 100");
    failed(2, JOB_ERROR_PERMANENT, "sequence 0 has 65 tokens, the model's limit is 64");
    failed(3, JOB_ERROR_PERMANENT, "sequence 0: 7 bytes");
    failed(4, JOB_ERROR_PERMANENT, "tokens");
    failed(5, JOB_ERROR_PERMANENT, "LlamaForCausalLM");
    failed(6, JOB_ERROR_PERMANENT, "nobody");
    failed(7, JOB_ERROR_CANCELLED, "cancelled");
}

Test(stage_embed, tokens_of_another_model_than_the_plans_are_refused) {
    struct sentences s;
    draw(&s, 1, 5);
    add_sentences(&s, "bert", false);
    fx.item[0].model = bytes_str("tiny");
    run();
    failed(0, JOB_ERROR_PERMANENT, "tiny");
}

Test(stage_embed, adapters_and_the_plain_model_share_a_batch_and_an_unknown_one_fails_alone) {
    static const char *const adapter[4] = {"house", "", "house", "none"};
    struct bytes vectors[3];
    struct pack_doc *doc[3];
    struct sentences s;
    draw(&s, 3, 8);
    for (uint32_t i = 0; i < 4; i++) {
        struct packer p = add("text.embed", "bert");
        pack_map(&p, 3);
        pack_kv_str(&p, "model", "bert");
        pack_kv_str(&p, "adapter", adapter[i]);
        pack_str(&p, "seqs");
        pack_array(&p, s.n);
        for (uint32_t k = 0; k < s.n; k++) pack_bin(&p, bytes_of(s.ids[k], s.len[k] * 4));
    }
    run();
    failed(3, JOB_ERROR_PERMANENT, "adapter none is not here; there are: house, loud, quiet");
    check_vectors(1, &s);
    for (uint32_t i = 0; i < 3; i++) {
        doc[i] = done(i);
        vectors[i] = pack_as_bytes(pack_get(pack_root(doc[i]), "vectors"));
        cr_assert(bytes_is(pack_as_bytes(pack_get(pack_root(doc[i]), "adapter")), adapter[i]) ||
                  i == 1);
    }
    cr_assert(bytes_eq(vectors[0], vectors[2]) && !bytes_eq(vectors[0], vectors[1]));
    for (uint32_t i = 0; i < 3; i++) pack_free(doc[i]);
}

/* --- infer.generate --------------------------------------------------------------------------- */

static const uint32_t press[] = {1022, 267, 958}; /* "The press" */

static void add_prompt(uint64_t seed, double temperature, uint64_t max_tokens, const char *stop,
                       bool stream) {
    struct packer p = add("text.generate", "tiny");
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "tiny");
    pack_str(&p, "ids");
    pack_bin(&p, bytes_of(press, sizeof press));
    p = packer_of(&fx.body[fx.n - 1]);
    pack_map(&p, stop ? 5 : 4);
    pack_kv_str(&p, "prompt", "The press");
    pack_kv_u64(&p, "max_tokens", max_tokens);
    pack_kv_f64(&p, "temperature", temperature);
    pack_kv_bool(&p, "stream", stream);
    if (stop) {
        pack_str(&p, "stop");
        pack_array(&p, 1);
        pack_str(&p, stop);
    }
    fx.item[fx.n - 1].seed = seed;
}

/* Member `key` of text i of a job's tokens out. */
static const struct pack_val *of_text(const struct pack_doc *doc, uint32_t i, const char *key) {
    return pack_get(pack_at(pack_get(pack_root(doc), "texts"), i), key);
}

static bool same(struct bytes a, struct bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

Test(stage_generate, a_text_streams_piece_by_piece_what_its_output_says) {
    add_prompt(0, 0, 30, NULL, true);
    add_prompt(0, 0, 30, NULL, false);
    run();
    struct pack_doc *a = done(0), *b = done(1);
    struct bytes text = pack_as_bytes(of_text(a, 0, "text"));
    cr_assert(text.len > 20);
    cr_assert(same(text, buf_bytes(&fx.heard[0])), "the pieces are the text");
    cr_assert(same(text, pack_as_bytes(of_text(b, 0, "text"))));
    cr_assert_eq(fx.heard[1].len, 0, "stream is off");
    cr_assert_eq(pack_as_u64(pack_get(pack_root(a), "prompt_tokens"), 0), 3);
    cr_assert_eq(pack_as_bytes(of_text(a, 0, "ids")).len, 30 * 4);
    cr_assert(bytes_is(pack_as_bytes(of_text(a, 0, "finish")), "length"));
    pack_free(a);
    pack_free(b);
}

Test(stage_generate, the_jobs_seed_decides_a_sampled_text) {
    for (uint32_t i = 0; i < 6; i++) add_prompt(i / 2, 1.3, 25, NULL, true);
    run();
    struct bytes ids[6];
    struct pack_doc *doc[6];
    for (uint32_t i = 0; i < 6; i++) {
        doc[i] = done(i);
        ids[i] = pack_as_bytes(of_text(doc[i], 0, "ids"));
    }
    for (uint32_t i = 0; i < 6; i += 2) cr_assert(same(ids[i], ids[i + 1]), "seed %u", i / 2);
    cr_assert(!same(ids[0], ids[2]) || !same(ids[2], ids[4]));
    for (uint32_t i = 0; i < 6; i++) pack_free(doc[i]);
}

Test(stage_generate, a_stop_string_of_the_body_ends_the_text) {
    add_prompt(0, 0, 60, NULL, true);
    run();
    struct pack_doc *doc = done(0);
    char full[2048], stop[16];
    struct bytes text = pack_as_bytes(of_text(doc, 0, "text"));
    snprintf(full, sizeof full, "%.*s", (int)text.len, (const char *)text.data);
    pack_free(doc);
    snprintf(stop, sizeof stop, "%.9s", full + 12);
    clear();
    add_prompt(0, 0, 60, stop, true);
    run();
    doc = done(0);
    text = pack_as_bytes(of_text(doc, 0, "text"));
    cr_assert(bytes_is(pack_as_bytes(of_text(doc, 0, "finish")), "stop"));
    cr_assert_eq(text.len, (size_t)(strstr(full, stop) - full));
    cr_assert(same(text, buf_bytes(&fx.heard[0])));
    pack_free(doc);
}

Test(stage_generate, several_texts_of_a_job_are_drawn_apart_and_the_first_is_the_one_text) {
    struct pack_doc *doc, *one;
    add_prompt(7, 1.3, 25, NULL, false);
    run();
    one = done(0);
    struct bytes first = pack_as_bytes(of_text(one, 0, "ids"));
    char kept[25 * 4];
    size_t bytes = first.len;
    cr_assert(bytes > 0 && bytes <= sizeof kept);
    memcpy(kept, first.data, bytes);
    pack_free(one);
    clear();
    add_prompt(7, 1.3, 25, NULL, false);
    fx.body[0].len = 0;
    struct packer p = packer_of(&fx.body[0]);
    pack_map(&p, 6);
    pack_kv_str(&p, "prompt", "The press");
    pack_kv_u64(&p, "max_tokens", 25);
    pack_kv_f64(&p, "temperature", 1.3);
    pack_kv_bool(&p, "stream", false);
    pack_kv_u64(&p, "n", 3);
    pack_kv_u64(&p, "top_logprobs", 2);
    run();
    doc = done(0);
    cr_assert_eq(pack_len(pack_get(pack_root(doc), "texts")), 3);
    struct bytes ids = pack_as_bytes(of_text(doc, 0, "ids"));
    cr_assert(same(ids, bytes_of(kept, bytes)), "the first is what the job alone writes");
    cr_assert(!same(ids, pack_as_bytes(of_text(doc, 1, "ids"))));
    cr_assert(!same(pack_as_bytes(of_text(doc, 1, "ids")), pack_as_bytes(of_text(doc, 2, "ids"))));
    for (uint32_t i = 0; i < 3; i++) {
        const struct pack_val *logprobs = of_text(doc, i, "logprobs");
        const struct pack_val *tops = of_text(doc, i, "top_logprobs");
        uint32_t n = (uint32_t)pack_as_bytes(of_text(doc, i, "ids")).len / 4;
        cr_assert(pack_len(logprobs) == n && pack_len(tops) == n && n > 0);
        for (uint32_t k = 0; k < n; k++) {
            const struct pack_val *best = pack_at(pack_at(tops, k), 0);
            cr_assert_eq(pack_len(pack_at(tops, k)), 2);
            cr_assert_leq(pack_as_f64(pack_at(logprobs, k), 1), pack_as_f64(pack_at(best, 1), 1));
            cr_assert_leq(pack_as_f64(pack_at(best, 1), 1), 0);
        }
    }
    pack_free(doc);
}

Test(stage_generate, a_job_cancelled_while_it_writes_ends_and_the_others_go_on) {
    add_prompt(0, 0, 40, NULL, true);
    add_prompt(0, 0, 40, NULL, false);
    fx.cancel_after = 4;
    run();
    failed(0, JOB_ERROR_CANCELLED, "cancelled");
    pack_free(done(1));
}

Test(stage_generate, a_prompt_longer_than_the_context_names_the_limit) {
    struct packer p = add("text.generate", "tiny");
    uint32_t *ids = calloc(1025, sizeof *ids);
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "tiny");
    pack_str(&p, "ids");
    pack_bin(&p, bytes_of(ids, 1025 * sizeof *ids));
    p = packer_of(&fx.body[0]);
    pack_map(&p, 1);
    pack_kv_str(&p, "prompt", "x");
    add_prompt(0, 0, 5, NULL, false);
    run();
    failed(0, JOB_ERROR_PERMANENT,
           "the prompt has 1025 tokens, the model's limit is 1024: shorten it");
    pack_free(done(1));
    free(ids);
}

Test(stage_generate, a_job_of_another_kind_or_with_a_bad_body_fails_alone) {
    add_prompt(0, 0, 5, NULL, false);
    fx.item[0].kind = bytes_str("text.embed");
    add_prompt(0, 9, 5, NULL, false);
    add_prompt(0, 0, 5, NULL, false);
    struct packer p = add("text.generate", "bert");
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "bert");
    pack_str(&p, "ids");
    pack_bin(&p, bytes_of(press, sizeof press));
    run();
    failed(0, JOB_ERROR_PERMANENT, "text.embed");
    failed(1, JOB_ERROR_PERMANENT, "temperature");
    pack_free(done(2));
    failed(3, JOB_ERROR_PERMANENT, "BertModel");
}

/* The prompt of an adapter's golden, with that adapter or without. */
static void add_golden(const struct json *golden, const char *adapter) {
    uint32_t ids[32], n = (uint32_t)json_len(json_get(golden, "prompt"));
    cr_assert_leq(n, 32);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)json_int(json_at(json_get(golden, "prompt"), i), 0);
    struct packer p = add("text.generate", "tiny");
    pack_map(&p, 2);
    pack_kv_str(&p, "model", "tiny");
    pack_str(&p, "ids");
    pack_bin(&p, bytes_of(ids, n * sizeof *ids));
    p = packer_of(&fx.body[fx.n - 1]);
    pack_map(&p, 4);
    pack_kv_str(&p, "prompt", json_str(json_get(golden, "text")));
    pack_kv_u64(&p, "max_tokens", 40);
    pack_kv_u64(&p, "n", 2);
    pack_kv_str(&p, "adapter", adapter);
}

static void wrote(uint32_t item, const struct json *golden, const char *key) {
    const struct json *wanted = json_get(golden, key);
    struct pack_doc *doc = done(item);
    for (uint32_t t = 0; t < 2; t++) {
        struct bytes ids = pack_as_bytes(of_text(doc, t, "ids"));
        struct reader r = reader_of(ids);
        cr_assert_eq(ids.len, 4 * json_len(wanted), "%s of item %u", key, item);
        for (size_t i = 0; i < json_len(wanted); i++)
            cr_assert_eq(read_u32le(&r), json_int(json_at(wanted, i), -1), "%s of item %u: %zu",
                         key, item, i);
    }
    pack_free(doc);
}

Test(stage_generate, two_adapters_and_the_plain_model_in_one_batch_write_what_peft_writes) {
    struct json *loud, *quiet;
    char err[256] = "";
    cr_assert_eq(
        json_load(&loud, "tests/golden/lora/tiny-loud/golden.json", 1 << 20, err, sizeof err), 0);
    cr_assert_eq(
        json_load(&quiet, "tests/golden/lora/tiny-quiet/golden.json", 1 << 20, err, sizeof err), 0);
    add_golden(loud, "loud");
    add_golden(loud, "");
    add_golden(quiet, "quiet");
    add_golden(loud, "silent");
    add_golden(quiet, "house");
    add_golden(loud, "loud");
    run();
    wrote(0, loud, "new_ids");
    wrote(1, loud, "plain_ids");
    wrote(2, quiet, "new_ids");
    failed(3, JOB_ERROR_PERMANENT, "adapter silent is not here; there are: house, loud, quiet");
    failed(4, JOB_ERROR_PERMANENT, "adapter house: is an adapter of bert and does not fit");
    wrote(5, loud, "new_ids");
    json_free(loud);
    json_free(quiet);
}
