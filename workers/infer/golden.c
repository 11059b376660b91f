#include "workers/infer/golden.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/model.h"
#include "workers/infer/safetensors.h"

#define FILE_BYTES_MAX (256u << 20)
#define IDS_MAX (1u << 20)
#define ERROR_MOST 2e-4 /* unless the file says otherwise */
#define COSINE_LEAST 0.99999

/* One comparison: the file, the line, and what has been found. */
struct check {
    const struct golden_model *m;
    struct golden_report *out;
    const char *path;
    uint32_t line;
    double error_most, cosine_least;
    char *err;
    size_t err_bytes;
};

static int line_bad(const struct check *c, const char *what) {
    return err_set(c->err, c->err_bytes, ERR_FIELD, "%s:%u: %s", c->path, c->line, what);
}

static int no_memory(const struct check *c) {
    return err_set(c->err, c->err_bytes, -ENOMEM, "%s:%u: no memory", c->path, c->line);
}

static int read_head(struct check *c, const struct json *j) {
    const char *want = json_str(json_get(j, "architecture"));
    const char *have = model_info(c->m->model)->architecture;
    const struct json *numerics = json_get(j, "numerics");
    if (json_int(json_get(j, "golden"), 0) != 1)
        return line_bad(c, "does not begin with {\"golden\": 1}, the version that is read here");
    if (want && strcmp(want, have) != 0)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT, "%s is of a %s, the model is a %s",
                       c->path, want, have);
    c->error_most = json_num(json_get(numerics, "logits"), ERROR_MOST);
    c->cosine_least = json_num(json_get(numerics, "cosine"), COSINE_LEAST);
    return 0;
}

static int check_tensor(struct check *c, const struct json *j) {
    const char *name = json_str(json_get(j, "tensor")), *dtype = json_str(json_get(j, "dtype")),
               *sha256 = json_str(json_get(j, "sha256"));
    const struct json *shape = json_get(j, "shape");
    if (!name || !dtype || !sha256) return line_bad(c, "a tensor has dtype, shape and sha256");
    const struct tensor *t = safetensors_find(c->m->tensors, name);
    if (!t)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT, "%s: tensor %s: missing, %s has it",
                       safetensors_where(c->m->tensors), name, c->path);
    const char *file = safetensors_path(c->m->tensors, t);
    bool same = strcmp(t->type, dtype) == 0 && json_len(shape) == t->rank;
    for (uint32_t i = 0; same && i < t->rank; i++)
        same = json_int(json_at(shape, i), -1) == (int64_t)t->shape[i];
    if (!same)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s: its type or shape is not that of %s", file, name, c->path);
    char hash[DIGEST_SHA256_CHARS];
    digest_sha256(bytes_of(t->data, t->bytes), hash);
    if (strcmp(hash, sha256) != 0)
        return err_set(c->err, c->err_bytes, ERR_CORRUPT,
                       "%s: tensor %s differs from the golden one (SHA-256 %.16s..., expected "
                       "%.16s...)",
                       file, name, hash, sha256);
    c->out->tensors++;
    return 0;
}

/* A list of ids below the vocabulary, for free(). */
static int read_ids(const struct check *c, const struct json *list, uint32_t **ids, uint32_t *n) {
    size_t len = json_len(list);
    *n = 0;
    *ids = NULL;
    if (len > IDS_MAX) return line_bad(c, "too many ids");
    *ids = calloc(len + 1, sizeof **ids);
    if (!*ids) return no_memory(c);
    for (size_t i = 0; i < len; i++) {
        int64_t id = json_int(json_at(list, i), -1);
        if (id < 0 || id >= model_info(c->m->model)->vocab)
            return line_bad(c, "an id is not of the model's vocabulary");
        (*ids)[i] = (uint32_t)id;
    }
    *n = (uint32_t)len;
    return 0;
}

/* The tokenizer's ids of the text are those of the line. */
static int check_text(const struct check *c, const struct json *text, const uint32_t *ids,
                      uint32_t n) {
    struct arena a;
    struct tokens got;
    if (json_kind(text) != JSON_STR || !c->m->tokenizer) return 0;
    arena_init(&a, FILE_BYTES_MAX);
    int rc = tokenizer_encode(c->m->tokenizer, bytes_of(json_str(text), json_str_len(text)), true,
                              0, &a, &got, c->err, c->err_bytes);
    uint32_t i = 0;
    while (rc == 0 && i < n && i < got.n && got.ids[i] == ids[i]) i++;
    if (rc == 0 && (i < n || i < got.n))
        rc = err_set(c->err, c->err_bytes, ERR_CORRUPT,
                     "%s:%u: the tokenizer differs at token %u of the text: %" PRId64
                     ", expected %" PRId64,
                     c->path, c->line, i, i < got.n ? (int64_t)got.ids[i] : -1,
                     i < n ? (int64_t)ids[i] : -1);
    arena_fini(&a);
    return rc;
}

static int check_logits(struct check *c, const struct json *golden, const float *logits) {
    const struct json *at = json_get(golden, "at"), *value = json_get(golden, "value");
    uint32_t vocab = model_info(c->m->model)->vocab;
    double most = json_num(json_get(golden, "max"), 0);
    if (json_len(at) == 0 || json_len(at) != json_len(value) || !(most > 0))
        return line_bad(c, "logits have as many values as places, and their largest");
    float *host = calloc(vocab, sizeof *host);
    int rc = host ? 0 : no_memory(c);
    if (host) c->m->ops->download(c->m->ops, host, logits, vocab * sizeof *host);
    for (size_t i = 0; rc == 0 && i < json_len(at); i++) {
        int64_t id = json_int(json_at(at, i), -1);
        double want = json_num(json_at(value, i), NAN);
        if (id < 0 || id >= vocab || isnan(want)) rc = line_bad(c, "a logit is of no token");
        double error = rc == 0 ? fabs((double)host[id] - want) / most : 0;
        if (error > c->out->error) c->out->error = error;
        if (rc == 0 && !(error <= c->error_most))
            rc = err_set(c->err, c->err_bytes, ERR_CORRUPT,
                         "%s:%u: the logit of token %" PRId64
                         " is %.6g, expected %.6g: off by %.1e of the largest, the limit is %.1e",
                         c->path, c->line, id, (double)host[id], want, error, c->error_most);
    }
    free(host);
    return rc;
}

