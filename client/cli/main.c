/* penstock - the command line: `penstock VERB ...`, a file a verb. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"

static const struct cli_verb verbs[] = {
    {"up", "", "run a broker and workers on this machine until stopped", cli_verb_up},
    {"submit", "KIND [FILE|DIR...]", "submit a job, or one for each file", cli_verb_submit},
    {"demo", "text|contract|qc", "the shipped samples, shown for people", cli_verb_demo},
    {"wait", "JOB...", "wait until jobs are terminal and print their results", cli_verb_wait},
    {"result", "JOB...", "print the results that are there now", cli_verb_result},
    {"results", "", "jobs as they end: those since an offset, and on", cli_verb_results},
    {"job", "show|cancel|events JOB", "look at one job, cancel it, follow it", cli_verb_job},
    {"ls", "", "list jobs, the newest first", cli_verb_ls},
    {"dead", "ls|show|requeue|drop", "jobs that failed: list, show, run again, delete",
     cli_verb_dead},
    {"dlq", "ls|show|requeue|drop", "the same as dead", cli_verb_dead},
    {"queue", "ls|stat", "what waits and runs at each stage; what comes and goes", cli_verb_queue},
    {"worker", "ls|drain", "list the workers, let one finish and leave", cli_verb_worker},
    {"pipeline", "ls", "list the pipelines, their versions and live jobs", cli_verb_pipeline},
    {"status", "", "counts, queues and the store's size", cli_verb_status},
    {"keys", "init|add|ls|revoke", "who may connect to a broker with --curve", cli_verb_keys},
    {"schema", "[KIND]", "a job kind's fields as JSON Schema; without KIND the kinds",
     cli_verb_schema},
    {"ping", "", "ask whether the broker is there", cli_verb_ping},
    {"version", "", "the version of this program", cli_verb_version},
    {"run", "MODEL", "continue a text by a model, without a broker", cli_verb_exec_worker},
    {"tokenize", "", "show the tokens of a text", cli_verb_exec_worker},
    {"model", "pull|import|verify|ls|show|rm MODEL",
     "the models of this user: fetch, import, check, list", cli_verb_exec_worker},
    {"store", "ACTION", "check, repair, backup or compact a stopped broker's store",
     cli_verb_store},
    {"completion", "bash|zsh|fish", "a script for the shell's completion", cli_verb_completion},
};

const struct cli_verb *cli_verbs(size_t *n) {
    *n = sizeof verbs / sizeof *verbs;
    return verbs;
}

static void print_help(FILE *out) {
    fputs("usage: penstock VERB [OPTIONS]\n\n", out);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char head[64];
        snprintf(head, sizeof head, "%s %s", verbs[i].name, verbs[i].args);
        fprintf(out, "  %-28s %s\n", head, verbs[i].doc);
    }
    fputs("\n`penstock VERB --help` says more. Exit codes: 0 done, 1 some items failed, 2 usage,\n"
          "3 no broker. The broker is found at --endpoint, $PENSTOCK_ENDPOINT or where\n"
          "`penstock up` puts it.\n",
          out);
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "C.UTF-8"); /* for the width of characters in tables */
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help(stdout);
        return CLI_OK;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) name = "version";
    if (strcmp(name, "complete") == 0) return cli_verb_complete(argc - 1, argv + 1);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(name, verbs[i].name) != 0) continue;
        char full[64];
        snprintf(full, sizeof full, "penstock %s", verbs[i].name);
        argv[1] = full; /* argp's complaints begin with it */
        int code = verbs[i].run(argc - 1, argv + 1);
        if (fflush(stdout) == 0 && !ferror(stdout)) return code;
        perror("penstock: cannot write the output");
        return CLI_FAILED;
    }
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    return cli_usage("there is no verb '%s'; `penstock --help` lists them", name);
}
