/* broker.c - how many jobs a second the broker accepts durably and brings to their results.
 *
 * usage: broker [RUNS] [million]; RUNS 0 leaves everything but the million out
 *
 *   accept.c1.256B   one client, one SUBMIT at a time, to its ACCEPTED; and its p50
 *   accept.c64.256B  64 connections with 16 SUBMITs outstanding each; its p99, and the broker's
 *                    processor time a job
 *   accept.keys      the same, each job with an idempotency key of its own
 *   accept.batch     4 connections with 2 SUBMIT_MANY of 1,000 jobs outstanding each
 *   done.c64.256B    64 x 16 to the RESULT, through one stage of a worker that answers at once
 *   done3.c64.256B   through three stages, each of which is checkpointed
 *   done.c64.64KiB   one stage, bodies of 64 KiB and results of 256 bytes
 *   *.curve.*        the same with CURVE on both of the broker's sockets
 *
 *   *.1M             with `million`, once: a queue of a million jobs, its memory, the restart with
 *                    it, and how fast a worker drains it beside an almost empty one
 *
 * beside Redis Streams and beanstalkd on the same disk with the same connections and window
 * (peers.h), and the limits of the same minute: pwrite+fdatasync and LMDB commits of one record,
 * and round trips of messages of the same size over a bare libzmq ROUTER and the same DEALERs. A
 * job's way takes three round trips: SUBMIT to ACCEPTED, LEASE to STAGE_DONE, WAIT to RESULT.
 * Everything of a run is measured before the next run begins; medians are compared.
 *
 * Units: as each row says.  Owner, errors: a program; it exits 1 with a message. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "tests/bench/broker/load.h"
#include "tests/bench/broker/peers.h"
#include "tests/bench/broker/rabbit.h"
#include "tests/bench/report/report.h"

enum { RUNS_MIN = 5, RUNS_MAX = 50, RUN_MS = 1000, LIMIT_MS = 500 };
enum { SMALL = 256, LARGE = 64 * 1024, BATCH = 1000 };
enum { MILLION = 998000, FEW = 20000, DRAIN_MS = 1000 }; /* a million is the broker's limit */

enum value {
    FLUSH,
    LMDB,
    ZMQ_1,
    ZMQ_1_P50,
    ZMQ_64,
    ZMQ_64_LARGE,
    ACCEPT_1,
    ACCEPT_1_P50,
    ACCEPT_64,
    ACCEPT_64_P99,
    ACCEPT_64_CPU,
    ACCEPT_KEYS,
    ACCEPT_BATCH,
    LMDB_BATCH,
    ZMQ_CURVE,
    ACCEPT_CURVE,
    DONE_CURVE,
    DONE_64,
    DONE3_64,
    DONE_64_LARGE,
    REDIS_ACCEPT_1,
    REDIS_ACCEPT_64,
    REDIS_DONE_64,
    REDIS_DONE_LARGE,
    BEAN_ACCEPT_64,
    RABBIT_ACCEPT_64,
    BEAN_DONE_64,
    RABBIT_DONE_64,
    VALUES,
    NONE = VALUES
};

static double value[VALUES][RUNS_MAX];
static struct load_keys keys;

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f) {
    (void)s, (void)type, (void)f;
    return remove(path);
}

static void fresh_dir(char dir[64]) {
    strcpy(dir, "build/bench/broker-XXXXXX");
    if (file_mkdirs("build/bench") != 0 || !mkdtemp(dir)) die("build/bench cannot be written");
}

