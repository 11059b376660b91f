/* zap.h - answers ZeroMQ's question whether a key may connect (ZAP, RFC 27).
 *
 * libzmq asks over a socket of the same context before a CURVE connection is let in. The broker's
 * loop answers it like any other socket, from the one table of keys (auth.h), so that a key which
 * is revoked is refused from the very next question on.
 *
 * Units: none.  Owner: the loop.  Memory: none.  Errors: -errno with err.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_ZAP_H
#define PENSTOCK_BROKER_ZAP_H

#include "broker/auth.h"

struct zap_answer {
    const char *status, *text; /* "200" "OK" */
    char user[16];             /* the number of the key; empty when refused */
};
/* The answer to a question without its delimiter: version, request, domain, address, routing id,
 * mechanism, credentials. Whatever is not a good question by a key that is let in is refused. */
void zap_decide(const struct auth *a, const struct bytes *frame, uint32_t n,
                struct zap_answer *out);

/* Where the handler's ROUTER is bound; before any CURVE socket of its context is. */
#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
/* Answers what has been asked, at most some hundred questions. */
void zap_serve(struct sock *s, struct auth *a, int64_t now_ms);

#endif
