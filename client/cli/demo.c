/* penstock demo [text|contract|qc]: the shipped samples through an engine, for people to see.
 *
 * The samples run in a child process, so that whatever ends it, Ctrl-C too, this one stops the
 * engine it started and removes its folder. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/term.h"
#include "client/cli/engine.h"
#include "client/cli/feed.h"
#include "client/cli/follow.h"

#define PING_MS 300
#define ACCEPT_MS 10000
#define WAIT_MS 120000
#define ENCODER "all-MiniLM-L6-v2"
#define DECODER "tiny-llama"
#define PAIRS 3 /* of sentences */

struct demo {
    struct cli c;
    struct penstock *p;
    char examples[4096];
};

/* ---- jobs ---- */

static void title(const char *kind, const char *what) {
    printf("\n%s%s%s  %s\n\n", term_on(stdout, TERM_BOLD), kind, term_off(stdout), what);
    fflush(stdout);
}

/* Whether a worker has the model; says where it comes from. */
static bool has_model(struct demo *d, const char *model) {
    struct penstock_doc doc;
    struct json *workers = NULL;
    char err[PENSTOCK_ERR_BYTES];
    bool found = false;
    if (penstock_workers(d->p, &doc, ACCEPT_MS, err, sizeof err) == 0)
        json_parse(&workers, doc.json, strlen(doc.json), err, sizeof err);
    for (size_t i = 0; i < json_len(workers); i++) {
        const struct json *names = json_get(json_at(workers, i), "models");
        for (size_t k = 0; k < json_len(names); k++) {
            const char *name = json_str(json_at(names, k));
            found |= name && strcmp(name, model) == 0;
        }
    }
    json_free(workers);
    penstock_doc_free(&doc);
    if (!found)
        fprintf(stderr,
                "penstock: no worker has the model %s; `make run` in the source's folder fetches "
                "it once, `penstock up --models DIR` offers a folder of models\n",
                model);
    return found;
}

static int submit(struct demo *d, const char *kind, const struct buf *body, char job[14]) {
    struct penstock_job j = {.kind = kind, .body = body->data, .body_bytes = body->len};
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES];
    int rc = penstock_submit(d->p, &j, &a, ACCEPT_MS, err, sizeof err);
    if (rc < 0) return cli_fail(rc, err);
    memcpy(job, a.job, PENSTOCK_JOB_BYTES);
    return CLI_OK;
}

/* The body that `penstock submit KIND FILE --set SET` would make. */
static int sample_body(struct demo *d, const char *kind, const char *file, const char *set,
                       struct buf *out) {
    struct body b;
    char path[4096 + 64], err[PENSTOCK_ERR_BYTES];
    snprintf(path, sizeof path, "%s/%s", d->examples, file);
    int code = body_init(&b, kind);
    if (code == CLI_OK && set) code = body_set(&b, set);
    if (code == CLI_OK && feed_body(&b, path, out, err, sizeof err) < 0)
        code = cli_fail(PENSTOCK_PROTOCOL, err);
    body_fini(&b);
    return code;
}

static int sample(struct demo *d, const char *kind, const char *file, const char *set) {
    struct buf body = {0};
    char job[PENSTOCK_JOB_BYTES];
    title(kind, file);
    int code = sample_body(d, kind, file, set, &body);
    if (code == CLI_OK) code = submit(d, kind, &body, job);
    if (code == CLI_OK) code = follow_job(&d->c, d->p, job, false);
    buf_fini(&body);
    return code;
}

/* ---- text ---- */

static int generate(struct demo *d) {
    static const char prompt[] = "The press on line four stopped because";
    char job[PENSTOCK_JOB_BYTES], set[128];
    struct buf packed = {0};
    struct body b;
    title("text.generate", "a decoder of 1 MB made for this demo; tokens as they come");
    if (!has_model(d, DECODER)) return CLI_FAILED;
    snprintf(set, sizeof set, "prompt=%s", prompt);
    int code = body_init(&b, "text.generate");
    if (code == CLI_OK) code = body_set(&b, set);
    if (code == CLI_OK) code = body_set(&b, "max_tokens=48");
    if (code == CLI_OK) code = body_pack(&b, 0, &packed);
    if (code == CLI_OK) code = submit(d, "text.generate", &packed, job);
    printf("%s%s%s", term_on(stdout, TERM_DIM), prompt, term_off(stdout));
    if (code == CLI_OK) code = follow_job(&d->c, d->p, job, true);
    body_fini(&b);
    buf_fini(&packed);
    return code;
}

