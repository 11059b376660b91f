#include "broker/auth.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"

#define CERT_END ".cert"
#define BROKER_NAME "broker"

/* A number is a turn and a slot, so that finding its key needs no search. */
static uint32_t slot_of(uint32_t user) {
    return user % LIMIT_PEER_KEYS;
}

static uint32_t new_user(struct auth *a, uint32_t slot) {
    if (++a->turns > UINT32_MAX / LIMIT_PEER_KEYS - 1) a->turns = 1;
    return a->turns * LIMIT_PEER_KEYS + slot;
}

const struct auth_key *auth_by_user(const struct auth *a, uint32_t user) {
    const struct auth_key *k = a->keys && user ? &a->keys[slot_of(user)] : NULL;
    return k && k->user == user ? k : NULL;
}

static struct auth_key *find_raw(const struct auth *a, const uint8_t raw[SOCK_RAW_KEY_BYTES]) {
    struct auth_key *found = NULL;
    for (uint32_t i = 0; i < LIMIT_PEER_KEYS; i++)
        if (a->keys[i].user && memcmp(a->keys[i].raw, raw, SOCK_RAW_KEY_BYTES) == 0) {
            if (a->keys[i].seen) return &a->keys[i];
            found = &a->keys[i]; /* of another tenant, and about to go */
        }
    return found;
}

const struct auth_key *auth_by_key(const struct auth *a, struct bytes raw) {
    return a->keys && raw.len == SOCK_RAW_KEY_BYTES ? find_raw(a, raw.data) : NULL;
}

bool auth_of(const struct auth *a, struct tenants *t, const struct sock_peer *peer,
             struct caller *out) {
    if (!a->on) {
        *out = (struct caller){tenant_get(t, bytes_str(TENANT_DEFAULT)), CERT_ALL, "*"};
        return out->tenant != NULL;
    }
    const struct auth_key *k = auth_by_user(a, peer->user);
    if (!k) return false;
    *out = (struct caller){k->tenant, k->cert.rights, k->cert.stages};
    return true;
}

/* ---- reading the folder ---- */

static void complain(const char *path, const char *why) {
    char quoted[600];
    log_error("key_refused", "file=%s reason=%s", path, log_quote(quoted, sizeof quoted, why));
}

/* Whoever can write the folder could let himself in. */
static int check_dir(const char *dir, char *err, size_t err_bytes) {
    struct stat st;
    if (stat(dir, &st) != 0)
        return err_set(err, err_bytes, -errno,
                       "%s: %s; make it with `penstock keys init --keys %s`", dir, strerror(errno),
                       dir);
    if ((st.st_mode & 022) || (st.st_uid != getuid() && st.st_uid != 0))
        return err_set(err, err_bytes, -EPERM,
                       "%s can be written by other users, who could add keys; run chmod go-w on it",
                       dir);
    return 0;
}

static struct auth_key *free_slot(const struct auth *a) {
    for (uint32_t i = 0; i < LIMIT_PEER_KEYS; i++)
        if (!a->keys[i].user) return &a->keys[i];
    return NULL;
}

static void take(struct auth *a, struct tenants *t, const char *path, const struct cert *c) {
    uint8_t raw[SOCK_RAW_KEY_BYTES];
    char why[256];
    struct tenant *tenant = tenant_get(t, bytes_str(c->tenant));
    sock_curve_raw(raw, c->public_key); /* the parser has seen that it is a key */
    struct auth_key *k = find_raw(a, raw);
    if (k && k->seen) {
        snprintf(why, sizeof why, "its key is that of %s.cert too; remove one of them",
                 k->cert.name);
        complain(path, why);
        return;
    }
    if (!tenant || strcmp(tenant->name, TENANT_DEFAULT) == 0) {
        complain(path, tenant ? "tenant default is that of brokers without keys; name another"
                       : c->tenant[0] ? "there are too many tenants"
                                      : "it names no tenant");
        return;
    }
    if (!k || k->tenant != tenant) { /* with another tenant it is somebody else */
        struct auth_key *fresh = free_slot(a);
        if (!fresh) {
            snprintf(why, sizeof why, "a broker lets in at most %u keys", LIMIT_PEER_KEYS);
            complain(path, why);
            return;
        }
        k = fresh;
        k->user = new_user(a, (uint32_t)(k - a->keys));
        memcpy(k->raw, raw, sizeof raw);
        k->tenant = tenant;
    }
    k->cert = *c;
    k->seen = true;
}

