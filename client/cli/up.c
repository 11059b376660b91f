/* penstock up: a broker and workers on this machine, until SIGTERM or Ctrl-C.
 *
 * starting -> (broker answers) -> joining -> (workers registered) -> ready
 *     any of them -> (signal) -> draining: workers end their jobs -> stopping: the broker ends
 * The loop at the end of this file makes each transition. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/thread.h"
#include "client/cli/cli.h"
#include "client/cli/supervise.h"
#include "schemas/endpoint.h"
#include "schemas/model_dir.h"

#define WORKERS_MAX 64
#define DIRS_MAX 16
#define TICK_MS 50
#define ASK_MS 200     /* for one question about readiness */
#define START_MS 60000 /* for the broker to answer */
#define PATH_BYTES 4096

enum {
    OPT_WORKERS = 256,
    OPT_MODELS,
    OPT_MODEL,
    OPT_PIPELINES,
    OPT_SETTINGS,
    OPT_RECIPES,
    OPT_PYTHON,
    OPT_THREADS,
    OPT_MEMORY_EFFICIENT,
    OPT_SPECULATE,
    OPT_DRAFT,
    OPT_STAGES,
    OPT_LOG,
    OPT_LEASE,
    OPT_HEARTBEAT,
    OPT_RETAIN,
    OPT_RETAIN_FAILED,
    OPT_RETAIN_BYTES,
    OPT_DRAIN,
    OPT_WORKER_ENDPOINT,
    OPT_HTTP,
    OPT_HTTP_ANYWHERE,
    OPT_LOG_FORMAT
};

enum phase { STARTING, JOINING, READY, DRAINING, STOPPING, OVER };

struct args { /* of a child's command line */
    char *v[96];
    uint32_t n;
};

struct up {
    struct cli c;
    char *dir, *pipelines, *settings, *recipes, *threads, *stages, *log_level, *log_format;
    struct args broker, worker;               /* what the broker alone is told, and each worker */
    char *models[DIRS_MAX], *model[DIRS_MAX]; /* folders of models; NAME=DIR */
    char *python[DIRS_MAX];                   /* files with stages in Python, a worker each */
    uint32_t n_models, n_model, n_python, n_workers;
    int64_t drain_ms;
    bool memory_efficient;
    const char *worker_endpoint;
    char clients_url[PATH_BYTES], workers_url[PATH_BYTES];
    char dir_path[PATH_BYTES], models_path[MODEL_DIR_BYTES];
    struct child child[1 + WORKERS_MAX + DIRS_MAX]; /* the broker first */
    enum phase phase;
    int64_t since_ms; /* of the phase */
    int code;
};

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0,
     "Where jobs are kept, and the sockets (default: the user's state folder)", 1},
    {"workers", OPT_WORKERS, "N", 0, "So many worker processes (default 1)", 1},
    {"models", OPT_MODELS, "DIR", 0, "A folder of models beside the cache; may be given again", 1},
    {"model", OPT_MODEL, "NAME=DIR", 0, "One model under a name; may be given again", 1},
    {"pipelines", OPT_PIPELINES, "DIR[:DIR]", 0,
     "Folders of pipeline files; an empty one, and the default, is the installed one", 1},
    {"settings", OPT_SETTINGS, "FILE", 0,
     "Shares and limits of the broker, read again when the file changes", 1},
    {"python", OPT_PYTHON, "FILE", 0,
     "A worker for the stages in a Python file; may be given again", 1},
    {"recipes", OPT_RECIPES, "DIR", 0,
     "A folder of qc.inspect's recipes (default: the installed ones)", 1},
    {"stages", OPT_STAGES, "LIST", 0, "Stage programs of the workers (default all)", 2},
    {"threads", OPT_THREADS, "N", 0, "Compute threads a worker", 2},
    {"memory-efficient", OPT_MEMORY_EFFICIENT, NULL, 0,
     "Workers keep keys and values in int8, in a smaller pool", 2},
    {"speculate", OPT_SPECULATE, "lookup|off", 0,
     "Workers guess the next tokens of texts where that pays (lookup, the default), or not", 2},
    {"draft", OPT_DRAFT, "MODEL=DRAFT", 0,
     "Let the small model DRAFT guess for MODEL; may be given again", 2},
    {"http", OPT_HTTP, "ADDRESS:PORT", 0,
     "The broker serves /metrics, /livez, /readyz, /startupz and /status there", 2},
    {"http-anywhere", OPT_HTTP_ANYWHERE, NULL, 0,
     "--http may be an address that others reach; they all may read there", 2},
    {"log-level", OPT_LOG, "LEVEL", 0, "debug, info, warn or error", 2},
    {"log-format", OPT_LOG_FORMAT, "FORMAT", 0, "logfmt (the default) or json", 2},
    {"lease-ms", OPT_LEASE, "MS", 0, "A worker unheard for so long loses its leases", 2},
    {"heartbeat-ms", OPT_HEARTBEAT, "MS", 0, "Workers beat this often", 2},
    {"retain-ms", OPT_RETAIN, "MS", 0, "Ended jobs are kept so long (default a week)", 2},
    {"retain-failed-ms", OPT_RETAIN_FAILED, "MS", 0, "And failed ones (default 30 days)", 2},
    {"retain-bytes", OPT_RETAIN_BYTES, "BYTES", 0,
     "Ended jobs are deleted when the store is larger", 2},
    {"drain", OPT_DRAIN, "SECONDS", 0, "Time for running stages when stopping (default 30)", 2},
    {"worker-endpoint", OPT_WORKER_ENDPOINT, "URL", 0, "The broker's socket for workers", 2},
    {0}};

