/* rabbit.h - a RabbitMQ quorum queue under the load that broker.c puts on Penstock.
 *
 * One node is started on the same disk as a child process, with a name port (epmd), data and log of
 * its own, and driven over TCP on loopback by librabbitmq: persistent messages into one quorum
 * queue, publisher confirms (its log is flushed before), the same connections with the same window.
 * One consumer has up to 1,024 messages at a time and acknowledges up to 64 together. A window slot
 * of a DONE run is free again when its message was acknowledged.
 *
 * Units: operations a second.  Owner: what is started is stopped at the end of a run.
 * Memory: a few MiB.  Errors: 0 and a line where it cannot be started; else as in load.h.
 * Threads: one producer, one consumer. */
#ifndef PENSTOCK_TESTS_BENCH_BROKER_RABBIT_H
#define PENSTOCK_TESTS_BENCH_BROKER_RABBIT_H

#include "tests/bench/broker/load.h"

#define RABBIT_NAME "RabbitMQ quorum queue"
#define RABBIT_GET "apt-get install rabbitmq-server librabbitmq-dev, then build again"

bool rabbit_installed(void); /* false also when it was built without librabbitmq */
double rabbit_run(const char *dir, enum load_what what, uint32_t connections, uint32_t outstanding,
                  uint32_t body_bytes, int ms);

#endif
