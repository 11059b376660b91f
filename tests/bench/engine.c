/* engine.c - how fast a decoder reads and writes, and what part of the machine that is.
 *
 * usage: engine [--model DIR] [--shape 0.5B|1.5B] [--threads N] [--only ROWS] [--runs N]
 *               [--known DIR] [--requests N] [--slots 16|32|64]
 *        engine --make-model DIR [--shape 0.5B|1.5B] [--known-text]
 *
 *   machine.*           bytes read a second, and multiply-adds from registers alone
 *   prefill512.TYPE     512 tokens of one prompt, to the logits of the last
 *   decode1.TYPE        one text of 64 tokens, greedily, from a prompt of one
 *   decode16.TYPE       16 texts of 32 tokens at once, from prompts of 16
 *   spec.repeat         a text that stands mostly in its prompt (guesses.h), with guesses
 *                       beside without
 *   spec.fresh          one whose prompt misleads
 *   minilm.b32.TYPE     MiniLM, 32 sentences of 128 tokens at a time
 *   serve.c64.TYPE      64 clients, N texts of 64 tokens from prompts of 256 in the mean, through
 *                       broker and worker: all tokens, and the p99 of the gaps between them
 *   memory.SHAPE        the most memory of a process that reads 512 tokens and writes 64
 *   start.SHAPE         from its start to the first token after 16
 *
 * TYPE is that of the weights. ROWS are patterns with commas between: 'prefill512.*,decode1.*'.
 * --make-model writes what --model reads: a directory of a known shape with random weights
 * (random_model.h), and with --known-text what --known reads, for spec; without these options there
 * are such in build/bench, made when they are first needed.
 *
 * The peers are llama.cpp and ik_llama.cpp (llama.h), and PyTorch, ONNX Runtime and transformers:
 * PEERS=DIR names a folder with them, and with the former's files of the same model. The limit,
 * ours and every peer are measured in turn (contest.h). Prints a table and writes
 * build/bench/engine.json.
 *
 * Units: tokens a second, GB/s, Gop/s.  Owner, errors: a program; it exits 1 with a message. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/team.h"
#include "tests/bench/engine/contest.h"
#include "tests/bench/engine/footprint.h"
#include "tests/bench/engine/guesses.h"
#include "tests/bench/engine/llama.h"
#include "tests/bench/engine/ours.h"
#include "tests/bench/engine/random_model.h"
#include "tests/bench/engine/sentences.h"
#include "tests/bench/engine/serve.h"
#include "tests/bench/report/machine.h"
#include "tests/bench/report/report.h"

enum { RUNS = 5, RUNS_MAX = CONTEST_RUNS_MAX }; /* --runs */
enum { PREFILL = 512, DECODE = 64, BATCH = 16, BATCH_PROMPT = 16, BATCH_DECODE = 32 };
enum { REQUESTS = 192 }; /* --requests */
enum { MODEL_BYTES = 64 };
enum {
    JOB_PROMPT = 512,
    JOB_TOKENS = 64,
    KV_TOKENS = 4096,
    READ_BYTES = 1 << 30,
    HUGE_PAGE = 2 << 20
};

struct kind { /* of weights */
    const char *name;
    enum dtype dtype;
    double bytes; /* of one weight, with the scales and zero points of groups of 64 */
    enum machine_unit unit;
    const char *formats;    /* of the peers, of the same size */
    const char *encoder[2]; /* peers of encoders.py */
};
static const struct kind bf16 = {"bf16", DTYPE_BF16,
                                 2,      MACHINE_BF16,
                                 "BF16", {"PyTorch bf16", "ONNX Runtime float32"}},
                         w8a8 = {"w8a8",     DTYPE_W8, 1 + 2.0 / 64,
                                 MACHINE_I8, "Q8_0",   {"ONNX Runtime int8"}},
                         w4a8 = {"w4a8",     DTYPE_W4,      0.5 + 3.0 / 64,
                                 MACHINE_I8, "Q4_0 Q4_K_M", {NULL}};
static const struct kind *const kinds[] = {&bf16, &w8a8, &w4a8};

struct bench;
struct row {
    const char *name; /* %s: the shape's */
    void (*run)(struct bench *b, const struct row *r);
    const struct kind *kind;
    enum machine_unit unit; /* of run_machine, */
    bool reads;             /* which else multiplies */
};

