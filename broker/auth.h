/* auth.h - who may speak with this broker, and what each may do.
 *
 * With --curve every connection proves a key, and the certificates of one folder (schemas/cert.h)
 * say which keys there are: each has a tenant and rights. A key that is let in gets a number, which
 * comes back with each of its messages (sock_peer.user). When its file goes, or names another
 * tenant, the number is worth nothing any more: that is how a revoked key's open connections end.
 * Without --curve everybody is the tenant "default" and may do everything.
 *
 *   DIR/broker.cert[_secret]   the broker's own keys
 *   DIR/NAME.cert              a key that is let in (its .cert_secret is not looked at)
 *
 * Units: none.  Owner: the broker's loop.  Memory: at most LIMIT_PEER_KEYS keys, allocated at open.
 * Errors: -errno, ERR_CORRUPT, -EPERM with err and what to do.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_AUTH_H
#define PENSTOCK_BROKER_AUTH_H

#include "broker/tenant.h"
#include "schemas/cert.h"

struct auth_key {
    struct cert cert;
    uint8_t raw[SOCK_RAW_KEY_BYTES]; /* its public key */
    struct tenant *tenant;
    uint32_t user; /* 0: this slot is free */
    bool seen;     /* by the reload that runs */
};

struct auth {
    bool on;        /* else everybody may do everything */
    char dir[512];  /* of the certificates */
    int changes_fd; /* inotify of dir; -1: re-read on SIGHUP only */
    struct cert own;
    struct sock_curve curve; /* of the broker's sockets; points into own */
    struct auth_key *keys;   /* [LIMIT_PEER_KEYS] */
    uint32_t turns;          /* makes numbers differ when a slot is used again */
    uint64_t unknown;        /* connections that were not let in */
    int64_t unknown_log_ms;  /* no line about one before */
};

/* Reads the folder. A certificate that cannot be read is left out, with a line in the log. */
int auth_open(struct auth *a, const char *dir, struct tenants *t, char *err, size_t err_bytes);
void auth_close(struct auth *a); /* accepts zeroed memory */
/* Reads the folder again; gone is called for every number that has become worthless. When the
 * folder cannot be read everything stays as it was. */
void auth_reload(struct auth *a, struct tenants *t, void (*gone)(void *arg, uint32_t user),
                 void *arg);
/* Whether something in the folder has changed since the last call. */
bool auth_changed(struct auth *a);

/* The key with this public key; NULL: not let in. */
const struct auth_key *auth_by_key(const struct auth *a, struct bytes raw);
/* The key of this number; NULL: revoked, or never given. */
const struct auth_key *auth_by_user(const struct auth *a, uint32_t user);

struct caller {
    struct tenant *tenant;
    uint32_t rights;    /* of enum cert_right */
    const char *stages; /* that it may run as a worker */
};
/* On whose behalf a peer speaks. false: it has no key (any more), so nothing of it is obeyed. */
bool auth_of(const struct auth *a, struct tenants *t, const struct sock_peer *peer,
             struct caller *out);

#endif
