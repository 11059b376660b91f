/* outbox.h - outcomes on their way to the broker, held until each is acknowledged.
 *
 * Units: monotonic milliseconds.  Owner: takes outcomes; frees them with their acknowledgement.
 * Memory: bounded by the leases.  Errors: -EAGAIN is waited for.  Threads: the socket's owner: the
 * link thread, or the keeper after a crash. */
#ifndef PENSTOCK_WORKERS_OUTBOX_H
#define PENSTOCK_WORKERS_OUTBOX_H

#include "workers/lease.h"

struct outbox {
    struct outcome *first, *last;
    uint32_t n;
    bool many;       /* the broker reads MANY: what goes together is sent in one */
    struct buf pack; /* being gathered */
    uint32_t packed;
};

void outbox_fini(struct outbox *b); /* zeroed is fine */
void outbox_add(struct outbox *b, struct outcome *o);
/* Marks all as unsent: after a registration, since the connection may have lost them. */
void outbox_send_again(struct outbox *b);
/* Sends in order what is unsent, or unacknowledged for again_ms, until the socket is full. */
void outbox_flush(struct outbox *b, struct sock *s, int64_t now_ms, int64_t again_ms,
                  struct buf *scratch);
/* Frees the outcome; a stale one takes along everything else of that attempt. */
void outbox_acknowledged(struct outbox *b, uint64_t job, uint32_t stage, uint64_t attempt,
                         bool stale);

/* Encodes and sends one message, its payload cut into frames. scratch is used for the header. */
int outbox_send(struct sock *s, enum msg_type type, const void *message, struct bytes payload,
                struct buf *scratch);

#endif
