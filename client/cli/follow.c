#include "client/cli/follow.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/term.h"
#include "client/cli/missing.h"
#include "client/cli/outcome.h"

struct tokens {
    uint64_t attempt;
    bool any;
};

/* Of several texts the first is streamed: pieces of them all would be mixed. */
static bool of_another_text(const struct penstock_event *e) {
    struct json *j = NULL;
    if (!e->json || json_parse(&j, e->json, strlen(e->json), NULL, 0) < 0) return false;
    bool another = json_int(json_get(j, "index"), 0) > 0;
    json_free(j);
    return another;
}

static int print_token(void *arg, const struct penstock_event *e) {
    struct tokens *t = arg;
    if (strcmp(e->type, "token") != 0 || !e->text || of_another_text(e)) return 0;
    if (t->any && e->attempt != t->attempt)
        fputs("\npenstock: the job began anew; what was printed before is void\n", stderr);
    t->attempt = e->attempt;
    t->any = true;
    term_put(stdout, e->text);
    return fflush(stdout);
}

int follow_job(const struct cli *c, struct penstock *p, const char *job, bool stream) {
    struct penstock_result r;
    struct tokens t = {0};
    char err[PENSTOCK_ERR_BYTES];
    int rc = 0;
    if (stream) {
        missing_tell(p, job);
        rc = penstock_events(p, job, print_token, &t, c->timeout_ms, err, sizeof err);
    }
    if (t.any) putchar('\n');
    if (rc < 0) return cli_failed(c, p, rc, err);
    int wait_ms = c->timeout_ms < 0 ? INT_MAX : c->timeout_ms;
    rc = missing_wait(p, job, wait_ms, &r, err, sizeof err);
    if (rc < 0) return cli_failed(c, p, rc, err);
    if (!t.any || c->json)
        outcome_print(c, &r);
    else if (r.json)
        outcome_print_rest(&r);
    int code = outcome_code(&r);
    penstock_result_free(&r);
    return code;
}
