/* penstock-worker run and tokenize, called as main would call them. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/infer/help.h"
#include "workers/verbs.h"

#define TINY "examples/models/tiny-llama"

static char *argv_of[32];
static int argc_of(const char *const *words) {
    int n = 0;
    while (words[n]) {
        argv_of[n] = strdup(words[n]);
        n++;
    }
    argv_of[n] = NULL;
    return n;
}
#define ARGS(...) argc_of((const char *const[]){__VA_ARGS__, NULL}), argv_of

/* Everything that was printed so far. */
static size_t printed(char *out, size_t max) {
    fflush(stdout);
    FILE *f = cr_get_redirected_stdout();
    size_t n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    return n;
}

static void redirect(void) {
    cr_redirect_stdout();
    cr_redirect_stderr();
}

TestSuite(verbs, .init = redirect);

Test(verbs, run_prints_the_text_and_json_tells_the_rest) {
    char out[4096], err[256] = "";
    cr_assert_eq(verb_run(ARGS("run", TINY, "--prompt", "", "--max-tokens", "64", "--json")), 0);
    size_t n = printed(out, sizeof out);
    struct json *j;
    cr_assert_eq(json_parse(&j, out, n, err, sizeof err), 0, "%s: %s", err, out);
    const char *text = json_str(json_get(j, "text"));
    cr_assert(text && strncmp(text, "The camera found a cold joint", 29) == 0, "%s", out);
    cr_assert_str_eq(json_str(json_get(j, "finish_reason")), "stop");
    cr_assert_eq(json_int(json_get(j, "prompt_tokens"), 0), 1);
    cr_assert_eq((int64_t)json_len(json_get(j, "ids")), json_int(json_get(j, "tokens"), -1));
    cr_assert(json_str(json_get(j, "numerics_id")));
    json_free(j);
}

Test(verbs, run_writes_with_an_adapter_and_refuses_what_is_none) {
    char out[4096], err[256] = "";
    cr_assert_eq(verb_run(ARGS("run", TINY, "--prompt", "The press on line two", "--max-tokens",
                               "40", "--adapter", "tests/golden/lora/tiny-quiet", "--json")),
                 0);
    size_t n = printed(out, sizeof out);
    struct json *j, *golden;
    cr_assert_eq(json_parse(&j, out, n, err, sizeof err), 0, "%s: %s", err, out);
    cr_assert_eq(
        json_load(&golden, "tests/golden/lora/tiny-quiet/golden.json", 1 << 20, err, sizeof err),
        0);
    const struct json *got = json_get(j, "ids"), *wanted = json_get(golden, "new_ids");
    cr_assert_eq(json_len(got), json_len(wanted), "%s", out);
    for (size_t i = 0; i < json_len(got); i++)
        cr_assert_eq(json_int(json_at(got, i), -1), json_int(json_at(wanted, i), -2));
    cr_assert(strstr(json_str(json_get(j, "adapter")), "tiny-quiet"));
    json_free(golden);
    json_free(j);
    cr_assert_eq(verb_run(ARGS("run", TINY, "--prompt", "x", "--adapter", TINY)), 1);
    cr_assert_eq(
        verb_run(ARGS("run", TINY, "--prompt", "x", "--adapter", "tests/golden/lora/llama-all")),
        1);
}

Test(verbs, run_writes_several_texts_with_the_log_probability_of_each_token) {
    char out[16384], err[256] = "";
    cr_assert_eq(verb_run(ARGS("run", TINY, "--prompt", "The press", "--max-tokens", "9", "--n",
                               "3", "--temperature", "1.2", "--min-p", "0.01", "--presence-penalty",
                               "0.5", "--logprobs", "2", "--json")),
                 0);
    size_t n = printed(out, sizeof out);
    struct json *j;
    cr_assert_eq(json_parse(&j, out, n, err, sizeof err), 0, "%s: %s", err, out);
    cr_assert_eq(json_len(json_get(j, "choices")), 3, "%s", out);
    for (size_t i = 0; i < 3; i++) {
        const struct json *choice = json_at(json_get(j, "choices"), i);
        size_t tokens = json_len(json_get(choice, "ids"));
        cr_assert_eq(json_len(json_get(choice, "logprobs")), tokens);
        cr_assert_eq(json_len(json_get(choice, "top_logprobs")), tokens);
        for (size_t k = 0; k < tokens; k++) {
            const struct json *top = json_at(json_get(choice, "top_logprobs"), k);
            cr_assert_eq(json_len(top), 2);
            cr_assert_leq(json_num(json_at(json_get(choice, "logprobs"), k), 1),
                          json_num(json_at(json_at(top, 0), 1), 1));
        }
    }
    cr_assert_str_eq(json_str(json_get(j, "text")),
                     json_str(json_get(json_at(json_get(j, "choices"), 0), "text")));
    json_free(j);
}

