/* Texts as decoders write them: goldens, company, stop strings, limits, cancelling. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/infer/help.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/generate.h"

#define TINY "examples/models/tiny-llama"
#define GOLDEN "tests/golden/tiny-llama/"
#define PROMPTS_MAX 16
#define NEW_MAX 64

/* One line of prompts.jsonl. */
struct golden {
    uint32_t ids[1024], n;
    uint32_t fresh[NEW_MAX], n_fresh;
    char text[1024];
};
static struct golden golden[PROMPTS_MAX];
static uint32_t goldens;
static struct ops *ops;
static struct model *model;
static struct tokenizer *tokenizer;

static uint32_t read_ids(const struct json *list, uint32_t *out, size_t max) {
    cr_assert(json_len(list) <= max);
    for (size_t i = 0; i < json_len(list); i++) out[i] = (uint32_t)json_int(json_at(list, i), 0);
    return (uint32_t)json_len(list);
}

static void load_goldens(void) {
    char err[256] = "", *text, *rest;
    size_t bytes;
    cr_assert_eq(
        file_read(GOLDEN "prompts.jsonl", 1 << 20, (void **)&text, &bytes, err, sizeof err), 0,
        "%s", err);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct golden *g = &golden[goldens++];
        struct json *j;
        cr_assert(goldens <= PROMPTS_MAX);
        cr_assert_eq(json_parse(&j, line, strlen(line), err, sizeof err), 0, "%s", err);
        g->n = read_ids(json_get(j, "ids"), g->ids, 1024);
        g->n_fresh = read_ids(json_get(j, "new_ids"), g->fresh, NEW_MAX);
        snprintf(g->text, sizeof g->text, "%s", json_str(json_get(j, "text")));
        json_free(j);
    }
    free(text);
}

static void open_tiny(const struct model_config *c) {
    char err[512] = "";
    ops = help_open_best(0);
    model = model_must_open(TINY, ops, c);
    cr_assert_eq(tokenizer_open(&tokenizer, TINY, err, sizeof err), 0, "%s", err);
    load_goldens();
}

static void begin(void) {
    open_tiny(NULL);
}

static void end(void) {
    tokenizer_close(tokenizer);
    model_close(model);
    ops_close(ops);
}

TestSuite(generate, .init = begin, .fini = end);

/* A text to be written, with what came out piece by piece. */
struct writing {
    struct gen gen;
    uint32_t ids[1024];
    char pieces[8192];
    size_t n_pieces, bytes;
    uint32_t cancel_after; /* pieces; 0: never */
    uint32_t tokens_then;  /* when it was cancelled */
    atomic_bool cancelled;
};

static void hear(struct gen *g, struct bytes piece) {
    struct writing *w = g->user;
    cr_assert(piece.len > 0 && w->bytes + piece.len < sizeof w->pieces);
    cr_assert_eq(utf8_check(piece.data, piece.len), piece.len, "a piece cuts a character");
    memcpy(w->pieces + w->bytes, piece.data, piece.len);
    w->bytes += piece.len;
    if (++w->n_pieces != w->cancel_after) return;
    w->tokens_then = g->tokens;
    atomic_store(&w->cancelled, true);
}

static void writing_set(struct writing *w, const uint32_t *prompt, uint32_t n,
                        uint32_t tokens_max) {
    *w = (struct writing){0};
    w->gen = (struct gen){.prompt = prompt,
                          .prompt_tokens = n,
                          .tokens_max = tokens_max,
                          .top_p = 1,
                          .cancelled = &w->cancelled,
                          .on_text = hear,
                          .user = w,
                          .ids = w->ids};
}

static void write_all(struct writing *w, uint32_t n) {
    struct gen *gens[64];
    for (uint32_t i = 0; i < n; i++) gens[i] = &w[i].gen;
    generate(model, tokenizer, gens, n);
}

