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

struct load_keys { /* CURVE, in text; one key for all clients and the worker */
    char server_public[41], server_secret[41], own_public[41], own_secret[41];
};
void load_keys_make(struct load_keys *k);

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
    uint64_t requests;            /* when not 0: until so many have ended, however long it takes */
    uint32_t batch;               /* jobs in a SUBMIT_MANY; 0: SUBMIT */
    bool keyed;                   /* each job with an idempotency key of its own */
    const struct load_keys *keys; /* NULL: plain */
};
struct load_result {
    double rate;           /* jobs, or round trips, that ended, a second */
    uint64_t ended;        /* requests in all, those of the warm-up too */
    double p50_us, p99_us; /* LOAD_ECHO and LOAD_ACCEPT: from request to answer */
};
struct load_result load_run(const struct load *l);

/* A ROUTER that sends every message back. */
pid_t echo_start(const char *endpoint, const struct load_keys *keys);
/* Its sockets are ipc://DIR/clients and /workers; pipelines: echo, of one stage, and echo3, of
 * three that are all checkpointed. */
pid_t broker_start(const char *dir, const struct load_keys *keys);
pid_t child_start(void);      /* a fork that dies with this program; 0 in the child */
double child_stop(pid_t pid); /* kills it; the processor time that it took, in microseconds */

struct worker_thread; /* runs test.echo at once, in a thread */
struct worker_thread *worker_start(const char *endpoint, uint32_t output_bytes,
                                   const struct load_keys *keys);
uint64_t worker_done(const struct worker_thread *w); /* stages so far */
void worker_stop(struct worker_thread *w);

double flush_rate(const char *dir, int ms); /* pwrite of 4 KiB and fdatasync */
/* Records of 256 bytes a second, so many in each synced commit. */
double lmdb_rate(const char *dir, int ms, uint32_t records);

#endif
