/* penstock submit KIND: one job, and its result with --wait; with files, a job each. */
#include "client/cli/submit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/term.h"
#include "client/cli/follow.h"

#define UPLOAD_MS 120000 /* for a body of more than one frame */

enum {
    OPT_BODY = 256,
    OPT_KEY,
    OPT_SEED,
    OPT_PRIORITY,
    OPT_DELAY,
    OPT_TTL,
    OPT_PIPELINE,
    OPT_SOURCE,
    OPT_STREAM,
    OPT_GLOB,
    OPT_WINDOW,
    OPT_AGAIN
};

static const struct argp_option options[] = {
    {"text", 'x', "TEXT", 0, "The text; of a kind with several texts, one more", 1},
    {"file", 'f', "FILE", 0,
     "The text or image from a file (- is stdin); of several texts, one a line", 1},
    {"set", 's', "NAME=VALUE", 0,
     "A field of the kind, a list as JSON or an item at a time; NAME=@FILE: a list, JSON, bytes "
     "from a file; see `penstock schema KIND`",
     1},
    {"body-json", OPT_BODY, "FILE", 0, "The whole body as JSON (- is stdin)", 1},
    {"wait", 'w', NULL, 0, "Wait for the result and print it", 2},
    {"stream", OPT_STREAM, NULL, 0, "Print tokens as they come, then wait as --wait does", 2},
    {"key", OPT_KEY, "KEY", 0, "Idempotency key: the same key returns the same job", 3},
    {"seed", OPT_SEED, "N", 0, "Seed of everything random in the job", 3},
    {"priority", OPT_PRIORITY, "N", 0, "0 is served first, 9 last (default 4)", 3},
    {"delay", OPT_DELAY, "SECONDS", 0, "Not before so long from now", 3},
    {"ttl", OPT_TTL, "SECONDS", 0, "Expire when not done after so long", 3},
    {"pipeline", OPT_PIPELINE, "NAME", 0, "The pipeline to run; default: named like the kind", 3},
    {"source", OPT_SOURCE, "NAME", 0, "Where it comes from, such as a camera; its policy holds", 3},
    {NULL, 0, NULL, 0, "With files or folders:", 4},
    {"out", 'o', "DIR", 0, "Write each result to DIR/FILE.json, and skip what is there", 5},
    {"glob", OPT_GLOB, "PATTERN", 0,
     "Which files of a folder (default: by kind, such as *.pdf and *.txt)", 5},
    {"recursive", 'r', NULL, 0, "Folders of folders too", 5},
    {"again", OPT_AGAIN, NULL, 0, "Submit what failed in an earlier run once more", 5},
    {"window", OPT_WINDOW, "N", 0, "So many jobs under way at a time (default 64)", 5},
    {"quiet", 'q', NULL, 0, "No progress", 5},
    {0}};

static void remember(struct submit *in, struct argp_state *state,
                     int (*take)(struct body *b, const char *arg), const char *arg) {
    if (in->n_sets == SUBMIT_SETS_MAX) argp_error(state, "more than %d fields", SUBMIT_SETS_MAX);
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
    case 'o': in->out = arg; return 0;
    case 'r': in->recursive = true; return 0;
    case 'q': in->quiet = true; return 0;
    case OPT_GLOB: in->glob = arg; return 0;
    case OPT_AGAIN: in->again = true; return 0;
    case OPT_WINDOW:
        in->window = (uint32_t)cli_number(state, "--window", arg, SUBMIT_WINDOW_MAX);
        return 0;
    case OPT_STREAM: in->stream = in->wait = true; return 0;
    case OPT_BODY: in->body_path = arg; return 0;
    case OPT_KEY: job->key = arg; return 0;
    case OPT_SOURCE: job->source = arg; return 0;
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

/* ---- one job ---- */

/* How much of a long body is there, drawn over itself. */
static int show_upload(void *arg, uint64_t have, uint64_t bytes) {
    (void)arg;
    fprintf(stderr, "\r\033[K%s", have < bytes ? "" : "\r");
    if (have < bytes)
        fprintf(stderr, "uploading: %.1f of %.1f MiB", (double)have / 1048576,
                (double)bytes / 1048576);
    fflush(stderr);
    return 0;
}

static int submit(struct submit *in, struct penstock *p) {
    struct penstock_accepted a;
    char err[PENSTOCK_ERR_BYTES];
    bool uploads = in->job.body_bytes > LIMIT_FRAME_BYTES;
    int timeout_ms = uploads && in->c.timeout_ms < 0 ? UPLOAD_MS : cli_answer_ms(&in->c);
    if (uploads && !in->quiet && term_is(stderr)) in->job.progress = show_upload;
    int rc = penstock_submit(p, &in->job, &a, timeout_ms, err, sizeof err);
    if (rc < 0) return cli_failed(&in->c, p, rc, err);
    if (in->wait) {
        fprintf(stderr, "job %s %s, seed %" PRIu64 "\n", a.job,
                a.existing ? "was submitted before" : "accepted", a.seed);
        return follow_job(&in->c, p, a.job, in->stream);
    }
    if (in->c.json)
        printf("{\"job\": \"%s\", \"state\": \"%s\", \"seed\": %" PRIu64 ", \"existing\": %s}\n",
               a.job, a.state, a.seed, a.existing ? "true" : "false");
    else
        puts(a.job);
    return CLI_OK;
}

static int take_fields(struct submit *in, struct body *b) {
    int code = body_init(b, in->job.kind);
    if (code == CLI_OK && in->body_path) code = body_load(b, in->body_path);
    for (size_t i = 0; code == CLI_OK && i < in->n_sets; i++)
        code = in->sets[i].take(b, in->sets[i].arg);
    return code;
}

static int submit_one(struct submit *in, const struct body *b) {
    struct buf packed = {0};
    struct penstock *p;
    int code = body_pack(b, 0, &packed);
    in->job.body = packed.data;
    in->job.body_bytes = packed.len;
    if (code == CLI_OK) code = cli_open(&in->c, &p);
    if (code == CLI_OK) {
        code = submit(in, p);
        penstock_close(p);
    }
    buf_fini(&packed);
    return code;
}

int cli_verb_submit(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "KIND [FILE|DIR...]",
        .doc = "Submit a job and print its id, or its result with --wait. Kinds: text.embed, "
               "text.generate, contract.analyze, qc.inspect, and what `penstock schema` lists.\n\n"
               "With files or folders: a job for each file, many under way at a time. A run that "
               "was stopped, or is repeated, takes up where it was and does nothing twice: a job "
               "is known by its content.",
        .children = cli_common};
    static struct submit in;
    struct body b = {0};
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n == 0)
        return cli_usage("submit which kind of job? `penstock schema` lists the kinds");
    in.job.kind = in.c.args[0];
    int code = CLI_OK;
    if (in.c.n == 1 && (in.out || in.glob || in.recursive || in.again || in.window))
        code =
            cli_usage("name files or folders: penstock submit %s DIR --out RESULTS", in.job.kind);
    if (in.c.n > 1 && in.stream)
        code = cli_usage("--stream is for one job: penstock submit %s --file %s --stream",
                         in.job.kind, in.c.args[1]);
    if (code == CLI_OK) code = take_fields(&in, &b);
    if (code == CLI_OK) code = in.c.n > 1 ? submit_files(&in, &b) : submit_one(&in, &b);
    body_fini(&b);
    return code;
}