static void said_what_it_streamed(const struct writing *w) {
    cr_assert_eq(w->bytes, w->gen.text.len, "%zu bytes in pieces, %zu in the text", w->bytes,
                 w->gen.text.len);
    if (w->bytes) cr_assert_arr_eq(w->pieces, w->gen.text.data, w->bytes);
}

/* The golden's ids hold the end token, the text's do not. */
static void is_golden(const struct writing *w, const struct golden *g) {
    bool ended = g->n_fresh < NEW_MAX || g->fresh[g->n_fresh - 1] == model_info(model)->eos[0];
    uint32_t n = g->n_fresh - ended;
    cr_assert_eq(w->gen.finish, ended ? GEN_EOS : GEN_LENGTH, "%s", w->gen.err);
    cr_assert_eq(w->gen.tokens, n, "%u tokens, expected %u", w->gen.tokens, n);
    cr_assert_arr_eq(w->gen.ids, g->fresh, n * sizeof *g->fresh);
    cr_assert_eq(w->gen.text.len, strlen(g->text));
    if (w->gen.text.len) cr_assert_arr_eq(w->gen.text.data, g->text, w->gen.text.len);
    said_what_it_streamed(w);
}

Test(generate, tiny_llama_gives_the_references_logits_and_greedy_texts_on_every_backend) {
    struct help_backends b;
    char err[256] = "";
    float *expected, got[1024];
    size_t bytes;
    struct writing *w = calloc(1, sizeof *w);
    cr_assert_eq(
        file_read(GOLDEN "logits.f32", 1 << 20, (void **)&expected, &bytes, err, sizeof err), 0);
    cr_assert_eq(bytes, goldens * 1024 * sizeof *expected);
    model_close(model);
    backends_open(&b);
    for (uint32_t k = 0; k < b.n; k++) {
        model = model_must_open(TINY, b.ops[k], NULL);
        for (uint32_t i = 0; i < (HELP_SLOW ? 2 : goldens); i++) {
            const float *logits;
            struct seq *s = seq_new(model);
            cr_assert_eq(model_step(model, 1, &s, (uint32_t[]){0, golden[i].n}, golden[i].ids,
                                    &logits, err, sizeof err),
                         0, "%s", err);
            b.ops[k]->download(b.ops[k], got, logits, sizeof got);
            for (uint32_t v = 0; v < 1024; v++)
                cr_assert(fabsf(got[v] - expected[i * 1024 + v]) < 0.0004f,
                          "prompt %u, logit %u on %s: %g, expected %g", i, v, b.name[k],
                          (double)got[v], (double)expected[i * 1024 + v]);
            seq_free(s);
            writing_set(w, golden[i].ids, golden[i].n, NEW_MAX);
            write_all(w, 1);
            is_golden(w, &golden[i]);
            gen_fini(&w->gen);
        }
        model_close(model);
    }
    model = NULL;
    backends_close(&b);
    free(expected);
    free(w);
}

Test(generate, texts_written_together_are_the_texts_written_alone) {
    struct writing *w = calloc(PROMPTS_MAX, sizeof *w);
    for (uint32_t i = 0; i < goldens; i++) writing_set(&w[i], golden[i].ids, golden[i].n, NEW_MAX);
    write_all(w, goldens);
    for (uint32_t i = 0; i < goldens; i++) {
        is_golden(&w[i], &golden[i]);
        gen_fini(&w[i].gen);
    }
    free(w);
}

Test(generate, a_small_pool_makes_texts_wait_and_changes_none) {
    struct writing *w = calloc(2 * PROMPTS_MAX, sizeof *w);
    model_close(model);
    model = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = 640, .rows_max = 33});
    uint32_t n = strcmp(ops->backend, "ref") == 0 ? goldens : 2 * goldens;
    for (uint32_t i = 0; i < n; i++)
        writing_set(&w[i], golden[i % goldens].ids, golden[i % goldens].n, NEW_MAX);
    write_all(w, n);
    for (uint32_t i = 0; i < n; i++) {
        is_golden(&w[i], &golden[i % goldens]);
        gen_fini(&w[i].gen);
    }
    free(w);
}

