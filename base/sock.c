#include "base/sock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <zmq.h>

#include "base/err.h"
#include "base/inflight.h"

#define SOCK_HWM 1000
#define SOCK_LINGER_MS 500
#define SOCK_RECONNECT_MS 100
#define SOCK_RECONNECT_MAX_MS 2000
#define SOCK_CONNECT_MS 3000
#define SOCK_ZAP_DOMAIN "penstock"

struct sock_ctx {
    void *zmq;
};

struct sock {
    void *zmq;
    enum sock_type type;
    struct inflight *inflight; /* ROUTER only */
    bool curve;
    char endpoint[256];
};

int sock_ctx_open(struct sock_ctx **out) {
    *out = NULL;
    struct sock_ctx *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->zmq = zmq_ctx_new();
    if (!c->zmq) {
        int rc = -errno;
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void sock_ctx_close(struct sock_ctx *c) {
    if (!c) return;
    while (zmq_ctx_term(c->zmq) != 0 && errno == EINTR) {
    }
    free(c);
}

/* ---- opening ---- */

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* HOST:PORT with a host of this machine. "127.example.org" is not one, and zmq would read a second
 * address behind a ';', so each part is read strictly. */
static bool is_loopback(const char *host_port) {
    char host[64];
    const char *colon = strchr(host_port, ':');
    if (!colon || (size_t)(colon - host_port) >= sizeof host) return false;
    memcpy(host, host_port, (size_t)(colon - host_port));
    host[colon - host_port] = '\0';
    const char *port = colon + 1;
    size_t digits = strspn(port, "0123456789");
    if (strcmp(port, "*") != 0 && (digits == 0 || port[digits] != '\0')) return false;
    struct in_addr a;
    if (inet_pton(AF_INET, host, &a) == 1) return (ntohl(a.s_addr) >> 24) == 127;
    return strcmp(host, "localhost") == 0 || strcmp(host, "lo") == 0;
}

/* Without CURVE a TCP port would take jobs from anybody who can reach it. */
static int check_endpoint(const char *e, bool bind, bool curve, char *err, size_t err_bytes) {
    if (strlen(e) >= sizeof((struct sock){0}).endpoint)
        return err_set(err, err_bytes, -ENAMETOOLONG, "endpoint is too long: '%.60s...'", e);
    if (begins(e, "inproc://") && e[9]) return 0;
    if (begins(e, "ipc://") && e[6]) {
        size_t max = sizeof((struct sockaddr_un){0}).sun_path - 1;
        if (strlen(e + 6) <= max) return 0;
        return err_set(err, err_bytes, -ENAMETOOLONG,
                       "%s: a socket's path has at most %zu bytes; use a shorter folder", e, max);
    }
    if (!begins(e, "tcp://"))
        return err_set(err, err_bytes, -EINVAL,
                       "'%s' is not an endpoint; write ipc:///path or tcp://127.0.0.1:port", e);
    if (curve || is_loopback(e + 6)) return 0;
    return err_set(err, err_bytes, -EPERM,
                   "%s: plain tcp:// is allowed on loopback only; use tcp://127.0.0.1:port or "
                   "ipc:///path, or encrypt: %s",
                   e,
                   bind ? "`penstock keys init`, then --curve"
                        : "--key-file FILE and --server-key FILE (`penstock keys add` makes them)");
}

static int set_int(void *z, int option, int value) {
    return zmq_setsockopt(z, option, &value, sizeof value);
}

static int set_curve(void *z, const struct sock_curve *k, bool bind) {
    int rc = zmq_setsockopt(z, ZMQ_CURVE_SECRETKEY, k->secret_key, SOCK_KEY_BYTES);
    rc |= zmq_setsockopt(z, ZMQ_CURVE_PUBLICKEY, k->public_key, SOCK_KEY_BYTES);
    if (!bind) return rc | zmq_setsockopt(z, ZMQ_CURVE_SERVERKEY, k->server_key, SOCK_KEY_BYTES);
    rc |= set_int(z, ZMQ_CURVE_SERVER, 1);
    return rc | zmq_setsockopt(z, ZMQ_ZAP_DOMAIN, SOCK_ZAP_DOMAIN, strlen(SOCK_ZAP_DOMAIN));
}

static int set_options(void *z, const struct sock_config *config) {
    int64_t max_bytes = SOCK_FRAME_BYTES_MAX;
    int hwm = config->hwm > 0 ? config->hwm : SOCK_HWM;
    int rc = zmq_setsockopt(z, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes);
    rc |= set_int(z, ZMQ_SNDHWM, hwm);
    rc |= set_int(z, ZMQ_RCVHWM, hwm);
    rc |= set_int(z, ZMQ_LINGER, config->linger_ms > 0 ? config->linger_ms : SOCK_LINGER_MS);
    if (config->type == SOCK_ROUTER) {
        rc |= set_int(z, ZMQ_ROUTER_MANDATORY, 1);
        rc |= set_int(z, ZMQ_BACKLOG, 1024);
    } else {
        /* zmq adds a random part of the interval to each wait, so peers do not come back as one. */
        rc |= set_int(z, ZMQ_IMMEDIATE, 1);
        rc |= set_int(z, ZMQ_RECONNECT_IVL, SOCK_RECONNECT_MS);
        rc |= set_int(z, ZMQ_RECONNECT_IVL_MAX, SOCK_RECONNECT_MAX_MS);
        rc |= set_int(z, ZMQ_CONNECT_TIMEOUT, SOCK_CONNECT_MS);
    }
    if (config->curve) rc |= set_curve(z, config->curve, config->bind);
    return rc == 0 ? 0 : -errno;
}

int sock_open(struct sock **out, struct sock_ctx *c, const struct sock_config *config, char *err,
              size_t err_bytes) {
    *out = NULL;
    int rc = check_endpoint(config->endpoint, config->bind, config->curve, err, err_bytes);
    if (rc < 0) return rc;
    struct sock *s = calloc(1, sizeof *s);
    if (!s) return err_set(err, err_bytes, -ENOMEM, "out of memory for a socket");
    s->type = config->type;
    s->curve = config->curve != NULL;
    s->zmq = zmq_socket(c->zmq, config->type == SOCK_ROUTER ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!s->zmq) goto fail;
    if (set_options(s->zmq, config) < 0) goto fail;
    errno = ENOMEM;
    if (s->type == SOCK_ROUTER && !(s->inflight = inflight_open())) goto fail;
    if ((config->bind ? zmq_bind : zmq_connect)(s->zmq, config->endpoint) != 0) goto fail;
    size_t len = sizeof s->endpoint;
    if (!config->bind || zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, s->endpoint, &len) != 0)
        snprintf(s->endpoint, sizeof s->endpoint, "%s", config->endpoint);
    *out = s;
    return 0;
fail:
    rc = -errno;
    err_set(err, err_bytes, rc, "cannot %s %s: %s", config->bind ? "bind" : "connect to",
            config->endpoint, zmq_strerror(-rc));
    sock_close(s);
    return rc;
}

void sock_close(struct sock *s) {
    if (!s) return;
    if (s->zmq) zmq_close(s->zmq);
    inflight_close(s->inflight);
    free(s);
}

const char *sock_endpoint(const struct sock *s) {
    return s->endpoint;
}

/* ---- keys ---- */

int sock_curve_pair(char public_key[SOCK_KEY_BYTES], char secret_key[SOCK_KEY_BYTES]) {
    return zmq_curve_keypair(public_key, secret_key) == 0 ? 0 : -errno;
}

int sock_curve_raw(uint8_t raw[SOCK_RAW_KEY_BYTES], const char *key) {
    if (strlen(key) != SOCK_KEY_BYTES - 1) return -EINVAL;
    return zmq_z85_decode(raw, key) ? 0 : -EINVAL;
}

int sock_curve_public(char public_key[SOCK_KEY_BYTES], const char *secret_key) {
    uint8_t raw[SOCK_RAW_KEY_BYTES];
    if (sock_curve_raw(raw, secret_key) != 0) return -EINVAL;
    return zmq_curve_public(public_key, secret_key) == 0 ? 0 : -EINVAL;
}

bool sock_peer_eq(const struct sock_peer *a, const struct sock_peer *b) {
    return a->len == b->len && memcmp(a->id, b->id, a->len) == 0;
}

/* ---- receiving ---- */

/* zmq may keep a short frame inside its zmq_msg_t, so that each needs an address of its own. */
static int take_frame(struct sock *s, zmq_msg_t **out) {
    zmq_msg_t *z = malloc(sizeof *z);
    if (!z) return -ENOMEM;
    zmq_msg_init(z);
    int rc;
    do rc = zmq_msg_recv(z, s->zmq, ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = -errno;
        zmq_msg_close(z);
        free(z);
        return rc;
    }
    *out = z;
    return zmq_msg_more(z);
}

static void drop_frame(zmq_msg_t *z) {
    zmq_msg_close(z);
    free(z);
}

/* Reads what is left of a message that is not wanted. All its frames are already here. */
static void drop_rest(struct sock *s, int more) {
    zmq_msg_t z;
    while (more > 0) {
        zmq_msg_init(&z);
        if (zmq_msg_recv(&z, s->zmq, ZMQ_DONTWAIT) < 0 && errno != EINTR)
            more = 0;
        else
            more = zmq_msg_more(&z);
        zmq_msg_close(&z);
    }
}

/* The routing id in front; a peer that chose a long one for itself cannot be answered. */
static int take_peer(struct sock *s, struct sock_peer *peer) {
    zmq_msg_t *z;
    int more = take_frame(s, &z);
    if (more < 0) return more;
    size_t len = zmq_msg_size(z);
    if (len <= SOCK_PEER_BYTES) {
        peer->len = (uint8_t)len;
        memcpy(peer->id, zmq_msg_data(z), len);
    }
    drop_frame(z);
    if (len > SOCK_PEER_BYTES || !more) {
        drop_rest(s, more);
        return ERR_LIMIT;
    }
    return more;
}

/* Who sent it, in the words of the ZAP handler: a number above 0. */
static uint32_t user_of(zmq_msg_t *z) {
    const char *text = zmq_msg_gets(z, "User-Id");
    char *end;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;
    return text && *text && !*end && n <= UINT32_MAX ? (uint32_t)n : 0;
}

/* libzmq looks at its commands at every hundredth frame, in the middle of a message too. One of
 * them takes away the pipe of a peer that died (ZMQ_IMMEDIATE asks for that), with the rest of the
 * message, and then libzmq aborts the process (fq.cpp: !_more). Having looked before the message
 * leaves it nothing to find inside. */
static void settle(struct sock *s) {
    int events;
    size_t bytes = sizeof events;
    zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &bytes);
}

