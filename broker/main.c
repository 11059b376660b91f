#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/http.h"
#include "base/log.h"
#include "base/thread.h"
#include "broker/accept.h"
#include "broker/broker.h"
#include "broker/glance.h"
#include "broker/health.h"
#include "broker/verb_store.h"
#include "broker/verdicts.h"
#include "broker/zap.h"
#include "schemas/endpoint.h"

static int open_socket(struct broker *b, struct sock **out, const char *endpoint, char *err,
                       size_t err_bytes) {
    struct sock_config c = {.type = SOCK_ROUTER,
                            .hwm = 4096,
                            .bind = true,
                            .endpoint = endpoint,
                            .curve = b->auth.on ? &b->auth.curve : NULL};
    char folder[sizeof b->config.clients];
    char *slash;
    snprintf(folder, sizeof folder, "%s", endpoint);
    if (strncmp(folder, "ipc:///", 7) == 0 && (slash = strrchr(folder + 7, '/'))) {
        *slash = '\0';
        file_mkdirs(folder + 6); /* what stops this stops the bind too, which says so */
    }
    int e = endpoint_check(endpoint, err, err_bytes);
    return e ? e : sock_open(out, b->ctx, &c, err, err_bytes);
}

static int open_all(struct broker *b, char *err, size_t err_bytes) {
    struct config *c = &b->config;
    b->started_ms = b->now_ms = clock_mono_ms();
    b->now_wall_ms = clock_wall_ms();
    due_init(&b->leases, LIMIT_WORKERS * LIMIT_SPAN_JOBS);
    due_init(&b->delays, LIMIT_JOBS_QUEUED); /* a restart with a lower queue_max keeps its jobs */
    due_init(&b->expiries, LIMIT_JOBS_QUEUED);
    watches_init(&b->watches, LIMIT_SUBSCRIBERS);
    workers_init(&b->peers);
    b->payload.max_bytes = LIMIT_BODY_BYTES + LIMIT_OUTPUT_BYTES;
    int e = job_table_init(&b->jobs, LIMIT_JOBS_QUEUED);
    if (!e) e = owed_init(&b->owed, LIMIT_SUBSCRIBERS);
    if (e) return err_set(err, err_bytes, e, "out of memory");
    if ((e = reload_open(b, err, err_bytes))) return e;
    if (c->keys[0] && (e = auth_open(&b->auth, c->keys, &b->tenants, err, err_bytes))) return e;
    if ((e = file_mkdirs(c->dir))) return err_set(err, err_bytes, e, "%s: %s", c->dir, err_text(e));
    if ((e = versions_open(b, err, err_bytes))) return e;
    struct store_config sc = {
        .dir = c->dir, .meta_cap_bytes = c->meta_cap_bytes, .blob_cap_bytes = c->blob_cap_bytes};
    if ((e = store_open(&b->store, &sc, err, err_bytes))) return e;
    if (b->box) atomic_store(&b->box->phase, GLANCE_RECOVERING);
    if ((e = recover(b, err, err_bytes))) return e;
    if ((e = committer_start(&b->committer, b->store)))
        return err_set(err, err_bytes, e, "store thread: %s", err_text(e));
    if ((e = scrub_start(&b->scrub, b->store, c->scrub_bytes)))
        return err_set(err, err_bytes, e, "scrub thread: %s", err_text(e));
    if ((e = sock_ctx_open(&b->ctx))) return err_set(err, err_bytes, e, "zmq: %s", err_text(e));
    struct sock_config zap = {
        .type = SOCK_ROUTER, .hwm = 4096, .bind = true, .endpoint = ZAP_ENDPOINT};
    if (b->auth.on && (e = sock_open(&b->zap, b->ctx, &zap, err, err_bytes))) return e;
    if ((e = open_socket(b, &b->clients, c->clients, err, err_bytes))) return e;
    return open_socket(b, &b->workers, c->workers, err, err_bytes);
}

/* Before the store is opened, so that a long recovery can be watched. */
static int open_http(struct broker *b, struct http **http, char *err, size_t err_bytes) {
    if (!b->config.http[0]) return 0;
    if (!(b->box = glance_new())) return err_set(err, err_bytes, -ENOMEM, "out of memory");
    struct http_config c = {.address = b->config.http,
                            .anywhere = b->config.http_anywhere,
                            .serve = health_serve,
                            .arg = b->box};
    int e = http_open(http, &c, err, err_bytes);
    if (!e) log_info("http", "address=%s", http_address(*http));
    return e;
}

static void close_all(struct broker *b) {
    scrub_stop(b->scrub);
    committer_stop(b->committer);
    verdicts_fini(b);
    sock_close(b->clients);
    sock_close(b->workers);
    sock_close(b->zap);
    auth_close(&b->auth);
    sock_ctx_close(b->ctx);
    watches_fini(&b->watches);
    uploads_fini(&b->uploads);
    owed_fini(&b->owed);
    packs_fini(&b->packs);
    streams_fini(&b->streams);
    workers_fini(&b->peers);
    ready_fini(&b->ready);
    job_table_fini(&b->jobs);
    reload_close(b);
    tenants_fini(&b->tenants);
    due_fini(&b->leases);
    due_fini(&b->delays);
    due_fini(&b->expiries);
    buf_fini(&b->scratch);
    buf_fini(&b->payload);
    buf_fini(&b->plan.packed);
    store_close(b->store);
    versions_close(b);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "store") == 0) return verb_store(argc - 1, argv + 1);
    struct broker *b = calloc(1, sizeof *b);
    if (!b) {
        fprintf(stderr, "penstock-broker: no memory to start\n");
        return 1;
    }
    config_parse(&b->config, argc, argv);
    log_init("penstock-broker", b->config.log_level);
    log_write_as(b->config.log_format);
    accept_init();
    char err[512] = "";
    int status = 1, signal_fd = signals_init();
    struct http *http = NULL;
    if (signal_fd >= 0 && open_http(b, &http, err, sizeof err) == 0 &&
        open_all(b, err, sizeof err) == 0) {
        log_info("ready", "pid=%d clients=%s workers=%s dir=%s pipelines=%u", (int)getpid(),
                 sock_endpoint(b->clients), sock_endpoint(b->workers), b->config.dir, b->n_loaded);
        if (b->box) health_ready(b->box);
        notify_init(&b->notify);
        notify_say("READY=1\nSTATUS=accepting jobs");
        loop_run(b, signal_fd);
        log_info("stopped", "live_jobs=%u", b->jobs.len);
        status = 0;
    } else {
        fprintf(stderr, "penstock-broker: %s\n", err[0] ? err : "signals cannot be read");
    }
    http_close(http);
    glance_free(b->box);
    close_all(b);
    free(b);
    return status;
}