Test(generate, the_same_seed_gives_the_same_text_in_any_place_of_any_batch) {
    struct writing *w = calloc(9, sizeof *w);
    uint32_t first[NEW_MAX], n = 0, different = 0;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint32_t place = 0; place < 9; place += 4) {
            for (uint32_t i = 0; i < 9; i++) {
                writing_set(&w[i], golden[i].ids, golden[i].n, 20);
                w[i].gen.temperature = 1;
                w[i].gen.seed = 1000 + i;
            }
            writing_set(&w[place], golden[1].ids, golden[1].n, 40);
            w[place].gen.temperature = 1.2f;
            w[place].gen.top_k = 50;
            w[place].gen.top_p = 0.95f;
            w[place].gen.seed = seed;
            write_all(w + (place == 8 ? 8 : 0), place == 8 ? 1 : 9); /* the last time alone */
            if (place == 0) {
                different +=
                    n != w[0].gen.tokens || memcmp(first, w[0].ids, n * sizeof *first) != 0;
                n = w[0].gen.tokens;
                memcpy(first, w[0].ids, n * sizeof *first);
            }
            cr_assert_eq(w[place].gen.tokens, n, "seed %lu", (unsigned long)seed);
            cr_assert_arr_eq(w[place].ids, first, n * sizeof *first);
            for (uint32_t i = 0; i < 9; i++) gen_fini(&w[i].gen);
        }
    }
    cr_assert(different >= 4, "other seeds give other texts");
    free(w);
}

Test(generate, texts_of_two_adapters_and_none_that_come_and_go_are_what_each_is_alone) {
    enum { TEXTS = 24 };
    static const char *const dirs[] = {"tests/golden/lora/tiny-loud",
                                       "tests/golden/lora/tiny-quiet"};
    const struct adapter *adapter[3] = {NULL};
    struct writing *w = calloc(TEXTS, sizeof *w), *alone = calloc(1, sizeof *alone);
    uint64_t state = 20251124;
    char err[512] = "";
    model_close(model); /* a pool for a few of them at a time */
    model = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = 320, .rows_max = 33});
    for (int i = 0; i < 2; i++)
        cr_assert_eq(model_adapter(model, dirs[i], &adapter[i + 1], err, sizeof err), 0, "%s", err);
    for (uint32_t i = 0; i < TEXTS; i++) {
        const struct golden *g = &golden[rng_next(&state) % 8];
        writing_set(&w[i], g->ids, g->n, 1 + (uint32_t)(rng_next(&state) % 30));
        w[i].gen.adapter = adapter[rng_next(&state) % 3];
        w[i].gen.temperature = i % 4 ? 1.1f : 0;
        w[i].gen.seed = i;
    }
    write_all(w, TEXTS);
    for (uint32_t i = 0; i < TEXTS; i++) {
        writing_set(alone, w[i].gen.prompt, w[i].gen.prompt_tokens, w[i].gen.tokens_max);
        alone->gen.adapter = w[i].gen.adapter;
        alone->gen.temperature = w[i].gen.temperature;
        alone->gen.seed = i;
        write_all(alone, 1);
        cr_assert_eq(alone->gen.finish, w[i].gen.finish, "text %u: %s", i, w[i].gen.err);
        cr_assert_eq(alone->gen.tokens, w[i].gen.tokens, "text %u", i);
        cr_assert_arr_eq(alone->ids, w[i].ids, alone->gen.tokens * sizeof *alone->ids);
        gen_fini(&alone->gen);
        gen_fini(&w[i].gen);
    }
    free(alone);
    free(w);
}

