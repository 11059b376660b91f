#include "broker/verb_store.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "schemas/endpoint.h"
#include "store/store.h"

struct verb {
    const char *dir, *what, *to;
};

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "the store (default: where `penstock up` keeps it)", 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct verb *in = state->input;
    switch (key) {
    case 'd': in->dir = arg; return 0;
    case ARGP_KEY_ARG:
        if (in->to) argp_error(state, "unexpected argument '%s'", arg);
        *(in->what ? &in->to : &in->what) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!in->what || (strcmp(in->what, "check") != 0 && strcmp(in->what, "backup") != 0 &&
                          strcmp(in->what, "compact") != 0))
            argp_error(state, "the verbs are `check`, `backup FOLDER` and `compact`");
        if ((strcmp(in->what, "backup") == 0) != (in->to != NULL))
            argp_error(state, "`backup` needs a folder to make, the others take none");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_finding(void *arg, const char *finding) {
    (void)arg;
    puts(finding);
}

static int check(struct store *s, const char *dir) {
    struct store_usage usage;
    int problems = store_check(s, print_finding, NULL), e = store_usage(s, &usage);
    if (problems < 0 || e < 0) {
        fprintf(stderr, "penstock-broker: the check ended early; restore %s from a copy\n", dir);
        return 1;
    }
    fprintf(stderr, "%d problems in %" PRIu64 " jobs and %" PRIu64 " payload chunks\n", problems,
            usage.jobs, usage.chunks);
    return problems ? 1 : 0;
}

static int run(const struct verb *in, const char *dir) {
    char err[512];
    struct store *s = NULL;
    /* Whatever the caps: what is stored is mapped whole, and nothing is added. */
    const struct store_config c = {
        .dir = dir, .meta_cap_bytes = 1u << 20, .blob_cap_bytes = 1u << 20, .as_is = true};
    int e = store_open(&s, &c, err, sizeof err), status = 1;
    if (e == -ENOENT) {
        fprintf(stderr, "penstock-broker: there is no store in %s; name it with --dir\n", dir);
        return 1;
    }
    if (e == 0 && strcmp(in->what, "check") == 0) {
        status = check(s, dir);
    } else {
        if (e == 0)
            e = in->to ? store_backup(s, in->to, err, sizeof err)
                       : store_compact(s, err, sizeof err);
        if (e != 0) fprintf(stderr, "penstock-broker: %s\n", err);
        status = e != 0;
    }
    if (s) store_close(s);
    return status;
}

int verb_store(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "check\nbackup FOLDER\ncompact",
        .doc = "Look after a store whose broker is stopped. check reads every record, key and "
               "payload and prints a line for each problem; backup writes a copy that can be used "
               "in its place; compact gives the space of deleted jobs back to the disk."};
    static char name[] = "penstock-broker store";
    struct verb in = {0};
    char dir[PATH_MAX];
    argv[0] = name;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &in);
    endpoint_state_dir(dir, sizeof dir);
    return run(&in, in.dir ? in.dir : dir);
}
