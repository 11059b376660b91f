/* broker.c - how many jobs a second the broker accepts durably and brings to their results.
 *
 * usage: broker [RUNS]
 *
 *   accept.c1.256B   one client, one SUBMIT at a time, to its ACCEPTED
 *   accept.c64.256B  64 connections with 16 SUBMITs outstanding each
 *   done.c64.256B    the same to the RESULT, through one stage of a worker that answers at once
 *
 * beside the limits of the same minute: pwrite+fdatasync and LMDB commits of one record on the same
 * disk, and round trips of messages of the same size over a bare libzmq ROUTER and the same
 * DEALERs. A job's way takes three round trips: SUBMIT to ACCEPTED, LEASE to STAGE_DONE, WAIT to
 * RESULT. Everything of a run is measured before the next run begins; medians are compared. Prints
 * a table and writes build/bench/broker.json.
 *
 * Units: a second.  Owner, errors: a program; it exits 1 with a message. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/bench/broker/load.h"

enum { RUNS_MIN = 5, RUNS_MAX = 50, RUN_MS = 1000, LIMIT_MS = 500 };

enum row { FLUSH, LMDB, ZMQ_1, ZMQ_64, ACCEPT_1, ACCEPT_64, DONE_64, ROWS };
static const struct {
    const char *name, *unit, *limit_of;
    enum row limit;
    double share; /* of the limit that one operation may have */
} rows[ROWS] = {
    [FLUSH] = {"flush.4KiB", "flushes/s", NULL, FLUSH, 1},
    [LMDB] = {"lmdb.256B", "commits/s", "pwrite and fdatasync of 4 KiB", FLUSH, 1},
    [ZMQ_1] = {"zmq.c1.256B", "round trips/s", NULL, ZMQ_1, 1},
    [ZMQ_64] = {"zmq.c64.256B", "round trips/s", NULL, ZMQ_64, 1},
    [ACCEPT_1] = {"accept.c1.256B", "jobs/s", "LMDB commits of one record", LMDB, 1},
    [ACCEPT_64] = {"accept.c64.256B", "jobs/s", "libzmq round trips", ZMQ_64, 1},
    [DONE_64] = {"done.c64.256B", "jobs/s", "libzmq round trips, three a job", ZMQ_64, 3},
};

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *f) {
    (void)s, (void)type, (void)f;
    return remove(path);
}

static void fresh_dir(char dir[64]) {
    strcpy(dir, "build/bench/broker-XXXXXX");
    if (file_mkdirs("build/bench") != 0 || !mkdtemp(dir)) die("build/bench cannot be written");
}

static double with_echo(const char *dir, uint32_t connections, uint32_t outstanding) {
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/echo", dir);
    pid_t pid = echo_start(endpoint);
    double rate = load_run(endpoint, LOAD_ECHO, connections, outstanding, LIMIT_MS);
    child_stop(pid);
    return rate;
}

static double with_broker(enum load_what what, uint32_t connections, uint32_t outstanding) {
    char dir[64], clients[128], workers[128];
    fresh_dir(dir);
    snprintf(clients, sizeof clients, "ipc://%s/clients", dir);
    snprintf(workers, sizeof workers, "ipc://%s/workers", dir);
    pid_t pid = broker_start(dir);
    struct worker_thread *w = what == LOAD_DONE ? worker_start(workers) : NULL;
    double rate = load_run(clients, what, connections, outstanding, RUN_MS);
    if (w) worker_stop(w);
    child_stop(pid);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return rate;
}

