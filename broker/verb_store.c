#include "broker/verb_store.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/json.h"
#include "schemas/endpoint.h"
#include "store/dir.h"
#include "store/store.h"

struct verb {
    const char *dir, *what, *to;
    struct json *lines; /* what is found or changed; NULL: it is printed as it comes */
};

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "the store (default: where `penstock up` keeps it)", 0},
    {"json", 'j', NULL, 0, "one document of what was found or done", 0},
    {0}};

static bool is(const struct verb *in, const char *what) {
    return strcmp(in->what, what) == 0;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct verb *in = state->input;
    switch (key) {
    case 'd': in->dir = arg; return 0;
    case 'j':
        if (!in->lines) in->lines = json_new_array();
        return in->lines ? 0 : ENOMEM;
    case ARGP_KEY_ARG:
        if (in->to) argp_error(state, "unexpected argument '%s'", arg);
        *(in->what ? &in->to : &in->what) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!in->what ||
            (!is(in, "check") && !is(in, "backup") && !is(in, "compact") && !is(in, "repair")))
            argp_error(state, "the verbs are `check`, `repair`, `backup FOLDER` and `compact`");
        if (is(in, "backup") != (in->to != NULL))
            argp_error(state, "`backup` needs a folder to make, the others take none");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Begins with the name that the program was run by: `penstock store` executes it as its own. */
__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s store: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static void take_line(void *arg, const char *line) {
    struct verb *in = arg;
    if (in->lines)
        json_push(in->lines, json_new_str(line, strlen(line)));
    else
        puts(line);
}

/* The document of --json: the lines under this name, and these numbers. */
static int print_json(struct verb *in, const char *dir, const char *name, const char *const *fields,
                      const uint64_t *values, uint32_t n) {
    struct json *doc = json_new_object();
    if (!in->lines) {
        json_free(doc);
        return 0;
    }
    int e = doc ? json_set(doc, "store", json_new_str(dir, strlen(dir))) : -ENOMEM;
    for (uint32_t i = 0; e == 0 && i < n; i++)
        e = json_set(doc, fields[i], json_new_int((int64_t)values[i]));
    if (e == 0 && in->to) e = json_set(doc, "copy", json_new_str(in->to, strlen(in->to)));
    if (e == 0 && name) {
        e = json_set(doc, name, in->lines);
        in->lines = NULL;
    }
    char *text = e == 0 ? json_text(doc, 0) : NULL;
    if (text) puts(text);
    free(text);
    json_free(doc);
    return text ? 0 : -ENOMEM;
}

static int check(struct verb *in, struct store *s, const char *dir) {
    static const char *const fields[] = {"problems", "jobs", "chunks"};
    struct store_usage usage;
    int problems = store_check(s, take_line, in), e = store_usage(s, &usage);
    if (problems < 0 || e < 0) {
        complain("the check ended early; restore %s from a copy", dir);
        return 1;
    }
    const uint64_t values[] = {(uint64_t)problems, usage.jobs, usage.chunks};
    if (print_json(in, dir, "findings", fields, values, 3) != 0) return 1;
    fprintf(stderr, "%d problems in %" PRIu64 " jobs and %" PRIu64 " payload chunks%s\n", problems,
            usage.jobs, usage.chunks, problems ? "; next: `penstock store repair`" : "");
    return problems ? 1 : 0;
}

static int repair(struct verb *in, struct store *s, const char *dir, char *err, size_t err_bytes) {
    static const char *const fields[] = {"changes"};
    int changes = store_repair(s, take_line, in, err, err_bytes);
    if (changes < 0) return changes;
    const uint64_t values[] = {(uint64_t)changes};
    if (print_json(in, dir, "lines", fields, values, 1) != 0) return -ENOMEM;
    fprintf(stderr, "%d changes; next: `penstock store check`\n", changes);
    return 0;
}

/* What backup and compact have to say. */
static int tell_done(struct verb *in, const char *dir) {
    if (is(in, "backup"))
        fprintf(stderr, "%s is copied to %s; next: `penstock store check --dir %s`\n", dir, in->to,
                in->to);
    else
        fprintf(stderr, "%s is compacted; next: `penstock store check`\n", dir);
    return print_json(in, dir, NULL, NULL, NULL, 0);
}

/* LMDB follows the page numbers of its trees wherever they lead. */
static void on_fault(int signal) {
    static const char text[] =
        " store: the pages that lead to the records are damaged; put a copy that `penstock store "
        "backup` made in place of the store\n";
    const char *name = program_invocation_short_name;
    ssize_t n =
        write(STDERR_FILENO, name, strlen(name)) + write(STDERR_FILENO, text, sizeof text - 1);
    (void)n, (void)signal;
    _exit(1);
}

static int work(struct verb *in, struct store *s, const char *dir) {
    char err[512] = "";
    if (is(in, "check")) return check(in, s, dir);
    int e = is(in, "repair")   ? repair(in, s, dir, err, sizeof err)
            : is(in, "backup") ? store_backup(s, in->to, err, sizeof err)
                               : store_compact(s, err, sizeof err);
    if (e != 0) complain("%s", err);
    return e != 0 || (!is(in, "repair") && tell_done(in, dir) != 0);
}

static int run(struct verb *in, const char *dir) {
    char err[512];
    struct store *s = NULL;
    /* Whatever the caps: what is stored is mapped whole. Repair alone adds something. */
    uint64_t cap_bytes = is(in, "repair") ? UINT64_C(1) << 36 : 1u << 20;
    const struct store_config c = {
        .dir = dir, .meta_cap_bytes = cap_bytes, .blob_cap_bytes = cap_bytes, .as_is = true};
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    signal(SIGABRT, on_fault);
    int e = store_open(&s, &c, err, sizeof err);
    if (e == -EBUSY && is(in, "backup")) {
        e = store_backup_live(dir, in->to, err, sizeof err);
        if (e == 0) return tell_done(in, dir) != 0;
    }
    if (e == -ENOENT && !store_dir_made(dir))
        complain("there is no store in %s; name it with --dir", dir);
    else if (e != 0)
        complain("%s", err);
    if (e != 0) return 1;
    int status = work(in, s, dir);
    store_close(s);
    return status;
}

int verb_store(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "check\nrepair\nbackup FOLDER\ncompact",
        .doc = "Look after a store whose broker is stopped; backup does so while it runs, too. "
               "check reads every record, key and "
               "payload and prints a line for each problem; repair moves records that cannot be "
               "read into the store's folder `quarantine` and writes the indexes anew; backup "
               "writes a copy that can be used "
               "in its place; compact gives the space of deleted jobs back to the disk."};
    char name[64];
    struct verb in = {0};
    char dir[PATH_MAX];
    snprintf(name, sizeof name, "%.40s store", program_invocation_short_name);
    argv[0] = name; /* argp's complaints begin with it */
    args_parse(&argp, argc, argv, &in);
    endpoint_state_dir(dir, sizeof dir);
    int status = run(&in, in.dir ? in.dir : dir);
    json_free(in.lines);
    return status;
}
