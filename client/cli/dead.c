/* penstock dead ls|show|requeue|drop: jobs that failed for good. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/table.h"

struct dead {
    struct cli c;
    struct penstock_dead which;
    bool all;
};

static const struct argp_option options[] = {
    {"all", 'a', NULL, 0, "requeue, drop: all that the filter lets through", 0},
    {"kind", 'k', "KIND", 0, "Only of this kind", 0},
    {"class", 'c', "CLASS", 0, "Only failed with: permanent, transient, timeout, worker_died", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct dead *in = state->input;
    switch (key) {
    case 'a': in->all = true; return 0;
    case 'k': in->which.kind = cli_kind(state, arg); return 0;
    case 'c': in->which.error_class = cli_error_class(state, arg); return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- ls ---- */

static bool wanted(const struct dead *in, const struct penstock_row *r) {
    return !r->requeued &&
           (!in->which.error_class || strcmp(in->which.error_class, r->error_class) == 0);
}

static void add_row(struct dead *in, struct table *t, const struct penstock_row *r, int *n) {
    if (in->c.json) {
        printf(
            "%s{\"job\": \"%s\", \"kind\": \"%s\", \"error_class\": \"%s\", \"finished_ms\": %lld}",
            *n ? ", " : "", r->job, r->kind, r->error_class, (long long)r->finished_ms);
    } else {
        table_cell(t, "%s", r->job);
        table_cell(t, "%s", r->kind);
        table_cell(t, "%s", r->error_class);
        table_time(t, r->finished_ms);
        table_cell(t, "%s", r->reason);
    }
    (*n)++;
}

static int ls(struct dead *in, struct penstock *p) {
    static const char *const heads[] = {"job", "kind", "class", "failed", "reason:60", NULL};
    struct penstock_filter f = {.state = "failed", .kind = in->which.kind, .limit = 500};
    char err[PENSTOCK_ERR_BYTES], before[PENSTOCK_JOB_BYTES] = "";
    struct table t;
    int rc = 0, n = 0;
    bool any = false; /* a page has come */
    table_init(&t, heads);
    do {
        struct penstock_list l;
        f.before = before;
        rc = penstock_list(p, &f, &l, cli_answer_ms(&in->c), err, sizeof err);
        if (rc < 0) break;
        if (in->c.json && !any) printf("{\"dead\": [");
        any = true;
        for (size_t i = 0; i < l.n; i++)
            if (wanted(in, &l.rows[i])) add_row(in, &t, &l.rows[i], &n);
        strcpy(before, l.next);
        penstock_list_free(&l);
    } while (before[0]);
    if (in->c.json && any) puts("]}");
    if (!in->c.json) table_print(&t);
    table_fini(&t);
    if (rc < 0) return any ? cli_fail(rc, err) : cli_failed(&in->c, p, rc, err);
    return CLI_OK;
}

/* ---- requeue, drop ---- */

static int print_requeued(struct dead *in, const struct penstock_verdict *v, size_t n) {
    int code = CLI_OK;
    for (size_t i = 0; i < n; i++) {
        if (v[i].refused) {
            fprintf(stderr, "penstock: %s: %s; %s\n", v[i].origin, v[i].refusal.message,
                    v[i].refusal.fix);
            code = CLI_FAILED;
        } else if (in->c.json) {
            printf("{\"job\": \"%s\", \"origin\": \"%s\"}\n", v[i].accepted.job, v[i].origin);
        } else {
            printf("%s %s\n", v[i].origin, v[i].accepted.job);
        }
    }
    return code;
}

static int requeue(struct dead *in, struct penstock *p) {
    static struct penstock_verdict v[PENSTOCK_DEAD_PAGE];
    char err[PENSTOCK_ERR_BYTES], next[PENSTOCK_JOB_BYTES] = "";
    int code = CLI_OK;
    do {
        size_t n = 0;
        in->which.before = next;
        int rc =
            penstock_requeue(p, &in->which, v, &n, next, cli_answer_ms(&in->c), err, sizeof err);
        if (rc < 0) return cli_failed(&in->c, p, rc, err);
        if (print_requeued(in, v, n) != CLI_OK) code = CLI_FAILED;
    } while (next[0]);
    return code;
}

static int drop(struct dead *in, struct penstock *p) {
    char err[PENSTOCK_ERR_BYTES], next[PENSTOCK_JOB_BYTES] = "";
    size_t total = 0;
    do {
        size_t n = 0;
        in->which.before = next;
        int rc = penstock_drop(p, &in->which, &n, next, cli_answer_ms(&in->c), err, sizeof err);
        if (rc < 0) return cli_failed(&in->c, p, rc, err);
        total += n;
    } while (next[0]);
    printf(in->c.json ? "{\"dropped\": %zu}\n" : "%zu dropped\n", total);
    return CLI_OK;
}

static int each_job(struct dead *in, struct penstock *p,
                    int (*run)(struct dead *, struct penstock *)) {
    int code = CLI_OK;
    if (in->all == (in->c.n > 1))
        return cli_usage("name dead letters, or give --all; `penstock dead ls` lists them");
    if (in->all) return run(in, p);
    for (int i = 1; i < in->c.n; i++) {
        in->which.job = in->c.args[i];
        int one = run(in, p);
        if (one != CLI_OK) code = one;
    }
    return code;
}

int cli_verb_dead(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "ls|show JOB|requeue JOB...|drop JOB...",
        .doc =
            "Jobs that failed for good: list them, show one with every attempt, make new jobs of "
            "them, or delete them.",
        .children = cli_common};
    static struct dead in;
    cli_parse(&argp, argc, argv, &in.c);
    const char *verb = in.c.n ? in.c.args[0] : "";
    if (strcmp(verb, "show") == 0) return cli_verb_job(argc, argv);
    if (in.c.n == 0)
        return cli_usage("write `penstock dead ls`, or show, requeue or drop and a job");
    struct penstock *p;
    int code = cli_open(&in.c, &p);
    if (code != CLI_OK) return code;
    if (strcmp(verb, "ls") == 0 && in.c.n == 1)
        code = ls(&in, p);
    else if (strcmp(verb, "requeue") == 0)
        code = each_job(&in, p, requeue);
    else if (strcmp(verb, "drop") == 0)
        code = each_job(&in, p, drop);
    else
        code = cli_usage("penstock dead has ls, show, requeue and drop, not '%s'", verb);
    penstock_close(p);
    return code;
}
