#include "broker/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/limits.h"
#include "base/version.h"
#include "pipelines/pipeline.h"
#include "schemas/endpoint.h"

#define BODIES_BYTES (16u * 1024 * 1024)

const char *argp_program_version = "penstock-broker " PENSTOCK_VERSION;

#define DAY_MS INT64_C(86400000)
#define RETAIN_MAX_MS (UINT64_C(36500) * 86400000)

enum {
    OPT_DIR = 256,
    OPT_CLIENTS,
    OPT_WORKERS,
    OPT_LISTEN,
    OPT_CURVE,
    OPT_KEYS,
    OPT_PIPELINES,
    OPT_SETTINGS,
    OPT_LEASE,
    OPT_BEAT,
    OPT_QUEUE,
    OPT_UPLOAD_TTL,
    OPT_META,
    OPT_BLOB,
    OPT_HTTP,
    OPT_HTTP_ANYWHERE,
    OPT_RETAIN,
    OPT_RETAIN_FAILED,
    OPT_RETAIN_BYTES,
    OPT_SCRUB,
    OPT_LOG,
    OPT_LOG_FORMAT
};

static const struct argp_option options[] = {
    {"dir", OPT_DIR, "DIR", 0, "the store (and, by default, the sockets)", 0},
    {"clients", OPT_CLIENTS, "ENDPOINT", 0, "where clients connect (ipc://DIR/clients)", 0},
    {"workers", OPT_WORKERS, "ENDPOINT", 0, "where workers connect (ipc://DIR/workers)", 0},
    {"listen", OPT_LISTEN, "tcp://HOST:PORT", 0,
     "both at once: clients connect to PORT, workers to PORT + 1", 0},
    {"curve", OPT_CURVE, NULL, 0, "let in only who has a key (`penstock keys`); encrypt everything",
     0},
    {"keys", OPT_KEYS, "DIR", 0, "the keys' folder (DIR/keys); implies --curve", 0},
    {"pipelines", OPT_PIPELINES, "DIR[:DIR]", 0,
     "folders of pipeline files; an empty one stands for the installed ones", 0},
    {"settings", OPT_SETTINGS, "FILE", 0,
     "shares and limits, read again when the file changes (none)", 0},
    {"lease-ms", OPT_LEASE, "MS", 0, "a worker unheard for this long has died (6000)", 0},
    {"heartbeat-ms", OPT_BEAT, "MS", 0, "workers beat this often (1000)", 0},
    {"queue-max", OPT_QUEUE, "JOBS", 0, "live jobs in all (1000000)", 0},
    {"upload-ttl-ms", OPT_UPLOAD_TTL, "MS", 0, "an upload idle for this long is dropped (600000)",
     0},
    {"meta-cap", OPT_META, "BYTES", 0, "cap of the job records (1 GiB)", 0},
    {"blob-cap", OPT_BLOB, "BYTES", 0, "cap of the payloads (8 GiB)", 0},
    {"http", OPT_HTTP, "ADDRESS:PORT", 0,
     "serve /metrics, /livez, /readyz, /startupz and /status there (nowhere)", 0},
    {"http-anywhere", OPT_HTTP_ANYWHERE, NULL, 0,
     "let --http be beyond the loopback, where anybody may read it", 0},
    {"retain-ms", OPT_RETAIN, "MS", 0,
     "ended jobs are kept this long, at most until the store is 70 % full (604800000; 0: no limit)",
     0},
    {"retain-failed-ms", OPT_RETAIN_FAILED, "MS", 0,
     "failed ones, the dead letters (2592000000; 0: no limit)", 0},
    {"retain-bytes", OPT_RETAIN_BYTES, "BYTES", 0,
     "ended jobs are deleted when the store is larger (0: by its share of the caps alone)", 0},
    {"scrub-bytes", OPT_SCRUB, "BYTES", 0,
     "of the store are read and checked a second, a round an hour (4194304; 0: none)", 0},
    {"log-level", OPT_LOG, "LEVEL", 0, "debug, info, warn or error (info)", 0},
    {"log-format", OPT_LOG_FORMAT, "FORMAT", 0, "logfmt or json (logfmt)", 0},
    {0}};

static void copy(struct argp_state *state, char *to, size_t bytes, const char *from) {
    if (strlen(from) >= bytes)
        argp_error(state, "%.40s... is longer than %zu bytes", from, bytes - 1);
    else
        strcpy(to, from);
}

static uint64_t number(struct argp_state *state, const char *text, uint64_t min, uint64_t max) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || v < min || v > max)
        argp_error(state, "\"%s\" is not a number from %llu to %llu", text, (unsigned long long)min,
                   (unsigned long long)max);
    return v;
}