Test(generate, texts_of_one_prompt_share_its_pages_and_are_what_each_is_alone) {
    struct writing *w = calloc(4, sizeof *w), *alone = calloc(1, sizeof *alone);
    uint32_t prompt[70];
    for (uint32_t i = 0; i < 70; i++) prompt[i] = golden[1].ids[i % golden[1].n];
    for (uint32_t i = 0; i < 4; i++) {
        writing_set(&w[i], prompt, 70, 20);
        w[i].gen.temperature = 1;
        w[i].gen.seed = 11;
        w[i].gen.stream = i;
        w[i].gen.same_prompt = i ? &w[0].gen : NULL;
    }
    write_all(w, 4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(w[i].gen.shared_tokens, i ? 64 : 0, "text %u: %u", i, w[i].gen.shared_tokens);
        writing_set(alone, prompt, 70, 20);
        alone->gen.temperature = 1;
        alone->gen.seed = 11;
        alone->gen.stream = i;
        write_all(alone, 1);
        cr_assert_eq(alone->gen.tokens, w[i].gen.tokens);
        cr_assert_arr_eq(alone->ids, w[i].ids, alone->gen.tokens * sizeof *alone->ids);
        gen_fini(&alone->gen);
    }
    cr_assert(memcmp(w[0].ids, w[1].ids, sizeof w[0].ids) != 0, "each stream draws its own");
    for (uint32_t i = 0; i < 4; i++) gen_fini(&w[i].gen);
    free(alone);
    free(w);
}

/* Lets the ids of a list through, one after the other, and is complete with the last. */
struct rail {
    const uint32_t *ids;
    uint32_t n, at, mask[32];
};

static const uint32_t *rail_mask(void *self, uint32_t left) {
    struct rail *r = self;
    cr_assert_eq(left, 30 - r->at);
    memset(r->mask, 0, sizeof r->mask);
    r->mask[r->ids[r->at] / 32] = 1u << r->ids[r->at] % 32;
    return r->mask;
}

static bool rail_take(void *self, uint32_t id) {
    struct rail *r = self;
    cr_assert_eq(id, r->ids[r->at]);
    return ++r->at < r->n;
}

Test(generate, a_guide_decides_each_token_and_when_the_text_is_complete) {
    struct writing *w = calloc(1, sizeof *w);
    const uint32_t ids[] = {300, 511, 300, 42};
    struct rail rail = {.ids = ids, .n = 4};
    struct gen_guide guide = {rail_mask, rail_take, &rail};
    writing_set(w, golden[0].ids, golden[0].n, 30);
    w->gen.guide = &guide;
    write_all(w, 1);
    cr_assert_eq(w->gen.finish, GEN_EOS, "%s", w->gen.err);
    cr_assert_eq(w->gen.tokens, 4);
    cr_assert_arr_eq(w->ids, ids, sizeof ids);
    said_what_it_streamed(w);
    gen_fini(&w->gen);
    free(w);
}

Test(generate, a_presence_penalty_keeps_tokens_from_coming_twice) {
    struct writing *w = calloc(2, sizeof *w);
    for (uint32_t i = 0; i < 2; i++) {
        writing_set(&w[i], golden[0].ids, golden[0].n, NEW_MAX);
        w[i].gen.presence = i ? 1000 : 0;
    }
    write_all(w, 2);
    is_golden(&w[0], &golden[0]);
    cr_assert_gt(w[1].gen.tokens, 2);
    for (uint32_t a = 0; a < w[1].gen.tokens; a++)
        for (uint32_t b = 0; b < a; b++) cr_assert_neq(w[1].ids[a], w[1].ids[b]);
    for (uint32_t i = 0; i < 2; i++) gen_fini(&w[i].gen);
    free(w);
}

/* The golden text of prompt 0 under these stop strings. */
static void stops(struct writing *w, uint32_t n, const char *const *stop) {
    writing_set(w, golden[0].ids, golden[0].n, NEW_MAX);
    for (uint32_t i = 0; i < n; i++) w->gen.stop[w->gen.n_stop++] = bytes_str(stop[i]);
    write_all(w, 1);
    said_what_it_streamed(w);
}

