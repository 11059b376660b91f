/* packs.h - answers and leases of one turn that go to the same peer, gathered into one MANY.
 *
 * Only for peers that read MANY (sock_peer.many). What is gathered leaves with the turn, or before
 * anything else to the same peer, so that order is kept.
 *
 * Units: bytes.  Owner: the broker.  Memory: PACKS_MAX frames of about LIMIT_MANY_BYTES.
 * Errors: what cannot be sent is taken back (leases), owed (ACCEPTED, RESULT, STATE) or counted as
 * dropped.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_PACKS_H
#define PENSTOCK_BROKER_PACKS_H

#include "base/sock.h"
#include "schemas/msg.h"

#define PACKS_MAX 128u
#define PACKS_PLACES 256u /* of the hash table, a power of two above PACKS_MAX */

struct pack {
    struct sock *to;
    struct sock_peer peer;
    struct buf frame;
    uint32_t n; /* messages; 0: sent already */
    int error;  /* they could not be sent: seen to when the turn ends */
};
struct packs {
    struct pack at[PACKS_MAX];
    uint32_t n;                  /* in use since the last flush */
    uint8_t place[PACKS_PLACES]; /* 0: free; else index + 1 */
    struct buf header;           /* of the MANY that is being sent */
    bool closed;                 /* what could not be sent is being seen to: gather nothing */
};
void packs_fini(struct packs *p); /* zeroed is fine */

struct broker;
/* Whether the message was taken; false: it goes alone, and what the peer was to get before it has
 * been sent. */
bool packs_take(struct broker *b, struct sock *s, const struct sock_msg *m);
/* Sends all that was gathered; true: a worker could not be given its leases, others may have them.
 */
bool packs_flush(struct broker *b);

#endif
