/* mask.c - how long it takes to find the tokens that a schema allows next.
 *
 * usage: mask [--tokenizer DIR] [--texts N]
 *
 * Every schema of tests/schema/schemas.jsonl is compiled, its masks are made, and N texts (20) of
 * at most 200 tokens are written by random choice among the legal ones, half of the texts with only
 * 8 tokens to spare. Each mask of each text counts, the first ones too, and so does taking the
 * token. The tokenizer is tokenizers/qwen2 of PENSTOCK_DATA, with 151,646 tokens. Prints a table
 * and writes build/bench/mask.json.
 *
 * Units: microseconds, milliseconds.  Owner, errors: a program; it exits 1 with a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "tests/bench/report/report.h"
#include "workers/encode/tokenizer.h"
#include "workers/schema/compile.h"
#include "workers/schema/writer.h"

enum { TOKENS_MAX = 200, SPARE = 8, TARGET_US = 50 };

struct times {
    struct buf ns; /* int64 */
    int64_t worst;
    const char *of;
};
struct bench {
    struct lexicon lexicon;
    uint32_t *bits;
    uint64_t random;
    struct times mask, take, compile;
    size_t most_bytes;
    double worst_p99; /* of one schema, ns */
    const char *worst_of;
};

static void die(const char *what) {
    fprintf(stderr, "mask: %s\n", what);
    exit(1);
}

static void note(struct times *t, int64_t ns, const char *of) {
    if (buf_append(&t->ns, &ns, sizeof ns) != 0) die("no memory");
    if (ns > t->worst) {
        t->worst = ns;
        t->of = of;
    }
}