Test(generate, a_stop_string_ends_the_text_before_it_wherever_the_tokens_cut_it) {
    struct writing *w = calloc(1, sizeof *w);
    const char *full = golden[0].text;
    size_t len = strlen(full);
    size_t stride = strcmp(ops->backend, "ref") == 0 || HELP_SLOW ? 23 : 3;
    for (size_t at = 0; at < len; at += stride)
        for (size_t n = 1; n < 40 && at + n <= len; n = n * 2 + 1) {
            char stop[64];
            snprintf(stop, sizeof stop, "%.*s", (int)n, full + at);
            size_t want = (size_t)(strstr(full, stop) - full);
            stops(w, 1, (const char *const[]){stop});
            cr_assert_eq(w->gen.finish, GEN_STOP);
            cr_assert_eq(w->gen.text.len, want, "stop \"%s\": %zu bytes, expected %zu", stop,
                         w->gen.text.len, want);
            if (want) cr_assert_arr_eq(w->gen.text.data, full, want);
            gen_fini(&w->gen);
        }
    free(w);
}

Test(generate, what_ended_a_text_is_stop_or_length_as_the_specification_says) {
    cr_assert_str_eq(gen_finish_name(GEN_EOS), "stop");
    cr_assert_str_eq(gen_finish_name(GEN_STOP), "stop");
    cr_assert_str_eq(gen_finish_name(GEN_LENGTH), "length");
}

Test(generate, a_text_that_only_begins_a_stop_string_comes_out_whole) {
    struct writing *w = calloc(1, sizeof *w);
    const char *full = golden[0].text;
    char almost[64];
    snprintf(almost, sizeof almost, "%s!", full + strlen(full) - 20);
    stops(w, 3, (const char *const[]){"camera found a warm", almost, ""});
    cr_assert_eq(w->gen.finish, GEN_EOS);
    cr_assert_eq(w->gen.text.len, strlen(full));
    cr_assert_arr_eq(w->gen.text.data, full, strlen(full));
    gen_fini(&w->gen);
    stops(w, 3, (const char *const[]){"on board", "cold joint", "joint under"});
    cr_assert_eq(w->gen.text.len, (size_t)(strstr(full, "cold joint") - full),
                 "the one that begins first");
    gen_fini(&w->gen);
    free(w);
}

Test(generate, a_cancelled_text_ends_and_the_others_go_on) {
    struct writing *w = calloc(3, sizeof *w);
    for (uint32_t i = 0; i < 3; i++) writing_set(&w[i], golden[i].ids, golden[i].n, NEW_MAX);
    w[1].cancel_after = 3;
    write_all(w, 3);
    cr_assert(w[1].gen.finish == GEN_FAILED && w[1].gen.error == ERR_CANCELLED);
    cr_assert_eq(w[1].n_pieces, 3, "it was heard of after it was cancelled");
    cr_assert_eq(w[1].gen.tokens, w[1].tokens_then, "it was decoded further");
    cr_assert(strstr(w[1].gen.err, "tokens"), "%s", w[1].gen.err);
    is_golden(&w[0], &golden[0]);
    is_golden(&w[2], &golden[2]);
    for (uint32_t i = 0; i < 3; i++) gen_fini(&w[i].gen);
    free(w);
}

