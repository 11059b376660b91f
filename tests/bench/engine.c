/* engine.c - how fast a decoder reads and writes, and what part of the machine that is.
 *
 * usage: engine [--model DIR] [--shape 0.5B|1.5B] [--threads N] [--only ROWS] [--runs N]
 *        engine --make-model DIR [--shape 0.5B|1.5B] [--known-text]
 *
 *   machine.*           bytes read a second, and multiply-adds from registers alone
 *   prefill512.TYPE     512 tokens of one prompt, to the logits of the last
 *   decode1.TYPE        one text of 64 tokens, greedily, from a prompt of one
 *   decode16.TYPE       16 texts of 32 tokens at once, from prompts of 16
 *
 * TYPE is that of the weights. ROWS are patterns with commas between: 'prefill512.*,decode1.*'.
 * --make-model writes what --model reads: a directory of a known shape with random weights
 * (random_model.h); without --model there is one in build/bench, made at the first run.
 *
 * The peers are llama.cpp and ik_llama.cpp (llama.h): PEERS=DIR names a folder with them and with
 * their files of the same model. The limit, ours and every peer are measured in turn, RUNS times;
 * the ratio is that to the best of the peers and, like the fraction, the median over the runs,
 * because a shared machine is never the same for long. Prints a table and writes
 * build/bench/engine.json.
 *
 * Units: tokens a second, GB/s, Gop/s.  Owner, errors: a program; it exits 1 with a message. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/team.h"
#include "tests/bench/engine/llama.h"
#include "tests/bench/engine/ours.h"
#include "tests/bench/engine/random_model.h"
#include "tests/bench/report/machine.h"
#include "tests/bench/report/report.h"

enum { RUNS = 5, RUNS_MAX = 50 }; /* --runs */
enum { PREFILL = 512, DECODE = 64, BATCH = 16, BATCH_PROMPT = 16, BATCH_DECODE = 32 };
enum { KV_TOKENS = 4096, READ_BYTES = 1 << 30 };

enum work { READS, MULTIPLIES, PREFILLS, DECODES, DECODES_BATCH };
struct kind { /* of weights */
    const char *name;
    enum dtype dtype;
    double bytes; /* of one weight, its scales included */
    enum machine_unit unit;
    const char *formats; /* of the peers, of the same size */
};
static const struct kind bf16 = {"bf16", DTYPE_BF16, 2, MACHINE_BF16, "BF16"};

struct row {
    const char *name;
    enum work work;
    const struct kind *kind;
    enum machine_unit unit; /* MULTIPLIES */
};
static const struct row rows[] = {
    {"machine.read", READS, NULL, MACHINE_F32},
    {"machine.fma.f32", MULTIPLIES, NULL, MACHINE_F32},
    {"machine.dot.bf16", MULTIPLIES, NULL, MACHINE_BF16},
    {"machine.dot.i8", MULTIPLIES, NULL, MACHINE_I8},
    {"prefill512.bf16", PREFILLS, &bf16, MACHINE_F32},
    {"decode1.bf16", DECODES, &bf16, MACHINE_F32},
    {"decode16.bf16", DECODES_BATCH, &bf16, MACHINE_F32},
};

struct bench {
    const char *only, *dir;
    const struct random_shape *shape;
    uint32_t threads;
    int runs;
    struct team *team; /* what the limits are measured with */
    void *cold;        /* READ_BYTES */
    const struct kind *open;
    struct ours ours; /* when open */
    struct report *report;
};

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

static bool wanted(const struct bench *b, const char *name) {
    char pattern[64];
    for (const char *p = b->only; p && *p; p += strcspn(p, ","), p += *p == ',') {
        snprintf(pattern, sizeof pattern, "%.*s", (int)strcspn(p, ","), p);
        if (fnmatch(pattern, name, 0) == 0) return true;
    }
    return !b->only;
}

/* Gop/s of the best instruction for these operands: dots of bf16 are slower than multiply-adds of
 * float32 on some processors. */
static double peak(struct bench *b, enum machine_unit unit) {
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f"), avx2 = __builtin_cpu_supports("avx2");
    bool dots = unit == MACHINE_BF16 && __builtin_cpu_supports("avx512bf16");
    double best = machine_peak(b->team, avx512 ? "avx512" : avx2 ? "avx2" : "plain", unit);
    double other = dots ? machine_peak(b->team, "avx512bf16", unit) : 0;
    return other > best ? other : best;
#else
    return machine_peak(b->team, "plain", unit);
#endif
}

/* Tokens a second that the machine allows: the multiply-adds, and the weights read once a step, of
 * which the slower counts. */
static double limit(struct bench *b, const struct row *r) {
    const struct random_shape *s = b->shape;
    double layers = 2e-9 * (double)random_shape_layers_macs(s),
           head = 2e-9 * (double)random_shape_head_macs(s);
    double texts = r->work == DECODES_BATCH ? BATCH : 1;
    double multiply = peak(b, r->kind->unit);
    if (r->work == PREFILLS) { /* queries by keys, and by values: half of the square each */
        double attend = 2e-9 * (double)PREFILL * PREFILL * s->dim * s->layers;
        return PREFILL * multiply / (layers * PREFILL + head + attend);
    }
    double read = machine_read(b->team, b->cold, READ_BYTES);
    double bytes = (layers + head) / 2 * r->kind->bytes;
    double step_s = bytes / read, compute_s = texts * (layers + head) / multiply;
    return texts / (step_s > compute_s ? step_s : compute_s);
}

