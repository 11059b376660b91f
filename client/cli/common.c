#include "client/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/json.h"
#include "base/term.h"
#include "schemas/job.h"
#include "schemas/kinds.h"

enum { OPT_KEY = 0x4B00, OPT_SERVER_KEY }; /* no verb has these */

static error_t parse_common(int key, char *arg, struct argp_state *state) {
    struct cli *c = state->input;
    switch (key) {
    case 'e': c->endpoint = arg; return 0;
    case OPT_KEY: c->key = arg; return 0;
    case OPT_SERVER_KEY: c->server_key = arg; return 0;
    case 'j': c->json = true; return 0;
    case 't': {
        int64_t ms = cli_seconds_ms(state, "--timeout", arg);
        c->timeout_ms = ms > INT_MAX ? INT_MAX : (int)ms;
        return 0;
    }
    case ARGP_KEY_ARG:
        if (c->n == CLI_ARGS_MAX) argp_error(state, "more than %d arguments", CLI_ARGS_MAX);
        c->args[c->n++] = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option common_options[] = {
    {"endpoint", 'e', "URL", 0, "The broker's socket, such as ipc:///run/penstock/clients", 90},
    {"key-file", OPT_KEY, "FILE", 0, "Encrypt: one's own NAME.cert_secret (PENSTOCK_KEY)", 90},
    {"server-key", OPT_SERVER_KEY, "FILE|KEY", 0,
     "And the broker's broker.cert (PENSTOCK_SERVER_KEY)", 90},
    {"json", 'j', NULL, 0, "Print JSON", 90},
    {"timeout", 't', "SECONDS", 0, "Give up after so long", 90},
    {0}};
static const struct argp common_argp = {.options = common_options, .parser = parse_common};
const struct argp_child cli_common[] = {{.argp = &common_argp}, {0}};

void cli_parse(const struct argp *argp, int argc, char **argv, struct cli *in) {
    in->timeout_ms = -1;
    args_parse(argp, argc, argv, in);
}

int64_t cli_seconds_ms(const struct argp_state *state, const char *option, const char *text) {
    char *end;
    double s = strtod(text, &end);
    if (end == text || *end || !isfinite(s) || s < 0 || s > 1e9)
        argp_error(state, "%s: '%s' is not a number of seconds", option, text);
    return (int64_t)(s * 1000);
}

uint64_t cli_number(const struct argp_state *state, const char *option, const char *text,
                    uint64_t max) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || v > max)
        argp_error(state, "%s: '%s' is not a number from 0 to %llu", option, text,
                   (unsigned long long)max);
    return v;
}

const char *cli_state(const struct argp_state *state, const char *word) {
    enum job_state found;
    char all[256] = "";
    if (job_state_parse(bytes_str(word), &found) == 0) return word;
    for (int s = 0; s < JOB_STATES; s++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", s ? ", " : "",
                 job_state_name((enum job_state)s));
    argp_error(state, "there is no state '%s'; the states are %s", word, all);
    return NULL;
}

const char *cli_kind(const struct argp_state *state, const char *word) {
    const struct kind_desc *k;
    char all[512] = "";
    if (kind_find(bytes_str(word))) return word;
    for (uint32_t i = 0; (k = kind_at(i)); i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", k->name);
    argp_error(state, "there is no kind '%s'; the kinds are %s", word, all);
    return NULL;
}

const char *cli_error_class(const struct argp_state *state, const char *word) {
    static const enum job_error fatal[] = {JOB_ERROR_PERMANENT, JOB_ERROR_TRANSIENT,
                                           JOB_ERROR_TIMEOUT, JOB_ERROR_WORKER_DIED};
    char all[128] = "";
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
        const char *name = job_error_name(fatal[i]);
        if (strcmp(word, name) == 0) return word;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", name);
    }
    argp_error(state, "no job fails with '%s'; the classes are %s", word, all);
    return NULL;
}

int cli_answer_ms(const struct cli *c) {
    return c->timeout_ms >= 0 ? c->timeout_ms : CLI_ANSWER_MS;
}

int cli_open(const struct cli *c, struct penstock **out) {
    char err[PENSTOCK_ERR_BYTES];
    struct penstock_options o = {c->endpoint, c->key, c->server_key};
    int rc = penstock_open_with(out, &o, err, sizeof err);
    return rc < 0 ? cli_fail(rc, err) : CLI_OK;
}

int cli_fail(int rc, const char *err) {
    fflush(stdout);
    fputs("penstock: ", stderr);
    term_put(stderr, err);
    fputc('\n', stderr);
    switch (rc) {
    case PENSTOCK_UNREACHABLE:
    case PENSTOCK_TIMEOUT: return CLI_UNREACHABLE;
    case PENSTOCK_INVALID: return CLI_USAGE;
    default: return CLI_FAILED;
    }
}

static int put_str(struct json *o, const char *key, const char *text) {
    return json_set(o, key, json_new_str(text, strlen(text)));
}

static void print_refusal(const struct penstock_refusal *why) {
    struct json *o = json_new_object();
    char *text = NULL;
    if (o && put_str(o, "code", why->code) == 0 && put_str(o, "field", why->field) == 0 &&
        put_str(o, "limit", why->limit) == 0 && put_str(o, "message", why->message) == 0 &&
        put_str(o, "fix", why->fix) == 0 &&
        json_set(o, "retry_after_ms", json_new_int((int64_t)why->retry_after_ms)) == 0)
        text = json_text(o, 0);
    if (text) puts(text);
    free(text);
    json_free(o);
}

int cli_failed(const struct cli *c, const struct penstock *p, int rc, const char *err) {
    if (c->json && rc == PENSTOCK_REFUSED) print_refusal(penstock_refusal(p));
    return cli_fail(rc, err);
}

int cli_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("penstock: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_USAGE;
}

void cli_program_dir(char out[4096]) {
    ssize_t n = readlink("/proc/self/exe", out, 4095);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash)
        slash[1] = '\0';
    else
        strcpy(out, "./");
}

int cli_exec(const char *name, int argc, char **argv) {
    char dir[4096], path[4096 + 64];
    cli_program_dir(dir);
    snprintf(path, sizeof path, "%s%s", dir, name);
    char **args = calloc((size_t)argc + 1, sizeof *args);
    if (!args) return cli_fail(PENSTOCK_MEMORY, "out of memory");
    static char self[] = "penstock"; /* what its usage and errors begin with */
    args[0] = self;
    for (int i = 1; i < argc; i++) args[i] = argv[i];
    execv(path, args);
    fprintf(stderr, "penstock: cannot run %s: %s; install it beside this program\n", path,
            strerror(errno));
    free(args);
    return CLI_FAILED;
}
