/* broker.c - how many jobs a second the broker accepts durably and brings to their results.
 *
 * usage: broker [RUNS]
 *
 *   accept.c1.256B   one client, one SUBMIT at a time, to its ACCEPTED; and its p50
 *   accept.c64.256B  64 connections with 16 SUBMITs outstanding each; and its p99
 *   done.c64.256B    the same to the RESULT, through one stage of a worker that answers at once
 *   done3.c64.256B   through three stages, each of which is checkpointed
 *   done.c64.64KiB   one stage, bodies of 64 KiB and results of 256 bytes
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

#include "base/file.h"
#include "tests/bench/broker/load.h"
#include "tests/bench/broker/peers.h"
#include "tests/bench/report/report.h"

enum { RUNS_MIN = 5, RUNS_MAX = 50, RUN_MS = 1000, LIMIT_MS = 500 };
enum { SMALL = 256, LARGE = 64 * 1024 };

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
    DONE_64,
    DONE3_64,
    DONE_64_LARGE,
    REDIS_ACCEPT_1,
    REDIS_ACCEPT_64,
    REDIS_DONE_64,
    REDIS_DONE_LARGE,
    BEAN_ACCEPT_64,
    BEAN_DONE_64,
    VALUES,
    NONE = VALUES
};

static double value[VALUES][RUNS_MAX];

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

static struct load_result with_echo(uint32_t connections, uint32_t outstanding, uint32_t bytes) {
    char dir[64], endpoint[128];
    fresh_dir(dir);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/echo", dir);
    pid_t pid = echo_start(endpoint);
    struct load l = {endpoint, "echo", LOAD_ECHO, connections, outstanding, bytes, LIMIT_MS};
    struct load_result r = load_run(&l);
    child_stop(pid);
    remove_dir(dir);
    return r;
}

static struct load_result with_broker(enum load_what what, const char *pipeline,
                                      uint32_t connections, uint32_t outstanding, uint32_t bytes) {
    char dir[64], clients[128], workers[128];
    fresh_dir(dir);
    snprintf(clients, sizeof clients, "ipc://%s/clients", dir);
    snprintf(workers, sizeof workers, "ipc://%s/workers", dir);
    pid_t pid = broker_start(dir);
    struct worker_thread *w = what == LOAD_DONE ? worker_start(workers, SMALL) : NULL;
    struct load l = {clients, pipeline, what, connections, outstanding, bytes, RUN_MS};
    struct load_result r = load_run(&l);
    if (w) worker_stop(w);
    child_stop(pid);
    remove_dir(dir);
    return r;
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

static void run_once(int i) {
    char dir[64];
    struct load_result r;
    fresh_dir(dir);
    /* A disk that others use changes by the second: it is measured on both sides. */
    value[FLUSH][i] = flush_rate(dir, LIMIT_MS) / 2;
    value[LMDB][i] = lmdb_rate(dir, LIMIT_MS) / 2;
    r = with_broker(LOAD_ACCEPT, "echo", 1, 1, SMALL);
    value[ACCEPT_1][i] = r.rate;
    value[ACCEPT_1_P50][i] = r.p50_us;
    value[REDIS_ACCEPT_1][i] = with_peer(&peer_redis, LOAD_ACCEPT, 1, 1, SMALL);
    value[LMDB][i] += lmdb_rate(dir, LIMIT_MS) / 2;
    value[FLUSH][i] += flush_rate(dir, LIMIT_MS) / 2;
    remove_dir(dir);
    r = with_echo(1, 1, SMALL);
    value[ZMQ_1][i] = r.rate;
    value[ZMQ_1_P50][i] = r.p50_us;
    value[ZMQ_64][i] = with_echo(64, 16, SMALL).rate;
    r = with_broker(LOAD_ACCEPT, "echo", 64, 16, SMALL);
    value[ACCEPT_64][i] = r.rate;
    value[ACCEPT_64_P99][i] = r.p99_us;
    value[REDIS_ACCEPT_64][i] = with_peer(&peer_redis, LOAD_ACCEPT, 64, 16, SMALL);
    value[BEAN_ACCEPT_64][i] = with_peer(&peer_beanstalkd, LOAD_ACCEPT, 64, 16, SMALL);
    value[DONE_64][i] = with_broker(LOAD_DONE, "echo", 64, 16, SMALL).rate;
    value[REDIS_DONE_64][i] = with_peer(&peer_redis, LOAD_DONE, 64, 16, SMALL);
    value[BEAN_DONE_64][i] = with_peer(&peer_beanstalkd, LOAD_DONE, 64, 16, SMALL);
    value[DONE3_64][i] = with_broker(LOAD_DONE, "echo3", 64, 16, SMALL).rate;
    value[ZMQ_64_LARGE][i] = with_echo(64, 16, LARGE).rate;
    value[DONE_64_LARGE][i] = with_broker(LOAD_DONE, "echo", 64, 16, LARGE).rate;
    value[REDIS_DONE_LARGE][i] = with_peer(&peer_redis, LOAD_DONE, 64, 16, LARGE);
}