static void use_kind(struct bench *b, const struct kind *kind) {
    if (b->open == kind) return;
    if (b->open) ours_close(&b->ours);
    b->open = kind;
    if (kind) ours_open(&b->ours, b->dir, kind->dtype, b->threads, KV_TOKENS);
}

static double ours(struct bench *b, const struct row *r) {
    switch (r->work) {
    case PREFILLS: return PREFILL / ours_prefill(&b->ours, PREFILL);
    case DECODES: return DECODE / ours_decode(&b->ours, 1, 1, DECODE);
    case DECODES_BATCH:
        return BATCH * BATCH_DECODE / ours_decode(&b->ours, BATCH, BATCH_PROMPT, BATCH_DECODE);
    case READS: return machine_read(b->team, b->cold, READ_BYTES);
    case MULTIPLIES: return peak(b, r->unit);
    }
    return 0;
}

static double theirs(struct bench *b, const struct row *r, const struct llama *l) {
    if (r->work == PREFILLS) return llama_prefill(l, b->threads, PREFILL);
    if (r->work == DECODES) return llama_decode(l, b->threads, DECODE);
    return llama_decode_batch(l, b->threads, BATCH, BATCH_PROMPT, BATCH_DECODE);
}

static void run_machine(struct bench *b, const struct row *r) {
    double value[RUNS_MAX];
    for (int i = 0; i < b->runs; i++) value[i] = ours(b, r);
    report_add(b->report, &(struct report_row){.name = r->name,
                                               .unit = r->work == READS ? "GB/s" : "Gop/s",
                                               .value = report_median(value, b->runs)});
}

static const char *limit_name(const struct row *r) {
    return r->work == PREFILLS  ? "multiply-adds of this type"
           : r->work == DECODES ? "reading the weights"
                                : "reading the weights, or multiply-adds";
}

/* Everything once a run, one after the other. */
static void run_row(struct bench *b, const struct row *r) {
    struct llama llama[LLAMAS_MAX];
    double value[RUNS_MAX], bound[RUNS_MAX], fraction[RUNS_MAX], ratio[RUNS_MAX];
    double peer[LLAMAS_MAX][RUNS_MAX], best = 0;
    uint32_t n = llamas_find(llama, b->dir, r->kind->formats), of = 0;
    use_kind(b, r->kind);
    ours(b, r);
    for (int i = 0; i < b->runs; i++) {
        bound[i] = limit(b, r) / 2;
        value[i] = ours(b, r);
        bound[i] += limit(b, r) / 2;
        fraction[i] = value[i] / bound[i];
        for (uint32_t p = 0; p < n; p++) peer[p][i] = theirs(b, r, &llama[p]);
    }
    for (uint32_t p = 0; p < n; p++) {
        double median = report_median(peer[p], b->runs);
        if (n > 1) printf("    %-36s %12.1f\n", llama[p].name, median);
        if (median <= best) continue;
        best = median;
        of = p;
    }
    for (int i = 0; i < b->runs; i++) ratio[i] = n ? value[i] / peer[of][i] : 0;
    report_add(b->report, &(struct report_row){.name = r->name,
                                               .unit = "tokens/s",
                                               .value = report_median(value, b->runs),
                                               .peer = n ? llama[of].name : NULL,
                                               .peer_value = best,
                                               .ratio = report_median(ratio, b->runs),
                                               .limit_of = limit_name(r),
                                               .limit = report_median(bound, b->runs),
                                               .fraction = report_median(fraction, b->runs)});
}

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

static bool flag(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0) return true;
    return false;
}

/* --model, or a random one of the shape in build/bench. */
static const char *model_dir(const struct random_shape *s, const char *given) {
    static char dir[64];
    char weights[96];
    if (given) return given;
    snprintf(dir, sizeof dir, "build/bench/random-%s", s->name);
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    if (access(weights, R_OK) != 0) random_model_make(s, dir, false);
    return dir;
}

int main(int argc, char **argv) {
    const char *shape = option(argc, argv, "--shape"), *make = option(argc, argv, "--make-model");
    const char *threads = option(argc, argv, "--threads"), *runs = option(argc, argv, "--runs");
    struct bench b = {.only = option(argc, argv, "--only"),
                      .shape = random_shape_find(shape ? shape : "0.5B"),
                      .threads = threads ? (uint32_t)strtoul(threads, NULL, 10) : team_processors(),
                      .runs = runs ? atoi(runs) : RUNS};
    if (!b.shape) die("--shape is 0.5B or 1.5B");
    if (b.runs < 1 || b.runs > RUNS_MAX) die("--runs is a number from 1 to 50");
    if (b.threads < 1 || b.threads > TEAM_THREADS_MAX) die("--threads is a number from 1 to 256");
    if (make) {
        random_model_make(b.shape, make, flag(argc, argv, "--known-text"));
        return 0;
    }
    b.dir = model_dir(b.shape, option(argc, argv, "--model"));
    b.cold = aligned_alloc(4096, READ_BYTES);
    if (!b.cold || team_new(&b.team, b.threads) != 0) die("no memory");
    memset(b.cold, 1, READ_BYTES);
    printf("%s, %u threads\n", b.dir, b.threads);
    if (!getenv("PEERS")) printf("no peers: PEERS=DIR names a folder with built ones\n");
    b.report = report_open("engine", b.runs);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!wanted(&b, rows[i].name))
            continue;
        else if (rows[i].kind)
            run_row(&b, &rows[i]);
        else
            run_machine(&b, &rows[i]);
    report_close(b.report);
    use_kind(&b, NULL);
    team_free(b.team);
    free(b.cold);
    return 0;
}
