#include "tests/bench/engine/ours.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"

enum { PROMPTS_MAX = 64 * 1024 };

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

bool ours_open(struct ours *o, const char *dir, enum dtype weights, uint32_t threads,
               uint32_t kv_tokens) {
    char err[512] = "";
    struct ops_config c = {"cpu", "auto", threads};
    struct model_config m = {.weights = weights, .kv_tokens = kv_tokens, .cache = true};
    *o = (struct ours){0};
    if (ops_open(&o->ops, &c, err, sizeof err) != 0) die(err);
    int rc = model_open(&o->model, dir, o->ops, &m, err, sizeof err);
    if (rc == -ENOTSUP) {
        printf("skipped: %s\n", err);
        ours_close(o);
        return false;
    }
    if (rc != 0) die(err);
    if (model_info(o->model)->kind != MODEL_DECODER) die("the model is not a decoder");
    return true;
}

void ours_close(struct ours *o) {
    model_close(o->model);
    ops_close(o->ops);
    *o = (struct ours){0};
}

static void step(struct ours *o, uint32_t n, struct seq **seqs, const uint32_t *begin,
                 const uint32_t *ids) {
    char err[256];
    const float *logits;
    if (model_step(o->model, n, seqs, begin, ids, &logits, err, sizeof err) != 0) die(err);
    o->ops->sync(o->ops);
}

/* Sequences with a prompt each; true when they are in the cache and their first tokens in ids. */
static void begin_texts(struct ours *o, uint32_t n, uint32_t prompt_tokens, struct seq **seqs) {
    static uint32_t ids[PROMPTS_MAX];
    uint32_t begin[MODEL_SEQS_MAX + 1] = {0}, vocab = model_info(o->model)->vocab;
    uint64_t state = 1;
    if (n > MODEL_SEQS_MAX || (uint64_t)n * prompt_tokens > PROMPTS_MAX) die("too many prompts");
    for (uint32_t i = 0; i < n; i++) {
        seqs[i] = seq_new(o->model);
        if (!seqs[i]) die("no memory");
        begin[i + 1] = begin[i] + prompt_tokens;
    }
    for (uint32_t i = 0; i < begin[n]; i++) ids[i] = (uint32_t)(rng_next(&state) % vocab);
    step(o, n, seqs, begin, ids);
}

double ours_prefill(struct ours *o, uint32_t tokens) {
    struct seq *s;
    int64_t began = clock_mono_ns();
    begin_texts(o, 1, tokens, &s);
    double seconds = (double)(clock_mono_ns() - began) * 1e-9;
    seq_free(s);
    return seconds;
}

double ours_decode(struct ours *o, uint32_t n, uint32_t prompt_tokens, uint32_t tokens) {
    struct seq *seqs[MODEL_SEQS_MAX];
    struct sample_row row[MODEL_SEQS_MAX];
    uint32_t begin[MODEL_SEQS_MAX + 1], ids[MODEL_SEQS_MAX];
    begin_texts(o, n, prompt_tokens, seqs);
    for (uint32_t i = 0; i < n; i++) row[i] = (struct sample_row){.top_p = 1};
    for (uint32_t i = 0; i <= n; i++) begin[i] = i;
    int64_t began = clock_mono_ns();
    for (uint32_t t = 0; t < tokens; t++) {
        model_sample(o->model, n, row, ids, NULL, NULL);
        step(o, n, seqs, begin, ids);
    }
    double seconds = (double)(clock_mono_ns() - began) * 1e-9;
    for (uint32_t i = 0; i < n; i++) seq_free(seqs[i]);
    return seconds;
}
