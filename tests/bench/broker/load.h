/* load.h - what broker.c measures with: clients, a worker, an echo over bare libzmq, and the disk.
 *
 * Everything runs beside the broker on one machine, as `penstock up` does. The servers are child
 * processes; the clients of one run are one thread with a socket for each connection.
 *
 * Units: operations a second.  Owner: the caller stops what it starts.  Memory: a few MiB.
 * Errors: a message and exit(1): this is a benchmark.  Threads: as said. */
#ifndef PENSTOCK_TESTS_BENCH_BROKER_LOAD_H
#define PENSTOCK_TESTS_BENCH_BROKER_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

enum load_what {
    LOAD_ECHO,   /* a message of the same size there and back */
    LOAD_ACCEPT, /* SUBMIT to ACCEPTED */
    LOAD_DONE    /* SUBMIT, ACCEPTED, WAIT, RESULT */
};
struct load {
    const char *endpoint, *pipeline;
    enum load_what what;
    uint32_t connections, outstanding; /* requests on each connection at any time */
    uint32_t body_bytes;
    int ms;
    uint64_t requests; /* when not 0: until so many have ended, however long it takes */
};
struct load_result {
    double rate;           /* requests that ended, a second */
    double p50_us, p99_us; /* LOAD_ECHO and LOAD_ACCEPT: from request to answer */
};
struct load_result load_run(const struct load *l);

pid_t echo_start(const char *endpoint); /* a ROUTER that sends every message back */
/* Its sockets are ipc://DIR/clients and /workers; pipelines: echo, of one stage, and echo3, of
 * three that are all checkpointed. */
pid_t broker_start(const char *dir);
pid_t child_start(void); /* a fork that dies with this program; 0 in the child */
void child_stop(pid_t pid);

struct worker_thread; /* runs test.echo at once, in a thread */
struct worker_thread *worker_start(const char *endpoint, uint32_t output_bytes);
uint64_t worker_done(const struct worker_thread *w); /* stages so far */
void worker_stop(struct worker_thread *w);

double flush_rate(const char *dir, int ms); /* pwrite of 4 KiB and fdatasync */
double lmdb_rate(const char *dir, int ms);  /* one record of 256 bytes a synced commit */

#endif