int sock_recv(struct sock *s, struct sock_msg *m) {
    memset(&m->peer, 0, sizeof m->peer);
    m->frames = 0;
    int more = 1;
    if (s->type == SOCK_DEALER) settle(s);
    if (s->type == SOCK_ROUTER) {
        more = take_peer(s, &m->peer);
        if (more == -EAGAIN) return 0;
        if (more < 0) return more;
    }
    while (more > 0) {
        if (m->frames == LIMIT_FRAMES) {
            drop_rest(s, more);
            sock_msg_fini(m);
            return ERR_LIMIT;
        }
        zmq_msg_t *z;
        more = take_frame(s, &z);
        if (more == -EAGAIN && m->frames == 0) return 0;
        if (more < 0) {
            if (more == -ENOMEM) drop_rest(s, 1);
            sock_msg_fini(m);
            return more;
        }
        if (s->curve && s->type == SOCK_ROUTER && m->frames == 0) m->peer.user = user_of(z);
        m->hold[m->frames] = z;
        m->frame[m->frames] = bytes_of(zmq_msg_data(z), zmq_msg_size(z));
        m->frames++;
    }
    return 1;
}

void sock_msg_trim(struct sock_msg *m, uint32_t frames) {
    for (; m->frames > frames; m->frames--) {
        uint32_t i = m->frames - 1;
        if (m->hold[i]) drop_frame(m->hold[i]);
        m->hold[i] = NULL;
        m->frame[i] = (struct bytes){NULL, 0};
    }
}

