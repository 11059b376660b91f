#include "broker/verb_store.h"

#include <argp.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "schemas/endpoint.h"
#include "store/store.h"

struct verb {
    const char *dir, *what;
};

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "the store (default: where `penstock up` keeps it)", 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct verb *in = state->input;
    switch (key) {
    case 'd': in->dir = arg; return 0;
    case ARGP_KEY_ARG:
        if (in->what) argp_error(state, "unexpected argument '%s'", arg);
        in->what = arg;
        return 0;
    case ARGP_KEY_END:
        if (!in->what || strcmp(in->what, "check") != 0) argp_error(state, "the verb is `check`");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_finding(void *arg, const char *finding) {
    (void)arg;
    puts(finding);
}

static int check(const char *dir) {
    char made[PATH_MAX + 8], err[512];
    struct store *s;
    struct store_usage usage;
    snprintf(made, sizeof made, "%.*s/STORE", PATH_MAX - 1, dir);
    if (access(made, R_OK) != 0) {
        fprintf(stderr, "penstock-broker: there is no store in %s; name it with --dir\n", dir);
        return 1;
    }
    const struct store_config c = {.dir = dir};
    if (store_open(&s, &c, err, sizeof err) != 0) {
        fprintf(stderr, "penstock-broker: %s\n", err);
        return 1;
    }
    int problems = store_check(s, print_finding, NULL), e = store_usage(s, &usage);
    store_close(s);
    if (problems < 0 || e < 0) {
        fprintf(stderr, "penstock-broker: the check ended early; restore %s from a copy\n", dir);
        return 1;
    }
    fprintf(stderr, "%d problems in %" PRIu64 " jobs and %" PRIu64 " payload chunks\n", problems,
            usage.jobs, usage.chunks);
    return problems ? 1 : 0;
}

int verb_store(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "check",
        .doc = "Check every record, key and payload of a store whose broker is stopped; prints a "
               "line for each problem."};
    static char name[] = "penstock-broker store";
    struct verb in = {0};
    char dir[PATH_MAX];
    argv[0] = name;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &in);
    endpoint_state_dir(dir, sizeof dir);
    return check(in.dir ? in.dir : dir);
}