static void remove_dir(const char *dir) {
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct load_result with_echo(uint32_t connections, uint32_t outstanding, uint32_t bytes,
                                    const struct load_keys *k) {
    char dir[64], endpoint[128];
    fresh_dir(dir);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/echo", dir);
    pid_t pid = echo_start(endpoint, k);
    struct load l = {.endpoint = endpoint,
                     .pipeline = "echo",
                     .what = LOAD_ECHO,
                     .connections = connections,
                     .outstanding = outstanding,
                     .body_bytes = bytes,
                     .ms = LIMIT_MS,
                     .keys = k};
    struct load_result r = load_run(&l);
    child_stop(pid);
    remove_dir(dir);
    return r;
}

/* Runs the load against a broker of its own; *cpu_us, which may be NULL: a job. */
static struct load_result with_load(struct load l, double *cpu_us) {
    char dir[64], clients[128], workers[128];
    fresh_dir(dir);
    snprintf(clients, sizeof clients, "ipc://%s/clients", dir);
    snprintf(workers, sizeof workers, "ipc://%s/workers", dir);
    pid_t pid = broker_start(dir, l.keys);
    struct worker_thread *w = l.what == LOAD_DONE ? worker_start(workers, SMALL, l.keys) : NULL;
    l.endpoint = clients;
    l.ms = RUN_MS;
    struct load_result r = load_run(&l);
    if (w) worker_stop(w);
    double us = child_stop(pid);
    if (cpu_us) *cpu_us = us / (double)r.ended;
    remove_dir(dir);
    return r;
}

static struct load_result with_broker(enum load_what what, const char *pipeline,
                                      uint32_t connections, uint32_t outstanding, uint32_t bytes) {
    return with_load((struct load){.pipeline = pipeline,
                                   .what = what,
                                   .connections = connections,
                                   .outstanding = outstanding,
                                   .body_bytes = bytes},
                     NULL);
}

static double with_rabbit(enum load_what what, uint32_t connections, uint32_t outstanding,
                          uint32_t bytes) {
    char dir[64];
    if (!rabbit_installed()) return 0;
    fresh_dir(dir);
    double rate = rabbit_run(dir, what, connections, outstanding, bytes, RUN_MS);
    remove_dir(dir);
    return rate;
}

static double with_peer(const struct peer *p, enum load_what what, uint32_t connections,
                        uint32_t outstanding, uint32_t bytes) {
    char dir[64];
    if (!peer_installed(p)) return 0;
    fresh_dir(dir);
    double rate = peer_run(p, dir, what, connections, outstanding, bytes, RUN_MS);
    remove_dir(dir);
    return rate;
}

/* A disk that others use changes by the second: it is measured on both sides of what needs it. */
static void measure_disk(int i, const char *dir) {
    value[FLUSH][i] += flush_rate(dir, LIMIT_MS) / 2;
    value[LMDB][i] += lmdb_rate(dir, LIMIT_MS, 1) / 2;
    value[LMDB_BATCH][i] += lmdb_rate(dir, LIMIT_MS, BATCH) / 2;
}

static void run_one_client(int i) {
    char dir[64];
    fresh_dir(dir);
    measure_disk(i, dir);
    struct load_result r = with_broker(LOAD_ACCEPT, "echo", 1, 1, SMALL);
    value[ACCEPT_1][i] = r.rate;
    value[ACCEPT_1_P50][i] = r.p50_us;
    value[REDIS_ACCEPT_1][i] = with_peer(&peer_redis, LOAD_ACCEPT, 1, 1, SMALL);
    measure_disk(i, dir);
    remove_dir(dir);
    r = with_echo(1, 1, SMALL, NULL);
    value[ZMQ_1][i] = r.rate;
    value[ZMQ_1_P50][i] = r.p50_us;
}

static void run_accept(int i) {
    struct load l = {.pipeline = "echo",
                     .what = LOAD_ACCEPT,
                     .connections = 64,
                     .outstanding = 16,
                     .body_bytes = SMALL};
    struct load keyed = l, many = l;
    keyed.keyed = true;
    many.connections = 4;
    many.outstanding = 2;
    many.batch = BATCH;
    value[ZMQ_64][i] = with_echo(64, 16, SMALL, NULL).rate;
    struct load_result r = with_load(l, &value[ACCEPT_64_CPU][i]);
    value[ACCEPT_64][i] = r.rate;
    value[ACCEPT_64_P99][i] = r.p99_us;
    value[REDIS_ACCEPT_64][i] = with_peer(&peer_redis, LOAD_ACCEPT, 64, 16, SMALL);
    value[BEAN_ACCEPT_64][i] = with_peer(&peer_beanstalkd, LOAD_ACCEPT, 64, 16, SMALL);
    value[RABBIT_ACCEPT_64][i] = with_rabbit(LOAD_ACCEPT, 64, 16, SMALL);
    value[ACCEPT_KEYS][i] = with_load(keyed, NULL).rate;
    value[ACCEPT_BATCH][i] = with_load(many, NULL).rate;
}

static void run_curve(int i) {
    struct load l = {.pipeline = "echo",
                     .what = LOAD_ACCEPT,
                     .connections = 64,
                     .outstanding = 16,
                     .body_bytes = SMALL,
                     .keys = &keys};
    value[ZMQ_CURVE][i] = with_echo(64, 16, SMALL, &keys).rate;
    value[ACCEPT_CURVE][i] = with_load(l, NULL).rate;
    l.what = LOAD_DONE;
    value[DONE_CURVE][i] = with_load(l, NULL).rate;
}

static void run_once(int i) {
    run_one_client(i);
    run_accept(i);
    value[DONE_64][i] = with_broker(LOAD_DONE, "echo", 64, 16, SMALL).rate;
    value[REDIS_DONE_64][i] = with_peer(&peer_redis, LOAD_DONE, 64, 16, SMALL);
    value[BEAN_DONE_64][i] = with_peer(&peer_beanstalkd, LOAD_DONE, 64, 16, SMALL);
    value[RABBIT_DONE_64][i] = with_rabbit(LOAD_DONE, 64, 16, SMALL);
    value[DONE3_64][i] = with_broker(LOAD_DONE, "echo3", 64, 16, SMALL).rate;
    run_curve(i);
    value[ZMQ_64_LARGE][i] = with_echo(64, 16, LARGE, NULL).rate;
    value[DONE_64_LARGE][i] = with_broker(LOAD_DONE, "echo", 64, 16, LARGE).rate;
    value[REDIS_DONE_LARGE][i] = with_peer(&peer_redis, LOAD_DONE, 64, 16, LARGE);
}

static double middle(enum value v, int runs) {
    return v == NONE ? 0 : report_median(value[v], runs);
}

static void tell(struct report *b, int runs) {
    const char *redis = peer_redis.name, *bean = peer_beanstalkd.name;
    const struct {
        const char *name, *unit, *limit_of;
        enum value value, limit;
        double share; /* of the limit that one operation may have */
        const char *peer;
        enum value peer_value;
    } rows[] = {
        {"flush.4KiB", "flushes/s", NULL, FLUSH, NONE, 1, NULL, NONE},
        {"lmdb.256B", "commits/s", "pwrite and fdatasync of 4 KiB", LMDB, FLUSH, 1, NULL, NONE},
        {"lmdb.batch.256B", "records/s", NULL, LMDB_BATCH, NONE, 1, NULL, NONE},
        {"zmq.c1.256B", "round trips/s", NULL, ZMQ_1, NONE, 1, NULL, NONE},
        {"zmq.c64.256B", "round trips/s", NULL, ZMQ_64, NONE, 1, NULL, NONE},
        {"zmq.curve.c64.256B", "round trips/s", NULL, ZMQ_CURVE, NONE, 1, NULL, NONE},
        {"accept.c1.256B", "jobs/s", "LMDB commits of one record", ACCEPT_1, LMDB, 1, redis,
         REDIS_ACCEPT_1},
        {"accept.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_64, ZMQ_64, 1, redis,
         REDIS_ACCEPT_64},
        {"accept.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_64, ZMQ_64, 1, bean,
         BEAN_ACCEPT_64},
        {"accept.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_64, ZMQ_64, 1, RABBIT_NAME,
         RABBIT_ACCEPT_64},
        {"accept.keys.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_KEYS, ZMQ_64, 1,
         "without keys", ACCEPT_64},
        {"accept.curve.c64.256B", "jobs/s", "libzmq round trips, CURVE", ACCEPT_CURVE, ZMQ_CURVE, 1,
         "without CURVE", ACCEPT_64},
        {"accept.batch.256B", "jobs/s", "LMDB records, 1,000 a commit", ACCEPT_BATCH, LMDB_BATCH, 1,
         NULL, NONE},
        {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", DONE_64, ZMQ_64, 3, redis,
         REDIS_DONE_64},
        {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", DONE_64, ZMQ_64, 3, bean,
         BEAN_DONE_64},
        {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", DONE_64, ZMQ_64, 3,
         RABBIT_NAME, RABBIT_DONE_64},
        {"done3.c64.256B", "jobs/s", "libzmq round trips, five a job", DONE3_64, ZMQ_64, 5, NULL,
         NONE},
        {"done.curve.c64.256B", "jobs/s", "libzmq round trips, CURVE, three a job", DONE_CURVE,
         ZMQ_CURVE, 3, "without CURVE", DONE_64},
        {"done.c64.64KiB", "jobs/s", "libzmq round trips of 64 KiB", DONE_64_LARGE, ZMQ_64_LARGE, 1,
         redis, REDIS_DONE_LARGE},
    };
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++)
        report_add(b, &(struct report_row){.name = rows[i].name,
                                           .unit = rows[i].unit,
                                           .value = middle(rows[i].value, runs),
                                           .limit_of = rows[i].limit_of,
                                           .limit = middle(rows[i].limit, runs) / rows[i].share,
                                           .peer = rows[i].peer,
                                           .peer_value = middle(rows[i].peer_value, runs)});
    /* A single client waits for one round trip and one commit; 64 of them for a few commits. */
    double commit_us = 1e6 / middle(LMDB, runs);
    report_add(b, &(struct report_row){.name = "accept.c1.256B.p50",
                                       .unit = "us",
                                       .value = middle(ACCEPT_1_P50, runs),
                                       .less_is_better = true,
                                       .limit_of = "one round trip and one LMDB commit",
                                       .limit = middle(ZMQ_1_P50, runs) + commit_us});
    report_add(b, &(struct report_row){.name = "accept.c64.256B.p99",
                                       .unit = "us",
                                       .value = middle(ACCEPT_64_P99, runs),
                                       .less_is_better = true,
                                       .limit_of = "four LMDB commits of one record",
                                       .limit = 4 * commit_us});
    report_add(b, &(struct report_row){.name = "accept.c64.256B.cpu",
                                       .unit = "us of CPU a job",
                                       .value = middle(ACCEPT_64_CPU, runs),
                                       .less_is_better = true});
}