static void take_file(struct auth *a, struct tenants *t, const char *name) {
    char path[sizeof a->dir + 300], err[600];
    size_t len = strlen(name), end = strlen(CERT_END);
    struct cert c;
    struct stat st;
    if (len <= end || strcmp(name + len - end, CERT_END) != 0) return;
    if (strcmp(name, BROKER_NAME CERT_END) == 0) return;
    snprintf(path, sizeof path, "%s/%.255s", a->dir, name);
    if (stat(path, &st) == 0 && (st.st_mode & 022)) {
        complain(path, "other users can write it; run chmod go-w on it");
        return;
    }
    if (cert_load(&c, path, err, sizeof err) < 0) {
        complain(path, err);
        return;
    }
    snprintf(c.name, sizeof c.name, "%.*s", (int)(len - end), name); /* what the others call it */
    take(a, t, path, &c);
}

static int read_dir(struct auth *a, struct tenants *t) {
    DIR *d = opendir(a->dir);
    if (!d) return -errno;
    for (uint32_t i = 0; i < LIMIT_PEER_KEYS; i++) a->keys[i].seen = false;
    for (struct dirent *e; (e = readdir(d));) take_file(a, t, e->d_name);
    closedir(d);
    return 0;
}

/* Before the folder is read, so that no change falls in between; the same folder is one watch. */
static void watch_dir(struct auth *a) {
    uint32_t what = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB;
    if (a->changes_fd < 0) a->changes_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (a->changes_fd >= 0 && inotify_add_watch(a->changes_fd, a->dir, what) >= 0) return;
    log_warn("keys_not_watched", "dir=%s error=\"%s\" fix=\"send SIGHUP after a change\"", a->dir,
             strerror(errno));
}

bool auth_changed(struct auth *a) {
    char events[4096] __attribute__((aligned(8)));
    bool changed = false;
    while (a->changes_fd >= 0 && read(a->changes_fd, events, sizeof events) > 0) changed = true;
    return changed;
}

void auth_reload(struct auth *a, struct tenants *t, void (*gone)(void *arg, uint32_t user),
                 void *arg) {
    char err[600];
    uint32_t n = 0, ended = 0;
    if (!a->on) return;
    watch_dir(a);
    int e = check_dir(a->dir, err, sizeof err);
    if (e == 0 && (e = read_dir(a, t)) < 0)
        err_set(err, sizeof err, e, "%s: %s", a->dir, err_text(e));
    if (e < 0) {
        complain(a->dir, err);
        return;
    }
    for (uint32_t i = 0; i < LIMIT_PEER_KEYS; i++) {
        struct auth_key *k = &a->keys[i];
        uint32_t user = k->user;
        n += user && k->seen;
        if (!user || k->seen) continue;
        log_info("key_revoked", "key=%s tenant=%s", k->cert.name, k->tenant->name);
        *k = (struct auth_key){0};
        ended++;
        gone(arg, user);
    }
    log_info("keys_loaded", "keys=%u revoked=%u", n, ended);
}

static void nobody_gone(void *arg, uint32_t user) {
    (void)arg;
    (void)user;
}

int auth_open(struct auth *a, const char *dir, struct tenants *t, char *err, size_t err_bytes) {
    char path[sizeof a->dir + 32];
    int n = snprintf(a->dir, sizeof a->dir, "%s", dir);
    a->changes_fd = -1;
    if (n < 0 || (size_t)n >= sizeof a->dir)
        return err_set(err, err_bytes, -ENAMETOOLONG, "--keys is too long");
    int e = check_dir(dir, err, err_bytes);
    if (e < 0) return e;
    snprintf(path, sizeof path, "%s/" BROKER_NAME CERT_END "_secret", a->dir);
    if ((e = cert_load(&a->own, path, err, err_bytes)) < 0) return e;
    if (!a->own.secret_key[0])
        return err_set(err, err_bytes, ERR_CORRUPT,
                       "%s holds no secret key; make it with `penstock keys init --keys %s`", path,
                       a->dir);
    a->keys = calloc(LIMIT_PEER_KEYS, sizeof *a->keys);
    if (!a->keys) return err_set(err, err_bytes, -ENOMEM, "out of memory for the keys");
    a->curve =
        (struct sock_curve){.public_key = a->own.public_key, .secret_key = a->own.secret_key};
    a->on = true;
    auth_reload(a, t, nobody_gone, NULL);
    return 0;
}

void auth_close(struct auth *a) {
    if (a->on && a->changes_fd >= 0) close(a->changes_fd);
    free(a->keys);
    *a = (struct auth){0};
}
