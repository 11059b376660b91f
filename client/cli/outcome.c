#include "client/cli/outcome.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/term.h"
#include "client/cli/outcome_kinds.h"
#include "client/cli/table.h"

#define GIST_BYTES 60 /* of a generated text */

static struct json *parse(const char *text) {
    struct json *j = NULL;
    if (text) json_parse(&j, text, strlen(text), NULL, 0);
    return j;
}

/* The words of a result come from documents and logs of others: a terminal must not obey them. */
static void clean(const struct json *j) {
    const struct json *value;
    const char *key;
    if (json_kind(j) == JSON_STR) term_clean((char *)(uintptr_t)json_str(j)); /* the tree is ours */
    if (json_kind(j) == JSON_ARRAY)
        for (size_t i = 0; i < json_len(j); i++) clean(json_at(j, i));
    if (json_kind(j) == JSON_OBJECT)
        for (size_t it = 0; json_next(j, &it, &key, &value);) clean(value);
}

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

void outcome_print_json(const char *json, bool pretty) {
    struct json *j = pretty ? parse(json) : NULL;
    char *text = j ? json_text(j, 2) : NULL;
    puts(text ? text : json);
    free(text);
    json_free(j);
}

/* ---- for people, by kind ---- */

static void print_embed(const struct json *j) {
    static const char *const heads[] = {"text", "tokens", "truncated", "vector:60", NULL};
    struct table t;
    table_init(&t, heads);
    const struct json *rows = json_get(j, "embeddings");
    for (size_t i = 0; i < json_len(rows); i++) {
        const struct json *v = json_at(rows, i);
        table_cell(&t, "%zu", i);
        table_cell(&t, "%lld", (long long)json_int(json_at(json_get(j, "tokens"), i), 0));
        table_cell(&t, "%s", json_bool(json_at(json_get(j, "truncated"), i), false) ? "yes" : "no");
        table_cell(&t, "[%.4f, %.4f, %.4f, ... %zu in all]", json_num(json_at(v, 0), 0),
                   json_num(json_at(v, 1), 0), json_num(json_at(v, 2), 0), json_len(v));
    }
    table_print(&t);
    table_fini(&t);
    printf("model %s\n", str(j, "model"));
}

/* Several texts are numbered from 0, as their events are. */
static void print_choices(const struct json *choices, size_t from) {
    for (size_t i = from; i < json_len(choices); i++)
        printf("[%zu] %s\n", i, str(json_at(choices, i), "text"));
}

static void print_generate(const struct json *j) {
    const struct json *choices = json_get(j, "choices");
    if (json_len(choices) > 1)
        print_choices(choices, 0);
    else
        puts(str(j, "text"));
    fflush(stdout); /* the text first, also where both streams go to one file */
    fprintf(stderr, "model %s, %lld prompt tokens, %lld new, ended by %s", str(j, "model"),
            (long long)json_int(json_get(j, "prompt_tokens"), 0),
            (long long)json_int(json_get(j, "completion_tokens"), 0), str(j, "finish_reason"));
    for (size_t i = 1; i < json_len(choices); i++)
        fprintf(stderr, ", %s", str(json_at(choices, i), "finish_reason"));
    fprintf(stderr, "%s\n", json_get(j, "logprobs") ? "; --json prints the logprobs too" : "");
}

/* A pipeline may end with a result of another shape than its kind has; that is printed as JSON. */
static const struct shape {
    const char *kind, *has;
    void (*print)(const struct json *j);
} shapes[] = {{"text.embed", "embeddings", print_embed},
              {"text.generate", "finish_reason", print_generate},
              {"contract.analyze", "clauses", outcome_contract},
              {"qc.inspect", "defects_total", outcome_qc}};

static const struct shape *shape_of(const struct penstock_result *r, const struct json *j) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(r->kind, shapes[i].kind) == 0 && json_get(j, shapes[i].has)) return &shapes[i];
    return NULL;
}

static void print_for_people(const struct penstock_result *r) {
    struct json *j = parse(r->json);
    const struct shape *shape = j ? shape_of(r, j) : NULL;
    if (shape && term_is(stdout)) clean(j);
    if (shape)
        shape->print(j);
    else
        outcome_print_json(r->json, true);
    json_free(j);
}

void outcome_print_rest(const struct penstock_result *r) {
    struct json *j = parse(r->json);
    if (j && term_is(stdout)) clean(j);
    if (j && strcmp(r->kind, "text.generate") == 0) print_choices(json_get(j, "choices"), 1);
    json_free(j);
}

char *outcome_gist(const struct penstock_result *r) {
    struct json *j = parse(r->json);
    char *text = NULL;
    const struct shape *shape = j ? shape_of(r, j) : NULL;
    int n = -1;
    if (!shape)
        n = asprintf(&text, "%s", r->state);
    else if (shape->print == outcome_qc)
        n = asprintf(&text, "%s, %lld defects", str(j, "state"),
                     (long long)json_int(json_get(j, "defects_total"), 0));
    else if (shape->print == outcome_contract)
        n = asprintf(&text, "%zu entities, %zu clauses, %zu risks",
                     json_len(json_get(j, "entities")), json_len(json_get(j, "clauses")),
                     json_len(json_get(j, "risks")));
    else if (shape->print == print_embed)
        n = asprintf(&text, "%zu vectors", json_len(json_get(j, "embeddings")));
    else
        n = asprintf(&text, "%.*s", (int)utf8_cut(bytes_str(str(j, "text")), GIST_BYTES),
                     str(j, "text"));
    json_free(j);
    return n < 0 ? NULL : text;
}

static int set_str(struct json *j, const char *key, const char *text) {
    return text[0] ? json_set(j, key, json_new_str(text, strlen(text))) : 0;
}

int outcome_json(const struct penstock_result *r, struct json *into) {
    int rc = set_str(into, "job", r->job) | set_str(into, "state", r->state) |
             set_str(into, "kind", r->kind) | set_str(into, "error_class", r->error_class) |
             set_str(into, "reason", r->reason) | set_str(into, "numerics_id", r->numerics_id);
    if (r->terminal)
        rc |= json_set(into, "attempt", json_new_int((int64_t)r->attempt));
    else
        rc |= json_set(into, "stage", json_new_int(r->stage));
    if (r->json) rc |= json_set(into, "result", parse(r->json));
    return rc;
}

static void print_as_json(const struct penstock_result *r) {
    struct json *j = json_new_object();
    char *text = j && outcome_json(r, j) == 0 ? json_text(j, 0) : NULL;
    if (text)
        puts(text);
    else
        fputs("penstock: out of memory\n", stderr);
    free(text);
    json_free(j);
}

void outcome_print(const struct cli *c, const struct penstock_result *r) {
    if (c->json) {
        print_as_json(r);
    } else if (r->json) {
        print_for_people(r);
    } else if (r->terminal) {
        fprintf(stderr, "penstock: job %s %s%s%s%s", r->job, r->state,
                r->error_class[0] ? " (" : "", r->error_class, r->error_class[0] ? "): " : ": ");
        term_put(stderr, r->reason);
        fprintf(stderr, "; `penstock job show %s` says more\n", r->job);
    } else {
        fprintf(stderr, "penstock: job %s is still %s; `penstock wait %s` waits for it\n", r->job,
                r->state, r->job);
    }
}

int outcome_code(const struct penstock_result *r) {
    return strcmp(r->state, "done") == 0 ? CLI_OK : CLI_FAILED;
}
