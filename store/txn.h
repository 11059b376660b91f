/* txn.h - what a store transaction is inside: only for the files of store/.
 *
 * Units: none.  Owner: store.c.  Memory: as said.  Errors: none.  Threads: as store.h. */
#ifndef PENSTOCK_STORE_TXN_H
#define PENSTOCK_STORE_TXN_H

#include "store/blobs.h"
#include "store/env.h"

/* Tables of meta. INFO: "version", "epoch", "id". JOBS: id -> record. KEYS: BLAKE2b of (tenant,
 * key) -> id. LIVE: ids that are not terminal. FINISHED: (finished_ms, id) of those that are
 * -> state.
 * UPLOADS: id of the job that it becomes -> record of a body that is not whole yet (uploads.h).
 * TENANTS: BLAKE2b of a tenant's name, id of its jobs; without those of tenant "default", since
 * whoever may list them may list all. SOURCES: tenant, NUL, name -> counts (sources.h).
 * ENDED: offset -> id (ended.h); INFO's "ended" is the newest, and the value of a FINISHED says
 * which one is its job's.
 * Numbers in keys are big-endian, so that they sort. */
enum meta_table {
    META_INFO,
    META_JOBS,
    META_KEYS,
    META_LIVE,
    META_FINISHED,
    META_UPLOADS,
    META_TENANTS,
    META_SOURCES,
    META_ENDED,
    META_TABLES
};
enum blob_table { BLOB_INFO, BLOB_CHUNKS, BLOB_SMALL, BLOB_TABLES };

struct store;
struct store_read {
    struct store *store;
    struct env_txn meta, blob;
    uint64_t damaged; /* records that walks of this transaction left out */
};
struct store_write {
    struct store_read view; /* both transactions are for writing */
    struct buf record;      /* scratch of the encoder */
    struct buf dropped; /* struct blob_id: payloads that a record named before this transaction */
};

/* Frees a payload once this transaction is committed and no record names it: with the next one. */
int store_drop_later(struct store_write *w, struct blob_id id);

/* A number as a key, big-endian: a job's id, or a value of INFO. */
#define NUM_KEY_BYTES 8u
struct bytes num_key(uint8_t key[NUM_KEY_BYTES], uint64_t id);
int num_of(struct bytes key, uint64_t *id); /* ERR_CORRUPT */
/* BLAKE2b-256 of (tenant, key), each with its length. */
#define KEY_HASH_BYTES 32u
void key_hash(uint8_t out[KEY_HASH_BYTES], struct bytes tenant, struct bytes key);
#define TENANT_HASH_BYTES 16u
#define TENANT_KEY_BYTES (TENANT_HASH_BYTES + NUM_KEY_BYTES)
bool tenant_indexed(struct bytes tenant);
struct bytes tenant_key(uint8_t key[TENANT_KEY_BYTES], struct bytes tenant, uint64_t id);

#define FINISHED_KEY_BYTES 16u
struct bytes finished_key(uint8_t key[FINISHED_KEY_BYTES], int64_t finished_ms, uint64_t id);

#endif
