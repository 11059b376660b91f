#include "client/cli/follow.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/term.h"
#include "client/cli/missing.h"
#include "client/cli/outcome.h"

struct tokens {
    uint64_t attempt; /* whose text is printed */
    bool any;
    bool late; /* its beginning was streamed before we came, so it is printed when it is whole */
};

/* Which text a piece belongs to, and how many tokens that has by now. */
static void place_of(const struct penstock_event *e, int64_t *text, int64_t *tokens) {
    struct json *j = NULL;
    *text = *tokens = 0;
    if (!e->json || json_parse(&j, e->json, strlen(e->json), NULL, 0) < 0) return;
    *text = json_int(json_get(j, "index"), 0);
    *tokens = json_int(json_get(j, "tokens"), 0);
    json_free(j);
}

static int print_token(void *arg, const struct penstock_event *e) {
    struct tokens *t = arg;
    int64_t text, tokens;
    if (strcmp(e->type, "token") != 0 || !e->text) return 0;
    place_of(e, &text, &tokens);
    if (text > 0) return 0; /* the first is streamed: pieces of them all would be mixed */
    if (t->any && e->attempt != t->attempt)
        fputs("\npenstock: the job began anew; what was printed before is void\n", stderr);
    if (e->attempt != t->attempt) t->late = tokens > 1;
    t->attempt = e->attempt;
    if (t->late) return 0;
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
    if (!t.any || t.late || c->json)
        outcome_print(c, &r);
    else if (r.json)
        outcome_print_rest(&r);
    int code = outcome_code(&r);
    penstock_result_free(&r);
    return code;
}
