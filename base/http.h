/* http.h - a small HTTP server for those who look from outside: the only door to microhttpd.h.
 *
 * GET and HEAD of a path; one thread serves all connections, of which there are a few at a time,
 * each with a time limit. Its address is on the loopback unless the caller says otherwise: nothing
 * here asks who is calling.
 *
 * Units: bytes.  Owner: the caller closes it; `serve` runs in its thread.  Memory: bounded by
 * HTTP_CONNECTIONS times HTTP_ANSWER_BYTES.  Errors: -EINVAL, -EPERM (beyond the loopback), -errno
 * with err.  Threads: open and close from one; `serve` in the thread "http". */
#ifndef PENSTOCK_BASE_HTTP_H
#define PENSTOCK_BASE_HTTP_H

#include <stdbool.h>

#include "base/bytes.h"

#define HTTP_CONNECTIONS 32u
#define HTTP_ANSWER_BYTES (2u * 1024u * 1024u)

struct http_answer { /* prepared as 200, text/plain and an empty body */
    uint32_t status;
    const char *type; /* static */
    struct buf *body;
};
typedef void (*http_serve)(void *arg, const char *path, struct http_answer *out);

struct http;
struct http_config {
    const char *address; /* 127.0.0.1:9464, [::1]:9464, localhost:9464; port 0: any that is free */
    bool anywhere;       /* the address may be beyond the loopback */
    http_serve serve;
    void *arg;
};
int http_open(struct http **out, const struct http_config *c, char *err, size_t err_bytes);
void http_close(struct http *h);                /* NULL is fine */
const char *http_address(const struct http *h); /* with the port that it has; until close */

#endif