static void run_once(double value[ROWS]) {
    char dir[64];
    fresh_dir(dir);
    /* A disk that others use changes by the second: it is measured on both sides. */
    value[FLUSH] = flush_rate(dir, LIMIT_MS) / 2;
    value[LMDB] = lmdb_rate(dir, LIMIT_MS) / 2;
    value[ACCEPT_1] = with_broker(LOAD_ACCEPT, 1, 1);
    value[LMDB] += lmdb_rate(dir, LIMIT_MS) / 2;
    value[FLUSH] += flush_rate(dir, LIMIT_MS) / 2;
    value[ZMQ_1] = with_echo(dir, 1, 1);
    value[ZMQ_64] = with_echo(dir, 64, 16);
    value[ACCEPT_64] = with_broker(LOAD_ACCEPT, 64, 16);
    value[DONE_64] = with_broker(LOAD_DONE, 64, 16);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double v[RUNS_MAX][ROWS], int runs, enum row row) {
    double sorted[RUNS_MAX];
    for (int i = 0; i < runs; i++) sorted[i] = v[i][row];
    qsort(sorted, (size_t)runs, sizeof *sorted, by_value);
    return sorted[runs / 2];
}

static void put_text(struct json *to, const char *key, const char *text) {
    json_set(to, key, text ? json_new_str(text, strlen(text)) : json_new_null());
}

static struct json *report_row(enum row row, double value, double limit, int runs) {
    struct json *j = json_new_object();
    put_text(j, "case", rows[row].name);
    json_set(j, "value", json_new_real(value));
    put_text(j, "unit", rows[row].unit);
    put_text(j, "peer", NULL);
    json_set(j, "peer_value", json_new_null());
    json_set(j, "ratio", json_new_null());
    bool limited = rows[row].limit != row;
    json_set(j, "limit", limited ? json_new_real(limit) : json_new_null());
    put_text(j, "limit_of", rows[row].limit_of);
    json_set(j, "fraction", limited ? json_new_real(value / limit) : json_new_null());
    json_set(j, "runs", json_new_int(runs));
    return j;
}

static void machine_name(char *to, size_t bytes) {
    char line[256], *colon;
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(to, bytes, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "model name", 10) != 0 || !(colon = strchr(line, ':'))) continue;
        snprintf(to, bytes, "%.*s, %ld cores", (int)strcspn(colon + 2, "\n"), colon + 2,
                 sysconf(_SC_NPROCESSORS_ONLN));
        break;
    }
    if (f) fclose(f);
}

static void write_report(const char *machine, struct json *list) {
    const char *commit = getenv("PENSTOCK_COMMIT");
    char err[256];
    struct json *report = json_new_object();
    put_text(report, "bench", "broker");
    put_text(report, "machine", machine);
    put_text(report, "commit", commit ? commit : "unknown");
    json_set(report, "rows", list);
    char *text = json_text(report, 2);
    if (!text || file_replace("build/bench/broker.json", text, strlen(text), err, sizeof err) != 0)
        die("build/bench/broker.json cannot be written");
    free(text);
    json_free(report);
}

int main(int argc, char **argv) {
    static double value[RUNS_MAX][ROWS];
    char machine[300];
    int runs = argc > 1 ? atoi(argv[1]) : RUNS_MIN;
    if (runs < RUNS_MIN || runs > RUNS_MAX) die("usage: broker [RUNS], from 5 to 50");
    machine_name(machine, sizeof machine);
    printf("broker on %s, median of %d runs\n%-16s %10s %-14s %10s %6s\n", machine, runs, "case",
           "value", "unit", "limit", "of it");
    fflush(stdout);
    for (int i = 0; i < runs; i++) run_once(value[i]);
    struct json *list = json_new_array();
    for (enum row r = 0; r < ROWS; r++) {
        double v = median(value, runs, r), limit = median(value, runs, rows[r].limit);
        limit /= rows[r].share;
        printf("%-16s %10.0f %-14s ", rows[r].name, v, rows[r].unit);
        if (rows[r].limit != r)
            printf("%10.0f %4.0f %%  %s\n", limit, 100 * v / limit, rows[r].limit_of);
        else
            printf("%10s %6s\n", "-", "-");
        json_push(list, report_row(r, v, limit, runs));
    }
    write_report(machine, list);
    return 0;
}
