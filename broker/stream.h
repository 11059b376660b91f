/* stream.h - subscriptions to the jobs that end.
 *
 * A stream is a place in the order of ends (store/ended.h), a filter and a client. What it has yet
 * to send lies in the store, not in memory: a client that comes back after hours goes on from its
 * last offset, and one that reads slowly is waited for. When it has read nothing for
 * STREAM_PATIENCE_MS it is dropped, and told so with the offset to resume from as soon as it reads
 * again (owed.h). Offsets whose jobs were deleted before they were sent are told as a gap.
 *
 * Units: monotonic milliseconds.  Owner: the broker.  Memory: LIMIT_STREAMS streams, and one ENDED
 * while it is sent.  Errors: refusals.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_STREAM_H
#define PENSTOCK_BROKER_STREAM_H

#include "base/limits.h"
#include "base/sock.h"

#define STREAM_PATIENCE_MS 10000

struct tenant;
struct broker;
struct request;
struct stream {
    struct stream *next;
    struct sock_peer peer;
    uint64_t req, offset;      /* all up to here was sent or is not for it */
    const struct tenant *only; /* NULL: all tenants */
    char kind[LIMIT_NAME_BYTES + 1], pipeline[LIMIT_NAME_BYTES + 1]; /* empty: any */
    bool results;
    bool begun;         /* it was told so */
    bool behind;        /* there may be more in the store */
    int64_t retry_ms;   /* its queue was full: not before */
    int64_t blocked_ms; /* since when; 0: it reads */
    int64_t said_ms;    /* when STREAM or ENDED last went to it */
};
struct streams {
    struct stream *first;
    uint32_t n;
    bool fresh; /* a job's end was committed since they were last served */
};

void streams_fini(struct streams *t);
void on_subscribe(struct broker *b, const struct request *r);
/* Of this client with this request number; false: there is none. */
bool stream_end(struct streams *t, const struct sock_peer *peer, uint64_t req);
void streams_user_gone(struct streams *t, uint32_t user);
void streams_serve(struct broker *b);                             /* every turn */
int64_t streams_wait_ms(const struct streams *t, int64_t now_ms); /* -1: nothing is due */
/* Tells a client that it was dropped; -EAGAIN: again later. */
int stream_tell_dropped(struct broker *b, const struct sock_peer *to, uint64_t req,
                        uint64_t offset);

#endif
