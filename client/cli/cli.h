/* cli.h - what the verbs of the command line share: common options, exit codes, complaints.
 *
 * A verb is a function in a file of its own, found by main.c's table. It parses its options with
 * argp, whose child cli_common takes --endpoint, --json, --timeout and the arguments. Data goes to
 * stdout, everything else to stderr.
 *
 * Units: milliseconds; --timeout and the like are seconds.  Owner: argv.  Memory: none.
 * Errors: exit codes, CLI_*.  Threads: one. */
#ifndef PENSTOCK_CLIENT_CLI_H
#define PENSTOCK_CLIENT_CLI_H

#include <argp.h>

#include "client/penstock.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_UNREACHABLE = 3 };

#define CLI_ARGS_MAX 4096
#define CLI_ANSWER_MS 3000 /* for what a broker answers at once */

struct cli {
    const char *endpoint;         /* NULL: the default */
    const char *key, *server_key; /* files; NULL: the environment's */
    bool json;
    int timeout_ms; /* -1: not given */
    char *args[CLI_ARGS_MAX];
    int n;
};
/* A verb's struct begins with a struct cli, which it passes on at ARGP_KEY_INIT. */
extern const struct argp_child cli_common[];
/* args_parse with the rules above. */
void cli_parse(const struct argp *argp, int argc, char **argv, struct cli *in);
/* Seconds with fraction ("1.5") to milliseconds; negative and others are a usage error. */
int64_t cli_seconds_ms(const struct argp_state *state, const char *option, const char *text);
uint64_t cli_number(const struct argp_state *state, const char *option, const char *text,
                    uint64_t max);

/* The word, when it is one of these; else a usage error that lists them. */
const char *cli_state(const struct argp_state *state, const char *word);
const char *cli_kind(const struct argp_state *state, const char *word);
const char *cli_error_class(const struct argp_state *state, const char *word);

int cli_answer_ms(const struct cli *c);                   /* --timeout, or CLI_ANSWER_MS */
int cli_open(const struct cli *c, struct penstock **out); /* an exit code; complains itself */
/* Complains on stderr; returns the exit code of a penstock_error. */
int cli_fail(int rc, const char *err);
/* The same of a request; with --json a refusal is also printed, as one document on stdout. */
int cli_failed(const struct cli *c, const struct penstock *p, int rc, const char *err);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2))); /* CLI_USAGE */

struct cli_verb {
    const char *name, *args, *doc; /* args: "show|cancel JOB", "[KIND]", "JOB..." */
    int (*run)(int argc, char **argv);
};
const struct cli_verb *cli_verbs(size_t *n); /* main.c's table */

int cli_verb_up(int argc, char **argv);
int cli_verb_submit(int argc, char **argv);
int cli_verb_demo(int argc, char **argv);
int cli_verb_completion(int argc, char **argv);
int cli_verb_complete(int argc, char **argv);
int cli_verb_wait(int argc, char **argv);
int cli_verb_result(int argc, char **argv);
int cli_verb_job(int argc, char **argv);
int cli_verb_ls(int argc, char **argv);
int cli_verb_dead(int argc, char **argv);
int cli_verb_worker(int argc, char **argv);
int cli_verb_pipeline(int argc, char **argv);
int cli_verb_status(int argc, char **argv);
int cli_verb_keys(int argc, char **argv);
int cli_verb_schema(int argc, char **argv);
int cli_verb_results(int argc, char **argv);
int cli_verb_queue(int argc, char **argv);
int cli_verb_ping(int argc, char **argv);
int cli_verb_version(int argc, char **argv);
int cli_verb_exec_worker(int argc, char **argv); /* run, tokenize, model */
int cli_verb_store(int argc, char **argv);

/* The folder of this program with a slash behind, where the other programs are too. */
void cli_program_dir(char out[4096]);
/* Becomes NAME of the same folder, with argv[1..] behind it; returns only when that fails. */
int cli_exec(const char *name, int argc, char **argv);

#endif
