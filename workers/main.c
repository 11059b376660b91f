/* penstock-worker - leases jobs from a broker and runs their stages; `penstock-worker --help`. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "schemas/cert.h"
#include "schemas/endpoint.h"
#include "workers/infer/model.h"
#include "workers/infer/models.h"
#include "workers/keeper.h"
#include "workers/stage_test.h"
#include "workers/verbs.h"

#define GRACE_MS 5000u
#define LARGE_BYTES (4 << 20) /* blocks from here on go back to the system when they are freed */

const char *argp_program_version = "penstock-worker " PENSTOCK_VERSION;

enum {
    OPT_MODELS = 256,
    OPT_MODEL,
    OPT_RECIPES,
    OPT_SPECULATE,
    OPT_DRAFT,
    OPT_THREADS,
    OPT_WEIGHTS,
    OPT_BACKEND,
    OPT_NAME,
    OPT_CREDIT,
    OPT_MEMORY_EFFICIENT,
    OPT_GRACE,
    OPT_KEY,
    OPT_SERVER_KEY,
    OPT_LOG,
    OPT_LOG_FORMAT
};

static const struct argp_option options[] = {
    {"connect", 'c', "ENDPOINT", 0, "the broker's worker socket (default: this user's)", 0},
    {"broker", 'c', NULL, OPTION_ALIAS, NULL, 0},
    {"key", OPT_KEY, "FILE", 0, "encrypt: this worker's NAME.cert_secret (default: $PENSTOCK_KEY)",
     0},
    {"key-file", OPT_KEY, NULL, OPTION_ALIAS, NULL, 0},
    {"server-key", OPT_SERVER_KEY, "FILE|KEY", 0,
     "and the broker's broker.cert (default: $PENSTOCK_SERVER_KEY)", 0},
    {"stages", 's', "all|A,B,...", 0, "stages to offer (default: all)", 0},
    {"models", OPT_MODELS, "DIR", 0, "a folder of models; may be given again", 0},
    {"model", OPT_MODEL, "NAME=DIR", 0, "one model under a name; may be given again", 0},
    {"recipes", OPT_RECIPES, "DIR", 0, "recipes of qc.inspect (default: the installed ones)", 0},
    {"speculate", OPT_SPECULATE, "lookup|off", 0,
     "guess the next tokens of texts from what they repeat (lookup, the default), and compute"
     " guesses that pay beside the next; no result differs by it",
     0},
    {"draft", OPT_DRAFT, "MODEL=DRAFT", 0,
     "let the small model DRAFT guess for MODEL instead; may be given again", 0},
    {"threads", OPT_THREADS, "N", 0, "to compute with; 0 (the default): one a core", 0},
    {"weights", OPT_WEIGHTS, "TYPE", 0,
     "linear weights as f32, bf16, w8a8 or w4a8 (default: quantized ones as they are, others f32)",
     0},
    {"backend", OPT_BACKEND, "NAME", 0, "auto (the default), ref or cpu", 0},
    {"name", OPT_NAME, "NAME", 0, "how people see it (default: HOST-PID)", 0},
    {"credit", OPT_CREDIT, "N", 0, "leases to hold at a time (default: 64)", 0},
    {"memory-efficient", OPT_MEMORY_EFFICIENT, NULL, 0,
     "keys and values in int8, a KV pool of at most 256 MiB, smaller chunks: less memory, texts "
     "that "
     "differ a little",
     0},
    {"grace-ms", OPT_GRACE, "MS", 0,
     "a stage that goes on so long after its timeout ends the process (default: 5000)", 0},
    {"log-level", OPT_LOG, "LEVEL", 0, "debug, info (the default), warn or error", 0},
    {"log-format", OPT_LOG_FORMAT, "FORMAT", 0, "logfmt (the default) or json", 0},
    {0}};

struct args {
    struct worker_config config;
    char endpoint[ENDPOINT_BYTES], name[LIMIT_NAME_BYTES + 1];
    char *found[WORKER_MODELS_MAX]; /* owned: "NAME=DIR" of further folders */
    uint32_t n_found;
    const char *key, *server_key;
    struct cert_pair pair;
    enum log_level level;
    enum log_format format;
};