/* ---- a queue of a million ---- */

static double resident_bytes(pid_t pid) {
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "RssAnon: %lf", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

/* Stages a second that a worker answers as soon as it is there, with so many jobs queued. */
static double drain_rate(const char *workers) {
    struct worker_thread *w = worker_start(workers, SMALL, NULL);
    while (worker_done(w) == 0) usleep(1000);
    uint64_t before = worker_done(w);
    usleep(DRAIN_MS * 1000);
    double rate = (double)(worker_done(w) - before) * 1000 / DRAIN_MS;
    worker_stop(w);
    return rate;
}

struct queue_figures {
    double bytes_a_job, restart_ms, drain;
};

static struct queue_figures with_queue(uint64_t jobs) {
    char dir[64], clients[128], workers[128];
    struct queue_figures q;
    fresh_dir(dir);
    snprintf(clients, sizeof clients, "ipc://%s/clients", dir);
    snprintf(workers, sizeof workers, "ipc://%s/workers", dir);
    pid_t pid = broker_start(dir, NULL);
    struct load all = {.endpoint = clients,
                       .pipeline = "echo",
                       .what = LOAD_ACCEPT,
                       .connections = 64,
                       .outstanding = 16,
                       .body_bytes = SMALL,
                       .requests = jobs};
    struct load one = all;
    one.connections = one.outstanding = 1;
    one.requests = 1;
    load_run(&one);
    double empty = resident_bytes(pid);
    load_run(&all);
    q.bytes_a_job = (resident_bytes(pid) - empty) / (double)jobs;
    child_stop(pid);
    int64_t began = clock_mono_ns();
    pid = broker_start(dir, NULL);
    load_run(&one); /* answered when it is ready */
    q.restart_ms = (double)(clock_mono_ns() - began) / 1e6;
    q.drain = drain_rate(workers);
    child_stop(pid);
    remove_dir(dir);
    return q;
}

static void million(struct report *r) {
    struct queue_figures few = with_queue(FEW), many = with_queue(MILLION);
    report_add(r, &(struct report_row){.name = "memory.1M",
                                       .unit = "bytes a job",
                                       .value = many.bytes_a_job,
                                       .less_is_better = true,
                                       .runs = 1});
    report_add(r, &(struct report_row){.name = "restart.1M",
                                       .unit = "ms",
                                       .value = many.restart_ms,
                                       .less_is_better = true,
                                       .runs = 1});
    report_add(r, &(struct report_row){.name = "drain.1M",
                                       .unit = "stages/s",
                                       .value = many.drain,
                                       .limit_of = "with 20,000 queued",
                                       .limit = few.drain,
                                       .runs = 1});
}

int main(int argc, char **argv) {
    int runs = RUNS_MIN;
    bool with_million = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "million") == 0)
            with_million = true;
        else
            runs = atoi(argv[i]);
    }
    if (runs < (with_million ? 0 : 1) || runs > RUNS_MAX)
        die("usage: broker [RUNS] [million]; RUNS from 1 (a look) to 50, %d are the least to quote",
            RUNS_MIN);
    load_keys_make(&keys);
    for (int i = 0; i < runs; i++) run_once(i);
    struct report *r = report_open("broker", runs);
    if (runs > 0) tell(r, runs);
    if (with_million) million(r);
    report_close(r);
    const struct peer *peers[] = {&peer_redis, &peer_beanstalkd};
    for (uint32_t i = 0; i < 2; i++)
        if (!peer_installed(peers[i]))
            printf("%s is not here: %s\n", peers[i]->name, peers[i]->get);
    if (!rabbit_installed()) printf("%s is not here: %s\n", RABBIT_NAME, RABBIT_GET);
    return 0;
}
