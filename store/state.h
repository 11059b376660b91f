/* state.h - the opened store itself, for the files of store/ only.
 *
 * Units: bytes.  Owner: store_open.  Memory: as said.  Errors: none.
 * Threads: `poisoned` and the atomic counts any; `in_use` guards meta and blob against
 * store_reopen; the rest belongs to the store thread. */
#ifndef PENSTOCK_STORE_STATE_H
#define PENSTOCK_STORE_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/jobs.h"
#include "store/txn.h"

struct store {
    char *dir;
    uint64_t meta_cap_bytes, blob_cap_bytes;
    int lock_fd, backup_fd;
    bool holding; /* a backup goes on: what the last commits dropped stays in `pending` */
    struct env *meta, *blob; /* both NULL after a reopen that failed */
    uint64_t epoch;
    uint8_t secret[16];      /* the store's id: keys what nobody may guess */
    pthread_rwlock_t in_use; /* read transactions share it, store_reopen takes it alone */
    atomic_bool poisoned;    /* a commit failed: no writes before store_reopen */
    /* As of the last commit, in bytes. */
    _Atomic uint64_t meta_live, meta_cap, blob_live, blob_cap;
    uint64_t meta_trial_pages, blob_trial_pages; /* what the commit that failed had to write */
    bool writing;
    struct store_write write; /* the one write transaction */
    struct buf pending;       /* struct blob_id: dropped by the last commit, deleted by the next */
    uint32_t fail_countdown;  /* fault injection; 0: off */
    int fail_error;
};

/* Opens meta and blob of s->dir; on failure one of them may be open all the same. */
int store_envs_open(struct store *s, bool must_exist, char *err, size_t err_bytes);
void store_envs_close(struct store *s);

/* Whether the record of id.job, or of the upload that will be it, names this payload. A damaged
 * record names all that is its own. */
int job_names_blob(struct store_read *t, struct blob_id id, bool *named);

/* Frees the readers of processes that are gone; how many there were. Any thread. */
uint32_t store_clear_readers(struct store *s);

/* Frees the payloads that no record names. */
int store_sweep(struct store_write *w);

/* Whether an entry of META_UPLOADS can be read: 0, ERR_CORRUPT, ERR_VERSION. */
int upload_is_bad(struct bytes key, struct bytes value);

/* Writes what the indexes say of a record into indexes that know nothing of it. -EEXIST: another
 * job has its idempotency key, and keeps it; all else is written. */
int job_index(struct store_write *w, const struct job_record *r);

#endif