/* The prompt in one step, then greedily a token at a time. */
static int check_decoder(struct check *c, const struct json *j, const uint32_t *ids, uint32_t n) {
    uint32_t begin[2] = {0, n}, n_new, *new_ids, next = 0;
    const struct json *golden = json_get(j, "logits");
    const float *logits;
    int rc = read_ids(c, json_get(j, "new_ids"), &new_ids, &n_new);
    struct seq *s = rc == 0 ? seq_new(c->m->model) : NULL;
    if (rc == 0 && !s) rc = no_memory(c);
    if (rc == 0) rc = model_step(c->m->model, 1, &s, begin, ids, &logits, c->err, c->err_bytes);
    if (rc == 0 && json_kind(golden) == JSON_OBJECT) rc = check_logits(c, golden, logits);
    for (uint32_t i = 0; rc == 0 && i < n_new; i++) {
        model_sample(c->m->model, 1, &(struct sample_row){.top_p = 1}, &next, NULL, NULL);
        if (next != new_ids[i])
            rc = err_set(c->err, c->err_bytes, ERR_CORRUPT,
                         "%s:%u: token %u that the model writes is %u, expected %u", c->path,
                         c->line, i, next, new_ids[i]);
        c->out->tokens += rc == 0;
        begin[1] = 1;
        if (rc == 0 && i + 1 < n_new)
            rc = model_step(c->m->model, 1, &s, begin, &next, &logits, c->err, c->err_bytes);
    }
    seq_free(s);
    free(new_ids);
    return rc;
}

static int check_encoder(struct check *c, const struct json *j, const uint32_t *ids, uint32_t n) {
    const struct json *golden = json_get(j, "embedding");
    uint32_t begin[2] = {0, n}, dim = model_info(c->m->model)->dim;
    double ab = 0, aa = 0, bb = 0;
    if (json_len(golden) != dim)
        return line_bad(c, "an embedding has as many numbers as the model");
    float *got = calloc(dim, sizeof *got);
    int rc =
        got ? model_embed(c->m->model, 1, begin, ids, got, c->err, c->err_bytes) : no_memory(c);
    for (uint32_t i = 0; rc == 0 && i < dim; i++) {
        double a = (double)got[i], b = json_num(json_at(golden, i), NAN);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    double cosine = ab / sqrt(aa * bb);
    if (rc == 0 && !(cosine >= c->cosine_least))
        rc = err_set(c->err, c->err_bytes, ERR_CORRUPT,
                     "%s:%u: the embedding's cosine with the golden one is %.6f, at least %.6f is "
                     "asked for",
                     c->path, c->line, cosine, c->cosine_least);
    if (rc == 0 && cosine < c->out->cosine) c->out->cosine = cosine;
    free(got);
    return rc;
}

static int check_case(struct check *c, const struct json *j) {
    uint32_t *ids, n;
    bool decoder = model_info(c->m->model)->kind == MODEL_DECODER;
    int rc = read_ids(c, json_get(j, "ids"), &ids, &n);
    if (rc == 0 && n == 0) rc = line_bad(c, "neither a tensor nor ids");
    if (rc == 0) rc = check_text(c, json_get(j, "text"), ids, n);
    if (rc == 0) rc = decoder ? check_decoder(c, j, ids, n) : check_encoder(c, j, ids, n);
    if (rc == 0) c->out->texts++;
    free(ids);
    return rc;
}

/* All lines of one sort: the head with the tensors, then the texts. */
static int pass(struct check *c, const char *text, size_t bytes, bool texts) {
    const char *end = text + bytes;
    int rc = 0;
    c->line = 0;
    for (const char *next; rc == 0 && text < end; text = next) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        char why[256];
        struct json *j;
        next = stop ? stop + 1 : end;
        c->line++;
        rc = json_parse(&j, text, (size_t)((stop ? stop : end) - text), why, sizeof why);
        if (rc != 0) return line_bad(c, why);
        if (c->line == 1)
            rc = read_head(c, j);
        else if (json_get(j, "tensor"))
            rc = texts ? 0 : check_tensor(c, j);
        else if (texts)
            rc = check_case(c, j);
        json_free(j);
    }
    return rc;
}

int golden_check(const char *path, const struct golden_model *m, struct golden_report *out,
                 char *err, size_t err_bytes) {
    struct check c = {.m = m, .out = out, .path = path, .err = err, .err_bytes = err_bytes};
    void *text;
    size_t bytes;
    *out = (struct golden_report){.cosine = 1};
    int rc = file_read(path, FILE_BYTES_MAX, &text, &bytes, err, err_bytes);
    if (rc != 0) return rc;
    rc = pass(&c, text, bytes, false);
    if (rc == 0) rc = pass(&c, text, bytes, true);
    free(text);
    if (rc == 0 && out->tensors + out->texts == 0)
        rc = err_set(err, err_bytes, ERR_FIELD, "%s: holds nothing to compare with", path);
    return rc;
}
