/* http.h - one request to a server on loopback, its answer line by line as it comes.
 *
 * Units: bytes.  Owner, memory: none.  Errors: 0 where there was no answer.  Threads: any. */
#ifndef PENSTOCK_TESTS_BENCH_ENGINE_HTTP_H
#define PENSTOCK_TESTS_BENCH_ENGINE_HTTP_H

#include <stdint.h>

/* Calls line for each line behind the head, chunk sizes among them, and returns the status. The
 * connection serves this request alone. */
int http_lines(uint16_t port, const char *method, const char *path, const char *body,
               void (*line)(void *arg, const char *line), void *arg);

#endif