static void add(struct args *a, const char *option, const char *value) {
    if (!value || a->n + 3 > sizeof a->v / sizeof *a->v) return;
    if (option) a->v[a->n++] = strdup(option);
    a->v[a->n++] = strdup(value);
}

/* An option that the broker, or a worker, has under the same name. */
static void pass_on(struct args *a, int key, const char *value) {
    char name[32];
    const struct argp_option *o = options;
    while (o->key != key) o++;
    snprintf(name, sizeof name, "--%s", o->name);
    add(a, name, value);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct up *in = state->input;
    switch (key) {
    case 'd': in->dir = arg; return 0;
    case OPT_WORKERS:
        in->n_workers = (uint32_t)cli_number(state, "--workers", arg, WORKERS_MAX);
        return 0;
    case OPT_MODELS:
        if (in->n_models == DIRS_MAX) argp_error(state, "more than %d --models", DIRS_MAX);
        in->models[in->n_models++] = arg;
        return 0;
    case OPT_MODEL:
        if (in->n_model == DIRS_MAX) argp_error(state, "more than %d --model", DIRS_MAX);
        in->model[in->n_model++] = arg;
        return 0;
    case OPT_PIPELINES: in->pipelines = arg; return 0;
    case OPT_RECIPES: in->recipes = arg; return 0;
    case OPT_PYTHON:
        if (in->n_python == DIRS_MAX) argp_error(state, "more than %d --python", DIRS_MAX);
        in->python[in->n_python++] = arg;
        return 0;
    case OPT_THREADS: in->threads = arg; return 0;
    case OPT_MEMORY_EFFICIENT: in->memory_efficient = true; return 0;
    case OPT_STAGES: in->stages = arg; return 0;
    case OPT_LOG_FORMAT: in->log_format = arg; return 0;
    case OPT_LOG: in->log_level = arg; return 0;
    case OPT_SETTINGS: in->settings = arg; /* fall through */
    case OPT_HTTP:
    case OPT_LEASE:
    case OPT_HEARTBEAT:
    case OPT_RETAIN:
    case OPT_RETAIN_FAILED:
    case OPT_RETAIN_BYTES: pass_on(&in->broker, key, arg); return 0;
    case OPT_SPECULATE:
    case OPT_DRAFT: pass_on(&in->worker, key, arg); return 0;
    case OPT_HTTP_ANYWHERE: add(&in->broker, NULL, "--http-anywhere"); return 0;
    case OPT_DRAIN: in->drain_ms = cli_seconds_ms(state, "--drain", arg); return 0;
    case OPT_WORKER_ENDPOINT: in->worker_endpoint = arg; return 0;
    case ARGP_KEY_INIT: state->child_inputs[0] = &in->c; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- places ---- */

/* The cache, where what was fetched lies, is always one of the folders of models. */
static void add_cache(struct up *in) {
    if (in->n_models == DIRS_MAX) return;
    model_dir_root(in->models_path);
    if (file_is_folder(in->models_path)) in->models[in->n_models++] = in->models_path;
}

static int make_dir(const char *path) {
    int rc = file_mkdirs(path);
    if (rc == 0) return CLI_OK;
    fprintf(stderr, "penstock: cannot make %s: %s; name another folder with --dir\n", path,
            strerror(-rc));
    return CLI_FAILED;
}

/* What a worker could not start with is said before anything is started. */
static int check_folders(const struct up *in) {
    for (uint32_t i = 0; i < in->n_models; i++)
        if (!file_is_folder(in->models[i]))
            return cli_usage("--models %s: there is no such folder; `penstock up` alone uses the "
                             "models that were fetched",
                             in->models[i]);
    for (uint32_t i = 0; i < in->n_model; i++) {
        const char *equals = strchr(in->model[i], '=');
        if (!equals || equals == in->model[i] || !file_is_folder(equals + 1))
            return cli_usage("--model %s: write NAME=DIR, DIR being a model's folder",
                             in->model[i]);
    }
    if (in->settings && access(in->settings, R_OK) != 0)
        return cli_usage("--settings %s: %s", in->settings, strerror(errno));
    if (in->recipes && !file_is_folder(in->recipes))
        return cli_usage("--recipes %s: there is no such folder; without, the installed ones are "
                         "used",
                         in->recipes);
    return CLI_OK;
}

/* With --dir everything lies there, sockets too; else each in its place of the user. */
static int find_places(struct up *in) {
    char sockets[PATH_BYTES];
    if (in->dir) {
        int code = make_dir(in->dir);
        if (code != CLI_OK) return code;
        if (!realpath(in->dir, in->dir_path)) return cli_usage("%s: %s", in->dir, strerror(errno));
        snprintf(in->clients_url, PATH_BYTES, "ipc://%.4000s/clients", in->dir_path);
        snprintf(in->workers_url, PATH_BYTES, "ipc://%.4000s/workers", in->dir_path);
    } else {
        endpoint_state_dir(in->dir_path, sizeof in->dir_path);
        endpoint_default_dir(sockets);
        endpoint_default(ENDPOINT_CLIENTS, in->clients_url);
        endpoint_default(ENDPOINT_WORKERS, in->workers_url);
        int code = make_dir(in->dir_path);
        if (code == CLI_OK) code = make_dir(sockets);
        if (code != CLI_OK) return code;
    }
    if (in->c.endpoint) snprintf(in->clients_url, PATH_BYTES, "%s", in->c.endpoint);
    if (in->worker_endpoint) snprintf(in->workers_url, PATH_BYTES, "%s", in->worker_endpoint);
    char err[PENSTOCK_ERR_BYTES];
    if (endpoint_check(in->clients_url, err, sizeof err) < 0 ||
        endpoint_check(in->workers_url, err, sizeof err) < 0)
        return cli_usage("%s", err);
    add_cache(in);
    return CLI_OK;
}

/* ---- children ---- */

/* The command line of a child; it lives as long as this process. Takes the path. */
static int set_argv(struct child *c, char *path, const struct args *a) {
    c->argv = calloc(a->n + 2u, sizeof *c->argv);
    if (!c->argv || !path) return cli_fail(PENSTOCK_MEMORY, "out of memory");
    c->argv[0] = path;
    for (uint32_t i = 0; i < a->n; i++) {
        if (!a->v[i]) return cli_fail(PENSTOCK_MEMORY, "out of memory");
        c->argv[i + 1] = a->v[i];
    }
    return CLI_OK;
}

static int set_command(struct child *c, const char *program, const struct args *a) {
    char dir[PATH_BYTES], *path = NULL;
    cli_program_dir(dir);
    if (asprintf(&path, "%s%s", dir, program) < 0) path = NULL;
    int code = set_argv(c, path, a);
    if (code != CLI_OK || access(path, X_OK) == 0) return code;
    return cli_usage("%s is not there; install it beside this program", path);
}

/* The helper that reads documents, as a setting of the environment; false: there is none. */
static bool find_extract(char *out, size_t out_bytes) {
    static const char name[] = "PENSTOCK_EXTRACT=";
    char dir[PATH_BYTES];
    cli_program_dir(dir);
    int n = snprintf(out, out_bytes, "%s%spenstock-extract", name, dir);
    return n > 0 && (size_t)n < out_bytes && access(out + sizeof name - 1, X_OK) == 0;
}

/* The interpreter is the first of the PATH, so that a virtual environment is taken; it finds the
 * package that belongs to this program, wherever that is installed. */
static int set_python(struct up *in, struct child *c, const char *file) {
    static const char *const beside[] = {"/../share/penstock/python"};
    char package[PATH_BYTES], path[3 * PATH_BYTES];
    const char *user = getenv("PYTHONPATH");
    struct args a = {0};
    if (access(file, R_OK) != 0) return cli_usage("--python %s: %s", file, strerror(errno));
    if (file_beside_program(beside, 1, package, sizeof package) == 0) {
        snprintf(path, sizeof path, "PYTHONPATH=%s%s%.4000s", package, user && user[0] ? ":" : "",
                 user ? user : "");
        add(&a, NULL, path);
    }
    if (!getenv("PENSTOCK_EXTRACT") && find_extract(path, sizeof path)) add(&a, NULL, path);
    add(&a, "python3", "-m");
    add(&a, "penstock.worker", file);
    add(&a, "--endpoint", in->workers_url);
    add(&a, "--name", c->name);
    add(&a, "--log-level", in->log_level);
    add(&a, "--log-format", in->log_format);
    return set_argv(c, strdup("/usr/bin/env"), &a);
}

static int set_commands(struct up *in) {
    struct args *broker = &in->broker;
    add(broker, "--dir", in->dir_path);
    add(broker, "--clients", in->clients_url);
    add(broker, "--workers", in->workers_url);
    add(broker, "--pipelines", in->pipelines);
    add(broker, "--log-level", in->log_level);
    add(broker, "--log-format", in->log_format);
    snprintf(in->child[0].name, sizeof in->child[0].name, "broker");
    int code = set_command(&in->child[0], "penstock-broker", broker);
    for (uint32_t i = 1; code == CLI_OK && i <= in->n_workers; i++) {
        struct args worker = {0};
        snprintf(in->child[i].name, sizeof in->child[i].name, "worker-%u", i);
        add(&worker, "--connect", in->workers_url);
        add(&worker, "--name", in->child[i].name);
        add(&worker, "--stages", in->stages ? in->stages : "all");
        for (uint32_t m = 0; m < in->n_models; m++) add(&worker, "--models", in->models[m]);
        for (uint32_t m = 0; m < in->n_model; m++) add(&worker, "--model", in->model[m]);
        add(&worker, "--recipes", in->recipes);
        add(&worker, "--threads", in->threads);
        if (in->memory_efficient) add(&worker, NULL, "--memory-efficient");
        for (uint32_t k = 0; k < in->worker.n; k++) add(&worker, NULL, in->worker.v[k]);
        add(&worker, "--log-level", in->log_level);
        add(&worker, "--log-format", in->log_format);
        code = set_command(&in->child[i], "penstock-worker", &worker);
    }
    for (uint32_t i = 0; code == CLI_OK && i < in->n_python; i++) {
        struct child *c = &in->child[++in->n_workers];
        snprintf(c->name, sizeof c->name, "python-%u", i + 1);
        code = set_python(in, c, in->python[i]);
    }
    return code;
}

static void tell_end(const struct child *c, bool again) {
    char how[64];
    if (WIFSIGNALED(c->status))
        snprintf(how, sizeof how, "died of signal %d (%s)", WTERMSIG(c->status),
                 strsignal(WTERMSIG(c->status)));
    else
        snprintf(how, sizeof how, "ended with code %d", WEXITSTATUS(c->status));
    if (again)
        fprintf(stderr, "penstock: %s %s; it starts again in %u ms\n", c->name, how, c->pause_ms);
    else
        fprintf(stderr, "penstock: %s %s and cannot start; what it said is above\n", c->name, how);
}

/* ---- readiness ---- */

/* How many workers are registered; -1 while the broker does not answer. */
static int registered(const struct up *in) {
    struct penstock *p;
    struct penstock_doc d;
    char err[PENSTOCK_ERR_BYTES];
    if (penstock_open(&p, in->clients_url, err, sizeof err) < 0) return -1;
    int n = -1;
    struct json *j = NULL;
    if (penstock_workers(p, &d, ASK_MS, err, sizeof err) == 0 &&
        json_parse(&j, d.json, strlen(d.json), err, sizeof err) == 0)
        n = (int)json_len(j);
    json_free(j);
    penstock_doc_free(&d);
    penstock_close(p);
    return n;
}

static void enter(struct up *in, enum phase phase, int64_t now_ms) {
    in->phase = phase;
    in->since_ms = now_ms;
}

static void tell_ready(const struct up *in) {
    if (in->c.json) {
        printf("{\"endpoint\": \"%s\", \"broker\": %d, \"workers\": [", in->clients_url,
               (int)in->child[0].pid);
        for (uint32_t i = 1; i <= in->n_workers; i++)
            printf("%s%d", i > 1 ? ", " : "", (int)in->child[i].pid);
        puts("]}");
        fflush(stdout);
    }
    fprintf(stderr, "penstock: ready at %s (broker %d, %u worker%s), jobs in %s\n", in->clients_url,
            (int)in->child[0].pid, in->n_workers, in->n_workers == 1 ? "" : "s", in->dir_path);
}

static void give_up(struct up *in, int64_t now_ms) {
    in->code = CLI_FAILED;
    children_signal(in->child, in->n_workers + 1, SIGTERM);
    enter(in, DRAINING, now_ms);
}

static void look_ready(struct up *in, int64_t now_ms) {
    int n = registered(in);
    if (in->phase == STARTING && n >= 0) {
        for (uint32_t i = 1; i <= in->n_workers; i++) in->child[i].restart_ms = now_ms;
        children_restart(in->child + 1, in->n_workers, now_ms);
        enter(in, JOINING, now_ms);
    } else if (in->phase == STARTING && now_ms - in->since_ms > START_MS) {
        fputs("penstock: the broker does not answer; what it said is above\n", stderr);
        give_up(in, now_ms);
    } else if (in->phase == JOINING && n >= (int)in->n_workers) {
        tell_ready(in);
        enter(in, READY, now_ms);
    }
}

/* ---- the loop ---- */

static void take_ends(struct up *in, int64_t now_ms) {
    uint32_t n = in->n_workers + 1;
    uint32_t before[1 + WORKERS_MAX + DIRS_MAX];
    for (uint32_t i = 0; i < n; i++) before[i] = in->child[i].ends;
    if (children_reap(in->child, n, now_ms) == 0 || in->phase >= DRAINING) return;
    for (uint32_t i = 0; i < n; i++) {
        if (in->child[i].ends == before[i]) continue;
        /* What cannot even start once is misconfigured, and trying again would hide that. */
        bool again =
            in->phase == READY || (in->phase == JOINING && WIFSIGNALED(in->child[i].status));
        tell_end(&in->child[i], again);
        if (!again && in->phase < DRAINING) give_up(in, now_ms);
    }
}

static void drain(struct up *in, int64_t now_ms) {
    bool late = now_ms - in->since_ms > in->drain_ms;
    if (in->phase == DRAINING) {
        if (late) children_signal(in->child + 1, in->n_workers, SIGKILL);
        if (!children_gone(in->child + 1, in->n_workers)) return;
        children_signal(in->child, 1, SIGTERM);
        enter(in, STOPPING, now_ms);
    } else {
        if (late) children_signal(in->child, 1, SIGKILL);
        if (children_gone(in->child, 1)) enter(in, OVER, now_ms);
    }
}

static void take_signal(struct up *in, int signal, int64_t now_ms) {
    if (signal != SIGTERM && signal != SIGINT) return;
    if (in->phase < DRAINING) {
        fprintf(stderr, "penstock: stopping; workers end their stages first\n");
        children_signal(in->child + 1, in->n_workers, SIGTERM);
        enter(in, DRAINING, now_ms);
    } else {
        children_signal(in->child, in->n_workers + 1, SIGKILL); /* asked twice */
    }
}

static int loop(struct up *in) {
    int signals = signals_init();
    if (signals < 0) return cli_fail(PENSTOCK_MEMORY, strerror(-signals));
    enter(in, STARTING, clock_mono_ms());
    int rc = child_start(&in->child[0], in->since_ms);
    if (rc < 0) return cli_fail(PENSTOCK_MEMORY, strerror(-rc));
    while (in->phase != OVER) {
        struct pollfd p = {.fd = signals, .events = POLLIN};
        poll(&p, 1, TICK_MS);
        int64_t now_ms = clock_mono_ms();
        for (int s; (s = signals_read(signals));) take_signal(in, s, now_ms);
        take_ends(in, now_ms);
        if (in->phase == STARTING || in->phase == JOINING) look_ready(in, now_ms);
        if (in->phase == JOINING || in->phase == READY)
            children_restart(in->child, in->n_workers + 1, now_ms);
        if (in->phase >= DRAINING) drain(in, now_ms);
    }
    return in->code;
}

int cli_verb_up(int argc, char **argv) {
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .doc = "Run a broker and workers on this machine until SIGTERM or Ctrl-C. What crashes is "
               "started again; when stopping, workers end their stages first.",
        .children = cli_common};
    static struct up in = {.n_workers = 1, .drain_ms = 30000};
    cli_parse(&argp, argc, argv, &in.c);
    if (in.c.n)
        return cli_usage("up takes no argument '%s'; see `penstock up --help`", in.c.args[0]);
    int code = check_folders(&in);
    if (code == CLI_OK) code = find_places(&in);
    if (code == CLI_OK) code = set_commands(&in);
    return code == CLI_OK ? loop(&in) : code;
}