struct bench {
    const char *only, *dir, *known;
    const struct random_shape *shape;
    uint32_t threads;
    int runs;
    struct team *team; /* what the limits are measured with */
    void *cold;        /* READ_BYTES */
    const struct kind *open;
    struct ours ours; /* when open */
    struct report *report;
    /* Of the row at work: */
    const struct kind *kind;
    enum machine_unit unit;
    struct llama llama[LLAMAS_MAX];
    struct sentences sentences;
    struct guesses_bench guesses;
    bool repeats;
    uint32_t requests, slots; /* of serve; slots 0: all */
    struct served {
        double p99_gap_ms[CONTEST_RUNS_MAX];
        int runs;
        uint32_t llama, slots;       /* which peer, and its -np */
    } served[CONTEST_PEERS_MAX + 1]; /* ours is the last */
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

/* As many bytes as the weights have: a part of them may stay in a large cache. */
static double read_rate(struct bench *b) {
    double bytes = (double)READ_BYTES;
    if (b->kind)
        bytes = b->kind->bytes *
                (double)(random_shape_layers_macs(b->shape) + random_shape_head_macs(b->shape));
    return machine_read(b->team, b->cold, bytes < READ_BYTES ? (size_t)bytes : READ_BYTES);
}

/* 10^9 operations of one token in all layers; and in the head. */
static double layers_gop(const struct bench *b) {
    return 2e-9 * (double)random_shape_layers_macs(b->shape);
}
static double head_gop(const struct bench *b) {
    return 2e-9 * (double)random_shape_head_macs(b->shape);
}

/* ---- the machine ---- */

static double machine_reads(void *arg) {
    return read_rate(arg);
}

static double machine_multiplies(void *arg) {
    struct bench *b = arg;
    return peak(b, b->unit);
}

static void run_machine(struct bench *b, const struct row *r) {
    b->unit = r->unit;
    contest_run(&(struct contest){.name = r->name,
                                  .unit = r->reads ? "GB/s" : "Gop/s",
                                  .arg = b,
                                  .ours = r->reads ? machine_reads : machine_multiplies},
                b->report, b->runs);
}

/* ---- prefill and decode ---- */

static double prefill_ours(void *arg) {
    struct bench *b = arg;
    return PREFILL / ours_prefill(&b->ours, PREFILL);
}
static double prefill_theirs(void *arg, uint32_t peer) {
    struct bench *b = arg;
    return llama_prefill(&b->llama[peer], b->threads, PREFILL);
}
static double prefill_limit(void *arg) {
    struct bench *b = arg; /* queries by keys, and by values: half of the square each */
    double attend = 2e-9 * (double)PREFILL * PREFILL * b->shape->dim * b->shape->layers;
    return PREFILL * peak(b, b->kind->unit) / (layers_gop(b) * PREFILL + head_gop(b) + attend);
}

static double decode_ours(void *arg) {
    struct bench *b = arg;
    return DECODE / ours_decode(&b->ours, 1, 1, DECODE);
}
static double decode_theirs(void *arg, uint32_t peer) {
    struct bench *b = arg;
    return llama_decode(&b->llama[peer], b->threads, DECODE);
}
static double decode_limit(void *arg) {
    struct bench *b = arg;
    return read_rate(b) / ((layers_gop(b) + head_gop(b)) / 2 * b->kind->bytes);
}

static double batch_ours(void *arg) {
    struct bench *b = arg;
    return BATCH * BATCH_DECODE / ours_decode(&b->ours, BATCH, BATCH_PROMPT, BATCH_DECODE);
}
static double batch_theirs(void *arg, uint32_t peer) {
    struct bench *b = arg;
    return llama_decode_batch(&b->llama[peer], b->threads, BATCH, BATCH_PROMPT, BATCH_DECODE);
}
/* The weights are read once a step: the slower of that and the multiply-adds. */
static double batch_limit(void *arg) {
    struct bench *b = arg;
    double read = BATCH * decode_limit(b);
    double multiply = peak(b, b->kind->unit) / (layers_gop(b) + head_gop(b));
    return read < multiply ? read : multiply;
}

/* The model with these weights; NULL closes it. False where they are not supported. */
static bool use_kind(struct bench *b, const struct kind *kind) {
    if (b->open == kind) return true;
    if (b->open) ours_close(&b->ours);
    b->open = NULL;
    if (kind && ours_open(&b->ours, b->dir, kind->dtype, b->threads, KV_TOKENS)) b->open = kind;
    return b->open == kind;
}

static void run_texts(struct bench *b, const struct row *r, struct contest *c) {
    c->unit = "tokens/s";
    c->n_peers = llamas_find(b->llama, b->dir, r->kind->formats);
    for (uint32_t i = 0; i < c->n_peers; i++) c->peer[i] = b->llama[i].name;
    c->warm = true;
    if (use_kind(b, r->kind)) contest_run(c, b->report, b->runs);
}

static void run_prefill(struct bench *b, const struct row *r) {
    run_texts(b, r,
              &(struct contest){.name = r->name,
                                .arg = b,
                                .ours = prefill_ours,
                                .theirs = prefill_theirs,
                                .limit_of = "multiply-adds of this type",
                                .limit = prefill_limit});
}

static void run_decode(struct bench *b, const struct row *r) {
    run_texts(b, r,
              &(struct contest){.name = r->name,
                                .arg = b,
                                .ours = decode_ours,
                                .theirs = decode_theirs,
                                .limit_of = "reading the weights",
                                .limit = decode_limit});
}

static void run_batch(struct bench *b, const struct row *r) {
    run_texts(b, r,
              &(struct contest){.name = r->name,
                                .arg = b,
                                .ours = batch_ours,
                                .theirs = batch_theirs,
                                .limit_of = "reading the weights, or multiply-adds",
                                .limit = batch_limit});
}

/* ---- sentences ---- */

static double embed_ours(void *arg) {
    struct bench *b = arg;
    return sentences_rate(&b->sentences);
}
static double embed_theirs(void *arg, uint32_t peer) {
    struct bench *b = arg;
    return sentences_peer_rate(&b->sentences, b->kind->encoder[peer]);
}
static double embed_limit(void *arg) {
    struct bench *b = arg;
    return peak(b, b->kind->unit) / sentences_gop(&b->sentences);
}

static void run_embed(struct bench *b, const struct row *r) {
    struct contest c = {.name = r->name,
                        .unit = "sentences/s",
                        .arg = b,
                        .ours = embed_ours,
                        .theirs = embed_theirs,
                        .limit_of = "multiply-adds of this type",
                        .limit = embed_limit,
                        .warm = true};
    use_kind(b, NULL);
    if (!sentences_open(&b->sentences, r->kind->dtype, b->threads)) return;
    for (; b->sentences.peer.ask && c.n_peers < 2 && r->kind->encoder[c.n_peers]; c.n_peers++)
        c.peer[c.n_peers] = r->kind->encoder[c.n_peers];
    for (uint32_t i = 0; i < c.n_peers; i++) embed_theirs(b, i);
    contest_run(&c, b->report, b->runs);
    sentences_close(&b->sentences);
}

/* ---- memory and start ---- */

static struct job job_of(const struct bench *b, bool starts) {
    return (struct job){.dir = b->dir,
                        .threads = b->threads,
                        .prompt_tokens = starts ? 16 : JOB_PROMPT,
                        .tokens = starts ? 1 : JOB_TOKENS,
                        .weights = b->kind->name};
}

static double memory_ours(void *arg) {
    struct job j = job_of(arg, false);
    return footprint_ours(&j).peak_mib;
}
static double memory_theirs(void *arg, uint32_t peer) {
    struct job j = job_of(arg, false);
    (void)peer;
    return footprint_theirs(&j).peak_mib;
}
/* Weights, and keys and values of all tokens in float32. */
static double memory_limit(void *arg) {
    struct bench *b = arg;
    const struct random_shape *s = b->shape;
    double kv = 2.0 * 4 * (JOB_PROMPT + JOB_TOKENS) * s->layers * s->kv_heads * s->dim / s->heads;
    return ((layers_gop(b) + head_gop(b)) / 2 * 1e9 * b->kind->bytes + kv) / (1 << 20);
}

static double start_ours(void *arg) {
    struct job j = job_of(arg, true);
    return footprint_ours(&j).first_token_s;
}
static double start_theirs(void *arg, uint32_t peer) {
    struct job j = job_of(arg, true);
    (void)peer;
    return footprint_theirs(&j).first_token_s;
}

static void run_footprint(struct bench *b, const struct row *r) {
    bool memory = strncmp(r->name, "memory", 6) == 0;
    use_kind(b, NULL);
    contest_run(&(struct contest){.name = r->name,
                                  .unit = memory ? "MiB" : "s",
                                  .arg = b,
                                  .ours = memory ? memory_ours : start_ours,
                                  .peer = {"transformers, bf16"},
                                  .n_peers = 1,
                                  .theirs = memory ? memory_theirs : start_theirs,
                                  .limit_of = memory ? "weights and KV" : NULL,
                                  .limit = memory ? memory_limit : NULL,
                                  .less_is_better = true,
                                  .warm = !memory},
                b->report, b->runs);
}

/* What was given, or a random one of the shape in build/bench, made where it is not. */
static const char *model_dir(const struct random_shape *s, const char *given, bool known_text,
                             char room[MODEL_BYTES]) {
    char weights[MODEL_BYTES + 32];
    if (given) return given;
    snprintf(room, MODEL_BYTES, "build/bench/%s-%s", known_text ? "known" : "random", s->name);
    snprintf(weights, sizeof weights, "%s/model.safetensors", room);
    if (access(weights, R_OK) != 0) random_model_make(s, room, known_text);
    return room;
}

/* ---- guesses ---- */

static double guessed(void *arg) {
    struct bench *b = arg;
    return guesses_rate(&b->guesses, b->repeats, true);
}
static double unguessed(void *arg, uint32_t peer) {
    struct bench *b = arg;
    (void)peer;
    return guesses_rate(&b->guesses, b->repeats, false);
}

static void run_guesses(struct bench *b, const struct row *r) {
    char room[MODEL_BYTES];
    use_kind(b, NULL);
    guesses_open(&b->guesses, b->shape, model_dir(b->shape, b->known, true, room), r->kind->dtype,
                 b->threads);
    b->repeats = strcmp(r->name, "spec.repeat") == 0;
    contest_run(&(struct contest){.name = r->name,
                                  .unit = "tokens/s",
                                  .arg = b,
                                  .ours = guessed,
                                  .peer = {"without guesses"},
                                  .n_peers = 1,
                                  .theirs = unguessed,
                                  .warm = true},
                b->report, b->runs);
    guesses_close(&b->guesses);
}

/* ---- serving ---- */

/* Each peer with each number of slots. */
enum { SERVED_MAX = CONTEST_PEERS_MAX };
static const uint32_t slots[] = {16, 32, 64};

static double serve_rate(struct bench *b, struct serve_result r, uint32_t of) {
    b->served[of].p99_gap_ms[b->served[of].runs++] = r.p99_gap_ms;
    return r.tokens_per_s;
}
static double served_ours(void *arg) {
    struct bench *b = arg;
    return serve_rate(b, serve_ours(b->dir, b->kind->name, b->threads, b->requests), SERVED_MAX);
}
static double served_theirs(void *arg, uint32_t peer) {
    struct bench *b = arg;
    const struct llama *l = &b->llama[b->served[peer].llama];
    return serve_rate(b, serve_llama(l, b->threads, b->requests, b->served[peer].slots), peer);
}

/* Two rows: tokens a second, and the gaps between tokens of the same runs. */
static void run_serve(struct bench *b, const struct row *r) {
    struct contest c = {.name = r->name,
                        .unit = "tokens/s",
                        .arg = b,
                        .ours = served_ours,
                        .theirs = served_theirs};
    char names[CONTEST_PEERS_MAX][96], name[64];
    uint32_t n = llamas_find(b->llama, b->dir, r->kind->formats);
    if (!use_kind(b, r->kind)) return;
    use_kind(b, NULL);
    memset(b->served, 0, sizeof b->served);
    for (uint32_t i = 0; i < n && serve_llama_found(&b->llama[i]); i++)
        for (size_t j = 0; j < sizeof slots / sizeof *slots && c.n_peers < SERVED_MAX; j++) {
            if (b->slots && b->slots != slots[j]) continue;
            b->served[c.n_peers].llama = i;
            b->served[c.n_peers].slots = slots[j];
            snprintf(names[c.n_peers], sizeof *names, "%s -np %u", b->llama[i].name, slots[j]);
            c.peer[c.n_peers] = names[c.n_peers];
            c.n_peers++;
        }
    uint32_t of = contest_run(&c, b->report, b->runs);
    snprintf(name, sizeof name, "%s.p99", r->name);
    report_add(
        b->report,
        &(struct report_row){
            .name = name,
            .unit = "ms",
            .value = report_median(b->served[SERVED_MAX].p99_gap_ms, b->runs),
            .peer = of < c.n_peers ? names[of] : NULL,
            .peer_value = of < c.n_peers ? report_median(b->served[of].p99_gap_ms, b->runs) : 0,
            .less_is_better = true,
            .runs = b->runs});
}

static const struct row rows[] = {
    {"machine.read", run_machine, .reads = true},
    {"machine.fma.f32", run_machine, .unit = MACHINE_F32},
    {"machine.dot.bf16", run_machine, .unit = MACHINE_BF16},
    {"machine.dot.i8", run_machine, .unit = MACHINE_I8},
    {"prefill512.bf16", run_prefill, .kind = &bf16},
    {"prefill512.w8a8", run_prefill, .kind = &w8a8},
    {"prefill512.w4a8", run_prefill, .kind = &w4a8},
    {"decode1.bf16", run_decode, .kind = &bf16},
    {"decode1.w8a8", run_decode, .kind = &w8a8},
    {"decode1.w4a8", run_decode, .kind = &w4a8},
    {"decode16.bf16", run_batch, .kind = &bf16},
    {"decode16.w8a8", run_batch, .kind = &w8a8},
    {"decode16.w4a8", run_batch, .kind = &w4a8},
    {"spec.repeat", run_guesses, .kind = &bf16},
    {"spec.fresh", run_guesses, .kind = &bf16},
    {"minilm.b32.bf16", run_embed, .kind = &bf16},
    {"minilm.b32.w8a8", run_embed, .kind = &w8a8},
    {"serve.c64.w8a8", run_serve, .kind = &w8a8},
    {"memory.%s", run_footprint, .kind = &bf16},
    {"start.%s", run_footprint, .kind = &bf16},
};

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

static void run_row(struct bench *b, const struct row *r) {
    struct row named = *r;
    char name[64];
    size_t stem = strcspn(r->name, "%");
    snprintf(name, sizeof name, "%.*s%s", (int)stem, r->name, r->name[stem] ? b->shape->name : "");
    if (!wanted(b, name)) return;
    named.name = name;
    b->kind = r->kind;
    r->run(b, &named);
}

/* --job: the process that footprint.c measures. */
static int work(int argc, char **argv, const struct bench *b, const char *weights) {
    const char *prompt = option(argc, argv, "--prompt"), *tokens = option(argc, argv, "--tokens");
    struct job j = {b->dir, b->threads, prompt ? (uint32_t)strtoul(prompt, NULL, 10) : JOB_PROMPT,
                    tokens ? (uint32_t)strtoul(tokens, NULL, 10) : JOB_TOKENS, weights};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, weights) == 0) {
            footprint_work(&j, kinds[i]->dtype);
            return 0;
        }
    die("--job is a type of weights: bf16, w8a8 or w4a8");
    return 1;
}

