/* embed.c - how many sentences a second MiniLM turns into vectors, and what part of the machine
 * that is.
 *
 * usage: embed [--model DIR] [--threads N] [--level NAME]
 *
 * Sentences of 128 tokens through model_embed, one at a time and 32 at a time. The limit is the
 * peak of multiply-adds divided by the operations that a sentence needs. Ours, the limit and, where
 * PEERS has it, the peer are measured in turn and their medians compared. The peer is transformers
 * on PyTorch: PEERS=DIR names a folder whose bin/python has both (python3 -m venv DIR, then
 * DIR/bin/pip install torch transformers). Prints a table and writes build/bench/embed.json.
 *
 * Units: sentences a second, GFLOP/s.  Owner, errors: a program; it exits 1 with a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/ops.h"
#include "tests/bench/embed/peak.h"
#include "tests/bench/report/python.h"
#include "tests/bench/report/report.h"
#include "workers/infer/model.h"

enum { RUNS = 7, TOKENS = 128, BATCH_MAX = 32, RUN_NS = 400000000 };

struct bench {
    struct ops *ops;
    struct model *model;
    struct python peer; /* a line with a batch size in, sentences a second out */
    uint32_t begin[BATCH_MAX + 1], ids[BATCH_MAX * TOKENS];
    float *out;
    struct report *report;
};

static void die(const char *what) {
    fprintf(stderr, "embed: %s\n", what);
    exit(1);
}

/* Multiply-adds of the layers, and of q k^T and its product with v, for one sentence. */
static double sentence_gflop(const struct model_info *info) {
    double inner = 4.0 * info->dim; /* as MiniLM has it */
    double linear = 4.0 * info->dim * info->dim + 2.0 * info->dim * inner;
    double attention = 2.0 * TOKENS * info->dim;
    return 2 * TOKENS * info->layers * (linear + attention) * 1e-9;
}

static double ours(struct bench *b, uint32_t batch) {
    char err[256];
    int64_t began = clock_mono_ns(), now;
    uint32_t sentences = 0;
    do {
        if (model_embed(b->model, batch, b->begin, b->ids, b->out, err, sizeof err) != 0) die(err);
        sentences += batch;
        now = clock_mono_ns();
    } while (now - began < RUN_NS);
    return sentences * 1e9 / (double)(now - began);
}

static double theirs(struct bench *b, uint32_t batch) {
    char question[16], answer[128];
    if (!b->peer.ask) return 0;
    snprintf(question, sizeof question, "%u", batch);
    if (!python_ask(&b->peer, question, answer, sizeof answer)) die("the peer has ended");
    return strtod(answer, NULL);
}

static void run_case(struct bench *b, uint32_t batch) {
    double value[RUNS], peer[RUNS], limit[RUNS];
    double gflop = sentence_gflop(model_info(b->model));
    char name[64];
    ours(b, batch);
    theirs(b, batch);
    for (int i = 0; i < RUNS; i++) {
        limit[i] = peak_gflops(b->ops->threads) / gflop;
        value[i] = ours(b, batch);
        peer[i] = theirs(b, batch);
    }
    snprintf(name, sizeof name, "minilm.t%u.b%u", TOKENS, batch);
    report_add(b->report, &(struct report_row){.name = name,
                                               .unit = "sentences/s",
                                               .value = report_median(value, RUNS),
                                               .peer = b->peer.ask ? "transformers, float32" : NULL,
                                               .peer_value = report_median(peer, RUNS),
                                               .limit_of = "peak multiply-adds of float32",
                                               .limit = report_median(limit, RUNS)});
}

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

/* --model, or all-MiniLM-L6-v2 in the user's cache. */
static const char *model_dir(const char *given) {
    static char dir[600];
    const char *cache = getenv("PENSTOCK_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME"), *model = "models/all-MiniLM-L6-v2";
    if (given) return given;
    if (cache && *cache)
        snprintf(dir, sizeof dir, "%s/%s", cache, model);
    else if (xdg && *xdg)
        snprintf(dir, sizeof dir, "%s/penstock/%s", xdg, model);
    else
        snprintf(dir, sizeof dir, "%s/.cache/penstock/%s", home ? home : "", model);
    return dir;
}

int main(int argc, char **argv) {
    const char *threads = option(argc, argv, "--threads"), *level = option(argc, argv, "--level");
    const char *dir = model_dir(option(argc, argv, "--model"));
    struct ops_config c = {"auto", level ? level : "auto",
                           threads ? (uint32_t)strtoul(threads, NULL, 10) : 0};
    struct bench b = {0};
    char err[512] = "", number[16];
    uint64_t state = 1;
    if (ops_open(&b.ops, &c, err, sizeof err) != 0) die(err);
    if (model_open(&b.model, dir, b.ops, NULL, err, sizeof err) != 0) die(err);
    const struct model_info *info = model_info(b.model);
    if (info->kind != MODEL_ENCODER || info->text_context < TOKENS)
        die("not an encoder of 128 tokens");
    b.out = calloc((size_t)BATCH_MAX * info->dim, sizeof *b.out);
    if (!b.out) die("no memory");
    for (uint32_t s = 0; s < BATCH_MAX; s++) b.begin[s + 1] = b.begin[s] + TOKENS;
    for (uint32_t i = 0; i < BATCH_MAX * TOKENS; i++)
        b.ids[i] = (uint32_t)(rng_next(&state) % info->vocab);
    snprintf(number, sizeof number, "%u", b.ops->threads);
    python_start(&b.peer, "tests/bench/embed/peer.py", (const char *const[]){dir, number, NULL});
    printf("%u threads, %s\n", b.ops->threads, model_numerics_id(b.model));
    if (!b.peer.ask)
        printf("no peer: set PEERS to a virtual environment with torch and transformers\n");
    b.report = report_open("embed", RUNS);
    run_case(&b, 1);
    run_case(&b, BATCH_MAX);
    report_close(b.report);
    python_stop(&b.peer);
    free(b.out);
    model_close(b.model);
    ops_close(b.ops);
    return 0;
}