void sock_msg_fini(struct sock_msg *m) {
    sock_msg_trim(m, 0);
}

static int copy_frame(zmq_msg_t *z, const void *data, size_t len) {
    if (zmq_msg_init_size(z, len) != 0) return -errno;
    if (len) memcpy(zmq_msg_data(z), data, len);
    return 0;
}

int sock_msg_copy(struct sock_msg *out, const struct bytes *frame, uint32_t frames) {
    assert(frames <= LIMIT_FRAMES);
    memset(&out->peer, 0, sizeof out->peer);
    for (out->frames = 0; out->frames < frames; out->frames++) {
        uint32_t i = out->frames;
        zmq_msg_t *z = malloc(sizeof *z);
        if (!z || copy_frame(z, frame[i].data, frame[i].len) != 0) {
            free(z);
            sock_msg_fini(out);
            return -ENOMEM;
        }
        out->hold[i] = z;
        out->frame[i] = bytes_of(zmq_msg_data(z), frame[i].len);
    }
    return 0;
}

/* ---- sending ---- */

static int counted_frame(struct sock *s, struct inflight_peer *p, zmq_msg_t *z, struct bytes f) {
    struct inflight_block *b = inflight_take(s->inflight, p, f.data, f.len);
    if (!b) return -ENOMEM;
    if (zmq_msg_init_data(z, inflight_data(b), f.len, inflight_free, b) == 0) return 0;
    int rc = -errno;
    inflight_free(inflight_data(b), b);
    return rc;
}