Test(generate, a_text_ends_with_the_context_and_a_longer_prompt_is_refused) {
    struct writing *w = calloc(4, sizeof *w);
    uint32_t prompt[200] = {1022};
    for (uint32_t i = 1; i < 200; i++) prompt[i] = 300 + i % 7;
    model_close(model);
    model = model_must_open(TINY, ops, &(struct model_config){.kv_tokens = 96});
    cr_assert_eq(model_info(model)->context, 96);
    writing_set(&w[0], prompt, 90, 500);
    writing_set(&w[1], prompt, 96, 500);
    writing_set(&w[2], prompt, 97, 1);
    writing_set(&w[3], prompt, 0, 1);
    write_all(w, 4);
    cr_assert_eq(w[0].gen.finish, GEN_LENGTH, "%s", w[0].gen.err);
    cr_assert_eq(w[0].gen.tokens, 7, "six more fit into the cache, and the last is drawn from it");
    cr_assert(w[1].gen.finish == GEN_LENGTH && w[1].gen.tokens == 1);
    cr_assert(w[2].gen.finish == GEN_FAILED && w[2].gen.error == ERR_LIMIT);
    cr_assert(strstr(w[2].gen.err, "97") && strstr(w[2].gen.err, "96"), "%s", w[2].gen.err);
    cr_assert(w[3].gen.finish == GEN_FAILED && w[3].gen.error == ERR_FIELD, "%s", w[3].gen.err);
    for (uint32_t i = 0; i < 4; i++) gen_fini(&w[i].gen);
    free(w);
}

Test(generate, an_id_beyond_the_vocabulary_fails_its_text_alone) {
    struct writing *w = calloc(2, sizeof *w);
    const uint32_t bad[] = {1022, 1024};
    writing_set(&w[0], bad, 2, 5);
    writing_set(&w[1], golden[1].ids, golden[1].n, NEW_MAX);
    write_all(w, 2);
    cr_assert(w[0].gen.finish == GEN_FAILED && w[0].gen.error == ERR_FIELD);
    cr_assert(strstr(w[0].gen.err, "1024"), "%s", w[0].gen.err);
    is_golden(&w[1], &golden[1]);
    for (uint32_t i = 0; i < 2; i++) gen_fini(&w[i].gen);
    free(w);
}

Test(goldens, stories260K_tells_the_story_that_llama2_c_tells) {
    const char *data = getenv("PENSTOCK_DATA");
    struct scratch s;
    char command[1024], path[512], err[512] = "", *want;
    size_t bytes;
    if (!data || !*data) cr_skip_test("PENSTOCK_DATA is not set");
    snprintf(path, sizeof path, "%s/weights/stories260K/golden_greedy_200.txt", data);
    if (access(path, R_OK) != 0) cr_skip_test("PENSTOCK_DATA has no weights/stories260K");
    cr_assert_eq(file_read(path, 1 << 20, (void **)&want, &bytes, err, sizeof err), 0, "%s", err);
    scratch_begin(&s, NULL);
    snprintf(command, sizeof command,
             "/usr/bin/python3 tests/golden/stories260k.py '%s/weights/stories260K' '%s'", data,
             s.dir);
    cr_assert_eq(system(command), 0, "%s", command);
    struct help_backends b;
    backends_open(&b);
    cr_assert_eq(tokenizer_open(&tokenizer, s.dir, err, sizeof err), 0, "%s", err);
    for (uint32_t k = 0; k < b.n; k++) {
        if (HELP_SLOW && k + 1 < b.n) continue;
        struct writing *w = calloc(1, sizeof *w);
        const uint32_t bos[] = {1};
        model = model_must_open(s.dir, b.ops[k], NULL);
        writing_set(w, bos, 1, 200);
        write_all(w, 1);
        cr_assert_eq(w->gen.tokens, 200, "%s", w->gen.err);
        cr_assert_eq(w->gen.text.len + 1, bytes, "llama2.c prints a line feed at the end");
        cr_assert_arr_eq(w->gen.text.data, want, bytes - 1, "another story on %s", b.name[k]);
        said_what_it_streamed(w);
        gen_fini(&w->gen);
        model_close(model);
        free(w);
    }
    tokenizer_close(tokenizer);
    backends_close(&b);
    scratch_end(&s);
    free(want);
}
