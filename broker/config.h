/* config.h - the broker's command line.
 *
 * Units: milliseconds, bytes.  Owner: strings live as long as argv or the struct.  Memory: none.
 * Errors: usage errors exit with 2 (argp); the rest return negative with err.  Threads: main. */
#ifndef PENSTOCK_BROKER_CONFIG_H
#define PENSTOCK_BROKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

struct config {
    char dir[256];                   /* the store; sockets by default too */
    char clients[288], workers[288]; /* endpoints to bind */
    char pipelines[512];
    char settings[512]; /* a file; empty: none */
    bool curve;
    char keys[400]; /* certificates; empty: no CURVE */
    int64_t lease_ms, heartbeat_ms;
    int64_t upload_ttl_ms; /* an upload that is idle for this long is dropped */
    uint32_t queue_max;    /* live jobs in all */
    /* Of short bodies that are kept in memory; the others are read when their job is leased. */
    uint64_t bodies_bytes;
    uint64_t meta_cap_bytes, blob_cap_bytes; /* 0: the store's defaults */
    char http[80]; /* where /metrics and the health checks are; empty: nowhere */
    bool http_anywhere;
    int64_t retain_ms, retain_failed_ms; /* ended jobs and dead letters stay so long; 0: for ever */
    uint64_t retain_bytes;               /* and while the store is no larger; 0: any size */
    uint64_t scrub_bytes;                /* read and checked a second; 0: none */
    enum log_level log_level;
    enum log_format log_format;
};
void config_parse(struct config *c, int argc, char **argv);

#endif