/* Two sockets side by side, so that one word names them. */
static void listen_on(struct argp_state *state, struct config *c, const char *text) {
    const char *colon = strrchr(text, ':');
    if (strncmp(text, "tcp://", 6) != 0 || !colon || colon < text + 6)
        argp_error(state, "--listen %s: write tcp://HOST:PORT", text);
    uint64_t port = number(state, colon + 1, 1, 65534);
    copy(state, c->clients, sizeof c->clients, text);
    int n = snprintf(c->workers, sizeof c->workers, "%.*s:%llu", (int)(colon - text), text,
                     (unsigned long long)port + 1);
    if (n < 0 || (size_t)n >= sizeof c->workers) argp_error(state, "--listen %s: too long", text);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct config *c = state->input;
    switch (key) {
    case OPT_DIR: copy(state, c->dir, sizeof c->dir, arg); break;
    case OPT_CLIENTS: copy(state, c->clients, sizeof c->clients, arg); break;
    case OPT_WORKERS: copy(state, c->workers, sizeof c->workers, arg); break;
    case OPT_LISTEN: listen_on(state, c, arg); break;
    case OPT_CURVE: c->curve = true; break;
    case OPT_KEYS: copy(state, c->keys, sizeof c->keys, arg); break;
    case OPT_PIPELINES: copy(state, c->pipelines, sizeof c->pipelines, arg); break;
    case OPT_SETTINGS: copy(state, c->settings, sizeof c->settings, arg); break;
    case OPT_LEASE: c->lease_ms = (int64_t)number(state, arg, 100, 3600000); break;
    case OPT_BEAT: c->heartbeat_ms = (int64_t)number(state, arg, 10, 60000); break;
    case OPT_QUEUE: c->queue_max = (uint32_t)number(state, arg, 1, LIMIT_JOBS_QUEUED); break;
    case OPT_UPLOAD_TTL: c->upload_ttl_ms = (int64_t)number(state, arg, 100, 86400000); break;
    case OPT_META: c->meta_cap_bytes = number(state, arg, 1u << 20, UINT64_C(1) << 46); break;
    case OPT_BLOB: c->blob_cap_bytes = number(state, arg, 1u << 20, UINT64_C(1) << 46); break;
    case OPT_HTTP: copy(state, c->http, sizeof c->http, arg); break;
    case OPT_HTTP_ANYWHERE: c->http_anywhere = true; break;
    case OPT_RETAIN: c->retain_ms = (int64_t)number(state, arg, 0, RETAIN_MAX_MS); break;
    case OPT_RETAIN_FAILED:
        c->retain_failed_ms = (int64_t)number(state, arg, 0, RETAIN_MAX_MS);
        break;
    case OPT_RETAIN_BYTES: c->retain_bytes = number(state, arg, 0, UINT64_C(1) << 47); break;
    case OPT_SCRUB: c->scrub_bytes = number(state, arg, 0, UINT64_C(1) << 40); break;
    case OPT_LOG:
        if (log_level_parse(arg, &c->log_level) != 0)
            argp_error(state, "\"%s\" is not a log level", arg);
        break;
    case OPT_LOG_FORMAT:
        if (log_format_parse(arg, &c->log_format) != 0)
            argp_error(state, "\"%s\" is not a log format", arg);
        break;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument \"%s\"", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void config_parse(struct config *c, int argc, char **argv) {
    static const struct argp argp = {
        options, parse,
        NULL,    "The Penstock broker: takes jobs, commits them, leases them to workers.",
        NULL,    NULL,
        NULL};
    *c = (struct config){.lease_ms = 6000,
                         .bodies_bytes = BODIES_BYTES,
                         .heartbeat_ms = 1000,
                         .queue_max = LIMIT_JOBS_QUEUED,
                         .retain_ms = 7 * DAY_MS,
                         .retain_failed_ms = 30 * DAY_MS,
                         .upload_ttl_ms = 600000,
                         .scrub_bytes = 4u << 20,
                         .log_level = LOG_INFO};
    args_parse(&argp, argc, argv, c);
    bool own_dir = c->dir[0] != 0;
    if (!own_dir) endpoint_state_dir(c->dir, sizeof c->dir);
    if (c->curve && !c->keys[0]) snprintf(c->keys, sizeof c->keys, "%s/keys", c->dir);
    if (c->heartbeat_ms * 2 > c->lease_ms) {
        fprintf(stderr,
                "penstock-broker: --lease-ms %lld must be at least twice --heartbeat-ms %lld\n",
                (long long)c->lease_ms, (long long)c->heartbeat_ms);
        exit(2);
    }
    char sockets[ENDPOINT_BYTES];
    endpoint_default_dir(sockets);
    const char *beside = own_dir ? c->dir : sockets;
    if (!c->clients[0]) snprintf(c->clients, sizeof c->clients, "ipc://%s/clients", beside);
    if (!c->workers[0]) snprintf(c->workers, sizeof c->workers, "ipc://%s/workers", beside);
}
