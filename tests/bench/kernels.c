/* kernels.c - how close the packed GEMM of the cpu backend comes to the machine.
 *
 * usage: kernels [--level NAME] [--threads N] [--only TEXT] [--clock wall|processor]
 *
 * Layers of MiniLM and of a 0.5B decoder, at M = 1, 16, 128 and 512 rows. From 16 rows on the limit
 * is the peak of multiply-adds; at one row it is the bandwidth of reading weights that no cache
 * holds, so there the calls walk through copies of the weight. The limit, ours and the peer's are
 * measured in turn. Prints a table and writes build/bench/kernels.json.
 *
 * Units: GFLOP/s, GB/s.  Owner, errors: a program; it exits 1 with a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/ops.h"
#include "tests/bench/kernels/peer.h"
#include "tests/bench/report/machine.h"
#include "tests/bench/report/report.h"

enum { RUNS = 7, RUN_NS = 15000000, COPIES_MAX = 512 };
#define COLD_BYTES ((size_t)512 << 20) /* beyond what a cache keeps */

struct bench {
    struct ops *ops;
    struct team *team;
    const char *level, *only;
    bool peer;
    float *cold;
    struct report *report;
};

struct shape {
    const char *name;
    uint32_t m, n, k;
    enum dtype dtype;
};

static void die(const char *what) {
    fprintf(stderr, "kernels: %s\n", what);
    exit(1);
}

static float *random_floats(struct ops *o, size_t n) {
    float *x = o->alloc(o, n * sizeof *x);
    uint32_t state = 1;
    if (!x) die("no memory");
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
    return x;
}

/* Everything that one case needs; copies of the weight only where they must not stay in a cache. */
struct gemm_case {
    const struct shape *s;
    float *x, *y, *source;
    struct quant quant;
    struct weight w[COPIES_MAX];
    uint32_t copies;
};

/* Any bytes will do: W8 in groups of 32, W4 in groups of 64 with zero points. */
static void quant_open(struct ops *o, struct gemm_case *c) {
    const struct shape *s = c->s;
    uint32_t group = s->dtype == DTYPE_W8 ? 32 : 64;
    size_t bytes = (size_t)s->n * s->k, groups = (size_t)s->n * ((s->k + group - 1) / group);
    uint8_t *q = o->alloc(o, bytes), *zero = o->alloc(o, groups);
    uint16_t *scale = o->alloc(o, groups * sizeof *scale);
    if (!q || !zero || !scale) die("no memory");
    for (size_t i = 0; i < bytes; i++) q[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < groups; i++) scale[i] = 0x3980, zero[i] = 120;
    c->quant = (struct quant){group, q, scale, s->dtype == DTYPE_W8 ? NULL : zero};
}

static void quant_close(struct ops *o, struct gemm_case *c) {
    o->free(o, (void *)(uintptr_t)c->quant.q);
    o->free(o, (void *)(uintptr_t)c->quant.scale);
    o->free(o, (void *)(uintptr_t)c->quant.zero);
}

static void case_open(struct bench *b, struct gemm_case *c, const struct shape *s) {
    struct ops *o = b->ops;
    char err[256];
    size_t bytes = (size_t)s->n * s->k * dtype_bytes(s->dtype) / (s->dtype == DTYPE_W4 ? 2 : 1);
    *c = (struct gemm_case){.s = s,
                            .x = random_floats(o, (size_t)s->m * s->k),
                            .y = random_floats(o, (size_t)s->m * s->n)};
    c->copies = s->m > 1 ? 1 : (uint32_t)(COLD_BYTES / bytes);
    if (c->copies > COPIES_MAX) c->copies = COPIES_MAX;
    c->source = random_floats(
        o, (size_t)s->n * s->k * (b->peer && s->m == 1 && s->dtype == DTYPE_F32 ? c->copies : 1));
    bool quantized = dtype_quantized(s->dtype);
    if (quantized) quant_open(o, c);
    const void *source = quantized ? (const void *)&c->quant : c->source;
    for (uint32_t i = 0; i < c->copies; i++)
        if (o->weight_pack(o, &c->w[i], s->n, s->k, source, quantized ? s->dtype : DTYPE_F32,
                           s->dtype, err, sizeof err))
            die(err);
    if (quantized) quant_close(o, c);
}

static void case_close(struct bench *b, struct gemm_case *c) {
    for (uint32_t i = 0; i < c->copies; i++) b->ops->weight_free(b->ops, &c->w[i]);
    b->ops->free(b->ops, c->x);
    b->ops->free(b->ops, c->y);
    b->ops->free(b->ops, c->source);
}

