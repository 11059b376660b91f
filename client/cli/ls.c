/* penstock ls: jobs, the newest first. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/limits.h"
#include "client/cli/cli.h"
#include "client/cli/table.h"

struct ls {
    struct cli c;
    struct penstock_filter filter;
};

static const struct argp_option options[] = {
    {"state", 's', "STATE", 0, "Only jobs in this state: ready, delayed, leased, done, failed, ...",
     0},
    {"kind", 'k', "KIND", 0, "Only jobs of this kind", 0},
    {"limit", 'n', "N", 0, "So many rows, at most 500 (default 50)", 0},
    {"before", 'b', "JOB", 0, "Only jobs older than this one", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct ls *in = state->input;
    switch (key) {
    case 's': in->filter.state = cli_state(state, arg); return 0;
    case 'k': in->filter.kind = cli_kind(state, arg); return 0;
    case 'b': in->filter.before = arg; return 0;
    case 'n':
        in->filter.limit = (uint32_t)cli_number(state, "--limit", arg, LIMIT_LIST_ROWS);
        if (in->filter.limit == 0)
            argp_error(state, "--limit: 0 rows are none; write 1 to %d", LIMIT_LIST_ROWS);
        return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_table(const struct penstock_list *l) {
    static const char *const heads[] = {"job",      "kind", "state",     "stage",
                                        "accepted", "took", "reason:50", NULL};
    struct table t;
    int64_t now_ms = clock_wall_ms();
    table_init(&t, heads);
    for (size_t i = 0; i < l->n; i++) {
        const struct penstock_row *r = &l->rows[i];
        table_cell(&t, "%s", r->job);
        table_cell(&t, "%s", r->kind);
        table_cell(&t, "%s", r->state);
        table_cell(&t, "%u", r->stage);
        table_time(&t, r->accepted_ms);
        table_duration(&t, (r->finished_ms ? r->finished_ms : now_ms) - r->accepted_ms);
        table_cell(&t, "%s", r->reason);
    }
    table_print(&t);
    table_fini(&t);
    if (l->damaged)
        fprintf(stderr,
                "left out: %" PRIu64
                " jobs whose records cannot be read; see `penstock store check`\n",
                l->damaged);
    if (l->next[0]) fprintf(stderr, "more: penstock ls --before %s\n", l->next);
}

static void print_json(const struct penstock_list *l) {
    printf("{\"jobs\": %s, \"damaged\": %" PRIu64 ", \"next\": ", l->raw.json, l->damaged);
    if (l->next[0])
        printf("\"%s\"}\n", l->next);
    else
        puts("null}");
}

int cli_verb_ls(int argc, char **argv) {
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .doc = "List jobs, the newest first.",
                                     .children = cli_common};
    static struct ls in;
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n) return cli_usage("ls takes no argument '%s'; see --kind and --state", in.c.args[0]);
    struct penstock *p;
    struct penstock_list l;
    char err[PENSTOCK_ERR_BYTES];
    int code = cli_open(&in.c, &p);
    if (code != CLI_OK) return code;
    int rc = penstock_list(p, &in.filter, &l, cli_answer_ms(&in.c), err, sizeof err);
    if (rc < 0)
        code = cli_failed(&in.c, p, rc, err);
    else if (in.c.json)
        print_json(&l);
    else
        print_table(&l);
    penstock_list_free(&l);
    penstock_close(p);
    return code;
}
