/* upload.h - bodies that arrive in chunks, until they are submitted or dropped.
 *
 *   BEGIN --commit--> open --CHUNK, commit--> ... --> whole --SUBMIT, commit--> a job
 *                      |  DROP, or idle for upload_ttl_ms --commit--> gone
 *
 * An upload has the id of the job that it becomes, so that SUBMIT copies nothing and may be
 * repeated. Its name on the wire is that id and a number which only those can know who were told
 * (uploads_token). What is said to be there is on disk: a restarted broker goes on with it.
 *
 * `next` runs ahead of `have` while chunks are being committed. The store has the last word: a
 * chunk that does not fit behind what the record says is not written, and the table learns what is
 * there (a failed flush may have reached the disk all the same).
 *
 * Units: bytes, monotonic milliseconds.  Owner: the table owns its uploads.  Memory: LIMIT_UPLOADS
 * entries; the bytes lie in the store.  Errors: ERR_FULL, -ENOMEM.  Threads: the loop thread. */
#ifndef PENSTOCK_BROKER_UPLOAD_H
#define PENSTOCK_BROKER_UPLOAD_H

#include "base/sock.h"
#include "broker/due.h"
#include "broker/tenant.h"
#include "store/uploads.h"

struct upload {
    uint64_t id, bytes, have, next;
    uint32_t crc, have_crc;
    struct tenant *tenant;
    char *key;             /* owned, or NULL */
    struct sock_peer peer; /* who began it or wrote last; none after a restart */
    bool submitted;        /* its job is being committed */
    bool counted;          /* among its tenant's bytes; its job is, while there is one */
    struct due due;
};
struct uploads {
    struct upload *open[LIMIT_UPLOADS];
    uint32_t n, chunk_bytes;
    struct due_table due;
};

void uploads_init(struct uploads *t, uint32_t chunk_bytes);
void uploads_fini(struct uploads *t); /* accepts zeroed memory */
/* Takes what a record says; the table owns the result. ERR_FULL, -ENOMEM. */
int upload_open(struct uploads *t, const struct upload_record *r, struct tenant *tenant,
                struct upload **out);
struct upload *upload_find(const struct uploads *t, uint64_t id); /* NULL: none */
/* The one that this tenant began with the same key, length and checksum; NULL: none. */
struct upload *upload_by_key(const struct uploads *t, const struct tenant *tenant, struct bytes key,
                             uint64_t bytes, uint32_t crc);
void upload_close(struct uploads *t, struct upload *u); /* forgets and frees it */
void upload_count(struct upload *u, bool counted);      /* among its tenant's bytes, or not */
/* Uploads of this client connection, and of this tenant. */
uint32_t uploads_of_peer(const struct uploads *t, const struct sock_peer *peer);
uint32_t uploads_of_tenant(const struct uploads *t, const struct tenant *tenant);
uint64_t uploads_missing_bytes(const struct uploads *t); /* that will still come, of all */

#endif