/* Calls a second, as often as RUN_NS allows; each walks on to the next copy. */
static double rate(struct bench *b, struct gemm_case *c, bool peer, uint32_t *next) {
    const struct shape *s = c->s;
    int64_t began = machine_ns(), now;
    uint32_t calls = 0;
    do {
        uint32_t i = (*next)++ % c->copies;
        if (peer)
            peer_gemm(s->m, s->n, s->k, c->x, c->source + (size_t)i * s->n * s->k, c->y);
        else
            b->ops->linear(
                b->ops, &(struct linear_args){.rows = s->m, .x = c->x, .w = &c->w[i], .y = c->y});
        calls++;
        now = machine_ns();
    } while (now - began < RUN_NS);
    return calls * 1e9 / (double)(now - began);
}

static double measure_limit(struct bench *b, const struct shape *s) {
    if (s->m == 1) return machine_read(b->team, b->cold, COLD_BYTES / 2);
    return machine_peak(b->team, b->level,
                        s->dtype == DTYPE_F32    ? MACHINE_F32
                        : s->dtype == DTYPE_BF16 ? MACHINE_BF16
                                                 : MACHINE_I8);
}

static void run_case(struct bench *b, const struct shape *s) {
    char name[64];
    static const char *const names[] = {
        [DTYPE_F32] = "f32", [DTYPE_BF16] = "bf16", [DTYPE_W8] = "w8", [DTYPE_W4] = "w4"};
    snprintf(name, sizeof name, "gemm.%s.m%u.%s", names[s->dtype], s->m, s->name);
    if (b->only && !strstr(name, b->only)) return;
    struct gemm_case c;
    case_open(b, &c, s);
    bool cold = s->m == 1, peer = b->peer && s->dtype == DTYPE_F32;
    double ours[RUNS], theirs[RUNS], limit[RUNS], ratio[RUNS], fraction[RUNS];
    /* One call is so many units: operations, or bytes of the weight where those are the limit. */
    double units = cold ? (double)c.w[0].bytes : 2.0 * s->m * s->n * s->k;
    uint32_t next = 0, peer_next = 0;
    rate(b, &c, false, &next);
    if (peer) rate(b, &c, true, &peer_next);
    for (int i = 0; i < RUNS; i++) {
        limit[i] = measure_limit(b, s) / 2;
        ours[i] = rate(b, &c, false, &next) * units * 1e-9;
        limit[i] += measure_limit(b, s) / 2;
        theirs[i] = peer ? rate(b, &c, true, &peer_next) * units * 1e-9 : 0;
        ratio[i] = peer ? ours[i] / theirs[i] : 0;
        fraction[i] = ours[i] / limit[i];
    }
    case_close(b, &c);
    /* Ratio and fraction are taken run by run, between neighbours in time, because a shared machine
     * is never the same for long. */
    report_add(b->report,
               &(struct report_row){.name = name,
                                    .unit = cold ? "GB/s" : "GFLOP/s",
                                    .value = report_median(ours, RUNS),
                                    .peer = peer ? "OpenBLAS" : NULL,
                                    .peer_value = report_median(theirs, RUNS),
                                    .ratio = report_median(ratio, RUNS),
                                    .limit_of = cold ? "read bandwidth" : "peak multiply-adds",
                                    .limit = report_median(limit, RUNS),
                                    .fraction = report_median(fraction, RUNS)});
}

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    return NULL;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        uint32_t n, k;
    } layers[] = {{"384x384", 384, 384}, {"1536x384", 1536, 384}, {"384x1536", 384, 1536},
                  {"896x896", 896, 896}, {"4864x896", 4864, 896}, {"896x4864", 896, 4864}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_W8, DTYPE_W4};
    static const uint32_t rows[] = {1, 16, 128, 512};
    const char *threads = option(argc, argv, "--threads");
    struct bench b = {.only = option(argc, argv, "--only")};
    struct ops_config c = {"cpu", option(argc, argv, "--level"),
                           threads ? (uint32_t)strtoul(threads, NULL, 10) : 0};
    char err[256] = "", level[64];
    if (ops_open(&b.ops, &c, err, sizeof err)) die(err);
    if (team_new(&b.team, b.ops->threads)) die("no threads");
    b.cold = b.ops->alloc(b.ops, COLD_BYTES / 2);
    if (!b.cold) die("no memory");
    snprintf(level, sizeof level, "%.*s", (int)strcspn(b.ops->numerics_id + 4, "-"),
             b.ops->numerics_id + 4);
    b.level = level;
    b.peer = peer_open(b.ops->threads);
    bool processor =
        option(argc, argv, "--clock") && strcmp(option(argc, argv, "--clock"), "processor") == 0;
    machine_clock(processor, b.ops->threads);
    printf("%u threads, %s, %s time\n", b.ops->threads, b.ops->numerics_id,
           processor ? "processor" : "wall");
    b.report = report_open("kernels", RUNS);
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (size_t l = 0; l < sizeof layers / sizeof *layers; l++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                run_case(&b, &(struct shape){layers[l].name, rows[r], layers[l].n, layers[l].k,
                                             dtypes[d]});
    report_close(b.report);
    b.ops->free(b.ops, b.cold);
    team_free(b.team);
    ops_close(b.ops);
    return 0;
}
