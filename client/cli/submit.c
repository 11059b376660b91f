/* penstock submit KIND: one job, and its result with --wait. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/body.h"
#include "client/cli/outcome.h"

#define SETS_MAX 1024

enum {
    OPT_BODY = 256,
    OPT_KEY,
    OPT_SEED,
    OPT_PRIORITY,
    OPT_DELAY,
    OPT_TTL,
    OPT_PIPELINE,
    OPT_STREAM
};

struct submit {
    struct cli c;
    struct penstock_job job;
    bool wait, stream;
    const char *body_path;
    struct { /* --text, --file, --set in the order given */
        int (*take)(struct body *b, const char *arg);
        const char *arg;
    } sets[SETS_MAX];
    size_t n_sets;
};

static const struct argp_option options[] = {
    {"text", 'x', "TEXT", 0, "The text; of a kind with several texts, one more", 1},
    {"file", 'f', "FILE", 0,
     "The text or image from a file (- is stdin); of several texts, one a line", 1},
    {"set", 's', "NAME=VALUE", 0,
     "A field of the kind, or a file's bytes with NAME=@FILE; see `penstock schema KIND`", 1},
    {"body-json", OPT_BODY, "FILE", 0, "The whole body as JSON (- is stdin)", 1},
    {"wait", 'w', NULL, 0, "Wait for the result and print it", 2},
    {"stream", OPT_STREAM, NULL, 0, "Print tokens as they come, then wait as --wait does", 2},
    {"key", OPT_KEY, "KEY", 0, "Idempotency key: the same key returns the same job", 3},
    {"seed", OPT_SEED, "N", 0, "Seed of everything random in the job", 3},
    {"priority", OPT_PRIORITY, "N", 0, "0 is served first, 9 last (default 4)", 3},
    {"delay", OPT_DELAY, "SECONDS", 0, "Not before so long from now", 3},
    {"ttl", OPT_TTL, "SECONDS", 0, "Expire when not done after so long", 3},
    {"pipeline", OPT_PIPELINE, "NAME", 0, "The pipeline to run; default: named like the kind", 3},
    {0}};

static void remember(struct submit *in, struct argp_state *state,
                     int (*take)(struct body *b, const char *arg), const char *arg) {
    if (in->n_sets == SETS_MAX) argp_error(state, "more than %d fields", SETS_MAX);
    in->sets[in->n_sets].take = take;
    in->sets[in->n_sets++].arg = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct submit *in = state->input;
    struct penstock_job *job = &in->job;
    switch (key) {
    case 'x': remember(in, state, body_text, arg); return 0;
    case 'f': remember(in, state, body_file, arg); return 0;
    case 's': remember(in, state, body_set, arg); return 0;
    case 'w': in->wait = true; return 0;
    case OPT_STREAM: in->stream = in->wait = true; return 0;
    case OPT_BODY: in->body_path = arg; return 0;
    case OPT_KEY: job->key = arg; return 0;
    case OPT_PIPELINE: job->pipeline = arg; return 0;
    case OPT_SEED:
        job->has_seed = true;
        job->seed = cli_number(state, "--seed", arg, UINT64_MAX);
        return 0;
    case OPT_PRIORITY:
        job->has_priority = true;
        job->priority = (uint32_t)cli_number(state, "--priority", arg, 9);
        return 0;
    case OPT_DELAY: job->delay_ms = (uint64_t)cli_seconds_ms(state, "--delay", arg); return 0;
    case OPT_TTL: job->ttl_ms = (uint64_t)cli_seconds_ms(state, "--ttl", arg); return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the result ---- */

struct tokens {
    uint64_t attempt;
    bool any;
};

static int print_token(void *arg, const struct penstock_event *e) {
    struct tokens *t = arg;
    if (strcmp(e->type, "token") != 0 || !e->text) return 0;
    if (t->any && e->attempt != t->attempt)
        fputs("\npenstock: the job began anew; what was printed before is void\n", stderr);
    t->attempt = e->attempt;
    t->any = true;
    fputs(e->text, stdout);
    return fflush(stdout);
}

static int wait_for(struct submit *in, struct penstock *p, const char *job) {
    struct penstock_result r;
    struct tokens t = {0};
    char err[PENSTOCK_ERR_BYTES];
    int rc = 0;
    if (in->stream)
        rc = penstock_events(p, job, print_token, &t, in->c.timeout_ms, err, sizeof err);
    if (t.any) putchar('\n');
    if (rc < 0) return cli_fail(rc, err);
    int wait_ms = in->c.timeout_ms < 0 ? INT_MAX : in->c.timeout_ms;
    rc = penstock_wait(p, job, wait_ms, &r, err, sizeof err);
    if (rc < 0) return cli_fail(rc, err);
    if (!t.any || in->c.json) outcome_print(&in->c, &r);
    int code = outcome_code(&r);
    penstock_result_free(&r);
    return code;
}

static int submit(struct submit *in, struct penstock *p) {
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES];
    int rc = penstock_submit(p, &in->job, &a, cli_answer_ms(&in->c), err, sizeof err);
    if (rc < 0) return cli_fail(rc, err);
    if (in->wait) {
        fprintf(stderr, "job %s %s, seed %" PRIu64 "\n", a.job,
                a.existing ? "was submitted before" : "accepted", a.seed);
        return wait_for(in, p, a.job);
    }
    if (in->c.json)
        printf("{\"job\": \"%s\", \"state\": \"%s\", \"seed\": %" PRIu64 ", \"existing\": %s}\n",
               a.job, a.state, a.seed, a.existing ? "true" : "false");
    else
        puts(a.job);
    return CLI_OK;
}

static int make_body(struct submit *in, struct buf *out) {
    struct body b;
    int code = body_init(&b, in->job.kind);
    if (code == CLI_OK && in->body_path) code = body_load(&b, in->body_path);
    for (size_t i = 0; code == CLI_OK && i < in->n_sets; i++)
        code = in->sets[i].take(&b, in->sets[i].arg);
    if (code == CLI_OK) code = body_pack(&b, out);
    in->job.body = out->data;
    in->job.body_bytes = out->len;
    body_fini(&b);
    return code;
}

int cli_verb_submit(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "KIND",
        .doc = "Submit a job and print its id, or its result with --wait. Kinds: text.embed, "
               "text.generate, contract.analyze, and what `penstock schema` lists.",
        .children = cli_common};
    static struct submit in;
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n != 1) return cli_usage("submit one kind of job; `penstock schema` lists the kinds");
    in.job.kind = in.c.args[0];
    struct buf body = {0};
    struct penstock *p;
    int code = make_body(&in, &body);
    if (code == CLI_OK) code = cli_open(&in.c, &p);
    if (code == CLI_OK) {
        code = submit(&in, p);
        penstock_close(p);
    }
    buf_fini(&body);
    return code;
}
