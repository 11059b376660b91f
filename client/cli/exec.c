/* Verbs that belong to the worker or the broker: their own programs know how. */
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"

/* argv[0] is "penstock VERB". */
int cli_verb_exec_worker(int argc, char **argv) {
    char *args[CLI_ARGS_MAX + 2];
    char *verb = strchr(argv[0], ' ') + 1;
    if (argc > CLI_ARGS_MAX) return cli_usage("more than %d arguments", CLI_ARGS_MAX);
    args[1] = verb;
    for (int i = 1; i < argc; i++) args[i + 1] = argv[i];
    return cli_exec("penstock-worker", argc + 1, args);
}

int cli_verb_store(int argc, char **argv) {
    char *args[CLI_ARGS_MAX + 2];
    static char verb[] = "store";
    if (argc > CLI_ARGS_MAX) return cli_usage("more than %d arguments", CLI_ARGS_MAX);
    args[1] = verb;
    for (int i = 1; i < argc; i++) args[i + 1] = argv[i];
    return cli_exec("penstock-broker", argc + 1, args);
}
