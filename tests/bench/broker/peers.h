/* peers.h - other durable queues under the load that broker.c puts on Penstock.
 *
 * Redis Streams with `appendfsync always` and beanstalkd with -f0 both flush before they answer, as
 * the broker does. Each is started on the same disk as a child process and driven over a unix
 * socket by the same number of connections with the same window of outstanding requests, its
 * commands pipelined and those of a turn written with one call, by one thread of producers; one
 * consumer thread takes up to 64 messages at a time and acknowledges them together. A window slot
 * of a DONE run is free again when its message was acknowledged.
 *
 * Units: operations a second.  Owner: the caller stops what it starts.  Memory: a few MiB.
 * Errors: a message and exit(1), as in load.h.  Threads: one producer, one consumer. */
#ifndef PENSTOCK_TESTS_BENCH_BROKER_PEERS_H
#define PENSTOCK_TESTS_BENCH_BROKER_PEERS_H

#include "tests/bench/broker/load.h"

struct peer {
    const char *name, *program, *get; /* get: how to install it */
    void (*exec)(const char *program, const char *dir);
    int (*publish)(char *to, size_t bytes, uint32_t body_bytes); /* command up to the body */
    const char *publish_end;
    void (*consume)(int fd, uint32_t body_bytes);
};
extern const struct peer peer_redis, peer_beanstalkd;

bool peer_installed(const struct peer *p);
double peer_run(const struct peer *p, const char *dir, enum load_what what, uint32_t connections,
                uint32_t outstanding, uint32_t body_bytes, int ms);

#endif