Test(verbs, run_stops_before_a_stop_string) {
    char out[4096];
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "", "--stop", " joint")), 0);
    printed(out, sizeof out);
    cr_assert_str_eq(out, "The camera found a cold\n");
}

Test(verbs, run_writes_a_value_that_a_schema_allows) {
    char out[4096];
    struct scratch s;
    char path[300];
    scratch_begin(&s, NULL);
    scratch_text(&s, "schema.json",
                 "{\"type\":\"array\",\"items\":{\"const\":\"joint\"},"
                 "\"minItems\":2,\"maxItems\":2}");
    snprintf(path, sizeof path, "%s/schema.json", s.dir);
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "", "--schema", path)), 0);
    printed(out, sizeof out);
    cr_assert_str_eq(out, "[\"joint\",\"joint\"]\n");
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "", "--schema", path, "-n", "5")), 1);
    scratch_end(&s);
}

Test(verbs, run_says_what_is_wrong_with_a_model) {
    char out[256];
    cr_assert_eq(verb_run(ARGS("run", "tests/golden/none", "-p", "x")), 1);
    cr_assert_eq(printed(out, sizeof out), 0, "nothing but data goes to stdout");
    FILE *f = cr_get_redirected_stderr();
    fflush(stderr);
    out[fread(out, 1, sizeof out - 1, f)] = '\0';
    cr_assert(strstr(out, "tests/golden/none: there is no such folder"), "%s", out);
}

/* A copy of the tiny model whose chat template is this. */
static void model_with_template(struct scratch *s, const char *template) {
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    scratch_begin(s, NULL);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) scratch_copy(s, TINY, files[i]);
    scratch_text(s, "chat_template.jinja", template);
}

Test(verbs, run_answers_messages_by_the_models_template) {
    char out[8192], file[512], err[256] = "";
    struct scratch s;
    struct json *j[3];
    model_with_template(&s, "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}");
    scratch_text(&s, "list",
                 "[{\"role\": \"user\", \"content\": \"The press \"}, "
                 "{\"role\": \"user\", \"content\": \"on line two\"}]");
    scratch_text(&s, "object",
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"The press on line two\"}]}");
    cr_assert_eq(verb_run(ARGS("run", TINY, "--prompt", "The press on line two", "--json")), 0);
    snprintf(file, sizeof file, "%s/list", s.dir);
    cr_assert_eq(verb_run(ARGS("run", s.dir, "--messages", file, "--json")), 0);
    snprintf(file, sizeof file, "%s/object", s.dir);
    cr_assert_eq(verb_run(ARGS("run", s.dir, "--messages", file, "--json")), 0);
    size_t n = printed(out, sizeof out);
    char *at = out;
    for (int i = 0; i < 3; i++) {
        char *end = memchr(at, '\n', n - (size_t)(at - out));
        cr_assert(end, "%s", out);
        cr_assert_eq(json_parse(&j[i], at, (size_t)(end - at), err, sizeof err), 0, "%s", err);
        cr_assert_str_eq(json_str(json_get(j[i], "text")), json_str(json_get(j[0], "text")));
        cr_assert_eq(json_int(json_get(j[i], "prompt_tokens"), -1),
                     json_int(json_get(j[0], "prompt_tokens"), -2), "the text begins once only");
        at = end + 1;
    }
    for (int i = 0; i < 3; i++) json_free(j[i]);
    scratch_end(&s);
}

