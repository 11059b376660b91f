/* parity.c - whether models give what their reference implementation gives, a row a model.
 *
 * usage: parity [GOLDENS]        (PENSTOCK_DATA names the folder that holds weights/stories260K)
 *
 * Every folder of GOLDENS/models (tests/golden) holds a model, cases of ids, what the reference
 * computed for them in float32, and golden.json: who made it, its SHA-256, and for a decoder 128
 * greedy tokens; a folder of GOLDENS/lora the same with an adapter of one of these models. The
 * error is max|ours - reference| / max|reference| over logits, hidden states, vectors or scores;
 * it may be 2e-4 with float32 weights, and is only told with bf16 ones. The rows of encoders must
 * also point the same way: a cosine of 0.99999. MiniLM joins them where it is in the user's cache;
 * so do the trained decoders of examples/models and of PENSTOCK_DATA, by their golden.jsonl.
 * Prints a table, writes build/bench/parity.json (rows: model, parameters, error, error_bf16,
 * tokens_equal, tokens, cosine, script, sha256), and exits 1 when a row misses.
 *
 * Units: elements.  Owner, errors: a program; it exits 1 with a message. */
#include <dirent.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "kernels/ops.h"
#include "tests/bench/parity/goldens.h"
#include "workers/encode/tokenizer.h"
#include "workers/infer/golden.h"
#include "workers/infer/model.h"
#include "workers/infer/safetensors.h"

#define TRAINED "tests/golden/model-golden/"
#define ERROR_MOST 2e-4
#define COSINE_LEAST 0.99999

struct row {
    const char *model, *script;
    char sha256[2 * crypto_hash_sha256_BYTES + 1];
    uint64_t parameters;
    double error, error_bf16, cosine; /* cosine 2: a decoder's; error_bf16 -1: not measured */
    uint32_t tokens, tokens_equal;
    bool intact;
};

static void *must(void *memory) {
    if (!memory) golden_die("no memory");
    return memory;
}

/* Logits of every position, one step a token, as a text is written. */
static void run_decoder(struct model *m, struct ops *ops, const struct golden *g,
                        const struct adapter *adapter, float *out) {
    uint32_t vocab = model_info(m)->vocab;
    for (uint32_t c = 0; c < g->cases; c++) {
        struct seq *s = must(seq_new(m));
        seq_adapt(s, adapter);
        for (uint32_t i = g->begin[c]; i < g->begin[c + 1]; i++, out += vocab) {
            const float *logits;
            char err[256];
            if (model_step(m, 1, &s, (uint32_t[]){0, 1}, g->ids + i, &logits, err, sizeof err) != 0)
                golden_die(err);
            ops->download(ops, out, logits, vocab * sizeof *out);
        }
        seq_free(s);
    }
}

/* Vectors where the goldens have one a case, scores where there is a head, else hidden states. */
static void run_encoder(struct model *m, const struct golden *g, const struct adapter *adapter,
                        float *out) {
    const struct model_info *info = model_info(m);
    bool vectors = g->expected_n == (size_t)g->cases * info->dim;
    for (uint32_t c = 0; c < g->cases; c++) {
        uint32_t n = g->begin[c + 1] - g->begin[c], begin[2] = {0, n}, rows = vectors ? 1 : n;
        const uint32_t *ids = g->ids + g->begin[c];
        char err[256];
        int rc;
        if (info->labels)
            rc = model_classify(m, 1, begin, ids, out, err, sizeof err);
        else if (vectors)
            rc = model_embed_with(m, 1, begin, ids, &adapter, out, err, sizeof err);
        else
            rc = model_hidden(m, n, ids, out, err, sizeof err);
        if (rc != 0) golden_die(err);
        if (info->labels) rows = info->labels_of_tokens ? n : 1;
        out += (size_t)rows * (info->labels ? info->labels : info->dim);
    }
}

static double error_of(const float *got, const float *want, size_t n) {
    double off = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= off)) off = d; /* a NaN stays */
        if (fabs((double)want[i]) > most) most = fabs((double)want[i]);
    }
    return off / most;
}