static uint32_t number(struct argp_state *state, const char *name, const char *text, uint32_t min,
                       uint32_t max) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *text == '-' || end == text || *end || v < min || v > max)
        argp_error(state, "--%s %s: not a whole number from %" PRIu32 " to %" PRIu32, name, text,
                   min, max);
    return (uint32_t)v;
}

static void add_program(struct argp_state *state, struct worker_config *c,
                        const struct stage_program *p) {
    if (c->n_programs == WORKER_STAGES_MAX)
        argp_error(state, "more than %u stages", WORKER_STAGES_MAX);
    c->programs[c->n_programs++] = p;
}

static void take_stages(struct argp_state *state, struct worker_config *c, const char *text) {
    c->n_programs = 0;
    c->programs_named = strcmp(text, "all") != 0;
    if (!c->programs_named) {
        for (uint32_t i = 0; stage_at(i); i++) add_program(state, c, stage_at(i));
        return;
    }
    for (const char *at = text; *at;) {
        size_t len = strcspn(at, ",");
        const struct stage_program *p = stage_find(bytes_of(at, len));
        if (!p) p = stage_test_find(bytes_of(at, len));
        if (!p) {
            fprintf(stderr, "the stages are:");
            for (uint32_t i = 0; stage_at(i); i++) fprintf(stderr, " %s", stage_at(i)->run);
            fputc('\n', stderr);
            argp_error(state, "--stages: there is no stage \"%.*s\"", (int)len, at);
        }
        add_program(state, c, p);
        at += len + (at[len] == ',');
    }
    if (c->n_programs == 0) argp_error(state, "--stages: name at least one");
}

static void add_model(struct argp_state *state, struct worker_config *c, const char *named) {
    if (c->n_models == WORKER_MODELS_MAX)
        argp_error(state, "more than %u models", WORKER_MODELS_MAX);
    c->models[c->n_models++] = named;
}

/* The first folder is the set's own; the models of further ones are named one by one. */
static void add_folder(struct argp_state *state, struct args *a, char *dir) {
    if (!a->config.models_dir) {
        a->config.models_dir = dir;
        return;
    }
    DIR *d = opendir(dir);
    if (!d) argp_error(state, "--models %s: %s", dir, strerror(errno));
    for (struct dirent *e; d && (e = readdir(d));) {
        char *named = NULL;
        if (e->d_name[0] == '.' || a->n_found == WORKER_MODELS_MAX) continue;
        if (asprintf(&named, "%s=%s/%s", e->d_name, dir, e->d_name) < 0)
            argp_error(state, "out of memory");
        if (models_is_one(strchr(named, '=') + 1)) {
            a->found[a->n_found++] = named;
            add_model(state, &a->config, named);
            named = NULL;
        }
        free(named);
    }
    if (d) closedir(d);
}

