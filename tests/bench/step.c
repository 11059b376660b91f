/* step.c - where the time of a decoder's step goes, operation by operation.
 *
 * usage: step --model DIR [--weights f32|bf16] [--level NAME] [--threads N] [--only CASE]
 *
 * Steps of a model directory (`tests/bench/engine` can write a random one): prefill512, a prompt of
 * 512 tokens; decode1 and decode16, a token for each sequence behind 64 others; decode1.long,
 * behind 4096. The operations of the backend are wrapped by clocks; the times of a step are those
 * of the fastest of its runs, because a shared machine only ever adds. The limit of a product of
 * weights is the longer of reading them at the machine's bandwidth and multiplying at its peak,
 * both measured around the case. Prints a table and writes build/bench/step.json.
 *
 * Units: ms.  Owner, errors: a program; it exits 1 with a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/bench/report/machine.h"
#include "tests/bench/report/report.h"
#include "workers/infer/model.h"

enum { RUNS = 7, SEQS_MAX = 16, CACHED_MAX = 4096, COLD_BYTES = 256 << 20 };

enum part { EMBED, NORM, QKV_PRODUCT, O, GATED, DOWN, HEAD, QKV, ATTEND, GATHER, OTHER, PARTS };
static const char *const PART_NAME[PARTS] = {
    "embed", "norm", "qkv", "o", "gate_up", "down", "head", "rope_kv", "attend", "gather", "rest"};

struct cost {
    double ns, bytes, ops; /* bytes and operations of weights */
};
static struct ops *inner; /* what is measured; its table is wrapped by the one below */
static struct ops real;
static struct cost now[PARTS];
static uint32_t heads, kv_heads, head_dim;

static void die(const char *what) {
    fprintf(stderr, "step: %s\n", what);
    exit(1);
}

static void charge(enum part p, int64_t began) {
    now[p].ns += (double)(machine_ns() - began);
}

static void charge_weight(enum part p, const struct weight *w, uint32_t rows, uint32_t sides) {
    double elements = (double)w->n * w->k * sides;
    now[p].bytes += elements * (double)dtype_bytes(w->dtype);
    now[p].ops += 2 * elements * rows;
}

/* The products of a layer by their shapes: only the head has float logits, q, k and v have no
 * residual, and of the other two one comes from attention. */
static enum part part_of(const struct linear_args *a) {
    if (a->y_f32) return HEAD;
    if (a->w->n == (heads + 2 * kv_heads) * head_dim && !a->residual) return QKV_PRODUCT;
    return a->w->k == heads * head_dim ? O : DOWN;
}

static void linear(struct ops *o, const struct linear_args *a) {
    enum part p = part_of(a);
    int64_t began = machine_ns();
    real.linear(o, a);
    charge(p, began);
    charge_weight(p, a->w, a->rows, 1);
}

static void gated(struct ops *o, const struct gated_args *a) {
    int64_t began = machine_ns();
    real.gated(o, a);
    charge(GATED, began);
    charge_weight(GATED, a->gate_up, a->rows, 2);
}

#define WRAP(op, part)                                                                             \
    static void op(struct ops *o, const struct op##_args *a) {                                     \
        int64_t began = machine_ns();                                                              \
        real.op(o, a);                                                                             \
        charge(part, began);                                                                       \
    }
WRAP(embed, EMBED)
WRAP(norm, NORM)
WRAP(qkv, QKV)
WRAP(attend, ATTEND)
WRAP(gather, GATHER)

static void wrap(struct ops *o) {
    inner = o;
    real = *o;
    o->linear = linear;
    o->gated = gated;
    o->embed = embed;
    o->norm = norm;
    o->qkv = qkv;
    o->attend = attend;
    o->gather = gather;
}

struct kind {
    const char *name;
    uint32_t seqs, cached, rows;
};

static void step(struct model *m, uint32_t n, struct seq **seqs, uint32_t rows) {
    static uint32_t ids[SEQS_MAX * CACHED_MAX];
    uint32_t begin[SEQS_MAX + 1];
    char err[256];
    const float *logits;
    for (uint32_t i = 0; i <= n; i++) begin[i] = i * rows;
    for (uint32_t i = 0; i < n * rows; i++) ids[i] = (i * 7919u + 1) % model_info(m)->vocab;
    if (model_step(m, n, seqs, begin, ids, &logits, err, sizeof err) != 0) die(err);
    inner->sync(inner);
}

static void texts_begin(struct model *m, const struct kind *k, struct seq **seqs) {
    for (uint32_t i = 0; i < k->seqs; i++) {
        seqs[i] = seq_new(m);
        if (!seqs[i]) die("no memory");
        if (k->cached) step(m, 1, &seqs[i], k->cached);
    }
}

