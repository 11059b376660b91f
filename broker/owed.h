/* owed.h - answers that found no room on their way to a client, to be given when there is room.
 *
 * A client that asks for much and reads slowly fills its queue. What the broker owes it, word of a
 * job that it waited for or asked about, is then kept as three numbers and said later, instead of
 * lost: the job is looked up again at that time. Events are not owed: a stream ends there, and what
 * is owed is the notice that it was dropped, with the place to go on from.
 *
 * Units: monotonic milliseconds.  Owner: the broker.  Memory: one allocation, cap entries.
 * Errors: -ENOMEM; ERR_FULL: the caller says so to its client.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_OWED_H
#define PENSTOCK_BROKER_OWED_H

#include "base/sock.h"

enum owed_what {
    OWED_JOB,      /* how a job ended, or where it stands */
    OWED_ACCEPTED, /* that it is accepted; at: it was there before */
    OWED_VERDICTS, /* of a batch (verdicts.h), which stay until they are said */
    OWED_EVENTS,   /* its event stream was dropped behind `at` */
    OWED_STREAM    /* its subscription was dropped behind `at` */
};
struct owed {
    struct sock_peer peer;
    enum owed_what what;
    uint64_t req, job, at;
};
struct owed_list {
    struct owed *at; /* oldest first */
    uint32_t n, cap;
    int64_t retry_ms; /* no try before */
};

int owed_init(struct owed_list *l, uint32_t cap);
void owed_fini(struct owed_list *l);
int owed_add(struct owed_list *l, const struct sock_peer *peer, uint64_t req, uint64_t job,
             int64_t now_ms); /* ERR_FULL */
/* Something else, such as that a stream was dropped; ERR_FULL: it is never told, and notices by the
 * silence. */
int owed_notice(struct owed_list *l, const struct sock_peer *peer, uint64_t req,
                enum owed_what what, uint64_t job, uint64_t at, int64_t now_ms);
/* Milliseconds until a try is worth it; -1: nothing is owed. */
int64_t owed_wait_ms(const struct owed_list *l, int64_t now_ms);
/* Says what is owed, in order: `say` answers false where there is still no room, and then the
 * other entries of that client are not tried either. */
void owed_settle(struct owed_list *l, int64_t now_ms, bool (*say)(void *arg, const struct owed *o),
                 void *arg);

#endif