static double middle(enum value v, int runs) {
    return v == NONE ? 0 : report_median(value[v], runs);
}

static void tell(int runs) {
    static const struct {
        const char *name, *unit, *limit_of;
        enum value value, limit;
        double share; /* of the limit that one operation may have */
        const struct peer *peer;
        enum value peer_value;
    } rows[] = {
        {"flush.4KiB", "flushes/s", NULL, FLUSH, NONE, 1, NULL, NONE},
        {"lmdb.256B", "commits/s", "pwrite and fdatasync of 4 KiB", LMDB, FLUSH, 1, NULL, NONE},
        {"zmq.c1.256B", "round trips/s", NULL, ZMQ_1, NONE, 1, NULL, NONE},
        {"zmq.c64.256B", "round trips/s", NULL, ZMQ_64, NONE, 1, NULL, NONE},
        {"accept.c1.256B", "jobs/s", "LMDB commits of one record", ACCEPT_1, LMDB, 1, &peer_redis,
         REDIS_ACCEPT_1},
        {"accept.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_64, ZMQ_64, 1, &peer_redis,
         REDIS_ACCEPT_64},
        {"accept.c64.256B", "jobs/s", "libzmq round trips", ACCEPT_64, ZMQ_64, 1, &peer_beanstalkd,
         BEAN_ACCEPT_64},
        {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", DONE_64, ZMQ_64, 3,
         &peer_redis, REDIS_DONE_64},
        {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", DONE_64, ZMQ_64, 3,
         &peer_beanstalkd, BEAN_DONE_64},
        {"done3.c64.256B", "jobs/s", "libzmq round trips, five a job", DONE3_64, ZMQ_64, 5, NULL,
         NONE},
        {"done.c64.64KiB", "jobs/s", "libzmq round trips of 64 KiB", DONE_64_LARGE, ZMQ_64_LARGE, 1,
         &peer_redis, REDIS_DONE_LARGE},
    };
    struct report *b = report_open("broker", runs);
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++)
        report_add(b, &(struct report_row){.name = rows[i].name,
                                           .unit = rows[i].unit,
                                           .value = middle(rows[i].value, runs),
                                           .limit_of = rows[i].limit_of,
                                           .limit = middle(rows[i].limit, runs) / rows[i].share,
                                           .peer = rows[i].peer ? rows[i].peer->name : NULL,
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
    report_close(b);
    const struct peer *peers[] = {&peer_redis, &peer_beanstalkd};
    for (uint32_t i = 0; i < 2; i++)
        if (!peer_installed(peers[i]))
            printf("%s is not here: %s\n", peers[i]->name, peers[i]->get);
}

int main(int argc, char **argv) {
    int runs = argc > 1 ? atoi(argv[1]) : RUNS_MIN;
    if (runs < 1 || runs > RUNS_MAX)
        die("usage: broker [RUNS], from 1 (a look) to 50; %d are the "
            "least to quote",
            RUNS_MIN);
    for (int i = 0; i < runs; i++) run_once(i);
    tell(runs);
    return 0;
}
