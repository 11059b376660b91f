/* penstock job show|cancel|events JOB: one job. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/term.h"
#include "client/cli/outcome.h"
#include "client/cli/table.h"

struct job {
    struct cli c;
    const char *reason;
    bool follow;
};

static const struct argp_option options[] = {
    {"reason", 'r', "TEXT", 0, "cancel: why, kept with the job", 0},
    {"follow", 'f', NULL, 0, "events: go on until the job ends (else: its history up to now)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct job *in = state->input;
    switch (key) {
    case 'r': in->reason = arg; return 0;
    case 'f': in->follow = true; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- show ---- */

static const char *str(const struct json *j, const char *key) {
    const char *s = json_str(json_get(j, key));
    return s ? s : "";
}

static int64_t num(const struct json *j, const char *key) {
    return json_int(json_get(j, key), 0);
}

static void print_pairs(const struct json *j) {
    static const char *const keys[] = {
        "job",        "kind",         "pipeline",    "pipeline_version",
        "state",      "stage",        "tenant",      "source",
        "priority",   "seed",         "accepted_ms", "finished_ms",
        "body_bytes", "result_bytes", "error_class", "reason"};
    static const char *const heads[] = {"field", "value", NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct json *v = json_get(j, keys[i]);
        if (json_kind(v) == JSON_NULL || (json_str(v) && !json_str(v)[0])) continue;
        size_t len = strlen(keys[i]);
        bool time = len > 3 && strcmp(keys[i] + len - 3, "_ms") == 0;
        table_cell(&t, "%.*s", (int)(time ? len - 3 : len), keys[i]);
        if (time)
            table_time(&t, json_int(v, 0));
        else if (json_kind(v) == JSON_STR)
            table_cell(&t, "%s", json_str(v));
        else
            table_cell(&t, "%lld", (long long)json_int(v, 0));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_stages(const struct json *list) {
    static const char *const heads[] = {"stage",  "run",      "state",  "worker",
                                        "queued", "run time", "output", NULL};
    struct table t;
    if (json_len(list) == 0) return;
    putchar('\n');
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *s = json_at(list, i);
        table_cell(&t, "%s", str(s, "name"));
        table_cell(&t, "%s", str(s, "run"));
        table_cell(&t, "%s", str(s, "state"));
        table_cell(&t, "%s", str(s, "worker"));
        int64_t queued_ms = num(s, "queued_ms"), started_ms = num(s, "started_ms");
        table_duration(&t, queued_ms && started_ms ? started_ms - queued_ms : -1);
        if (num(s, "run_us"))
            table_cell(&t, "%.1f ms", (double)num(s, "run_us") / 1000);
        else
            table_cell(&t, "-");
        table_cell(&t, "%lld", (long long)num(s, "output_bytes"));
    }
    table_print(&t);
    table_fini(&t);
}

static void print_attempts(const struct json *list) {
    static const char *const heads[] = {"attempt", "stage",   "worker",    "began",
                                        "took",    "outcome", "reason:60", NULL};
    struct table t;
    if (json_len(list) == 0) return;
    putchar('\n');
    table_init(&t, heads);
    for (size_t i = 0; i < json_len(list); i++) {
        const struct json *a = json_at(list, i);
        table_cell(&t, "%lld", (long long)num(a, "attempt"));
        table_cell(&t, "%lld", (long long)num(a, "stage"));
        table_cell(&t, "%s", str(a, "worker"));
        table_time(&t, num(a, "started_ms"));
        table_duration(&t, num(a, "ended_ms") ? num(a, "ended_ms") - num(a, "started_ms") : -1);
        table_cell(&t, "%s", str(a, "outcome"));
        table_cell(&t, "%s", str(a, "reason"));
    }
    table_print(&t);
    table_fini(&t);
}

static int show(struct job *in, struct penstock *p, const char *job) {
    struct penstock_doc d;
    char err[PENSTOCK_ERR_BYTES];
    int rc = penstock_show(p, job, &d, cli_answer_ms(&in->c), err, sizeof err);
    if (rc < 0) return cli_failed(&in->c, p, rc, err);
    struct json *j = NULL;
    if (in->c.json) {
        puts(d.json);
    } else if (json_parse(&j, d.json, strlen(d.json), err, sizeof err) == 0) {
        print_pairs(j);
        print_stages(json_get(j, "stages"));
        print_attempts(json_get(j, "attempts"));
    }
    json_free(j);
    penstock_doc_free(&d);
    return CLI_OK;
}

/* ---- cancel, events ---- */

static int cancel(struct job *in, struct penstock *p, const char *job) {
    char state[17], err[PENSTOCK_ERR_BYTES];
    int rc = penstock_cancel(p, job, in->reason, state, cli_answer_ms(&in->c), err, sizeof err);
    if (rc < 0) return cli_failed(&in->c, p, rc, err);
    if (in->c.json)
        printf("{\"job\": \"%s\", \"state\": \"%s\"}\n", job, state);
    else
        printf("%s %s\n", job, state);
    if (strcmp(state, "cancelled") == 0) return CLI_OK;
    fprintf(stderr, "penstock: the job is %s already; `penstock result %s`\n", state, job);
    return CLI_FAILED;
}

/* A line of the history: when, what, by whom, and what came of it. */
static void print_line(const struct penstock_event *e, const struct json *d) {
    char when[40];
    const char *what = str(d, "what"), *by = str(d, "by"), *reason = str(d, "reason");
    time_t seconds = (time_t)(num(d, "at_ms") / 1000);
    struct tm tm;
    strftime(when, sizeof when, "%F %T", localtime_r(&seconds, &tm));
    printf("%s.%03d  %-14s stage %u  %-9s", when, (int)(num(d, "at_ms") % 1000), what, e->stage,
           str(d, "state"));
    if (by[0]) printf("  by %s", by);
    if (str(d, "error_class")[0]) printf("  %s", str(d, "error_class"));
    if (num(d, "children") > 0)
        printf("  for %u jobs from %s", (unsigned)num(d, "children"), str(d, "first_child"));
    if (reason[0]) fputs(": ", stdout);
    term_put(stdout, reason);
    putchar('\n');
}

/* A part of the job has ended. */
static void print_child(const struct json *d) {
    const char *reason = str(d, "reason");
    printf("%-23s  %-14s %s  %s", "", "part", str(d, "job"), str(d, "state"));
    if (reason[0]) fputs(": ", stdout);
    term_put(stdout, reason);
    putchar('\n');
}

static int print_event(void *arg, const struct penstock_event *e) {
    const struct job *in = arg;
    struct json *d = NULL;
    char err[64];
    if (in->c.json) {
        printf("{\"seq\": %llu, \"type\": \"%s\", \"stage\": %u, \"attempt\": %llu, \"last\": %s, "
               "\"data\": %s}\n",
               (unsigned long long)e->seq, e->type, e->stage, (unsigned long long)e->attempt,
               e->last ? "true" : "false", e->json ? e->json : "null");
    } else if (e->json && json_parse(&d, e->json, strlen(e->json), err, sizeof err) == 0) {
        if (json_get(d, "what"))
            print_line(e, d);
        else if (strcmp(e->type, "child") == 0)
            print_child(d);
        else if (strcmp(e->type, "state") != 0) /* else it only says again where the job stands */
            printf("%-23s  %-14s stage %u  %s\n", "", e->type, e->stage, e->json);
        json_free(d);
    }
    return fflush(stdout); /* a closed pipe ends the stream */
}

static int events(struct job *in, struct penstock *p, const char *job) {
    char err[PENSTOCK_ERR_BYTES];
    int timeout_ms = in->follow ? in->c.timeout_ms : cli_answer_ms(&in->c);
    int rc =
        penstock_events_from(p, job, 0, in->follow, print_event, in, timeout_ms, err, sizeof err);
    return rc < 0 ? cli_failed(&in->c, p, rc, err) : CLI_OK;
}

int cli_verb_job(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "show|cancel|events JOB",
        .doc = "Look at one job, cancel it, or see its history; with --follow until it ends.",
        .children = cli_common};
    static const struct {
        const char *name;
        int (*run)(struct job *in, struct penstock *p, const char *job);
    } verbs[] = {{"show", show}, {"cancel", cancel}, {"events", events}};
    static struct job in;
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n != 2)
        return cli_usage("usage: penstock job show|cancel|events JOB; `penstock ls` lists jobs");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(in.c.args[0], verbs[i].name) != 0) continue;
        struct penstock *p;
        int code = cli_open(&in.c, &p);
        if (code != CLI_OK) return code;
        code = verbs[i].run(&in, p, in.c.args[1]);
        penstock_close(p);
        return code;
    }
    return cli_usage("penstock job has show, cancel and events, not '%s'", in.c.args[0]);
}