Test(verbs, run_names_the_file_of_messages_and_what_is_wrong_there) {
    char file[512], said[2048];
    struct scratch s;
    model_with_template(&s, "{{ raise_exception('nobody ' ~ messages[0].role) }}");
    scratch_text(&s, "list", "[{\"role\": \"asked\"}]");
    scratch_text(&s, "other", "{\"message\": []}");
    snprintf(file, sizeof file, "%s/list", s.dir);
    cr_assert_eq(verb_run(ARGS("run", s.dir, "--messages", file)), 1);
    snprintf(file, sizeof file, "%s/chat_template.jinja", s.dir);
    cr_assert_eq(remove(file), 0);
    snprintf(file, sizeof file, "%s/list", s.dir);
    cr_assert_eq(verb_run(ARGS("run", s.dir, "--messages", file)), 1);
    snprintf(file, sizeof file, "%s/other", s.dir);
    cr_assert_eq(verb_run(ARGS("run", s.dir, "--messages", file)), 1);
    fflush(stderr);
    said[fread(said, 1, sizeof said - 1, cr_get_redirected_stderr())] = '\0';
    cr_assert(strstr(said, "list: messages: chat template: line 1: the template refuses these "
                           "messages: nobody asked"),
              "%s", said);
    cr_assert(strstr(said, "no chat template: send a prompt instead"), "%s", said);
    cr_assert(strstr(said, "other: message: not one of messages, tools, template_vars"), "%s",
              said);
    scratch_end(&s);
}

Test(verbs, run_with_a_prompt_and_messages_is_wrong_usage, .exit_code = 2) {
    verb_run(ARGS("run", TINY, "--prompt", "x", "--messages", "y"));
}

Test(verbs, run_without_a_prompt_is_wrong_usage, .exit_code = 2) {
    verb_run(ARGS("run", TINY));
}

Test(verbs, run_with_an_unknown_way_to_guess_is_wrong_usage, .exit_code = 2) {
    verb_run(ARGS("run", TINY, "-p", "x", "--speculate", "on"));
}

Test(verbs, run_writes_the_same_text_whoever_guesses) {
    char out[4096];
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "The press on line two", "-t", "0.7")), 0);
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "The press on line two", "-t", "0.7",
                               "--speculate", "off")),
                 0);
    cr_assert_eq(
        verb_run(ARGS("run", TINY, "-p", "The press on line two", "-t", "0.7", "--draft", TINY)),
        0);
    size_t n = printed(out, sizeof out);
    cr_assert(n > 30 && n % 3 == 0, "%zu bytes", n);
    cr_assert_arr_eq(out, out + n / 3, n / 3);
    cr_assert_arr_eq(out, out + 2 * n / 3, n / 3);
    cr_assert_eq(verb_run(ARGS("run", TINY, "-p", "x", "--draft", "tests/golden/models/bert")), 1);
}

Test(verbs, run_with_a_temperature_beyond_the_limit_is_wrong_usage, .exit_code = 2) {
    verb_run(ARGS("run", TINY, "-p", "x", "-t", "3"));
}

Test(verbs, tokenize_prints_the_ids_of_each_line) {
    struct scratch s;
    char path[512], out[1024];
    scratch_begin(&s, NULL);
    scratch_text(&s, "lines", "The press\n\nbad \377\nThe press");
    snprintf(path, sizeof path, "%s/lines", s.dir);
    cr_assert(freopen(path, "r", stdin));
    cr_assert_eq(verb_tokenize(ARGS("tokenize", TINY)), 1, "one line was refused");
    printed(out, sizeof out);
    cr_assert_str_eq(out, "[1022,267,958]\n[1022]\nnull\n[1022,267,958]\n");
    scratch_end(&s);
}

Test(verbs, tokenize_cuts_and_leaves_special_tokens_out_when_asked) {
    struct scratch s;
    char path[512], out[1024];
    scratch_begin(&s, NULL);
    scratch_text(&s, "lines", "The press\n");
    snprintf(path, sizeof path, "%s/lines", s.dir);
    cr_assert(freopen(path, "r", stdin));
    cr_assert_eq(verb_tokenize(ARGS("tokenize", TINY, "--no-special", "--max", "1")), 0);
    printed(out, sizeof out);
    cr_assert_str_eq(out, "[267]\n");
    scratch_end(&s);
}