/* The least cosine of any row; a row of one number counts by its sign. */
static double cosine_of(const float *got, const float *want, size_t n, uint32_t width) {
    double least = 1;
    for (size_t at = 0; at + width <= n; at += width) {
        double ab = 0, aa = 0, bb = 0;
        for (uint32_t i = 0; i < width; i++) {
            double a = (double)got[at + i], b = (double)want[at + i];
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        double cosine = ab / sqrt(aa * bb);
        if (!(cosine >= least)) least = cosine;
    }
    return least;
}

/* How many of the greedy tokens are the reference's, up to the first that is not. */
static uint32_t greedy_equal(struct model *m, const struct golden *g,
                             const struct adapter *adapter) {
    uint32_t begin[2] = {0, g->prompt_n}, equal = 0, next;
    const uint32_t *ids = g->prompt;
    struct seq *s = must(seq_new(m));
    seq_adapt(s, adapter);
    for (; equal < g->new_n; equal++, ids = g->new_ids + equal - 1, begin[1] = 1) {
        char err[256];
        if (model_step(m, 1, &s, begin, ids, NULL, err, sizeof err) != 0) golden_die(err);
        model_sample(m, 1, &(struct sample_row){.top_p = 1}, &next, NULL, NULL);
        if (next != g->new_ids[equal]) break;
    }
    seq_free(s);
    return equal;
}

static double measure(const char *dir, struct ops *ops, const struct golden *g, enum dtype weights,
                      struct row *row) {
    const struct adapter *adapter = NULL;
    struct model *m;
    char err[512];
    float *got = must(calloc(g->expected_n, sizeof *got));
    if (model_open(&m, dir, ops, &(struct model_config){.weights = weights}, err, sizeof err) != 0)
        golden_die(err);
    if (*g->base && model_adapter(m, g->dir, &adapter, err, sizeof err) != 0) golden_die(err);
    const struct model_info *info = model_info(m);
    if (info->kind == MODEL_DECODER)
        run_decoder(m, ops, g, adapter, got);
    else
        run_encoder(m, g, adapter, got);
    double error = error_of(got, g->expected, g->expected_n);
    if (weights == DTYPE_F32) {
        row->parameters = info->parameters;
        row->tokens = g->new_n;
        row->tokens_equal = g->new_n ? greedy_equal(m, g, adapter) : 0;
        row->cosine = 2;
        if (info->kind == MODEL_ENCODER)
            row->cosine =
                cosine_of(got, g->expected, g->expected_n, info->labels ? info->labels : info->dim);
    }
    model_close(m);
    free(got);
    return error;
}

static bool row_passes(const struct row *r) {
    return r->error <= ERROR_MOST && r->tokens_equal == r->tokens && r->cosine >= COSINE_LEAST &&
           r->intact;
}

static struct json *row_json(const struct row *r) {
    struct json *j = json_new_object();
    bool decoder = r->tokens > 0;
    json_set(j, "model", json_new_str(r->model, strlen(r->model)));
    json_set(j, "parameters", json_new_int((int64_t)r->parameters));
    json_set(j, "error", json_new_real(r->error));
    json_set(j, "error_bf16", r->error_bf16 < 0 ? json_new_null() : json_new_real(r->error_bf16));
    json_set(j, "tokens_equal",
             decoder ? json_new_bool(r->tokens_equal == r->tokens) : json_new_null());
    json_set(j, "tokens", decoder ? json_new_int(r->tokens_equal) : json_new_null());
    json_set(j, "cosine", decoder ? json_new_null() : json_new_real(r->cosine));
    json_set(j, "script", json_new_str(r->script, strlen(r->script)));
    json_set(j, "sha256", json_new_str(r->sha256, strlen(r->sha256)));
    return j;
}

static void row_print(const struct row *r) {
    char tokens[32] = "-", cosine[32] = "-", bf16[32] = "-";
    if (r->error_bf16 >= 0) snprintf(bf16, sizeof bf16, "%.1e", r->error_bf16);
    if (r->tokens) snprintf(tokens, sizeof tokens, "%u/%u", r->tokens_equal, r->tokens);
    if (r->cosine <= 1) snprintf(cosine, sizeof cosine, "%.9f", r->cosine);
    printf("%-22s %10llu %9.1e %9s %8s %12s  %s %.12s%s\n", r->model,
           (unsigned long long)r->parameters, r->error, bf16, tokens, cosine, r->script, r->sha256,
           !r->intact      ? "  GOLDEN CHANGED"
           : row_passes(r) ? ""
                           : "  MISSES");
}

/* One model: a line of the table and of the file. False when it misses. */
static bool run_model(struct ops *ops, const char *name, const char *dir, const struct golden *g,
                      struct json *rows) {
    struct row r = {.model = name, .script = g->script};
    golden_digest(g, r.sha256);
    r.intact = !*g->sha256 || strcmp(r.sha256, g->sha256) == 0;
    r.error = measure(dir, ops, g, DTYPE_F32, &r);
    r.error_bf16 = measure(dir, ops, g, DTYPE_BF16, &r);
    row_print(&r);
    json_push(rows, row_json(&r));
    return row_passes(&r);
}

/* A trained decoder beside its golden.jsonl (workers/infer/golden.h): tensors, tokenizer, logits
 * and greedy tokens. */
static bool run_trained(struct ops *ops, const char *name, const char *dir, const char *golden,
                        struct json *rows) {
    struct row r = {.model = name, .script = "tests/golden/model_golden.py", .error_bf16 = -1};
    struct golden_model m = {.ops = ops};
    struct golden_report report;
    struct safetensors *tensors;
    struct tokenizer *tokenizer;
    char err[512];
    if (model_open(&m.model, dir, ops, NULL, err, sizeof err) != 0 ||
        safetensors_open(&tensors, dir, err, sizeof err) != 0 ||
        tokenizer_open(&tokenizer, dir, err, sizeof err) != 0 ||
        digest_file_sha256(golden, r.sha256, NULL, err, sizeof err) != 0)
        golden_die(err);
    m.tokenizer = tokenizer;
    m.tensors = tensors;
    int rc = golden_check(golden, &m, &report, err, sizeof err);
    if (rc != 0) printf("%s\n", err);
    r.parameters = model_info(m.model)->parameters;
    r.error = report.error;
    r.cosine = 2;
    r.tokens_equal = report.tokens;
    r.tokens = report.tokens + (rc != 0);
    r.intact = true;
    row_print(&r);
    json_push(rows, row_json(&r));
    tokenizer_close(tokenizer);
    safetensors_close(tensors);
    model_close(m.model);
    return row_passes(&r);
}

/* Stories260K as a Hugging Face directory, where PENSTOCK_DATA has it; false: it has not. */
static bool stories_make(char *dir, size_t dir_bytes) {
    const char *data = getenv("PENSTOCK_DATA");
    char weights[600], command[1500];
    snprintf(weights, sizeof weights, "%.500s/weights/stories260K", data ? data : "");
    if (access(weights, R_OK) != 0) return false;
    snprintf(dir, dir_bytes, "build/bench/stories260K");
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    snprintf(command, sizeof command, "/usr/bin/python3 tests/golden/stories260k.py '%s' '%s'",
             weights, dir);
    if (system(command) != 0) golden_die("stories260k.py cannot convert the model");
    return true;
}

static int is_folder(const struct dirent *d) {
    return d->d_name[0] != '.';
}

static void write_rows(struct json *rows) {
    struct json *root = json_new_object();
    char err[256];
    json_set(root, "bench", json_new_str("parity", 6));
    json_set(root, "rows", rows);
    char *text = must(json_text(root, 1));
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    if (file_replace("build/bench/parity.json", text, strlen(text), err, sizeof err) != 0)
        golden_die(err);
    free(text);
    json_free(root);
}

/* The goldens of a folder, whose models lie in another; false when one of them misses. */
static bool run_folder(struct ops *ops, const char *goldens, const char *sub, struct json *rows) {
    struct dirent **entries;
    char folder[300], dir[600], model[600], name[400];
    bool good = true;
    struct golden g;
    snprintf(folder, sizeof folder, "%.200s/%s", goldens, sub);
    int n = scandir(folder, &entries, is_folder, alphasort);
    if (n <= 0) golden_die("there are no goldens; run it from the project's folder");
    for (int i = 0; i < n; i++) {
        snprintf(dir, sizeof dir, "%s/%.255s", folder, entries[i]->d_name);
        snprintf(name, sizeof name, "%.255s", entries[i]->d_name);
        if (golden_load(&g, dir)) {
            memcpy(model, dir, sizeof model);
            if (*g.base) {
                snprintf(model, sizeof model, "%.200s/models/%s", goldens, g.base);
                snprintf(name, sizeof name, "%s+%.255s", g.base, entries[i]->d_name);
            }
            good &= run_model(ops, name, model, &g, rows);
            golden_free(&g);
        }
        free(entries[i]);
    }
    free(entries);
    return good;
}

int main(int argc, char **argv) {
    const char *goldens = argc > 1 ? argv[1] : "tests/golden";
    struct ops_config config = {.backend = "auto", .level = "auto"};
    struct json *rows = json_new_array();
    struct golden g;
    struct ops *ops;
    char err[256], dir[512];
    if (ops_open(&ops, &config, err, sizeof err) != 0) golden_die(err);
    printf("%-22s %10s %9s %9s %8s %12s  %s\n", "model", "parameters", "error", "in bf16", "greedy",
           "cosine", "golden");
    bool good = run_folder(ops, goldens, "models", rows);
    good &= run_folder(ops, goldens, "lora", rows);
    if (golden_minilm(&g, dir, sizeof dir)) {
        good &= run_model(ops, "all-MiniLM-L6-v2", dir, &g, rows);
        golden_free(&g);
    }
    good &= run_trained(ops, "tiny-llama", "examples/models/tiny-llama", TRAINED "tiny-llama.jsonl",
                        rows);
    if (stories_make(dir, sizeof dir))
        good &= run_trained(ops, "stories260K", dir, TRAINED "stories260k.jsonl", rows);
    printf("on %s; the error may be %.0e, a cosine %.5f at least\n", ops->numerics_id, ERROR_MOST,
           COSINE_LEAST);
    write_rows(rows);
    ops_close(ops);
    return good ? 0 : 1;
}
