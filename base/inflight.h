/* inflight.h - bytes that were sent and that zmq still holds, for each peer of one socket.
 *
 * zmq counts whole messages, and one may be 16 MiB: a peer that does not read would make its queue
 * as large as the high-water mark times that. Frames of INFLIGHT_FRAME_BYTES and more are therefore
 * copied into blocks that are counted here until zmq has written or dropped them. Shorter ones are
 * bounded well enough by the mark.
 *
 * Units: bytes.  Owner: the socket; each block keeps the table alive, for zmq frees some of them
 * after the socket was closed.  Memory: one table a socket, one block a frame.
 * Errors: -EAGAIN (the peer, or all together, have as much as they may), -ENOMEM.
 * Threads: open, room and take from the socket's thread; inflight_free from any. */
#ifndef PENSTOCK_BASE_INFLIGHT_H
#define PENSTOCK_BASE_INFLIGHT_H

#include "base/sock.h"

#define INFLIGHT_FRAME_BYTES 1024u

struct inflight;
struct inflight_peer;
struct inflight_block;

struct inflight *inflight_open(void);    /* NULL: no memory */
void inflight_close(struct inflight *t); /* the last block takes the table with it; NULL is fine */

/* Where to count so many bytes to this peer. A peer with nothing under way has room for one message
 * of any size until all together have twice what they may. */
int inflight_room(struct inflight *t, const struct sock_peer *to, uint64_t bytes,
                  struct inflight_peer **out);
/* A counted copy of data; NULL: no memory. inflight_free gives it back. */
struct inflight_block *inflight_take(struct inflight *t, struct inflight_peer *p, const void *data,
                                     size_t len);
void *inflight_data(struct inflight_block *b);
/* As zmq calls it: data is inflight_data(block), hint the block. */
void inflight_free(void *data, void *hint);
uint64_t inflight_bytes(const struct inflight *t); /* of all peers */

#endif
