#include "tests/bench/engine/serve.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "client/penstock.h"
#include "tests/bench/engine/child.h"
#include "tests/bench/engine/http.h"
#include "tests/bench/report/report.h"

enum { GAPS_MAX = 1 << 16, WAIT_MS = 600000, START_MS = 120000 };
enum { PROMPT_MIN = 64, PROMPT_MAX = 448, TOKENS_MIN = 16, TOKENS_MAX = 112 };

struct serve {
    struct serve_request request[SERVE_REQUESTS_MAX];
    uint32_t requests;
    atomic_uint next, gaps;
    double gap_ms[GAPS_MAX];
    char endpoint[160];
    uint16_t port;
    void (*client)(struct serve *s);
};

static void die(const char *what) {
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

/* ---- requests ---- */

static uint32_t between(uint64_t *state, uint32_t least, uint32_t most) {
    return least + (uint32_t)(rng_next(state) % (most - least + 1));
}

/* Words that are one token each, with the blank before them. */
static void make_requests(struct serve *s) {
    static const char *const words[] = {" the",  " and",  " for",  " that", " with", " from",
                                        " this", " have", " will", " you",  " not",  " are",
                                        " but",  " all",  " one",  " can",  " time", " work",
                                        " year", " good", " some", " them", " than", " then"};
    uint64_t state = 7;
    for (uint32_t i = 0; i < s->requests; i++) {
        struct serve_request *r = &s->request[i];
        struct buf b = {0};
        *r = (struct serve_request){.prompt_tokens = between(&state, PROMPT_MIN, PROMPT_MAX),
                                    .tokens = between(&state, TOKENS_MIN, TOKENS_MAX),
                                    .serve = s};
        for (uint32_t w = 0; w < r->prompt_tokens; w++)
            buf_printf(&b, "%s", words[rng_next(&state) % (sizeof words / sizeof *words)]);
        if (buf_u8(&b, 0) != 0) die("no memory");
        r->prompt = (char *)b.data;
    }
}

void serve_token(struct serve_request *r) {
    int64_t now = clock_mono_ns();
    if (r->last_ns) {
        unsigned at = atomic_fetch_add(&r->serve->gaps, 1);
        if (at < GAPS_MAX) r->serve->gap_ms[at] = (double)(now - r->last_ns) * 1e-6;
    }
    r->last_ns = now;
}

static struct serve_request *next_request(struct serve *s) {
    unsigned i = atomic_fetch_add(&s->next, 1);
    return i < s->requests ? &s->request[i] : NULL;
}

/* ---- clients ---- */

static int on_event(void *arg, const struct penstock_event *e) {
    if (strcmp(e->type, "token") == 0) serve_token(arg);
    return 0;
}

static void client_ours(struct serve *s) {
    struct penstock *p;
    char err[PENSTOCK_ERR_BYTES];
    if (penstock_open(&p, s->endpoint, err, sizeof err) != 0) die(err);
    for (struct serve_request *r; (r = next_request(s));) {
        struct penstock_accepted a;
        struct penstock_result result;
        struct buf body = {0};
        buf_printf(&body, "{\"prompt\": \"%s\", \"max_tokens\": %u, \"temperature\": 0}", r->prompt,
                   r->tokens);
        if (buf_u8(&body, 0) != 0) die("no memory");
        struct penstock_job job = {.kind = "text.generate", .body_json = (char *)body.data};
        if (penstock_submit(p, &job, &a, WAIT_MS, err, sizeof err) != 0 ||
            penstock_events(p, a.job, on_event, r, WAIT_MS, err, sizeof err) != 0 ||
            penstock_wait(p, a.job, WAIT_MS, &result, err, sizeof err) != 0)
            die(err);
        if (strcmp(result.state, "done") != 0) die(result.reason);
        penstock_result_free(&result);
        buf_fini(&body);
    }
    penstock_close(p);
}

static void on_line(void *arg, const char *line) {
    if (strncmp(line, "data: {", 7) == 0 && !strstr(line, "\"stop\":true")) serve_token(arg);
}

static void client_llama(struct serve *s) {
    for (struct serve_request *r; (r = next_request(s));) {
        struct buf body = {0};
        buf_printf(&body,
                   "{\"prompt\": \"%s\", \"n_predict\": %u, \"temperature\": 0, \"stream\": true, "
                   "\"ignore_eos\": true, \"cache_prompt\": false}",
                   r->prompt, r->tokens);
        if (buf_u8(&body, 0) != 0) die("no memory");
        if (http_lines(s->port, "POST", "/completion", (char *)body.data, on_line, r) != 200)
            die("llama-server refuses a request");
        buf_fini(&body);
    }
}

static void *client_thread_main(void *arg) {
    struct serve *s = arg;
    s->client(s);
    return NULL;
}

static struct serve_result run_clients(struct serve *s) {
    pthread_t thread[SERVE_CLIENTS];
    uint64_t tokens = 0;
    int64_t began = clock_mono_ns();
    for (uint32_t i = 0; i < SERVE_CLIENTS; i++)
        if (pthread_create(&thread[i], NULL, client_thread_main, s) != 0) die("no threads");
    for (uint32_t i = 0; i < SERVE_CLIENTS; i++) pthread_join(thread[i], NULL);
    double seconds = (double)(clock_mono_ns() - began) * 1e-9;
    for (uint32_t i = 0; i < s->requests; i++) {
        tokens += s->request[i].prompt_tokens + s->request[i].tokens;
        free(s->request[i].prompt);
    }
    uint32_t n = atomic_load(&s->gaps) < GAPS_MAX ? atomic_load(&s->gaps) : GAPS_MAX;
    qsort(s->gap_ms, n, sizeof *s->gap_ms, report_by_value);
    struct serve_result r = {(double)tokens / seconds, n ? s->gap_ms[n * 99 / 100] : 0};
    free(s);
    return r;
}

static struct serve *serve_new(void (*client)(struct serve *s), uint32_t requests) {
    struct serve *s = calloc(1, sizeof *s);
    if (!s || requests < 1 || requests > SERVE_REQUESTS_MAX) die("no memory for so many requests");
    s->requests = requests;
    s->client = client;
    make_requests(s);
    return s;
}

/* ---- servers ---- */

static void write_pipeline(const char *dir) {
    static const char text[] = "name: text.generate\nkind: text.generate\nqueue_max: 10000\n"
                               "stages:\n"
                               "  - {name: encode, run: encode.prompt, model: bench}\n"
                               "  - {name: infer, run: infer.generate, model: bench, "
                               "timeout_ms: 600000, batch: {max: 64, delay_ms: 2}}\n"
                               "  - {name: post, run: post.generate, model: bench}\n";
    char path[128], err[256];
    snprintf(path, sizeof path, "%s/pipelines", dir);
    if (file_mkdirs(path) != 0) die("the pipelines cannot be written");
    snprintf(path, sizeof path, "%s/pipelines/text.generate.yaml", dir);
    if (file_replace(path, text, strlen(text), err, sizeof err) != 0) die(err);
}

/* The last text before it counts: the model is open then. */
static void warm_up(struct serve *s) {
    struct serve_request *last = &s->request[s->requests - 1];
    uint32_t tokens = last->tokens;
    last->tokens = 2;
    atomic_store(&s->next, s->requests - 1);
    s->client(s);
    last->tokens = tokens;
    last->last_ns = 0;
    atomic_store(&s->next, 0);
    atomic_store(&s->gaps, 0);
}

struct serve_result serve_ours(const char *model_dir, const char *weights, uint32_t threads,
                               uint32_t requests) {
    char dir[] = "build/bench/serve-XXXXXX", at[160], pipelines[160], model[1100], number[16];
    struct serve *s = serve_new(client_ours, requests);
    if (file_mkdirs("build/bench") != 0 || !mkdtemp(dir)) die("build/bench cannot be written");
    write_pipeline(dir);
    snprintf(s->endpoint, sizeof s->endpoint, "ipc://%s/clients", dir);
    snprintf(at, sizeof at, "ipc://%s/workers", dir);
    snprintf(pipelines, sizeof pipelines, "%s/pipelines", dir);
    snprintf(model, sizeof model, "bench=%s", model_dir);
    snprintf(number, sizeof number, "%u", threads);
    const char *bin = getenv("PENSTOCK_BIN");
    pid_t broker = child_program(bin ? bin : "build/bin", "penstock-broker",
                                 (const char *const[]){"--dir", dir, "--pipelines", pipelines,
                                                       "--log-level", "error", NULL});
    pid_t worker = child_program(
        bin ? bin : "build/bin", "penstock-worker",
        (const char *const[]){"--connect", at, "--model", model, "--threads", number, "--stages",
                              "encode.prompt,infer.generate,post.generate", "--weights", weights,
                              "--log-level", "error", NULL});
    warm_up(s);
    struct serve_result r = run_clients(s);
    child_end(worker);
    child_end(broker);
    file_remove_tree(dir);
    return r;
}

bool serve_llama_found(const struct llama *l) {
    char path[600];
    snprintf(path, sizeof path, "%s/llama-server", l->bin);
    return access(path, X_OK) == 0;
}

static void ignore_line(void *arg, const char *line) {
    (void)arg, (void)line;
}

struct serve_result serve_llama(const struct llama *l, uint32_t threads, uint32_t requests,
                                uint32_t slots) {
    char number[16], parallel[16], context[16], port[16];
    struct serve *s = serve_new(client_llama, requests);
    s->port = (uint16_t)(20000 + getpid() % 20000);
    snprintf(number, sizeof number, "%u", threads);
    snprintf(parallel, sizeof parallel, "%u", slots);
    snprintf(context, sizeof context, "%u", slots * (PROMPT_MAX + TOKENS_MAX + 16));
    snprintf(port, sizeof port, "%u", s->port);
    pid_t server =
        child_program(l->bin, "llama-server",
                      (const char *const[]){"-m", l->model, "-t", number, "-c", context, "-np",
                                            parallel, "--host", "127.0.0.1", "--port", port, NULL});
    int64_t began = clock_mono_ns();
    while (http_lines(s->port, "GET", "/health", "", ignore_line, NULL) != 200) {
        if (clock_mono_ns() - began > START_MS * INT64_C(1000000)) die("llama-server starts not");
        usleep(100000);
    }
    warm_up(s);
    struct serve_result r = run_clients(s);
    child_end(server);
    return r;
}