int main(int argc, char **argv) {
    const char *shape = option(argc, argv, "--shape"), *make = option(argc, argv, "--make-model");
    const char *threads = option(argc, argv, "--threads"), *runs = option(argc, argv, "--runs");
    char room[MODEL_BYTES];
    const char *job = option(argc, argv, "--job");
    struct bench b = {.only = option(argc, argv, "--only"),
                      .shape = random_shape_find(shape ? shape : "0.5B"),
                      .threads = threads ? (uint32_t)strtoul(threads, NULL, 10) : team_processors(),
                      .runs = runs ? atoi(runs) : RUNS};
    const char *requests = option(argc, argv, "--requests");
    const char *one_slots = option(argc, argv, "--slots");
    b.requests = requests ? (uint32_t)strtoul(requests, NULL, 10) : REQUESTS;
    b.slots = (uint32_t)strtoul(one_slots ? one_slots : "0", NULL, 10);
    if (!b.shape) die("--shape is 0.5B or 1.5B");
    if (b.runs < 1 || b.runs > RUNS_MAX) die("--runs is a number from 1 to 50");
    if (b.threads < 1 || b.threads > TEAM_THREADS_MAX) die("--threads is a number from 1 to 256");
    if (make) {
        random_model_make(b.shape, make, flag(argc, argv, "--known-text"));
        return 0;
    }
    b.known = option(argc, argv, "--known");
    b.dir = model_dir(b.shape, option(argc, argv, "--model"), false, room);
    if (job) return work(argc, argv, &b, job);
    b.cold = aligned_alloc(HUGE_PAGE, READ_BYTES);
    if (!b.cold || team_new(&b.team, b.threads) != 0) die("no memory");
    madvise(b.cold, READ_BYTES, MADV_HUGEPAGE);
    memset(b.cold, 1, READ_BYTES);
    printf("%s, %u threads\n", b.dir, b.threads);
    if (!getenv("PEERS")) printf("no peers: PEERS=DIR names a folder with built ones\n");
    b.report = report_open("engine", b.runs);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) run_row(&b, &rows[i]);
    report_close(b.report);
    use_kind(&b, NULL);
    team_free(b.team);
    free(b.cold);
    return 0;
}