static double cosine(const struct json *a, const struct json *b) {
    double sum = 0; /* of unit length, both */
    for (size_t i = 0; i < json_len(a); i++)
        sum += json_num(json_at(a, i), 0) * json_num(json_at(b, i), 0);
    return sum;
}

/* The model knows English alone. */
static bool is_english(const char *line) {
    for (; *line; line++)
        if ((unsigned char)*line >= 0x80) return false;
    return true;
}

/* Which sentences are most alike: the best pairs, one after the other. */
static void print_pairs(const struct json *vectors, char *const *lines, size_t n) {
    double below = INFINITY;
    for (int pair = 0; pair < PAIRS; pair++) {
        double best = -INFINITY;
        size_t at = 0, with = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t k = i + 1; k < n; k++) {
                double c = cosine(json_at(vectors, i), json_at(vectors, k));
                bool read = is_english(lines[i]) && is_english(lines[k]);
                if (read && c < below && c > best) best = c, at = i, with = k;
            }
        if (best == -INFINITY) return;
        printf("%s%.2f%s  %s\n      %s\n", term_on(stdout, TERM_GREEN), best, term_off(stdout),
               lines[at], lines[with]);
        below = best;
    }
}

static int embed(struct demo *d) {
    static const char file[] = "sentences.txt";
    char path[4096 + 64], err[PENSTOCK_ERR_BYTES], job[PENSTOCK_JOB_BYTES], *lines[LIMIT_TEXTS];
    struct penstock_result r = {0};
    struct buf body = {0};
    struct json *result = NULL;
    void *text = NULL;
    size_t bytes, n = 0;
    title("text.embed", "which of the English sentences are most alike");
    if (!has_model(d, ENCODER)) return CLI_FAILED;
    int code = sample_body(d, "text.embed", file, NULL, &body);
    if (code == CLI_OK) code = submit(d, "text.embed", &body, job);
    int rc = code == CLI_OK ? penstock_wait(d->p, job, WAIT_MS, &r, err, sizeof err) : -1;
    if (code == CLI_OK && rc < 0) code = cli_fail(rc, err);
    if (code == CLI_OK && !r.json) code = cli_fail(PENSTOCK_PROTOCOL, r.reason);
    snprintf(path, sizeof path, "%s/%s", d->examples, file);
    if (code == CLI_OK && file_read(path, LIMIT_TEXT_BYTES, &text, &bytes, err, sizeof err) < 0)
        code = cli_fail(PENSTOCK_PROTOCOL, err);
    if (code == CLI_OK && json_parse(&result, r.json, strlen(r.json), err, sizeof err) < 0)
        code = cli_fail(PENSTOCK_PROTOCOL, err);
    for (char *rest = text, *line; code == CLI_OK && (line = strsep(&rest, "\n"));)
        if (line[0] && n < LIMIT_TEXTS) lines[n++] = line;
    if (code == CLI_OK) print_pairs(json_get(result, "embeddings"), lines, n);
    json_free(result);
    free(text);
    penstock_result_free(&r);
    buf_fini(&body);
    return code;
}

static int demo_text(struct demo *d) {
    int code = generate(d), other = embed(d);
    return code > other ? code : other;
}

/* ---- documents and parts ---- */

static int demo_contract(struct demo *d) {
    const struct kind_desc *kind = kind_find(bytes_str("contract.analyze"));
    bool pdf = field_find(kind->fields, kind->n, "document");
    if (!has_model(d, ENCODER)) return CLI_FAILED;
    int code = sample(d, kind->name, pdf ? "contract-en.pdf" : "contract-en.txt", NULL);
    int other = sample(d, kind->name, pdf ? "contract-zh.pdf" : "contract-zh.txt", NULL);
    return code > other ? code : other;
}