/* The fastest of the runs, part by part; its whole time is returned. Prompts begin anew each time,
 * other texts go on. */
static double fastest(struct model *m, const struct kind *k, struct cost *best) {
    struct seq *seqs[SEQS_MAX];
    double least = 0;
    texts_begin(m, k, seqs);
    for (int run = 0; run < RUNS; run++) {
        memset(now, 0, sizeof now);
        int64_t began = machine_ns();
        step(m, k->seqs, seqs, k->rows);
        double all = (double)(machine_ns() - began);
        now[OTHER].ns = all;
        for (int p = 0; p < OTHER; p++) now[OTHER].ns -= now[p].ns;
        if (run == 0 || all < least) memcpy(best, now, sizeof now), least = all;
        if (k->cached && run + 1 < RUNS) continue;
        for (uint32_t i = 0; i < k->seqs; i++) seq_free(seqs[i]);
        if (run + 1 < RUNS) texts_begin(m, k, seqs);
    }
    return least;
}

static void run_case(struct report *report, struct model *m, struct team *team, const float *cold,
                     const char *level, enum dtype weights, const struct kind *k) {
    struct cost best[PARTS];
    char name[64];
    enum machine_unit unit = weights == DTYPE_F32 ? MACHINE_F32 : MACHINE_BF16;
    double read = machine_read(team, cold, COLD_BYTES), peak = machine_peak(team, level, unit);
    double all = fastest(m, k, best), bound = 0;
    read = (read + machine_read(team, cold, COLD_BYTES)) / 2;
    peak = (peak + machine_peak(team, level, unit)) / 2;
    for (int p = 0; p <= PARTS; p++) {
        bool sum = p == PARTS;
        double reading = sum ? 0 : best[p].bytes / read, counting = sum ? 0 : best[p].ops / peak;
        double limit = sum ? bound : reading > counting ? reading : counting;
        bound += sum ? 0 : limit;
        snprintf(name, sizeof name, "%s.%s", k->name, sum ? "all" : PART_NAME[p]);
        report_add(report, &(struct report_row){.name = name,
                                                .unit = "ms",
                                                .value = (sum ? all : best[p].ns) * 1e-6,
                                                .less_is_better = true,
                                                .limit_of = sum                  ? "all products"
                                                            : reading > counting ? "read bandwidth"
                                                                                 : "multiply-adds",
                                                .limit = limit * 1e-6});
    }
}

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

int main(int argc, char **argv) {
    static const struct kind kinds[] = {{"decode1", 1, 64, 1},
                                        {"decode1.long", 1, CACHED_MAX, 1},
                                        {"decode16", SEQS_MAX, 64, 1},
                                        {"prefill512", 1, 0, 512}};
    const char *dir = option(argc, argv, "--model"), *only = option(argc, argv, "--only");
    const char *threads = option(argc, argv, "--threads"), *w = option(argc, argv, "--weights");
    struct ops_config c = {"cpu", option(argc, argv, "--level"),
                           threads ? (uint32_t)strtoul(threads, NULL, 10) : 0};
    struct model_config mc = {.kv_tokens = CACHED_MAX + 64,
                              .weights = w && strcmp(w, "f32") == 0 ? DTYPE_F32 : DTYPE_BF16};
    struct ops *o;
    struct team *team;
    struct model *m;
    char err[512] = "", level[64];
    if (!dir) die("--model DIR is missing");
    if (ops_open(&o, &c, err, sizeof err) || model_open(&m, dir, o, &mc, err, sizeof err)) die(err);
    const struct model_info *info = model_info(m);
    if (info->kind != MODEL_DECODER) die("the model is not a decoder");
    heads = info->heads, kv_heads = info->kv_heads, head_dim = info->head_dim;
    if (team_new(&team, o->threads)) die("no threads");
    float *cold = o->alloc(o, COLD_BYTES);
    if (!cold) die("no memory");
    snprintf(level, sizeof level, "%.*s", (int)strcspn(o->numerics_id + 4, "-"),
             o->numerics_id + 4);
    machine_clock(false, o->threads);
    wrap(o);
    printf("%u threads, %s\n", o->threads, model_numerics_id(m));
    struct report *report = report_open("step", RUNS);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!only || strcmp(only, kinds[i].name) == 0)
            run_case(report, m, team, cold, level, mc.weights, &kinds[i]);
    report_close(report);
    o->free(o, cold);
    team_free(team);
    model_close(m);
    ops_close(o);
    return 0;
}
