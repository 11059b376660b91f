/* penstock wait JOB... and penstock result JOB...: the outcomes of jobs. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "client/cli/missing.h"
#include "client/cli/outcome.h"

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
    if (key == ARGP_KEY_INIT) state->child_inputs[0] = state->input;
    return ARGP_ERR_UNKNOWN;
}

static const struct argp wait_argp = {
    .parser = parse,
    .args_doc = "JOB...",
    .doc =
        "Wait until the jobs are terminal, at most --timeout seconds in all (default: for ever), "
        "and print their results. Exits 1 when one is not done.",
    .children = cli_common};
static const struct argp result_argp = {
    .parser = parse,
    .args_doc = "JOB...",
    .doc = "Print the results that are there now. Exits 1 when one is not done.",
    .children = cli_common};

/* A lost broker ends the run; what is wrong with one job does not keep the others waiting. */
static int each(struct cli *c, bool wait) {
    struct penstock *p;
    int code = cli_open(c, &p);
    if (code != CLI_OK) return code;
    int64_t end_ms = c->timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + c->timeout_ms;
    for (int i = 0; i < c->n; i++) {
        struct penstock_result r;
        char err[PENSTOCK_ERR_BYTES];
        int64_t left_ms = end_ms == INT64_MAX ? INT_MAX : end_ms - clock_mono_ms();
        if (left_ms < 0) left_ms = 0;
        int rc = wait ? missing_wait(p, c->args[i], (int)left_ms, &r, err, sizeof err)
                      : penstock_result(p, c->args[i], &r, cli_answer_ms(c), err, sizeof err);
        int one = rc < 0 ? cli_failed(c, p, rc, err) : outcome_code(&r);
        if (rc == 0) outcome_print(c, &r);
        penstock_result_free(&r);
        if (one > code) code = one;
        if (one == CLI_UNREACHABLE) break;
    }
    penstock_close(p);
    return code;
}

int cli_verb_wait(int argc, char **argv) {
    static struct cli c;
    cli_parse(&wait_argp, argc, argv, &c);
    if (c.n == 0) return cli_usage("wait for which job? `penstock ls` lists them");
    return each(&c, true);
}

int cli_verb_result(int argc, char **argv) {
    static struct cli c;
    cli_parse(&result_argp, argc, argv, &c);
    if (c.n == 0) return cli_usage("the result of which job? `penstock ls` lists them");
    return each(&c, false);
}
