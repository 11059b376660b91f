/* watch.h - clients that wait for a job or follow its events.
 *
 * A watch belongs to one job and one client connection. Waits end with RESULT or at their time;
 * event streams end with the job, with EVENTS_STOP, or when the client is gone or too slow.
 *
 * One client connection has at most LIMIT_PEER_WATCHES, so that it leaves room for the others.
 *
 * Units: monotonic milliseconds.  Owner: the set owns its watches, each is linked to its job.
 * Memory: at most cap watches.  Errors: ERR_FULL (all together), ERR_LIMIT (this client), -ENOMEM.
 * Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_WATCH_H
#define PENSTOCK_BROKER_WATCH_H

#include "base/sock.h"
#include "broker/job.h"

enum watch_type { WATCH_WAIT, WATCH_EVENTS };
struct watch {
    struct due due; /* WAIT: when its time is over */
    enum watch_type type;
    struct sock_peer peer;
    uint64_t req;
    uint64_t told_seq; /* EVENTS: the newest that was sent */
    struct job *job;
    struct watch *next;                /* of the same job */
    struct watch *all_prev, *all_next; /* of the set */
    struct watch *peer_next;           /* of the clients with this hash */
};
#define WATCH_PEERS 1024u
struct watches {
    struct watch *all;
    struct watch *by_peer[WATCH_PEERS];
    uint32_t n, cap;
    struct due_table due;
};

void watches_init(struct watches *t, uint32_t cap);
void watches_fini(struct watches *t);
/* until_ms counts for WATCH_WAIT only. */
int watch_add(struct watches *t, struct job *j, enum watch_type type, const struct sock_peer *peer,
              uint64_t req, int64_t until_ms);
void watch_drop(struct watches *t, struct watch *w); /* unlinks and frees */
/* A stream or wait of this client with this request number; NULL: none. */
struct watch *watch_find(struct watches *t, const struct sock_peer *peer, uint64_t req);

#endif