static error_t parse(int key, char *text, struct argp_state *state) {
    struct args *a = state->input;
    struct worker_config *c = &a->config;
    switch (key) {
    case 'c': c->endpoint = text; return 0;
    case OPT_KEY: a->key = text; return 0;
    case OPT_SERVER_KEY: a->server_key = text; return 0;
    case 's': take_stages(state, c, text); return 0;
    case OPT_MODELS: add_folder(state, a, text); return 0;
    case OPT_MODEL: add_model(state, c, text); return 0;
    case OPT_RECIPES:
        if (!file_is_folder(text)) argp_error(state, "--recipes %s: there is no such folder", text);
        c->recipes = text;
        return 0;
    case OPT_SPECULATE:
        if (!speculate_mode_of(text, &c->speculate))
            argp_error(state, "--speculate %s: use lookup or off", text);
        return 0;
    case OPT_DRAFT:
        if (c->n_drafts == WORKER_MODELS_MAX)
            argp_error(state, "--draft: at most %u", WORKER_MODELS_MAX);
        c->drafts[c->n_drafts++] = text;
        return 0;
    case OPT_THREADS: c->threads = number(state, "threads", text, 0, 1024); return 0;
    case OPT_WEIGHTS: {
        struct model_config unused;
        if (!model_weights_parse(text, &unused))
            argp_error(state, "--weights %s: use f32, bf16, w8a8 or w4a8", text);
        c->weights = text;
        return 0;
    }
    case OPT_BACKEND: c->backend = text; return 0;
    case OPT_NAME:
        if (strlen(text) == 0 || strlen(text) > LIMIT_NAME_BYTES)
            argp_error(state, "--name: use 1 to %u bytes", LIMIT_NAME_BYTES);
        c->name = text;
        return 0;
    case OPT_CREDIT: c->credit_jobs = number(state, "credit", text, 1, LIMIT_SPAN_JOBS); return 0;
    case OPT_MEMORY_EFFICIENT: c->memory_efficient = true; return 0;
    case OPT_GRACE: c->grace_ms = number(state, "grace-ms", text, 1, 3600000); return 0;
    case OPT_LOG:
        if (log_level_parse(text, &a->level) != 0)
            argp_error(state, "--log-level %s: use debug, info, warn or error", text);
        return 0;
    case OPT_LOG_FORMAT:
        if (log_format_parse(text, &a->format) != 0)
            argp_error(state, "--log-format %s: use logfmt or json", text);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "\"%s\" is not an option, and no verb", text); return 0;
    case ARGP_KEY_INIT: take_stages(state, c, "all"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int work(int argc, char **argv) {
    static const struct argp argp = {options,
                                     parse,
                                     NULL,
                                     "Leases jobs from a penstock broker and runs their stages.\v"
                                     "Verbs: penstock-worker run|tokenize|model --help.\n"
                                     "Exit codes: 0 drained (SIGTERM), 1 could not start, 2 usage.",
                                     NULL,
                                     NULL,
                                     NULL};
    char host[LIMIT_NAME_BYTES - 16] = "worker", err[600];
    struct args a = {.level = LOG_INFO,
                     .key = getenv("PENSTOCK_KEY"),
                     .server_key = getenv("PENSTOCK_SERVER_KEY")};
    bool encrypted;
    a.config = (struct worker_config){
        .backend = "auto", .credit_jobs = LIMIT_SPAN_JOBS, .grace_ms = GRACE_MS};
    args_parse(&argp, argc, argv, &a);
    if (!a.config.endpoint) {
        endpoint_default(ENDPOINT_WORKERS, a.endpoint);
        a.config.endpoint = a.endpoint;
    }
    if (!a.config.name) {
        if (gethostname(host, sizeof host) != 0) host[0] = '\0';
        host[sizeof host - 1] = '\0';
        snprintf(a.name, sizeof a.name, "%s-%ld", host, (long)getpid());
        a.config.name = a.name;
    }
    log_init("penstock-worker", a.level);
    log_write_as(a.format);
    int status = ARGS_USAGE;
    if (endpoint_check(a.config.endpoint, err, sizeof err) != 0 ||
        cert_pair_load(&a.pair, a.key, a.server_key, &encrypted, err, sizeof err) != 0) {
        fprintf(stderr, "penstock-worker: %s\n", err);
    } else {
        a.config.curve = encrypted ? &a.pair.curve : NULL;
        status = keeper_run(&a.config);
    }
    for (uint32_t i = 0; i < a.n_found; i++) free(a.found[i]);
    return status;
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } verbs[] = {{"run", verb_run}, {"tokenize", verb_tokenize}, {"model", verb_model}};
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[1], verbs[i].name) != 0) continue;
        char full[64];
        snprintf(full, sizeof full, "%.20s %s", program_invocation_short_name, verbs[i].name);
        argv[1] = full; /* argp's complaints begin with it */
        char version[sizeof full + sizeof PENSTOCK_VERSION];
        snprintf(version, sizeof version, "%s " PENSTOCK_VERSION, full);
        argp_program_version = version;
        return verbs[i].run(argc - 1, argv + 1);
    }
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES); /* else glibc keeps up to 32 MiB of each that it saw */
    return work(argc, argv);
}
