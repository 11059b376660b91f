/* penstock results: jobs in the order in which they ended, from an offset on. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/cli/cli.h"

struct results {
    struct cli c;
    struct penstock_subscription how;
    bool from_said, live;
};

enum { OPT_FROM = 256, OPT_PIPELINE, OPT_RESULTS };
static const struct argp_option options[] = {
    {"follow", 'f', NULL, 0, "Go on as jobs end, until Ctrl-C or for --timeout", 0},
    {"from", OPT_FROM, "OFFSET", 0,
     "Behind this offset; 0: all that are kept (the default without --follow)", 0},
    {"kind", 'k', "KIND", 0, "Only jobs of this kind", 0},
    {"pipeline", OPT_PIPELINE, "NAME", 0, "Only jobs of this pipeline", 0},
    {"results", OPT_RESULTS, NULL, 0, "With what they returned", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct results *in = state->input;
    char *end;
    switch (key) {
    case 'f':
        in->how.follow = true;
        if (!in->from_said) in->how.from = UINT64_MAX;
        return 0;
    case OPT_FROM:
        errno = 0;
        in->how.from = strtoull(arg, &end, 10);
        if (errno || end == arg || *end || *arg == '-')
            argp_error(state, "--from %s: write an offset, such as the last one printed", arg);
        in->from_said = true;
        return 0;
    case 'k': in->how.kind = arg; return 0;
    case OPT_PIPELINE: in->how.pipeline = arg; return 0;
    case OPT_RESULTS: in->how.results = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static struct json *text(const char *s) {
    return json_new_str(s, strlen(s));
}

/* One object a line, so that a line can be read when it is there. */
static void print_json(const struct penstock_ended *e) {
    struct json *o = json_new_object(), *result = NULL;
    char err[PENSTOCK_ERR_BYTES];
    json_set(o, "offset", json_new_int((int64_t)e->offset));
    json_set(o, "job", text(e->job));
    json_set(o, "state", text(e->state));
    json_set(o, "kind", text(e->kind));
    json_set(o, "pipeline", text(e->pipeline));
    json_set(o, "key", text(e->key));
    json_set(o, "error_class", text(e->error_class));
    json_set(o, "reason", text(e->reason));
    json_set(o, "accepted_ms", json_new_int(e->accepted_ms));
    json_set(o, "finished_ms", json_new_int(e->finished_ms));
    if (e->json && json_parse(&result, e->json, strlen(e->json), err, sizeof err) == 0)
        json_set(o, "result", result);
    char *line = json_text(o, 0);
    if (line) puts(line);
    free(line);
    json_free(o);
}

static int print_end(void *arg, const struct penstock_ended *e) {
    struct results *in = arg;
    if (e->what == PENSTOCK_ENDED_GAP)
        fprintf(stderr,
                "penstock: at most %" PRIu64 " jobs that ended (offsets %" PRIu64 " to %" PRIu64
                ") are left out: the broker keeps them no longer\n",
                e->lost, e->offset - e->lost + 1, e->offset);
    in->live |= e->what == PENSTOCK_ENDED_LIVE;
    if (e->what != PENSTOCK_ENDED_JOB) return fflush(stdout) != 0;
    if (in->c.json) {
        print_json(e);
    } else {
        printf("%" PRIu64 "  %s  %s  %s%s%s\n", e->offset, e->job, e->kind, e->state,
               e->error_class[0] ? " " : "", e->error_class);
        if (e->json) puts(e->json);
    }
    return in->how.follow && fflush(stdout) != 0;
}

int cli_verb_results(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .doc = "Print jobs in the order in which they ended, each with its offset. Who keeps the "
               "last offset and comes back with --from misses none and sees none twice. With "
               "--follow it goes on as jobs end; without, it ends where that is now.",
        .children = cli_common};
    static struct results in;
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n) return cli_usage("results takes no argument '%s'", in.c.args[0]);
    struct penstock *p;
    char err[PENSTOCK_ERR_BYTES];
    int code = cli_open(&in.c, &p);
    if (code != CLI_OK) return code;
    int timeout_ms = in.c.timeout_ms >= 0 || in.how.follow ? in.c.timeout_ms : 60000;
    int rc = penstock_results(p, &in.how, print_end, &in, timeout_ms, err, sizeof err);
    if (rc == PENSTOCK_TIMEOUT && in.how.follow && in.live) rc = 0; /* as long as was asked for */
    if (rc < 0) code = cli_failed(&in.c, p, rc, err);
    penstock_close(p);
    return code;
}