/* Where the long frames to a ROUTER's peer are counted; NULL when none is long. */
static int make_room(struct sock *s, const struct sock_msg *m, struct inflight_peer **out) {
    uint64_t bytes = 0;
    *out = NULL;
    for (uint32_t i = 0; i < m->frames; i++)
        if (m->frame[i].len >= INFLIGHT_FRAME_BYTES) bytes += m->frame[i].len;
    return bytes ? inflight_room(s->inflight, &m->peer, bytes, out) : 0;
}

/* zmq accepts or refuses a message at its first frame (the mark counts whole messages), so once
 * that one is taken the others follow. */
static int send_frames(struct sock *s, zmq_msg_t *z, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0), rc;
        do rc = zmq_msg_send(&z[i], s->zmq, flags);
        while (rc < 0 && errno == EINTR);
        if (rc < 0) return -errno;
    }
    return 0;
}

int sock_send(struct sock *s, const struct sock_msg *m) {
    zmq_msg_t z[LIMIT_FRAMES + 1];
    struct inflight_peer *counted = NULL;
    uint32_t n = 0;
    int rc = 0;
    assert(m->frames > 0);
    if (m->frames > LIMIT_FRAMES) return ERR_LIMIT;
    for (uint32_t i = 0; i < m->frames; i++)
        if (m->frame[i].len > LIMIT_FRAME_BYTES) return ERR_LIMIT;
    if (s->type == SOCK_ROUTER) {
        if (m->peer.len == 0) return -EHOSTUNREACH;
        if ((rc = make_room(s, m, &counted)) < 0) return rc;
        rc = copy_frame(&z[n++], m->peer.id, m->peer.len);
    }
    for (uint32_t i = 0; rc == 0 && i < m->frames; i++) {
        struct bytes f = m->frame[i];
        rc = counted && f.len >= INFLIGHT_FRAME_BYTES ? counted_frame(s, counted, &z[n++], f)
                                                      : copy_frame(&z[n++], f.data, f.len);
    }
    if (rc < 0)
        n--; /* the last one was not made */
    else
        rc = send_frames(s, z, n);
    for (uint32_t i = 0; i < n; i++) zmq_msg_close(&z[i]); /* empty where zmq took it */
    return rc;
}

/* ---- waiting ---- */

int sock_wait(struct sock_wait *w, uint32_t n, int64_t timeout_ms) {
    zmq_pollitem_t items[SOCK_WAIT_MAX];
    assert(n <= SOCK_WAIT_MAX);
    for (uint32_t i = 0; i < n; i++) {
        items[i] = (zmq_pollitem_t){.socket = w[i].sock ? w[i].sock->zmq : NULL, .fd = w[i].fd};
        if (w[i].readable) items[i].events |= ZMQ_POLLIN;
        if (w[i].writable) items[i].events |= ZMQ_POLLOUT;
    }
    if (timeout_ms < 0) timeout_ms = -1;
    if (timeout_ms > INT_MAX) timeout_ms = INT_MAX;
    int rc = zmq_poll(items, (int)n, (long)timeout_ms);
    if (rc < 0) {
        for (uint32_t i = 0; i < n; i++) w[i].readable = w[i].writable = false;
        return errno == EINTR ? 0 : -errno;
    }
    for (uint32_t i = 0; i < n; i++) {
        w[i].readable = (items[i].revents & (ZMQ_POLLIN | ZMQ_POLLERR)) != 0;
        w[i].writable = (items[i].revents & ZMQ_POLLOUT) != 0;
    }
    return rc;
}
