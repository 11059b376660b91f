/* sock.h - ZeroMQ sockets and messages: the only door to zmq.h.
 *
 * A message is a list of frames. Received frames are owned by the message (zmq keeps them alive)
 * until sock_msg_fini; sent frames are copied into zmq. Sends and receives never block: they answer
 * -EAGAIN (sock_send) or 0 (sock_recv). The application's framing (schemas/msg.h) knows nothing of
 * zmq, and this module knows nothing of it.
 *
 * Set on each socket as the design asks: ROUTER_MANDATORY, LINGER finite, MAXMSGSIZE, HWM,
 * IMMEDIATE and jittered reconnect on DEALERs, IPv6 off, handshake and heartbeat left to the
 * application.
 *
 * With keys (CURVE) both sides of a connection prove who they are and everything is encrypted. A
 * ROUTER then asks the ZAP handler of its context (broker/zap.h) whom to let in; without a handler
 * libzmq lets in everybody, with user 0.
 *
 * Units: milliseconds, bytes.  Owner: the thread that opened a socket; it is never shared.
 * Memory: zmq's; sent frames are bounded in bytes a peer (inflight.h) and in messages (HWM),
 * received ones by HWM x frame size x frames.  Errors: -errno of zmq (-EHOSTUNREACH: that
 * peer is gone), ERR_LIMIT for too many frames.  Threads: one owner a socket; the context is
 * shared. */
#ifndef PENSTOCK_BASE_SOCK_H
#define PENSTOCK_BASE_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"

struct sock_ctx; /* a zmq context */
struct sock;

int sock_ctx_open(struct sock_ctx **out);
void sock_ctx_close(struct sock_ctx *c); /* waits for LINGER; NULL is fine */

/* zmq cuts the connection of a peer that declares more for a frame. A frame above
 * LIMIT_FRAME_BYTES but below this still arrives, so that it can be refused in words. */
#define SOCK_FRAME_BYTES_MAX (2 * LIMIT_FRAME_BYTES)

#define SOCK_KEY_BYTES 41 /* a CURVE key as text (Z85) and a NUL */
struct sock_curve {
    const char *public_key, *secret_key; /* one's own */
    const char *server_key;              /* connecting: whose socket it must be */
};

enum sock_type { SOCK_ROUTER, SOCK_DEALER };
struct sock_config {
    enum sock_type type;
    int hwm;       /* messages, both ways; 0 takes 1000 */
    int linger_ms; /* 0 takes 500 */
    bool bind;     /* else connect */
    /* tcp://127.0.0.1:7790, ipc:///run/penstock/clients; inproc:// in tests */
    const char *endpoint;
    const struct sock_curve *curve; /* NULL: plain */
};
/* -EADDRINUSE, -EACCES, ... with err filled. Plain tcp:// beyond loopback is refused with -EPERM
 * and the fix. */
int sock_open(struct sock **out, struct sock_ctx *c, const struct sock_config *config, char *err,
              size_t err_bytes);
void sock_close(struct sock *s); /* NULL is fine */
/* The endpoint as bound, with a wildcard port resolved; borrowed until close. */
const char *sock_endpoint(const struct sock *s);

/* A new pair of keys, in text. -errno. */
int sock_curve_pair(char public_key[SOCK_KEY_BYTES], char secret_key[SOCK_KEY_BYTES]);
/* The public key that belongs to a secret one. -EINVAL: it is none. */
int sock_curve_public(char public_key[SOCK_KEY_BYTES], const char *secret_key);
#define SOCK_RAW_KEY_BYTES 32
int sock_curve_raw(uint8_t raw[SOCK_RAW_KEY_BYTES], const char *key); /* -EINVAL: not a key */

#define SOCK_PEER_BYTES 16
struct sock_peer { /* a ROUTER's routing id for one connection */
    uint8_t len, id[SOCK_PEER_BYTES];
    bool many; /* it reads several messages in one; the framing above sets it, no part of the id */
    uint32_t
        user; /* received with CURVE: the number that the ZAP handler gave as User-Id; else 0 */
};
bool sock_peer_eq(const struct sock_peer *a, const struct sock_peer *b);

struct sock_msg {
    struct sock_peer peer; /* ROUTER only: from whom or to whom */
    uint32_t frames;
    struct bytes frame[LIMIT_FRAMES]; /* without the routing id */
    void *hold[LIMIT_FRAMES];         /* zmq's own frames behind the bytes of a received message */
};
/* 1: a message was received (fini it); 0: none there; ERR_LIMIT: a message with too many frames was
 * read and thrown away (peer is filled, or of length 0 when it cannot be answered). Never
 * blocks. */
int sock_recv(struct sock *s, struct sock_msg *m);
/* Copies the frames and sends all or nothing: -EAGAIN at the high-water mark or when too many bytes
 * are on their way to a ROUTER's peer, -EHOSTUNREACH unknown peer. */
int sock_send(struct sock *s, const struct sock_msg *m);
/* A message of one's own with copies of these frames. -ENOMEM. */
int sock_msg_copy(struct sock_msg *out, const struct bytes *frame, uint32_t frames);
void sock_msg_fini(struct sock_msg *m);
void sock_msg_trim(struct sock_msg *m, uint32_t frames); /* frees those behind the first ones */

#define SOCK_WAIT_MAX 64u
/* What a loop sleeps on: sockets and plain descriptors side by side. */
struct sock_wait {
    struct sock *sock; /* or NULL: */
    int fd;
    bool readable, writable; /* ask; then answer */
};
/* Sleeps up to timeout_ms (-1: for ever); returns how many are ready, 0 also on a signal. */
int sock_wait(struct sock_wait *w, uint32_t n, int64_t timeout_ms);

#endif