static int by_value(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* Of those noted from the first on. */
static double quantile(struct times *t, size_t first, double q) {
    int64_t *ns = (int64_t *)(void *)t->ns.data + first;
    size_t n = t->ns.len / sizeof *ns - first;
    if (n == 0) die("nothing was measured");
    qsort(ns, n, sizeof *ns, by_value);
    return (double)ns[(size_t)((double)(n - 1) * q)];
}

static uint32_t chosen(struct bench *b) {
    uint32_t n = 0, words = (b->lexicon.vocab + 31) / 32;
    for (uint32_t i = 0; i < words; i++) n += (uint32_t)__builtin_popcount(b->bits[i]);
    if (n == 0) return UINT32_MAX;
    uint32_t k = (uint32_t)(rng_next(&b->random) % n);
    for (uint32_t i = 0;; i++)
        if ((b->bits[i / 32] >> (i % 32) & 1) && k-- == 0) return i;
}

static void write_text(struct bench *b, const struct masks *m, uint32_t most, const char *schema) {
    struct writer w;
    char err[256];
    if (writer_init(&w, m, most, err, sizeof err) != 0) die(err);
    while (!writer_must_end(&w)) {
        int64_t began = clock_mono_ns();
        if (writer_mask(&w, b->bits) != 0) die("no memory");
        int64_t masked = clock_mono_ns();
        note(&b->mask, masked - began, schema);
        uint32_t id = chosen(b);
        if (id == UINT32_MAX && writer_may_end(&w)) break;
        began = clock_mono_ns();
        if (id == UINT32_MAX || writer_take(&w, id) != 0) die("no token is legal");
        note(&b->take, clock_mono_ns() - began, schema);
    }
    writer_fini(&w);
}

static void run_schema(struct bench *b, const char *schema, uint32_t texts) {
    struct grammar g;
    struct masks m;
    char err[512];
    int64_t began = clock_mono_ns();
    if (schema_compile(&g, bytes_str(schema), err, sizeof err) != 0 ||
        masks_init(&m, &g, &b->lexicon, err, sizeof err) != 0) {
        fprintf(stderr, "%s\n", schema);
        die(err);
    }
    note(&b->compile, clock_mono_ns() - began, schema);
    if (masks_bytes(&m) > b->most_bytes) b->most_bytes = masks_bytes(&m);
    uint32_t least = writer_shortest(&m);
    size_t first = b->mask.ns.len / sizeof(int64_t);
    for (uint32_t i = 0; i < texts; i++) {
        uint32_t most = i % 2 ? least + SPARE : TOKENS_MAX;
        write_text(b, &m, most > least ? most : least, schema);
    }
    double p99 = quantile(&b->mask, first, 0.99);
    if (p99 > b->worst_p99) {
        b->worst_p99 = p99;
        b->worst_of = schema;
    }
    masks_fini(&m);
    grammar_fini(&g);
}

static void tell(struct bench *b) {
    struct report *r = report_open("mask", 1);
    report_add(r, &(struct report_row){.name = "mask, p50",
                                       .unit = "us",
                                       .value = quantile(&b->mask, 0, 0.5) / 1e3,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "mask, p99",
                                       .unit = "us",
                                       .value = quantile(&b->mask, 0, 0.99) / 1e3,
                                       .limit_of = "target",
                                       .limit = TARGET_US,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "mask, p99 of the slowest schema",
                                       .unit = "us",
                                       .value = b->worst_p99 / 1e3,
                                       .limit_of = "target",
                                       .limit = TARGET_US,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "mask, worst",
                                       .unit = "us",
                                       .value = (double)b->mask.worst / 1e3,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "token taken, p99",
                                       .unit = "us",
                                       .value = quantile(&b->take, 0, 0.99) / 1e3,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "schema compiled, p50",
                                       .unit = "ms",
                                       .value = quantile(&b->compile, 0, 0.5) / 1e6,
                                       .less_is_better = true});
    report_add(r, &(struct report_row){.name = "schema compiled, worst",
                                       .unit = "ms",
                                       .value = (double)b->compile.worst / 1e6,
                                       .less_is_better = true});
    report_close(r);
    printf("%u tokens; %zu masks; most memory for masks %.1f MB\nslowest masks: %.90s\n"
           "slowest to make: %.90s\n",
           b->lexicon.vocab, b->mask.ns.len / sizeof(int64_t), (double)b->most_bytes / 1e6,
           b->worst_of, b->compile.of);
}

int main(int argc, char **argv) {
    static struct bench b = {.random = 1};
    const char *data = getenv("PENSTOCK_DATA");
    char dir[512], err[512], *line = NULL;
    uint32_t texts = 20;
    size_t room = 0;
    struct tokenizer *t;
    snprintf(dir, sizeof dir, "%s/tokenizers/qwen2", data ? data : ".");
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--tokenizer") == 0) snprintf(dir, sizeof dir, "%s", argv[i + 1]);
        if (strcmp(argv[i], "--texts") == 0) texts = (uint32_t)strtoul(argv[i + 1], NULL, 10);
    }
    if (tokenizer_open(&t, dir, err, sizeof err) != 0) die(err);
    int64_t began = clock_mono_ns();
    if (lexicon_init(&b.lexicon, t, tokenizer_vocab(t), err, sizeof err) != 0) die(err);
    printf("lexicon of %u tokens: %.0f ms\n", b.lexicon.vocab,
           (double)(clock_mono_ns() - began) / 1e6);
    b.bits = calloc(b.lexicon.vocab / 32 + 1, sizeof *b.bits);
    FILE *in = fopen("tests/schema/schemas.jsonl", "r");
    if (!in || !b.bits) die("tests/schema/schemas.jsonl cannot be read");
    struct buf lines = {0}; /* the worst ones are named at the end */
    for (ssize_t got; (got = getline(&line, &room, in)) > 0;) {
        line[got - 1] = 0;
        buf_append(&lines, line, (size_t)got);
    }
    for (size_t at = 0; at < lines.len; at += strlen((char *)lines.data + at) + 1)
        run_schema(&b, (const char *)lines.data + at, texts);
    fclose(in);
    tell(&b);
    free(line);
    buf_fini(&lines);
    buf_fini(&b.mask.ns);
    buf_fini(&b.take.ns);
    buf_fini(&b.compile.ns);
    free(b.bits);
    lexicon_fini(&b.lexicon);
    tokenizer_close(t);
    return 0;
}
