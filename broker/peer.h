/* peer.h - the workers that are registered: what they can run, what they hold, when last heard.
 *
 * A worker is its session (drawn by the process); its connection may change under it. Credits, in
 * jobs and bytes, bound what it holds. A worker that is unheard for the lease time is lost, and the
 * caller takes its leases back.
 *
 * Units: monotonic milliseconds.  Owner: the table owns workers; a leased job points to its worker.
 * Memory: at most LIMIT_WORKERS.  Errors: ERR_FULL, -ENOMEM.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_PEER_H
#define PENSTOCK_BROKER_PEER_H

#include "base/sock.h"
#include "broker/job.h"
#include "broker/texts.h"
#include "schemas/msg.h"

#define WORKER_NAMES 64

struct worker {
    char session[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1], host[LIMIT_NAME_BYTES + 1];
    struct sock_peer peer;
    const struct tenant *tenant; /* of its key */
    uint64_t pid;
    char (*runs)[LIMIT_NAME_BYTES + 1], (*models)[LIMIT_NAME_BYTES + 1]; /* owned */
    uint32_t n_runs, n_models;
    uint32_t credit_jobs, leases; /* allowed, held */
    uint64_t credit_bytes, bytes;
    bool leaving; /* said GOODBYE: takes no more */
    bool quiet;   /* an operator wants it to leave: gets no more, and is told so */
    bool asked;   /* that operator, with this request, hears when the worker knows of it */
    bool choked;  /* its queue was full: no leases until it is heard again */
    bool kept;    /* gets no more until it is idle: a job waits that has to run alone (match.c) */
    struct sock_peer asked_by;
    uint64_t asked_req;
    int64_t since_ms, heard_ms;
    uint64_t done, failed; /* outcomes recorded */
    struct job *first;     /* its leases */
    struct texts texts;    /* that it writes */
    struct due due;        /* lost when this passes */
    struct worker *next;
};
struct workers {
    struct worker *first;
    uint32_t n;
    struct due_table due;
};

void workers_init(struct workers *t);
void workers_fini(struct workers *t);
/* A session belongs to the user (sock_peer) that registered it: nobody else finds it. */
struct worker *worker_by_session(const struct workers *t, struct bytes session, uint32_t user);
/* By name, or by session: *n is how many there are, of which the first is returned. */
struct worker *worker_named(const struct workers *t, struct bytes name, uint32_t *n);
struct worker *worker_by_peer(const struct workers *t, const struct sock_peer *peer);
/* Makes or renews the worker of this session; its leases must have been taken back before. */
int worker_register(struct workers *t, const struct msg_register *m, const struct sock_peer *peer,
                    int64_t now_ms, struct worker **out);
void worker_heard(struct workers *t, struct worker *w, int64_t now_ms, int64_t lease_ms);
void worker_remove(struct workers *t, struct worker *w); /* holds no lease any more; frees it */

bool worker_can(const struct worker *w, const char *run,
                const char *model); /* model NULL: none needed */
/* How many stages from j's on it can run in one go; 0: not even the first. */
uint32_t worker_span(const struct worker *w, const struct job *j);
/* It takes leases at all: neither on its way out, nor unable to hear. */
static inline bool worker_serves(const struct worker *w) {
    return !w->leaving && !w->quiet && !w->choked;
}
/* A worker that holds nothing takes one job of any size. */
bool worker_has_credit(const struct worker *w, uint64_t bytes);
void worker_take(struct worker *w, struct job *j, uint64_t bytes); /* the lease begins */
void worker_give(struct job *j);                                   /* and ends */

#endif