static int demo_qc(struct demo *d) {
    if (!has_model(d, ENCODER)) return CLI_FAILED;
    int code = sample(d, "qc.inspect", "qc/part-ok.png", "recipe=board-a");
    int other = sample(d, "qc.inspect", "qc/part-ng.png", "recipe=board-a");
    return code > other ? code : other;
}

static const struct part {
    const char *name;
    int (*run)(struct demo *d);
} parts[] = {{"text", demo_text}, {"contract", demo_contract}, {"qc", demo_qc}};

static bool wanted(const struct demo *d, const char *name) {
    for (int i = 0; i < d->c.n; i++)
        if (strcmp(d->c.args[i], name) == 0) return true;
    return d->c.n == 0;
}

static int run_parts(struct demo *d) {
    int code = cli_open(&d->c, &d->p);
    for (size_t i = 0; code != CLI_USAGE && i < sizeof parts / sizeof *parts; i++) {
        int one = wanted(d, parts[i].name) ? parts[i].run(d) : CLI_OK;
        if (one > code) code = one;
    }
    penstock_close(d->p);
    fflush(stdout);
    return code;
}

/* ---- the engine ---- */

static volatile sig_atomic_t stopped;

static void on_signal(int signal) {
    stopped = signal;
}

static int run_in_child(struct demo *d) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) return cli_fail(PENSTOCK_MEMORY, strerror(errno));
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        _exit(getppid() == parent ? run_parts(d) : CLI_FAILED);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        if (stopped == SIGTERM) kill(pid, SIGTERM);
    return WIFEXITED(status) ? WEXITSTATUS(status) : CLI_FAILED;
}

static bool answers(struct demo *d) {
    struct penstock_pong pong;
    char err[PENSTOCK_ERR_BYTES];
    struct penstock *p;
    bool there = penstock_open(&p, d->c.endpoint, err, sizeof err) == 0;
    there = there && penstock_ping(p, &pong, PING_MS, err, sizeof err) == 0;
    if (there) fprintf(stderr, "penstock: with the engine at %s\n", penstock_endpoint(p));
    penstock_close(p);
    return there;
}

static int start(struct demo *d, struct engine *e) {
    char models[sizeof d->examples + 16];
    fputs("penstock: starting an engine for this demo\n", stderr);
    snprintf(models, sizeof models, "%s/models", d->examples);
    int code = engine_start(e, models);
    d->c.endpoint = e->endpoint;
    return code;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
    if (key == ARGP_KEY_INIT) state->child_inputs[0] = state->input;
    return ARGP_ERR_UNKNOWN;
}

int cli_verb_demo(int argc, char **argv) {
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "[text|contract|qc...]",
        .doc = "Run the samples that came with this program through the engine that runs, or "
               "else through one that is started for it and removed afterwards.",
        .children = cli_common};
    static const char *const beside[] = {"/../../examples", "/../share/penstock/examples"};
    static const struct sigaction catch = {.sa_handler = on_signal};
    static struct demo d;
    struct engine e = {0};
    cli_parse(&argp, argc, argv, &d.c);
    for (int i = 0; i < d.c.n; i++)
        if (strcmp(d.c.args[i], "text") != 0 && strcmp(d.c.args[i], "contract") != 0 &&
            strcmp(d.c.args[i], "qc") != 0)
            return cli_usage("there are demos of text, contract and qc, not of '%s'", d.c.args[i]);
    if (file_beside_program(beside, 2, d.examples, sizeof d.examples) < 0)
        return cli_usage("no samples at %s%s or %s%s; `make install` puts them there", d.examples,
                         beside[0], d.examples, beside[1]);
    if (d.c.timeout_ms < 0) d.c.timeout_ms = WAIT_MS;
    sigaction(SIGINT, &catch, NULL);
    sigaction(SIGTERM, &catch, NULL);
    int code = answers(&d) ? CLI_OK : d.c.endpoint ? CLI_UNREACHABLE : start(&d, &e);
    if (code == CLI_UNREACHABLE) cli_usage("no broker at %s; see `penstock ping`", d.c.endpoint);
    if (code == CLI_OK && !stopped) code = run_in_child(&d);
    engine_stop(&e);
    return stopped ? CLI_FAILED : code;
}
